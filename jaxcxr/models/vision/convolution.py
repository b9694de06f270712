"""Convolution and pooling of the image models, in other forms on a CPU, where these are faster."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


def convolve(lhs: jax.Array, rhs: jax.Array, strides: Any, padding: Any, **options) -> jax.Array:
    """Convolves as `jax.lax.conv_general_dilated`, on CPU with 1 x 1 kernels as products.

    XLA:CPU transposes the activations for the gradient of a kernel, which for 1 x 1 kernels costs
    more than the product.

    Arguments:
      lhs: `[batch, height, width, channels]`.
      rhs: `[rows, columns, channels, features]`.
      strides, padding, **options: as of `jax.lax.conv_general_dilated`.
    """
    dilated = any(tuple(options.get(name) or ()) not in ((), (1, 1))
                  for name in ("lhs_dilation", "rhs_dilation"))
    grouped = options.get("feature_group_count", 1) != 1
    padded = isinstance(padding, str) or any(map(any, padding))
    if rhs.shape[:2] != (1, 1) or padded or dilated or grouped or jax.default_backend() != "cpu":
        return jax.lax.conv_general_dilated(lhs, rhs, strides, padding, **options)
    rows, columns = strides
    lhs = _every(lhs, (0, 0), lhs.shape[1:3], (rows, columns))
    return jax.lax.dot_general(
        lhs, rhs[0, 0], (((3,), (0,)), ((), ())), precision=options.get("precision")
    )


def stem_pool(x: jax.Array) -> jax.Array:
    """Pools the maxima of 3 x 3 pixels at stride 2, as at the end of an ImageNet stem.

    On CPU as the maximum of nine slices, whose gradient is several times as fast; pixels that tie
    share it.

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
        _every(padded, (i, j), (i + height, j + width), (2, 2)) for i in range(3) for j in range(3)
    ))


def _every(x: jax.Array, start, stop, step) -> jax.Array:
    """Every `step`-th row and column; as slices, which indexing with a symbolic batch is not."""
    for axis in (0, 1):
        x = jax.lax.slice_in_dim(x, start[axis], stop[axis], step[axis], axis + 1)
    return x
