"""Trains the head on features that a frozen backbone gave once: a linear probe in minutes.

The features of the training and validation images are computed before the first step and kept in
the workdir; steps and evaluations read them in place of images. Weights, checkpoints and reports
are those of any run.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from jaxcxr.config import NO_AUGMENTATION
from jaxcxr.errors import UserError
from jaxcxr.train import finished, setup, watchdog

SPLITS = ("train", "validation")


class _Features:
    """Random access to labels and features of a split; the features are filled in later."""

    def __init__(self, source: Any):
        self._source = source
        self._labels = source.manifest.labels
        self.manifest = source.manifest
        self.values: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._source)

    def read(self, index) -> dict[str, np.ndarray]:
        """Reads examples by their numbers."""
        assert self.values is not None
        return {"features": self.values[index], "labels": self._labels[index]}

    __getitem__ = read


class _Task:
    """A task whose training and validation examples are features; all else is the task's."""

    def __init__(self, task: Any):
        self._task = task
        self.sources = {split: _Features(task.source(split)) for split in SPLITS}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def source(self, split: str) -> Any:
        """Returns the features of a split, or the examples of another."""
        return self.sources.get(split) or self._task.source(split)

    def inputs(self, batch, train: bool = False):
        """Returns what the head gets."""
        del train
        return batch["features"], {}

    def augment(self, key, batch):
        """Leaves the batch as it is."""
        del key
        return batch


@dataclasses.dataclass(frozen=True)
class _Head:
    """Applies the head of a model alone."""

    model: Any

    def apply(self, variables, features, *, train: bool, **options):
        """Computes logits of features; arguments as of `flax.linen.Module.apply`."""
        def head(model, x):
            return model.head(x.astype(model.dtype), train=train)

        return self.model.apply(variables, features, method=head, **options)


@dataclasses.dataclass
class Probe(setup.Setup):
    """A setup that trains on features.

    Attributes:
      original: the setup that trains on images.
    """

    original: Any = None

    def init_variables(self):
        """The variables of the whole model."""
        return self.original.init_variables()

    def fill(self, state: Any, folder: pathlib.Path, say: Any) -> None:
        """Computes the features, or reads those that an earlier start of the run has kept.

        Arguments:
          state: of the run, whose backbone stays as it is.
          folder: of the run.
          say: gets a line for each split.
        """
        found = finished.FinishedRun(folder, self.original, 0, state.model_item)
        for split, source in self.task.sources.items():
            path = folder / "features" / f"{split}.npy"
            if path.exists():
                source.values = np.load(path)
            if source.values is None or len(source.values) != len(source):
                watchdog.progress(f"features of {split}", compiles=True)
                source.values = finished.features(found, self.original.task.source(split))
                if jax.process_index() == 0:
                    path.parent.mkdir(exist_ok=True)
                    np.save(path, source.values)
            count, width = source.values.shape
            say(f"features of {split}: {count:,} images, {width} values each, in {path}")


def make(run: setup.Setup) -> Probe:
    """Makes the setup that trains the head of a run on features.

    Raises:
      UserError: the run trains its backbone, augments images, or is compiled by pmap.
    """
    config = run.config
    for stage in run.stages:
        trained = [name for name in jax.tree_util.tree_leaves_with_path(run.parameter_shapes)
                   if stage.trains("/".join(part.key for part in name[0]))
                   and name[0][0].key != "head"]
        if trained:
            raise UserError(
                f"config.data.cache_features keeps the features of a frozen backbone, but stage "
                f"{stage.name!r} trains {len(trained)} of its parameters; set trainable to "
                "('^head/',) or cache_features to False."
            )
    kept = [key for key, value in NO_AUGMENTATION.items() if config.augment[key] != value]
    if kept:
        raise UserError(
            "config.data.cache_features computes features once, so images cannot be augmented: "
            f"set augment.{kept[0]}={NO_AUGMENTATION[kept[0]]} (and {len(kept) - 1} more, see "
            "configs/cxr_probe.py), or cache_features to False."
        )
    if config.parallel == "pmap":
        raise UserError("config.data.cache_features needs config.parallel='jit'.")
    fields = {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}
    return Probe(**{**fields, "task": _Task(run.task), "model": _Head(run.model)}, original=run)
