"""Plain multi-head attention, whose call all other kinds share."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.layers.taps import PERTURBATIONS


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
