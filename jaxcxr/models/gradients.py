"""Where gradients are to be kept rather than computed again."""

import jax


def kept(x: jax.Array) -> jax.Array:
    """Returns `x`; on CPU its gradient is computed once and stored, if the step's options say so.

    The gradient of a residual stream is a sum to which each block adds. XLA's CPU compiler fuses
    cheap producers into every consumer, so that the weight gradients of a block compute the sum
    over all later blocks anew, element by element: the time of a step grows with the square of the
    depth. A barrier stops that; it changes no number. The compiler takes barriers out before it
    fuses unless `train.setup` tells it not to. Other compilers weigh what they repeat.
    """
    return jax.lax.optimization_barrier(x) if jax.default_backend() == "cpu" else x
