"""Pose metrics of many sequences: sums first, so that groups and resamples cost next to nothing."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxcxr.pose.evaluation import pose_errors
from jaxcxr.pose.evaluation.pose_metrics import METRICS, OF_JOINTS, Poses
from jaxcxr.statistics.intervals import Groups, one_fewer, ratio


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Sums and counts of one sequence.

    Attributes:
      sums, counts: of `pose_metrics.METRICS`, `[metrics]`.
      joint_sums, joint_counts: of `pose_metrics.OF_JOINTS`, `[metrics, joints]`.
    """

    sums: np.ndarray
    counts: np.ndarray
    joint_sums: np.ndarray
    joint_counts: np.ndarray


def statistics(
    prediction: np.ndarray,
    target: np.ndarray,
    runs: np.ndarray | None = None,
    *,
    parents: Sequence[int],
    scored: Sequence[int] = (),
    inclusive: bool = True,
) -> Statistics:
    """Sums and counts of the metrics of one sequence.

    Arguments:
      prediction: `[frames, joints, 3]`, millimetres, as they are to be compared.
      target: `[frames, joints, 3]`; joints that are not finite are left out.
      runs: `[frames]`, a number for each run of frames that follow each other; none: one run.
      parents: of the joints, which define the angles.
      scored: joints of 3DPCK and its area; empty: all.
      inclusive: see `pose_errors.pck3d`.
    """
    known = pose_errors.known(target)
    # What is left out must still be a number, for sums of products with 0.
    poses = Poses(
        np.where(known[..., None], prediction, 0.0), np.where(known[..., None], target, 0.0),
        known.astype(np.float64), runs, parents, scored, inclusive,
    )
    pairs = {metric: metric.measure(poses) for metric in METRICS}
    totals = [
        (np.where(light > 0, values, 0.0).sum(), light.sum()) for values, light in pairs.values()
    ]
    of_joints = [
        (np.where(light > 0, values, 0.0).sum(axis=0), light.sum(axis=0))
        for values, light in (pairs[metric] for metric in OF_JOINTS)
    ]
    return Statistics(*np.array(totals).T, *np.moveaxis(np.array(of_joints), 1, 0))


def estimate(sums: np.ndarray, counts: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Mean in each stratum, then the unweighted mean over strata that have one.

    Arguments:
      sums, counts: `[sequences, metrics]`.
      strata: `[sequences]`, such as the action of each.

    Returns:
      `[metrics]`; NaN where nothing counts.
    """
    parts = [ratio(sums[s].sum(axis=0), counts[s].sum(axis=0)) for s in _masks(strata)]
    return _mean(np.array(parts))


def bootstrap(
    sums: np.ndarray,
    counts: np.ndarray,
    strata: np.ndarray,
    clusters: np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """`estimate` of resamples of whole clusters, drawn within each stratum.

    Of n clusters n - 1 are drawn, see `intervals.one_fewer`. A stratum of one cluster stays as it
    is.

    Arguments:
      sums, counts, strata: as in `estimate`.
      clusters: `[sequences]`, the motion of each; those of one cluster are drawn together.
      resamples, seed: see `intervals.Groups.resample`.

    Returns:
      `[resamples, metrics]`; NaN throughout if no stratum has two clusters.
    """
    random = np.random.default_rng(seed)
    parts, varies = [], False
    for mask in _masks(strata):
        groups = Groups.of(clusters[mask])

        def statistic(drawn, groups=groups, sums=sums[mask], counts=counts[mask]):
            weight = np.ascontiguousarray(drawn[groups.index].T)
            return ratio(weight @ sums, weight @ counts).T

        if groups.count > 1:
            found = groups.resample(
                statistic, resamples, random, draw=one_fewer, block=resamples
            )
        else:
            found = statistic(np.ones((1, resamples)))
        varies |= groups.count > 1
        parts.append(found.T)
    values = _mean(np.array(parts))
    return values if varies else np.full_like(values, np.nan)


def _masks(strata: np.ndarray) -> list[np.ndarray]:
    return [strata == name for name in np.unique(strata)]


def _mean(parts: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not NaN."""
    there = ~np.isnan(parts)
    return ratio(np.where(there, parts, 0.0).sum(axis=0), there.sum(axis=0))
