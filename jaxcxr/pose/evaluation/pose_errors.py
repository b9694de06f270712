"""Computes errors of estimated 3D poses, with NumPy only; `keypoint_errors` has those in 2D.

Every function takes predictions and targets `[..., joints, 3]` in one unit and answers in it
(millimetres in, millimetres out).

What the literature does in several ways is a named argument:

- `weights`: `[...]` for frames or `[..., joints]` for joints: a bool mask of what is known or any
  non-negative weights. What has weight 0 never enters, whatever it holds; `known(target)` is the
  mask of joints that are there. A NaN that has weight makes the answer NaN: a missing joint is
  never left out silently.
- `root`: none compares the poses as they are (VideoPose3D, PoseFormer, MixSTE); an index, or
  several whose middle is the root, first makes both relative to it (MotionBERT). With
  `root_rule="zero"` the predicted root is set to zero instead, and the others stay (MHFormer).
- `average`: "frame" takes the mean over all joints and frames; "action" that of each action of
  `actions` (`[...]`, one name per frame), and then the unweighted mean of these: the number that
  papers report for Human3.6M.
- `fps`: frames per second, for velocities per second; none answers per frame.
- `inclusive`: whether a distance that equals the threshold is correct.
"""

from collections.abc import Sequence

import numpy as np

from jaxcxr.pose.evaluation.alignment import BLOCK, best_scale, centered, procrustes
from jaxcxr.pose.evaluation.angles import (
    angle_errors,
    bone_angles,
    joint_angles,
    mean_angle_error,
    mjae,
)
from jaxcxr.pose.evaluation.averages import (
    action_mean,
    average_errors,
    by_action,
    joint_weights,
    known,
    weighted_mean,
)
from jaxcxr.pose.evaluation.keypoint_ap import keypoint_average_precision
from jaxcxr.pose.evaluation.keypoint_errors import oks, pck, pckh, pcp, pdj

__all__ = [
    "acceleration_error", "action_mean", "angle_errors", "auc3d", "best_scale", "bone_angles",
    "by_action", "centered", "difference_errors", "frame_errors", "joint_angles", "joint_errors",
    "keypoint_average_precision", "known", "mean_angle_error", "mjae", "mpjpe", "mpjve", "n_mpjpe",
    "oks", "p_mpjpe", "pck", "pck3d", "pckh", "pcp", "pdj", "per_joint", "procrustes",
    "share_within",
    "weighted_mean",
]

# Millimetres: 3DPCK's distance and the 31 distances of its area under the curve.
PCK3D_THRESHOLD = 150.0
AUC3D_THRESHOLDS = tuple(np.arange(0.0, 151.0, 5.0))


