"""Rematerialisation: parts of a block that the backward pass computes again."""

from typing import Any

import jax
from flax import linen as nn

from jaxcxr.errors import UserError

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
NAMES = tuple(_POLICIES)


def rematerialized(block: type[nn.Module], remat: str | bool, **options: Any) -> type[nn.Module]:
    """Returns the class of a block, parts of which the backward pass computes again.

    Arguments:
      block: class of the module.
      remat: "none" keeps all that the gradient needs; "full" the input alone; "dots" also products
        of matrices and convolutions; "weight_dots" of these not the products of activations with
        each other, which in attention grow with the square of the tokens. True is "full" and False
        "none", as in older configs.
      **options: of `flax.linen.remat`.

    Raises:
      UserError: no such choice.
    """
    name = {True: "full", False: "none"}.get(remat, remat) if isinstance(remat, bool) else remat
    if name not in _POLICIES:
        raise UserError(f"remat={remat!r} is not known; use one of {', '.join(NAMES)}.")
    if name == "none":
        return block
    return nn.remat(block, policy=_POLICIES[name], **options)
