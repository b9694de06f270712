"""Reads the points of people out of entries of JSON, in whatever way a detector nests them."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import joint_sets

POINTS = (
    "keypoints", "pose_keypoints_2d", "pose_landmarks", "poseLandmarks", "landmarks", "joints",
    "keypoints_2d", "kpts", "points",
)
PEOPLE = (
    "instances", "people", "bodies", "persons", "predictions", "annotations", "poses",
    "detections", "objects", "results",
)
SCORES = (
    "keypoint_scores", "keypoints_scores", "keypoint_score", "scores", "confidence",
    "confidences", "conf", "visible", "visibility", "keypoints_visible", "likelihood", "score",
    "presence",
)
_WORLD = ("pose_world_landmarks", "poseWorldLandmarks", "world_landmarks", "worldLandmarks")
_IDS = ("track_id", "idx", "person_id", "tracking_id", "trackId", "instance_id")
# Numbers of points of the joint sets that detectors write as flat lists.
_COUNTS = (17, 26, 133, 136, 33, 25, 18, 15, 16)


class Odd(UserError):
    """An entry has no points that can be read; the others can."""


def people_in(entry: Mapping) -> Iterator[tuple[str | None, np.ndarray]]:
    """Yields the id and points `[joints, 3]` of one entry, which may hold several people."""
    key = next((name for name in POINTS if entry.get(name) is not None), None)
    if key is None:
        if any(entry.get(name) for name in _WORLD):
            raise Odd(
                "world landmarks are metres around the hips, which no camera sees; write the "
                "landmarks in the image (pose_landmarks)."
            )
        return
    value = entry[key]
    scores = next((entry[name] for name in SCORES if _is_list(entry.get(name))), None)
    if isinstance(value, Mapping) and "landmark" in value:
        value = value["landmark"]
    if _depth(value) > 2:
        scores = [None] * len(value) if scores is None else scores
        for person, own in zip(value, scores, strict=False):
            yield person_id(entry) if len(value) == 1 else None, points_in(person, own)
    elif _is_list(value) and not len(value):
        return
    else:
        if scores is not None and _depth(scores) > 1 and len(scores) == 1:
            scores = scores[0]
        yield person_id(entry), points_in(value, scores)


def points_in(value: Any, scores: Any = None) -> np.ndarray:
    """Reads one person's points `[joints, 3]`: x, y and confidence, NaN where there is none.

    Arguments:
      value: a flat list, a list of lists or of dicts, or a dict of lists x, y and visible.
      scores: list of confidences, or None.
    """
    if isinstance(value, Mapping):
        if "xy" in value or "xyn" in value:
            return points_in(value.get("xy", value.get("xyn")), value.get("conf"))
        scores = next((value[name] for name in SCORES if _is_list(value.get(name))), scores)
        if not (_is_list(value.get("x")) and _is_list(value.get("y"))):
            raise Odd("its points are no list.")
        columns = [_numbers(value[axis]) for axis in "xy"]
        if columns[0].shape != columns[1].shape or columns[0].ndim != 1:
            raise Odd("x and y of its points differ in number.")
        points = np.stack(columns, -1)
    elif _is_list(value) and any(isinstance(point, Mapping) for point in value):
        points = np.array([_of_dict(point) for point in value], np.float64)
    else:
        points = _numbers(value)
        if points.ndim == 1:
            points = _unrolled(points, scores)
    if points.ndim == 3 and len(points) == 1:
        points = points[0]
    if points.ndim != 2 or points.shape[1] not in (2, 3, 4) or not len(points):
        raise Odd(f"its points are numbers of the shape {list(points.shape)}.")
    return with_scores(points, None if scores is None else _numbers(scores).ravel())


def with_scores(points: np.ndarray, scores: np.ndarray | None) -> np.ndarray:
    """Brings points `[..., joints, 2 to 4]` to x, y and confidence.

    Four columns are x, y, depth and visibility. Three are x, y and confidence, or of MediaPipe's
    33 landmarks x, y and depth, where a number is negative.
    """
    places, columns = points[..., :2], points.shape[-1]
    if scores is not None:
        if scores.shape != points.shape[:-1]:
            raise Odd(f"{scores.size} confidences for {points[..., 0].size} points.")
        return np.concatenate([places, scores[..., None]], -1)
    if columns == 4:
        return np.concatenate([places, points[..., 3:]], -1)
    depth = columns == 3 and points.shape[-2] == 33 and np.nanmin(points[..., 2], initial=0) < 0
    if columns == 3 and not depth:
        return points
    return np.concatenate([places, np.ones((*places.shape[:-1], 1))], -1)


def person_id(entry: Mapping) -> str | None:
    """Reads a tracker's id, which may be a list of one; -1 is none."""
    for key in _IDS:
        value = entry.get(key)
        while isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int | str) and not isinstance(value, bool) and value not in (-1, ""):
            return str(value)
    return None


