"""Codes of absolute positions, sinusoidal or learned, which models add to their tokens."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcxr.errors import UserError


def sinusoidal(positions: np.ndarray, dim: int) -> np.ndarray:
    """Position codes of Vaswani et al. 2017, section 3.5.

    Arguments:
      positions: `[...]`, any real unit.
      dim: width, even.

    Returns:
      float32 `[..., dim]`; element 2i is sin(p / 10000^(2i/dim)), element 2i+1 the cosine.

    Raises:
      UserError: `dim` is odd.
    """
    if dim % 2:
        raise UserError(f"sinusoidal positions need an even width, not {dim}; change the width.")
    angles = np.asarray(positions)[..., None] / 10000.0 ** (np.arange(0, dim, 2) / dim)
    codes = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    return codes.reshape(*angles.shape[:-1], dim).astype(np.float32)


def sinusoidal_2d(height: int, width: int, dim: int) -> np.ndarray:
    """Codes float32 `[height * width, dim]` of a grid in row order; half for rows, half columns."""
    if dim % 4:
        raise UserError(
            f"2-D sinusoidal positions need a width divisible by 4, not {dim}; change the width."
        )
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    codes = [sinusoidal(axis.ravel(), dim // 2) for axis in (rows, columns)]
    return np.concatenate(codes, axis=-1)


class TimePositions(nn.Module):
    """Adds the position along the second to last axis of `[..., length, dim]`.

    Arguments:
      kind: "sinusoidal" (any length) or "learned" (up to `max_length`).
      max_length: rows of the learned table.
      std: of the learned table at initialisation.
    """

    kind: str = "sinusoidal"
    max_length: int = 243
    std: float = 0.02

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `x` plus its positions, in the dtype of `x`."""
        length, dim = x.shape[-2:]
        if self.kind == "sinusoidal":
            return x + jnp.asarray(sinusoidal(np.arange(length), dim), x.dtype)
        if self.kind != "learned":
            raise UserError(f"positions={self.kind!r} is not known; use 'sinusoidal' or 'learned'.")
        if length > self.max_length:
            raise UserError(
                f"a sequence of {length} is longer than max_length={self.max_length} of the "
                "learned positions; raise max_length or use positions='sinusoidal'."
            )
        init = nn.initializers.normal(self.std)
        table = self.param("embedding", init, (self.max_length, dim), jnp.float32)
        return x + table[:length].astype(x.dtype)
