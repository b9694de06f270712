"""2D keypoints of a video, as detectors and trackers write them: tracks of Human3.6M's 17 joints.

Read are, told apart by their content:
  - JSON of COCO results, a list of {image_id, keypoints, score}, or COCO's annotations with images;
  - JSON of AlphaPose, the same list with image_id "12.jpg" and, where it tracked, idx;
  - a folder of OpenPose's files, one a frame, "..._000000000012_keypoints.json", with the points
    of its models BODY_25, COCO or MPI;
  - JSON of AlphaPose with --format cmu or open, {"12.jpg": {bodies or people}}, or its sep-json;
  - `.npz` with `keypoints` [frames, joints, 2 or 3] or [people, frames, joints, 2 or 3], or
    VideoPose3D's `positions_2d` and `metadata`. Nothing in it is executed.

Coordinates are pixels. A point of confidence 0 was not seen and may hold anything; a frame that no
file or entry is about has no point at all. People are told apart by `track_id` or `idx`, else by
the overlap of their boxes from frame to frame (`follow`).
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.keypoints import keypoint_arrays, keypoint_tracks
from jaxcxr.pose.keypoints.keypoint_points import LARGEST, LONGEST, Found, named_set, triples

# Of a file that lists points without naming them, by their number; OpenPose's 18 are COCO's and a
# neck; the 133 and 136 of whole bodies begin with those of the body.
_LISTED = {17: ("coco", 17), 26: ("halpe26", 26), 133: ("coco", 17), 136: ("halpe26", 26)}
_OPENPOSE = {25: "openpose25", 18: "coco", 15: "openpose15"}
_PEOPLE = {"people": "pose_keypoints_2d", "bodies": "joints"}  # of an image; points of a person
_FROM_OPENPOSE18 = [0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10]

_NUMBER = re.compile(r"(\d+)(?!.*\d)")


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """One person, from the first to the last frame in which any of its points was found.

    Attributes:
      person: its id.
      start: first frame of the video that the arrays are about.
      keypoints: float64 `[frames, 17, 2]`, pixels, zero where unseen.
      confidence: float32 `[frames, 17]` in 0 to 1, 0 where unseen.
    """

    person: str
    start: int
    keypoints: np.ndarray
    confidence: np.ndarray


@dataclasses.dataclass(frozen=True)
class Video:
    """The people of one video.

    Attributes:
      path: the file or folder.
      fps: frames per second.
      size: width and height of the image, pixels.
      joint_set: which the points were given in.
      tracks: one for each person.
    """

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
    """The tracks of a file.

    Arguments:
      path: the file, or the folder of OpenPose's files.
      fps: frames per second; None: what an `.npz` says.
      size: width and height of the image, pixels; None: what the file says.
      joints: the joint set, see `joint_sets.joint_set`; "": told by the number of points.

    Raises:
      UserError: no such file, none of these forms, points of another number, not finite, no person
        in it, or a size or a frame rate that nothing tells.
    """
    path = pathlib.Path(path).expanduser()
    if not path.exists():
        raise UserError(f"no keypoints at {path}; check the path.")
    if path.is_dir():
        found = _folder(path, joints)
    elif path.suffix == ".npz":
        found = keypoint_arrays.read_npz(path, joints)
    else:
        found = _one_file(path, _json(path), joints)
    return _video(path, found, fps, size)


def from_json(
    content: bytes,
    name: str,
    *,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
    joints: str = "",
) -> Video:
    """The tracks of the content of a JSON file of a whole video.

    Arguments:
      content: of the file.
      name: what it is called in messages, and `path` of the result.
      fps, size, joints: as in `read`.

    Raises:
      UserError: as `read`.
    """
    path = pathlib.Path(name)
    return _video(path, _one_file(path, _parsed(content, path), joints), fps, size)


def _video(path: pathlib.Path, found: Found, fps, size) -> Video:
    """The people that were found, each with a track."""
    size = _size(path, found.sizes, size)
    fps = check_fps(found.fps if fps is None else fps, str(path))
    people = keypoint_tracks.follow(found.frames, fps)
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
    """A frame rate from 1 to 1,000.

    Raises:
      UserError: none, or another.
    """
    if fps is None:
        raise UserError(f"{where} does not say its frames per second; give --fps, such as 30.")
    if not 1 <= fps <= 1000:
        raise UserError(f"{where}: {fps:g} frames per second; from 1 to 1,000 are possible.")
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


def _json(path: pathlib.Path) -> Any:
    try:
        return _parsed(path.read_bytes(), path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error


def _parsed(content: bytes, path: pathlib.Path) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON file ({error}); write it anew.") from error


def _one_file(path: pathlib.Path, content: Any, joints: str) -> Found:
    """JSON of a whole video."""
    if isinstance(content, dict) and content and all(
        _bodies(image) is not None for image in content.values()
    ):
        named = ((name, image, f"{path}, {name}") for name, image in content.items())
        return _by_image(path, named, joints)
    return _listed(path, content, joints)


def _listed(path: pathlib.Path, content: Any, joints: str) -> Found:
    """COCO's results or annotations, or AlphaPose's list."""
    entries, images = content, {}
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        entries, images = content["annotations"], _images(path, content.get("images", []))
    if not isinstance(entries, list) or not entries:
        raise UserError(
            f"{path}: neither a list of people with image_id and keypoints (COCO, AlphaPose) nor "
            "COCO's annotations; or it is empty. OpenPose's files are given by their folder."
        )
    rows = []
    for number, entry in enumerate(entries):
        where = f"{path}, entry {number}"
        if not isinstance(entry, dict) or not {"image_id", "keypoints"} <= entry.keys():
            raise UserError(f"{where}: a person needs image_id and keypoints.")
        points = triples(entry["keypoints"], where)
        if rows and len(points) != len(rows[0][2]):
            raise UserError(
                f"{where}: {len(points)} points, but {len(rows[0][2])} in those before."
            )
        image = entry["image_id"]
        if not isinstance(image, str | int) or isinstance(image, bool):
            raise UserError(f"{where}: image_id must be a number or a file name, not {image!r}.")
        name = images.get(image, (image, None))[0]
        rows.append((_frame(name, where), _person(entry), points))
    count = len(rows[0][2])
    if joints:
        name = named_set(path, joints, count)
    elif count in _LISTED:
        name, kept = _LISTED[count]
        rows = [(frame, person, points[:kept]) for frame, person, points in rows]
    else:
        raise UserError(
            f"{path}: {count} points; {', '.join(map(str, _LISTED))} are known in such a list. "
            "Name others by --joints."
        )
    frames: dict[int, list] = {}
    for frame, person, points in rows:
        frames.setdefault(frame, []).append((person, points))
    sizes = {size for _, size in images.values() if size is not None}
    return Found(name, _checked_span(path, frames), sizes)


def _images(path, entries: Any) -> dict:
    """COCO's list of images: id -> (file name or id, size or None)."""
    found = {}
    for number, image in enumerate(entries if isinstance(entries, list) else []):
        where = f"{path}, image {number}"
        if not isinstance(image, dict) or not isinstance(image.get("id"), int | str):
            raise UserError(f"{where}: an image needs an id.")
        size = (image.get("width"), image.get("height"))
        if not all(isinstance(side, int) for side in size):
            size = None
        found[image["id"]] = (image.get("file_name", image["id"]), size)
    return found


