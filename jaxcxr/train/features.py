"""Computes what the head of a trained model gets, for every example of a source."""

from typing import Any

import jax
import numpy as np

from jaxcxr.data import pipeline
from jaxcxr.train import parallel
from jaxcxr.train.finished import FinishedRun


def features(run: FinishedRun, source: Any) -> np.ndarray:
    """Outputs of the backbone of a run.

    Arguments:
      run: of a model with a method `backbone`, inside `finished.open_best`.
      source: examples, as the splits of the run's task.

    Returns:
      float32 `[examples, dim]`, in the order of the source.
    """

    @jax.jit
    def backbone(variables, batch):
        inputs, options = run.task.inputs(batch)
        return run.model.apply(
            variables, inputs, method=lambda model, x: model.backbone(x, False, **options)
        )

    parts = []
    for batch in pipeline.eval_batches(source, run.config):
        placed = parallel.put_batch(run.setup.mesh, batch)
        found = parallel.gather({
            "x": backbone(run.variables, placed), "valid": placed["valid"],
            "index": placed["index"],
        })
        parts.append({key: value[found["valid"]] for key, value in found.items()})
    order = np.argsort(np.concatenate([part["index"] for part in parts]))
    return np.concatenate([part["x"] for part in parts])[order].astype(np.float32)
