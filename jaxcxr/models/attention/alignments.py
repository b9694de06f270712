"""Alignment functions: how well a query fits a key, a(q, k), by the name of each.

Every function exists once for all heads, with parameters of each head's own. Seven are bilinear:
they map query and key apart and take the dot product of both, possibly with a function after it.
The rest looks at each pair, or at one side only. With q and k of one head:

  similarity         exp(b) cos(q, k), exp(b) at most 100     (Graves, Wayne & Danihelka 2014)
  dot                q . k                                    (Luong, Pham & Manning 2015)
  scaled_dot         q . k / sqrt(width)                      (Vaswani et al. 2017)
  general            q . W k                                  (Luong, Pham & Manning 2015)
  biased_general     k . (W q + b)                            (Sordoni et al. 2016)
  activated_general  tanh(q . W k + b)                        (Ma et al. 2017)
  kernel             f(q) . f(k), f = elu + 1; weighs with the normaliser `linear`, without exp
                                                              (Katharopoulos et al. 2020)
  additive           v . tanh(W_1 q + W_2 k + b): concatenation written out
                                                              (Bahdanau, Cho & Bengio 2015)
  deep               v . e_2 + c, e_2 = tanh(W_2 e_1 + b_2), e_1 = tanh(W_0 q + W_1 k + b_1)
                                                              (Pavlopoulos et al. 2017)
  location           (W q)_j of key number j: needs `max_keys`   (Luong, Pham & Manning 2015)
  feature            v . tanh(W_1 f_1 + W_2 f_2 + b), f_1 and f_2 the mean and the standard
                     deviation of the key and the two seen keys before it, the statistics of
                     area attention (Li et al. 2019); needs no query
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcxr.errors import UserError

BILINEAR = (
    "scaled_dot", "dot", "similarity", "general", "biased_general", "activated_general", "kernel",
)
NAMES = (*BILINEAR, "additive", "deep", "location", "feature")

# Keys of an area of `feature`: the key itself and those before it, so that a causal mask holds.
AREA = 3

_EPSILON = 1e-6


def _scaled_identity(width: int):
    """Initialiser under which `general` begins as scaled dot-product attention."""

    def init(key: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        del key
        eye = jnp.eye(width, dtype=dtype) / jnp.asarray(np.sqrt(width), dtype)
        return jnp.broadcast_to(eye, shape)

    return init


def wide(dtype: Any) -> Any:
    """The dtype of scores and weights: float32, or float64 where all else is float64."""
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


def parameters(
    name: str, heads: int, width: int, max_keys: int = 0
) -> dict[str, tuple[Any, tuple]]:
    """Parameters of an alignment function: name -> (initialiser, shape), heads on axis 0."""
    matrix = nn.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=0)
    square, vector, zeros = (heads, width, width), (heads, width), nn.initializers.zeros
    readout = nn.initializers.normal(width**-0.5)
    identity = {"matrix": (_scaled_identity(width), square)}
    pair = {"first": (matrix, square), "second": (matrix, square), "bias": (zeros, vector)}
    if name == "location" and max_keys < 1:
        raise UserError(
            "the alignment 'location' scores key numbers and needs their largest number; "
            "write location(MAX_KEYS), such as location(243)."
        )
    known: dict[str, dict[str, tuple[Any, tuple]]] = {
        "similarity": {"log_scale": (nn.initializers.constant(np.log(10.0)), (heads,))},
        "general": identity,
        "biased_general": {**identity, "bias": (zeros, vector)},
        "activated_general": {**identity, "bias": (zeros, (heads,))},
        "additive": {**pair, "readout": (readout, vector)},
        "deep": {
            **pair,
            "hidden": (matrix, square),
            "hidden_bias": (zeros, vector),
            "readout": (readout, vector),
            "constant": (zeros, (heads,)),
        },
        "location": {"matrix": (nn.initializers.normal(width**-0.5), (heads, max_keys, width))},
        "feature": {**pair, "readout": (readout, vector)},
    }
    if name not in NAMES:
        raise UserError(f"no alignment is called {name!r}; use one of {', '.join(NAMES)}.")
    return known.get(name, {})


def _dot(query: jax.Array, key: jax.Array) -> jax.Array:
    return jnp.einsum(
        "bqhd,bkhd->bhqk", query, key, preferred_element_type=wide(query.dtype)
    )


def _unit(x: jax.Array) -> jax.Array:
    square = jnp.square(x).sum(-1, keepdims=True)
    return x * jax.lax.rsqrt(square + jnp.asarray(_EPSILON, x.dtype) ** 2)


def factors(
    name: str, params: Mapping[str, jax.Array], query: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Query and key `[batch, n, heads, width]` whose dot product a bilinear function is."""
    params = {k: v.astype(query.dtype) for k, v in params.items()}
    if name == "scaled_dot":
        return query * query.shape[-1] ** -0.5, key
    if name == "similarity":
        scale = jnp.exp(jnp.minimum(params["log_scale"], float(np.log(100.0))))
        return _unit(query) * scale[:, None], _unit(key)
    if name in ("general", "activated_general"):
        return jnp.einsum("bqhd,hde->bqhe", query, params["matrix"]), key
    if name == "biased_general":
        return jnp.einsum("bqhd,hed->bqhe", query, params["matrix"]) + params["bias"], key
    if name == "kernel":
        return jax.nn.elu(query) + 1, jax.nn.elu(key) + 1
    return query, key


