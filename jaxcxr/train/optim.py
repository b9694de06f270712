"""Builds the optimiser of a stage as an optax chain, and its learning-rate schedule.

Optax calls a schedule with the number of updates made so far, 0 before the first one. Warm-ups are
written for update number t = 1, 2, ... (Ma & Yarats 2019, arXiv 1910.04209), so t = count + 1;
otherwise the first update would be made with learning rate 0.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from jaxcxr.config.keys import MATRICES
from jaxcxr.models.sequence.scanned import is_stack
from jaxcxr.train import rules as rules_lib

# The variance of the adaptive rate is tractable above this length (torch and optax; the paper
# says 4, which for b2 = 0.99 and 0.999 moves the first rectified update from the 6th to the 5th).
_TRACTABLE_LENGTH = 5.0

# Learned spans of attention heads, shares of the largest distance.
_SPAN = re.compile(r"(^|/)group_\d+/span$")

Factor = Callable[[jax.typing.ArrayLike], jax.Array]


def make_optimizer(
    stage: ml_collections.ConfigDict, params: Any, total_steps: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Builds optimiser and learning-rate schedule of a stage.

    The order is: clip by global norm, moments, weight decay, multiplier, learning rate, projection
    of learned spans to [0, 1]. RAdam and AdamW decay the weights apart from the gradient
    (Loshchilov & Hutter 2019); Adam and SGD add the decay to the gradient before the moments, as
    torch does.

    Arguments:
      stage: settings with the keys of `default_stage`, checked by `check_stage`. In
        `optimizer.decay_rules` a value multiplies `weight_decay`, see `decay_factors`; in
        `optimizer.multiplier_rules` it multiplies the learning rate.
      params: the parameters that this stage trains; their paths and shapes are used.
      total_steps: number of updates in the stage.

    Returns:
      (transformation, schedule from update count to learning rate). `update` needs the
      parameters as its third argument.
    """
    settings = stage.optimizer
    learning_rate = schedule(
        stage.learning_rate,
        warmup_factor(**stage.warmup, b2=settings.b2),
        decay_factor(total_steps=total_steps, **stage.decay),
    )
    decay = [add_decay(settings.weight_decay, settings.decay_rules, params)]
    coupled = settings.name in ("adam", "sgd")
    chain = [
        *([optax.clip_by_global_norm(settings.clip_norm)] if settings.clip_norm else []),
        *(decay if coupled else []),
        _moments(settings),
        *([] if coupled else decay),
        scale_by_rules(settings.multiplier_rules, params),
        optax.scale_by_learning_rate(learning_rate),
        project_spans(params),
    ]
    return optax.chain(*chain), learning_rate


