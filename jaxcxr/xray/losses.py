"""Computes the loss of the chest X-ray task, and balances rare findings and small sources.

The loss is the weighted binary cross-entropy of known labels; weights of the classes and sampling
probabilities of the images balance it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcxr.data.label_tables import NEGATIVE, POSITIVE

CLASS_WEIGHTS = ("thesis", "chexnet", "effective_number", "none")
SAMPLING = ("plain", "class_balanced", "source_balanced")


def class_weights(
    labels: np.ndarray, kind: str, beta: float = 0.9999
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the weights of positive and negative labels of each class in the training split.

    With P positive and N negative labels of a class, unknown ones left out:

    - "thesis": eq. 4.2, `w_n = P / (P + N)` and `w_p = 1 - w_n`, over images with a known label.
    - "chexnet": `w_p = N / (P + N)` and `w_n = P / (P + N)` (Rajpurkar et al. 2017,
      arXiv:1711.05225, section 2.1, there for one class); the same values as "thesis".
    - "effective_number": `1 / E(P)` and `1 / E(N)` with `E(n) = (1 - beta^n) / (1 - beta)` (Cui et
      al. 2019, arXiv:1901.05555, proposition 1), divided by their sum. This tends to CheXNet's
      ratio as `beta` approaches 1, and is 1/2 and 1/2 at 0.
    - "none": 1 and 1.

    All but the last sum to 1 in each class. A class without positives gets weights 1 and 0, one
    without negatives 0 and 1.

    Arguments:
      labels: `[n, classes]` int8 in {1, 0, -1 unknown}.
      kind: one of `CLASS_WEIGHTS`.
      beta: of "effective_number", in [0, 1).

    Returns:
      (positive, negative) weights, each float32 `[classes]`.
    """
    positives, negatives = ((labels == value).sum(0) for value in (POSITIVE, NEGATIVE))
    if kind == "none":
        ones = np.ones(labels.shape[1], np.float32)
        return ones, ones
    if kind == "effective_number":  # the factor 1 / (1 - beta) of both cancels
        positives, negatives = 1.0 - beta**positives, 1.0 - beta**negatives
    total = positives + negatives
    rate = np.divide(positives, total, out=np.zeros(labels.shape[1]), where=total > 0)
    return (1.0 - rate).astype(np.float32), rate.astype(np.float32)


def sampling(labels: np.ndarray, source: np.ndarray, kind: str) -> np.ndarray | None:
    """Computes the probability `[n]` with which each training image is drawn.

    - "plain": None; every image once per epoch.
    - "class_balanced": a class is drawn uniformly, then one of its positive images; images without
      a positive label form one more class.
    - "source_balanced": a source is drawn uniformly, then one of its images.
    """
    if kind == "plain":
        return None
    if kind == "source_balanced":
        member = source[:, None] == np.unique(source)
    else:
        positive = labels == POSITIVE
        member = np.concatenate([positive, ~positive.any(1, keepdims=True)], 1)
    member = member[:, member.any(0)]
    return (member / member.sum(0)).sum(1) / member.shape[1]


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
