"""2D keypoint metrics of many figures: outcomes first, so that every group and resample is a sum.

A metric is a share of what counts: of joints, or of limbs (PCP). MPII's sets are scored by PCKh,
COCO's by OKS; where a figure has no box of the head, no torso or no area it does not count there.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from jaxcxr.pose.evaluation import keypoint_errors
from jaxcxr.statistics.intervals import Groups, ratio

METRICS = ("pckh", "pckh_auc", "pck", "pdj", "pcp", "pcp_loose", "oks")
OF_JOINTS = ("pckh", "pckh_auc", "pck", "pdj")
OF_LIMBS = ("pcp", "pcp_loose")
# MPII's area under the curve is over thresholds of 0 to half a head.
AUC_ALPHAS = tuple(np.linspace(0.0, 0.5, 51))


@dataclasses.dataclass(frozen=True, eq=False)
class Outcomes:
    """One metric of every figure.

    Attributes:
      sums: `[figures, parts]`, what is correct: 0 or 1, or a mean of several thresholds.
      counts: `[figures, parts]`, 1 where it counts, else 0.
    """

    sums: np.ndarray
    counts: np.ndarray


def outcomes(
    prediction: np.ndarray,
    target: np.ndarray,
    visible: np.ndarray,
    *,
    boxes: np.ndarray | None = None,
    heads: np.ndarray | None = None,
    areas: np.ndarray | None = None,
    torso: tuple[int, int] | None = None,
    limbs: Sequence[tuple[int, int]] = (),
    sigmas: Sequence[float] = (),
) -> dict[str, Outcomes]:
    """The metrics of `METRICS` that can be measured.

    Arguments:
      prediction: `[figures, joints, 2]`, pixels; not finite: not found, so wrong.
      target: `[figures, joints, 2]`.
      visible: `[figures, joints]`, whether the joint is annotated.
      boxes: `[figures]`, PCK's normaliser, pixels; NaN: none.
      heads: `[figures]`, PCKh's; NaN: none.
      areas: `[figures]`, square pixels, OKS's.
      torso: PDJ's two joints.
      limbs: PCP's pairs of joints.
      sigmas: OKS's, `[joints]`.

    Returns:
      Name -> outcomes at the thresholds that the metrics are known by, PCKh@0.5, PCK@0.2, PDJ@0.2
      and PCP at half a limb; parts are the joints, PCP's the limbs, OKS's the whole figure.
    """
    joints = (prediction, target)
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    if heads is not None:
        sizes = np.nan_to_num(heads)
        found["pckh"] = keypoint_errors.pck_outcomes(*joints, sizes, visible, alpha=0.5)
        curve = [keypoint_errors.pck_outcomes(*joints, sizes, visible, alpha=a)[0] for a in AUC_ALPHAS]
        found["pckh_auc"] = _area(np.array(curve)), found["pckh"][1]
    if boxes is not None:
        sizes = np.nan_to_num(boxes)
        found["pck"] = keypoint_errors.pck_outcomes(*joints, sizes, visible, alpha=0.2)
    if torso is not None:
        sizes = keypoint_errors.torso_size(target, torso, visible)
        found["pdj"] = keypoint_errors.pck_outcomes(
            *joints, sizes, visible, alpha=0.2, inclusive=False
        )
    if limbs:
        for name in OF_LIMBS:
            found[name] = keypoint_errors.pcp_outcomes(
                *joints, limbs, visible, alpha=0.5, strict=name == "pcp"
            )
    if areas is not None:
        values = keypoint_errors.oks(*joints, areas, visible, sigmas=sigmas)[:, None]
        found["oks"] = values, ~np.isnan(values)
    return {
        name: Outcomes(np.where(counted, values, 0.0), counted.astype(np.float64))
        for name, (values, counted) in found.items()
    }


def _area(curve: np.ndarray) -> np.ndarray:
    """Area under curves `[thresholds, ...]` by the trapezoidal rule, 1 where all are correct."""
    return np.trapezoid(curve.astype(np.float64), AUC_ALPHAS, axis=0) / AUC_ALPHAS[-1]


def share(of: Outcomes, parts: Sequence[int] | None = None) -> float:
    """The share over all figures and the parts named; NaN where nothing counts."""
    parts = slice(None) if parts is None else list(parts)
    total = of.counts[:, parts].sum()
    return float(of.sums[:, parts].sum() / total) if total else math.nan


def bootstrap(
    columns: Sequence[tuple[np.ndarray, np.ndarray]],
    images: np.ndarray,
    resamples: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Shares of resamples of whole images, drawn with replacement.

    Arguments:
      columns: for each share its sums and counts by figure, `[figures]` each.
      images: `[figures]`, the image of each; those of one are drawn together.
      resamples, seed: see `intervals.Groups.resample`.

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
