"""Keeps keys and values of past tokens, for attention that gets its tokens one by one."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention import alignments, spans
from jaxcxr.models.attention.geometry import Geometry, TokenSequence
from jaxcxr.models.attention.groups import HeadGroup


def check(
    groups: tuple[HeadGroup, ...], where: Geometry | None, to_itself: bool, train: bool
) -> None:
    """Checks that a layer can compute token by token.

    Raises:
      UserError: an alignment with key numbers, tokens that are no line, distances to a memory, or
        training.
    """
    if train:
        raise UserError("decode=True is for inference; train with decode=False and a causal mask.")
    if any(group.align == "location" for group in groups):
        raise UserError(
            "the alignment 'location' scores key numbers, which a cache does not keep; choose "
            "another alignment to decode token by token."
        )
    if where is not None and not isinstance(where, TokenSequence):
        raise UserError(
            f"tokens of a {type(where).__name__} do not come one after another; decode=True needs "
            "the geometry TokenSequence."
        )
    if where is not None and not to_itself:
        raise UserError(
            "decode=True knows no distances to a memory; use groups without spans and relative "
            "biases there."
        )


class Cache(nn.Module):
    """The latest keys and values of a head group, in the collection `cache`.

    Heads with a bounded span keep what it can reach, the others the length that the cache was
    made for.

    Arguments:
      group: the heads.
    """

    group: HeadGroup

    @nn.compact
    def __call__(
        self, key: jax.Array, value: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array] | None:
        """Appends tokens; the first call makes room for as many as it gets and keeps none.

        Arguments:
          key: `[batch, new, heads, width]`.
          value: `[batch, new, heads, value width]`.

        Returns:
          Keys and values, old before new, `[batch, kept + new, heads, ...]`; the positions of the
          new tokens `[new]`; those of all `[kept + new]`, negative where there is none yet. None
          in the first call.
        """
        ready = self.has_variable("cache", "cached_key")
        most = key.shape[1]
        reach = spans.reach(self.group.span)
        if reach is not None:
            beside = alignments.AREA - 1 if self.group.align == "feature" else 0
            most = min(most, reach + beside)

        def room(name: str, like: jax.Array) -> Any:
            shape = (like.shape[0], most, *like.shape[2:])
            return self.variable("cache", name, jnp.zeros, shape, like.dtype)

        kept = room("cached_key", key), room("cached_value", value)
        index = self.variable("cache", "cache_index", lambda: jnp.zeros((), jnp.int32))
        if not ready:
            return None
        new, most = key.shape[1], kept[0].value.shape[1]
        both = [jnp.concatenate([k.value, x], 1) for k, x in zip(kept, (key, value), strict=True)]
        positions = index.value - most + jnp.arange(most + new, dtype=jnp.int32)
        for variable, joined in zip(kept, both, strict=True):
            variable.value = joined[:, new:]
        index.value = index.value + new
        return *both, positions[most:], positions


def seen(mask: jax.Array | None, queries: jax.Array, keys: jax.Array) -> jax.Array:
    """Causal mask of the tokens at positions `queries` over those at `keys`.

    Arguments:
      mask: bool `[batch or 1, heads or 1, new or 1, positions]`, of all positions, or None.
      queries: `[new]`.
      keys: `[kept + new]`, negative where there is none.

    Returns:
      bool `[batch or 1, heads or 1, new, kept + new]`.
    """
    past = ((keys <= queries[:, None]) & (keys >= 0))[None, None]
    return past if mask is None else past & jnp.take(mask, keys, -1, mode="clip")
