"""The metrics of 3D poses, their sums for each sequence, and means and resamples of these.

A record in `METRICS` is all that a metric takes. Each is a mean over joints (of frames, differences
or angles): sums and counts of sequences give every group and resample at next to no cost.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from jaxcxr.pose.evaluation import pose_errors
from jaxcxr.report.tables import Metric
from jaxcxr.statistics.intervals import Groups, one_fewer, ratio


@dataclasses.dataclass(frozen=True, eq=False)
class Poses:
    """Poses of one sequence, see `statistics`; finite, with the weight 0 where unknown."""

    prediction: np.ndarray
    target: np.ndarray
    weights: np.ndarray
    runs: np.ndarray | None
    parents: Sequence[int]
    scored: Sequence[int]
    inclusive: bool

    @functools.cached_property
    def errors(self) -> np.ndarray:
        """Distance of each joint from its target, `[frames, joints]`."""
        return pose_errors.joint_errors(self.prediction, self.target)

    def errors_after(self, fit: Callable) -> tuple[np.ndarray, np.ndarray]:
        """Computes errors after a fit to the target, and their weights."""
        fitted = fit(self.prediction, self.target, self.weights)
        return pose_errors.joint_errors(fitted, self.target), self.weights

    def difference_errors(self, order: int) -> tuple[np.ndarray, np.ndarray]:
        """Computes errors of differences along time, and their weights."""
        return pose_errors.difference_errors(
            self.prediction, self.target, self.weights, self.runs, order
        )

    def near(self, thresholds: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Computes the share of thresholds that each scored joint keeps, and the weights."""
        chosen = list(self.scored) or slice(None)
        shares = pose_errors.share_within(self.errors[:, chosen], thresholds, self.inclusive)
        return shares, self.weights[:, chosen]

    def angle_errors(self) -> tuple[np.ndarray, np.ndarray]:
        """Computes errors of the angles between bones, and their weights."""
        angles = pose_errors.bone_angles(self.parents)
        return pose_errors.angle_errors(self.prediction, self.target, angles, self.weights)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoseMetric(Metric):
    """A metric of 3D poses.

    Attributes:
      measure: of `Poses` -> values and weights of one shape, whose weighted mean it is.
      unit: of its values; "share" in [0, 1].
      of_joints: whether it is reported for each joint; its values are `[frames, joints]` then.
      study: decimals in the tables of studies; None: not there.
    """

    measure: Callable[[Poses], tuple[np.ndarray, np.ndarray]]
    unit: str = "mm"
    higher: bool | None = False
    form: str = ".2f"
    span: bool = False
    of_joints: bool = False
    study: int | None = None

    @property
    def head(self) -> str:
        """Head of its column, with the unit."""
        return self.title if self.unit == "share" else f"{self.title} {self.unit}"


_NOTHING = "no joint is known"

METRICS = (
    PoseMetric(name="mpjpe", title="MPJPE", undefined=_NOTHING, span=True, of_joints=True, study=1,
               measure=lambda poses: (poses.errors, poses.weights)),
    PoseMetric(name="p_mpjpe", title="P-MPJPE", undefined=_NOTHING, span=True, of_joints=True,
               study=1, measure=lambda poses: poses.errors_after(pose_errors.procrustes)),
    PoseMetric(name="n_mpjpe", title="N-MPJPE", undefined=_NOTHING,
               measure=lambda poses: poses.errors_after(pose_errors.best_scale)),
    PoseMetric(name="mpjve", title="MPJVE", unit="mm/frame", span=True, study=2,
               undefined="no joint is known in two frames that follow each other",
               measure=lambda poses: poses.difference_errors(1)),
    PoseMetric(name="acceleration_error", title="accel", unit="mm/frame^2",
               undefined="no joint is known in three frames that follow each other",
               measure=lambda poses: poses.difference_errors(2)),
    PoseMetric(name="pck3d", title="3DPCK", unit="share", form=".3f", higher=True,
               undefined="no scored joint is known",
               measure=lambda poses: poses.near((pose_errors.PCK3D_THRESHOLD,))),
    PoseMetric(name="auc3d", title="AUC", unit="share", form=".3f", higher=True,
               undefined="no scored joint is known",
               measure=lambda poses: poses.near(pose_errors.AUC3D_THRESHOLDS)),
    PoseMetric(name="mjae", title="MJAE", unit="degrees",
               undefined="no angle whose three joints are known",
               measure=lambda poses: poses.angle_errors()),
)
OF_JOINTS = tuple(metric for metric in METRICS if metric.of_joints)
IN_STUDIES = tuple(metric for metric in METRICS if metric.study is not None)
_BY_NAME = {metric.name: metric for metric in METRICS}
MPJPE, P_MPJPE, MPJVE = (_BY_NAME[name] for name in ("mpjpe", "p_mpjpe", "mpjve"))
# The metrics that a run logs of each evaluated split.
OF_RUNS = (
    MPJPE, P_MPJPE, dataclasses.replace(MPJVE, name="mpjve_per_second", unit="mm/s"),
    dataclasses.replace(MPJPE, name="mpjpe_action_mean", title="MPJPE, mean of actions"),
)


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Sums and counts of one sequence.

    Attributes:
      sums, counts: of `METRICS`, `[metrics]`.
      joint_sums, joint_counts: of `OF_JOINTS`, `[metrics, joints]`.
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
    """Sums and counts the metrics of one sequence.

    Arguments:
      prediction, target: `[frames, joints, 3]`, millimetres, as they are to be compared; joints of
        the target that are not finite are left out.
      runs: `[frames]`, a number for each run of frames that follow each other; None: one run.
      parents: of the joints, which define the angles.
      scored: joints of 3DPCK and its area; empty: all.
      inclusive: see `mean_errors.pck3d`.
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
    """Computes the mean in each stratum, then the unweighted mean over strata that have one.

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
    """Computes `estimate` of resamples of whole clusters `[sequences]`, such as motions.

    Of the n clusters of a stratum n - 1 are drawn, see `intervals.one_fewer`; a single one stays.

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
    """Mean over the first axis without NaN."""
    there = ~np.isnan(parts)
    return ratio(np.where(there, parts, 0.0).sum(axis=0), there.sum(axis=0))
