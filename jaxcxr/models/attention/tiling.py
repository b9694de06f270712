"""Attention inside windows of a line or a grid, at the cost of the windows alone."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxcxr.models.attention.heads import Drop


def _windows(t: jax.Array, axis: int, size: int, before: int, after: int) -> jax.Array:
    """Replaces an axis by (blocks, before + size + after); zeros stand outside the axis."""
    count = -(-t.shape[axis] // size)
    front, back = -(-before // size), -(-after // size)
    pad = [(0, 0)] * t.ndim
    pad[axis] = (front * size, (count + back) * size - t.shape[axis])
    shape = (*t.shape[:axis], front + count + back, size, *t.shape[axis + 1 :])
    t = jnp.pad(t, pad).reshape(shape)
    # Shifted views, not a gather: the gradient is then a sum of slices and not a scatter.
    views = [
        jax.lax.slice_in_dim(t, start, start + count, axis=axis)
        for start in range(front + back + 1)
    ]
    joined = jnp.concatenate(views, axis + 1)
    first = front * size - before
    return jax.lax.slice_in_dim(joined, first, first + before + size + after, axis=axis + 1)


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Tiles of queries over a line or a grid, and the halo of keys around each.

    Arguments:
      shape: extent of the sequence, `(length,)` or `(rows, columns)`.
      size: extent of a tile, one number for each axis.
      halo: keys seen before and after the tile, one pair for each axis.
    """

    shape: tuple[int, ...]
    size: tuple[int, ...]
    halo: tuple[tuple[int, int], ...]

    def split(self, t: jax.Array, halo: bool) -> jax.Array:
        """Cuts `[batch, positions, ...]` into `[batch, tiles, tile (with halo), ...]`."""
        rank, rest = len(self.shape), t.shape[2:]
        t = t.reshape(t.shape[0], *self.shape, *rest)
        for axis, (size, around) in enumerate(zip(self.size, self.halo, strict=True)):
            t = _windows(t, 1 + 2 * axis, size, *(around if halo else (0, 0)))
        order = [0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2)]
        t = t.transpose(*order, *range(2 * rank + 1, t.ndim))
        counts, inner = t.shape[1 : 1 + rank], t.shape[1 + rank : 1 + 2 * rank]
        tiles, positions = 1, 1
        for count, extent in zip(counts, inner, strict=True):
            tiles, positions = tiles * count, positions * extent
        return t.reshape(t.shape[0], tiles, positions, *rest)

    def join(self, t: jax.Array) -> jax.Array:
        """Puts `[batch, tiles, tile, ...]` back to `[batch, positions, ...]`."""
        batch, rest, rank = t.shape[0], t.shape[3:], len(self.shape)
        counts = [-(-n // size) for n, size in zip(self.shape, self.size, strict=True)]
        t = t.reshape(batch, *counts, *self.size, *rest)
        order = [axis for pair in zip(range(1, 1 + rank), range(1 + rank, 1 + 2 * rank),
                                      strict=True) for axis in pair]
        t = t.transpose(0, *order, *range(1 + 2 * rank, t.ndim))
        padded = [count * size for count, size in zip(counts, self.size, strict=True)]
        t = t.reshape(batch, *padded, *rest)
        t = t[(slice(None), *(slice(n) for n in self.shape))]
        return t.reshape(batch, -1, *rest)

    def positions(self) -> tuple[jax.Array, jax.Array]:
        """Flat position of the queries `[tiles, tile]` and keys `[tiles, tile with halo]`.

        Outside of the sequence it is -1.
        """
        total = 1
        for n in self.shape:
            total *= n
        # Counted from 1, so that the zeros of the padding become -1.
        numbers = jnp.arange(1, total + 1, dtype=jnp.int32)[None]
        return self.split(numbers, False)[0] - 1, self.split(numbers, True)[0] - 1


def mask_of_tiles(tiling: Tiling, mask: jax.Array | None, visible: Callable | None) -> jax.Array:
    """Mask of the queries of each tile, of `mask` and `visible` as in `tiled_attention`.

    Returns:
      bool `[batch or 1, tiles, heads or 1, tile or 1, tile with halo]`.
    """
    queries, keys = tiling.positions()
    seen = (keys >= 0)[:, None]
    if visible is not None:
        seen = seen & visible(queries[:, :, None], keys[:, None])
    seen = seen[None, :, None]
    if mask is None:
        return seen
    if mask.shape[2] == 1:
        valid = tiling.split(mask[:, :, 0].swapaxes(1, 2), True)
        return seen & valid.swapaxes(2, 3)[:, :, :, None]
    picked = mask[:, :, jnp.maximum(queries, 0)[:, :, None], jnp.maximum(keys, 0)[:, None]]
    return seen & picked.swapaxes(1, 2)


@dataclasses.dataclass(frozen=True)
class Extra:
    """Keys that stand beside the window of every query.

    Arguments:
      key, value: `[batch, extra, heads, width]`.
      mask: bool `[batch or 1, heads or 1, queries or 1, extra]` or None; queries in sequence
        order.
    """

    key: jax.Array
    value: jax.Array
    mask: jax.Array | None = None


def tiled_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    tiling: Tiling,
    *,
    mask: jax.Array | None,
    drop: Drop,
    visible: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    extra: Extra | None = None,
) -> jax.Array:
    """Softmax attention of each query over the window of its tile and over `extra`.

    Work and memory are proportional to positions x (tile with halo + extra); no array of
    positions x positions is formed.

    Arguments:
      query, key, value: `[batch, positions, heads, width]`.
      tiling: tiles of the positions.
      mask: bool `[batch or 1, heads or 1, positions or 1, positions]` or None.
      drop: applied to the weights.
      visible: given the flat positions of queries and keys, which of the window are seen.
      extra: keys that all queries see.

    Returns:
      `[batch, positions, heads, width]`; a query that sees no key gets a finite mean.
    """
    tiles = tiling.split(query, False)
    keys, values = tiling.split(key, True), tiling.split(value, True)
    scale = query.shape[-1] ** -0.5
    kinds = {"preferred_element_type": jnp.float32}
    scores = jnp.einsum("btqhd,btkhd->bthqk", tiles, keys, **kinds) * scale
    lowest = jnp.finfo(jnp.float32).min
    scores = jnp.where(mask_of_tiles(tiling, mask, visible), scores, lowest)
    window = scores.shape[-1]
    if extra is not None:
        more = jnp.einsum("btqhd,bkhd->bthqk", tiles, extra.key, **kinds) * scale
        if extra.mask is not None:
            seen = extra.mask
            if seen.shape[2] == 1:
                seen = seen[:, None]
            else:
                seen = tiling.split(seen.swapaxes(1, 2), False).swapaxes(2, 3)
            more = jnp.where(seen, more, lowest)
        scores = jnp.concatenate([scores, more], -1)
    weights = drop(jax.nn.softmax(scores)).astype(value.dtype)
    mixed = jnp.einsum("bthqk,btkhd->btqhd", weights[..., :window], values)
    if extra is not None:
        mixed = mixed + jnp.einsum("bthqk,bkhd->btqhd", weights[..., window:], extra.value)
    return tiling.join(mixed)
