"""Wraps StableHLO into a TensorFlow SavedModel, in a process of its own.

    python -P jaxcxr/deploy/export/tensorflow_program.py FOLDER OUT

Imports neither jaxcxr nor JAX, so that any Python that has TensorFlow can run it. FOLDER holds
`module.bin`, its signature in `spec.json`, and example inputs in `inputs.npz`; the outputs of the
loaded OUT for them are written to `outputs.npz`.
"""

import json
import pathlib
import sys

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla


def main(folder: pathlib.Path, out: str) -> None:
    """Writes OUT, loads it and runs it once on all examples and once on the first."""
    spec = json.loads((folder / "spec.json").read_text())
    content = (folder / "module.bin").read_bytes()
    signature = [
        tf.TensorSpec([None, *shape], dtype, name=name) for name, shape, dtype in spec["inputs"]
    ]
    names = [name for name, _, _ in spec["outputs"]]

    def compute(*inputs):
        found = xla.call_module(
            list(inputs), version=spec["version"], module=content,
            Tout=[tf.dtypes.as_dtype(dtype) for _, _, dtype in spec["outputs"]],
            Sout=[tf.TensorShape([None, *shape]) for _, shape, _ in spec["outputs"]],
            platforms=spec["platforms"], function_list=[], has_token_input_output=False,
            disabled_checks=[],
        )
        return dict(zip(names, found, strict=True))

    module = tf.Module()
    module.serve = tf.function(compute, input_signature=signature, autograph=False)
    tf.saved_model.save(module, out, signatures=module.serve.get_concrete_function())
    serve = tf.saved_model.load(out).signatures["serving_default"]
    with np.load(folder / "inputs.npz") as file:
        examples = dict(file)
    serve(**{name: tf.constant(value[:1]) for name, value in examples.items()})
    outputs = serve(**{name: tf.constant(value) for name, value in examples.items()})
    np.savez(folder / "outputs.npz", **{name: value.numpy() for name, value in outputs.items()})


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2])
