"""Errors of estimated 3D poses for each frame and joint, and the fits before them, in NumPy.

Poses are `[..., joints, 3]` in one unit, in which errors come out. `weights` are those of frames
`[...]` or of joints `[..., joints]`: a mask of what is known, or any non-negative numbers. What has
weight 0 takes no part, whatever it holds. `mean_errors` has the means.
"""

import itertools
from collections.abc import Sequence

import numpy as np

# Millimetres: 3DPCK's distance and the 31 distances of its area under the curve.
PCK3D_THRESHOLD = 150.0
AUC3D_THRESHOLDS = tuple(np.arange(0.0, 151.0, 5.0))
_BLOCK = 4096  # frames treated at once: their arrays stay in the processor's cache
# Rounding leaves about 1e-32 of the squared size in a collapsed pose: that is no shape.
_NO_SHAPE = 1e-24


def check_poses(prediction: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns both as arrays; raises a ValueError unless they have one shape of poses."""
    prediction, target = np.asarray(prediction), np.asarray(target)
    if prediction.shape != target.shape or prediction.ndim < 2 or prediction.shape[-1] != 3:
        raise ValueError(
            f"prediction {prediction.shape} and target {target.shape} must have one shape "
            "[..., joints, 3]"
        )
    return prediction, target


def known(poses: np.ndarray) -> np.ndarray:
    """Marks finite joints: `[..., joints, dimensions]` to bool `[..., joints]`."""
    return np.isfinite(poses).all(axis=-1)


def joint_weights(weights, shape: tuple[int, ...]) -> np.ndarray | None:
    """Spreads weights of frames or joints over joints `[..., joints]`; None stays None."""
    if weights is None:
        return None
    weights = np.asarray(weights, np.float64)
    if weights.shape == shape:
        return weights
    if weights.shape != shape[:-1]:
        raise ValueError(f"weights {weights.shape} do not fit the frames {shape[:-1]}")
    return np.broadcast_to(weights[..., None], shape)


def joint_errors(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Computes the distance of each joint from its target, `[..., joints]`."""
    prediction, target = check_poses(prediction, target)
    shape = prediction.shape
    return _difference_lengths(
        prediction.reshape(1, -1, *shape[-2:]), target.reshape(1, -1, *shape[-2:]), 0
    ).reshape(shape[:-1])


def _difference_lengths(prediction, target, order: int) -> np.ndarray:
    """`[sequences, frames, joints, 3]` to `[sequences, frames - order, joints]`, by blocks."""
    count = max(prediction.shape[1] - order, 0)
    result = np.empty((len(prediction), count, prediction.shape[2]))
    for one, other, out in zip(prediction, target, result, strict=True):
        for start in range(0, count, _BLOCK):
            part = slice(start, start + _BLOCK + order)
            difference = np.subtract(one[part], other[part], dtype=np.float64)
            difference = np.diff(difference, order, axis=0)
            squares = np.einsum("nja,nja->nj", difference, difference)
            np.sqrt(squares, out=out[start : start + _BLOCK])
    return result


def frame_errors(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Computes the mean joint distance of each frame, `[...]`."""
    return joint_errors(prediction, target).mean(axis=-1)


def difference_errors(
    prediction: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    sequences: np.ndarray | Sequence[str] | None = None,
    order: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Computes distances between differences along time.

    Arguments:
      prediction, target: `[..., frames, joints, 3]`; frames of one sequence stand in order.
      weights: see the module; a difference weighs as much as the lightest of its frames.
      sequences: `[..., frames]`, names of sequences that stand one behind the other: no difference
        is taken across their borders.
      order: 1 for velocities, 2 for accelerations.

    Returns:
      Errors and weights, `[..., frames - order, joints]`, in unit per frame ** order.
    """
    prediction, target = check_poses(prediction, target)
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


def share_within(
    errors: np.ndarray, thresholds: Sequence[float], inclusive: bool = True
) -> np.ndarray:
    """Computes the share of thresholds that each distance keeps, `[...]`; NaN stays NaN."""
    limits = np.sort(np.asarray(thresholds, np.float64))
    below = np.searchsorted(limits, errors, side="left" if inclusive else "right")
    return np.where(np.isnan(errors), np.nan, (len(limits) - below) / len(limits))


def bone_angles(parents: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    """Lists the angles of a skeleton: every two bones that meet in a joint.

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
        (one, corner, other)
        for corner, around in enumerate(neighbours)
        for one, other in itertools.combinations(around, 2)
    )


def joint_angles(poses: np.ndarray, angles: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Computes angles between bones, of `bone_angles`.

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


def angle_errors(
    prediction: np.ndarray,
    target: np.ndarray,
    angles: Sequence[tuple[int, int, int]],
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Computes absolute differences of the angles between bones, and their weights.

    An angle weighs as much as the lightest of its three joints. One of the target at a bone without
    length is left out; one of the prediction counts as 0 degrees, so that a collapsed prediction
    gains nothing.

    Returns:
      Degrees and weights, `[..., angles]` each.
    """
    prediction, target = np.asarray(prediction), np.asarray(target)
    there = joint_weights(weights, prediction.shape[:-1])
    there = np.ones(prediction.shape[:-1]) if there is None else there
    corners = np.array(angles)
    truth, guess = joint_angles(target, angles), joint_angles(prediction, angles)
    guess = np.where(np.isnan(guess) & known(prediction)[..., corners].all(-1), 0.0, guess)
    boneless = np.isnan(truth) & known(target)[..., corners].all(-1)
    return np.abs(guess - truth), np.where(boneless, 0.0, there[..., corners].min(axis=-1))


def centered(poses: np.ndarray, root: int | Sequence[int]) -> np.ndarray:
    """Makes poses relative to a joint, or to the middle of several."""
    return poses - poses[..., np.atleast_1d(root), :].mean(axis=-2, keepdims=True)


def best_scale(
    prediction: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Multiplies each frame's prediction by its best scale, `<p, t> / <p, p>`; zeros stay zeros.

    Source: Rhodin et al., "Unsupervised geometry-aware representation", 2018.
    """
    prediction = np.asarray(prediction, np.float64)
    target = np.asarray(target, np.float64)
    if weights is None:
        power = np.einsum("...ja,...ja->...", prediction, prediction)
        match = np.einsum("...ja,...ja->...", prediction, target)
    else:
        there = weights[..., None] > 0
        moving, fixed = np.where(there, prediction, 0.0), np.where(there, target, 0.0)
        power = np.einsum("...j,...ja,...ja->...", weights, moving, moving)
        match = np.einsum("...j,...ja,...ja->...", weights, moving, fixed)
    scale = np.where(power > 0, match / np.where(power > 0, power, 1.0), 0.0)
    return scale[..., None, None] * prediction


def procrustes(
    prediction: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Moves each frame's prediction by the similarity that brings it nearest to the target.

    Rotation, translation and scale, never a reflection; nearest in the (weighted) sum of squares.
    A collapsed prediction (all joints in one point) is moved onto the target's centroid. With
    fewer than three known joints the fit explains all there is, and says nothing.

    Returns:
      float64 `[..., joints, 3]`; zeros where a frame's weights are all 0.

    Source: Horn, "Closed-form solution of absolute orientation using unit quaternions", 1987: the
      greatest eigenvector of a 4 x 4 matrix is the rotation. The same rotation as by the singular
      value decomposition of Umeyama, 1991, without its case of a reflection.
    """
    prediction, target = np.asarray(prediction), np.asarray(target)
    shape = prediction.shape
    moving, fixed = (poses.reshape(-1, *shape[-2:]) for poses in (prediction, target))
    if weights is not None:
        weights = np.broadcast_to(weights, shape[:-1]).reshape(-1, shape[-2])
    result = np.empty(moving.shape)
    for start in range(0, len(moving), _BLOCK):
        block = slice(start, start + _BLOCK)
        _align(
            moving[block].astype(np.float64), fixed[block].astype(np.float64),
            None if weights is None else weights[block].astype(np.float64), result[block],
        )
    return result.reshape(shape)


def _horn() -> tuple[np.ndarray, np.ndarray]:
    """Linear maps: correlation `[9]` to Horn's symmetric matrix `[16]`, q q^T `[16]` to rotation.

    Both follow from the rotation of a vector by a unit quaternion (w, x, y, z), which is bilinear
    in the quaternion: R = `turn` applied to q q^T, and <moved, fixed> = q^T N q.
    """
    turn = np.zeros((3, 3, 4, 4))  # fixed axis, moving axis, quaternion, quaternion
    for i in range(3):
        turn[i, i, 0, 0] = 1.0
        for j in range(3):
            turn[i, i, 1 + j, 1 + j] = 1.0 if i == j else -1.0
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        turn[i, j, 1 + i, 1 + j] = turn[j, i, 1 + i, 1 + j] = 2.0
        turn[i, j, 0, 1 + k], turn[j, i, 0, 1 + k] = -2.0, 2.0
    turn = (turn + np.swapaxes(turn, -1, -2)) / 2
    flat = turn.reshape(9, 16)
    return flat, np.ascontiguousarray(flat.T)


_TO_HORN, _TO_ROTATION = _horn()


def _align(moving, fixed, weights, out) -> None:
    """Aligns `[frames, joints, 3]` into `out`, see `procrustes`."""
    if weights is None:
        size = np.einsum("nja,nja->n", moving, moving)
        center = _middle(fixed)
        moving = moving - _middle(moving)
        fixed = weighted = fixed - center
        spread = np.einsum("nja,nja->n", moving, moving)
    else:
        there = weights[..., None] > 0
        moving, fixed = np.where(there, moving, 0.0), np.where(there, fixed, 0.0)
        total = weights.sum(axis=1)[:, None, None]
        share = weights[..., None] / np.where(total > 0, total, 1.0)
        size = np.einsum("nj,nja,nja->n", weights, moving, moving)
        center = (share * fixed).sum(axis=1, keepdims=True)
        moving = moving - (share * moving).sum(axis=1, keepdims=True)
        fixed = fixed - center
        weighted = weights[..., None] * fixed
        spread = np.einsum("nj,nja,nja->n", weights, moving, moving)
    correlation = np.swapaxes(weighted, 1, 2) @ moving
    matrix = (correlation.reshape(-1, 9) @ _TO_HORN).reshape(-1, 4, 4)
    values, vectors = np.linalg.eigh(matrix)
    quaternion = vectors[:, :, -1]
    outer = quaternion[:, :, None] * quaternion[:, None, :]
    rotation = (outer.reshape(-1, 16) @ _TO_ROTATION).reshape(-1, 3, 3)
    shapeless = spread <= _NO_SHAPE * size
    scale = np.where(shapeless, 0.0, values[:, -1] / np.where(shapeless, 1.0, spread))
    np.matmul(moving, np.swapaxes(rotation * scale[:, None, None], 1, 2), out=out)
    out += center


def _middle(poses) -> np.ndarray:
    # Several times as fast as the mean over this axis.
    return np.einsum("nja->na", poses)[:, None] / poses.shape[1]
