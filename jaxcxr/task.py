"""The Task protocol: all that the trainer knows about what it trains.

A task has two halves. The step needs the `Objective`: pure functions of batches, compiled. The end
of a run needs the `Report`: metrics, files and pages from the predictions of a whole split.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from jaxcxr import registry

# Name under which the training images of the folds left out are opened, as if they were a split.
LEFT_OUT = "left_out"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Result of evaluating one split.

    Attributes:
      metrics: scalars by name, e.g. {"auroc": 0.91}; undefined ones are left out.
      table: the same for people, as text, one row per class, action or baseline.
    """

    metrics: dict[str, float]
    table: str


class Objective(Protocol):
    """What a training step needs of a task; everything but `loss_weights` runs inside the step.

    A batch is a dict of arrays with a leading example axis. Three keys are always there: `index`
    (int32, position in the split's source), `position` (uint32, position in the endless shuffled
    stream, from which augmentation draws its randomness) and `valid` (bool, False for padding).

    Attributes:
      loss_weights: weight of each term of `loss_sums`.
    """

    loss_weights: dict[str, float]

    def inputs(self, batch, train: bool = False) -> tuple[Any, dict]:
        """Model input and keyword arguments from a batch.

        Only with `train` may they hold targets, for models that learn from a teacher.
        """

    def augment(self, key, batch):
        """Random changes of a training batch."""

    def divisors(self, batch) -> dict[str, Any]:
        """For each loss term, how many known targets the batch holds."""

    def loss_sums(self, outputs, batch) -> dict[str, Any]:
        """For each loss term, its sum over known targets."""

    def predict(self, outputs, batch) -> dict[str, Any]:
        """Outputs that evaluation keeps, with the batch axis first."""


class Report(Protocol):
    """What the end of a run needs of a task."""

    def evaluate(self, split: str, predictions: dict[str, np.ndarray]) -> Evaluation:
        """Metrics from the predictions of a whole split, in the order of its source."""

    def calibrate(
        self, predictions: dict[str, np.ndarray], step: int, workdir: pathlib.Path
    ) -> None:
        """Fit what turns outputs into probabilities, on the predictions of validation.

        It is called, before `write`, only of tasks whose config has the group `calibration`.
        """

    def write(
        self, split: str, predictions: dict[str, np.ndarray], workdir: pathlib.Path
    ) -> str | None:
        """Write `predictions/<split>.csv` and the task's tables and figures under `report/`.

        Returns:
          A table for the screen that says more than the evaluation's; None: that one is shown.
        """

    def draw(
        self, split: str, model, variables: Mapping | None, workdir: pathlib.Path
    ) -> list[str]:
        """Draw curves and attention maps under `report/`; without variables, the curves alone.

        Returns:
          Lines for the screen: why a figure is missing.
        """

    def page(self, split: str, model, variables: Mapping, workdir: pathlib.Path) -> pathlib.Path:
        """Write `report/index.html`, from what the run wrote and the model does."""


class StressTest(Protocol):
    """How much worse a trained model gets as its input does; a module for each task.

    Attributes:
      KINDS: ways of making the input worse.
    """

    KINDS: Sequence[str]

    def measure(
        self, task: "Task", split: str, predict: Callable[[Any], Mapping[str, np.ndarray]],
        kinds: Sequence[str], resamples: int, seed: int, say: Callable[[str], None], *,
        features: Callable[[Any], np.ndarray],
    ) -> dict:
        """Measures on a split.

        Arguments:
          task: with the data.
          split: which of its splits.
          predict: predictions of the model for every example of a source, in order.
          kinds: of `KINDS`.
          resamples, seed: of the bootstrap; the seed also of what is drawn.
          say: gets a line for each result.
          features: what the head of the model gets, `[n, dim]`, for every example of a source.

        Returns:
          the content of stress.json.
        """

    def to_text(self, result: Mapping) -> str:
        """The result for the screen."""

    def to_markdown(self, result: Mapping) -> str:
        """The result as a page of Markdown."""

    def figure(self, result: Mapping) -> Any:
        """The result as a matplotlib figure."""


class Task(Objective, Report, Protocol):
    """A task over opened data."""

    @classmethod
    def open(cls, config) -> "Task":
        """The task of a config, with its prepared data opened.

        Raises:
          UserError: the data is not prepared; the message holds the command to run.
        """

    @classmethod
    def without_data(cls, config) -> "Task":
        """The task of a config over one blank example, where shapes are all that is needed.

        Raises:
          UserError: a source that only its files tell the classes of.
        """

    def source(self, split: str) -> Any:
        """Random-access source of examples (dicts of NumPy arrays) of a split, or `LEFT_OUT`."""

    def sampling(self) -> np.ndarray | None:
        """Probability of each training example; None for every one once an epoch."""

    def model_options(self) -> dict:
        """Options of the model that the data decides, e.g. the number of classes."""

    def ids(self, split: str, index) -> list[str]:
        """Names of examples, for messages."""

    @staticmethod
    def stress_test() -> StressTest:
        """The stress test of the task; a task need not have one."""

    def describe(self) -> dict[str, str]:
        """Lines for the screen at the start: data sizes and what is in them."""


def create(config) -> Task:
    """The task of a config, with its prepared data opened.

    Raises:
      UserError: the data is not prepared; the message holds the command to run.
    """
    return registry.task(config.task).open(config)
