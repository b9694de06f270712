"""Normalisers: from alignment scores to attention weights.

Simplex normalisers map scores `[..., keys]` to weights that sum to 1. A key is hidden from them by
the score `HIDDEN`; where all keys are hidden, all weigh the same. `sigmoid` and `quasi` weigh every
key by itself and take what a key is worth, `seen`, as a factor.
"""

import jax
import jax.numpy as jnp

# The score of a hidden key. Finite, so that neither a row of nothing but hidden keys nor the
# gradient of a branch that is not taken is NaN.
HIDDEN = -1e9

# Below, 1 / (alpha - 1) would overflow; entmax with this alpha is softmax to 1e-6.
_LEAST_ORDER = 1e-6


def log_seen(seen: jax.Array) -> jax.Array:
    """log m of what a key is worth, m in [0, 1], to add to the scores; `HIDDEN` where m is 0."""
    visible = seen > 0
    return jnp.where(visible, jnp.log(jnp.where(visible, seen, 1.0)), HIDDEN)


def softmax(scores: jax.Array) -> jax.Array:
    """Weights exp(s) / sum exp(s) over the last axis."""
    return jax.nn.softmax(scores)


def entmax(scores: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """Sparse weights of Tsallis order `alpha` (Peters, Niculae & Martins 2019, section 3).

    The solution is p = [(alpha - 1) s - tau]_+^(1/(alpha - 1)), with tau such that p sums to 1.
    It runs from softmax (alpha -> 1) to sparsemax (alpha = 2). tau is found by bisection and is
    not differentiated: with t = p^(2 - alpha) on the support, the Jacobian is
    diag(t) - t t^T / sum t, and d p / d alpha is in closed form (Correia, Niculae & Martins 2019,
    proposition 1), both in a form that stays exact as alpha -> 1.

    Arguments:
      scores: float `[..., keys]`, finite.
      alpha: above 1 and at most 2; broadcasts to `[..., 1]`, so that every head has its own.

    Returns:
      Weights of the shape and dtype of `scores`.
    """
    alpha = jnp.asarray(alpha, scores.dtype)
    alpha = jnp.broadcast_to(alpha, (*scores.shape[:-1], 1))
    return _entmax(scores, jnp.maximum(alpha - 1, _LEAST_ORDER))


def sparsemax(scores: jax.Array) -> jax.Array:
    """Euclidean projection of the scores onto the simplex (Martins & Astudillo 2016)."""
    return entmax(scores, 2.0)


def entmax15(scores: jax.Array) -> jax.Array:
    """Entmax of order 1.5, between softmax and sparsemax."""
    return entmax(scores, 1.5)


def _power(scores: jax.Array, order: jax.Array) -> jax.Array:
    """[1 + order * s]_+^(1/order), which is exp(s) as order -> 0."""
    base = jnp.maximum(order * scores, -1.0)
    inside = base > -1.0
    return jnp.where(inside, jnp.exp(jnp.log1p(jnp.where(inside, base, 0.0)) / order), 0.0)


@jax.custom_vjp
def _entmax(scores: jax.Array, order: jax.Array) -> jax.Array:
    """Entmax with order = alpha - 1, `[..., 1]`.

    With tau = order * (u + max s) - 1, p is `_power(s - max s - u)`: u is 0 where the largest key
    takes everything and largest where all keys are equal.
    """
    keys = scores.shape[-1]
    scores = scores - scores.max(-1, keepdims=True)
    width = -jnp.expm1(-order * jnp.log(jnp.asarray(keys, order.dtype))) / order

    def halve(_, bracket):
        low, width = bracket
        width = width / 2
        short = _power(scores - low - width, order).sum(-1, keepdims=True) >= 1
        return jnp.where(short, low + width, low), width

    steps = jnp.finfo(scores.dtype).nmant + 4
    low, _ = jax.lax.fori_loop(0, steps, halve, (jnp.zeros_like(width), width))
    weights = _power(scores - low, order)
    return weights / weights.sum(-1, keepdims=True)


def _entmax_forward(scores, order):
    weights = _entmax(scores, order)
    return weights, (weights, order)


def _entmax_backward(saved, gradient):
    weights, order = saved
    support = weights > 0
    log = jnp.log(jnp.where(support, weights, 1.0))
    grown = jnp.expm1(-order * log)
    total = 1 + (weights * grown).sum(-1, keepdims=True)
    tilted = weights * (1 + grown)  # p^(2 - alpha)
    shift = (tilted * gradient).sum(-1, keepdims=True) / total
    to_scores = tilted * (gradient - shift)

    # (p - q)/order^2 - (p log p - q sum p log p)/order, with q = tilted / total; the terms of
    # order 1/order cancel, so they are left out.
    rest = _exp_beyond_linear(-order * log)
    entropy = (weights * log).sum(-1, keepdims=True)
    mean_rest = (weights * rest).sum(-1, keepdims=True)
    slope = (mean_rest - rest) / order**2 - (log * (total - 1) - entropy * grown) / order
    to_order = (gradient * weights * slope / total).sum(-1, keepdims=True)
    return to_scores, to_order


_entmax.defvjp(_entmax_forward, _entmax_backward)


def _exp_beyond_linear(x: jax.Array) -> jax.Array:
    """exp(x) - 1 - x for x >= 0, without cancellation near 0."""
    small = jnp.minimum(x, 0.5)
    term, series = small, jnp.zeros_like(small)
    for power in range(2, 14):
        term = term * small / power
        series = series + term
    return jnp.where(x < 0.5, series, jnp.expm1(x) - x)


def sigmoid(scores: jax.Array, seen: jax.Array) -> jax.Array:
    """Weights of every key by itself, s -> seen * sigmoid(s - ln n) for n seen keys.

    The shift makes equal scores of 0 weigh about 1/n each, as softmax does (Ramapuram et al.
    2024, arXiv:2409.04431, section 3). `seen` in [0, 1] broadcasts to the scores.
    """
    count = (seen > 0).sum(-1, keepdims=True).astype(scores.dtype)
    return seen * jax.nn.sigmoid(scores - jnp.log(jnp.maximum(count, 1)))


def quasi(scores: jax.Array, distances: jax.Array, seen: jax.Array) -> jax.Array:
    """Quasi-attention seen * tanh(s) * 2 sigmoid(N), which also subtracts (Tay et al. 2019, CoDA).

    N = -|q - k|_1 / sqrt(width), at most 0: twice its sigmoid is 1 where query and key are equal
    and 0 far apart.
    """
    return seen * jnp.tanh(scores) * (2 * jax.nn.sigmoid(distances))


def manhattan(query: jax.Array, key: jax.Array) -> jax.Array:
    """-|q - k|_1 / sqrt(width) `[batch, heads, queries, keys]` of `[batch, n, heads, width]`."""
    query, key = query.swapaxes(1, 2), key.swapaxes(1, 2)
    differences = jnp.abs(query[:, :, :, None] - key[:, :, None])
    return -differences.sum(-1) * query.shape[-1] ** -0.5


SIMPLEX = {"softmax": softmax, "sparsemax": sparsemax, "entmax15": entmax15}
