"""Reads the 2D keypoints of a video from a detector's files as tracks of Human3.6M's 17 joints.

The content decides which form a file has:
  - JSON of COCO results, a list of {image_id, keypoints, score}, or COCO annotations with images;
  - JSON of AlphaPose, the same list with image_id "12.jpg" and, if it tracked, idx;
  - a folder of OpenPose files, one per frame, "..._000000000012_keypoints.json", from its models
    BODY_25, COCO or MPI;
  - JSON of AlphaPose with --format cmu or open, {"12.jpg": {bodies or people}}, or its sep-json;
  - `.npz` with `keypoints` [frames, joints, 2 or 3] or [people, frames, joints, 2 or 3], or
    VideoPose3D's `positions_2d` and `metadata`. Nothing in it is executed.

Coordinates are pixels. A point of confidence 0 was not seen and may hold anything; a frame without
a file or entry has no points. `track_id` or `idx` identifies people, otherwise the overlap of their
boxes from frame to frame (`follow`).
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.keypoints import keypoint_arrays, keypoint_json
from jaxcxr.pose.keypoints.keypoint_arrays import LARGEST, Found, Person

# Different people: boxes that overlap less, or centres more than half a box apart.
_OVERLAP, _FAR = 0.1, 0.5
_PATIENCE = 0.5  # seconds that a person may be out of sight

@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """One person from the first frame with any point found, number `start`, to the last.

    Attributes:
      keypoints: float64 `[frames, 17, 2]`, pixels, zero where unseen.
      confidence: float32 `[frames, 17]` in 0 to 1, 0 where unseen.
    """

    person: str
    start: int
    keypoints: np.ndarray
    confidence: np.ndarray


@dataclasses.dataclass(frozen=True)
class Video:
    """The people of one video, with the width and height of the image and the file's joint set."""

    path: pathlib.Path
    fps: float
    size: tuple[int, int]
    joint_set: str
    tracks: tuple[Track, ...]


def read(
    path: str | pathlib.Path,
    *,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
    joints: str = "",
) -> Video:
    """Reads the tracks in a file.

    Arguments:
      path: the file, or the folder of OpenPose's files.
      fps: frames per second; None to take it from an `.npz`.
      size: width and height of the image in pixels; None to take it from the file.
      joints: the joint set, see `joint_sets.joint_set`; "" to infer it from the number of points.
    """
    path = pathlib.Path(path).expanduser()
    if not path.exists():
        raise UserError(f"no keypoints at {path}; check the path.")
    if path.is_dir():
        found = keypoint_json.read_folder(path, joints)
    elif path.suffix == ".npz":
        found = keypoint_arrays.read_npz(path, joints)
    else:
        found = keypoint_json.read_file(path, joints)
    return _video(path, found, fps, size)


def from_json(
    content: bytes,
    name: str,
    *,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
    joints: str = "",
) -> Video:
    """Reads the tracks in the content of a JSON file."""
    path = pathlib.Path(name)
    return _video(path, keypoint_json.from_content(path, content, joints), fps, size)


def _video(path: pathlib.Path, found: Found, fps, size) -> Video:
    """Links the people of all frames to tracks."""
    size = _size(path, found.sizes, size)
    fps = check_fps(found.fps if fps is None else fps, str(path))
    people = follow(found.frames, fps)
    convert = joint_sets.to_human36m(found.joint_set)
    tracks = tuple(
        _track(path, person, places, convert) for person, places in sorted(
            people.items(), key=lambda item: _order(item[0])
        )
    )
    if not any(track.confidence.any() for track in tracks):
        raise UserError(f"{path}: no point of any person was found in any frame.")
    return Video(path, fps, size, found.joint_set, tracks)


def check_fps(fps: float | None, where: str) -> float:
    """Returns a frame rate if it is from 1 to 1,000."""
    if fps is None:
        raise UserError(f"{where} does not say its frames per second; give --fps, such as 30.")
    if not 1 <= fps <= 1000:
        raise UserError(f"{where}: {fps:g} frames per second; give a rate from 1 to 1,000.")
    return float(fps)


def _order(person: str) -> tuple:
    return (0, int(person), "") if person.isdecimal() else (1, 0, person)


