"""The Task protocol: all that the trainer knows about what it trains."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose import clips
from jaxcxr.xray import relabeling
from jaxcxr.xray.images import manifest, radiographs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Name under which the training images of the folds left out are opened, as if they were a split.
LEFT_OUT = "left_out"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Result of evaluating one split.

    Attributes:
      metrics: scalar figures by name, e.g. {"auroc": 0.91}; undefined ones are left out.
      table: the same for people, as text, one row per class, action or baseline.
    """

    metrics: dict[str, float]
    table: str


class Task(Protocol):
    """What differs between the two tasks, as far as the trainer is concerned.

    A batch is a dict of arrays with a leading example axis. Three keys are always there: `index`
    (int32, position in the split's source), `position` (uint32, position in the endless shuffled
    stream, from which augmentation draws its randomness) and `valid` (bool, False for padding).

    Attributes:
      loss_weights: weight of each term of `loss_sums`.
      span_units: unit of distances between tokens, by the name of a model's blocks.
    """

    loss_weights: dict[str, float]
    span_units: dict[str, str]

    def source(self, split: str) -> Any:
        """Random-access source of examples (dicts of NumPy arrays) of a split, or `LEFT_OUT`."""

    def sampling(self) -> np.ndarray | None:
        """Probability of each training example; None for every one once an epoch."""

    def model_options(self) -> dict:
        """Options of the model that the data decides, e.g. the number of classes."""

    def inputs(self, batch, train: bool = False) -> tuple[Any, dict]:
        """Model input and keyword arguments from a batch (inside the compiled step).

        Only with `train` may they hold targets, for models that learn from a teacher.
        """

    def augment(self, key, batch):
        """Random changes of a training batch (inside the compiled step)."""

    def divisors(self, batch) -> dict[str, Any]:
        """For each loss term, how many known targets the batch holds."""

    def loss_sums(self, outputs, batch) -> dict[str, Any]:
        """For each loss term, its sum over known targets."""

    def predict(self, outputs, batch) -> dict[str, Any]:
        """What evaluation keeps of the outputs, with the batch axis first."""

    def evaluate(self, split: str, predictions: dict[str, np.ndarray]) -> Evaluation:
        """Metrics from the predictions of a whole split, in the order of its source."""

    def ids(self, split: str, index) -> list[str]:
        """Names of examples, for messages."""

    def calibrate(
        self, predictions: dict[str, np.ndarray], step: int, workdir: pathlib.Path
    ) -> None:
        """Fit what turns outputs into probabilities, on the predictions of validation.

        It is called, before `write`, only of tasks whose config has the group `calibration`.
        """

    def write(
        self, split: str, predictions: dict[str, np.ndarray], workdir: pathlib.Path
    ) -> str | None:
        """Write `predictions/<split>.csv` and the task's figures under `report/`.

        Returns:
          A table for the screen that says more than the evaluation's; none: that one is shown.
        """

    def examples(self, split: str) -> np.ndarray:
        """Indices of few examples of a split on which to show what a model does."""

    def attention_figure(self, split: str, index: np.ndarray, stacks: Mapping) -> "Figure | None":
        """Where attention looks, from `analysis.attention.look`; None where there is no weight."""

    def page(self, model, variables: Mapping, split: str, workdir: pathlib.Path) -> str:
        """The HTML of `report/index.html`, from what the run wrote and the model does."""

    def describe(self) -> dict[str, str]:
        """Lines for the screen at the start: data sizes and what is in them."""


def create(config) -> Task:
    """The task of a config, with its prepared data opened.

    Raises:
      UserError: the data is not prepared; the message holds the command to run.
    """
    from jaxcxr.data import preparation
    from jaxcxr.pose import task as pose_task
    from jaxcxr.xray import task as xray_task

    directory = preparation.find_or_generate(config)
    settings = config.data

    def radiographs_of(split):
        return _open_radiographs(directory, settings, split)

    def clips_of(split):
        once = 1 if settings.target == "center" else settings.frames
        stride = settings.stride if split == "train" else once
        sequences = clips.read_sequences(directory, split)
        return clips.Clips(sequences, settings.frames, stride, settings.target)

    if config.task == "cxr":
        return xray_task.XrayTask(config, radiographs_of)
    return pose_task.PoseTask(config, clips_of)


def _open_radiographs(directory: pathlib.Path, settings, split: str) -> radiographs.Radiographs:
    """A split; `data.labels` and `data.folds` concern "train" and `LEFT_OUT` alone."""
    if split not in ("train", LEFT_OUT):
        return radiographs.Radiographs(directory, split, settings.image_size)
    labels = radiographs.read_labels(settings.labels, directory) if settings.labels else None
    rows = None
    if settings.folds:
        patients = manifest.read(directory, "train").patient_id
        fold = relabeling.folds(patients, settings.folds, settings.fold_seed)
        rows = np.isin(fold, settings.left_out, invert=split == "train")
    elif split == LEFT_OUT:
        raise UserError("config.data.folds is 0: no training image is left out.")
    return radiographs.Radiographs(directory, "train", settings.image_size, rows, labels)
