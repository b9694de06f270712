"""Checks arrays of 2D keypoints, and reads them from `.npz`: plain, or VideoPose3D's videos."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcxr.data import object_arrays
from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import joint_sets

LONGEST = 2_000_000  # frames; 11 hours at 50 per second
LARGEST = 1e6  # pixels
# Joint sets known by their number of points; 17 may be COCO's or Human3.6M's.
_IN_ARRAYS = {25: "openpose25", 26: "halpe26", 24: "smpl24", 16: "mpii", 15: "humaneva15"}

Person = tuple[str | None, np.ndarray]  # id, and points `[joints, 3]`: x, y, confidence


@dataclasses.dataclass
class Found:
    """Content of a file: the people of each frame as (id or None, points `[joints, 3]`)."""

    joint_set: str
    frames: dict[int, list[Person]]
    sizes: set[tuple[int, int]] = dataclasses.field(default_factory=set)
    fps: float | None = None


def read_npz(path: pathlib.Path, joints: str) -> Found:
    """Reads the people in an `.npz` file; without `joints` it infers the joint set."""
    content = object_arrays.read_npz(path)
    if "positions_2d" in content:
        return _videopose3d(path, content, joints)
    if "keypoints" not in content:
        raise UserError(
            f"{path} has neither keypoints nor VideoPose3D's positions_2d; it has "
            f"{', '.join(content) or 'nothing'}."
        )
    values = _with_confidence(path, content["keypoints"], content.get("confidence"))
    values = values[None] if values.ndim == 3 else values
    joints = joints or _text(content.get("joint_set"))
    count = values.shape[2]
    if not joints and count not in _IN_ARRAYS:
        raise UserError(
            f"{path}: several joint sets may have {count} points; name the right one with "
            "--joints, such as coco or human36m."
        )
    name = named_set(path, joints or _IN_ARRAYS[count], count)
    people = [str(person) for person in np.ravel(content.get("people", np.arange(len(values))))]
    if len(set(people)) != len(values):
        raise UserError(f"{path}: {len(values)} people, but the ids {', '.join(people)}.")
    size = content.get("image_size")
    fps = content.get("fps")
    return Found(
        name, _by_frame(people, values),
        set() if size is None else {_pair(path, size)},
        None if fps is None else float(numbers(fps, f"{path}, fps").ravel()[0]),
    )


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _pair(path, size: Any) -> tuple[int, int]:
    values = numbers(size, f"{path}, image_size").ravel()
    if len(values) != 2 or not np.isfinite(values).all():
        raise UserError(f"{path}: image_size must be width and height.")
    return int(values[0]), int(values[1])


def _with_confidence(path, keypoints: Any, confidence: Any) -> np.ndarray:
    """Joins points and confidence to `[..., frames, joints, 3]`; the default confidence is 1."""
    values = numbers(keypoints, f"{path}, keypoints")
    if values.ndim not in (3, 4) or values.shape[-1] not in (2, 3) or not values.size:
        raise UserError(
            f"{path}: keypoints have the shape {list(values.shape)}; give [frames, joints, 2 or 3] "
            "or [people, frames, joints, 2 or 3], with at least one frame."
        )
    if values.shape[-3] > LONGEST:
        raise UserError(f"{path}: {values.shape[-3]:,} frames; at most {LONGEST:,} are read.")
    if values.shape[-1] == 2:
        known = np.ones(values.shape[:-1])
        if confidence is not None:
            known = numbers(confidence, f"{path}, confidence")
        if known.shape != values.shape[:-1]:
            raise UserError(
                f"{path}: confidence has the shape {list(known.shape)}, keypoints "
                f"{list(values.shape)}."
            )
        values = np.concatenate([values, known[..., None]], -1)
    return points_of(values, f"{path}, keypoints")


def _by_frame(people: Sequence[str], values: np.ndarray) -> dict[int, list]:
    return {
        frame: [(person, points[frame]) for person, points in zip(people, values, strict=True)
                if frame < len(points)]
        for frame in range(values.shape[1])
    }


def _videopose3d(path, content: Mapping, joints: str) -> Found:
    """Reads VideoPose3D's custom videos; each camera of each video becomes a person."""
    metadata = content.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    tracks = dict(_videopose3d_tracks(path, content["positions_2d"]))
    counts = {points.shape[1] for points in tracks.values()}
    if len(counts) != 1:
        raise UserError(f"{path}: no video, or videos with different numbers of points.")
    (count,) = counts
    joints = joints or _text(metadata.get("layout_name"))
    if not joints:
        raise UserError(f"{path}: its metadata has no layout; name the joint set with --joints.")
    videos = metadata.get("video_metadata")
    sizes = {
        _pair(path, (video.get("w"), video.get("h")))
        for video in (videos.values() if isinstance(videos, dict) else ())
        if isinstance(video, dict)
    }
    frames: dict[int, list] = {}
    for person, points in tracks.items():
        for frame, found in enumerate(points):
            frames.setdefault(frame, []).append((person, found))
    return Found(named_set(path, joints, count), frames, sizes)


def _videopose3d_tracks(path, positions: Any) -> Iterable[tuple[str, np.ndarray]]:
    for name, actions in positions.items() if isinstance(positions, dict) else ():
        for action, cameras in actions.items() if isinstance(actions, dict) else ():
            cameras = cameras if isinstance(cameras, list | tuple | np.ndarray) else ()
            for camera, points in enumerate(cameras):
                person = f"{name}" if len(cameras) == 1 else f"{name} {action} {camera}"
                values = _with_confidence(path, points, None)
                if values.ndim != 3:
                    raise UserError(f"{path}: points of {person!r} are not [frames, joints, 2].")
                yield person, values


def numbers(values: Any, where: str) -> np.ndarray:
    """Converts a list of numbers, nested or not, to float64."""
    try:
        return np.array(values, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{where}: keypoints must be a list of numbers.") from error


def points_of(values: np.ndarray, where: str) -> np.ndarray:
    """Checks points `[..., joints, 3]`, zeroes unseen ones, and cuts confidence at 1.

    COCO's annotations have visibility instead: 0, 1 (hidden, but marked by people) and 2.
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
    """Reshapes a flat list of x, y and confidence to points `[joints, 3]`."""
    flat = numbers(values, where)
    if flat.ndim != 1 or not len(flat) or len(flat) % 3:
        raise UserError(
            f"{where}: keypoints are x, y and confidence one after the other, "
            f"not numbers of the shape {list(flat.shape)}."
        )
    return points_of(flat.reshape(-1, 3), where)


def named_set(path, name: str, count: int) -> str:
    """Looks up a joint set that must have `count` points."""
    known = joint_sets.joint_set(name)
    if len(known.joints) != count:
        raise UserError(
            f"{path}: {count} points, but the joint set {known.name!r} has {len(known.joints)}."
        )
    return known.name
