"""Marks tensors for explanations, which read them and their gradients.

`tap` marks a tensor of a model. It changes nothing, has no parameters and costs nothing, unless
the caller asks for the collection `features` (the values) or gives `perturbations` (zeros to be
added, whose gradient is that of the tensor):

    _, found = model.apply(variables, x, mutable=["features", "perturbations"])
"""

import jax
from flax import linen as nn

FEATURES = "features"
PERTURBATIONS = "perturbations"


def tap(module: nn.Module, name: str, x: jax.Array) -> jax.Array:
    """Returns `x`, marked in the scope of a module, plus its perturbation where one is given.

    Arguments:
      module: in whose scope the tensor is.
      name: of the tensor in that scope.
      x: the tensor.
    """
    if module.is_initializing():
        return x  # so that no state of a run holds perturbations
    module.sow(FEATURES, name, x)
    return module.perturb(name, x, PERTURBATIONS)
