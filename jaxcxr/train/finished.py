"""Opens finished runs: the one way from a workdir to the model that `evaluate` takes."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxcxr import config as config_lib
from jaxcxr import registry
from jaxcxr.data import pipeline
from jaxcxr.errors import UserError
from jaxcxr.train import checkpoint, parallel, setup


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run with its best checkpoint.

    Attributes:
      setup: task, model, mesh, compiled steps.
      step: of the checkpoint.
      saved: its `params`, `batch_stats` and `ema` (None where none is kept), on the mesh.
    """

    workdir: epath.Path
    setup: setup.Setup
    step: int
    saved: dict[str, Any]

    @property
    def variables(self) -> dict[str, Any]:
        """`params` (their moving average where one is kept) and `batch_stats`."""
        return _variables(self.saved)

    @property
    def config(self):
        """The run's config."""
        return self.setup.config

    @property
    def task(self):
        """The run's task."""
        return self.setup.task

    @property
    def model(self):
        """The run's Linen module."""
        return self.setup.model


@contextlib.contextmanager
def open_best(
    workdir: epath.Path, task: str = "", config=None, data: bool = True, opened: Any = None
) -> Iterator[FinishedRun]:
    """Opens the best checkpoint of a run, the newest where none was evaluated.

    The mesh of the run is in force inside the context.

    Arguments:
      task: that the run must be of; "" for any.
      config: in place of the run's own, for other devices or batches.
      data: whether to open the prepared data; without, the task holds one blank example.
      opened: the task, over other data.
    """
    config = config or load_config(workdir, task)
    if not data:
        opened = registry.task(config.task).without_data(config)
    run = setup.make(config, opened)
    with run.mesh_context(), contextlib.closing(
        checkpoint.Checkpoints(workdir, config)
    ) as checkpoints:
        step, saved = _best(run, checkpoints, workdir)
        yield FinishedRun(epath.Path(workdir), run, step, saved)


def load_config(workdir: epath.Path, task: str = ""):
    """Returns the config of a run."""
    config = config_lib.from_saved(checkpoint.load_config(workdir))
    if task and config.task != task:
        raise UserError(f"{workdir} is a run of the task {config.task!r}; this needs {task!r}.")
    return config


def best(run: setup.Setup, checkpoints, workdir) -> tuple[int, dict[str, Any]]:
    """Returns step and evaluation variables of the best checkpoint."""
    step, saved = _best(run, checkpoints, workdir)
    return step, _variables(saved)


def _best(run, checkpoints, workdir) -> tuple[int, dict[str, Any]]:
    step = checkpoints.best_step or checkpoints.latest_step
    if step is None:
        raise UserError(f"{workdir} holds no checkpoint; train first.")
    return step, checkpoints.restore_model(step, run.abstract_model())


def _variables(saved: dict[str, Any]) -> dict[str, Any]:
    params = saved["params"] if saved["ema"] is None else saved["ema"]
    return {"params": params, "batch_stats": saved["batch_stats"]}


def features(run: FinishedRun, source: Any) -> np.ndarray:
    """Computes the outputs of a run's backbone.

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
    for batch in pipeline.eval_batches(source, run.config, run.setup.local_rows):
        placed = parallel.put_batch(run.setup.mesh, batch)
        found = parallel.gather({
            "x": backbone(run.variables, placed), "valid": placed["valid"],
            "index": placed["index"],
        })
        parts.append({key: value[found["valid"]] for key, value in found.items()})
    order = np.argsort(np.concatenate([part["index"] for part in parts]))
    return np.concatenate([part["x"] for part in parts])[order].astype(np.float32)
