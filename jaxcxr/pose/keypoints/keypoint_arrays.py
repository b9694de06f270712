"""Checks arrays of 2D keypoints, and reads them from `.npz` and `.npy`: plain, or VideoPose3D's."""

import dataclasses
import itertools
import pathlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcxr.data import object_arrays
from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.keypoints import frame_numbers, person_points

LONGEST = 2_000_000  # frames; 11 hours at 50 per second
LARGEST = 1e6  # pixels
# Joint sets known by their number of points; 17 may be COCO's or Human3.6M's.
_IN_ARRAYS = {
    25: "openpose25", 26: "halpe26", 24: "smpl24", 16: "mpii", 15: "humaneva15",
    33: "mediapipe33", 133: "coco", 136: "halpe26",
}
# The points of whole bodies begin with those of the body.
_KEPT = {133: "coco", 136: "halpe26"}
_NAMES = ("keypoints", "keypoints_2d", "kpts", "landmarks", "arr_0")
_SMOOTHER = 2.0  # as much, along time than between people

Person = tuple[str | None, np.ndarray]  # id, and points `[joints, 3]`: x, y, confidence


@dataclasses.dataclass
class Found:
    """Content of a file: the people of each image as (id or None, points `[joints, 3]`).

    Images are numbers, names, or times in seconds (float). `person_sizes` holds the size of the
    image of a person, where each person is of a video of its own.
    """

    joint_set: str
    frames: dict[Hashable, list[Person]]
    sizes: set[tuple[int, int]] = dataclasses.field(default_factory=set)
    fps: float | None = None
    notes: list[str] = dataclasses.field(default_factory=list)
    person_sizes: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)


def read_npz(path: pathlib.Path, joints: str) -> Found:
    """Reads the people in an `.npz` file; without `joints` it infers the joint set."""
    if path.suffix.lower() == ".npy":
        try:
            return of_arrays(path, {"keypoints": np.load(path, allow_pickle=False)}, joints)
        except (ValueError, OSError, EOFError) as error:
            raise UserError(f"{path} is no array that can be read ({error}).") from error
    content = object_arrays.read_npz(path)
    if "positions_2d" in content:
        return _videopose3d(path, content, joints)
    if {"boxes", "keypoints"} <= content.keys():
        return _detectron(path, content, joints)
    return of_arrays(path, content, joints)


def of_arrays(path: pathlib.Path, content: Mapping[str, Any], joints: str) -> Found:
    """Reads named arrays: keypoints, and optionally confidence, joint_set, people, fps ..."""
    key = next((name for name in _NAMES if name in content), None)
    if key is None:
        raise UserError(
            f"{path} has neither keypoints nor VideoPose3D's positions_2d; it has "
            f"{', '.join(content) or 'nothing'}."
        )
    scores = next((content[name] for name in person_points.SCORES if name in content), None)
    keypoints = content[key]
    if isinstance(keypoints, np.ndarray) and keypoints.dtype.kind == "O":
        return _of_lists(path, keypoints, scores, content, joints)
    values = _with_confidence(path, keypoints, scores)
    values = values[None] if values.ndim == 3 else _people_first(values)
    joints = joints or _text(content.get("joint_set")) or ("coco" if _is_coco(values) else "")
    name, kept = _set_of(path, joints, values.shape[2])
    values = values[:, :, kept]
    people = [str(person) for person in np.ravel(content.get("people", np.arange(len(values))))]
    if len(set(people)) != len(values):
        raise UserError(f"{path}: {len(values)} people, but the ids {', '.join(people)}.")
    return _with_facts(path, Found(name, _by_frame(people, values)), content)


def _with_facts(path, found: Found, content: Mapping[str, Any]) -> Found:
    size, fps = content.get("image_size"), content.get("fps")
    if size is not None:
        found.sizes.add(_pair(path, size))
    if fps is not None:
        found.fps = _rate(path, fps)
    return found


