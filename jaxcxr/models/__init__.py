"""Makes models by name: `create("resnet50", classes=15)`.

Packages build on each other in this order: layers, attention, sequence, weights, vision and pose.
A model's class declares what else serves it: `layouts` of weight files (`weights.layouts`),
`stacks` of encoder blocks (`attention.Stack`), `stream` (`pose.streaming`), and the maps that
explanations see (`layers.tap`).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr import registry
from jaxcxr.errors import UserError, did_you_mean


def create(
    name: str, *, dtype: Any = jnp.float32, axis_name: str | None = None,
    colors: tuple[tuple[float, float], ...] = (), **options_: Any
) -> nn.Module:
    """Makes a model.

    Arguments:
      name: a key of `registry.MODELS`.
      dtype: of the computation; parameters, normalisation, softmax and outputs are float32.
      axis_name: mapped axis of pmap, given only to modules that have BatchNorm.
      colors: (scale, shift) of each channel that the first layer gets, see
        `vision.classifier.colored`.
      **options_: any of `registry.model_options(name)`.

    Returns:
      A Linen module, called as `module.apply(variables, x, train=bool)`; pose models also take
      `mask`. Its parameters have the top-level groups `backbone` and `head`.

    Raises:
      UserError: unknown model or option; the message names the nearest and what is allowed.
    """
    model, allowed = registry.model(name), registry.model_options(name)
    for key in options_:
        if key not in allowed:
            raise UserError(
                f"model {name!r} has no option {key!r}.{did_you_mean(key, allowed)} "
                f"Options: {', '.join(allowed)}."
            )
    module: Any = model.func
    fields = {f.name for f in dataclasses.fields(module)}
    if "axis_name" in fields:
        options_["axis_name"] = axis_name
    if colors:
        if "colors" not in fields:
            raise UserError(
                f"model {name!r} takes one channel, but its weights expect three that differ; give "
                "one mean and std by --config.model.input.mean and std."
            )
        options_["colors"] = tuple(map(tuple, colors))
    return model(dtype=dtype, **options_)


def parameter_counts(params: Any) -> dict[str, int]:
    """Number of parameters in each top-level group of `params` (arrays or their shapes)."""
    return {
        group: sum(leaf.size for leaf in jax.tree.leaves(tree)) for group, tree in params.items()
    }
