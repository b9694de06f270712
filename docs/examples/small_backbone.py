"""A plain convolutional network for small radiographs."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr import registry
from jaxcxr.models.vision.classifier import ClassifierHead

NAME = "small_backbone"
ENTRY = registry.Model(f"{__name__}:SmallClassifier", "cxr")  # of registry.MODELS[NAME]


class Backbone(nn.Module):
    """Convolution, LayerNorm and GELU, each at half the resolution.

    Arguments:
      widths: channels of each layer.
      dtype: of the computation.
    """

    widths: tuple[int, ...] = (16, 32, 64)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Pools images `[batch, height, width, 1]` to features `[batch, channels]`."""
        x = images.astype(self.dtype)
        for width in self.widths:
            x = nn.Conv(width, (3, 3), (2, 2), dtype=self.dtype)(x)
            x = nn.gelu(nn.LayerNorm(dtype=self.dtype)(x))
        return x.mean((1, 2))


class SmallClassifier(nn.Module):
    """Backbone and head; every field but dtype and axis_name is an option of a config.

    Arguments:
      classes: number of logits; the data set decides it.
      widths: channels of each layer of the backbone.
      dtype: of the computation.
      axis_name: for BatchNorm under pmap; there is none here.
    """

    classes: int = 15
    widths: tuple[int, ...] = (16, 32, 64)
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def setup(self):
        """Names the parts `backbone` and `head`, as stages expect."""
        self.backbone = Backbone(tuple(self.widths), self.dtype)
        self.head = ClassifierHead(self.classes, width=0, dtype=self.dtype)

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns float32 logits `[batch, classes]` of images `[batch, height, width, 1]`."""
        return self.head(self.backbone(images), train=train)
