"""Sparse attention: two factorised patterns, and hash buckets.

Child et al. 2019 (sparse transformers, arXiv:1904.10509) and Kitaev et al. 2020 (Reformer,
arXiv:2001.04451).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention.heads import Drop, EqualHeads, SelfAttention
from jaxcxr.models.attention.tiling import Extra, Tiling, mask_of_tiles, tiled_attention

# Score of a position with itself: it is seen where nothing else is, and else not (section 2).
_SELF = -5e4
# Buckets of one hash; more are the product of several hashes, as the cost of one is its number.
_MOST = 32


class _Sparse(SelfAttention):
    """Options that both patterns share; arguments as in `Strided`."""

    stride: int = 0
    causal: bool = False

    def _stride(self, length: int) -> int:
        if self.stride < 0:
            raise UserError(f"stride={self.stride} is negative; use 0 for the root of the length.")
        return min(self.stride or math.isqrt(length - 1) + 1, length)


class Strided(_Sparse):
    """Each position sees its neighbourhood and every `stride`-th position from itself.

    All heads see the union {j : |i - j| <= stride} and {j : (i - j) mod stride = 0}; with
    `causal`, the j <= i of it, the paper's strided pattern with merged heads (equation 8).
    Self-attention only; cost proportional to length x (3 stride + length / stride).

    Arguments:
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

    def _mix(self, query, key, value, mask, drop):
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

    def _mix(self, query, key, value, mask, drop):
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


def hash_buckets(vectors: jax.Array, rotations: tuple[jax.Array, ...]) -> jax.Array:
    """Angular hash: b = argmax [x R; -x R] for each round.

    Arguments:
      vectors: `[batch, length, heads, width]`.
      rotations: `[rounds, width, buckets / 2]` of each hash; several count as digits. One of no
        columns is a single bucket.

    Returns:
      int32 `[batch, rounds, heads, length]`.
    """
    batch, length, heads, _ = vectors.shape
    found = jnp.zeros((batch, rotations[0].shape[0], heads, length), jnp.int32)
    for rotation in rotations:
        if rotation.shape[-1] == 0:
            continue
        rotated = jnp.einsum("bnhd,rde->brhne", vectors, rotation)
        digit = jnp.argmax(jnp.concatenate([rotated, -rotated], -1), -1).astype(jnp.int32)
        found = found * (2 * rotation.shape[-1]) + digit
    return found


def _along(t: jax.Array, order: jax.Array) -> jax.Array:
    """Reorders `[batch, rounds or 1, heads, length, ...]` by `[batch, rounds, heads, length]`."""
    order = order.reshape(*order.shape, *(1,) * (t.ndim - 4))
    return jnp.take_along_axis(t, order, axis=3)


@dataclasses.dataclass(frozen=True)
class _Sorting:
    """The order of each round, and its chunks."""

    order: jax.Array
    rank: jax.Array
    chunk: int

    def chunks(self, t: jax.Array) -> jax.Array:
        """`[batch, rounds or 1, heads, length, ...]` to `[..., heads, chunks, chunk, ...]`."""
        t = _along(t, self.order)
        return t.reshape(*t.shape[:3], -1, self.chunk, *t.shape[4:])

    def merge(self, t: jax.Array) -> jax.Array:
        """The inverse of `chunks`."""
        return _along(t.reshape(*self.order.shape, *t.shape[5:]), self.rank)

    def places(self) -> jax.Array:
        """Position of each element of the chunks."""
        return self.order.reshape(*self.order.shape[:3], -1, self.chunk)


def _with_previous(t: jax.Array) -> jax.Array:
    """Puts before each chunk the one before it, and before the first the last."""
    return t if t.shape[3] == 1 else jnp.concatenate([jnp.roll(t, 1, axis=3), t], 4)