def _rate(path, fps: Any) -> float:
    parts = np.ravel(np.asarray(fps, dtype=object))
    try:
        text = "/".join(str(part) for part in parts[:2]) if len(parts) == 2 else str(parts[0])
        return frame_numbers.rate(text)
    except (ValueError, IndexError) as error:
        raise UserError(f"{path}, fps: {fps!r} is no rate.") from error


def _set_of(path, joints: str, count: int) -> tuple[str, slice]:
    if not joints and count not in _IN_ARRAYS:
        raise UserError(
            f"{path}: several joint sets may have {count} points; name the right one with "
            "--joints, such as coco or human36m."
        )
    return named_set(path, joints or _IN_ARRAYS[count], count)


def _is_coco(values: np.ndarray) -> bool:
    """Tells COCO's 17 points by the first five: a face, with shoulders, hips and ankles below."""
    if values.shape[-2] != 17:
        return False
    points = values.reshape(-1, 17, 3)
    points = points[(points[..., 2] > 0).all(-1), :, :2]
    if len(points) < 1:
        return False
    whole, face = np.ptp(points, axis=1).max(-1), np.ptp(points[:, :5], axis=1).max(-1)
    rows = [points[:, part, 1].mean(1) for part in ([0, 1, 2, 3, 4], [5, 6], [11, 12], [15, 16])]
    upright = np.logical_and.reduce([a < b for a, b in itertools.pairwise(rows)])
    return bool(np.median(face / np.maximum(whole, 1e-9)) < 0.25 and upright.mean() > 0.8)


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
    if values.ndim not in (3, 4) or values.shape[-1] not in (2, 3, 4) or not values.size:
        raise UserError(
            f"{path}: keypoints have the shape {list(values.shape)}; give [frames, joints, 2 or 3] "
            "or [people, frames, joints, 2 or 3], with at least one frame."
        )
    if max(values.shape[:-2]) > LONGEST:
        raise UserError(f"{path}: {max(values.shape[:-2]):,} frames; at most {LONGEST:,} are read.")
    if confidence is not None:
        known = numbers(confidence, f"{path}, confidence")
        known = known[..., 0] if known.shape == (*values.shape[:-1], 1) else known
        if known.shape != values.shape[:-1]:
            raise UserError(
                f"{path}: confidence has the shape {list(known.shape)}, keypoints "
                f"{list(values.shape)}."
            )
        values = np.concatenate([values[..., :2], known[..., None]], -1)
    return cleaned(person_points.with_scores(values, None))


def _people_first(values: np.ndarray) -> np.ndarray:
    """Brings `[frames, people, ...]`, which moves less along its first axis, to people first."""
    first, second = values.shape[:2]
    if second == 1 < first:
        return values.swapaxes(0, 1)
    if min(first, second) < 2:
        return values

    def motion(array):
        both = (array[1:, ..., 2] > 0) & (array[:-1, ..., 2] > 0)
        return np.median(np.abs(np.diff(array[..., :2], axis=0)).sum(-1)[both]) if both.any() else 0

    across, along = motion(values), motion(values.swapaxes(0, 1))
    return values.swapaxes(0, 1) if _SMOOTHER * across < along else values


def _by_frame(people: Sequence[str], values: np.ndarray) -> dict[Hashable, list]:
    return {
        frame: [(person, points[frame]) for person, points in zip(people, values, strict=True)]
        for frame in range(values.shape[1])
    }


