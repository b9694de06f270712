"""Computes the loss of the chest X-ray task: weighted binary cross-entropy of known labels."""

import jax
import jax.numpy as jnp

from jaxcxr.data.label_tables import NEGATIVE, POSITIVE


def cross_entropy(logits, labels, positive_weight, negative_weight, gamma: float = 0.0):
    """Computes the weighted binary cross-entropy of each label, 0 where the label is unknown.

    Thesis eq. 4.1 (its sum runs over 15 classes, not 16, and lacks the minus sign). With `gamma`
    above 0 each term is scaled by `(1 - p_t)^gamma` (Lin et al. 2017, focal loss, eq. 4).

    Arguments:
      logits: float `[batch, classes]`.
      labels: int `[batch, classes]` in {1, 0, -1 unknown}.
      positive_weight, negative_weight: `[classes]`.
      gamma: focusing exponent.

    Returns:
      float32 `[batch, classes]`.
    """
    logits = logits.astype(jnp.float32)
    log_p, log_q = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    positive = positive_weight * -log_p
    negative = negative_weight * -log_q
    if gamma:
        positive = positive * jnp.exp(gamma * log_q)
        negative = negative * jnp.exp(gamma * log_p)
    loss = jnp.where(labels == POSITIVE, positive, 0.0)
    return jnp.where(labels == NEGATIVE, negative, loss)
