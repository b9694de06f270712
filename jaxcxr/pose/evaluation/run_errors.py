"""Errors of a run from the predictions it left, with intervals over motions."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jaxcxr.pose.evaluation import pose_arrays, pose_metrics, pose_statistics
from jaxcxr.pose.evaluation.pose_metrics import IN_STUDIES
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.statistics import intervals

METRICS = tuple(metric.name for metric in IN_STUDIES)
_RESAMPLES = 2000
_MM = 1000.0
_PLACES = [pose_metrics.METRICS.index(metric) for metric in IN_STUDIES]
# "subject/action/camera" -> metric of METRICS -> [sum in mm, count].
Sums = Mapping[str, Mapping[str, Sequence[float]]]


def sequence_sums(folder: pathlib.Path, split: str = "test") -> dict[str, dict[str, list[float]]]:
    """Sums the errors of each sequence.

    Arguments:
      folder: workdir of a finished run of the pose task.
      split: whose predictions.

    Returns:
      `Sums`, ready for JSON.

    Raises:
      UserError: a file is missing or damaged.
    """
    truth, guess = (
        pose_arrays.read(folder / "predictions" / f"{split}{end}.npz").sequences
        for end in ("_labels", "")
    )
    found = {}
    for key, (_, joints) in truth.items():
        one = pose_statistics.statistics(
            guess[key][1].astype(np.float64) * _MM, joints.astype(np.float64) * _MM,
            parents=HUMAN36M.parents,
        )
        found[str(key)] = {
            name: [float(one.sums[place]), float(one.counts[place])]
            for name, place in zip(METRICS, _PLACES, strict=True)
        }
    return found


def overall(sequences: Sums) -> dict[str, np.ndarray]:
    """Metric of `METRICS` -> its mean over all frames and the ends of its 95 % interval, mm."""
    names = sorted(sequences)
    values, drawn = estimates(*pooled([sequences], names), names)
    ends = [intervals.percentile_interval(column) for column in drawn.T]
    return {name: np.array([value, *range_])
            for name, value, range_ in zip(METRICS, values, ends, strict=True)}


def pooled(runs: Iterable[Sums], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts of sequences over runs, each `[sequences, 3]`."""
    both = np.array([[[run[name][metric] for metric in METRICS] for name in names] for run in runs])
    return tuple(both.sum(axis=0).transpose(2, 0, 1))


def estimates(
    sums: np.ndarray, counts: np.ndarray, names: Sequence[str], resamples: int = _RESAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """Means over all frames `[3]`, and those of resamples of motions `[resamples, 3]`."""
    one = np.zeros(len(names))
    motions = np.array([pose_arrays.parse_key(name, "the study").motion for name in names])
    values = pose_statistics.estimate(sums, counts, one)
    if not resamples:
        return values, np.empty((0, len(METRICS)))
    # The same seed draws the same motions for every run.
    return values, pose_statistics.bootstrap(
        sums, counts, one, motions, resamples=resamples, seed=0
    )
