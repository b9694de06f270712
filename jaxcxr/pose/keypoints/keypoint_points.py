"""Points as keypoint files list them, checked."""

import dataclasses
from typing import Any

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import joint_sets

LONGEST = 2_000_000  # frames; 11 hours at 50 per second
LARGEST = 1e6  # pixels


@dataclasses.dataclass
class Found:
    """What a file holds: for each frame its people as (id or None, points `[joints, 3]`)."""

    joint_set: str
    frames: dict[int, list[tuple[str | None, np.ndarray]]]
    sizes: set[tuple[int, int]] = dataclasses.field(default_factory=set)
    fps: float | None = None


def numbers(values: Any, where: str) -> np.ndarray:
    """A list of numbers, which may be nested, as float64.

    Raises:
      UserError: something else; `where` begins the message.
    """
    try:
        return np.array(values, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{where}: the keypoints are no list of numbers.") from error


def points_of(values: np.ndarray, where: str) -> np.ndarray:
    """Points `[..., joints, 3]` checked, unseen ones zero, confidence cut at 1.

    COCO's annotations have 0, 1 (hidden) and 2 in its place: hidden ones were marked by people too.

    Raises:
      UserError: a place or a confidence that is none; `where` begins the message.
    """
    confidence = values[..., 2]
    if not np.isfinite(confidence).all() or (confidence < 0).any():
        raise UserError(f"{where}: a confidence is not a number of at least 0.")
    seen = confidence > 0
    wrong = seen & ~(np.abs(values[..., :2]) <= LARGEST).all(-1)
    if wrong.any():
        joint = int(np.argwhere(wrong)[0][-1])
        raise UserError(
            f"{where}: point {joint} is not at a place in an image; where a point was not found, "
            "give the confidence 0."
        )
    cut = np.minimum(confidence, 1.0)
    return np.where(seen[..., None], np.concatenate([values[..., :2], cut[..., None]], -1), 0.0)


def triples(values: Any, where: str) -> np.ndarray:
    """x, y and confidence one after the other, as points `[joints, 3]`.

    Raises:
      UserError: a number of numbers that three does not divide, or as `points_of`.
    """
    flat = numbers(values, where)
    if flat.ndim != 1 or not len(flat) or len(flat) % 3:
        raise UserError(
            f"{where}: keypoints are x, y and confidence one after the other, "
            f"not numbers of the shape {list(flat.shape)}."
        )
    return points_of(flat.reshape(-1, 3), where)


def named_set(path, name: str, count: int) -> str:
    """The set that the user names.

    Raises:
      UserError: no such set, or it has another number of points than `count`.
    """
    known = joint_sets.joint_set(name)
    if len(known.joints) != count:
        raise UserError(
            f"{path}: {count} points, but the joint set {known.name!r} has {len(known.joints)}."
        )
    return known.name
