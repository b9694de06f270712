"""The classification head shared by the image models."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.models.layers import by_example


def colored(images: jax.Array, channels: tuple[tuple[float, float], ...]) -> jax.Array:
    """Makes the channels that the first layer gets from the one of a radiograph.

    Weights that were trained on colour images normalise each channel by its own mean and standard
    deviation. Here one channel, normalised by their averages, is scaled and shifted for each, so
    that padding is 0 in each channel as it was in training.

    Arguments:
      images: `[batch, height, width, 1]`.
      channels: (scale, shift) of each; (): the images as they are.
    """
    if not channels:
        return images
    scale, shift = (jnp.asarray(values, images.dtype) for values in zip(*channels, strict=True))
    return images * scale + shift


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
