"""Writes the StableHLO of a bundle as a SavedModel, by a Python that has TensorFlow.

jaxcxr never imports TensorFlow: `tensorflow_program.py` runs in another process, whose Python need
not have JAX.
"""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
from typing import Any

import jax
import numpy as np

from jaxcxr.deploy.bundle.bundled_model import Bundle
from jaxcxr.deploy.export import function, stablehlo
from jaxcxr.errors import RunError, UserError

PROGRAM = pathlib.Path(__file__).with_name("tensorflow_program.py")
TOLERANCE = 1e-4  # as for ONNX
_SECONDS = 600


def write(bundle: Bundle, out: pathlib.Path, python: str) -> dict[str, Any]:
    """Writes the folder if its outputs agree with the bundle; returns facts about it.

    Arguments:
      bundle: of either task.
      out: new folder.
      python: interpreter that has TensorFlow.

    Raises:
      UserError: the Python has no TensorFlow, or the folder exists.
      RunError: TensorFlow failed, or its outputs differ; nothing is written.
    """
    if out.exists():
        raise UserError(f"{out} exists; a SavedModel is a new folder, give another --out.")
    _check(python)
    made, compute, shapes = stablehlo.lowered(bundle)
    inputs = function.examples(shapes, 3)
    wanted = jax.device_get(jax.jit(compute)(*inputs))
    try:
        given = _made(python, out, made, shapes, inputs, wanted)
        difference = function.relative_difference(wanted, given)
        if not difference <= TOLERANCE:
            raise RunError(
                f"the outputs of TensorFlow differ from those of the bundle (relative difference "
                f"{difference:.2g}); nothing was written."
            )
    except RunError:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return {
        "signature": "serving_default",
        "inputs": {name: ["b", *shape, np.dtype(d).name] for name, (shape, d) in shapes.items()},
        "largest relative difference": difference,
    }


def _made(python: str, out, made, shapes, inputs, wanted) -> dict[str, np.ndarray]:
    """Writes the folder in another process and returns its outputs for the inputs."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "module.bin").write_bytes(made.mlir_module_serialized)
        (folder / "spec.json").write_text(json.dumps({
            "version": made.calling_convention_version,
            "platforms": [platform.upper() for platform in made.platforms],
            "inputs": [[n, shape, np.dtype(d).name] for n, (shape, d) in shapes.items()],
            # A dict of outputs is flattened in the order of its names.
            "outputs": [[n, wanted[n].shape[1:], wanted[n].dtype.name] for n in sorted(wanted)],
        }))
        np.savez(folder / "inputs.npz", **dict(zip(shapes, inputs, strict=True)))
        _run([python, "-P", str(PROGRAM), name, str(out)])
        with np.load(folder / "outputs.npz") as file:
            return dict(file)


def _check(python: str) -> None:
    code = "import importlib.util as u, sys; sys.exit(u.find_spec('tensorflow') is None)"
    try:
        there = subprocess.run([python, "-c", code], check=False).returncode == 0
    except OSError as error:
        raise UserError(f"--tensorflow {python} cannot be run ({error.strerror}).") from error
    if not there:
        raise UserError(
            f"{python} has no TensorFlow, which writes SavedModels. Install tensorflow-cpu into an "
            "environment of its own and give its Python as --tensorflow=ENV/bin/python."
        )


def _run(command: list[str]) -> None:
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(
            command, env=quiet, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(f"TensorFlow did not finish within {_SECONDS} s.") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(f"TensorFlow could not write the SavedModel: {last}")
