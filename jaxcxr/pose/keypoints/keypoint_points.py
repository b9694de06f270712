"""Checks the points that keypoint files list."""

import dataclasses
from typing import Any

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import joint_sets

LONGEST = 2_000_000  # frames; 11 hours at 50 per second
LARGEST = 1e6  # pixels


@dataclasses.dataclass
class Found:
    """Content of a file: the people of each frame as (id or None, points `[joints, 3]`)."""

    joint_set: str
    frames: dict[int, list[tuple[str | None, np.ndarray]]]
    sizes: set[tuple[int, int]] = dataclasses.field(default_factory=set)
    fps: float | None = None


def numbers(values: Any, where: str) -> np.ndarray:
    """Converts a list of numbers, nested or not, to float64.

    Raises:
      UserError: it holds something else; the message begins with `where`.
    """
    try:
        return np.array(values, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{where}: keypoints must be a list of numbers.") from error


def points_of(values: np.ndarray, where: str) -> np.ndarray:
    """Checks points `[..., joints, 3]`, zeroes unseen ones, and cuts confidence at 1.

    COCO's annotations have visibility instead: 0, 1 (hidden, but marked by people) and 2.

    Raises:
      UserError: a place or a confidence is invalid; the message begins with `where`.
    """
    confidence = values[..., 2]
    if not np.isfinite(confidence).all() or (confidence < 0).any():
        raise UserError(f"{where}: a confidence is negative or not finite.")
    seen = confidence > 0
    wrong = seen & ~(np.abs(values[..., :2]) <= LARGEST).all(-1)
    if wrong.any():
        joint = int(np.argwhere(wrong)[0][-1])
        raise UserError(
            f"{where}: point {joint} lies at no place in an image; give points that were not "
            "found the confidence 0."
        )
    cut = np.minimum(confidence, 1.0)
    return np.where(seen[..., None], np.concatenate([values[..., :2], cut[..., None]], -1), 0.0)


def triples(values: Any, where: str) -> np.ndarray:
    """Reshapes a flat list of x, y and confidence to points `[joints, 3]`.

    Raises:
      UserError: the length is no multiple of three, or as in `points_of`.
    """
    flat = numbers(values, where)
    if flat.ndim != 1 or not len(flat) or len(flat) % 3:
        raise UserError(
            f"{where}: keypoints are x, y and confidence one after the other, "
            f"not numbers of the shape {list(flat.shape)}."
        )
    return points_of(flat.reshape(-1, 3), where)


def named_set(path, name: str, count: int) -> str:
    """Looks up a joint set that must have `count` points.

    Raises:
      UserError: no such set, or it has another number of points.
    """
    known = joint_sets.joint_set(name)
    if len(known.joints) != count:
        raise UserError(
            f"{path}: {count} points, but the joint set {known.name!r} has {len(known.joints)}."
        )
    return known.name
