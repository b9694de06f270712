"""Pinhole cameras estimated from joints and where they appear.

Files that give poses in the camera frame and keypoints often leave the intrinsics out. They follow
from the two, and so does whether the two belong together at all.
"""

import numpy as np

_FEWEST = 2  # points without which nothing is determined
_MOST = 20_000  # points that are fitted, evenly chosen
_NEAR = 1e-3
_SQUARE = 1.25  # the greatest ratio of the focal lengths


def fit(points: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Focal lengths and centre that project points to pixels with the least squared error.

    Points further off than three times the median of a first fit take no part in a second.

    Arguments:
      points: `[n, 3]` in the camera frame, any unit, z forward.
      pixels: `[n, 2]`; where not finite, unseen.

    Returns:
      float64 `[4]`: fx, fy, cx, cy in pixels; NaN if fewer than two points are before the lens and
      seen.
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
    """Whether focal lengths are those of a camera, whose pixels are square.

    Keypoints of another view, of people who walk upright, fit in y but not in x.

    Arguments:
      camera: `[4]`, see `fit`.
    """
    fx, fy = camera[:2]
    return bool(min(fx, fy) > 0 and max(fx, fy) < _SQUARE * min(fx, fy))


def distances(camera: np.ndarray, points: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Pixels between where points are seen and where a camera projects them.

    Arguments:
      camera: `[4]`, see `fit`.
      points: `[..., 3]`; pixels: `[..., 2]`.

    Returns:
      `[...]`; infinite for points that are not before the lens, NaN for those not seen.
    """
    depth = np.where(points[..., 2] > _NEAR, points[..., 2], np.nan)[..., None]
    projected = points[..., :2] / depth * camera[:2] + camera[2:]
    off = np.linalg.norm(projected - pixels, axis=-1)
    behind = np.isnan(depth[..., 0]) & np.isfinite(pixels).all(-1)
    return np.where(behind, np.inf, off)


def vector(camera: np.ndarray) -> np.ndarray:
    """float32 `[9]`, the intrinsics of `pose_set.pose_features`, without distortion."""
    return np.concatenate([camera, np.zeros(5)]).astype(np.float32)
