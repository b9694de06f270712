"""Moving estimated 3D poses before they are compared: onto the root, by a scale, by a similarity.

Every function takes poses `[..., joints, 3]` and gives poses of that shape. `weights`
`[..., joints]` are non-negative; a joint of weight 0 takes no part in the fit, whatever it holds.
"""

from collections.abc import Sequence

import numpy as np

# Frames treated at once: so few that their arrays stay in the processor's cache.
BLOCK = 4096
# Rounding leaves about 1e-32 of the squared size in a collapsed pose: that is no shape.
_NO_SHAPE = 1e-24


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


def centered(poses: np.ndarray, root: int | Sequence[int]) -> np.ndarray:
    """Poses relative to a joint, or to the middle of several.

    Arguments:
      poses: `[..., joints, dimensions]`.
      root: index of the root joint, or indices of joints between which the root lies.
    """
    return poses - poses[..., np.atleast_1d(root), :].mean(axis=-2, keepdims=True)


def procrustes(
    prediction: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Each frame's prediction moved by the similarity that brings it nearest to the target.

    Rotation, translation and scale, never a reflection; nearest in the (weighted) sum of squares.
    A collapsed prediction (all joints in one point) is moved onto the target's centroid. With
    fewer than three known joints the fit explains all there is, and says nothing.

    Arguments:
      prediction: `[..., joints, 3]`.
      target: `[..., joints, 3]`.
      weights: `[..., joints]`; none: all alike.

    Returns:
      float64 `[..., joints, 3]`; zeros where a frame's weights are all 0.

    Source: Horn, "Closed-form solution of absolute orientation using unit quaternions", 1987: the
      greatest eigenvector of a 4 x 4 matrix is the rotation. The same rotation as by the singular
      value decomposition of Umeyama, 1991, without its case of a reflection.
    """
    prediction, target = np.asarray(prediction), np.asarray(target)
    shape = prediction.shape
    moving = prediction.reshape(-1, *shape[-2:])
    fixed = target.reshape(-1, *shape[-2:])
    if weights is not None:
        weights = np.broadcast_to(weights, shape[:-1]).reshape(-1, shape[-2])
    result = np.empty(moving.shape)
    for start in range(0, len(moving), BLOCK):
        block = slice(start, start + BLOCK)
        _align(
            moving[block].astype(np.float64), fixed[block].astype(np.float64),
            None if weights is None else weights[block].astype(np.float64), result[block],
        )
    return result.reshape(shape)


def _align(moving, fixed, weights, out) -> None:
    """`procrustes` of `[frames, joints, 3]`, written to `out`."""
    if weights is None:
        size = np.einsum("nja,nja->n", moving, moving)
        center = _middle(fixed)
        moving = moving - _middle(moving)
        fixed = weighted = fixed - center
        spread = np.einsum("nja,nja->n", moving, moving)
    else:
        known = weights[..., None] > 0
        moving, fixed = np.where(known, moving, 0.0), np.where(known, fixed, 0.0)
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


def best_scale(
    prediction: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Each frame's prediction times its best scale, `<p, t> / <p, p>`; zeros stay zeros.

    Arguments:
      prediction: `[..., joints, 3]`.
      target: `[..., joints, 3]`.
      weights: `[..., joints]`; none: all alike.

    Returns:
      float64 `[..., joints, 3]`.

    Source: Rhodin et al., "Unsupervised geometry-aware representation", 2018.
    """
    prediction = np.asarray(prediction, np.float64)
    target = np.asarray(target, np.float64)
    if weights is None:
        power = np.einsum("...ja,...ja->...", prediction, prediction)
        match = np.einsum("...ja,...ja->...", prediction, target)
    else:
        known = weights[..., None] > 0
        moving, fixed = np.where(known, prediction, 0.0), np.where(known, target, 0.0)
        power = np.einsum("...j,...ja,...ja->...", weights, moving, moving)
        match = np.einsum("...j,...ja,...ja->...", weights, moving, fixed)
    scale = np.where(power > 0, match / np.where(power > 0, power, 1.0), 0.0)
    return scale[..., None, None] * prediction
