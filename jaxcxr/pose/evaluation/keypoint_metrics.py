"""2D keypoint metrics of many people: outcomes first, so that every group and resample is a sum.

A metric is a share of correct joints, or limbs (PCP). MPII's sets are scored by PCKh, COCO's by
OKS; people without a box of the head, a torso or an area do not count there.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcxr.pose.evaluation import keypoint_errors
from jaxcxr.pose.evaluation.keypoint_ap import Matched
from jaxcxr.report.tables import Metric
from jaxcxr.statistics.intervals import Groups, ratio

_SIDES = ("left", "right")
_LIMBS = (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
# MPII's area under the curve is over thresholds of 0 to half a head.
AUC_ALPHAS = tuple(np.linspace(0.0, 0.5, 51))


@dataclasses.dataclass(frozen=True, eq=False)
class Outcomes:
    """One metric of every person, `[people, parts]`.

    `sums` are 0 or 1 (correct), or means over thresholds; `counts` are 1 where a part counts.
    """

    sums: np.ndarray
    counts: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class People:
    """People that are annotated, each with the prediction that is compared with it.

    Attributes:
      form: "coco" or "mpii".
      joints: their names.
      images: `[people]`, names or numbers.
      prediction: `[people, joints, 2]`, pixels as the labels count them; NaN: not found.
      target: `[people, joints, 2]`.
      visible: bool `[people, joints]`, whether it is annotated.
      boxes: `[people]`, PCK's normaliser in pixels, NaN where unknown; none: of nobody.
      heads: PCKh's likewise. areas: `[people]`, OKS's, square pixels; none: no OKS.
      sigmas: OKS's, `[joints]`.
      excluded: joints that PCKh's mean leaves out.
      matched: detections for average precision; none: the form has none.
      counts, settings: entries of the result. remarks: for the user.
    """

    form: str
    joints: tuple[str, ...]
    images: np.ndarray
    prediction: np.ndarray
    target: np.ndarray
    visible: np.ndarray
    boxes: np.ndarray | None = None
    heads: np.ndarray | None = None
    areas: np.ndarray | None = None
    sigmas: tuple[float, ...] = ()
    excluded: tuple[int, ...] = ()
    matched: Matched | None = None
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def limbs(self) -> dict[str, tuple[int, int]]:
        """Name of each limb of PCP -> its two joints; those of which both are in the set."""
        found = {}
        place = {joint: index for index, joint in enumerate(self.joints)}
        for side in _SIDES:
            for upper, lower in _LIMBS:
                first, last = f"{side}_{upper}", f"{side}_{lower}"
                if first in place and last in place:
                    found[f"{side} {upper}-{lower}"] = (place[first], place[last])
        for name, first, last in (("torso", "hip", "thorax"), ("head", "neck", "head")):
            if first in place and last in place:
                found[name] = (place[first], place[last])
        return found

    @property
    def torso(self) -> tuple[int, int] | None:
        """PDJ's two joints, a shoulder and the hip of the other side."""
        shoulder, hip = "left_shoulder", "right_hip"
        if shoulder not in self.joints or hip not in self.joints:
            return None
        return self.joints.index(shoulder), self.joints.index(hip)

    def pck(self, sizes: np.ndarray, alpha: float, inclusive: bool = True):
        """Marks the joints within `alpha` sizes, and those that count; bool `[people, joints]`."""
        return keypoint_errors.pck_outcomes(
            self.prediction, self.target, np.nan_to_num(sizes), self.visible, alpha=alpha,
            inclusive=inclusive,
        )

    def pckh_area(self, heads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Computes the area under each joint's PCKh curve, and marks those that count."""
        curve = [self.pck(heads, alpha) for alpha in AUC_ALPHAS]
        return _area(np.array([correct for correct, _ in curve])), curve[0][1]

    def pdj(self, torso: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Marks the joints that are detected, and those that count."""
        sizes = keypoint_errors.torso_size(self.target, torso, self.visible)
        return self.pck(sizes, 0.2, inclusive=False)

    def pcp(
        self, limbs: Mapping[str, tuple[int, int]], strict: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Marks the limbs that are correct, and those that count; bool `[people, limbs]`."""
        return keypoint_errors.pcp_outcomes(
            self.prediction, self.target, list(limbs.values()), self.visible, strict=strict
        )

    def oks(self, areas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Computes OKS of each person, and marks who counts, `[people, 1]` each."""
        values = keypoint_errors.oks(
            self.prediction, self.target, areas, self.visible, sigmas=self.sigmas
        )[:, None]
        return values, ~np.isnan(values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeypointMetric(Metric):
    """A metric of 2D keypoints: the share of parts that are correct.

    Attributes:
      measure: people and the needed attribute -> correct and counted, `[people, parts]` each.
      needs: the attribute of `People` that it takes; people without it have no such metric.
      parts: "joint", "limb", or "" for whole people.
      excluding: whether the mean leaves out the joints that MPII leaves out.
      note: its definition, for the report.
    """

    measure: Callable[[People, Any], tuple[np.ndarray, np.ndarray]]
    needs: str
    parts: str = ""
    excluding: bool = False
    note: str = ""


METRICS = (
    KeypointMetric(
        name="pckh", title="PCKh@0.5", parts="joint", needs="heads", excluding=True,
        measure=lambda people, heads: people.pck(heads, 0.5), undefined="no joint counts",
        note="within 0.5 heads, a head being 0.6 times the diagonal of its box; pelvis and thorax "
             "are not in the mean (MPII)",
    ),
    KeypointMetric(
        name="pckh_auc", title="PCKh AUC", parts="joint", needs="heads", excluding=True,
        measure=People.pckh_area, undefined="no joint counts",
        note="area under PCKh over 0 to 0.5 heads, divided by 0.5",
    ),
    KeypointMetric(
        name="pck", title="PCK@0.2", parts="joint", needs="boxes",
        measure=lambda people, boxes: people.pck(boxes, 0.2), undefined="no joint counts",
        note="within 0.2 times the longer side of the person's box (MPII: 200 times scale)",
    ),
    KeypointMetric(
        name="pdj", title="PDJ@0.2", parts="joint", needs="torso",
        measure=People.pdj, undefined="no joint counts",
        note="within less than 0.2 times the distance of the left shoulder from the right hip",
    ),
    KeypointMetric(
        name="pcp", title="PCP", parts="limb", needs="limbs",
        measure=People.pcp, undefined="no limb counts",
        note="both ends of a limb within half its length; loose: the mean of both distances",
    ),
    KeypointMetric(
        name="pcp_loose", title="PCP loose", parts="limb", needs="limbs",
        measure=lambda people, limbs: people.pcp(limbs, strict=False), undefined="no limb counts",
    ),
    KeypointMetric(
        name="oks", title="OKS", needs="areas", measure=People.oks,
        undefined="nobody has a labelled joint and an area",
        note="mean over annotated people, 0 for those that were missed",
    ),
)


def outcomes(people: People) -> dict[KeypointMetric, Outcomes]:
    """Measures the `METRICS` for which people have the needed attribute."""
    found = {}
    for metric in METRICS:
        needed = getattr(people, metric.needs)
        if needed is not None and len(needed):
            values, counted = metric.measure(people, needed)
            found[metric] = Outcomes(np.where(counted, values, 0.0), counted.astype(np.float64))
    return found


def _area(curve: np.ndarray) -> np.ndarray:
    """Area under curves `[thresholds, ...]` by the trapezoidal rule, 1 where all are correct."""
    return np.trapezoid(curve.astype(np.float64), AUC_ALPHAS, axis=0) / AUC_ALPHAS[-1]


def share(of: Outcomes, parts: Sequence[int] | None = None) -> float:
    """Computes the share over all people and the given parts; NaN where nothing counts."""
    chosen = slice(None) if parts is None else list(parts)
    total = of.counts[:, chosen].sum()
    return float(of.sums[:, chosen].sum() / total) if total else math.nan


def bootstrap(
    columns: Sequence[tuple[np.ndarray, np.ndarray]],
    images: np.ndarray,
    resamples: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Computes shares of resamples of whole images, drawn with replacement.

    `columns` are for each share its sums and counts by person, `[people]` each.

    Returns:
      `[columns, resamples]`; NaN where nothing counts, and throughout for a share to which fewer
      than two images contribute.
    """
    groups = Groups.of(images)
    sums, counts = (
        np.stack([groups.sums(column) for column in of]) for of in zip(*columns, strict=True)
    )
    values = groups.resample(lambda drawn: ratio(sums @ drawn, counts @ drawn), resamples, seed)
    values[(counts > 0).sum(axis=1) < 2] = math.nan
    return values
