"""Spans: how far a head sees, as a factor m in [0, 1] on every pair of tokens.

A fixed span is a window. A learned span z has a soft edge of width R,
m = clip((R + z - distance) / R, 0, 1) (Sukhbaatar et al. 2019, arXiv:1905.07799), so that the loss
has a gradient by z. Adding log m to the scores before a simplex normaliser is the same as
multiplying its weights by m and normalising again, and defines spans for entmax too.

A learned span with a limit never sees beyond the limit and its edge, so that it runs by windows as
a fixed one does. A trained span z is the share z / S of any limit S of at least z; under a low
limit it costs less.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxcxr.errors import UserError


def _at_least(value: float, least: float, what: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < least:
        raise UserError(f"{what} is {value!r}; give a number of at least {least}.")


@dataclasses.dataclass(frozen=True)
class Global:
    """Sees every key."""

    name = "global"


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Sees the keys up to a distance.

    Arguments:
      window: largest distance seen, in the unit of the geometry (frames, patches, hops).
    """

    window: int
    name = "fixed"

    def __post_init__(self):
        _at_least(self.window, 0, "the window of fixed(WINDOW)")
        if self.window != int(self.window):
            raise UserError(f"the window of fixed(WINDOW) is {self.window}; give a whole number.")


@dataclasses.dataclass(frozen=True)
class Ramped:
    """Sees the keys up to a distance, and less and less of those beyond: a span that has learned.

    Arguments:
      span: z, in the unit of the geometry (frames, patches, hops).
      ramp: width R of the soft edge, in the same unit; above 0.
    """

    span: float
    ramp: float = 2.0
    name = "ramped"

    def __post_init__(self):
        _at_least(self.span, 0, "the span of ramped(SPAN)")
        _at_least(self.ramp, 1e-3, "the ramp of a span")


@dataclasses.dataclass(frozen=True)
class Adaptive:
    """A learned span z = S clip(u, 0, 1) for each head; u = 1 sees all, 0 only what is at hand.

    Arguments:
      ramp: width R of the soft edge, in the unit of the geometry; above 0.
      limit: S, the largest span; 0 for the largest distance of the tokens given. Fix it where
        sequences vary in length, or to compute by windows.
      init: u at the beginning; -1 for `linspace(1 / heads, 1)`, short to long.
      loss: weight of mean(u) in the loss, which makes spans short.
    """

    ramp: float = 2.0
    limit: float = 0.0
    init: float = 1.0
    loss: float = 0.0
    name = "adaptive"

    def __post_init__(self):
        _at_least(self.ramp, 1e-3, "the ramp of a span")
        _at_least(self.limit, 0, "the limit of a span")
        _at_least(self.loss, 0, "the loss of a span")
        if self.init != -1 and not 0 <= self.init <= 1:
            raise UserError(
                f"the init of adaptive(...) is {self.init}; give a share of the limit from 0 to 1, "
                "or -1 for spans from short to long."
            )

    def start(self, heads: int) -> jax.Array:
        """u of each head at the beginning, float32 `[heads]`."""
        if self.init == -1:
            return jnp.linspace(1 / heads, 1, heads, dtype=jnp.float32)
        return jnp.full((heads,), self.init, jnp.float32)


@dataclasses.dataclass(frozen=True)
class Dynamic:
    """A span z_i = S sigmoid(w . x_i + b) that each query chooses for each head.

    Arguments:
      ramp: width R of the soft edge, in the unit of the geometry; above 0.
      limit: S, the largest span; 0 for the largest distance of the tokens given.
      loss: weight of mean(z / S) in the loss, which makes spans short.
    """

    ramp: float = 2.0
    limit: float = 0.0
    loss: float = 0.0
    name = "dynamic"

    def __post_init__(self):
        _at_least(self.ramp, 1e-3, "the ramp of a span")
        _at_least(self.limit, 0, "the limit of a span")
        _at_least(self.loss, 0, "the loss of a span")


EVERYTHING = Global()
Span = Global | Fixed | Ramped | Adaptive | Dynamic
SPANS = {span.name: span for span in (Global, Fixed, Ramped, Adaptive, Dynamic)}


def reach(span: Span) -> int | None:
    """The largest whole distance that a span can ever see; None where it has no bound."""
    if isinstance(span, Global):
        return None
    if isinstance(span, Fixed):
        return int(span.window)
    longest = span.span if isinstance(span, Ramped) else span.limit
    if not longest and not isinstance(span, Ramped):
        return None
    return max(math.ceil(longest + span.ramp) - 1, 0)


def factor(
    span: Span,
    distance: jax.Array | None,
    share: jax.Array | None = None,
    limit: jax.Array | float = 0.0,
    dtype: Any = jnp.float32,
) -> jax.Array | None:
    """How much of each pair is seen.

    Arguments:
      span: of the head group.
      distance: `[queries, keys]`, at least 0.
      share: u, the learned spans over S: `[heads]` (adaptive) or `[batch, queries, heads]`
        (dynamic).
      limit: S where the span does not fix it.
      dtype: of the result.

    Returns:
      m in [0, 1], which broadcasts to `[batch, heads, queries, keys]`; None for a global span.
    """
    if isinstance(span, Global):
        return None
    assert distance is not None  # only global spans do without
    if isinstance(span, Fixed):
        return (distance <= span.window).astype(dtype)[None, None]
    if isinstance(span, Ramped):
        seen = (span.ramp + span.span - distance.astype(dtype)) / span.ramp
        return jnp.clip(seen, 0, 1)[None, None]
    assert share is not None  # learned spans have one
    share = jnp.clip(share.astype(dtype), 0, 1)
    share = share[None, None] if share.ndim == 1 else share
    share = share.swapaxes(1, 2)[..., None]
    reach = share * jnp.asarray(span.limit or limit).astype(dtype)
    return jnp.clip((span.ramp + reach - distance.astype(dtype)) / span.ramp, 0, 1)
