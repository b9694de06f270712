"""Gates: how much the output of a head counts.

  none     1
  static   one number for each head, exactly 0 or 1 in the limits, so that a head can be removed:
           the hard concrete distribution of Louizos, Welling & Kingma 2018 (arXiv:1712.01312)
           on heads, as Voita et al. 2019
  token    2 sigmoid(w . x + b) for each head and token; w = b = 0 at the beginning: 1
  element  the same for each element of the head's output (Qiu et al. 2025, arXiv:2505.06708)
"""

import math

import jax
import jax.numpy as jnp

NAMES = ("none", "static", "token", "element")

# Temperature, and the stretched interval whose parts beyond [0, 1] become exactly 0 or 1.
TEMPERATURE, LOW, HIGH = 0.33, -0.1, 1.1

# In evaluation exactly 1 from log(11) = 2.398 on, so that a model begins as one without gates.
OPEN = 2.5

_LEAST = 1e-6


def hard_concrete(log_alpha: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """Static gates in [0, 1], `[heads]`.

    Arguments:
      log_alpha: `[heads]`, the learned log odds.
      key: draws training noise; without it the gates are those of evaluation.
    """
    if key is not None:
        u = jax.random.uniform(key, log_alpha.shape, log_alpha.dtype, _LEAST, 1 - _LEAST)
        noise = jnp.log(u) - jnp.log1p(-u)
        share = jax.nn.sigmoid((noise + log_alpha) / TEMPERATURE)
    else:
        share = jax.nn.sigmoid(log_alpha)
    return jnp.clip(share * (HIGH - LOW) + LOW, 0, 1)


def open_probability(log_alpha: jax.Array) -> jax.Array:
    """Probability that a static gate is not 0, the expected L0 norm; `[heads]`."""
    return jax.nn.sigmoid(log_alpha - TEMPERATURE * math.log(-LOW / HIGH))


def from_logits(logits: jax.Array) -> jax.Array:
    """Token and element gates, 2 sigmoid(logits)."""
    return 2 * jax.nn.sigmoid(logits)
