"""Attention in a neighbourhood: blocks of a line or an image, and Longformer's windows."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention.heads import (
    Drop,
    EqualHeads,
    SelfAttention,
    attention_weights,
    weighted,
)
from jaxcxr.models.attention.tiling import Extra, Tiling, tiled_attention


def _part(mask: jax.Array | None, rows: slice, columns: slice) -> jax.Array | None:
    """Rows and columns of an attention mask, whose rows may be one for all."""
    if mask is None:
        return None
    return mask[:, :, rows if mask.shape[2] > 1 else slice(None), columns]


def _leading(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    causal: bool,
    drop: Drop,
) -> jax.Array:
    """Attention of the first tokens over everything, or over what is not later."""
    if causal:
        past = jnp.tril(jnp.ones((1, 1, query.shape[1], key.shape[1]), bool))
        mask = past if mask is None else mask & past
    return weighted(drop(attention_weights(query, key, mask)), value)


def _not_later(queries: jax.Array, keys: jax.Array) -> jax.Array:
    return keys <= queries


def _check_global(count: int, length: int) -> None:
    if not 0 <= count <= length:
        raise UserError(f"global_tokens={count} of a sequence of {length}; choose 0 to {length}.")


class LocalBlocks(SelfAttention):
    """Blocks of a sequence see themselves and their surroundings (Parmar et al. 2018, 1-D).

    The paper's image transformer is `after=0, causal=True`. Self-attention only; cost proportional
    to length x (block + before + after).

    Arguments:
      block: positions that share one neighbourhood.
      before, after: earlier and later positions seen beyond the block.
      causal: a position sees no later one.
      global_tokens: the first so many tokens (a class token) see all and are seen by all.
    """

    block: int = 32
    before: int = 32
    after: int = 32
    causal: bool = False
    global_tokens: int = 0

    def _tiling(self, length: int) -> Tiling:
        if self.block < 1 or min(self.before, self.after) < 0:
            raise UserError(
                f"local blocks of {self.block} with {self.before} before and {self.after} after; "
                "block must be at least 1, before and after at least 0."
            )
        size = min(self.block, length)
        around = (min(self.before, length), 0 if self.causal else min(self.after, length))
        return Tiling((length,), (size,), (around,))

    def _mix(self, query, key, value, mask, drop):
        """Leading tokens over everything, the others over their blocks and the leading tokens."""
        _check_global(self.global_tokens, query.shape[1])
        first, rest = slice(self.global_tokens), slice(self.global_tokens, None)
        leading = _leading(query[:, first], key, value, _part(mask, first, slice(None)),
                           self.causal, drop)
        if self.global_tokens == query.shape[1]:
            return leading
        mixed = tiled_attention(
            query[:, rest],
            key[:, rest],
            value[:, rest],
            self._tiling(query.shape[1] - self.global_tokens),
            mask=_part(mask, rest, rest),
            drop=drop,
            visible=_not_later if self.causal else None,
            extra=Extra(key[:, first], value[:, first], _part(mask, rest, first)),
        )
        return jnp.concatenate([leading, mixed], 1)


class LocalBlocks2D(LocalBlocks):
    """Tiles of an image see themselves and a halo (Parmar et al. 2018, 2-D).

    Arguments beyond those of `LocalBlocks`, whose `block`, `before` and `after` then count in
    both directions of the image:
      grid: rows and columns of the image; by default a square.
      `causal` is the raster order.
    """

    block: int = 4
    before: int = 4
    after: int = 4
    grid: tuple[int, int] | None = None

    def _tiling(self, length: int) -> Tiling:
        side = math.isqrt(length)
        grid = tuple(self.grid or (side, side))
        if len(grid) != 2 or math.prod(grid) != length:
            raise UserError(
                f"{length} tokens beside {self.global_tokens} global ones are no grid of "
                f"{' x '.join(map(str, grid))}; set grid=(rows, columns) or global_tokens."
            )
        before, after = min(self.before, max(grid)), min(self.after, max(grid))
        size = (min(self.block, grid[0]), min(self.block, grid[1]))
        if self.block < 1 or min(before, after) < 0:
            raise UserError("local tiles need block >= 1, before >= 0 and after >= 0.")
        return Tiling(grid, size, ((before, after), (before, after)))


def _residues(t: jax.Array, dilation: int) -> jax.Array:
    """`[batch, length, ...]` to `[batch * dilation, length / dilation, ...]`, padded with zeros."""
    batch, length, rest = t.shape[0], t.shape[1], t.shape[2:]
    steps = -(-length // dilation)
    t = jnp.pad(t, [(0, 0), (0, steps * dilation - length)] + [(0, 0)] * len(rest))
    t = t.reshape(batch, steps, dilation, *rest).swapaxes(1, 2)
    return t.reshape(batch * dilation, steps, *rest)


def _from_residues(t: jax.Array, dilation: int, length: int) -> jax.Array:
    """The inverse of `_residues`."""
    t = t.reshape(-1, dilation, *t.shape[1:]).swapaxes(1, 2)
    return t.reshape(t.shape[0], -1, *t.shape[3:])[:, :length]


def _mask_of_residues(mask: jax.Array, dilation: int) -> jax.Array:
    """An attention mask of `[batch, ...]` for the sequences that `_residues` makes."""
    if mask.shape[2] == 1:
        keys = _residues(mask[:, :, 0].swapaxes(1, 2), dilation)
        return keys.swapaxes(1, 2)[:, :, None]
    batch, heads, length, _ = mask.shape
    steps = -(-length // dilation)
    pad = (0, steps * dilation - length)
    mask = jnp.pad(mask, [(0, 0), (0, 0), pad, pad])
    mask = mask.reshape(batch, heads, steps, dilation, steps, dilation)
    mask = jnp.moveaxis(jnp.diagonal(mask, axis1=3, axis2=5), -1, 1)
    return mask.reshape(batch * dilation, heads, steps, steps)


def _extra_of_residues(extra: Extra, dilation: int) -> Extra:
    """Repeats the extra keys for each of the sequences that `_residues` makes."""
    mask = extra.mask
    if mask is not None and mask.shape[2] == 1:
        mask = jnp.repeat(mask, dilation, 0)
    elif mask is not None:
        mask = _residues(mask.swapaxes(1, 2), dilation).swapaxes(1, 2)
    key, value = (jnp.repeat(t, dilation, 0) for t in (extra.key, extra.value))
    return Extra(key, value, mask)


class Longformer(EqualHeads):
    """Sliding windows, dilated for some heads, and global tokens (Beltagy et al. 2020).

    Position i sees j where |i - j| is a multiple of the head's dilation, at most window / 2 of
    them on either side, and the global tokens. Global tokens see everything, through projections
    of their own for query, key and value (section 3.1). Windows count the other tokens only.
    Self-attention only; cost proportional to length x (window + global_tokens).

    Arguments:
      window: positions seen, half of them on each side; even.
      dilation: of each head, one number for all or as many numbers as heads.
      causal: a position sees no later one, and a global token neither.
      global_tokens: the first so many tokens are global.
    """

    window: int = 64
    dilation: int | tuple[int, ...] = 1
    causal: bool = False
    global_tokens: int = 0

    def _dilations(self) -> tuple[int, ...]:
        dilations = (
            (self.dilation,) * self.heads if isinstance(self.dilation, int)
            else tuple(self.dilation)
        )
        if len(dilations) != self.heads or min(dilations) < 1:
            raise UserError(
                f"dilation={self.dilation} for {self.heads} heads; give one number of at least 1 "
                "or one for each head."
            )
        if self.window < 2 or self.window % 2:
            raise UserError(f"window={self.window} is not an even number of at least 2.")
        return dilations

    def _attend(self, x, memory, mask, train):
        _check_global(self.global_tokens, x.shape[1])
        dilations = self._dilations()
        drop = nn.Dropout(self.dropout, deterministic=not train)
        names = ("query", "key", "value")
        query, key, value = (self._heads(x, name) for name in names)
        first, rest = slice(self.global_tokens), slice(self.global_tokens, None)
        parts = []
        if self.global_tokens:
            leading, every_key, every_value = (
                self._heads(x[:, first] if name == "query" else x, f"{name}_global")
                for name in names
            )
            seen = _part(mask, first, slice(None))
            parts.append(_leading(leading, every_key, every_value, seen, self.causal, drop))
        if self.global_tokens < x.shape[1]:
            extra = Extra(key[:, first], value[:, first], _part(mask, rest, first))
            local = (query[:, rest], key[:, rest], value[:, rest], _part(mask, rest, rest), extra)
            parts.append(self._windows(*local, dilations, drop))
        return self._out(jnp.concatenate(parts, 1))

    def _windows(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        mask: jax.Array | None,
        extra: Extra,
        dilations: tuple[int, ...],
        drop: Drop,
    ) -> jax.Array:
        """Sliding windows of all heads, those of equal dilation together."""
        if len(set(dilations)) == 1:
            return self._dilated(query, key, value, mask, extra, dilations[0], drop)
        mixed: dict[int, jax.Array] = {}
        for dilation in sorted(set(dilations)):
            chosen = [head for head, d in enumerate(dilations) if d == dilation]
            pick = jnp.asarray(chosen)
            q, k, v, extra_key, extra_value = (
                t[:, :, pick] for t in (query, key, value, extra.key, extra.value)
            )
            masks = [
                m[:, pick] if m is not None and m.shape[1] > 1 else m for m in (mask, extra.mask)
            ]
            own = Extra(extra_key, extra_value, masks[1])
            found = self._dilated(q, k, v, masks[0], own, dilation, drop)
            mixed |= {head: found[:, :, i] for i, head in enumerate(chosen)}
        return jnp.stack([mixed[head] for head in range(self.heads)], 2)

    def _dilated(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        mask: jax.Array | None,
        extra: Extra,
        dilation: int,
        drop: Drop,
    ) -> jax.Array:
        batch, length = query.shape[:2]
        if dilation > 1:
            # Padding makes the residue classes equally long; the mask keeps it unseen.
            mask = jnp.ones((1, 1, 1, length), bool) if mask is None else mask
            mask = jnp.broadcast_to(mask, (batch, *mask.shape[1:]))
            mask = _mask_of_residues(mask, dilation)
            if extra.mask is not None:
                seen = jnp.broadcast_to(extra.mask, (batch, *extra.mask.shape[1:]))
                extra = Extra(extra.key, extra.value, seen)
            extra = _extra_of_residues(extra, dilation)
            query, key, value = (_residues(t, dilation) for t in (query, key, value))
        steps, half = query.shape[1], self.window // 2
        reach = min(half, steps)
        tiling = Tiling((steps,), (reach,), ((reach, 0 if self.causal else reach),))

        def visible(queries: jax.Array, keys: jax.Array) -> jax.Array:
            near = jnp.abs(queries - keys) <= half
            return near & (keys <= queries) if self.causal else near

        mixed = tiled_attention(
            query, key, value, tiling, mask=mask, drop=drop, visible=visible, extra=extra
        )
        return _from_residues(mixed, dilation, length) if dilation > 1 else mixed