def scale_by_radam(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Builds Rectified Adam (Liu et al. 2020, arXiv 1908.03265), right from the first update.

    Until the length rho_t of the approximated moving average exceeds 5 the update is the
    bias-corrected first moment m_hat; afterwards it is r_t m_hat sqrt(1 - b2^t) / (sqrt(v) + eps).
    As in `torch.optim.RAdam`, eps joins the root of the second moment before its bias correction
    (optax adds it after). `optax.radam` evaluates rho_t in float32 as a difference of two numbers
    near 2/(1 - b2), which puts its 6th update off by 1.2 % for b2 = 0.999.

    Returns:
      A transformation from gradients to unscaled updates; its state is `optax.ScaleByAdamState`.
    """
    log_b1, log_b2 = math.log(b1) if b1 else -math.inf, math.log(b2)

    def init(params: Any) -> optax.ScaleByAdamState:
        zeros = optax.tree.zeros_like
        return optax.ScaleByAdamState(jnp.zeros([], jnp.int32), zeros(params), zeros(params))

    def update(
        gradients: Any, state: optax.ScaleByAdamState, params: Any = None
    ) -> tuple[Any, optax.ScaleByAdamState]:
        del params
        mu = jax.tree.map(lambda g, m: b1 * m + (1 - b1) * g, gradients, state.mu)
        nu = jax.tree.map(lambda g, v: b2 * v + (1 - b2) * g * g, gradients, state.nu)
        count = optax.safe_increment(state.count)
        t = count.astype(jnp.float32)
        first = 1.0 / -jnp.expm1(t * log_b1)
        rectify, factor = rectification(t, b2)
        second = factor * jnp.sqrt(-jnp.expm1(t * log_b2))

        def step(m: jax.Array, v: jax.Array) -> jax.Array:
            m_hat = first.astype(m.dtype) * m
            adapted = m_hat * second.astype(m.dtype) / (jnp.sqrt(v) + eps)
            return jnp.where(rectify, adapted, m_hat)

        return jax.tree.map(step, mu, nu), optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def rectification(t: jax.Array, b2: float) -> tuple[jax.Array, jax.Array]:
    """RAdam's variance rectification of update t without loss of digits in float32.

    With L = -ln b2, rho_inf = (1 + b2)/(1 - b2) = coth(L/2) and rho_t = rho_inf -
    2t/(exp(tL) - 1) = rho_inf + t - t coth(tL/2): both hyperbolic terms contain the same large
    2/L. The Langevin function c(y) = coth(y) - 1/y has it taken out, which leaves
    rho_t = t + c(L/2) - t c(tL/2), where no term is larger than t. Once tL > 1 the plain form
    loses nothing.

    Arguments:
      t: float32 number of the update, 1 for the first.

    Returns:
      (whether to rectify: rho_t > 5, the factor r_t: 1 where not to rectify).
    """
    rate = -math.log(b2)
    rho_inf = (1 + b2) / (1 - b2)
    if rho_inf <= _TRACTABLE_LENGTH:
        return jnp.zeros_like(t, bool), jnp.ones_like(t)
    x = t * rate
    small = jnp.minimum(x, 1.0)
    early = t + float(_langevin(0.5 * rate)) - t * _langevin(0.5 * small)
    late = rho_inf - 2.0 * t / jnp.expm1(jnp.maximum(x, 1.0))
    rho = jnp.where(x < 1.0, early, late)
    rectify = rho > _TRACTABLE_LENGTH
    # The root of a negative number must not be evaluated, not even where it is thrown away.
    rho = jnp.where(rectify, rho, rho_inf)
    ratio = ((rho - 4.0) / (rho_inf - 4.0)) * ((rho - 2.0) / (rho_inf - 2.0)) * (rho_inf / rho)
    return rectify, jnp.where(rectify, jnp.sqrt(ratio), 1.0)


def decay_factors(rules: Sequence[tuple[str, float | str]], params: Any) -> Any:
    """Returns the factor of the weight decay for each parameter.

    Arguments:
      rules: `((regex, factor), ...)`, True and False standing for 1 and 0. The factor "matrices" is
        1 for arrays of two dimensions or more and 0 for vectors, such as biases, scales of norms
        and of layers; the axis of scanned blocks does not count.
      params: tree of arrays, or of their shapes, whose paths the rules are matched with.

    Returns:
      Floats in a tree of the structure of `params`.
    """
    values = jax.tree.leaves(rules_lib.match_rules(rules, params, "optimizer.decay_rules"))
    factors = [
        float(leaf.ndim - is_stack(name) >= 2 if value == MATRICES else value)
        for name, leaf, value in zip(
            rules_lib.paths(params), jax.tree.leaves(params), values, strict=True
        )
    ]
    return jax.tree.unflatten(jax.tree.structure(params), factors)


def add_decay(
    weight_decay: float, rules: Sequence[tuple[str, float | str]], params: Any
) -> optax.GradientTransformation:
    """Adds weight decay times a factor per parameter to the updates.

    Arguments:
      weight_decay: decay rate, applied where the factor is 1.
      rules, params: see `decay_factors`.

    Returns:
      A transformation that needs the parameters in `update`.
    """
    factors = decay_factors(rules, params)
    if not weight_decay:
        return optax.identity()

    def decayed(update: jax.Array, param: jax.Array, factor: float) -> jax.Array:
        return update + weight_decay * factor * param if factor else update

    return optax.stateless(
        lambda updates, params: jax.tree.map(decayed, updates, params, factors)
    )


def scale_by_rules(
    rules: Sequence[tuple[str, float]], params: Any
) -> optax.GradientTransformation:
    """Multiplies each parameter's update, so that it has a learning rate of its own.

    Arguments:
      rules: `((regex, multiplier), ...)`, matched with the paths of `params`.
    """
    multipliers = rules_lib.match_rules(rules, params, "optimizer.multiplier_rules")
    if all(value == 1 for value in jax.tree.leaves(multipliers)):
        return optax.identity()
    return optax.stateless(
        lambda updates, _: jax.tree.map(lambda u, m: u * float(m), updates, multipliers)
    )


def project_spans(params: Any) -> optax.GradientTransformation:
    """Keeps learned spans within [0, 1]: the last of a chain, it shortens the final update.

    A span that only the forward pass clips wanders off where it has no gradient and does not come
    back (Sukhbaatar et al. 2019 project too). A sigmoid would never reach the whole span.

    The transformation needs the parameters in `update`.
    """
    spans = [_SPAN.search(path) is not None for path in rules_lib.paths(params)]
    if not any(spans):
        return optax.identity()
    chosen = jax.tree.unflatten(jax.tree.structure(params), spans)

    def projected(update: jax.Array, param: jax.Array, span: bool) -> jax.Array:
        return jnp.clip(param + update, 0, 1) - param if span else update

    return optax.stateless(
        lambda updates, params: jax.tree.map(projected, updates, params, chosen)
    )


def _moments(settings: ml_collections.ConfigDict) -> optax.GradientTransformation:
    if settings.name == "radam":
        return scale_by_radam(settings.b1, settings.b2, settings.eps)
    if settings.name == "sgd":
        return optax.trace(settings.momentum, nesterov=settings.nesterov)
    return _lenient(optax.scale_by_adam(settings.b1, settings.b2, settings.eps))


def _lenient(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
    """Lets optax raise a float to its int32 count, which strict dtype promotion forbids."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):
            return transformation.update(updates, state, params)

    return optax.GradientTransformation(transformation.init, update)


def _langevin(y: Any) -> Any:
    """Returns coth(y) - 1/y for 0 <= y <= 1/2, to 1e-8, by its series."""
    square = y * y
    series = -1 / 4725 + square * (2 / 93555 - square * 1382 / 638512875)
    return y * (1 / 3 + square * (-1 / 45 + square * (2 / 945 + square * series)))


def warmup_factor(name: str, *, steps: int = 0, dim: int = 0, b2: float = 0.999) -> Factor:
    """Builds the warm-up factor of the update after `count` updates, with t = count + 1.

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
    """Builds the decay factor of the update after `count` updates: 1 for the first one.

    With p = min(1, count/total_steps), `constant`: 1. `cosine`: end_factor +
    (1 - end_factor)(1 + cos(pi p))/2. `exponential`: end_factor^p. `step`: `factor` to the power
    of the number of boundaries passed. The decay runs over the whole stage, warm-up included.

    Arguments:
      name: a choice of the key `decay.name`.
      total_steps: number of updates in the stage.
      boundaries: fractions of `total_steps` at which `step` multiplies by `factor`.

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
    """Multiplies peak, warm-up and decay to a schedule of the learning rate.

    With the `noam` warm-up the peak is the multiplier of Noam's own rate.

    Returns:
      optax schedule: int32 count of updates made so far to float32 learning rate.
    """
    return lambda count: peak * warmup(count) * decay(count)
