"""The classification head shared by the image models."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.models.layers import by_example


class ClassifierHead(nn.Module):
    """Maps pooled features to logits: Dense -> ReLU -> Dropout -> Dense, or one Dense.

    The two-layer form (256 wide, dropout 0.25) is the head of the thesis (section 4.1).

    Arguments:
      classes: number of logits.
      width: units of the hidden layer; 0 leaves a single Dense.
      dropout: rate after the hidden layer, or on the features where there is none.
      dtype: of the computation; the logits are always float32.
    """

    classes: int
    width: int = 256
    dropout: float = 0.25
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        """Returns float32 logits `[batch, classes]` of features `[batch, channels]`."""
        x = by_example(features)
        if self.width:
            x = nn.relu(nn.Dense(self.width, dtype=self.dtype, name="hidden")(x))
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        return nn.Dense(self.classes, dtype=self.dtype, name="logits")(x).astype(jnp.float32)
