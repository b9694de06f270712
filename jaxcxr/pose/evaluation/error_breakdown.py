"""Where and when a pose model errs: by action and joint, along time, in the worst sequences."""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from jaxcxr.pose.sources import clips

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LISTED = 10  # worst sequences
_MOST_BINS = 120  # of time
_FEWEST = 4  # sequences whose median is drawn


@dataclasses.dataclass(frozen=True)
class ActionErrors:
    """Errors of an action.

    Attributes:
      name: of the action.
      sequences, frames: their numbers.
      joints: mean error of each joint, mm, `[joints]`.
    """

    name: str
    sequences: int
    frames: int
    joints: np.ndarray

    @property
    def mean(self) -> float:
        """MPJPE, mm."""
        return float(self.joints.mean())


@dataclasses.dataclass(frozen=True)
class ErrorsOverTime:
    """Errors of frames along time, mm.

    Attributes:
      window: `QUANTILES` at each place in a window, `[5, frames]`; None where a window lifts its
        middle frame alone.
      bin: length of a bin, seconds.
      sequences: mean error of each sequence in each bin, `[sequences, bins]`, NaN after its end.
      means: of each whole sequence, `[sequences]`.
      quantiles: `QUANTILES` over sequences, `[5, bins]`, NaN where fewer than a tenth, or than four
        (of fewer: than all), still run.
    """

    window: np.ndarray | None
    bin: float
    sequences: np.ndarray
    means: np.ndarray
    quantiles: np.ndarray


@dataclasses.dataclass(frozen=True)
class WorstSequence:
    """A sequence on which a model errs much, and its worst frame.

    Attributes:
      sequence: the sequence.
      predicted: joints, mm, `[frames, joints, 3]`.
      errors: of each frame and joint, mm, `[frames, joints]`.
    """

    sequence: clips.Sequence
    predicted: np.ndarray
    errors: np.ndarray

    @property
    def mean(self) -> float:
        """MPJPE, mm."""
        return float(self.errors.mean())

    @property
    def frame(self) -> int:
        """The frame of the largest error."""
        return int(self.errors.mean(-1).argmax())


def by_action(errors: Sequence[np.ndarray], actions: Sequence[str]) -> list[ActionErrors]:
    """Mean errors of each action and joint.

    Arguments:
      errors: of each sequence, mm, `[frames, joints]`.
      actions: of each sequence.

    Returns:
      A row for each action, in alphabetic order, and at last one of all frames.
    """
    def row(name: str, chosen: Iterable[np.ndarray]) -> ActionErrors:
        parts = list(chosen)
        values = np.concatenate(parts)
        return ActionErrors(name, len(parts), len(values), values.mean(0))

    rows = [
        row(name, (e for e, action in zip(errors, actions, strict=True) if action == name))
        for name in sorted(set(actions))
    ]
    return [*rows, row("all frames", errors)]


def over_time(
    errors: Sequence[np.ndarray], fps: Sequence[float], window: int | None
) -> ErrorsOverTime:
    """Errors by the place in a window and by the time since a sequence began.

    Arguments:
      errors: of each frame of each sequence, mm, `[frames]`.
      fps: frames per second of each sequence.
      window: frames of the windows that are lifted side by side; None: every frame has its own.
    """
    place = None
    if window is not None:
        # NaN after the end of a sequence.
        padded = [np.pad(e, (0, -len(e) % window), constant_values=np.nan) for e in errors]
        place = _quantiles(np.concatenate(padded).reshape(-1, window))
    seconds = max(len(e) / rate for e, rate in zip(errors, fps, strict=True))
    width = max(seconds / _MOST_BINS, 1 / min(fps))
    binned = np.full((len(errors), math.ceil(seconds / width - 1e-9)), np.nan)
    for row, e, rate in zip(binned, errors, fps, strict=True):
        bins = np.floor(np.arange(len(e)) / (rate * width) + 1e-9).astype(int)
        counts = np.bincount(bins)
        sums = np.bincount(bins, weights=e)
        row[: len(counts)] = np.divide(
            sums, counts, out=np.full(len(counts), np.nan), where=counts > 0
        )
    enough = np.isfinite(binned).sum(0) >= max(min(_FEWEST, len(errors)), len(errors) / 10)
    quantiles = np.full((len(QUANTILES), binned.shape[1]), np.nan)
    quantiles[:, enough] = _quantiles(binned[:, enough])
    means = np.array([e.mean() for e in errors])
    return ErrorsOverTime(place, width, binned, means, quantiles)


def _quantiles(values: np.ndarray) -> np.ndarray:
    """`QUANTILES` of each column over what is not NaN; NaN where nothing is."""
    result = np.full((len(QUANTILES), values.shape[1]), np.nan)
    for out, column in zip(result.T, values.T, strict=True):
        known = column[~np.isnan(column)]
        if len(known):
            out[:] = np.quantile(known, QUANTILES)
    return result


def worst(
    sequences: Sequence[clips.Sequence],
    predicted: Sequence[np.ndarray],
    errors: Sequence[np.ndarray],
) -> list[WorstSequence]:
    """The sequences of the largest MPJPE, the largest first, of each take one camera.

    Arguments:
      sequences: of a split.
      predicted: of each, mm, `[frames, joints, 3]`.
      errors: of each, mm, `[frames, joints]`.

    Returns:
      at most `_LISTED` of them.
    """
    every = [WorstSequence(*parts) for parts in zip(sequences, predicted, errors, strict=True)]
    chosen: dict[str, WorstSequence] = {}
    for one in sorted(every, key=lambda one: -one.mean):
        chosen.setdefault(one.sequence.take, one)
    return list(chosen.values())[:_LISTED]