def _size(path, sizes: set, size: tuple[int, int] | None) -> tuple[int, int]:
    if len(sizes) > 1:
        shown = ", ".join(f"{w}x{h}" for w, h in sorted(sizes)[:4])
        raise UserError(
            f"{path}: images of several sizes ({shown}); a video has one. Split the file."
        )
    if size is None:
        if not sizes:
            raise UserError(
                f"{path} does not say how large the image is; give --size, such as 1920x1080."
            )
        (size,) = sizes
    if not all(1 <= side <= LARGEST for side in size):
        raise UserError(f"{path}: an image of {size[0]}x{size[1]} pixels is not possible.")
    return size


def _track(path, person: str, places: Mapping[int, np.ndarray], convert) -> Track:
    start, end = min(places), max(places)
    points = np.zeros((end - start + 1, *next(iter(places.values())).shape))
    for frame, found in places.items():
        points[frame - start] = found
    keypoints, confidence = convert(points[..., :2], points[..., 2])
    return Track(person, start, keypoints, confidence.astype(np.float32))


def follow(frames: Mapping[int, Sequence[Person]], fps: float) -> dict[str, dict[int, np.ndarray]]:
    """Links people over time by their ids, or by position if they have none.

    A person without id continues the track with the largest overlap of boxes (intersection over
    union), else the one with the nearest centre; the best pairs are joined first. Boxes enclose
    only the points that both detections have, so partly found people continue their tracks.

    Returns:
      Id -> {frame: points}. People without id are numbered "0", "1", ... by first appearance,
      skipping ids in the file. Of an id that comes twice in a frame, the person with the greater
      sum of confidences stays.
    """
    tracks: dict[str, dict[int, np.ndarray]] = {}
    given = {person for people in frames.values() for person, _ in people if person is not None}
    patience = max(1, round(_PATIENCE * fps))
    free = (str(number) for number in range(len(given) + sum(map(len, frames.values()))))
    free = (name for name in free if name not in given)
    followed: dict[str, int] = {}  # track -> frame in which it was last seen
    for frame in sorted(frames):
        unnamed = []
        for person, points in frames[frame]:
            if not points[:, 2].any():
                continue
            if person is None:
                unnamed.append(points)
                continue
            track = tracks.setdefault(person, {})
            if frame not in track or points[:, 2].sum() > track[frame][:, 2].sum():
                track[frame] = points
        followed = {name: last for name, last in followed.items() if frame - last <= patience}
        before = {name: tracks[name][last] for name, last in followed.items()}
        for name, points in _continued(before, unnamed):
            name = next(free) if name is None else name
            tracks.setdefault(name, {})[frame] = points
            followed[name] = frame
    return tracks


def _continued(before: Mapping[str, np.ndarray], now: Sequence[np.ndarray]):
    """Pairs each detection with the track it continues, None for a new track."""
    scores = [
        (likeness(before[name], points), name, index)
        for name in before for index, points in enumerate(now)
    ]
    taken: dict[int, str] = {}
    for score, name, index in sorted(scores, key=lambda item: -item[0]):
        if score > 0 and index not in taken and name not in taken.values():
            taken[index] = name
    return [(taken.get(index), points) for index, points in enumerate(now)]


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Scores how likely two detections `[joints, 3]`, confidence last, are the same person.

    Returns:
      1 plus the intersection over union of the boxes around the common points, if that is at least
      0.1; otherwise 1 minus the distance of the centres over half a box, at least 0.
    """
    both = (a[:, 2] > 0) & (b[:, 2] > 0)
    if not both.any():
        return 0.0
    a, b = a[both, :2], b[both, :2]
    low, high = np.maximum(a.min(0), b.min(0)), np.minimum(a.max(0), b.max(0))
    shared = np.prod(np.maximum(high - low, 0))
    areas = np.prod(np.ptp(a, 0)) + np.prod(np.ptp(b, 0))
    overlap = shared / (areas - shared) if areas > shared else 0.0
    if overlap >= _OVERLAP:
        return 1.0 + float(overlap)
    reach = _FAR * max(1.0, *(float(np.linalg.norm(np.ptp(points, 0))) for points in (a, b)))
    apart = np.linalg.norm(a.mean(0) - b.mean(0))
    return max(0.0, 1.0 - float(apart / reach))
