"""Named choices of head groups; each takes the number of heads of the layer and its own options.

In a config: `attention="local_global(window=8)"`.
"""

from jaxcxr.errors import UserError
from jaxcxr.models.attention.groups import HeadGroup
from jaxcxr.models.attention.spans import Adaptive, Dynamic, Fixed

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
    """Heads with a window, and heads that see everything.

    Arguments:
      heads: of the layer.
      window: largest distance seen by the local heads, in frames, patches or hops.
      local: number of local heads; three quarters by default.
    """
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
    """Plain heads with gates.

    Arguments:
      heads: of the layer.
      gate: "static", "token" or "element".
      loss: weight of the gates in the loss.
    """
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
