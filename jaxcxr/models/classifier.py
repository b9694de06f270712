"""The classification head and the pooling shared by the image models."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.models.sharding import by_example


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


def stem_pool(x: jax.Array) -> jax.Array:
    """Maxima of 3 x 3 pixels, every second one, as at the end of an ImageNet stem.

    On CPU as the maximum of nine slices: the gradient of XLA's own window takes eight times as
    long there (85 and 11 ms of CPU time at `[4, 112, 112, 64]`). Where pixels of a window tie
    they share the gradient.

    Arguments:
      x: `[batch, height, width, channels]`.

    Returns:
      `[batch, ceil(height / 2), ceil(width / 2), channels]`.
    """
    if jax.default_backend() != "cpu":
        return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    height, width = x.shape[1:3]
    least = jnp.array(-jnp.inf, x.dtype)
    padded = jax.lax.pad(x, least, ((0, 0, 0), (1, 1, 0), (1, 1, 0), (0, 0, 0)))
    return functools.reduce(jnp.maximum, (
        padded[:, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)
    ))
