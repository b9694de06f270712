"""Writes ONNX files, checked by onnx and compared with the bundle in onnxruntime."""

import importlib.util
import pathlib
from typing import Any

import jax
import numpy as np

from jaxcxr import __version__
from jaxcxr.deploy.bundle.bundled_model import Bundle
from jaxcxr.deploy.export import function
from jaxcxr.errors import RunError, UserError

TOLERANCE = 1e-4  # most difference from the bundle's outputs, relative to the largest of them


def write(bundle: Bundle, out: pathlib.Path) -> dict[str, Any]:
    """Writes the file if its outputs in onnxruntime agree with the bundle; returns facts about it.

    Raises:
      UserError: onnx is not installed, or a computation of the model has no translation.
      RunError: the outputs differ; nothing is written.
    """
    for name in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise UserError(f"ONNX needs the package {name}: pip install 'jaxcxr[onnx]'")
    import onnx

    from jaxcxr.deploy.export import onnx_graph, onnx_ops

    compute, shapes = function.exported(bundle, np.float32)
    model = onnx_graph.model(
        compute, function.symbolic(shapes), tuple(shapes), onnx_ops.PRIMITIVES
    )
    model.producer_name, model.producer_version = "jaxcxr", __version__
    model.doc_string = bundle.description
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    found = {batch: _difference(content, compute, shapes, batch) for batch in (1, 3)}
    if not max(found.values()) <= TOLERANCE:
        raise RunError(
            f"the outputs of onnxruntime differ from those of the bundle (relative difference "
            f"{max(found.values()):.2g}); nothing was written."
        )
    out.write_bytes(content)
    return {
        "opset": onnx_graph.OPSET, "nodes": len(model.graph.node),
        "inputs": {name: ["b", *shape, np.dtype(d).name] for name, (shape, d) in shapes.items()},
        "outputs": [output.name for output in model.graph.output],
        "largest relative difference": max(found.values()),
    }


def _difference(content: bytes, compute, shapes, batch: int) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    inputs = function.examples(shapes, batch)
    names = [output.name for output in session.get_outputs()]
    given = dict(zip(names, session.run(names, dict(zip(shapes, inputs, strict=True))),
                     strict=True))
    wanted = jax.device_get(jax.jit(compute)(*inputs))
    return function.relative_difference(wanted, given)
