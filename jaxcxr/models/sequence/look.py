"""Captures the attention of a trained model on a few examples."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxcxr.models.attention import Stack, stacks
from jaxcxr.models.attention.geometry import Geometry
from jaxcxr.models.attention.sown import COLLECTION
from jaxcxr.models.sequence import scanned

# Numbers that all weights together may be: 256 MB.
MOST_WEIGHTS = 2**26


@dataclasses.dataclass(frozen=True)
class Look:
    """Captured attention.

    Attributes:
      stacks: see `look`.
      where: stack name -> geometry of its tokens.
      index: the examples that it was given.
      weights: numbers that the weights of all pairs are, whether they are there or too many.
    """

    stacks: dict[str, dict[str, dict[str, np.ndarray]]]
    where: dict[str, Geometry]
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
    seen = look(model, variables, inputs, options, size <= MOST_WEIGHTS)
    where = {stack.name: stack.where for stack in stacks(model, inputs.shape[1:])}
    return Look(seen, where, index, size)


def look(
    model, variables: Mapping[str, Any], inputs: Any, options: Mapping[str, Any], weights: bool
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Captures the attention of each block.

    Arguments:
      weights: also the weights of all pairs; without them they are not computed.

    Returns:
      Stack name ("blocks") -> block name ("blocks_0") -> `weights`
      `[batch, heads, queries, keys]`, `span`, `alpha` and `gate` `[heads]`, those that the block
      has. Every block of the first stack of each option of attention is there, if empty.
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
    first: dict[str, Stack] = {}
    for stack in stacks(model, inputs.shape[1:]):
        first.setdefault(stack.option, stack)
    return {
        stack.name: {name: found.get(name, {}) for name in stack.blocks}
        for stack in first.values()
    }


def _captured(model, variables, inputs, options) -> dict[str, dict[str, jax.Array]]:
    """Block name -> its captured arrays; blocks that capture nothing are not there."""
    _, state = model.apply(variables, inputs, train=False, mutable=[COLLECTION], **options)
    given = state.get(COLLECTION, {}).get("backbone", {})
    return {
        name: {key: value for key, (value,) in block["attention"].items()}
        for name, block in given.items()
    }
