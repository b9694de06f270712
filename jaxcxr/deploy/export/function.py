"""Makes the function to export of a bundle, its inputs, and the description of its outputs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcxr.deploy.bundle.bundled_model import Bundle


def exported(bundle: Bundle, dtype: Any = None) -> tuple[Callable, dict[str, tuple]]:
    """Returns the function to export and its inputs.

    Arguments:
      bundle: of either task.
      dtype: of the computation; None: as in training.

    Returns:
      A function of the inputs in order that returns a dict of outputs; and the shape, without the
      batch, and dtype of each input.
    """
    model = bundle.model if dtype is None else bundle.model.clone(dtype=dtype)
    variables = bundle.variables
    if bundle.task == "cxr":
        def radiographs(pixels):
            inputs = bundle.preprocessing.normalized(pixels)
            return {"logits": model.apply(variables, inputs, train=False)}

        size = bundle.image_size
        return radiographs, {"pixels": ((size, size), np.uint8)}

    def poses(keypoints, mask):
        found = model.apply(variables, keypoints, mask=mask, train=False)
        return found if isinstance(found, dict) else {"joints": found}

    frames, joints = bundle.facts["pose"]["frames"], len(bundle.facts["pose"]["joints"])
    return poses, {"keypoints": ((frames, joints, 3), np.float32), "mask": ((frames,), np.bool_)}


def symbolic(shapes: dict[str, tuple]) -> list[jax.ShapeDtypeStruct]:
    """Makes the inputs with a batch of any size, `b`."""
    (batch,) = jax.export.symbolic_shape("b")
    return [
        jax.ShapeDtypeStruct((batch, *shape), jnp.dtype(dtype)) for shape, dtype in shapes.values()
    ]


def examples(shapes: dict[str, tuple], batch: int, seed: int = 0) -> list[np.ndarray]:
    """Draws random inputs to compare a file with its bundle."""
    rng = np.random.default_rng(seed)
    made = []
    for shape, dtype in shapes.values():
        if dtype == np.uint8:
            made.append(rng.integers(0, 256, (batch, *shape), np.uint8))
        elif dtype == np.bool_:
            made.append(np.arange(shape[0])[None] < rng.integers(1, shape[0] + 1, (batch, 1)))
        else:
            made.append(rng.uniform(-1, 1, (batch, *shape)).astype(dtype))
    return made


def difference(left: dict, right: dict) -> float:
    """Computes the largest absolute difference of outputs of the same names."""
    pairs = [[np.asarray(side[name], np.float64) for side in (left, right)] for name in left]
    return max(float(np.abs(one - other).max()) for one, other in pairs)


def relative_difference(wanted: dict, given: dict) -> float:
    """Computes the largest difference, relative to the largest value if that is above 1."""
    largest = max(float(np.abs(value).max()) for value in wanted.values())
    return difference(wanted, given) / max(1.0, largest)


def described(bundle: Bundle) -> dict[str, Any]:
    """Describes the outputs in JSON types: classes, preprocessing, calibration."""
    facts = bundle.facts
    return {
        "bundle": bundle.digest, "task": bundle.task, "model": bundle.model_name,
        "classes": list(bundle.classes),
        **({"preprocessing": dict(facts["preprocessing"])} if bundle.task == "cxr"
           else {"pose": dict(facts["pose"])}),
        "calibration": bundle.calibration.to_json() if bundle.calibration else None,
        "training": dict(facts["training"]), "licence": bundle.licence,
    }
