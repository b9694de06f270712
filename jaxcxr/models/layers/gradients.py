"""Functions of encoder blocks in the form whose gradients cost least."""

import jax
import jax.numpy as jnp
from flax import linen as nn

# Added to the variance, as in ViT.
EPSILON = 1e-6


def kept(x: jax.Array) -> jax.Array:
    """Returns `x`; on CPU its gradient is computed once and stored, if the step's options say so.

    XLA's CPU compiler fuses cheap producers into every consumer, so that each block sums the
    gradients of all later blocks anew and the time of a step grows with the square of the depth. A
    barrier stops that and changes no number. It works where `train.setup` tells the compiler not
    to remove barriers before fusion.
    """
    return jax.lax.optimization_barrier(x) if jax.default_backend() == "cpu" else x


def gelu(x: jax.Array) -> jax.Array:
    """Exact GELU (Hendrycks & Gimpel 2016), x Phi(x).

    In float32 by erf, to 1e-7 of x; `nn.gelu` takes erfc, which needs an exponential more. That
    keeps the digits of the tail, which 1 + erf loses and narrower types do not have to spare.
    """
    if x.dtype != jnp.float32:
        return nn.gelu(x, approximate=False)
    return 0.5 * x * (1.0 + jax.lax.erf(x * jnp.float32(0.5**0.5)))


@jax.custom_vjp
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Layer normalisation of `x` `[..., dim]` (Ba et al. 2016), its gradient in closed form.

    Arguments:
      x: `[..., dim]`.
      scale, bias: `[dim]`.
    """
    return _layer_norm(x, scale, bias)[0]


def _layer_norm(x, scale, bias):
    mean = x.mean(-1, keepdims=True)
    centred = x - mean
    rate = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + EPSILON)
    return centred * rate * scale + bias, (x, mean, rate, scale)


def _layer_norm_gradient(kept_values, gradient):
    x, mean, rate, scale = kept_values
    normed, scaled = (x - mean) * rate, gradient * scale
    along = (scaled * normed).mean(-1, keepdims=True)
    outer = tuple(range(x.ndim - 1))
    return (
        rate * (scaled - scaled.mean(-1, keepdims=True) - normed * along),
        (gradient * normed).sum(outer),
        gradient.sum(outer),
    )


layer_norm.defvjp(_layer_norm, _layer_norm_gradient)
