"""Groups of heads: their properties as a value, the notation of configs, and presets."""

import dataclasses
import inspect
import re
from typing import Any

from jaxcxr.errors import UserError, did_you_mean
from jaxcxr.models.attention import alignments
from jaxcxr.models.attention.spans import EVERYTHING, SPANS, Adaptive, Dynamic, Fixed, Global, Span

NORMS = ("softmax", "sigmoid", "sparsemax", "entmax15", "entmax", "quasi", "linear")
GATES = ("none", "static", "token", "element")
MIXES = ("none", "talking")
BIASES = ("none", "alibi", "table")

_CHOICES = {
    "align": alignments.NAMES, "norm": NORMS, "gate": GATES, "mix": MIXES, "rel_bias": BIASES,
}
# Every word of a group in text names one value of one property.
_WORDS = {
    word: field for field, words in _CHOICES.items() for word in words if word != "none"
} | {word: "span" for word in SPANS} | {"qk_norm": "qk_norm"}


@dataclasses.dataclass(frozen=True)
class HeadGroup:
    """Heads of one kind.

    Arguments:
      count: number of heads.
      head_dim: width of queries and keys; by default the heads that name none share what is left
        of the width of the tokens equally.
      v_dim: width of values; `head_dim` by default.
      align: alignment function, a name of `alignments.NAMES`.
      norm: from scores to weights: "softmax", "sparsemax", "entmax15", "entmax" (order learned by
        each head), "sigmoid", "quasi" or, for the alignment `kernel` alone, "linear".
      span: which keys are seen, see `spans`.
      gate: how much each head counts: "none", "static", "token" or "element", see
        `head_parts`.
      mix: "talking" mixes scores, and weights, over the heads of the group (Shazeer et al. 2020).
      rel_bias: added to the scores: "alibi" (a slope of each head times the distance, Press et al.
        2022) or "table" (learned for each relative position: Raffel et al. 2020, Liu et al. 2021).
      max_keys: the largest number of keys, for the alignment `location`.
      gate_loss: weight in the loss of the mean probability that a static gate is open, or of
        half the mean of token and element gates.
      qk_norm: layer normalisation, with a scale and no bias, of every query and key, so that
        scores cannot grow without bound (Dehghani et al. 2023, arXiv:2302.05442).
    """

    count: int
    head_dim: int | None = None
    v_dim: int | None = None
    align: str = "scaled_dot"
    norm: str = "softmax"
    span: Span = EVERYTHING
    gate: str = "none"
    mix: str = "none"
    rel_bias: str = "none"
    max_keys: int = 0
    gate_loss: float = 0.0
    qk_norm: bool = False

    def __post_init__(self):
        for field, allowed in _CHOICES.items():
            value = getattr(self, field)
            if value not in allowed:
                raise UserError(
                    f"{field}={value!r} of a head group is not known."
                    f"{did_you_mean(str(value), allowed)} Use one of {', '.join(allowed)}."
                )
        for field in ("count", "head_dim", "v_dim"):
            value = getattr(self, field)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UserError(f"{field}={value!r} of a head group; give a whole number above 0.")
        if (self.align == "kernel") != (self.norm == "linear"):
            raise UserError(
                "the alignment 'kernel' and the normaliser 'linear' go together: neither works "
                "with another; write kernel/linear."
            )
        if self.gate_loss and self.gate == "none":
            raise UserError("gate_loss needs a gate; choose static, token or element.")
        if not self.gate_loss >= 0:
            raise UserError(f"gate_loss={self.gate_loss!r}; give a number of at least 0.")

    @property
    def needs_distance(self) -> bool:
        """Whether the heads ask how far tokens are from each other."""
        return not isinstance(self.span, Global) or self.rel_bias != "none"


@dataclasses.dataclass(frozen=True)
class Cost:
    """Loss on the expected cost of a layer, weight * max(0, cost / cost of plain heads - budget).

    Arguments:
      budget: share of the FLOPs of equal heads that see everything.
      weight: of the excess, in the loss.
    """

    budget: float = 0.5
    weight: float = 0.1

    def __post_init__(self):
        for field in ("budget", "weight"):
            value = getattr(self, field)
            if not isinstance(value, int | float) or not value >= 0:
                raise UserError(f"cost({field}={value!r}); give a number of at least 0.")