def _check(prediction: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    prediction, target = np.asarray(prediction), np.asarray(target)
    if prediction.shape != target.shape or prediction.ndim < 2 or prediction.shape[-1] != 3:
        raise ValueError(
            f"prediction {prediction.shape} and target {target.shape} must have one shape "
            "[..., joints, 3]"
        )
    return prediction, target


def _rooted(prediction, target, root, root_rule: str) -> tuple[np.ndarray, np.ndarray]:
    prediction, target = _check(prediction, target)
    if root_rule not in ("subtract", "zero"):
        raise ValueError(f"root_rule is {root_rule!r}; 'subtract' and 'zero' are known")
    if root is None:
        return prediction, target
    prediction, target = prediction.astype(np.float64), target.astype(np.float64)
    if root_rule == "subtract":
        return centered(prediction, root), centered(target, root)
    prediction[..., root, :] = 0.0
    return prediction, centered(target, root)


def joint_errors(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Distance of each joint from its target.

    Arguments:
      prediction: `[..., joints, 3]`.
      target: `[..., joints, 3]`.

    Returns:
      `[..., joints]`.
    """
    prediction, target = _check(prediction, target)
    shape = prediction.shape
    return _difference_lengths(
        prediction.reshape(1, -1, *shape[-2:]), target.reshape(1, -1, *shape[-2:]), 0
    ).reshape(shape[:-1])


def _difference_lengths(prediction, target, order: int) -> np.ndarray:
    """`[sequences, frames, joints, 3]` to `[sequences, frames - order, joints]`.

    Block by block, so that the differences stay in the processor's cache.
    """
    count = max(prediction.shape[1] - order, 0)
    result = np.empty((len(prediction), count, prediction.shape[2]))
    for one, other, out in zip(prediction, target, result, strict=True):
        for start in range(0, count, BLOCK):
            part = slice(start, start + BLOCK + order)
            difference = np.subtract(one[part], other[part], dtype=np.float64)
            difference = np.diff(difference, order, axis=0)
            squares = np.einsum("nja,nja->nj", difference, difference)
            np.sqrt(squares, out=out[start : start + BLOCK])
    return result


def frame_errors(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Mean joint distance of each frame, `[..., joints, 3]` to `[...]`."""
    return joint_errors(prediction, target).mean(axis=-1)


def mpjpe(
    prediction: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    root: int | Sequence[int] | None = None,
    root_rule: str = "subtract",
    average: str = "frame",
    actions: Sequence[str] | None = None,
) -> float:
    """Mean per-joint position error (protocol 1 of Human3.6M).

    Arguments:
      prediction: `[..., joints, 3]`.
      target: `[..., joints, 3]`.
      weights, root, root_rule, average, actions: see the module.

    Returns:
      The mean over joints and frames; NaN if nothing has weight.

    Source: Ionescu et al., Human3.6M, 2014, eq. 8.
    """
    prediction, target = _rooted(prediction, target, root, root_rule)
    return average_errors(joint_errors(prediction, target), weights, average, actions)


def per_joint(
    prediction: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Mean position error of each joint over frames, `[..., joints, 3]` to `[joints]`."""
    errors = joint_errors(prediction, target)
    weights = joint_weights(weights, errors.shape)
    return np.array([
        weighted_mean(errors[..., j], None if weights is None else weights[..., j])
        for j in range(errors.shape[-1])
    ])


def p_mpjpe(
    prediction: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    average: str = "frame",
    actions: Sequence[str] | None = None,
) -> float:
    """MPJPE after the similarity that fits each frame best (protocol 2 of Human3.6M).

    Rotation, translation and scale, no reflection: `procrustes`, in which joints of weight 0 take
    no part. Arguments, shapes and result as in `mpjpe`; the root makes no difference.
    """
    prediction, target = _check(prediction, target)
    weights = joint_weights(weights, prediction.shape[:-1])
    errors = joint_errors(_aligned(prediction, target, weights), target)
    return average_errors(errors, weights, average, actions)


def _aligned(prediction, target, weights) -> np.ndarray:
    # The decomposition fails on a NaN; put back afterwards, a NaN that has weight still shows.
    if np.isfinite(prediction).all() and np.isfinite(target).all():
        return procrustes(prediction, target, weights)
    there = known(prediction) & known(target)
    there = there if weights is None else there & (weights > 0)
    fit = there.astype(np.float64) if weights is None else np.where(there, weights, 0.0)
    return np.where(there[..., None], procrustes(prediction, target, fit), np.nan)


def n_mpjpe(
    prediction: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    root: int | Sequence[int] | None = None,
    root_rule: str = "subtract",
    average: str = "frame",
    actions: Sequence[str] | None = None,
) -> float:
    """MPJPE after each frame's prediction took its best scale, and nothing else.

    Arguments, shapes and result as in `mpjpe`; the scale is `best_scale`, about the origin.

    Source: Rhodin et al., "Unsupervised geometry-aware representation", 2018.
    """
    prediction, target = _rooted(prediction, target, root, root_rule)
    weights = joint_weights(weights, prediction.shape[:-1])
    errors = joint_errors(best_scale(prediction, target, weights), target)
    return average_errors(errors, weights, average, actions)


def difference_errors(
    prediction: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    sequences: np.ndarray | Sequence[str] | None = None,
    order: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Distances between differences along time.

    Arguments:
      prediction: `[..., frames, joints, 3]`; frames of one sequence stand in order.
      target: `[..., frames, joints, 3]`.
      weights: `[..., frames]` or `[..., frames, joints]`; a difference weighs as much as the
        lightest of its frames.
      sequences: `[..., frames]`, names of sequences that stand one behind the other: no difference
        is taken across their borders.
      order: 1 for velocities, 2 for accelerations.

    Returns:
      Errors and weights, `[..., frames - order, joints]`, in unit per frame ** order.
    """
    prediction, target = _check(prediction, target)
    if prediction.ndim < 3:
        raise ValueError(f"velocity needs [..., frames, joints, 3], got {prediction.shape}")
    weights = joint_weights(weights, prediction.shape[:-1])
    weights = np.ones(prediction.shape[:-1]) if weights is None else weights
    count = max(prediction.shape[-3] - order, 0)
    light = weights[..., :count, :]
    for step in range(1, order + 1):
        light = np.minimum(light, weights[..., step : step + count, :])
    if sequences is not None:
        names = np.broadcast_to(np.asarray(sequences), prediction.shape[:-2])
        same = names[..., :count] == names[..., order : order + count]
        light = np.where(same[..., None], light, 0.0)
    shape = prediction.shape
    errors = _difference_lengths(
        prediction.reshape(-1, *shape[-3:]), target.reshape(-1, *shape[-3:]), order
    )
    return errors.reshape(*shape[:-3], count, shape[-2]), light


def mpjve(
    prediction: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    fps: float | None = None,
    *,
    sequences: Sequence[str] | None = None,
    root: int | Sequence[int] | None = None,
    root_rule: str = "subtract",
    average: str = "frame",
    actions: Sequence[str] | None = None,
) -> float:
    """Mean per-joint velocity error: MPJPE of the differences between neighbouring frames.

    Papers print it in millimetres per frame, at the frame rate of the data set; with `fps` it is
    in millimetres per second, and comparable between frame rates.

    Arguments:
      prediction: `[..., frames, joints, 3]`; frames of one sequence stand in order.
      target: `[..., frames, joints, 3]`.
      weights, sequences: see `difference_errors`.
      fps, root, root_rule, average, actions: see the module.

    Returns:
      Unit per frame, or unit per second; NaN if no two neighbours have weight.

    Source: Pavllo et al., VideoPose3D, 2019, section 4.
    """
    prediction, target = _rooted(prediction, target, root, root_rule)
    errors, light = difference_errors(prediction, target, weights, sequences)
    return _average_differences(errors, light, average, actions) * (1.0 if fps is None else fps)


def acceleration_error(
    prediction: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    fps: float | None = None,
    *,
    sequences: Sequence[str] | None = None,
    root: int | Sequence[int] | None = None,
    root_rule: str = "subtract",
    average: str = "frame",
    actions: Sequence[str] | None = None,
) -> float:
    """Mean distance between the second differences along time.

    Arguments and shapes as in `mpjve`.

    Returns:
      Unit per frame squared, or with `fps` unit per second squared; NaN if no three neighbours
      have weight.

    Source: Kanazawa et al., "Learning 3D human dynamics from video", 2019.
    """
    prediction, target = _rooted(prediction, target, root, root_rule)
    errors, light = difference_errors(prediction, target, weights, sequences, order=2)
    mean = _average_differences(errors, light, average, actions)
    return mean * (1.0 if fps is None else fps**2)


def _average_differences(errors, light, average, actions) -> float:
    if actions is not None:
        actions = np.asarray(actions)
        # The action of the later frame; within one sequence it is one and the same.
        actions = actions if actions.ndim == 0 else actions[..., -errors.shape[-2] or None :]
    return average_errors(errors, light, average, actions)


def pck3d(
    prediction: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    threshold: float = PCK3D_THRESHOLD,
    inclusive: bool = True,
    root: int | Sequence[int] | None = None,
    root_rule: str = "subtract",
    average: str = "frame",
    actions: Sequence[str] | None = None,
) -> float:
    """Share of joints nearer to their target than a threshold, 3DPCK.

    Arguments:
      prediction: `[..., joints, 3]`, in millimetres for the usual threshold.
      target: `[..., joints, 3]`.
      threshold: 150 mm, about half a head.
      inclusive: false for the `<` of MPI-INF-3DHP's own evaluation.
      weights, root, root_rule, average, actions: see the module.

    Returns:
      A share in [0, 1].

    Source: Mehta et al., "Monocular 3D human pose estimation in the wild", 2017 (MPI-INF-3DHP).
    """
    prediction, target = _rooted(prediction, target, root, root_rule)
    hits = share_within(joint_errors(prediction, target), (threshold,), inclusive)
    return average_errors(hits, weights, average, actions)


def auc3d(
    prediction: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    thresholds: Sequence[float] = AUC3D_THRESHOLDS,
    inclusive: bool = True,
    root: int | Sequence[int] | None = None,
    root_rule: str = "subtract",
    average: str = "frame",
    actions: Sequence[str] | None = None,
) -> float:
    """Mean of 3DPCK over thresholds, the area under its curve.

    With `inclusive=False`, as MPI-INF-3DHP's own evaluation counts, nothing is nearer than the
    first threshold of 0 mm, and a perfect prediction scores 30 / 31.

    Arguments and source as in `pck3d`; `thresholds` are 0, 5, ... 150 mm.

    Returns:
      A share in [0, 1].
    """
    prediction, target = _rooted(prediction, target, root, root_rule)
    hits = share_within(joint_errors(prediction, target), thresholds, inclusive)
    return average_errors(hits, weights, average, actions)


def share_within(
    errors: np.ndarray, thresholds: Sequence[float], inclusive: bool = True
) -> np.ndarray:
    """Share of the thresholds that each distance keeps, `[...]` to `[...]`; NaN stays NaN."""
    limits = np.sort(np.asarray(thresholds, np.float64))
    below = np.searchsorted(limits, errors, side="left" if inclusive else "right")
    return np.where(np.isnan(errors), np.nan, (len(limits) - below) / len(limits))