def score(
    name: str,
    params: Mapping[str, jax.Array],
    query: jax.Array,
    key: jax.Array,
    valid: jax.Array | None = None,
) -> jax.Array:
    """Alignment of every query with every key.

    Arguments:
      name: one of `NAMES`.
      params: of the shapes of `parameters`.
      query: `[batch, queries, heads, width]`.
      key: `[batch, keys, heads, width]`.
      valid: bool `[batch or 1, heads or 1, keys]`, False at keys that no query sees; `feature`
        leaves them out of the areas of other keys.

    Returns:
      Scores `[batch, heads, queries, keys]`, at least float32.
    """
    if name in BILINEAR:
        scores = _dot(*factors(name, params, query, key))
        if name == "activated_general":
            return jnp.tanh(scores + params["bias"].astype(scores.dtype)[:, None, None])
        return scores
    dtype = wide(query.dtype)
    params = {k: v.astype(query.dtype) for k, v in params.items()}
    if name == "location":
        return _location(params, query, key.shape[1])
    if name == "feature":
        mean, deviation = areas(key, valid)
        features = _sum_of_maps(params, mean, deviation)
        scores = jnp.einsum(
            "bkhe,he->bhk", jnp.tanh(features), params["readout"], preferred_element_type=dtype
        )
        shape = (*scores.shape[:2], query.shape[1], scores.shape[2])
        return jnp.broadcast_to(scores[:, :, None], shape)
    hidden = jnp.tanh(_pairs(params, query, key))
    if name == "deep":
        hidden = jnp.einsum("bhqkd,hde->bhqke", hidden, params["hidden"])
        hidden = jnp.tanh(hidden + params["hidden_bias"][:, None, None])
    scores = jnp.einsum("bhqke,he->bhqk", hidden, params["readout"], preferred_element_type=dtype)
    if name == "deep":
        scores = scores + params["constant"].astype(dtype)[:, None, None]
    return scores


def _map(x: jax.Array, matrix: jax.Array) -> jax.Array:
    return jnp.einsum("bnhd,hde->bnhe", x, matrix)


def _sum_of_maps(params: Mapping[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    return _map(x, params["first"]) + _map(y, params["second"]) + params["bias"]


def _pairs(params: Mapping[str, jax.Array], query: jax.Array, key: jax.Array) -> jax.Array:
    """W_1 q + W_2 k + b of every pair, `[batch, heads, queries, keys, width]`."""
    first = _map(query, params["first"]).swapaxes(1, 2)
    second = (_map(key, params["second"]) + params["bias"]).swapaxes(1, 2)
    return first[:, :, :, None] + second[:, :, None]


def _location(params: Mapping[str, jax.Array], query: jax.Array, keys: int) -> jax.Array:
    most = params["matrix"].shape[1]
    if keys > most:
        raise UserError(
            f"the alignment 'location' was made for at most {most} keys and got {keys}; "
            f"write location({keys}) or give fewer."
        )
    rows = params["matrix"][:, :keys]
    return jnp.einsum("bqhd,hkd->bhqk", query, rows, preferred_element_type=wide(query.dtype))


def areas(key: jax.Array, valid: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation, like `key`, of each key and the `AREA - 1` keys before it.

    Arguments:
      key: `[batch, keys, heads, width]`.
      valid: bool `[batch or 1, heads or 1, keys]`; other keys are in no area.
    """
    batch, keys, heads, _ = key.shape
    if valid is None:
        valid = jnp.ones((1, 1, keys), bool)
    valid = jnp.broadcast_to(valid, (batch, heads, keys)).swapaxes(1, 2)[..., None]

    def window(x: jax.Array) -> jax.Array:
        padded = jnp.pad(x, ((0, 0), (AREA - 1, 0), (0, 0), (0, 0)))
        return jnp.stack([padded[:, i : i + keys] for i in range(AREA)])

    inside, members = window(valid), window(key)
    count = jnp.maximum(inside.sum(0), 1).astype(key.dtype)
    mean = jnp.where(inside, members, 0).sum(0) / count
    square = jnp.where(inside, jnp.square(members - mean), 0).sum(0) / count
    return mean, jnp.sqrt(square + _EPSILON)
