"""Attention with relative positions over a remembered segment (Dai et al. 2019, Transformer-XL)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcxr.models.attention.projections import from_heads, to_heads
from jaxcxr.models.transformer import sinusoidal


def relative_shift(scores: jax.Array, keys: int) -> jax.Array:
    """Picks for query i and key j the score of their distance, by strides instead of a gather.

    Arguments:
      scores: `[..., queries, distances]`; element p of a row belongs to the distance
        i - j = keys - 1 - p, with positions counted so that the last query and key coincide.
        Distances run from keys - 1 down to 1 - queries: keys + queries - 1 of them.
      keys: number of keys.

    Returns:
      `[..., queries, keys]`.
    """
    *lead, queries, distances = scores.shape
    # Row i starts at queries - 1 - i, which is a stride of one less than the row's length.
    flat = scores.reshape(*lead, queries * distances)
    first = queries - 1
    flat = flat[..., first : first + queries * (distances - 1)] if queries > 1 else flat
    width = distances - 1 if queries > 1 else distances
    return flat.reshape(*lead, queries, width)[..., :keys]


class TransformerXL(nn.Module):
    """Relative attention over `x` and, before it, a remembered segment (section 3.3).

    (q_i + u) . k_j + (q_i + v) . W_R R_{i - j}, scaled and softmaxed over the keys
    [stop-gradient(memory); x], with sinusoidal R. Without memory it is relative self-attention.
    The paper's decoder is causal; encoders see later positions too, at negative distances.
    Cost proportional to length x (length + memory).

    Arguments:
      heads: number of heads; must divide the width, which is even.
      dropout: rate on the attention weights.
      dtype: of the computation; scores and softmax are float32.
      causal: a position sees no later one.
      clamp: distances beyond it count as it; 0 for none.
    """

    heads: int
    dropout: float = 0.0
    dtype: Any = jnp.float32
    causal: bool = False
    clamp: int = 0

    def _distances(self, queries: int, keys: int) -> np.ndarray:
        found = np.arange(keys - 1, -queries, -1)
        return np.clip(found, -self.clamp, self.clamp) if self.clamp else found

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
        """Attends from `x` to `memory` and `x`.

        Arguments:
          x: `[batch, length, dim]`.
          memory: `[batch, remembered, dim]`, the inputs of this layer for the positions right
            before `x`; no gradient goes into it.
          mask: bool `[batch or 1, heads or 1, length or 1, remembered + length]`, True where a
            key is seen.
          distance: not used; distances are those of the positions.
          train: applies dropout (needs the rng `dropout`).

        Returns:
          `[batch, length, dim]`.

        Raises:
          UserError: `heads` does not divide `dim`, or `dim` is odd.
        """
        del distance
        past = x if memory is None else jnp.concatenate([jax.lax.stop_gradient(memory), x], 1)
        length, total = x.shape[1], past.shape[1]
        query = to_heads(x, self.heads, self.dtype, "query")
        key, value = (to_heads(past, self.heads, self.dtype, name) for name in ("key", "value"))
        width = query.shape[-1]
        codes = sinusoidal(self._distances(length, total), x.shape[-1])
        relative = nn.DenseGeneral(
            (self.heads, width),
            use_bias=False,
            dtype=self.dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            name="relative",
        )(jnp.asarray(codes, self.dtype))
        of_content, of_position = (
            self.param(name, nn.initializers.zeros, (self.heads, width), jnp.float32)
            for name in ("content_bias", "position_bias")
        )

        def scores(equation: str, bias: jax.Array, against: jax.Array) -> jax.Array:
            biased = query + bias.astype(self.dtype)
            return jnp.einsum(equation, biased, against, preferred_element_type=jnp.float32)

        logits = scores("bqhd,bkhd->bhqk", of_content, key)
        logits += relative_shift(scores("bqhd,phd->bhqp", of_position, relative), total)
        seen = jnp.ones((1, 1, 1, 1), bool) if mask is None else mask
        if self.causal:
            seen = seen & jnp.tril(jnp.ones((1, 1, length, total), bool), total - length)
        logits = jnp.where(seen, logits * width**-0.5, jnp.finfo(jnp.float32).min)
        weights = nn.Dropout(self.dropout)(jax.nn.softmax(logits), deterministic=not train)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(self.dtype), value)
        return from_heads(mixed, self.dtype)
