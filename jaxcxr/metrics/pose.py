"""Errors of estimated 3D poses, NumPy only.

Every function takes predictions and targets `[..., joints, 3]` in one unit and answers in it
(millimetres in, millimetres out). `weights`, where taken, has the shape `[...]` of the frames: a
bool mask of real frames or any non-negative weights; a frame of weight 0 never enters, whatever it
holds. The root joint is neither set to zero nor left out (VideoPose3D's convention).
"""

from collections.abc import Mapping, Sequence

import numpy as np


def _check(prediction: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    prediction, target = np.asarray(prediction, np.float64), np.asarray(target, np.float64)
    if prediction.shape != target.shape or prediction.ndim < 2 or prediction.shape[-1] != 3:
        raise ValueError(
            f"prediction {prediction.shape} and target {target.shape} must have one shape "
            "[..., joints, 3]"
        )
    return prediction, target


def weighted_mean(values: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean of frame values over the frames of positive weight.

    Arguments:
      values: `[...]`, one number per frame.
      weights: `[...]` mask or weights of the same shape; none: all frames alike.

    Returns:
      The mean; NaN if no frame has weight.
    """
    values = np.asarray(values, np.float64)
    if weights is None:
        return float(values.mean()) if values.size else float("nan")
    weights = np.asarray(weights, np.float64)
    if weights.shape != values.shape:
        raise ValueError(f"weights {weights.shape} do not fit the frames {values.shape}")
    used = weights > 0
    if not used.any():
        return float("nan")
    return float(np.average(values[used], weights=weights[used]))


def joint_errors(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Distance of each joint from its target.

    Arguments:
      prediction: `[..., joints, 3]`.
      target: `[..., joints, 3]`.

    Returns:
      `[..., joints]`.
    """
    prediction, target = _check(prediction, target)
    return np.linalg.norm(prediction - target, axis=-1)


def frame_errors(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Mean joint distance of each frame, `[..., joints, 3]` to `[...]`."""
    return joint_errors(prediction, target).mean(axis=-1)


def mpjpe(
    prediction: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Mean per-joint position error (protocol 1 of Human3.6M).

    Arguments:
      prediction: `[..., joints, 3]`.
      target: `[..., joints, 3]`.
      weights: frames' mask or weights `[...]`.

    Returns:
      The mean over joints and frames; NaN if no frame has weight.

    Source: Ionescu et al., Human3.6M, 2014, eq. 8.
    """
    return weighted_mean(frame_errors(prediction, target), weights)


def per_joint(
    prediction: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Mean position error of each joint over frames, `[..., joints, 3]` to `[joints]`."""
    errors = joint_errors(prediction, target)
    return np.array([weighted_mean(errors[..., j], weights) for j in range(errors.shape[-1])])


def procrustes(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Each frame's prediction moved by the similarity that brings it nearest to the target.

    Rotation, translation and scale, never a reflection. A collapsed prediction (all joints in one
    point) is moved onto the target's centroid.

    Arguments:
      prediction: `[..., joints, 3]`.
      target: `[..., joints, 3]`.

    Returns:
      `[..., joints, 3]`.

    Source: Umeyama, "Least-squares estimation of transformation parameters", 1991, eq. 40-42.
    """
    prediction, target = _check(prediction, target)
    center = target.mean(axis=-2, keepdims=True)
    moving = prediction - prediction.mean(axis=-2, keepdims=True)
    fixed = target - center
    u, singular, vt = np.linalg.svd(np.swapaxes(fixed, -1, -2) @ moving)
    signs = np.ones_like(singular)
    signs[..., 2] = np.where(np.linalg.det(u @ vt) < 0, -1.0, 1.0)
    rotation = (u * signs[..., None, :]) @ vt
    spread = np.sum(moving**2, axis=(-2, -1))
    size = np.sum(prediction**2, axis=(-2, -1))
    # Rounding leaves about 1e-32 of the squared size in a collapsed pose: that is no shape.
    collapsed = spread <= 1e-24 * size
    scale = np.where(
        collapsed, 0.0, np.sum(singular * signs, axis=-1) / np.where(collapsed, 1.0, spread)
    )
    return scale[..., None, None] * (moving @ np.swapaxes(rotation, -1, -2)) + center


def p_mpjpe(
    prediction: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """MPJPE after rigid alignment with scale of each frame (protocol 2 of Human3.6M).

    Arguments, shapes and result as in `mpjpe`; the alignment is `procrustes`.
    """
    prediction, target = _check(prediction, target)
    if weights is not None:
        # A padding frame may hold NaN, on which the decomposition fails.
        used = (np.asarray(weights) > 0)[..., None, None]
        prediction, target = np.where(used, prediction, 0.0), np.where(used, target, 0.0)
    return mpjpe(procrustes(prediction, target), target, weights)


def n_mpjpe(
    prediction: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """MPJPE after each frame's prediction took its best scale, `<p, t> / <p, p>`.

    Arguments, shapes and result as in `mpjpe`. A prediction of zeros keeps the scale 0.

    Source: Rhodin et al., "Unsupervised geometry-aware representation", 2018.
    """
    prediction, target = _check(prediction, target)
    power = np.sum(prediction**2, axis=(-2, -1), keepdims=True)
    match = np.sum(prediction * target, axis=(-2, -1), keepdims=True)
    scale = np.where(power > 0, match / np.where(power > 0, power, 1.0), 0.0)
    return mpjpe(scale * prediction, target, weights)


def mpjve(
    prediction: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    fps: float | None = None,
) -> float:
    """Mean per-joint velocity error: MPJPE of the differences between neighbouring frames.

    Arguments:
      prediction: `[..., frames, joints, 3]`; frames of one sequence stand in order.
      target: `[..., frames, joints, 3]`.
      weights: `[..., frames]`; a difference weighs as much as the lighter of its two frames.
      fps: frames per second, for an answer per second; none: per frame.

    Returns:
      Unit per frame, or unit per second; NaN if no two neighbours have weight.

    Source: Pavllo et al., VideoPose3D, 2019, section 4.
    """
    prediction, target = _check(prediction, target)
    if prediction.ndim < 3:
        raise ValueError(f"velocity needs [..., frames, joints, 3], got {prediction.shape}")
    if weights is not None:
        weights = np.asarray(weights, np.float64)
        weights = np.minimum(weights[..., 1:], weights[..., :-1])
    error = mpjpe(np.diff(prediction, axis=-3), np.diff(target, axis=-3), weights)
    return error * (1.0 if fps is None else fps)


def by_action(
    errors: np.ndarray, actions: Sequence[str], weights: np.ndarray | None = None
) -> Mapping[str, float]:
    """Mean of frame errors within each action.

    Arguments:
      errors: one error per frame, `[frames]`.
      actions: the action of each frame, `[frames]`.
      weights: `[frames]`.

    Returns:
      Action to mean error, in alphabetic order. `action_mean` of it is the number that papers
      report for Human3.6M; `weighted_mean(errors, weights)` is the frame mean.
    """
    actions = np.asarray(actions)
    errors = np.asarray(errors)
    weights = np.ones(errors.shape) if weights is None else np.asarray(weights)
    return {
        str(name): weighted_mean(errors[actions == name], weights[actions == name])
        for name in np.unique(actions)
    }


def action_mean(means: Mapping[str, float]) -> float:
    """Unweighted mean of the actions' means; an action without a frame (NaN) is left out."""
    values = [value for value in means.values() if not np.isnan(value)]
    return float(np.mean(values)) if values else float("nan")
