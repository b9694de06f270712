"""What the attention of a trained model does on a few examples."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxcxr.models.attention.capture import COLLECTION
from jaxcxr.models.sequence import scanned

# Numbers that all weights together may be: 256 MB.
MOST_WEIGHTS = 2**26

_BLOCK = re.compile(r"(blocks|joints|frames)_\d+")


@dataclasses.dataclass(frozen=True)
class Look:
    """What attention gave away.

    Attributes:
      stacks: see `look`.
      index: the examples that it was given.
      weights: numbers that the weights of all pairs are, whether they are there or too many.
    """

    stacks: dict[str, dict[str, dict[str, np.ndarray]]]
    index: np.ndarray
    weights: int

    @property
    def complete(self) -> bool:
        """Whether the weights are there."""
        return self.weights <= MOST_WEIGHTS


def at_examples(
    model, variables: Mapping[str, Any], inputs_of: Callable, index: np.ndarray
) -> Look | None:
    """Looks at as many examples as `MOST_WEIGHTS` allows; at one without weights otherwise.

    Arguments:
      model: Linen module.
      variables: of the model.
      inputs_of: example indices -> inputs and options of the model.
      index: examples, the most telling first.

    Returns:
      None where the model has no attention.
    """
    if not hasattr(model, "attention"):
        return None
    model, variables = scanned.unrolled(model, jax.device_get(variables))
    while True:
        inputs, options = inputs_of(index)
        shapes = jax.eval_shape(functools.partial(_captured, model), variables, inputs, options)
        size = sum(block["weights"].size for block in shapes.values() if "weights" in block)
        if size <= MOST_WEIGHTS or len(index) == 1:
            break
        index = index[:-1]
    return Look(look(model, variables, inputs, options, size <= MOST_WEIGHTS), index, size)


def look(
    model, variables: Mapping[str, Any], inputs: Any, options: Mapping[str, Any], weights: bool
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """What the attention of each block gave into its collection.

    Arguments:
      model: Linen module.
      variables: of the model.
      inputs: of the model.
      options: of its call.
      weights: also the weights of all pairs; without them they are not computed.

    Returns:
      Stack name ("blocks", "joints", "frames") -> block name ("blocks_0") -> `weights`
      `[batch, heads, queries, keys]`, `span`, `alpha` and `gate` `[heads]`, those that the block
      has; in the order of the model. Every stack and block is there, if empty.
    """

    def wanted(variables, inputs, options):
        found = _captured(model, variables, inputs, options)
        return {
            name: {key: x for key, x in block.items() if weights or key != "weights"}
            for name, block in found.items()
        }

    # Runs once, and LLVM takes longer than it saves.
    quick = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    found = jax.device_get(jax.jit(wanted, compiler_options=quick)(variables, inputs, options))
    stacks: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for name in sorted(_blocks(variables["params"]), key=lambda name: int(name.split("_")[1])):
        stacks.setdefault(name.split("_")[0], {})[name] = found.get(name, {})
    return stacks


def _blocks(params: Mapping[str, Any]) -> list[str]:
    """Names of the blocks of an encoder."""
    return [name for name in params["backbone"] if _BLOCK.fullmatch(name)]


def _captured(model, variables, inputs, options) -> dict[str, dict[str, jax.Array]]:
    """Block name -> what it gave; blocks that give nothing are not there."""
    _, state = model.apply(variables, inputs, train=False, mutable=[COLLECTION], **options)
    given = state.get(COLLECTION, {}).get("backbone", {})
    return {
        name: {key: value for key, (value,) in block["attention"].items()}
        for name, block in given.items()
    }
