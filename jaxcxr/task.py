"""Defines the Task protocol: all that the trainer knows about its tasks.

A task has two halves. The step needs the `Objective`: pure functions of batches, compiled. The end
of a run needs the `Report`: metrics, files and pages made from the predictions of a split.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from jaxcxr import registry
from jaxcxr.errors import UserError

# Opens the training images of the folds left out as if they were a split.
LEFT_OUT = "left_out"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Result of evaluating one split.

    Attributes:
      metrics: scalars by name, e.g. {"auroc": 0.91}; undefined ones are left out.
      table: the same as text for the screen, one row per class, action or baseline.
    """

    metrics: dict[str, float]
    table: str


class Objective(Protocol):
    """The part of a task that a training step runs, compiled.

    A batch is a dict of arrays with a leading example axis. It always has the keys `index` (int32,
    position in the split's source), `position` (uint32, position in the endless shuffled stream,
    the seed of augmentation) and `valid` (bool, False for padding).

    Attributes:
      loss_weights: weight of each term of `loss_sums`.
    """

    loss_weights: dict[str, float]

    def inputs(self, batch, train: bool = False) -> tuple[Any, dict]:
        """Returns the model's input and keyword arguments for a batch.

        They may hold targets only with `train`, for models taught by teacher forcing.
        """

    def augment(self, key, batch):
        """Changes a training batch at random."""

    def divisors(self, batch) -> dict[str, Any]:
        """Counts the known targets of the batch for each loss term."""

    def loss_sums(self, outputs, batch) -> dict[str, Any]:
        """Sums each loss term over known targets."""

    def predict(self, outputs, batch) -> dict[str, Any]:
        """Returns the outputs that evaluation keeps, with the batch axis first."""


class Report(Protocol):
    """The part of a task that the end of a run calls."""

    def evaluate(self, split: str, predictions: dict[str, np.ndarray]) -> Evaluation:
        """Computes metrics from the predictions of a split, in the order of its source."""

    def calibrate(
        self, predictions: dict[str, np.ndarray], step: int, workdir: pathlib.Path
    ) -> None:
        """Fits the calibration of probabilities to the predictions of validation.

        Called before `write`, and only if the config has the group `calibration`.
        """

    def write(
        self, split: str, predictions: dict[str, np.ndarray], workdir: pathlib.Path
    ) -> str | None:
        """Writes `predictions/<split>.csv` and the task's tables and figures under `report/`.

        Returns:
          A table for the screen in place of the evaluation's; None to show that one.
        """

    def draw(
        self, split: str, model, variables: Mapping | None, workdir: pathlib.Path
    ) -> list[str]:
        """Draws curves and attention maps under `report/`; without variables, the curves alone.

        Arguments:
          split: whose examples show attention; "" where none is evaluated: the curves alone.

        Returns:
          Lines for the screen that say why a figure is missing.
        """

    def page(self, split: str, model, variables: Mapping, workdir: pathlib.Path) -> pathlib.Path:
        """Writes `report/index.html` from the files of the run and outputs of the model.

        Arguments:
          split: whose results it shows; "" says that nothing was evaluated.
        """


class StressTest(Protocol):
    """Measures how a trained model degrades with its input; a module for each task.

    Attributes:
      KINDS: ways of making the input worse.
    """

    KINDS: Sequence[str]

    def measure(
        self, task: "Task", split: str, predict: Callable[[Any], Mapping[str, np.ndarray]],
        kinds: Sequence[str], resamples: int, seed: int, say: Callable[[str], None], *,
        features: Callable[[Any], np.ndarray],
    ) -> dict:
        """Measures the degradation on a split.

        Arguments:
          task: with the data.
          split: which of its splits.
          predict: predictions of the model for every example of a source, in order.
          kinds: of `KINDS`.
          resamples: of the bootstrap.
          seed: of the bootstrap and of random inputs.
          say: called with a line for each result.
          features: inputs of the model's head, `[n, dim]`, for every example of a source.

        Returns:
          The content of stress.json.
        """

    def to_text(self, result: Mapping) -> str:
        """Formats the result for the screen."""

    def to_markdown(self, result: Mapping) -> str:
        """Formats the result as a page of Markdown."""

    def figure(self, result: Mapping) -> Any:
        """Draws the result as a matplotlib figure."""


class Task(Objective, Report, Protocol):
    """A task over opened data."""

    @classmethod
    def open(cls, config) -> "Task":
        """Opens the prepared data of a config's task.

        Raises:
          UserError: the data is not prepared; the message holds the command to run.
        """

    @classmethod
    def without_data(cls, config) -> "Task":
        """Makes the task of a config over one blank example, for shapes alone.

        Raises:
          UserError: the classes of the source are known from its files only.
        """

    def source(self, split: str) -> Any:
        """Returns the random-access examples (dicts of NumPy arrays) of a split or `LEFT_OUT`."""

    def sampling(self) -> np.ndarray | None:
        """Returns the probability of each training example; None: each once an epoch."""

    def model_options(self) -> dict:
        """Returns the model options that the data decides, e.g. the number of classes."""

    def ids(self, split: str, index) -> list[str]:
        """Names examples, for messages."""

    @staticmethod
    def stress_test() -> StressTest:
        """Returns the stress test of the task, if it has one."""

    def facts(self) -> dict[str, Any]:
        """Returns what the data decided of the model, for config.json."""

    def describe(self) -> dict[str, str]:
        """Describes the data on the screen at the start: sizes and contents."""


def present(source: Any, split: str, workdir: Any) -> Any:
    """Returns the examples of a split of a run's data.

    Raises:
      UserError: there are none.
    """
    if not len(source):
        other = {"test": "; give --split validation"}.get(split, "")
        raise UserError(f"{workdir}: its data have no {split} split{other}.")
    return source


def create(config) -> Task:
    """Opens the task of a config with its prepared data.

    Raises:
      UserError: the data is not prepared; the message holds the command to run.
    """
    return registry.task(config.task).open(config)
