"""The metrics of 3D poses: a record for each is all that a column takes.

Every metric is a mean over joints (of frames, differences or angles): a sum over a count.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from jaxcxr.pose.evaluation import pose_errors
from jaxcxr.report.tables import Metric


@dataclasses.dataclass(frozen=True, eq=False)
class Poses:
    """Poses of one sequence, as they are to be compared, millimetres.

    Attributes:
      prediction, target: `[frames, joints, 3]`, finite.
      weights: `[frames, joints]`, 0 where the target is not known.
      runs: `[frames]`, a number for each run of frames that follow each other; None: one run.
      parents: of the joints, which define the angles.
      scored: joints of 3DPCK and its area; empty: all.
      inclusive: see `pose_errors.pck3d`.
    """

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
        """Errors after a fit to the target, and their weights."""
        fitted = fit(self.prediction, self.target, self.weights)
        return pose_errors.joint_errors(fitted, self.target), self.weights

    def difference_errors(self, order: int) -> tuple[np.ndarray, np.ndarray]:
        """Errors of differences along time, and their weights."""
        return pose_errors.difference_errors(
            self.prediction, self.target, self.weights, self.runs, order
        )

    def near(self, thresholds: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Share of thresholds that each scored joint keeps, and the weights."""
        chosen = list(self.scored) or slice(None)
        shares = pose_errors.share_within(self.errors[:, chosen], thresholds, self.inclusive)
        return shares, self.weights[:, chosen]

    def angle_errors(self) -> tuple[np.ndarray, np.ndarray]:
        """Errors of the angles between bones, and their weights."""
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
_MPJPE, _P_MPJPE, _MPJVE = (
    next(metric for metric in METRICS if metric.name == name)
    for name in ("mpjpe", "p_mpjpe", "mpjve")
)
# The metrics that a run logs of each evaluated split.
OF_RUNS = (
    _MPJPE, _P_MPJPE, dataclasses.replace(_MPJVE, name="mpjve_per_second", unit="mm/s"),
    dataclasses.replace(_MPJPE, name="mpjpe_action_mean", title="MPJPE, mean of actions"),
)
