"""Plain multi-head attention, and the call, projections and masks that all kinds share."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.layers import PERTURBATIONS

Drop = Callable[[jax.Array], jax.Array]

_INIT = nn.initializers.xavier_uniform()


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


def weighted(weights: jax.Array, value: jax.Array) -> jax.Array:
    """Sums values `[batch, keys, heads, width]` by weights `[batch, heads, queries, keys]`."""
    return jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)


class EqualHeads(nn.Module):
    """Base of the kinds with equal heads; a subclass computes `_attend`.

    Arguments:
      heads: number of heads; must divide the width of `x`.
      dropout: rate on the attention weights, drawn for each example, head, query and key.
      dtype: of the computation; scores and softmax are float32.
    """

    takes_memory: ClassVar[bool] = False

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
    ) -> Any:
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
          UserError: `heads` does not divide `dim`, or a memory for self-attention.
        """
        del distance
        if not self.takes_memory:
            only_self(type(self).__name__, memory)
        return self._attend(x, memory, mask, train)

    def _attend(
        self, x: jax.Array, memory: jax.Array | None, mask: jax.Array | None, train: bool
    ) -> jax.Array:
        raise NotImplementedError

    def _heads(self, x: jax.Array, name: str) -> jax.Array:
        """Projects `[batch, length, dim]` to `[batch, length, heads, dim of x / heads]`."""
        return to_heads(x, x.shape[-1], self.heads, self.dtype, name)

    def _out(self, mixed: jax.Array) -> jax.Array:
        """Projects `[batch, length, heads, width]` back, by the Dense `out`."""
        dim = mixed.shape[-2] * mixed.shape[-1]
        layer = nn.DenseGeneral(
            dim, axis=(-2, -1), dtype=self.dtype, kernel_init=_INIT, name="out"
        )
        return layer(mixed)


class SelfAttention(EqualHeads):
    """Base of self-attention that mixes projected values; a subclass computes `_mix`."""

    def _attend(self, x, memory, mask, train):
        query, key, value = (self._heads(x, name) for name in ("query", "key", "value"))
        drop = nn.Dropout(self.dropout, deterministic=not train)
        return self._out(self._mix(query, key, value, mask, drop))

    def _mix(
        self, query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None,
        drop: Drop,
    ) -> jax.Array:
        raise NotImplementedError


class MultiHeadAttention(EqualHeads):
    """Scaled dot-product attention with equal heads (Vaswani et al. 2017, section 3.2.2).

    With the same weights it equals `flax.linen.MultiHeadDotProductAttention`, whose softmax is in
    the compute dtype. Where the collection `attention` is mutable, the weights before dropout are
    sown into it as `weights`.
    """

    takes_memory: ClassVar[bool] = True

    def _attend(self, x, memory, mask, train):
        memory = x if memory is None else memory
        query, key, value = (
            to_heads(y, x.shape[-1], self.heads, self.dtype, name)
            for name, y in (("query", x), ("key", memory), ("value", memory))
        )
        weights = attention_weights(query, key, mask)
        if not self.is_initializing():
            self.sow("attention", "weights", weights)
            weights = self.perturb("weights", weights, PERTURBATIONS)
        weights = nn.Dropout(self.dropout)(weights, deterministic=not train)
        return self._out(weighted(weights, value))


def to_heads(x: jax.Array, dim: int, heads: int, dtype: Any, name: str) -> jax.Array:
    """Projects to `[batch, length, heads, dim / heads]`, by a Dense of the calling module."""
    if dim % heads:
        raise UserError(f"heads={heads} does not divide the width {dim}; change either.")
    return nn.DenseGeneral((heads, dim // heads), dtype=dtype, kernel_init=_INIT, name=name)(x)


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
    """
    if mask is None:
        return None
    if mask.shape[2] != 1:
        raise UserError(
            f"attention {kind!r} mixes all keys before any query sees them, so that it takes masks "
            f"over keys only and no causal mask (got one of shape {mask.shape}); use another kind."
        )
    return mask[:, :, 0].swapaxes(1, 2)