def _frame(image: Any, where: str) -> int:
    """Number of the frame: the last number in the name of the image."""
    if isinstance(image, str):
        match = _NUMBER.search(pathlib.PurePath(image).stem)
        image = int(match[1]) if match and len(match[1]) <= 18 else None
    if not isinstance(image, int) or image < 0:
        raise UserError(
            f"{where}: the image has no number by which frames could be ordered; names such as "
            '"000012.jpg" have.'
        )
    return image


def _person(entry: Mapping) -> str | None:
    """The id that a tracker gave: `track_id`, or AlphaPose's `idx`, which may be a list."""
    for key in ("track_id", "idx"):
        value = entry.get(key)
        while isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int | str) and not isinstance(value, bool):
            return str(value)
    return None


def _checked_span(path, frames: dict[int, list]) -> dict[int, list]:
    """The frames counted from the first; a video has no gap of hours."""
    first, last = min(frames), max(frames)
    if last - first >= min(LONGEST, 1000 + 100 * len(frames)):
        raise UserError(
            f"{path}: {len(frames)} frames numbered {first} to {last} are no video; number "
            "frames one after the other."
        )
    return {frame - first: people for frame, people in frames.items()}


def _folder(folder: pathlib.Path, joints: str) -> Found:
    """OpenPose's files, or those of AlphaPose's sep-json, one for each frame."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise UserError(f"{folder}: no .json file in it; OpenPose writes one for each frame.")
    named = ((file.stem.removesuffix("_keypoints"), _json(file), str(file)) for file in files)
    return _by_image(folder, named, joints)


def _bodies(content: Any) -> list | None:
    """People of one image, in the forms of OpenPose, and of AlphaPose with --format cmu."""
    found = [content.get(key) for key in _PEOPLE] if isinstance(content, dict) else []
    return next((people for people in found if isinstance(people, list)), None)


def _by_image(
    path: pathlib.Path, named: Iterable[tuple[str, Any, str]], joints: str
) -> Found:
    """People of images: the name of each image, its content, and where that stands."""
    frames: dict[int, list] = {}
    counts: set[int] = set()
    for name, content, where in named:
        people = _bodies(content)
        if people is None:
            raise UserError(f"{where}: no list of people, which OpenPose's files have.")
        frame = _frame(name, where)
        if frame in frames:
            raise UserError(f"{where}: another part of {path} is about frame {frame} too.")
        frames[frame] = []
        for person in people:
            listed = [person.get(key) for key in _PEOPLE.values()] if isinstance(person, dict) \
                else []
            listed = [values for values in listed if values is not None]
            if not listed:
                raise UserError(f"{where}: a person without pose_keypoints_2d or joints.")
            points = triples(listed[0], where)
            counts.add(len(points))
            if len(counts) > 1:
                raise UserError(
                    f"{where}: {len(points)} points, but {min(counts - {len(points)})} before."
                )
            frames[frame].append((_openpose_id(person), points))
    if not counts:
        raise UserError(f"{path}: no person in any of {len(frames)} frames.")
    (count,) = counts
    if joints:
        name = named_set(path, joints, count)
    elif count in _OPENPOSE:
        name = _OPENPOSE[count]
    else:
        raise UserError(
            f"{path}: {count} points; OpenPose's 25 (BODY_25), 18 (COCO) and 15 (MPI) are read."
        )
    if count == 18:
        frames = {
            frame: [(person, points[_FROM_OPENPOSE18]) for person, points in people]
            for frame, people in frames.items()
        }
    return Found(name, _checked_span(path, frames))


def _openpose_id(person: Mapping) -> str | None:
    """OpenPose's person_id is [-1] where it did not track."""
    return _person({"idx": person.get("person_id")}) if person.get("person_id") != [-1] else None