def widths(groups: tuple[HeadGroup, ...], dim: int) -> tuple[tuple[int, int], ...]:
    """(width of queries and keys, width of values) of each group in a layer of width `dim`."""
    left = dim - sum(g.count * g.head_dim for g in groups if g.head_dim)
    sharing = sum(g.count for g in groups if not g.head_dim)
    if sharing and (left <= 0 or left % sharing):
        raise UserError(
            f"{sharing} heads cannot share {left} of the width {dim} equally; change their number, "
            "the width, or give sizes by dim(SIZE)."
        )
    sizes = [g.head_dim or left // sharing for g in groups]
    return tuple((size, g.v_dim or size) for g, size in zip(groups, sizes, strict=True))


def parse_groups(text: str) -> tuple[tuple[HeadGroup, ...], Cost | None]:
    """Reads head groups such as `2*global + 6*fixed(16)/entmax15/static(0.01)`.

    Groups are joined by `+`. A group is its number of heads, `*`, and words joined by `/`, in any
    order, each for one property: a span (`global`, `fixed(16)`, `adaptive(ramp=2,init=-1)`,
    `dynamic(2)`), an alignment, a normaliser, a gate (`static(LOSS)`), `talking`, a relative bias,
    `qk_norm`, or `dim(64)` or `dim(64,32)` for the widths of a head. What is not named is as in
    `HeadGroup`. A term `cost(budget=0.6,weight=0.1)` adds the loss `Cost`.

    Returns:
      (groups, cost or None).

    Raises:
      UserError: the text cannot be read; the message quotes the part.
    """
    groups, cost = [], None
    for term in (part.strip() for part in text.split("+")):
        word, arguments = call(term) if "*" not in term else ("", {})
        if word == "cost":
            cost = construct(Cost, arguments, term)
            continue
        count, star, words = term.partition("*")
        if not star or not count.strip().isdigit():
            raise UserError(
                f"{term!r} in the attention {text!r} is not a group of heads; write "
                "NUMBER*WORD/WORD, such as 4*global or 4*fixed(16)/entmax15."
            )
        groups.append(_group(int(count), words, term))
    if not groups:
        raise UserError(f"the attention {text!r} has no heads; add a group such as 4*global.")
    return tuple(groups), cost


def _group(count: int, words: str, term: str) -> HeadGroup:
    fields: dict[str, Any] = {}
    for part in words.split("/"):
        word, arguments = call(part.strip())
        if word == "dim":
            new = construct(_dim, arguments, part)
        elif word not in _WORDS:
            known = (*_WORDS, "dim")
            raise UserError(
                f"{word!r} in the heads {term!r} is not known.{did_you_mean(word, known)} "
                f"Words: {', '.join(known)}."
            )
        elif _WORDS[word] == "span":
            new = {"span": construct(SPANS[word], arguments, part)}
        elif word == "location":
            new = {"align": word, **construct(_location, arguments, part)}
        elif _WORDS[word] == "gate":
            new = {"gate": word, **construct(_gate, arguments, part)}
        else:
            if arguments:
                raise UserError(f"{word!r} takes no arguments; write it without parentheses.")
            new = {_WORDS[word]: True if word == "qk_norm" else word}
        twice = fields.keys() & new.keys()
        if twice:
            raise UserError(f"the heads {term!r} name {', '.join(sorted(twice))} twice; leave one.")
        fields |= new
    return HeadGroup(count, **fields)


def format_groups(groups: tuple[HeadGroup, ...], cost: Cost | None = None) -> str:
    """Writes groups as text; the inverse of `parse_groups`."""
    terms = [_group_text(group) for group in groups]
    if cost is not None:
        terms.append(f"cost(budget={_literal(cost.budget)},weight={_literal(cost.weight)})")
    return "+".join(terms)


def _group_text(group: HeadGroup) -> str:
    words = [_span_text(group.span)]
    if group.align == "location":
        words.append(f"location({group.max_keys})")
    elif group.align != "scaled_dot":
        words.append(group.align)
    if group.norm != "softmax":
        words.append(group.norm)
    if group.gate != "none":
        loss = f"({_literal(group.gate_loss)})" if group.gate_loss else ""
        words.append(group.gate + loss)
    words += [word for word in (group.mix, group.rel_bias) if word != "none"]
    if group.qk_norm:
        words.append("qk_norm")
    if group.head_dim:
        same = group.v_dim in (None, group.head_dim)
        words.append(f"dim({group.head_dim})" if same else f"dim({group.head_dim},{group.v_dim})")
    return f"{group.count}*{'/'.join(words)}"


def _span_text(span: Span) -> str:
    """Writes a span: arguments without a default first, by position, then what differs from one."""
    arguments = []
    for field in dataclasses.fields(span):
        value = getattr(span, field.name)
        if field.default is dataclasses.MISSING:
            arguments.append(_literal(value))
        elif value != field.default:
            arguments.append(f"{field.name}={_literal(value)}")
    return f"{span.name}({','.join(arguments)})" if arguments else span.name


def _literal(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _dim(head: int, value: int | None = None) -> dict[str, Any]:
    return {"head_dim": head, "v_dim": value}


def _location(max_keys: int) -> dict[str, Any]:
    return {"max_keys": max_keys}


def _gate(loss: float = 0.0) -> dict[str, Any]:
    return {"gate_loss": loss}


def call(text: str) -> tuple[str, dict[str | int, Any]]:
    """Reads `word` or `word(1, name=2)`: the word, and arguments by position or name.

    Raises:
      UserError: it has another form.
    """
    match = re.fullmatch(r"([a-z][a-z0-9_]*)\s*(?:\(([^()]*)\))?", text.strip())
    if not match:
        raise UserError(f"{text!r} cannot be read; write a word or WORD(NUMBER, NAME=NUMBER).")
    arguments: dict[str | int, Any] = {}
    for position, item in enumerate(filter(None, (match[2] or "").split(","))):
        name, equals, value = item.rpartition("=")
        key = name.strip() if equals else position
        if key in arguments:
            raise UserError(f"{text!r} gives {key} twice; leave one.")
        arguments[key] = _value(value.strip(), text)
    return match[1], arguments


def _value(text: str, where: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    if not re.fullmatch(r"[a-z][a-z0-9_]*", text):
        raise UserError(f"{text!r} in {where!r} is neither a number nor a word.")
    return text


def construct(function: Any, arguments: dict[str | int, Any], where: str, *first: Any) -> Any:
    """Calls `function(*first, ...)` with arguments as `call` returns them, if they fit."""
    positional = [value for key, value in arguments.items() if isinstance(key, int)]
    named = {key: value for key, value in arguments.items() if isinstance(key, str)}
    signature = inspect.signature(function)
    try:
        signature.bind(*first, *positional, **named)
    except TypeError as error:
        names = ", ".join(list(signature.parameters)[len(first) :]) or "none"
        raise UserError(f"{where.strip()!r}: {error}; its arguments: {names}.") from None
    return function(*first, *positional, **named)


Groups = tuple[HeadGroup, ...]


def _part(heads: int, part: int | None, default: int, what: str) -> int:
    part = default if part is None else part
    if not isinstance(part, int) or not 0 <= part <= heads:
        raise UserError(f"{what}={part!r} of {heads} heads; give a number from 0 to {heads}.")
    return part


def _split(*groups: tuple[int, dict]) -> Groups:
    return tuple(HeadGroup(count, **fields) for count, fields in groups if count)


def plain(heads: int) -> Groups:
    """Equal heads that see everything: multi-head attention."""
    return (HeadGroup(heads),)


def local_global(heads: int, window: int = 16, local: int | None = None) -> Groups:
    """Heads with a window, by default three quarters of all, and heads that see everything."""
    local = _part(heads, local, heads * 3 // 4, "local")
    return _split((heads - local, {}), (local, {"span": Fixed(window)}))


def adaptive_span(
    heads: int, ramp: float = 2.0, init: float = 1.0, loss: float = 0.0, limit: float = 0.0
) -> Groups:
    """Heads that each learn how far they see; options as in `spans.Adaptive`."""
    return (HeadGroup(heads, span=Adaptive(ramp, limit, init, loss)),)


def dynamic_span(heads: int, ramp: float = 2.0, loss: float = 0.0, limit: float = 0.0) -> Groups:
    """Heads whose queries each choose how far they see; options as in `spans.Dynamic`."""
    return (HeadGroup(heads, span=Dynamic(ramp, limit, loss)),)


def entmax(heads: int) -> Groups:
    """Heads that each learn how sparse their weights are."""
    return (HeadGroup(heads, norm="entmax"),)


def mixed_alignment(heads: int) -> Groups:
    """One additive head, the others divided among scaled dot product, general and similarity."""
    general = similarity = (heads - 1) // 3
    return _split(
        (heads - 1 - general - similarity, {}),
        (general, {"align": "general"}),
        (similarity, {"align": "similarity"}),
        (1, {"align": "additive"}),
    )


def gated(heads: int, gate: str = "static", loss: float = 0.0) -> Groups:
    """Plain heads with static, token or element gates, which weigh `loss` in the loss."""
    return (HeadGroup(heads, gate=gate, gate_loss=loss),)


def thesis_all(
    heads: int, ramp: float = 2.0, span_loss: float = 0.0, gate_loss: float = 0.0
) -> Groups:
    """Everything at once: learned spans from short to long, learned sparsity, gates, alignments.

    Half of the heads are scaled dot products with entmax of learned order; the other half are
    general, with softmax.
    """
    common = {
        "span": Adaptive(ramp, init=-1, loss=span_loss), "gate": "static", "gate_loss": gate_loss,
    }
    return _split(
        (heads - heads // 2, {**common, "norm": "entmax"}),
        (heads // 2, {**common, "align": "general"}),
    )


PRESETS = {
    "plain": plain,
    "local_global": local_global,
    "adaptive_span": adaptive_span,
    "dynamic_span": dynamic_span,
    "entmax": entmax,
    "mixed_alignment": mixed_alignment,
    "gated": gated,
    "thesis_all": thesis_all,
}
