"""Randomness of augmentation, which follows the examples and not the batches."""

import jax
import jax.numpy as jnp


def position_keys(key: jax.Array, count: int, positions: jax.Array | None) -> jax.Array:
    """Derives one PRNG key per example of a step, from the example's position.

    What happens to an example depends neither on the batch it is in nor on how the batch is laid
    out over devices, hosts and micro-batches.

    Arguments:
      key: PRNG key of the step.
      count: number of examples, B.
      positions: integers `[B]`, what distinguishes the examples of a step: their position in the
        global batch or in the stream. None: 0 to B-1, which is right for a whole global batch
        under jit only.

    Returns:
      PRNG keys `[B]`.
    """
    positions = jnp.arange(count) if positions is None else positions
    return jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)
