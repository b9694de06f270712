"""Derives the randomness of augmentation from the examples, not from their batches."""

import jax
import jax.numpy as jnp


def position_keys(key: jax.Array, count: int, positions: jax.Array | None) -> jax.Array:
    """Derives one PRNG key per example of a step, from the example's position.

    The augmentation of an example then does not depend on its batch, nor on how that is laid out
    over devices, hosts and micro-batches.

    Arguments:
      key: PRNG key of the step.
      count: number of examples, B.
      positions: integers `[B]` that tell the examples of a step apart: their position in the
        global batch or in the stream. None: 0 to B-1, right only for a whole global batch under
        jit.

    Returns:
      PRNG keys `[B]`.
    """
    positions = jnp.arange(count) if positions is None else positions
    return jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)
