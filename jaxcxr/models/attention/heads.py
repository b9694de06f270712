"""Plain multi-head attention, and the projections and masks that all kinds share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.layers import PERTURBATIONS


def attention_weights(
    query: jax.Array, key: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """Softmax of the scaled dot products, in float32 or, for float64 inputs, in that.

    Arguments:
      query: `[batch, queries, heads, width]`.
      key: `[batch, keys, heads, width]`.
      mask: bool `[batch or 1, heads or 1, queries or 1, keys]`, True where a key is seen.

    Returns:
      `[batch, heads, queries, keys]`; a query that sees no key weighs all keys equally.
    """
    wide = jnp.float64 if query.dtype == jnp.float64 else jnp.float32
    scale = query.shape[-1] ** -0.5
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=wide) * scale
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(wide).min)
    return jax.nn.softmax(scores)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with equal heads (Vaswani et al. 2017, section 3.2.2).

    With the same weights it equals `flax.linen.MultiHeadDotProductAttention`, whose softmax is in
    the compute dtype. Where the collection `attention` is mutable, the weights before dropout are
    sown into it as `weights`.

    Arguments:
      heads: number of heads; must divide the width of `x`.
      dropout: rate on the attention weights, drawn for each example, head, query and key.
      dtype: of the computation; scores and softmax are float32.
    """

    heads: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

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
        """Attends from `x` to `memory`.

        Arguments:
          x: `[batch, queries, dim]`.
          memory: `[batch, keys, dim of the memory]`; `x` itself by default.
          mask: bool `[batch or 1, heads or 1, queries or 1, keys]`, True where a key is seen.
            A query that sees no key gets the mean of all values, never NaN.
          distance: not used; of the common interface, for heads with a span.
          train: applies dropout (needs the rng `dropout`).

        Returns:
          `[batch, queries, dim]`.

        Raises:
          UserError: `heads` does not divide `dim`.
        """
        del distance
        dim = x.shape[-1]
        if dim % self.heads:
            raise UserError(f"heads={self.heads} does not divide the width {dim}; change either.")
        memory = x if memory is None else memory

        def project(name: str, y: jax.Array) -> jax.Array:
            shape = (self.heads, dim // self.heads)
            return nn.DenseGeneral(
                shape, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name=name
            )(y)

        query, key, value = project("query", x), project("key", memory), project("value", memory)
        weights = attention_weights(query, key, mask)
        if not self.is_initializing():
            self.sow("attention", "weights", weights)
            weights = self.perturb("weights", weights, PERTURBATIONS)
        weights = nn.Dropout(self.dropout)(weights, deterministic=not train)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(self.dtype), value)
        return nn.DenseGeneral(
            dim,
            axis=(-2, -1),
            dtype=self.dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            name="out",
        )(mixed)


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
