"""Parts with which a transformer over frames reads its frames one by one.

Tokens are kept in the collection `cache`, which `init` makes from a clip of as many frames as are
to be remembered. The first block over frames may look `ahead`: it then computes the
token of the frame that came so many frames ago, and all blocks after it follow that late.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention import factory
from jaxcxr.models.attention.flexible import FlexibleHeadAttention
from jaxcxr.models.attention.geometry import TokenSequence
from jaxcxr.models.attention.heads import MultiHeadAttention
from jaxcxr.models.layers.positions import TimePositions, sinusoidal
from jaxcxr.models.sequence import transformer

POSITIONS = ("sinusoidal", "learned", "none")

# Frames between two entries of the coarse table of positions; both tables have as many rows.
_ROWS = 1024


def _function(make: Callable[..., nn.Module]) -> Any:
    while isinstance(make, functools.partial):
        make = make.func
    return make


def stepwise(make: Callable[..., nn.Module], ahead: int) -> Callable[..., nn.Module]:
    """Returns a function that makes the same attention for tokens that come one by one.

    Arguments:
      make: makes the attention, as `attention.factory` returns it.
      ahead: tokens after its own that a token sees.

    Raises:
      UserError: this kind needs all tokens at once.
    """
    kind = _function(make)
    if kind is MultiHeadAttention and not ahead:
        plain = make(parent=None)
        make = factory(f"{plain.heads}*global", heads=plain.heads, dropout=plain.dropout,
                       dtype=plain.dtype)
    elif kind not in (MultiHeadAttention, FlexibleHeadAttention):
        raise UserError(
            "this kind of attention needs all frames at once; for a stream use 'mha' or groups of "
            "heads such as '4*global+4*fixed(8)'."
        )
    if ahead:
        return functools.partial(AheadAttention, make, ahead)
    return functools.partial(make, decode=True)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Behind(TokenSequence):
    """A line of kept tokens, and one of them, before the last, by itself.

    Arguments:
      kept: number of tokens.
      ahead: how many stand after the one.
    """

    kept: int = 0
    ahead: int = 0

    def places(self, count: int) -> np.ndarray:
        """Places of all kept tokens, or of the one."""
        whole = super().places(self.kept)
        return whole if count == self.kept else whole[[self.kept - 1 - self.ahead]]

    def largest(self, queries: int, keys: int) -> int:
        """The largest distance in the clip for which the tokens are kept."""
        return super().largest(queries, keys) - self.ahead


class AheadAttention(nn.Module):
    """Attention of a token that sees `ahead` tokens after it, from the tokens kept so far.

    Arguments:
      attention: makes the attention, whose parameters are those of this module.
      ahead: how many.
    """

    attention: Callable[..., nn.Module]
    ahead: int

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array | None = None,
        *,
        mask: jax.Array | None = None,
        distance: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """Attends from the first token of `x`; the output, like `x`, counts for that token only.

        Arguments:
          x: `[batch, ahead + 1, dim]`, the token and those after it, of which the last is new;
            in the first call the tokens of all frames to keep.
          memory, distance, train: as they are without a memory, a distance and training.
          mask: bool `[batch or 1, 1, 1, 1]`, False where the last token is no frame.
        """
        del memory, distance, train
        inner = self.attention()
        nn.share_scope(self, inner)
        ready = self.has_variable("cache", "tokens")
        shape = (x.shape[0], x.shape[1] + self.ahead, x.shape[2])
        tokens = self.variable("cache", "tokens", jnp.zeros, shape, x.dtype)
        there = self.variable("cache", "there", jnp.zeros, shape[:2], jnp.bool_)
        if not ready:
            return inner(x)
        batch, kept = there.value.shape
        new = jnp.ones((1, 1), bool) if mask is None else mask[:, 0, 0]
        new = jnp.broadcast_to(new, (batch, 1))
        tokens.value = jnp.concatenate([tokens.value[:, 1:], x[:, -1:]], 1)
        there.value = jnp.concatenate([there.value[:, 1:], new], 1)
        seen = transformer.key_mask(there.value)
        options = {}
        if isinstance(inner, FlexibleHeadAttention):
            options["distance"] = _Behind(kept=kept, ahead=self.ahead)
        out = inner(x[:, :1], tokens.value, mask=seen, **options)
        return jnp.broadcast_to(out, x.shape)


class Latest(nn.Module):
    """The latest tokens, the oldest first.

    Arguments:
      count: how many.
    """

    count: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Takes the next token `[batch, 1, dim]` and returns `[batch, count, dim]`.

        The first call gets the tokens of all frames to keep, and returns them.
        """
        ready = self.has_variable("cache", "latest")
        shape = (x.shape[0], self.count, x.shape[2])
        latest = self.variable("cache", "latest", jnp.zeros, shape, x.dtype)
        if not ready:
            return x
        latest.value = jnp.concatenate([latest.value[:, 1:], x], 1)
        return latest.value


class Positions(nn.Module):
    """Adds the number of each frame along the second to last axis of `[..., frames, dim]`.

    Arguments:
      kind: "sinusoidal" (any number of frames), "learned" (up to `max_length`), or "none", where
        the attention itself tells distances, so that a stream has no beginning.
      max_length: rows of the learned table.
      std: of the learned table at initialisation.
      decode: each call gets the next frame; learned positions stay at the last once they end.
    """

    kind: str
    max_length: int
    std: float
    decode: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `x` plus its positions, in the dtype of `x`."""
        if self.kind == "none":
            return x
        if self.kind not in POSITIONS:
            raise UserError(
                f"positions={self.kind!r} is not known; use 'sinusoidal' or 'learned', or 'none'."
            )
        table = TimePositions(self.kind, self.max_length, self.std)
        nn.share_scope(self, table)
        if not self.decode:
            return table(x)
        ready = self.has_variable("cache", "frame")
        frame = self.variable("cache", "frame", jnp.zeros, (), jnp.int32)
        if not ready:
            return table(x)
        now = frame.value
        frame.value = now + 1
        dim = x.shape[-1]
        if self.kind == "sinusoidal":
            return x + _sinusoidal(now, dim).astype(x.dtype)
        codes = table(jnp.zeros((self.max_length, dim), x.dtype))
        return x + jax.lax.dynamic_slice_in_dim(codes, now, 1)


def _sinusoidal(frame: jax.Array, dim: int) -> jax.Array:
    """The code of `sinusoidal` at an int32 scalar, up to a million; float32 `[dim]`.

    By the sum of angles from a coarse and a fine table: a float32 angle would be wrong by more
    than 1e-5 after a few hundred frames.
    """
    fine = sinusoidal(np.arange(_ROWS), dim).reshape(_ROWS, -1, 2)
    coarse = sinusoidal(np.arange(_ROWS) * _ROWS, dim).reshape(_ROWS, -1, 2)
    sin_a, cos_a = jnp.moveaxis(jnp.asarray(coarse)[frame // _ROWS], -1, 0)
    sin_b, cos_b = jnp.moveaxis(jnp.asarray(fine)[frame % _ROWS], -1, 0)
    both = (sin_a * cos_b + cos_a * sin_b, cos_a * cos_b - sin_a * sin_b)
    return jnp.stack(both, -1).reshape(dim)