class LSH(EqualHeads):
    """Shared-QK attention within hash buckets, in several rounds (section 2).

    In each round positions are sorted by bucket and cut into chunks; a query sees the positions of
    its bucket in its own chunk and the one before. Rounds are merged by their normalisers, and a
    key that several rounds show counts once: the result is the softmax over the union. Keys are
    the queries at unit length; a position sees itself only where it sees nothing else.
    Self-attention only; cost proportional to rounds x length x chunk, and the sort.

    Arguments:
      dtype: of the projections; hashes, scores and softmax are float32.
      rounds: independent hashes.
      chunk: positions in a chunk.
      buckets: even, or 1; or several such numbers, for the product of their hashes. 0 makes at
        least length / chunk of them, by hashes of at most 32.
      causal: a position sees no later one.
      redraw: draw new rotations at every training step (from the rng `dropout`); evaluation uses
        those of `seed`.
      seed: of the rotations.
    """

    rounds: int = 4
    chunk: int = 32
    buckets: int | tuple[int, ...] = 0
    causal: bool = False
    redraw: bool = False
    seed: int = 0

    def _factors(self, length: int) -> tuple[int, ...]:
        """Buckets of each hash."""
        if min(self.rounds, self.chunk) < 1:
            raise UserError("LSH needs rounds >= 1 and chunk >= 1.")
        if self.buckets == 0:
            wanted = -(-length // self.chunk)
            hashes = max(1, math.ceil(math.log(wanted, _MOST)))
            return (2 * math.ceil(wanted ** (1 / hashes) / 2),) * hashes
        factors = (self.buckets,) if isinstance(self.buckets, int) else tuple(self.buckets)
        if not factors or any(n < 1 or (n % 2 and n != 1) for n in factors):
            raise UserError(
                f"buckets={self.buckets}: an angular hash has an even number of buckets, or 1."
            )
        return factors

    def rotations(
        self, length: int, width: int, rng: jax.Array | None = None
    ) -> tuple[jax.Array, ...]:
        """Gaussian rotations for `hash_buckets`, of `seed` where no `rng` is given."""
        if rng is None:
            with jax.ensure_compile_time_eval():
                return self.rotations(length, width, jax.random.key(self.seed))
        factors = self._factors(length)
        keys = jax.random.split(rng, len(factors))
        return tuple(
            jax.random.normal(key, (self.rounds, width, count // 2), jnp.float32)
            for key, count in zip(keys, factors, strict=True)
        )

    def _attend(self, x, memory, mask, train):
        shared = self._heads(x, "query").astype(jnp.float32)
        value = self._heads(x, "value")
        rng = self.make_rng("dropout") if self.redraw and train else None
        buckets = hash_buckets(shared, self.rotations(x.shape[1], shared.shape[-1], rng))
        drop = nn.Dropout(self.dropout, deterministic=not train)
        mixed = self._in_chunks(shared, value, buckets, mask, drop)
        return self._out(mixed.astype(self.dtype))

    def _in_chunks(
        self,
        shared: jax.Array,
        value: jax.Array,
        buckets: jax.Array,
        mask: jax.Array | None,
        drop: Drop,
    ) -> jax.Array:
        """Mixed values float32 `[batch, length, heads, width]`."""
        length = shared.shape[1]
        sorting, buckets = self._sorting(buckets, mask)
        pad = [(0, 0), (0, buckets.shape[-1] - length), (0, 0), (0, 0)]

        def chunks(t: jax.Array) -> jax.Array:
            return sorting.chunks(jnp.pad(t, pad).swapaxes(1, 2)[:, None])

        queries, values = chunks(shared), _with_previous(chunks(value))
        norm = jnp.sqrt(jnp.square(queries).sum(-1, keepdims=True) + 1e-12)
        keys = _with_previous(queries / norm)
        places = sorting.places()
        key_places = _with_previous(places)
        together, count = self._together(sorting, buckets)
        seen = together & self._visible(places, key_places, mask, length)
        scores = jnp.einsum("brhcqd,brhckd->brhcqk", queries, keys) * shared.shape[-1] ** -0.5
        itself = places[..., :, None] == key_places[..., None, :]
        scores = jnp.where(itself, _SELF, scores) - jnp.log(count)
        scores = jnp.where(seen, scores, jnp.finfo(jnp.float32).min)
        total = jax.nn.logsumexp(scores, -1)
        weights = drop(jnp.exp(scores - total[..., None]))
        mixed = jnp.einsum("brhcqk,brhckd->brhcqd", weights, values.astype(jnp.float32))
        share = jax.nn.softmax(sorting.merge(total), axis=1)
        return jnp.einsum("brhn,brhnd->bnhd", share, sorting.merge(mixed))[:, :length]

    def _sorting(self, buckets: jax.Array, mask: jax.Array | None) -> tuple[_Sorting, jax.Array]:
        """The sort by bucket, and the buckets padded to whole chunks."""
        length = buckets.shape[-1]
        chunk = min(self.chunk, length)
        last = math.prod(self._factors(length))
        if mask is not None and mask.shape[2] == 1:
            # Masked keys go to the end: they take no place in the chunks of the others.
            buckets = jnp.where(mask[:, None, :, 0], buckets, last)
        pad = [(0, 0)] * 3 + [(0, -length % chunk)]
        buckets = jnp.pad(buckets, pad, constant_values=last + 1)
        # A stable sort keeps the order of positions within a bucket.
        order = jnp.argsort(buckets, axis=-1, stable=True)
        return _Sorting(order, jnp.argsort(order, axis=-1), chunk), buckets

    def _together(self, sorting: _Sorting, buckets: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Whether a round shows a key, and how many do, `[batch, rounds, heads, chunks, q, k]`."""
        # Bucket and chunk of each position in all rounds, the rounds last.
        labels = (buckets, sorting.rank // sorting.chunk)
        own = [sorting.chunks(jnp.moveaxis(t, 1, -1)[:, None]) for t in labels]
        around = [_with_previous(t) for t in own]
        chunk_count = own[0].shape[3]
        count: jax.Array | float = 0.0
        here = []
        for other in range(self.rounds):
            bucket, chunk = (t[..., other][..., :, None] for t in own)
            key_bucket, key_chunk = (t[..., other][..., None, :] for t in around)
            near = (chunk - key_chunk) % chunk_count <= 1
            together = near & (bucket == key_bucket)
            count = count + together.astype(jnp.float32)
            here.append(together[:, other])
        return jnp.stack(here, 1), jnp.maximum(count, 1.0)

    def _visible(
        self, places: jax.Array, key_places: jax.Array, mask: jax.Array | None, length: int
    ) -> jax.Array:
        """Which keys of the chunks exist, are not later with `causal`, and are in the mask."""
        queries, keys = places[..., :, None], key_places[..., None, :]
        seen = keys < length
        if self.causal:
            seen = seen & (keys <= queries)
        if mask is None:
            return seen
        batch, head, rows, columns = mask.shape
        return seen & mask[
            jnp.arange(batch).reshape(-1, 1, 1, 1, 1, 1),
            jnp.arange(head).reshape(-1, 1, 1, 1),
            jnp.minimum(queries, rows - 1),
            jnp.minimum(keys, columns - 1),
        ]
