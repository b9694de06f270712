"""Asymmetric loss (Ridnik et al. 2021, arXiv:2009.14119, eq. 4 to 6) for chest radiographs."""

import jax.numpy as jnp
from jax import nn

from jaxcxr.data.label_tables import NEGATIVE, POSITIVE
from jaxcxr.xray.task import XrayTask

ENTRY = f"{__name__}:AsymmetricXray"  # of registry.TASKS["cxr"]

FOCUS_POSITIVE, FOCUS_NEGATIVE, MARGIN = 0.0, 4.0, 0.05


def asymmetric_loss(logits, labels):
    """Loss of each label, 0 where the label is unknown.

    Arguments:
      logits: float `[batch, classes]`.
      labels: int `[batch, classes]` in {1, 0, -1 unknown}.

    Returns:
      float32 `[batch, classes]`.
    """
    p = nn.sigmoid(logits.astype(jnp.float32))
    shifted = jnp.maximum(p - MARGIN, 0.0)
    positive = -((1 - p) ** FOCUS_POSITIVE) * jnp.log(jnp.maximum(p, 1e-8))
    negative = -(shifted**FOCUS_NEGATIVE) * jnp.log(jnp.maximum(1 - shifted, 1e-8))
    loss = jnp.where(labels == POSITIVE, positive, 0.0)
    return jnp.where(labels == NEGATIVE, negative, loss)


class AsymmetricXray(XrayTask):
    """The chest X-ray task with another loss; the trainer divides by the number of known labels."""

    def loss_sums(self, outputs, batch):
        """Sums the loss over the known labels of real examples."""
        loss = asymmetric_loss(outputs, batch["labels"])
        return {"cross_entropy": jnp.sum(jnp.where(batch["valid"][:, None], loss, 0.0))}
