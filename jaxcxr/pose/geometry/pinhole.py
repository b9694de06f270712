"""Estimates the intrinsics of a camera from 3D points and their pixels.

Files with poses in the camera frame and keypoints often lack the intrinsics. A fit recovers them,
and its error shows whether poses and keypoints belong together.
"""

import numpy as np

_FEWEST = 2  # points without which nothing is determined
_MOST = 20_000  # points that are fitted, evenly chosen
_NEAR = 1e-3
_SQUARE = 1.25  # the greatest ratio of the focal lengths


def fit(points: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Fits focal lengths and centre by least squares, outliers left out.

    A second fit drops the points whose error in the first exceeds three times its median.

    Arguments:
      points: `[n, 3]` in the camera frame, any unit, z forward.
      pixels: `[n, 2]`; not finite where unseen.

    Returns:
      float64 `[4]`: fx, fy, cx, cy in pixels; NaN if fewer than two points are seen before the
      lens.
    """
    known = np.isfinite(pixels).all(-1) & (points[:, 2] > _NEAR)
    points, pixels = points[known].astype(np.float64), pixels[known].astype(np.float64)
    if len(points) < _FEWEST:
        return np.full(4, np.nan)
    step = -(-len(points) // _MOST)
    points, pixels = points[::step], pixels[::step]
    first = _solve(points, pixels)
    off = distances(first, points, pixels)
    near = off <= max(3 * np.median(off), 1e-6)
    return _solve(points[near], pixels[near]) if near.sum() >= _FEWEST else first


def _solve(points: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    parts = []
    for axis in range(2):
        slope = np.stack([points[:, axis] / points[:, 2], np.ones(len(points))], -1)
        parts.append(np.linalg.lstsq(slope, pixels[:, axis], rcond=None)[0])
    return np.array(parts).T.ravel()


def plausible(camera: np.ndarray) -> bool:
    """Tells whether both focal lengths are positive and alike, as with square pixels.

    Keypoints of upright people from another view fit in y but not in x.

    Arguments:
      camera: `[4]`, see `fit`.
    """
    fx, fy = camera[:2]
    return bool(min(fx, fy) > 0 and max(fx, fy) < _SQUARE * min(fx, fy))


def distances(camera: np.ndarray, points: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Computes the reprojection error of each point in pixels.

    Arguments:
      camera: `[4]`, see `fit`.
      points: `[..., 3]` in the camera frame.
      pixels: `[..., 2]`, not finite where unseen.

    Returns:
      `[...]`; infinite for seen points behind the lens, NaN for unseen ones.
    """
    depth = np.where(points[..., 2] > _NEAR, points[..., 2], np.nan)[..., None]
    projected = points[..., :2] / depth * camera[:2] + camera[2:]
    off = np.linalg.norm(projected - pixels, axis=-1)
    behind = np.isnan(depth[..., 0]) & np.isfinite(pixels).all(-1)
    return np.where(behind, np.inf, off)


def vector(camera: np.ndarray) -> np.ndarray:
    """Intrinsics as float32 `[9]` in the order of `pose_set.pose_features`, without distortion."""
    return np.concatenate([camera, np.zeros(5)]).astype(np.float32)
