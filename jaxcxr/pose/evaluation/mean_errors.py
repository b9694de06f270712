"""Mean errors of estimated 3D poses by the conventions of the literature: MPJPE and its kin.

Every function takes predictions and targets `[..., joints, 3]` in one unit and answers in it
(millimetres in, millimetres out); NaN where nothing has weight. What the literature does in several
ways is a named argument:

- `weights`: `[...]` for frames or `[..., joints]` for joints: a bool mask of what is known or any
  non-negative weights. What has weight 0 never enters, whatever it holds; `pose_errors.known` is
  the mask of joints that are there. A NaN that has weight makes the answer NaN: a missing joint is
  never left out silently.
- `root`: None compares the poses as they are (VideoPose3D, PoseFormer, MixSTE); an index, or
  several whose middle is the root, first makes both relative to it (MotionBERT). With
  `root_rule="zero"` the predicted root is set to zero instead, and the others stay (MHFormer).
- `average`: "frame" takes the mean over all joints and frames; "action" that of each action of
  `actions` (`[...]`, one name per frame), and then the unweighted mean of these: the number that
  papers report for Human3.6M.
- `fps`: frames per second, for velocities per second; None answers per frame.
- `inclusive`: whether a distance that equals the threshold is correct.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict, Unpack

import numpy as np

from jaxcxr.pose.evaluation import pose_errors
from jaxcxr.pose.evaluation.pose_errors import joint_errors, joint_weights, known


class Convention(TypedDict, total=False):
    """Root, root rule and average, see the module."""

    root: int | Sequence[int] | None
    root_rule: str
    average: str
    actions: Sequence[str] | np.ndarray | None


def weighted_mean(values: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Computes the mean of values of positive weight, all alike without weights."""
    values = np.asarray(values, np.float64)
    if weights is None:
        return float(values.mean()) if values.size else float("nan")
    weights = np.asarray(weights, np.float64)
    if weights.shape != values.shape:
        raise ValueError(f"weights {weights.shape} do not fit the frames {values.shape}")
    used = weights > 0
    return float(np.average(values[used], weights=weights[used])) if used.any() else float("nan")


def by_action(
    errors: np.ndarray, actions: Sequence[str], weights: np.ndarray | None = None
) -> Mapping[str, float]:
    """Computes the mean of errors within each action.

    Arguments:
      errors: `[frames]` or `[frames, joints]`.
      actions: the action of each frame, `[frames]`.
      weights: of the shape of the errors.

    Returns:
      Action to mean error, in alphabetic order, for `action_mean`.
    """
    names, errors = np.asarray(actions), np.asarray(errors)
    weights = np.ones(errors.shape) if weights is None else np.asarray(weights)
    return {
        str(name): weighted_mean(errors[names == name], weights[names == name])
        for name in np.unique(names)
    }


def action_mean(means: Mapping[str, float]) -> float:
    """Computes the unweighted mean of the actions' means, leaving out those without a frame."""
    values = [value for value in means.values() if not np.isnan(value)]
    return float(np.mean(values)) if values else float("nan")


def average_errors(errors, weights, average: str = "frame", actions=None) -> float:
    """Computes the mean of errors `[..., joints]`, over frames or over actions."""
    weights = joint_weights(weights, errors.shape)
    if average == "frame":
        return weighted_mean(errors, weights)
    if average != "action":
        raise ValueError(f"average is {average!r}; 'frame' and 'action' are known")
    if actions is None:
        raise ValueError("average='action' needs the actions of the frames")
    actions = np.broadcast_to(np.asarray(actions), errors.shape[:-1])
    return action_mean(by_action(errors, actions, weights))


def _compared(
    prediction, target, root=None, root_rule="subtract", average="frame", actions=None
) -> tuple[np.ndarray, np.ndarray, Callable[..., float]]:
    """Poses as a convention compares them, and its mean of errors and weights."""
    prediction, target = pose_errors.check_poses(prediction, target)
    mean = functools.partial(average_errors, average=average, actions=actions)
    if root_rule not in ("subtract", "zero"):
        raise ValueError(f"root_rule is {root_rule!r}; 'subtract' and 'zero' are known")
    if root is None:
        return prediction, target, mean
    prediction, target = prediction.astype(np.float64), target.astype(np.float64)
    if root_rule == "subtract":
        prediction = pose_errors.centered(prediction, root)
    else:
        prediction[..., root, :] = 0.0
    return prediction, pose_errors.centered(target, root), mean


def mpjpe(
    prediction: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    **how: Unpack[Convention],
) -> float:
    """Computes the mean per-joint position error (protocol 1 of Human3.6M).

    Source: Ionescu et al., Human3.6M, 2014, eq. 8.
    """
    prediction, target, mean = _compared(prediction, target, **how)
    return mean(joint_errors(prediction, target), weights)


