"""Prunes a trained layer of flexible heads to a smaller one with the same outputs.

Heads whose static gate is closed go; other static gates become part of the output weights.
Learned spans are no longer learned where that saves work: those that reach every token become
global, those that can be computed by windows become `ramped`, heads of equal spans in a group. All
of it is exact, unless spans are rounded to have fewer groups.

Two kinds of groups cannot lose single heads: `talking` heads lend their scores to each other, and
the slopes of `alibi` depend on how many heads there are. There, closed heads stay with output
weights of 0, unless all are closed.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcxr.models.attention import head_parts, spans, weighing
from jaxcxr.models.attention.geometry import Geometry
from jaxcxr.models.attention.groups import Cost, HeadGroup, format_groups, widths

_ROLES = ("query", "key", "value")

# Axis of the heads in what a layer learns; the rest of what a group has of its own is by axis 0.
_AXES = {
    **{f"{role}/kernel": 1 for role in (*_ROLES, "gate", "span")},
    **{f"{role}/bias": 0 for role in (*_ROLES, "gate", "span")},
    "out/kernel": 0,
    "own/table": 1,
}
_WHOLE = ("query_norm/scale", "key_norm/scale")  # of all heads of a group together

Flat = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Part:
    """A group of the smaller layer.

    Attributes:
      source: number of the group that it comes from.
      heads: numbers of its heads in that group.
      silent: the heads are placeholders of width 1 whose output weights are 0.
    """

    group: HeadGroup
    source: int
    heads: tuple[int, ...]
    silent: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
    """The layer to prune to; `cost` is its loss on expected FLOPs, `dim` the width of tokens."""

    groups: tuple[HeadGroup, ...]
    parts: tuple[Part, ...]
    cost: Cost | None
    dim: int

    @property
    def text(self) -> str:
        """The smaller layer as a config names it, see `groups.parse_groups`."""
        return format_groups(tuple(part.group for part in self.parts), self.cost)


def plan(
    groups: tuple[HeadGroup, ...],
    cost: Cost | None,
    params: Mapping[str, Any],
    dim: int,
    where: Geometry,
    tokens: int,
    round_to: float = 0.0,
) -> Plan:
    """Plans which heads stay, and with which spans.

    Arguments:
      groups, cost: of the layer.
      params: of the layer, as `FlexibleHeadAttention` names them; gates and spans are read.
      dim: width of the tokens.
      where, tokens: geometry and number of the tokens that the model is used on.
      round_to: rounds spans that become `ramped` up to multiples of this; 0 leaves them.
    """
    def new_span(group: HeadGroup, share: float) -> spans.Span:
        learned = group.span
        assert isinstance(learned, spans.Adaptive)
        largest = where.largest(tokens, tokens)
        span = np.clip(np.float32(share), 0, 1) * np.float32(learned.limit or largest)
        if span >= largest:
            return spans.EVERYTHING
        if round_to:
            span = np.ceil(span / round_to) * round_to
        ramped = spans.Ramped(float(span), learned.ramp)
        rule = weighing.Rule(dataclasses.replace(group, span=ramped), where)
        return learned if weighing.tiling(rule, tokens) is None else ramped

    sizes = widths(groups, dim)
    parts = []
    for index, (group, (width, v_width)) in enumerate(zip(groups, sizes, strict=True)):
        own = params.get(f"group_{index}", {})
        heads = _kept(group, own)
        same = v_width == width
        changes: dict[str, Any] = {"head_dim": width, "v_dim": None if same else v_width}
        if group.gate == "static":
            changes |= {"gate": "none", "gate_loss": 0.0}
        for span, chosen in _by_span(group, own, heads, new_span).items():
            new = dataclasses.replace(group, count=len(chosen), span=span, **changes)
            parts.append(Part(new, index, chosen))
    if not parts:  # a layer has at least one head, here one without output
        silent = HeadGroup(1, head_dim=1, span=spans.Fixed(0))
        parts.append(Part(silent, 0, (0,), silent=True))
    if not any(_learned(part.group) for part in parts):
        cost = None
    return Plan(tuple(groups), tuple(parts), cost, dim)


def apply(plan_: Plan, params: Mapping[str, Any]) -> dict[str, Any]:
    """Computes the parameters of the smaller layer, NumPy arrays.

    Arguments:
      plan_: of `plan`; its gates may come from other parameters of the same layer, such as a
        moving average of these.
      params: of the layer, as `FlexibleHeadAttention` names them.
    """
    taken, bias = _take_apart(plan_.groups, params, plan_.dim)
    made = []
    for part in plan_.parts:
        flat = _of_heads(taken[part.source], part.heads)
        if part.silent:
            flat = _silenced(flat)
        elif plan_.groups[part.source].gate == "static":
            gate = np.asarray(head_parts.hard_concrete(jnp.asarray(flat.pop("own/gate"))))
            flat["out/kernel"] = flat["out/kernel"] * gate[:, None, None]
        if not isinstance(part.group.span, spans.Adaptive):
            flat.pop("own/span", None)
        made.append(flat)
    return _put_together(tuple(part.group for part in plan_.parts), made, bias, plan_.dim)


def _kept(group: HeadGroup, own: Mapping[str, Any]) -> tuple[int, ...]:
    everything = tuple(range(group.count))
    if group.gate != "static":
        return everything
    opened = np.flatnonzero(np.asarray(head_parts.hard_concrete(jnp.asarray(own["gate"]))) > 0)
    heads = tuple(int(head) for head in opened)
    return heads if not heads or _divides(group, heads) else everything


def _divides(group: HeadGroup, heads: tuple[int, ...]) -> bool:
    """Whether these heads give the same outputs without the others of their group."""
    if len(heads) == group.count:
        return True
    if group.rel_bias == "alibi":
        slopes = weighing.alibi_slopes(group.count)[list(heads)]
        if not np.array_equal(slopes, weighing.alibi_slopes(len(heads))):
            return False
    return group.mix != "talking"


def _by_span(
    group: HeadGroup,
    own: Mapping[str, Any],
    heads: tuple[int, ...],
    new_span: Callable[[HeadGroup, float], spans.Span],
) -> dict[spans.Span, tuple[int, ...]]:
    """The heads of a group by what their span becomes."""
    if not heads:
        return {}
    found: dict[spans.Span, tuple[int, ...]] = {}
    if isinstance(group.span, spans.Adaptive):
        for head in heads:
            span = new_span(group, own["span"][head])
            found[span] = (*found.get(span, ()), head)
    if found and all(_divides(group, chosen) for chosen in found.values()):
        return found
    return {group.span: heads}


def _learned(group: HeadGroup) -> bool:
    """Whether the expected cost of the heads changes in training."""
    return isinstance(group.span, spans.Adaptive | spans.Dynamic) or group.gate == "static"


def _take_apart(
    groups: tuple[HeadGroup, ...], params: Mapping[str, Any], dim: int
) -> tuple[list[Flat], np.ndarray]:
    """Parameters of each group, by names that do not depend on the other groups, and the bias."""
    sizes, found, first = widths(groups, dim), [], 0
    fused = len(set(sizes)) == 1
    for index, group in enumerate(groups):
        flat: Flat = {}
        heads = range(first, first + group.count)
        for name in ("query/kernel", "query/bias", "key/kernel", "key/bias", "value/kernel",
                     "value/bias", "out/kernel"):
            role, leaf = name.split("/")
            if fused:
                flat[name] = np.take(params[role][leaf], heads, _AXES[name])
            else:
                flat[name] = np.asarray(params[f"group_{index}_{role}"][leaf])
        for role in ("gate", "span", "query_norm", "key_norm"):
            for leaf, value in params.get(f"group_{index}_{role}", {}).items():
                flat[f"{role}/{leaf}"] = np.asarray(value)
        for leaf, value in params.get(f"group_{index}", {}).items():
            flat[f"own/{leaf}"] = np.asarray(value)
        found.append(flat)
        first += group.count
    return found, np.asarray(params["out" if fused else "group_0_out"]["bias"])


def _of_heads(flat: Flat, heads: tuple[int, ...]) -> Flat:
    found = {}
    for name, value in flat.items():
        # Talking heads stay together, so that their square matrices are taken whole.
        whole = name in _WHOLE or name.startswith("own/talk_")
        found[name] = value if whole else np.take(value, heads, _AXES.get(name, 0))
    return found


def _silenced(flat: Flat) -> Flat:
    """The first column of each head, which leads nowhere but can be trained."""
    found = {name: flat[name][..., :1] for name in _AXES if name.split("/")[0] in _ROLES}
    return found | {"out/kernel": np.zeros_like(flat["out/kernel"][:, :1])}


def _put_together(
    groups: tuple[HeadGroup, ...], parts: list[Flat], bias: np.ndarray, dim: int
) -> dict[str, Any]:
    params: dict[str, Any] = {}
    fused = len(set(widths(groups, dim))) == 1
    for index, flat in enumerate(parts):
        for name, value in flat.items():
            role, leaf = name.split("/")
            if fused and role in (*_ROLES, "out"):
                params.setdefault(role, {}).setdefault(leaf, []).append(value)
                continue
            key = f"group_{index}" if role == "own" else f"group_{index}_{role}"
            params.setdefault(key, {})[leaf] = value
    if fused:
        for role in (*_ROLES, "out"):
            params[role] = {
                leaf: np.concatenate(values, _AXES[f"{role}/{leaf}"])
                for leaf, values in params[role].items()
            }
    params["out" if fused else "group_0_out"]["bias"] = bias
    return params
