"""Attention of linear cost without windows: Linformer, Performer, FNet, Fastformer."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention.heads import (
    EqualHeads,
    attention_weights,
    keys_seen,
    only_self,
    weighted,
)


def _zero_unseen(t: jax.Array, seen: jax.Array | None) -> jax.Array:
    """Zeroes the masked keys of `[batch, keys, heads, width]`."""
    return t if seen is None else jnp.where(seen[..., None], t, jnp.zeros((), t.dtype))


class Linformer(EqualHeads):
    """Keys and values projected along the sequence to fixed rank (Wang et al. 2020).

    softmax(Q (E K)^T / sqrt(d_k)) F V with E, F `[rank, length]`. Masked keys and values are
    zeroed before the projection, so that they add nothing. Cost proportional to length x rank.

    Arguments:
      rank: rows of E and F.
      share: "none" (E and F for each head), "heads" (E and F for all heads) or "kv" (one E = F).
      max_length: columns of E and F; by default the length at initialisation, which is then the
        only one that is accepted. A shorter sequence uses the first columns.
    """

    takes_memory: ClassVar[bool] = True

    rank: int = 64
    share: str = "heads"
    max_length: int = 0

    def _projection(self, name: str, length: int) -> jax.Array:
        """E or F, `[heads or 1, rank, length]`."""
        columns = self.max_length or length
        if self.has_variable("params", name):
            columns = self.get_variable("params", name).shape[-1]
        if length > columns or (not self.max_length and length != columns):
            raise UserError(
                f"a sequence of {length} does not fit the Linformer's projections of {columns} "
                "positions; set max_length to the longest sequence before training."
            )
        # Projected keys are as large as keys at any length: the scores keep unit variance.
        init = nn.initializers.normal(columns**-0.5)
        shape = (self.heads if self.share == "none" else 1, self.rank, columns)
        return self.param(name, init, shape, jnp.float32)[..., :length].astype(self.dtype)

    def _attend(self, x, memory, mask, train):
        if self.share not in ("none", "heads", "kv"):
            raise UserError(f"share={self.share!r} is not known; use 'none', 'heads' or 'kv'.")
        memory = x if memory is None else memory
        seen = keys_seen("Linformer", mask)
        query = self._heads(x, "query")
        key, value = (
            _zero_unseen(self._heads(memory, name), seen)
            for name in ("key", "value")
        )

        def shorten(t: jax.Array, projection: jax.Array) -> jax.Array:
            if projection.shape[0] == 1:
                return jnp.einsum("rn,bnhd->brhd", projection[0], t)
            return jnp.einsum("hrn,bnhd->brhd", projection, t)

        of_keys = self._projection("key_projection", memory.shape[1])
        of_values = of_keys
        if self.share != "kv":
            of_values = self._projection("value_projection", memory.shape[1])
        weights = attention_weights(query, shorten(key, of_keys))
        weights = nn.Dropout(self.dropout)(weights, deterministic=not train).astype(self.dtype)
        return self._out(weighted(weights, shorten(value, of_values)))


def orthogonal_features(rng: jax.Array, count: int, width: int) -> jax.Array:
    """Random projections float32 `[count, width]` of FAVOR+ (Choromanski et al. 2021, section 2.4).

    Blocks of `width` orthogonal directions, each with the length of a Gaussian vector, so that a
    single row is distributed as N(0, I).
    """
    blocks = -(-count // width)
    directions, lengths = jax.random.split(rng)
    square = jax.random.normal(directions, (blocks, width, width), jnp.float32)
    q, r = jnp.linalg.qr(square)
    # The signs of R's diagonal make Q uniform over the orthogonal group, which QR alone does not.
    q = q * jnp.sign(jnp.diagonal(r, axis1=-2, axis2=-1))[:, None]
    rows = q.swapaxes(1, 2).reshape(blocks * width, width)[:count]
    gaussian = jax.random.normal(lengths, (count, width), jnp.float32)
    return rows * jnp.linalg.norm(gaussian, axis=-1, keepdims=True)


# Largest exponent of a feature where none is taken off: sums of them stay far from overflow.
_LARGEST = 40.0


def softmax_features(
    x: jax.Array,
    projections: jax.Array,
    axes: tuple[int, ...] | None,
    seen: jax.Array | None = None,
) -> jax.Array:
    """Positive random features: their products estimate exp(x . y / sqrt(width)) up to a factor.

    Arguments:
      x: float32 `[batch, length, heads, width]`, queries or keys.
      projections: `[features, width]`.
      axes: over which the largest exponent is subtracted: features for queries, length and
        features for keys; both cancel in the quotient. None bounds the exponent instead, so that
        a later key does not change the sums of an earlier one.
      seen: bool `[batch or 1, length, heads or 1]`; the features of the others are 0.

    Returns:
      float32 `[batch, length, heads, features]`.
    """
    x = x * x.shape[-1] ** -0.25
    exponent = jnp.einsum("bnhd,fd->bnhf", x, projections)
    exponent = exponent - jnp.square(x).sum(-1, keepdims=True) / 2
    if seen is not None:
        exponent = jnp.where(seen[..., None], exponent, jnp.finfo(jnp.float32).min)
    if axes is None:
        exponent = jnp.minimum(exponent, _LARGEST)
    else:
        exponent = exponent - jax.lax.stop_gradient(exponent.max(axes, keepdims=True))
    features = jnp.exp(exponent) + 1e-6
    return _zero_unseen(features, seen) * projections.shape[0] ** -0.5


def relu_features(
    x: jax.Array, projections: jax.Array, seen: jax.Array | None = None
) -> jax.Array:
    """Features of the generalised kernel with ReLU; arguments as in `softmax_features`."""
    x = x * x.shape[-1] ** -0.25
    features = jax.nn.relu(jnp.einsum("bnhd,fd->bnhf", x, projections)) + 1e-3
    return _zero_unseen(features, seen) * projections.shape[0] ** -0.5


def linear_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """D^-1 Q' (K'^T V) with D = diag(Q' K'^T 1), in float32; 0 for a query without keys.

    Arguments:
      query, key: non-negative features `[batch, queries or keys, heads, features]`.
      value: `[batch, keys, heads, width]`.
    """
    sums = jnp.einsum("bkhf,bkhd->bhfd", key, value.astype(jnp.float32))
    norm = jnp.einsum("bqhf,bhf->bqh", query, key.sum(1))[..., None]
    mixed = jnp.einsum("bqhf,bhfd->bqhd", query, sums)
    return jnp.where(norm > 0, mixed / jnp.where(norm > 0, norm, 1.0), 0.0)


def causal_linear_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, chunk: int = 128
) -> jax.Array:
    """Causal linear attention: row i of tril(Q' K'^T) V over the row's sum, in float32.

    Computed by prefix sums over chunks: cost proportional to length x (features + chunk), memory,
    in the backward pass too, to length x (features / chunk + 1) x width. Arguments and result as in
    `linear_attention`.
    """
    batch, length, heads, width = value.shape
    chunk = min(chunk, length)
    # The sum of the features is that of a further value of 1.
    value = value.astype(jnp.float32)
    value = jnp.concatenate([value, jnp.ones((*value.shape[:3], 1), jnp.float32)], -1)

    def cut(t: jax.Array) -> jax.Array:
        t = jnp.pad(t, [(0, 0), (0, -length % chunk), (0, 0), (0, 0)])
        return jnp.moveaxis(t.reshape(batch, -1, chunk, heads, t.shape[-1]), 1, 0)

    past = jnp.tril(jnp.ones((chunk, chunk), bool))

    @jax.checkpoint
    def one(sums: jax.Array, part: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        query, key, value = part
        scores = jnp.where(past, jnp.einsum("bqhf,bkhf->bhqk", query, key), 0.0)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", scores, value)
        mixed = mixed + jnp.einsum("bqhf,bhfd->bqhd", query, sums)
        return sums + jnp.einsum("bkhf,bkhd->bhfd", key, value), mixed

    start = jnp.zeros((batch, heads, query.shape[-1], width + 1), jnp.float32)
    _, mixed = jax.lax.scan(one, start, (cut(query), cut(key), cut(value)))
    mixed = jnp.moveaxis(mixed, 0, 1).reshape(batch, -1, heads, width + 1)[:, :length]
    norm = mixed[..., -1:]
    return jnp.where(norm > 0, mixed[..., :-1] / jnp.where(norm > 0, norm, 1.0), 0.0)


class Performer(EqualHeads):
    """Attention by random features, FAVOR+ (Choromanski et al. 2021, arXiv:2009.14794).

    Cost proportional to length x features. The softmax kernel's estimate has a relative variance
    that grows as exp(|q + k|^2): it is good for small queries and keys only. The prefix sums of
    `causal` go by chunks of 128 positions. Masks are over keys only; with `causal` they may have
    the rows of a causal mask, the last of which says which keys count.

    Arguments:
      dropout: rate on the mixed values, as there are no weights to drop.
      dtype: of the projections; the features and their sums are float32.
      features: number of random features.
      kernel: "softmax" or "relu".
      causal: a position sees no later one; self-attention only.
      redraw: draw new features at every training step (from the rng `dropout`); evaluation uses
        those of `seed`.
      seed: of the features.
    """

    takes_memory: ClassVar[bool] = True

    features: int = 256
    kernel: str = "softmax"
    causal: bool = False
    redraw: bool = False
    seed: int = 0

    def _projections(self, width: int, train: bool) -> jax.Array:
        if self.redraw and train:
            return orthogonal_features(self.make_rng("dropout"), self.features, width)
        with jax.ensure_compile_time_eval():
            return orthogonal_features(jax.random.key(self.seed), self.features, width)

    def _attend(self, x, memory, mask, train):
        if self.kernel not in ("softmax", "relu"):
            raise UserError(f"kernel={self.kernel!r} is not known; use 'softmax' or 'relu'.")
        if self.causal:
            only_self("causal Performer", memory)
            mask = mask if mask is None else mask[:, :, -1:]
        memory = x if memory is None else memory
        seen = keys_seen("Performer", mask)
        query = self._heads(x, "query").astype(jnp.float32)
        key = self._heads(memory, "key").astype(jnp.float32)
        value = self._heads(memory, "value")
        projections = self._projections(query.shape[-1], train)
        if self.kernel == "softmax":
            query = softmax_features(query, projections, (-1,))
            key = softmax_features(key, projections, None if self.causal else (1, -1), seen)
        else:
            query = relu_features(query, projections)
            key = relu_features(key, projections, seen)
        attend = causal_linear_attention if self.causal else linear_attention
        mixed = attend(query, key, value).astype(self.dtype)
        return self._out(nn.Dropout(self.dropout)(mixed, deterministic=not train))


class FNet(EqualHeads):
    """Real part of the 2-D Fourier transform of tokens and width (Lee-Thorp et al. 2022).

    No parameters, and `heads` is not used. Masked tokens are zeroed before the transform; its
    frequencies are those of the padded length.

    Arguments:
      dropout: rate on the result, as there are no weights to drop.
      dtype: of the result; the transform is float32.
      norm: "ortho" keeps the variance, as a residual stream wants it; "backward" is the paper's
        unscaled sum, sqrt(length x width) times as large, which needs a LayerNorm behind it.
    """

    norm: str = "ortho"

    def _attend(self, x, memory, mask, train):
        if self.norm not in ("ortho", "backward"):
            raise UserError(f"norm={self.norm!r} is not known; use 'ortho' or 'backward'.")
        seen = keys_seen("FNet", mask)
        if seen is not None and seen.shape[-1] > 1:
            raise UserError("FNet has no heads; give a mask without a heads axis.")
        y = x.astype(jnp.float32)
        y = y if seen is None else jnp.where(seen, y, 0.0)
        y = jnp.fft.fft2(y, norm=self.norm).real.astype(self.dtype)
        return nn.Dropout(self.dropout)(y, deterministic=not train)


class Fastformer(EqualHeads):
    """Additive attention through one global query and key (Wu et al. 2021, arXiv:2108.09084).

    With alpha = softmax(w_q . q_i / sqrt(d)) and q = sum alpha_i q_i, p_i = q * k_i,
    beta = softmax(w_k . p_i / sqrt(d)) and k = sum beta_i p_i, the result is W (k * v_i) + q_i.
    Self-attention only; cost proportional to the length.

    Arguments:
      dropout: rate on alpha and beta.
      share_value: use the projection of the query for the value too (section 3.2 of the paper).
    """

    share_value: bool = False

    def _pool(self, name: str, t: jax.Array, seen: jax.Array | None, train: bool) -> jax.Array:
        """Weighted mean `[batch, 1, heads, width]` of `[batch, length, heads, width]`."""
        shape = t.shape[-2:]
        vector = self.param(name, nn.initializers.lecun_normal(), shape, jnp.float32)
        scores = (t.astype(jnp.float32) * vector).sum(-1) * shape[-1] ** -0.5
        if seen is not None:
            scores = jnp.where(seen, scores, jnp.finfo(jnp.float32).min)
        weights = nn.Dropout(self.dropout)(jax.nn.softmax(scores, 1), deterministic=not train)
        return jnp.einsum("bnh,bnhd->bhd", weights.astype(t.dtype), t)[:, None]

    def _attend(self, x, memory, mask, train):
        seen = keys_seen("Fastformer", mask)
        query = self._heads(x, "query")
        key = self._heads(x, "key")
        value = query if self.share_value else self._heads(x, "value")
        pooled = self._pool("query_score", query, seen, train)
        pooled = self._pool("key_score", pooled * key, seen, train)
        return self._out(pooled * value) + query.reshape(x.shape)
