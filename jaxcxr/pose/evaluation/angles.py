"""Angles between the bones of 3D poses, and their errors."""

from collections.abc import Sequence

import numpy as np

from jaxcxr.pose.evaluation.averages import average_errors, joint_weights, known, weighted_mean


def bone_angles(parents: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    """The angles of a skeleton: every two bones that meet in a joint.

    Arguments:
      parents: index of each joint's parent, -1 for the root.

    Returns:
      Triples (end, corner, other end) of joints; 19 for the 17 joints of Human3.6M.
    """
    neighbours: list[list[int]] = [[] for _ in parents]
    for child, parent in enumerate(parents):
        if parent >= 0:
            neighbours[parent].append(child)
            neighbours[child].append(parent)
    return tuple(
        (around[i], corner, around[j])
        for corner, around in enumerate(neighbours)
        for i in range(len(around)) for j in range(i + 1, len(around))
    )


def joint_angles(poses: np.ndarray, angles: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Angles between bones.

    Arguments:
      poses: `[..., joints, 3]`.
      angles: triples (end, corner, other end), such as `bone_angles` gives.

    Returns:
      Degrees in [0, 180], `[..., angles]`; NaN where a bone has no length.
    """
    first, corner, last = np.array(angles).T
    one = poses[..., first, :] - poses[..., corner, :]
    other = poses[..., last, :] - poses[..., corner, :]
    across = np.linalg.norm(np.cross(one, other), axis=-1)
    along = np.einsum("...a,...a->...", one, other)
    # The arc tangent keeps its digits near 0 and 180 degrees, where the arc cosine loses half.
    degrees = np.degrees(np.arctan2(across, along))
    flat = (one == 0).all(axis=-1) | (other == 0).all(axis=-1)
    return np.where(flat, np.nan, degrees)


def mean_angle_error(
    prediction: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Mean absolute difference of angles, the short way round.

    Arguments:
      prediction: degrees `[...]`.
      target: degrees `[...]`.
      weights: `[...]`.

    Returns:
      Degrees in [0, 180]: the mean of |((d + 180) mod 360) - 180|.
    """
    difference = np.asarray(prediction, np.float64) - np.asarray(target, np.float64)
    return weighted_mean(np.abs((difference + 180.0) % 360.0 - 180.0), weights)


def angle_errors(
    prediction: np.ndarray,
    target: np.ndarray,
    angles: Sequence[tuple[int, int, int]],
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Absolute differences of the angles between bones, and their weights; see `mjae`.

    Returns:
      Degrees and weights, `[..., angles]` each.
    """
    prediction, target = np.asarray(prediction), np.asarray(target)
    there = joint_weights(weights, prediction.shape[:-1])
    there = np.ones(prediction.shape[:-1]) if there is None else there
    light = there[..., np.array(angles)].min(axis=-1)
    truth = joint_angles(target, angles)
    guess = joint_angles(prediction, angles)
    first, corner, last = np.array(angles).T
    here = known(prediction)
    finite = here[..., first] & here[..., corner] & here[..., last]
    guess = np.where(np.isnan(guess) & finite, 0.0, guess)
    there = known(target)
    boneless = np.isnan(truth) & there[..., first] & there[..., corner] & there[..., last]
    return np.abs(guess - truth), np.where(boneless, 0.0, light)


def mjae(
    prediction: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    angles: Sequence[tuple[int, int, int]],
    average: str = "frame",
    actions: Sequence[str] | None = None,
) -> float:
    """Mean joint angle error: absolute differences of the angles between bones.

    An angle of the target at a bone without length is left out; one of the prediction counts as 0
    degrees, so that a collapsed prediction gains nothing.

    Arguments:
      prediction: `[..., joints, 3]`, any unit.
      target: `[..., joints, 3]`.
      weights: an angle weighs as much as the lightest of its three joints.
      angles: triples (end, corner, other end), such as `bone_angles(parents)`.
      average, actions: as in `jaxcxr.pose.evaluation.pose_errors`.

    Returns:
      Degrees in [0, 180].
    """
    errors, light = angle_errors(prediction, target, angles, weights)
    return average_errors(errors, light, average, actions)
