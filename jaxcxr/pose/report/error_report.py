"""Breaks the errors of a pose model down by action, joint and time, and writes them as tables."""

import csv
import dataclasses
import math
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from jaxcxr.pose.evaluation import mean_errors, pose_errors
from jaxcxr.pose.sources import clips
from jaxcxr.report import tables

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
DRAWN = 4  # worst sequences with a figure
_LISTED = 10  # worst sequences
_MOST_BINS = 120  # of time
_FEWEST = 4  # sequences whose median is drawn
_MM = 1000.0


@dataclasses.dataclass(frozen=True)
class ActionErrors:
    """Errors of an action over numbers of sequences and frames: `joints` `[joints]`, means, mm."""

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
    """A sequence with its prediction `[frames, joints, 3]` and errors `[frames, joints]`, mm."""

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


@dataclasses.dataclass(frozen=True)
class Errors:
    """Errors of a model on a split.

    Attributes:
      names: of the sequences.
      predicted, truth: of each sequence, mm, `[frames, joints, 3]`.
      actions: of `by_action`. time: of `over_time`. worst: of `worst`.
    """

    names: Sequence[str]
    predicted: Sequence[np.ndarray]
    truth: Sequence[np.ndarray]
    actions: Sequence[ActionErrors]
    time: ErrorsOverTime
    worst: Sequence[WorstSequence]


def measure(source: clips.Clips, predicted: Sequence[np.ndarray]) -> Errors:
    """Measures the errors of predictions `[frames, joints, 3]`, metres, of each sequence."""
    predicted = [values * _MM for values in predicted]
    truth = [sequence.joints * _MM for sequence in source.sequences]
    errors = list(map(pose_errors.joint_errors, predicted, truth))
    return Errors(
        [sequence.sequence_id for sequence in source.sequences], predicted, truth,
        by_action(errors, [sequence.action for sequence in source.sequences]),
        over_time([e.mean(-1) for e in errors], [s.fps for s in source.sequences],
                  None if source.center else source.frames),
        worst(source.sequences, predicted, errors),
    )


def by_action(errors: Sequence[np.ndarray], actions: Sequence[str]) -> list[ActionErrors]:
    """Computes the errors of each action, in alphabetic order, and at last of all frames.

    `errors` are of each sequence, mm, `[frames, joints]`.
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
    """Sorts errors by the place in a window and by the time since a sequence began.

    Arguments:
      errors, fps: of each sequence, mm, `[frames]`, and its frames per second.
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
    """`QUANTILES` of each column without NaN; NaN where nothing else is."""
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
    """Ranks the `_LISTED` sequences of the largest MPJPE, of each take one camera."""
    every = [WorstSequence(*parts) for parts in zip(sequences, predicted, errors, strict=True)]
    chosen: dict[str, WorstSequence] = {}
    for one in sorted(every, key=lambda one: -one.mean):
        chosen.setdefault(one.sequence.take, one)
    return list(chosen.values())[:_LISTED]


def write(errors: Errors, joints: Sequence[str], split: str, folder: pathlib.Path) -> None:
    """Writes `errors.md`, which describes the figures too, and `errors.csv` (action x joint)."""
    _write_csv(errors.actions, joints, folder / "errors.csv")
    text = _markdown(errors.actions, errors.time, errors.worst, joints, split)
    (folder / "errors.md").write_text(text, encoding="utf-8")


