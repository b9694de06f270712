"""Converts rotations to Euler angles without jumps, for animation programs that interpolate."""

import warnings

import numpy as np
from scipy.spatial.transform import Rotation

# Radians; nearer to the pole only the sum, or the difference, of the outer angles is known.
_POLE = 1e-6


def continuous(rotations: Rotation, order: str) -> np.ndarray:
    """Computes Euler angles that are continuous over time.

    A rotation has two triples of angles, (a, b, c) and (a + 180, 180 - b, c + 180), or -b if the
    outer axes are equal, plus any whole turns. Each frame takes the triple nearest to the previous
    frame's. In gimbal lock both outer angles share the change.

    Arguments:
      rotations: one per frame.
      order: the axes in the order of matrix multiplication, such as "ZYX".

    Returns:
      float64 `[frames, 3]` in degrees; the first frame is SciPy's.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Gimbal lock")
        angles = np.atleast_2d(rotations.as_euler(order))
    same = order[0] == order[2]
    outer = np.abs(np.sin(angles[:, 1]) if same else np.cos(angles[:, 1]))
    free = np.flatnonzero(outer > _POLE)
    found = angles.copy()
    if len(free):
        found[free] = np.unwrap(_nearest(angles[free], same), axis=0)
        for frame in range(free[0] - 1, -1, -1):
            found[frame] = _at_pole(angles[frame], found[frame + 1], order)
    for frame in range(free[0] + 1 if len(free) else 1, len(angles)):
        if outer[frame] <= _POLE:
            found[frame] = _at_pole(angles[frame], found[frame - 1], order)
        else:
            # The frames before may have come to this side by other whole turns.
            found[frame] += 2 * np.pi * np.round((found[frame - 1] - found[frame]) / (2 * np.pi))
    return np.degrees(found)


def _wrapped(angles: np.ndarray) -> np.ndarray:
    """Wraps angles to [-pi, pi)."""
    return (angles + np.pi) % (2 * np.pi) - np.pi


def _nearest(angles: np.ndarray, same: bool) -> np.ndarray:
    """Chooses in each frame the triple nearer to the one chosen before."""
    other = angles + np.pi
    other[:, 1] = -angles[:, 1] if same else np.pi - angles[:, 1]
    stays = (_wrapped(np.diff(angles, axis=0)) ** 2).sum(1)
    changes = (_wrapped(other[1:] - angles[:-1]) ** 2).sum(1)
    # From one kind to the other it is as far as back: the choice changes wherever that is nearer.
    flipped = np.concatenate([[False], np.cumsum(changes < stays) % 2 == 1])
    return np.where(flipped[:, None], other, angles)


def _at_pole(angles: np.ndarray, near: np.ndarray, order: str) -> np.ndarray:
    """Returns the triple of a rotation at the pole nearest to another triple, radians."""
    first, middle, last = angles
    # One of the two signs leaves the rotation unchanged; try both.
    turned = [Rotation.from_euler(order, (first + sign, middle, last + 1.0)) for sign in (1, -1)]
    back = Rotation.from_euler(order, angles).inv()
    sign = (1, -1)[int(np.argmin([(back * rotation).magnitude() for rotation in turned]))]
    off = _wrapped(first - sign * last - (near[0] - sign * near[2]))
    middle = near[1] + _wrapped(middle - near[1])
    return np.array([near[0] + off / 2, middle, near[2] - sign * off / 2])
