"""Writes StableHLO with a symbolic batch, by jax.export; the file includes the weights."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcxr.deploy.bundle.bundled_model import Bundle
from jaxcxr.deploy.export import function
from jaxcxr.errors import UserError

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def lowered(bundle: Bundle) -> tuple[Any, Callable, dict[str, tuple]]:
    """Lowers the model of a bundle for a batch of any size.

    Returns:
      `jax.export.Exported`, the function, and its inputs as `function.exported` gives them.

    Raises:
      UserError: the model cannot be written for a batch of any size.
    """
    compute, shapes = function.exported(bundle)
    try:
        made = jax.export.export(jax.jit(compute), platforms=PLATFORMS)(*function.symbolic(shapes))
    except (jax.errors.JAXTypeError, TypeError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"{bundle.model_name} cannot be exported for a batch of any size: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return made, compute, shapes


def write(bundle: Bundle, out: pathlib.Path) -> dict[str, Any]:
    """Writes the file, compares its outputs with the bundle and returns facts about it.

    Raises:
      UserError: the model cannot be written for a batch of any size.
    """
    made, compute, shapes = lowered(bundle)
    content = made.serialize()
    out.write_bytes(content)
    inputs = function.examples(shapes, 3)
    given = jax.export.deserialize(content).call(*inputs)
    wanted = jax.jit(compute)(*inputs)
    return {
        "platforms": list(made.platforms),
        "calling_convention_version": made.calling_convention_version,
        "inputs": {name: ["b", *shape, np.dtype(d).name] for name, (shape, d) in shapes.items()},
        "largest difference": function.difference(wanted, given),
    }