def per_joint(
    prediction: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Computes the mean position error of each joint over frames, `[joints]`."""
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
    """Computes MPJPE after `procrustes` of each frame (protocol 2 of Human3.6M)."""
    prediction, target, mean = _compared(
        prediction, target, average=average, actions=actions
    )
    weights = joint_weights(weights, prediction.shape[:-1])
    return mean(joint_errors(_aligned(prediction, target, weights), target), weights)


def _aligned(prediction, target, weights) -> np.ndarray:
    # The decomposition fails on a NaN; put back afterwards, a NaN that has weight still shows.
    if np.isfinite(prediction).all() and np.isfinite(target).all():
        return pose_errors.procrustes(prediction, target, weights)
    there = known(prediction) & known(target)
    there = there if weights is None else there & (weights > 0)
    fit = there.astype(np.float64) if weights is None else np.where(there, weights, 0.0)
    return np.where(there[..., None], pose_errors.procrustes(prediction, target, fit), np.nan)


def n_mpjpe(
    prediction: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    **how: Unpack[Convention],
) -> float:
    """Computes MPJPE after `best_scale` of each frame's prediction about the origin."""
    prediction, target, mean = _compared(prediction, target, **how)
    weights = joint_weights(weights, prediction.shape[:-1])
    return mean(joint_errors(pose_errors.best_scale(prediction, target, weights), target), weights)


def mpjve(
    prediction: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    fps: float | None = None,
    *,
    sequences: Sequence[str] | None = None,
    **how: Unpack[Convention],
) -> float:
    """Computes the mean per-joint velocity error: MPJPE of differences of neighbouring frames.

    Papers print it in millimetres per frame, at the frame rate of the data set; with `fps` it is
    in millimetres per second, and comparable between frame rates.

    Arguments:
      prediction, target: `[..., frames, joints, 3]`; frames of one sequence stand in order.
      weights, sequences: see `pose_errors.difference_errors`.
      fps, **how: see the module.

    Source: Pavllo et al., VideoPose3D, 2019, section 4.
    """
    mean = _mean_difference(prediction, target, weights, sequences, 1, how)
    return mean * (1.0 if fps is None else fps)


def acceleration_error(
    prediction: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    fps: float | None = None,
    *,
    sequences: Sequence[str] | None = None,
    **how: Unpack[Convention],
) -> float:
    """Computes the mean distance between second differences along time; arguments as in `mpjve`.

    Source: Kanazawa et al., "Learning 3D human dynamics from video", 2019.
    """
    mean = _mean_difference(prediction, target, weights, sequences, 2, how)
    return mean * (1.0 if fps is None else fps**2)


def _mean_difference(prediction, target, weights, sequences, order: int, how) -> float:
    prediction, target, mean = _compared(prediction, target, **how)
    errors, light = pose_errors.difference_errors(prediction, target, weights, sequences, order)
    actions = how.get("actions")
    if actions is not None:
        actions = np.asarray(actions)
        # The action of the later frame; within one sequence it is one and the same.
        actions = actions if actions.ndim == 0 else actions[..., -errors.shape[-2] or None :]
    return mean(errors, light, actions=actions)


def pck3d(
    prediction: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    threshold: float = pose_errors.PCK3D_THRESHOLD,
    inclusive: bool = True,
    **how: Unpack[Convention],
) -> float:
    """Computes the share of joints nearer to their target than a threshold, 3DPCK.

    The usual threshold is 150 mm, about half a head. MPI-INF-3DHP's own evaluation counts with <,
    not `inclusive`.

    Source: Mehta et al., "Monocular 3D human pose estimation in the wild", 2017 (MPI-INF-3DHP).
    """
    return auc3d(prediction, target, weights, thresholds=(threshold,), inclusive=inclusive, **how)


def auc3d(
    prediction: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    thresholds: Sequence[float] = pose_errors.AUC3D_THRESHOLDS,
    inclusive: bool = True,
    **how: Unpack[Convention],
) -> float:
    """Computes the mean of 3DPCK over thresholds of 0, 5, ... 150 mm, the area under its curve.

    With `inclusive=False`, as MPI-INF-3DHP's own evaluation counts, nothing is nearer than the
    first threshold of 0 mm, and a perfect prediction scores 30 / 31.
    """
    prediction, target, mean = _compared(prediction, target, **how)
    errors = joint_errors(prediction, target)
    return mean(pose_errors.share_within(errors, thresholds, inclusive), weights)


def mean_angle_error(
    prediction: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Computes the mean of |((d + 180) mod 360) - 180| of differences of degrees `[...]`."""
    difference = np.asarray(prediction, np.float64) - np.asarray(target, np.float64)
    return weighted_mean(np.abs((difference + 180.0) % 360.0 - 180.0), weights)


def mjae(
    prediction: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    angles: Sequence[tuple[int, int, int]],
    average: str = "frame",
    actions: Sequence[str] | None = None,
) -> float:
    """Computes the mean joint angle error, degrees, see `pose_errors.angle_errors`."""
    errors, light = pose_errors.angle_errors(prediction, target, angles, weights)
    return average_errors(errors, light, average, actions)
