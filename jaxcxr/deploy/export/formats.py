"""Writes the model of a bundle in one of the formats, with a description of its outputs."""

import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcxr import __version__
from jaxcxr.deploy.bundle.bundled_model import Bundle
from jaxcxr.deploy.export import torch_weights
from jaxcxr.errors import RunError, UserError

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
PROGRAM = pathlib.Path(__file__).with_name("tensorflow_program.py")
TOLERANCE = 1e-4  # most difference from the bundle's outputs, relative to the largest of them
_SECONDS = 600


def write(
    bundle: Bundle, format_: str, out: pathlib.Path, python: str
) -> tuple[dict[str, Any], pathlib.Path]:
    """Writes a model and its description.

    Arguments:
      bundle: of either task.
      format_: of `export.FORMATS`.
      out: file, or new folder of a savedmodel.
      python: interpreter that has TensorFlow, for a savedmodel.

    Returns:
      Facts about the file, such as the measured difference; and the path of the description.

    Raises:
      UserError: the format cannot hold the model, or a package is not installed.
      RunError: the outputs differ from those of the bundle; nothing is written.
      OSError: a file cannot be written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    if format_ == "savedmodel":
        about = _write_savedmodel(bundle, out, python)
    else:
        writers = {
            "stablehlo": _write_stablehlo, "onnx": _write_onnx,
            "torch-safetensors": torch_weights.write,
        }
        about = writers[format_](bundle, out)
    beside = out.with_name(f"{out.name}.json")
    record = {"format": format_, **_described(bundle), **about}
    text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
    beside.write_text(text + "\n", encoding="utf-8")
    return about, beside


def exported(bundle: Bundle, dtype: Any = None) -> tuple[Callable, dict[str, tuple]]:
    """Returns the function to export and its inputs.

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


def _check_difference(program: str, found: float) -> None:
    if not found <= TOLERANCE:
        raise RunError(
            f"the outputs of {program} differ from those of the bundle (relative difference "
            f"{found:.2g}); nothing was written."
        )


def _described(bundle: Bundle) -> dict[str, Any]:
    """Describes the outputs in JSON types: classes, preprocessing, calibration."""
    facts, images = bundle.facts, "preprocessing" if bundle.task == "cxr" else "pose"
    return {
        "bundle": bundle.digest, "task": bundle.task, "model": bundle.model_name,
        "classes": list(bundle.classes), images: dict(facts[images]),
        "calibration": bundle.calibration.to_json() if bundle.calibration else None,
        "training": dict(facts["training"]), "licence": bundle.licence,
    }


def _inputs(shapes: dict[str, tuple]) -> dict[str, list]:
    return {name: ["b", *shape, np.dtype(d).name] for name, (shape, d) in shapes.items()}


def _lowered(bundle: Bundle) -> tuple[Any, Callable, dict[str, tuple]]:
    """Returns `jax.export.Exported` for a batch of any size, the function, and its inputs."""
    compute, shapes = exported(bundle)
    try:
        made = jax.export.export(jax.jit(compute), platforms=PLATFORMS)(*symbolic(shapes))
    except (jax.errors.JAXTypeError, TypeError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"{bundle.model_name} cannot be exported for a batch of any size: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return made, compute, shapes


def _write_stablehlo(bundle: Bundle, out: pathlib.Path) -> dict[str, Any]:
    """Writes StableHLO by jax.export; the file includes the weights."""
    made, compute, shapes = _lowered(bundle)
    content = made.serialize()
    out.write_bytes(content)
    inputs = examples(shapes, 3)
    given = jax.export.deserialize(content).call(*inputs)
    return {
        "platforms": list(made.platforms),
        "calling_convention_version": made.calling_convention_version,
        "inputs": _inputs(shapes),
        "largest difference": difference(jax.jit(compute)(*inputs), given),
    }


def _write_onnx(bundle: Bundle, out: pathlib.Path) -> dict[str, Any]:
    """Writes ONNX, checked by onnx and compared with the bundle in onnxruntime."""
    for name in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise UserError(f"ONNX needs the package {name}: pip install 'jaxcxr[onnx]'")
    import onnx

    from jaxcxr.deploy.export import onnx_graph, onnx_ops

    compute, shapes = exported(bundle, np.float32)
    model = onnx_graph.model(compute, symbolic(shapes), tuple(shapes), onnx_ops.PRIMITIVES)
    model.producer_name, model.producer_version = "jaxcxr", __version__
    model.doc_string = bundle.description
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    found = max(_onnx_difference(content, compute, shapes, batch) for batch in (1, 3))
    _check_difference("onnxruntime", found)
    out.write_bytes(content)
    return {
        "opset": onnx_graph.OPSET, "nodes": len(model.graph.node), "inputs": _inputs(shapes),
        "outputs": [output.name for output in model.graph.output],
        "largest relative difference": found,
    }


def _onnx_difference(content: bytes, compute, shapes, batch: int) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    inputs = examples(shapes, batch)
    names = [output.name for output in session.get_outputs()]
    given = session.run(names, dict(zip(shapes, inputs, strict=True)))
    wanted = jax.device_get(jax.jit(compute)(*inputs))
    return relative_difference(wanted, dict(zip(names, given, strict=True)))


def _write_savedmodel(bundle: Bundle, out: pathlib.Path, python: str) -> dict[str, Any]:
    """Writes StableHLO as a SavedModel by a Python that has TensorFlow, which need not have JAX."""
    if out.exists():
        raise UserError(f"{out} exists; a SavedModel is a new folder, give another --out.")
    _check_tensorflow(python)
    made, compute, shapes = _lowered(bundle)
    inputs = examples(shapes, 3)
    wanted = jax.device_get(jax.jit(compute)(*inputs))
    try:
        given = _by_tensorflow(python, out, made, shapes, inputs, wanted)
        found = relative_difference(wanted, given)
        _check_difference("TensorFlow", found)
    except RunError:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return {
        "signature": "serving_default", "inputs": _inputs(shapes),
        "largest relative difference": found,
    }


def _by_tensorflow(python: str, out, made, shapes, inputs, wanted) -> dict[str, np.ndarray]:
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


def _check_tensorflow(python: str) -> None:
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
