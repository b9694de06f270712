"""What the attention of a trained model does on a few examples: `heads.png` and `attention.png`."""

import functools
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxcxr.models.attention.capture import COLLECTION
from jaxcxr.models.sequence import scanned
from jaxcxr.report import attention_figures
from jaxcxr.report.canvas import save

# Numbers that all weights together may be: 256 MB.
MOST_WEIGHTS = 2**26

_BLOCK = re.compile(r"(blocks|joints|frames)_\d+")


def write(task, model, variables: Mapping[str, Any], split: str, folder: pathlib.Path) -> list[str]:
    """Draws what attention gave away on a few examples of a split.

    Arguments:
      task: the task, for the examples and for drawing weights, see `jaxcxr.task.Task`.
      model: Linen module.
      variables: of the model.
      split: that the examples are from.
      folder: to write `heads.png` and `attention.png` into, each where there is what it shows.

    Returns:
      Lines for the screen: why there is no figure.
    """
    if not hasattr(model, "attention"):
        return []
    if jax.process_count() > 1:
        return ["no figures of attention: they are drawn by runs of a single process"]
    index = task.examples(split)
    model, variables = scanned.unrolled(model, jax.device_get(variables))
    while True:
        inputs, options = task.inputs(task.source(split).read(index))
        shapes = jax.eval_shape(
            functools.partial(_captured, model), variables, inputs, options
        )
        size = sum(block["weights"].size for block in shapes.values() if "weights" in block)
        if size <= MOST_WEIGHTS or len(index) == 1:
            break
        index = index[:-1]
    stacks = look(model, variables, inputs, options, weights=size <= MOST_WEIGHTS)
    if any("gate" in block for blocks in stacks.values() for block in blocks.values()):
        shown = {
            name: {key: block for key, block in blocks.items() if "gate" in block}
            for name, blocks in stacks.items()
        }
        save(attention_figures.heads_figure(shown, task.span_units), folder / "heads.png")
    if size > MOST_WEIGHTS:
        return [f"no maps of attention: its weights are {size:,} numbers for one example, more "
                f"than {MOST_WEIGHTS:,}"]
    figure = task.attention_figure(split, index, stacks)
    if figure is None:
        return ["no maps of attention: the last block of the model has no weights to show"]
    save(figure, folder / "attention.png")
    return []


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
