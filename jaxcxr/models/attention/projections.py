"""Projections to heads and back, and masks, as every kind of attention needs them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention.heads import attention_weights

Drop = Callable[[jax.Array], jax.Array]

_INIT = nn.initializers.xavier_uniform()


def to_heads(x: jax.Array, heads: int, dtype: Any, name: str) -> jax.Array:
    """Projects `[batch, length, dim]` to heads, by a Dense called `name` of the calling module.

    Returns:
      `[batch, length, heads, dim / heads]`.

    Raises:
      UserError: `heads` does not divide `dim`.
    """
    dim = x.shape[-1]
    if dim % heads:
        raise UserError(f"heads={heads} does not divide the width {dim}; change either.")
    layer = nn.DenseGeneral((heads, dim // heads), dtype=dtype, kernel_init=_INIT, name=name)
    return layer(x)


def from_heads(mixed: jax.Array, dtype: Any) -> jax.Array:
    """Projects `[batch, length, heads, width]` back, by the Dense `out` of the calling module."""
    dim = mixed.shape[-2] * mixed.shape[-1]
    layer = nn.DenseGeneral(dim, axis=(-2, -1), dtype=dtype, kernel_init=_INIT, name="out")
    return layer(mixed)


def only_self(kind: str, memory: jax.Array | None) -> None:
    """Raises a UserError where self-attention of this kind is given a memory."""
    if memory is not None:
        raise UserError(f"attention {kind!r} is self-attention only; use 'mha' for a memory.")


def keys_seen(kind: str, mask: jax.Array | None) -> jax.Array | None:
    """Reads which keys are seen from a mask that may not depend on the query.

    Arguments:
      kind: name for the message.
      mask: bool `[batch or 1, heads or 1, 1, keys]` or None.

    Returns:
      bool `[batch or 1, keys, heads or 1]` or None.

    Raises:
      UserError: the mask depends on the query, as a causal mask does.
    """
    if mask is None:
        return None
    if mask.shape[2] != 1:
        raise UserError(
            f"attention {kind!r} mixes all keys before any query sees them, so that it takes masks "
            f"over keys only and no causal mask (got one of shape {mask.shape}); use another kind."
        )
    return mask[:, :, 0].swapaxes(1, 2)


def full_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None, drop: Drop
) -> jax.Array:
    """Softmax attention over all keys; returns `[batch, queries, heads, width]` like `value`.

    Arguments:
      query: `[batch, queries, heads, width]`.
      key, value: `[batch, keys, heads, width]`.
      mask: bool `[batch or 1, heads or 1, queries or 1, keys]` or None.
      drop: applied to the weights.
    """
    weights = drop(attention_weights(query, key, mask))
    return jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)
