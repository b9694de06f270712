"""Parts of every model: norms, positions, rematerialisation, sharding, taps.

`tap` marks a tensor of a model. It changes nothing, has no parameters and costs nothing, unless
the caller asks for the collection `features` (the values) or gives `perturbations` (zeros to be
added, whose gradient is that of the tensor):

    _, found = model.apply(variables, x, mutable=["features", "perturbations"])
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from jaxcxr.errors import UserError

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
    """Layer normalisation of `x` `[..., dim]` (Ba et al. 2016), its gradient in closed form."""
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


_PRODUCTS = (jax.lax.dot_general_p, jax.lax.conv_general_dilated_p)


def _products(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive in _PRODUCTS


def _of_weights(primitive: Any, *_: Any, **params: Any) -> bool:
    if primitive is jax.lax.dot_general_p:
        _, (left, right) = params["dimension_numbers"]
        return not left and not right
    return primitive in _PRODUCTS


# option -> what is kept of a block beside its input; None keeps all that the gradient needs
_POLICIES = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": _products,
    "weight_dots": _of_weights,
}
REMATS = tuple(_POLICIES)


def rematerialized(block: type[nn.Module], remat: str | bool, **options: Any) -> type[nn.Module]:
    """Returns the class of a block, parts of which the backward pass computes again.

    Arguments:
      block: class of the module.
      remat: "none" keeps all that the gradient needs; "full" the input alone; "dots" also products
        of matrices and convolutions; "weight_dots" of these not the products of activations with
        each other, which in attention grow with the square of the tokens. True is "full" and False
        "none", as in older configs.
      **options: of `flax.linen.remat`.
    """
    name = {True: "full", False: "none"}.get(remat, remat) if isinstance(remat, bool) else remat
    if name not in _POLICIES:
        raise UserError(f"remat={remat!r} is not known; use one of {', '.join(REMATS)}.")
    if name == "none":
        return block
    return nn.remat(block, policy=_POLICIES[name], **options)


# Axes of the mesh over which examples are split, see `train.parallel`.
BATCH_AXES = ("data", "fsdp")


def by_example(x: jax.Array) -> jax.Array:
    """Splits `[batch, ...]` by example alone, where a mesh is set that divides the batch.

    Without it XLA would also split features between the layers that the axis `tensor` splits, and
    pay for each LayerNorm with two reductions.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not set(BATCH_AXES) <= set(mesh.axis_names):
        return x
    if x.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
        return x
    return jax.lax.with_sharding_constraint(x, P(BATCH_AXES))


def splits_heads() -> bool:
    """Whether a mesh is set whose axis `tensor` splits the heads of attention."""
    mesh = jax.sharding.get_abstract_mesh()
    return "tensor" in mesh.axis_names and mesh.shape["tensor"] > 1


def by_head(x: jax.Array, axis: int) -> jax.Array:
    """Splits the axis of heads over `tensor`, where that divides it; other axes stay free."""
    if not splits_heads() or x.shape[axis] % jax.sharding.get_abstract_mesh().shape["tensor"]:
        return x
    spec: list[Any] = [P.UNCONSTRAINED] * x.ndim
    spec[axis] = "tensor"
    return jax.lax.with_sharding_constraint(x, P(*spec))


FEATURES = "features"
PERTURBATIONS = "perturbations"


def tap(module: nn.Module, name: str, x: jax.Array) -> jax.Array:
    """Returns `x`, marked by name in a module's scope, plus its perturbation if one is given."""
    if module.is_initializing():
        return x  # so that no state of a run holds perturbations
    module.sow(FEATURES, name, x)
    return module.perturb(name, x, PERTURBATIONS)
