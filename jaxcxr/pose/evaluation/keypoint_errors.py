"""Errors of 2D keypoints, NumPy only: PCP, PDJ, PCK, PCKh and OKS.

Every function takes predictions and targets `[..., joints, 2]` in pixels, one person per `[...]`.
`visible` `[..., joints]` is the mask of joints that are annotated, none: all whose target is
finite; the others never enter. A prediction that is not finite is a joint that was not found: it
counts as wrong. Shares are in [0, 1]; NaN where nothing is annotated.

`average="all"` is the share of all joints; "joint" is the share of each joint, then their
unweighted mean.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

# Standard deviations of COCO's 17 keypoints, as fractions of the square root of the area.
COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107,
    0.087, 0.087, 0.089, 0.089,
)
# MPII's annotated box of the head is larger than the head (`SC_BIAS` of its evaluation).
MPII_HEAD_FACTOR = 0.6


def _check(prediction, target, visible) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    prediction, target = np.asarray(prediction, np.float64), np.asarray(target, np.float64)
    if prediction.shape != target.shape or prediction.ndim < 2 or prediction.shape[-1] != 2:
        raise ValueError(
            f"prediction {prediction.shape} and target {target.shape} must have one shape "
            "[..., joints, 2]"
        )
    there = np.isfinite(target).all(axis=-1)
    if visible is not None:
        visible = np.asarray(visible)
        if visible.shape != there.shape:
            raise ValueError(f"visible {visible.shape} does not fit the joints {there.shape}")
        there = there & (visible > 0)
    return prediction, target, there


def _distances(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`[..., joints]`; infinite where the prediction is not finite."""
    distances = np.linalg.norm(prediction - target, axis=-1)
    return np.where(np.isfinite(distances), distances, np.inf)


def _within(distances, limits, inclusive: bool) -> np.ndarray:
    return distances <= limits if inclusive else distances < limits


def _share(correct: np.ndarray, counted: np.ndarray, average: str) -> float:
    """Share of counted joints that are correct, both `[..., joints]`."""
    axes = tuple(range(counted.ndim - 1))
    right, total = (correct & counted).sum(axis=axes), counted.sum(axis=axes)
    if average == "all":
        return float(right.sum() / total.sum()) if total.sum() else float("nan")
    if average != "joint":
        raise ValueError(f"average is {average!r}; 'all' and 'joint' are known")
    seen = total > 0
    return float(np.mean(right[seen] / total[seen])) if seen.any() else float("nan")


def box_size(boxes: np.ndarray) -> np.ndarray:
    """Computes the longer side `[...]` of boxes (x1, y1, x2, y2) `[..., 4]`, PCK's normaliser."""
    boxes = np.asarray(boxes, np.float64)
    return np.maximum(boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1])


def head_size(boxes: np.ndarray, factor: float = MPII_HEAD_FACTOR) -> np.ndarray:
    """PCKh's normaliser: a factor times the diagonal of head boxes, `[..., 4]` to `[...]`."""
    boxes = np.asarray(boxes, np.float64)
    return factor * np.linalg.norm(boxes[..., 2:] - boxes[..., :2], axis=-1)


def pck(
    prediction: np.ndarray,
    target: np.ndarray,
    normalizer: np.ndarray | float,
    visible: np.ndarray | None = None,
    *,
    average: str = "all",
    exclude: Sequence[int] = (),
    **how: Any,
) -> float:
    """Computes PCK, the share of keypoints correct by `pck_outcomes` (**how), without `exclude`.

    Source: Yang and Ramanan, "Articulated human detection with flexible mixtures of parts", 2013:
      alpha times the longer side of the box, not its diagonal.
    """
    near, there = pck_outcomes(prediction, target, normalizer, visible, **how)
    there[..., list(exclude)] = False
    return _share(near, there, average)