def _of_lists(path, keypoints, scores, content: Mapping[str, Any], joints: str) -> Found:
    """Reads an object array with the people of each frame, of any number."""
    frames: dict[Hashable, list[Person]] = {}
    counts, odd = set(), 0
    for frame, people in enumerate(np.ravel(keypoints) if keypoints.ndim == 1 else keypoints):
        frames[frame] = []
        known = None if scores is None else scores[frame]
        try:
            entry = {"keypoints": _plain(people), "scores": _plain(known)}
            for _, points in person_points.people_in(entry):
                frames[frame].append((None, cleaned(points)))
                counts.add(len(points))
        except person_points.Odd:
            odd += 1
    if len(counts) != 1:
        raise UserError(f"{path}: keypoints hold no people, or with different numbers of points.")
    everybody = np.array([points for people in frames.values() for _, points in people])
    joints = joints or _text(content.get("joint_set")) or (
        "coco" if _is_coco(everybody) else "")
    name, kept = _set_of(path, joints, counts.pop())
    frames = {frame: [(person, points[kept]) for person, points in people]
              for frame, people in frames.items()}
    notes = [f"{odd} frames could not be read"] if odd else []
    return _with_facts(path, Found(name, frames, notes=notes), content)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _detectron(path, content: Mapping[str, Any], joints: str) -> Found:
    """Reads the raw output of VideoPose3D's inference with Detectron.

    For each frame `keypoints[frame][class]` is `[people, 4, 17]`: x, y, logit and probability, and
    `boxes[frame][class]` `[people, 5]`, the score last; class 1 is a person.
    """
    frames: dict[Hashable, list[Person]] = {}
    counts = set()
    for frame, classes in enumerate(content["keypoints"]):
        scored: list[tuple[float, np.ndarray]] = []
        found = _plain(classes[1]) if len(classes) > 1 else []
        boxes = _plain(content["boxes"][frame][1]) if found else []
        for person, box in zip(found, boxes, strict=False):
            values = np.array(person, np.float64)
            if values.ndim != 2 or values.shape[0] not in (3, 4):
                continue
            points = np.stack([values[0], values[1], values[-1]], -1)
            counts.add(len(points))
            scored.append((float(box[-1]), cleaned(points)))
        scored.sort(key=lambda one: -one[0])
        frames[frame] = [(None, points) for _, points in scored]
    if not counts:
        raise UserError(f"{path}: no person in any of {len(frames)} frames.")
    metadata = content.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    name, kept = named_set(path, joints or "coco", counts.pop())
    frames = {frame: [(person, points[kept]) for person, points in people]
              for frame, people in frames.items()}
    result = Found(name, frames)
    if {"w", "h"} <= metadata.keys():
        result.sizes.add(_pair(path, (metadata["w"], metadata["h"])))
    return result


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
        name: _pair(path, (video.get("w"), video.get("h")))
        for name, video in (videos.items() if isinstance(videos, dict) else ())
        if isinstance(video, dict)
    }
    name, kept = named_set(path, joints, count)
    frames: dict[Hashable, list] = {}
    for person, points in tracks.items():
        for frame, found in enumerate(points[:, kept]):
            frames.setdefault(frame, []).append((person, found))
    found = Found(name, frames, set(sizes.values()))
    if len(found.sizes) > 1:
        of = {person: next((s for video, s in sizes.items() if _is_of(person, video)), None)
              for person in tracks}
        if all(of.values()):
            found.sizes, found.person_sizes = set(), of  # type: ignore[assignment]
    return found


def _is_of(person: str, video: str) -> bool:
    return person == video or person.startswith(f"{video} ")


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


def cleaned(points: np.ndarray) -> np.ndarray:
    """Zeroes unseen points `[..., joints, 3]` and cuts confidence at 1.

    Unseen are points of confidence 0, below, or not a number; points at no place, such as NaN; and
    those at 0, 0 or -1, -1, where detectors put what they did not find. COCO's annotations have
    visibility instead of confidence: 0, 1 (hidden, but marked by people) and 2.
    """
    places, confidence = points[..., :2], points[..., 2]
    with np.errstate(invalid="ignore"):
        seen = (confidence > 0) & (np.abs(places) <= LARGEST).all(-1)
        seen &= ~((places == 0).all(-1) | (places == -1).all(-1))
    cut = np.minimum(confidence, 1.0)
    return np.where(seen[..., None], np.concatenate([places, cut[..., None]], -1), 0.0)


def named_set(path, name: str, count: int) -> tuple[str, slice]:
    """Looks up a joint set that must have `count` points, and which of them are its own."""
    known = joint_sets.joint_set(name)
    own = len(known.joints)
    if own != count and _KEPT.get(count) != known.name:
        raise UserError(
            f"{path}: {count} points, but the joint set {known.name!r} has {own}."
        )
    return known.name, slice(own)
