"""The two factorised patterns of sparse transformers (Child et al. 2019, arXiv:1904.10509)."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention.projections import Drop, from_heads, only_self, to_heads
from jaxcxr.models.attention.tiling import Extra, Tiling, mask_of_tiles, tiled_attention


class _Sparse(nn.Module):
    """Projections around `_attend`, which both patterns share; arguments as in `Strided`."""

    heads: int
    dropout: float = 0.0
    dtype: Any = jnp.float32
    stride: int = 0
    causal: bool = False

    def _stride(self, length: int) -> int:
        if self.stride < 0:
            raise UserError(f"stride={self.stride} is negative; use 0 for the root of the length.")
        return min(self.stride or math.isqrt(length - 1) + 1, length)

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
        """Attends within `x`; arguments and shapes as in `MultiHeadAttention.__call__`."""
        del distance
        only_self(type(self).__name__, memory)
        query, key, value = (
            to_heads(x, self.heads, self.dtype, name) for name in ("query", "key", "value")
        )
        drop = nn.Dropout(self.dropout, deterministic=not train)
        return from_heads(self._attend(query, key, value, mask, drop), self.dtype)


class Strided(_Sparse):
    """Each position sees its neighbourhood and every `stride`-th position from itself.

    All heads see the union {j : |i - j| <= stride} and {j : (i - j) mod stride = 0}; with
    `causal`, the j <= i of it, the paper's strided pattern with merged heads (equation 8).
    Self-attention only; cost proportional to length x (3 stride + length / stride).

    Arguments:
      heads, dropout, dtype: as in `MultiHeadAttention`.
      stride: distance between the positions; 0 is the root of the length, rounded up.
      causal: a position sees no later one.
    """

    def _columns(self, tiling: Tiling, mask: jax.Array | None) -> jax.Array:
        """Positions seen beyond the window: bool `[batch or 1, tiles, heads or 1, tile, tiles]`."""
        positions = tiling.positions()[0]
        count = positions.shape[0]
        gap = jnp.arange(count)[:, None] - jnp.arange(count)
        far = gap > 1 if self.causal else jnp.abs(gap) > 1
        seen = far[:, None] & (positions >= 0).T
        seen = seen[None, :, None]
        if mask is None:
            return seen
        inside = jnp.maximum(positions, 0)
        if mask.shape[2] == 1:
            return seen & mask[:, :, 0][:, :, inside].swapaxes(2, 3)[:, None]
        picked = mask[:, :, inside[:, :, None], inside.T[None]]
        return seen & picked.swapaxes(1, 2)

    def _attend(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        mask: jax.Array | None,
        drop: Drop,
    ) -> jax.Array:
        stride, causal = self._stride(query.shape[1]), self.causal
        tiling = Tiling((query.shape[1],), (stride,), ((stride, 0 if causal else stride),))

        def visible(queries: jax.Array, keys: jax.Array) -> jax.Array:
            near = jnp.abs(queries - keys) <= stride
            return near & (keys <= queries) if causal else near

        tiles, own_keys, own_values = (tiling.split(t, False) for t in (query, key, value))
        keys, values = tiling.split(key, True), tiling.split(value, True)
        seen = [mask_of_tiles(tiling, mask, visible), self._columns(tiling, mask)]
        # Tiles are as long as the stride: equal places in all tiles are one residue class.
        products = [("btqhd,btkhd->bthqk", keys), ("btqhd,bsqhd->bthqs", own_keys)]
        scale, lowest = query.shape[-1] ** -0.5, jnp.finfo(jnp.float32).min
        scores = [
            jnp.where(
                shown, jnp.einsum(sums, tiles, k, preferred_element_type=jnp.float32) * scale,
                lowest,
            )
            for shown, (sums, k) in zip(seen, products, strict=True)
        ]
        weights = drop(jax.nn.softmax(jnp.concatenate(scores, -1))).astype(value.dtype)
        near, far = jnp.split(weights, [keys.shape[2]], -1)
        mixed = jnp.einsum("bthqk,btkhd->btqhd", near, values)
        return tiling.join(mixed + jnp.einsum("bthqs,bsqhd->btqhd", far, own_values))


class Fixed(_Sparse):
    """Each position sees its block and the last `summary` positions of every block.

    All heads see the union; with `causal`, the j <= i of it, the paper's fixed pattern with
    merged heads (equation 8). Self-attention only; cost proportional to
    length x (stride + summary x length / stride).

    Arguments:
      stride: length of a block; 0 is the root of the length, rounded up.
      summary: positions at the end of a block that all see (the paper's c).
      the others as in `Strided`.
    """

    summary: int = 1

    def _attend(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        mask: jax.Array | None,
        drop: Drop,
    ) -> jax.Array:
        length = query.shape[1]
        stride = self._stride(length)
        if not 1 <= self.summary <= stride:
            raise UserError(
                f"summary={self.summary} positions of blocks of {stride}; choose 1 to {stride}."
            )
        tiling = Tiling((length,), (stride,), ((0, 0),))

        def not_later(queries: jax.Array, keys: jax.Array) -> jax.Array:
            return keys <= queries

        places = jnp.arange(length)
        ends = tiling.positions()[0][:, stride - self.summary :].reshape(-1)
        seen = (ends >= 0) & (ends // stride != (places // stride)[:, None])
        if self.causal:
            seen = seen & not_later(places[:, None], ends)
        ends = jnp.maximum(ends, 0)
        seen = seen[None, None] if mask is None else seen & mask[..., ends]
        return tiled_attention(
            query,
            key,
            value,
            tiling,
            mask=mask,
            drop=drop,
            visible=not_later if self.causal else None,
            extra=Extra(key[:, ends], value[:, ends], seen),
        )