def pck_outcomes(
    prediction: np.ndarray,
    target: np.ndarray,
    normalizer: np.ndarray | float,
    visible: np.ndarray | None = None,
    *,
    alpha: float = 0.2,
    inclusive: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Marks the joints within `alpha * normalizer` of their target, and those that count.

    Arguments:
      normalizer: `[...]` or one number, pixels; usually `box_size` of the person's boxes. Where it
        is not positive there is no measure, and nothing is counted.
      inclusive: whether a distance of just the limit is correct.

    Returns:
      bool `[..., joints]` each.
    """
    prediction, target, there = _check(prediction, target, visible)
    size = np.broadcast_to(np.asarray(normalizer, np.float64), there.shape[:-1])
    there = there & (size > 0)[..., None]
    return _within(_distances(prediction, target), alpha * size[..., None], inclusive), there


def pckh(
    prediction: np.ndarray,
    target: np.ndarray,
    head_boxes: np.ndarray,
    visible: np.ndarray | None = None,
    *,
    alpha: float = 0.5,
    factor: float = MPII_HEAD_FACTOR,
    **how: Any,
) -> float:
    """Computes PCK by the size of the head, MPII's measure.

    MPII's own mean leaves out pelvis and thorax, `exclude=(6, 7)`, and is over all joints that are
    visible, `average="all"`.

    The head's size is `factor` times the diagonal of its box (x1, y1, x2, y2), `[..., 4]`.

    Source: Andriluka et al., "2D human pose estimation: new benchmark and state of the art
      analysis", 2014.
    """
    size = head_size(head_boxes, factor)
    return pck(prediction, target, size, visible, alpha=alpha, **how)


def pdj(
    prediction: np.ndarray,
    target: np.ndarray,
    torso: tuple[int, int],
    visible: np.ndarray | None = None,
    *,
    inclusive: bool = False,
    **how: Any,
) -> float:
    """Computes PDJ, the share of joints within `alpha` times the diameter of the torso.

    The torso is two joints of the target, a shoulder and the hip of the other side. A person of
    whom one is not annotated has no measure, and is left out.

    Source: Sapp and Taskar, "MODEC", 2013; Toshev and Szegedy, "DeepPose", 2014.
    """
    size = torso_size(target, torso, visible)
    return pck(prediction, target, size, visible, inclusive=inclusive, **how)


def torso_size(
    target: np.ndarray, torso: tuple[int, int], visible: np.ndarray | None = None
) -> np.ndarray:
    """PDJ's normaliser: the distance of two joints, `[...]`; 0 where one is not annotated."""
    _, target, there = _check(target, target, visible)
    first, last = torso
    diameter = np.linalg.norm(target[..., first, :] - target[..., last, :], axis=-1)
    return np.where(there[..., first] & there[..., last], diameter, 0.0)


def pcp(
    prediction: np.ndarray,
    target: np.ndarray,
    limbs: Sequence[tuple[int, int]],
    visible: np.ndarray | None = None,
    *,
    average: str = "all",
    **how: Any,
) -> float:
    """Computes PCP, the share of limbs correct by `pcp_outcomes` (**how).

    Source: Ferrari et al., "Progressive search space reduction for human pose estimation", 2008;
      both readings: Eichner et al., "2D articulated human pose estimation and retrieval", 2012.
    """
    return _share(*pcp_outcomes(prediction, target, limbs, visible, **how), average)


def pcp_outcomes(
    prediction: np.ndarray,
    target: np.ndarray,
    limbs: Sequence[tuple[int, int]],
    visible: np.ndarray | None = None,
    *,
    alpha: float = 0.5,
    strict: bool = True,
    inclusive: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Marks the limbs (pairs of joints) whose ends lie within `alpha` times their length.

    A limb counts where both its ends are visible. If `strict`, both ends must lie within the
    limit; else the mean of their distances must.

    Returns:
      Which are correct, and which count: bool `[..., limbs]` each.
    """
    prediction, target, there = _check(prediction, target, visible)
    first, last = np.array(limbs).T
    distances = _distances(prediction, target)
    one, other = distances[..., first], distances[..., last]
    length = np.linalg.norm(target[..., first, :] - target[..., last, :], axis=-1)
    error = np.maximum(one, other) if strict else (one + other) / 2
    counted = there[..., first] & there[..., last]
    return _within(error, alpha * length, inclusive), counted


def oks(
    prediction: np.ndarray,
    target: np.ndarray,
    area: np.ndarray | float,
    visible: np.ndarray | None = None,
    *,
    sigmas: Sequence[float] = COCO_SIGMAS,
) -> np.ndarray:
    """Computes OKS of each person: the mean of exp(-d^2 / (2 area (2 sigma)^2)).

    Arguments:
      area: of the person in square pixels, `[...]` or one number.
      sigmas: `[joints]`.

    Source: COCO's keypoint evaluation, https://cocodataset.org/#keypoints-eval.
    """
    prediction, target, there = _check(prediction, target, visible)
    if len(sigmas) != target.shape[-2]:
        raise ValueError(f"{len(sigmas)} sigmas do not fit {target.shape[-2]} joints")
    squares = _distances(prediction, target) ** 2
    area = np.asarray(area, np.float64)[..., None]
    similarity = np.exp(-squares / (2 * np.asarray(sigmas)) ** 2 / (area + np.spacing(1)) / 2)
    count = there.sum(axis=-1)
    total = np.where(there, similarity, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.where(count > 0, count, 1), np.nan)
