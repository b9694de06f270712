"""Learning-rate schedules: peak learning rate x warm-up factor x decay factor.

Optax calls a schedule with the number of updates made so far, 0 before the first one. Warm-ups are
written for update number t = 1, 2, ... (Ma & Yarats 2019, arXiv 1910.04209), so t = count + 1;
otherwise the first update would be made with learning rate 0.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

Factor = Callable[[jax.typing.ArrayLike], jax.Array]


def warmup_factor(name: str, *, steps: int = 0, dim: int = 0, b2: float = 0.999) -> Factor:
    """Warm-up factor of the update after `count` updates, with t = count + 1.

    `linear`: min(1, t/steps). `exponential`: 1 - exp(-t/steps). `untuned_linear` and
    `untuned_exponential`: the same with steps = 2/(1 - b2) and 1/(1 - b2) (Ma & Yarats 2019).
    `noam`: dim^-1/2 min(t^-1/2, t steps^-3/2) (Vaswani et al. 2017, eq. 3), which is thesis
    eq. 2.34 with its exponent corrected to -1.5. The untuned periods are kept as real numbers:
    pytorch_warmup 0.2.0 truncates them to integers, and 2/(1 - 0.999) thus becomes 1999.

    Arguments:
      name: a choice of the key `warmup.name`.
      steps: warm-up period in updates, for `linear`, `exponential` and `noam`.
      dim: width of the model, for `noam`.
      b2: decay rate of the second moment, for the untuned warm-ups.

    Returns:
      function of the int32 count (any shape) that gives a float32 factor of that shape.
    """
    period = {"untuned_linear": 2 / (1 - b2), "untuned_exponential": 1 / (1 - b2)}.get(name, steps)

    def factor(count: jax.typing.ArrayLike) -> jax.Array:
        t = jnp.asarray(count, jnp.float32) + 1.0
        if name == "none":
            return jnp.ones_like(t)
        if name in ("linear", "untuned_linear"):
            return jnp.minimum(1.0, t / period)
        if name in ("exponential", "untuned_exponential"):
            return -jnp.expm1(-t / period)
        return dim**-0.5 * jnp.minimum(t**-0.5, t * period**-1.5)

    return factor


def decay_factor(
    name: str,
    total_steps: int,
    *,
    end_factor: float = 0.0,
    boundaries: Sequence[float] = (),
    factor: float = 0.1,
) -> Factor:
    """Decay factor of the update after `count` updates: 1 for the first one.

    With p = min(1, count/total_steps), `constant`: 1. `cosine`: end_factor +
    (1 - end_factor)(1 + cos(pi p))/2. `exponential`: end_factor^p. `step`: `factor` to the power
    of the number of boundaries passed. The decay runs over the whole stage, warm-up included.

    Arguments:
      name: a choice of the key `decay.name`.
      total_steps: number of updates in the stage.
      end_factor: what `cosine` and `exponential` arrive at.
      boundaries: fractions of `total_steps` at which `step` multiplies by `factor`.
      factor: multiplier at each boundary.

    Returns:
      function of the int32 count (any shape) that gives a float32 factor of that shape.
    """
    edges = [round(boundary * total_steps) for boundary in boundaries]

    def decay(count: jax.typing.ArrayLike) -> jax.Array:
        count = jnp.asarray(count, jnp.float32)
        progress = jnp.minimum(1.0, count / total_steps)
        if name == "cosine":
            return end_factor + (1 - end_factor) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        if name == "exponential":
            return end_factor**progress
        result = jnp.ones_like(count)
        for edge in edges if name == "step" else ():
            result = jnp.where(count >= edge, result * factor, result)
        return result

    return decay


def schedule(peak: float, warmup: Factor, decay: Factor) -> Factor:
    """Learning rate as the product peak x warm-up x decay.

    Arguments:
      peak: peak learning rate; with the `noam` warm-up the multiplier of Noam's own rate.
      warmup: function of `warmup_factor`.
      decay: function of `decay_factor`.

    Returns:
      optax schedule: int32 count of updates made so far to float32 learning rate.
    """
    return lambda count: peak * warmup(count) * decay(count)