def named_points(
    names: list[str], points: np.ndarray
) -> tuple[str, np.ndarray] | None:
    """Orders points by their names as a joint set has them; None if no set has such names.

    Returns:
      Name of the joint set, and points `[..., joints, 3]`; those without a name in it are unseen.
    """
    plain = [_plain(name) for name in names]
    best: tuple[int, str, list[int]] | None = None
    for known in joint_sets.JOINT_SETS.values():
        order = [plain.index(_plain(joint)) if _plain(joint) in plain else -1
                 for joint in known.joints]
        needed = {known.joints.index(joint) for source in known.human36m.values()
                  for joint in ([source] if isinstance(source, str) else source)}
        if any(order[place] < 0 for place in needed):
            continue
        found = sum(place >= 0 for place in order)
        if best is None or found > best[0]:
            best = found, known.name, order
    if best is None:
        return None
    _, name, order = best
    padded = np.concatenate([points, np.zeros_like(points[..., :1, :])], -2)
    return name, padded[..., order, :]


_SYNONYMS = {
    "pelvis": "hip", "midhip": "hip", "root": "hip", "hips": "hip", "headtop": "head",
    "tophead": "head", "topofhead": "head", "upperneck": "neck", "chest": "thorax",
}


def _plain(name: str) -> str:
    """Writes `LShoulder`, `left-shoulder` and `shoulder_L` alike."""
    words = "".join(
        f" {c.lower()}" if c.isupper() and i and name[i - 1].islower() else
        c.lower() if c.isalnum() else " " for i, c in enumerate(name)
    ).split()
    if len(words) == 1:
        word = words[0]
        for side in ("left", "right"):
            if word.startswith(side):
                words = [side, word[len(side):]]
            elif word.startswith(side[0]) and word[1:] in _PARTS:
                words = [side, word[1:]]
    sides = {"l": "left", "r": "right", "left": "left", "right": "right"}
    side = next((sides[word] for word in words if word in sides), "")
    rest = "".join(word for word in words if word not in sides)
    return side + _SYNONYMS.get(rest, rest) if not side else side + rest


_PARTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle", "eye", "ear")


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def _depth(value: Any) -> int:
    """Counts how deep lists are nested; a list of points that are dicts counts as two."""
    depth = 0
    while _is_list(value):
        depth += 1
        value = next((part for part in value if part is not None), None)
    return depth + isinstance(value, Mapping)


def _of_dict(point: Any) -> list[float]:
    """Reads a point that is a dict, or null."""
    if not isinstance(point, Mapping):
        return [np.nan] * 3
    score = next((point[name] for name in SCORES if point.get(name) is not None), 1.0)
    try:
        return [np.nan if part is None else float(part)
                for part in (point.get("x"), point.get("y"), score)]
    except (TypeError, ValueError) as error:
        raise Odd("a point has no numbers x and y.") from error


def _numbers(values: Any) -> np.ndarray:
    """Converts nested lists to float64; null is NaN, also where a point should be."""
    def clean(value, like):
        if value is None:
            return [np.nan] * len(like) if _is_list(like) else np.nan
        if _is_list(value):
            inner = next((part for part in value if part is not None), None)
            return [clean(part, inner) for part in value]
        return value

    if not _is_list(values):
        raise Odd("it has no list of points.")
    try:
        return np.array(clean(values, None), np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise Odd("its points are no list of numbers.") from error


def _unrolled(flat: np.ndarray, scores: Any) -> np.ndarray:
    """Folds a flat list: x, y and confidence one after the other, or x and y alone."""
    size = len(flat)
    if scores is not None and size == 2 * len(scores):
        return flat.reshape(-1, 2)
    if size == 132:
        return flat.reshape(-1, 4)
    if size % 3 == 0 and (
        size // 3 in _COUNTS or size % 2 or size // 2 not in _COUNTS
        or np.nanmax(flat[2::3], initial=0) <= 2 < np.nanmax(flat, initial=0)  # confidences
    ):
        return flat.reshape(-1, 3)
    if size % 2 == 0 and size:
        return flat.reshape(-1, 2)
    raise Odd(f"{size} numbers are neither x, y and confidence of each point nor x and y.")