def _write_csv(rows: Sequence[ActionErrors], joints: Sequence[str], path: pathlib.Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = [f"{name}_mm" for name in joints]
        writer.writerow(("action", "sequences", "frames", "mpjpe_mm", *columns))
        for row in rows:
            values = (row.mean, *row.joints)
            writer.writerow((row.name, row.sequences, row.frames, *(f"{v:.3f}" for v in values)))


def _markdown(
    rows: Sequence[ActionErrors], time: ErrorsOverTime, listed: Sequence[WorstSequence],
    joints: Sequence[str], split: str,
) -> str:
    *actions, every = rows
    table = [("joint", *(row.name for row in rows))]
    table += [
        (name.replace("_", " "), *(f"{row.joints[j]:.1f}" for row in rows))
        for j, name in enumerate(joints)
    ]
    table += [
        ("all joints", *(f"{row.mean:.1f}" for row in rows)),
        ("frames", *(f"{row.frames:,}" for row in rows)),
        ("sequences", *(str(row.sequences) for row in rows)),
    ]
    ranking = [("sequence", "action", "frames", "MPJPE", "worst frame", "its error", "worst joint")]
    ranking += [
        (one.sequence.sequence_id, one.sequence.action, f"{len(one.errors):,}", f"{one.mean:.1f}",
         str(one.frame), f"{one.errors[one.frame].mean():.1f}",
         joints[one.errors.mean(0).argmax()].replace("_", " "))
        for one in listed
    ]
    blocks = [
        f"# Errors on the {split} split",
        f"MPJPE {every.mean:.1f} mm over {every.frames:,} frames of {every.sequences} sequences; "
        "the mean of the actions' means is "
        f"{mean_errors.action_mean({row.name: row.mean for row in actions}):.1f} mm.",
        "## By action and joint, mm", *_block(table),
        "## By position of the frame in its window, mm", *_places(time),
        "## Worst sequences, mm", "Of each take, the camera with the largest error.",
        *_block(ranking),
        "## Figures", *_block(_figures(rows, time, listed, joints), left=2),
    ]
    return "\n\n".join(blocks) + "\n"


def _block(lines, left: int = 1) -> list[str]:
    return ["\n".join(tables.markdown(lines, left))]


def _places(time: ErrorsOverTime) -> list[str]:
    if time.window is None:
        return ["Every frame is the middle of a window of its own."]
    frames = time.window.shape[1]
    lines = [("frame", *(f"{q:.0%}" if q != 0.5 else "median" for q in QUANTILES))]
    for name, place in {"first": 0, "middle": frames // 2, "last": frames - 1}.items():
        lines.append((f"{name} ({place + 1})", *(f"{x:.1f}" for x in time.window[:, place])))
    return _block(lines)


def _figures(
    rows: Sequence[ActionErrors], time: ErrorsOverTime, listed: Sequence[WorstSequence],
    joints: Sequence[str],
) -> list[tuple[str, ...]]:
    """Describes each figure in words, for readers who cannot see it."""
    *actions, every = rows
    hard, easy = (pick(actions, key=lambda row: row.mean) for pick in (max, min))
    joint = int(every.joints.argmax())
    median = time.quantiles[2]
    known = median[~np.isnan(median)]
    drawn = listed[:DRAWN]
    window = "" if time.window is None else (
        f"Median error by position in the window: {time.window[2].min():.0f} to "
        f"{time.window[2].max():.0f} mm. "
    )
    return [
        ("file", "what it shows"),
        ("errors_actions.png",
         "Table of colours with a number in each cell: mean position error in mm, a row for each "
         f"action, a column for each joint. Largest for {hard.name} ({hard.mean:.0f} mm), smallest "
         f"for {easy.name} ({easy.mean:.0f} mm); worst joint {joints[joint].replace('_', ' ')} "
         f"({every.joints[joint]:.0f} mm)."),
        ("errors_time.png",
         f"{window}Median over sequences by time from their start: {known.min():.0f} to "
         f"{known.max():.0f} mm. Bands hold half and nine tenths. Below, a row of colours for each "
         "sequence, the worst first."),
        ("errors_worst.png",
         "Worst frame of "
         + ", ".join(f"{one.sequence.sequence_id} ({one.mean:.0f} mm)" for one in drawn)
         + ": 2D input, true and predicted skeleton as the camera sees them and from the side, and "
         "the error over time."),
    ]
