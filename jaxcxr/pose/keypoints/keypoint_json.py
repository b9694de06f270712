"""Reads 2D keypoints in the JSON of COCO, AlphaPose and OpenPose; the forms: `keypoint_files`."""

import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.keypoints.keypoint_arrays import LONGEST, Found, named_set, triples

# Joint set and points to keep, by the number of points in a list; the 133 and 136 points of whole
# bodies begin with the body's. OpenPose's 18 points are COCO's and a neck.
_LISTED = {17: ("coco", 17), 26: ("halpe26", 26), 133: ("coco", 17), 136: ("halpe26", 26)}
_OPENPOSE = {25: "openpose25", 18: "coco", 15: "openpose15"}
_PEOPLE = {"people": "pose_keypoints_2d", "bodies": "joints"}  # list of people -> their points
_FROM_OPENPOSE18 = [0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10]

_NUMBER = re.compile(r"(\d+)(?!.*\d)")


def read_file(path: pathlib.Path, joints: str) -> Found:
    """Reads the people in the JSON of a whole video; errors as in `keypoint_files.read`."""
    return _of_video(path, _load(path), joints)


def from_content(path: pathlib.Path, content: bytes, joints: str) -> Found:
    """Reads the people in the content of such a file; `path` is its name in messages."""
    return _of_video(path, _parsed(content, path), joints)


def _load(path: pathlib.Path) -> Any:
    try:
        return _parsed(path.read_bytes(), path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error


def _parsed(content: bytes, path: pathlib.Path) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no valid JSON ({error}); write it again.") from error


def _of_video(path: pathlib.Path, content: Any, joints: str) -> Found:
    if isinstance(content, dict) and content and all(
        _bodies(image) is not None for image in content.values()
    ):
        named = ((name, image, f"{path}, {name}") for name, image in content.items())
        return _by_image(path, named, joints)
    return _listed(path, content, joints)


def _listed(path: pathlib.Path, content: Any, joints: str) -> Found:
    """Reads COCO's results or annotations, or AlphaPose's list."""
    entries, images = content, {}
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        entries, images = content["annotations"], _images(path, content.get("images", []))
    if not isinstance(entries, list) or not entries:
        raise UserError(
            f"{path}: neither a list of people with image_id and keypoints (COCO, AlphaPose) nor "
            "COCO annotations, or it is empty. For OpenPose, give the folder of its files."
        )
    rows: list[tuple[int, str | None, np.ndarray]] = []
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
            "Name other joint sets with --joints."
        )
    frames: dict[int, list] = {}
    for frame, person, points in rows:
        frames.setdefault(frame, []).append((person, points))
    sizes = {size for _, size in images.values() if size is not None}
    return Found(name, _checked_span(path, frames), sizes)


def _images(path, entries: Any) -> dict:
    """Reads COCO's list of images: id -> (file name or id, size or None)."""
    found = {}
    for number, image in enumerate(entries if isinstance(entries, list) else []):
        where = f"{path}, image {number}"
        if not isinstance(image, dict) or not isinstance(image.get("id"), int | str):
            raise UserError(f"{where}: an image needs an id.")
        width, height = image.get("width"), image.get("height")
        size = (width, height) if isinstance(width, int) and isinstance(height, int) else None
        found[image["id"]] = (image.get("file_name", image["id"]), size)
    return found


def _frame(image: Any, where: str) -> int:
    """Reads the number of a frame, the last number in the image's name."""
    if isinstance(image, str):
        match = _NUMBER.search(pathlib.PurePath(image).stem)
        image = int(match[1]) if match and len(match[1]) <= 18 else None
    if not isinstance(image, int) or image < 0:
        raise UserError(
            f"{where}: the image has no number to order frames by; name images such as "
            '"000012.jpg".'
        )
    return image


def _person(entry: Mapping) -> str | None:
    """Reads a tracker's id: `track_id`, or AlphaPose's `idx`, which may be a list."""
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
    """Counts frames from the first; refuses gaps too long for one video."""
    first, last = min(frames), max(frames)
    if last - first >= min(LONGEST, 1000 + 100 * len(frames)):
        raise UserError(
            f"{path}: {len(frames)} frames numbered {first} to {last} are not one video; number "
            "frames consecutively."
        )
    return {frame - first: people for frame, people in frames.items()}


def read_folder(folder: pathlib.Path, joints: str) -> Found:
    """Reads OpenPose's files or AlphaPose's sep-json, one file per frame."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise UserError(f"{folder} has no .json file; OpenPose writes one per frame.")
    named = ((file.stem.removesuffix("_keypoints"), _load(file), str(file)) for file in files)
    return _by_image(folder, named, joints)


def _bodies(content: Any) -> list | None:
    """Finds the people of one image as OpenPose and AlphaPose's --format cmu list them."""
    found = [content.get(key) for key in _PEOPLE] if isinstance(content, dict) else []
    return next((people for people in found if isinstance(people, list)), None)


def _by_image(
    path: pathlib.Path, named: Iterable[tuple[str, Any, str]], joints: str
) -> Found:
    """Reads people image by image: name of each, its content, and its place for messages."""
    frames: dict[int, list] = {}
    counts: set[int] = set()
    for name, content, where in named:
        people = _bodies(content)
        if people is None:
            raise UserError(f"{where}: no list of people, as in OpenPose's files.")
        frame = _frame(name, where)
        if frame in frames:
            raise UserError(f"{where}: frame {frame} comes twice in {path}.")
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
            f"{path}: {count} points, but OpenPose has 25 (BODY_25), 18 (COCO) or 15 (MPI); name "
            "other joint sets with --joints."
        )
    if count == 18:
        frames = {
            frame: [(person, points[_FROM_OPENPOSE18]) for person, points in people]
            for frame, people in frames.items()
        }
    return Found(name, _checked_span(path, frames))


def _openpose_id(person: Mapping) -> str | None:
    """Reads OpenPose's person_id, which is [-1] without tracking."""
    return _person({"idx": person.get("person_id")}) if person.get("person_id") != [-1] else None
