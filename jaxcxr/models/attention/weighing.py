"""Computes a head group in four ways of one result: at once, by chunks, by windows, fused.

By chunks, memory is bounded; by windows, the work is that inside a bounded span, forward and
backward; the fused kernel of cuDNN stores no weights and takes plain heads only.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from jaxcxr.models.attention import alignments, normalizers, spans
from jaxcxr.models.attention.geometry import Geometry, Grid, Measured, TokenSequence
from jaxcxr.models.attention.groups import HeadGroup
from jaxcxr.models.attention.spans import Global
from jaxcxr.models.attention.tiling import Tiling, mask_of_tiles

# Pairs of a query and a key above which all at once is too much memory: 4 MB for each head and
# example in float32, several times over. A grid of 32x32 with a class token is below: computing
# its chunks again in the backward pass would cost a fifth of the time.
MANY_PAIRS = 1056**2

# The smallest sides of a tile of queries on a line and on a grid; with smaller ones the products
# are too small to be fast.
_LINE_TILE, _GRID_TILE = 16, 2

_BILINEAR = ("scaled_dot", "dot", "similarity", "general", "biased_general")


@dataclasses.dataclass(frozen=True)
class Rule:
    """All that the weights of a group depend on beside tokens and parameters.

    Arguments:
      group: the head group.
      geometry: where tokens stand; None where the group does not ask.
      dropout: rate on the weights; 0 outside training.
      limit: of learned spans that do not fix it, the largest distance.
    """

    group: HeadGroup
    geometry: Geometry | None
    dropout: float = 0.0
    limit: Any = 0


def alibi_slopes(heads: int) -> np.ndarray:
    """2^(-8 i / heads) for head i = 1 ... heads, float32 (Press, Smith & Lewis 2022)."""
    return (2.0 ** (-8.0 * np.arange(1, heads + 1) / heads)).astype(np.float32)


def weights(
    rule: Rule,
    params: Mapping[str, jax.Array],
    query: jax.Array,
    key: jax.Array,
    places: tuple[jax.Array, jax.Array] | None = None,
    mask: jax.Array | None = None,
    share: jax.Array | None = None,
    valid: jax.Array | None = None,
) -> jax.Array:
    """Weighs every key for every query.

    Arguments:
      rule: the group and the geometry.
      params: of the alignment; `alpha`, `table`, `talk_scores` and `talk_weights` where the group
        has them.
      query: `[batch, queries, heads, width]`.
      key: `[batch, keys, heads, width]`.
      places: of queries and keys, as the geometry gives them.
      mask: bool `[batch or 1, heads or 1, queries or 1, keys]`, True where a key is seen.
      share: learned spans over the limit, see `spans.factor`.
      valid: bool `[batch or 1, heads or 1, keys]`, False at keys that no query sees.

    Returns:
      `[batch, heads, queries, keys]`, at least float32. Where no key is seen, simplex normalisers
      weigh all keys equally and the others weigh none.
    """
    group, geometry = rule.group, rule.geometry
    scores = alignments.score(group.align, params, query, key, valid)
    dtype = scores.dtype
    if group.mix == "talking":
        scores = jnp.einsum("bhqk,hg->bgqk", scores, params["talk_scores"].astype(dtype))
    seen = None
    if group.needs_distance:
        assert geometry is not None
        assert places is not None
        distance = geometry.distance(*places)
        seen = spans.factor(group.span, distance, share, rule.limit, dtype)
        if group.rel_bias == "alibi":
            slopes = jnp.asarray(alibi_slopes(group.count), dtype)[:, None, None]
            scores = scores - slopes * distance.astype(dtype)
        elif group.rel_bias == "table":
            assert not isinstance(geometry, Measured)  # such groups are refused
            table = jnp.asarray(params["table"], dtype)
            scores = scores + jnp.moveaxis(table[geometry.relation(*places)], -1, 0)
    if mask is not None:
        open_ = mask.astype(dtype)
        seen = open_ if seen is None else seen * open_
    found = _normalise(group.norm, params, scores, seen, query, key)
    if group.mix == "talking":
        found = jnp.einsum("bhqk,hg->bgqk", found, params["talk_weights"].astype(dtype))
    return found


def _normalise(norm, params, scores, seen, query, key) -> jax.Array:
    if norm in normalizers.SIMPLEX or norm == "entmax":
        if seen is not None:
            scores = jnp.where(seen > 0, scores + normalizers.log_seen(seen), normalizers.HIDDEN)
        if norm == "entmax":
            alpha = 1 + jax.nn.sigmoid(params["alpha"].astype(scores.dtype))
            return normalizers.entmax(scores, alpha[:, None, None])
        return normalizers.SIMPLEX[norm](scores)
    seen = jnp.ones((1,) * scores.ndim, scores.dtype) if seen is None else seen
    if norm == "linear":
        scores = scores * seen
        total = scores.sum(-1, keepdims=True)
        return scores / jnp.where(total > 0, total, 1)
    if norm == "quasi":
        apart = normalizers.manhattan(query, key).astype(scores.dtype)
        return normalizers.quasi(scores, apart, seen)
    return normalizers.sigmoid(scores, jnp.broadcast_to(seen, (*seen.shape[:-1], scores.shape[-1])))


def everything(
    rule: Rule,
    params: Mapping[str, jax.Array],
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    places: tuple[jax.Array, jax.Array] | None = None,
    mask: jax.Array | None = None,
    share: jax.Array | None = None,
    rng: jax.Array | None = None,
    valid: jax.Array | None = None,
) -> jax.Array:
    """Outputs `[batch, queries, heads, value width]`; arguments as in `weights`."""
    found = weights(rule, params, query, key, places, mask, share, valid)
    if rule.dropout and rng is not None:
        kept = jax.random.bernoulli(rng, 1 - rule.dropout, found.shape)
        found = jnp.where(kept, found / (1 - rule.dropout), 0)
    return jnp.einsum("bhqk,bkhd->bqhd", found.astype(value.dtype), value)


def by_chunks(
    rule, params, query, key, value, places=None, mask=None, share=None, rng=None, valid=None,
    *, chunk: int,
) -> jax.Array:
    """`everything`, at most `chunk` queries at a time, each recomputed in the backward pass."""
    batch, queries = query.shape[:2]
    count = -(-queries // chunk)
    chunk = -(-queries // count)  # equal chunks: 17 of 241, not 16 of 256 and one of a single query

    def cut(x: jax.Array, axis: int) -> jax.Array:
        return jnp.moveaxis(_chunks(x, axis, chunk), axis, 0)

    parts = {"query": cut(query, 1)}
    if places is not None:
        parts["place"] = cut(jnp.asarray(places[0]), 0)
    if mask is not None and mask.shape[-2] > 1:
        parts["mask"] = cut(mask, 2)
    if share is not None and share.ndim == 3:
        parts["share"] = cut(share, 1)
    if rng is not None:
        parts["rng"] = jax.random.split(rng, count)

    @jax.checkpoint
    def one(part: dict[str, jax.Array]) -> jax.Array:
        where = None if places is None else (part["place"], jnp.asarray(places[1]))
        return everything(
            rule, params, part["query"], key, value, where, part.get("mask", mask),
            part.get("share", share), part.get("rng"), valid,
        )

    out = jax.lax.map(one, parts)
    return jnp.moveaxis(out, 0, 1).reshape(batch, count * chunk, *out.shape[3:])[:, :queries]


def tiling(rule: Rule, tokens: int) -> Tiling | None:
    """Tiles of queries with which a bounded span saves work; None where there are none."""
    group, geometry = rule.group, rule.geometry
    window = spans.reach(group.span)
    if window is None or group.align in ("location", "feature"):
        return None
    if isinstance(geometry, TokenSequence):
        found = Tiling((tokens,), (max(window, _LINE_TILE),), ((window, window),))
    elif isinstance(geometry, Grid):
        tile = max(window, _GRID_TILE)
        shape = (geometry.rows, geometry.columns)
        found = Tiling(shape, (tile, tile), ((window, window),) * 2)
    else:
        return None
    tiles = math.prod(-(-all_ // size) for all_, size in zip(found.shape, found.size, strict=True))
    pairs = tiles * math.prod(size * (size + 2 * window) for size in found.size)
    # Many small products are slower than one large one: half of the work must be saved.
    return found if 2 * pairs <= math.prod(found.shape) ** 2 else None


def by_windows(
    rule, params, query, key, value, places, mask=None, share=None, rng=None, *, tiles: Tiling
) -> jax.Array:
    """`everything` of a bounded span, tile by tile: each meets the keys that its window reaches.

    Tokens of a grid that stand before the patches are met by every tile, and themselves see
    everything.
    """
    prefix = query.shape[1] - math.prod(tiles.shape)
    by_query = share is not None and share.ndim == 3
    if prefix:
        first = None if rng is None else jax.random.fold_in(rng, 1)
        rows = mask if mask is None or mask.shape[2] == 1 else mask[:, :, :prefix]
        where = (places[0][:prefix], places[1])
        own = share[:, :prefix] if by_query else share
        head = everything(rule, params, query[:, :prefix], key, value, where, rows, own, first)

    def met(x: jax.Array) -> jax.Array:
        """Keys of each tile, after those of the prefix: `[batch, tiles, keys, ...]`."""
        around = tiles.split(x[:, prefix:], True)
        before = jnp.expand_dims(x[:, :prefix], 1)
        before = jnp.broadcast_to(before, (*around.shape[:2], *before.shape[2:]))
        return jnp.concatenate([before, around], 2)

    places = tuple(jnp.asarray(p)[None] for p in places)
    where = (tiles.split(places[0][:, prefix:], False)[0], met(places[1])[0])
    seen = _seen(tiles, mask, prefix)
    rngs = None if rng is None else jax.random.split(rng, len(where[0]))

    if by_query:
        share = tiles.split(share[:, prefix:], False)

    def one(query, key, value, where, seen, share, rng):
        return everything(rule, params, query, key, value, where, seen, share, rng)

    axes = (1, 1, 1, 0, 1, 1 if by_query else None, None if rng is None else 0)
    own = tiles.split(query[:, prefix:], False)
    out = tiles.join(jax.vmap(one, axes, 1)(own, met(key), met(value), where, seen, share, rngs))
    return jnp.concatenate([head, out], 1) if prefix else out


def _seen(tiles: Tiling, mask: jax.Array | None, prefix: int) -> jax.Array:
    """The mask of each tile, `[batch or 1, tiles, heads or 1, tile or 1, prefix and keys]`."""
    if mask is None:
        seen = mask_of_tiles(tiles, None, None)
        before = jnp.ones((*seen.shape[:-1], prefix), bool)
        return jnp.concatenate([before, seen], -1)
    by_query = mask.shape[2] > 1
    patches = mask[:, :, prefix:, prefix:] if by_query else mask[..., prefix:]
    seen = mask_of_tiles(tiles, patches, None)
    if by_query:
        rows = tiles.split(mask[:, :, prefix:, :prefix].swapaxes(1, 2), False)
        before = rows.swapaxes(2, 3)
    else:
        before = mask[:, None, :, :, :prefix]
    before = jnp.broadcast_to(before, (*seen.shape[:-1], prefix))
    return jnp.concatenate([before, seen], -1)


def _chunks(x: jax.Array, axis: int, size: int) -> jax.Array:
    """Splits an axis into chunks of `size`, two axes, after zeros that fill the last."""
    length = x.shape[axis]
    count = -(-length // size)
    pads = [(0, 0)] * x.ndim
    pads[axis] = (0, count * size - length)
    return jnp.pad(x, pads).reshape(*x.shape[:axis], count, size, *x.shape[axis + 1 :])


def is_plain(group: HeadGroup) -> bool:
    """Whether heads are a softmax over products of queries and keys, and nothing else."""
    return (
        group.align in _BILINEAR
        and group.norm == "softmax"
        and isinstance(group.span, Global)
        and group.rel_bias == group.mix == "none"
    )


def choose_kernel(
    *,
    platform: str,
    capability: float,
    dtype: Any,
    width: int,
    value_width: int,
    queries: int,
    keys: int,
    masked: bool,
    dropout: bool,
) -> tuple[str, str]:
    """Chooses between cuDNN and products of matrices for plain heads.

    The conditions are those of `jax.nn.dot_product_attention(implementation="cudnn")` (jax
    0.10.2). Its "xla" is no faster than `everything` and has neither chunks nor dropout. `platform`
    is "cpu", "cuda", "rocm" or "tpu"; `capability` that of a CUDA device, such as 9.0, else 0.

    Returns:
      ("cudnn" or "own", the reason).
    """
    most = 256 if capability >= 9 else 128
    if platform != "cuda":
        return "own", f"cuDNN needs a CUDA device, and the platform is {platform}"
    if capability < 8:
        return "own", f"cuDNN needs compute capability 8.0, and the device has {capability}"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return "own", f"cuDNN computes in bfloat16 and float16, and the dtype is {dtype}"
    if dropout:
        return "own", "dropout on weights is drawn for each, in the same way on every platform"
    if width != value_width:
        return "own", f"cuDNN needs keys and values of one width, not {width} and {value_width}"
    if width % 8 or width > most:
        return "own", f"cuDNN needs a width that is a multiple of 8 up to {most}, not {width}"
    if masked and (queries % 2 or keys % 2):
        return "own", "the gradient with a mask needs even numbers of queries and keys in cuDNN"
    return "cudnn", "all conditions of cuDNN's fused attention hold"


def is_fused(
    group: HeadGroup, query: jax.Array, key: jax.Array, value: jax.Array, masked: bool,
    dropout: bool,
) -> bool:
    """Whether `by_fused_kernel` computes the group on this device; logs each reason once."""
    if not is_plain(group):
        return False
    device = jax.devices()[0]
    cuda = device.platform == "gpu" and "cuda" in device.client.platform_version
    who, why = choose_kernel(
        platform="cuda" if cuda else device.platform,
        capability=float(device.compute_capability) if cuda else 0.0,
        dtype=query.dtype,
        width=query.shape[-1],
        value_width=value.shape[-1],
        queries=query.shape[1],
        keys=key.shape[1],
        masked=masked,
        dropout=dropout,
    )
    _say(who, why)
    return who == "cudnn"


def by_fused_kernel(
    group: HeadGroup,
    params: dict[str, jax.Array],
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    implementation: Literal["xla", "cudnn"] = "cudnn",
) -> jax.Array:
    """Outputs of plain heads by `jax.nn.dot_product_attention`; as `everything`."""
    query, key = alignments.factors(group.align, params, query, key)
    if mask is not None:
        mask = jnp.broadcast_to(mask, (*mask.shape[:2], query.shape[1], key.shape[1]))
    return jax.nn.dot_product_attention(
        query, key, value, mask=mask, scale=1.0, implementation=implementation
    )


@functools.cache
def _say(who: str, why: str) -> None:
    name = {"cudnn": "the fused kernel of cuDNN", "own": "products of matrices"}[who]
    logging.info("Plain attention heads are computed by %s: %s.", name, why)
