"""Reads 2D keypoints in the JSON of detectors; the forms: `keypoint_files`."""

import itertools
import json
import pathlib
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.keypoints import keypoint_arrays, person_points
from jaxcxr.pose.keypoints import people as follow
from jaxcxr.pose.keypoints.keypoint_arrays import Found, Person, cleaned, named_set
from jaxcxr.pose.keypoints.person_points import Odd

# Joint set by the number of points; OpenPose's 18 points are COCO's and a neck.
_SETS = {17: "coco", 26: "halpe26", 33: "mediapipe33", 25: "openpose25", 15: "openpose15",
         133: "coco", 136: "halpe26", 16: "mpii"}
_FROM_OPENPOSE18 = [0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10]
_IMAGE = (
    "image_id", "frame_id", "frame", "frame_number", "frame_idx", "frame_index", "frameId",
    "image", "image_name", "file_name", "filename", "image_path", "img_name", "imgname",
)
_TIMES = {"timestamp_ms": 1e-3, "timestampMs": 1e-3, "timestamp_s": 1.0, "seconds": 1.0}
_LISTS = ("instance_info", "frames", "data", "images", "results", "predictions")
_DATA_SETS = {"h36m": "human36m", "coco_wholebody": "coco", "halpe": "halpe26"}
_BAD_SHOWN = 0.5  # share of odd entries from which a file is refused



class Lone(list):
    """One person who is an entry of its own, without a list of people around."""


Image = tuple[Hashable, Any, float | None, str]  # name, entries, seconds, place for messages


def read_file(path: pathlib.Path, joints: str) -> Found:
    """Reads the people in the JSON of a whole video; errors as in `keypoint_files.read`."""
    return from_json(path, _load(path), joints)


def from_content(path: pathlib.Path, content: bytes, joints: str) -> Found:
    """Reads the people in the content of such a file; `path` is its name in messages."""
    return from_json(path, _parsed(content, path), joints)


def read_folder(folder: pathlib.Path, joints: str) -> Found:
    """Reads a folder of files, one per frame."""
    files = sorted(folder.glob("*.json"))

    def images() -> Iterator[Image]:
        for file in files:
            try:
                content = _load(file)
            except UserError as error:
                yield file.stem.removesuffix("_keypoints"), error, None, str(file)
                continue
            name = file.stem.removesuffix("_keypoints")
            for _, entries, seconds, where in _images(content, str(file), alone=True):
                yield name, entries, seconds, where

    found = _collected(folder, images(), joints)
    names = {file.stem.removesuffix("_keypoints") for file in files}
    return _without_empty(found, names)


def _without_empty(found: Found, names: set) -> Found:
    for name in sorted(names - found.frames.keys()):
        found.frames[name] = []
    return found


def _load(path: pathlib.Path) -> Any:
    try:
        return _parsed(path.read_bytes(), path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error


def _parsed(content: bytes, path: pathlib.Path) -> Any:
    try:
        text = content.decode("utf-8-sig")
        try:
            return json.loads(text)
        except ValueError:
            lines = [line for line in text.splitlines() if line.strip()]
            if len(lines) < 2:
                raise
            return [json.loads(line) for line in lines]  # JSON Lines
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no valid JSON ({error}); write it again.") from error


def from_json(path: pathlib.Path, content: Any, joints: str) -> Found:
    """Reads the people in the parsed JSON of a whole video."""
    arrays = _as_arrays(content)
    if arrays is not None:
        return keypoint_arrays.of_arrays(path, arrays, joints)
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        return _coco(path, content, joints)
    about = content.get("meta_info") if isinstance(content, dict) else None
    found = _collected(path, _images(content, str(path)), joints, about or {})
    if about and 0 not in found.frames and all(isinstance(n, int) for n in found.frames):
        # mmpose's --save-predictions counts frames from 1.
        found.frames = {name - 1: people for name, people in found.frames.items()}  # type: ignore[operator]
    if isinstance(content, dict):
        size: Any = content.get("image_size") or (content.get("width"), content.get("height"))
        if _is_size(size):
            found.sizes.add((int(size[0]), int(size[1])))
    return found


def _is_size(size: Any) -> bool:
    return isinstance(size, list | tuple) and len(size) == 2 and all(
        isinstance(side, int | float) and side > 0 for side in size)


def _as_arrays(content: Any) -> dict | None:
    """Finds numbers nested as in an `.npz`: [frames, joints, 2] or deeper."""
    values = content.get("keypoints") if isinstance(content, dict) else content
    depth, part = 0, values
    while isinstance(part, list) and part:
        depth, part = depth + 1, next((p for p in part if p not in (None, [])), None)
    if depth not in (3, 4) or not isinstance(part, int | float):
        return None
    return content if isinstance(content, dict) else {"keypoints": content}


def _coco(path: pathlib.Path, content: dict, joints: str) -> Found:
    """Reads COCO's annotations with their images."""
    images = _coco_images(path, content.get("images") or [])

    def listed() -> Iterator[Image]:
        for number, entry in enumerate(content["annotations"]):
            image = entry.get("image_id") if isinstance(entry, dict) else None
            name = images.get(image, (image, None))[0]
            yield name, [entry], None, f"{path}, entry {number}"

    found = _collected(path, listed(), joints)
    found.sizes = {size for _, size in images.values() if size is not None}
    return found


def _coco_images(path, entries: Any) -> dict:
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


def _images(content: Any, where: str, alone: bool = False) -> Iterator[Image]:
    """Yields the images in any form of JSON; one without a name is None."""
    if content and isinstance(content, dict):
        key = next((name for name in _LISTS if isinstance(content.get(name), list)), None)
        if key is not None and not _names_image(content):
            yield from _images(content[key], where, alone)
        elif _is_image(content) or any(content.get(name) is not None
                                       for name in person_points.POINTS):
            yield None if alone else _name(content), _people(content), _seconds(content), where
        else:
            for name, image in content.items():
                people = _people(image) if isinstance(image, dict) else image
                yield name, people, None, f"{where}, {name}"
        return
    if alone and isinstance(content, list) and (
        not content or all(isinstance(entry, dict) for entry in content)
    ):
        yield None, content, None, where
        return
    if not isinstance(content, list) or not content:
        raise UserError(
            f"{where}: neither a list of people with image_id and keypoints (COCO, AlphaPose, "
            "mmpose, Ultralytics, MediaPipe) nor COCO annotations, or it is empty."
        )
    for number, entry in enumerate(content):
        place = f"{where}, entry {number}"
        if isinstance(entry, str):  # Ultralytics' Results.to_json() is text
            try:
                entry = json.loads(entry)
            except ValueError:
                yield None, Odd("it is text."), None, place
                continue
        if isinstance(entry, dict):
            yield _name(entry), _people(entry), _seconds(entry), place
        elif isinstance(entry, list) and entry and isinstance(entry[0], dict) and "x" in entry[0]:
            yield None, [{"landmarks": entry}], None, place
        else:
            yield None, entry, None, place


def _is_image(entry: Mapping) -> bool:
    return any(isinstance(entry.get(key), list) for key in person_points.PEOPLE)


def _people(entry: Mapping) -> Any:
    """Finds the list of people of an entry, which may be one person itself."""
    key = next((key for key in person_points.PEOPLE if isinstance(entry.get(key), list)), None)
    return Lone([entry]) if key is None else entry[key]


def _names_image(entry: Mapping) -> bool:
    return any(entry.get(key) is not None for key in _IMAGE)


def _name(entry: Mapping) -> Hashable:
    for key in _IMAGE:
        value = entry.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int | str | float) and not isinstance(value, bool):
            return int(value) if isinstance(value, str) and value.isdecimal() else value
    return None


def _seconds(entry: Mapping) -> float | None:
    for key, unit in _TIMES.items():
        if isinstance(entry.get(key), int | float):
            return entry[key] * unit
    return None


def _collected(
    path: pathlib.Path, images: Iterator[Image], joints: str, about: Mapping | None = None
) -> Found:
    """Gathers the people of all images; an odd entry costs one entry."""
    rows: list[tuple[Hashable, list[Person]]] = []
    odd: list[str] = []
    entries_read, times, lone = 0, {}, True
    for number, (name, entries, seconds, where) in enumerate(images):
        people: list[Person] = []
        if isinstance(entries, UserError):
            odd.append(f"{where}: {entries}")
            entries = []
        lone &= isinstance(entries, Lone)
        for entry in entries if isinstance(entries, list) else [entries] if entries else []:
            if not entry:
                continue
            try:
                if not isinstance(entry, Mapping):
                    raise Odd("it is no person with keypoints.")
                people += person_points.people_in(entry)
                entries_read += 1
            except Odd as error:
                odd.append(f"{where}: {error}")
        if seconds is not None:
            times[name if name is not None else number] = seconds
        rows.append((name, people))
    names = [name for name, _ in rows]
    if names and all(name is None for name in names):
        _check_frames(path, [people for _, people in rows], lone)
        rows = [(number, people) for number, (_, people) in enumerate(rows)]
    frames: dict[Hashable, list[Person]] = {}
    for name, people in rows:
        if name is None:
            odd += [f"{path}: an entry does not say of which image it is."]
            continue
        frames.setdefault(name, []).extend(people)
    if odd and (len(odd) > _BAD_SHOWN * max(1, entries_read) or not any(frames.values())):
        raise UserError(odd[0])
    found = _of_one_set(path, frames, joints, odd, about or {})
    if len(times) == len(frames) > 1 and len(set(times.values())) == len(frames):
        found.frames = {float(times[name]): people for name, people in found.frames.items()}
    return found


def _check_frames(path, people: list[list[Person]], lone: bool) -> None:
    """Refuses people without an image who may be those of one image, not one in each frame."""
    alone = [one[0][1] for one in people if len(one) == 1]
    if not lone or len(people) < 2 or len(alone) < len(people):
        return
    alike = [follow.likeness(cleaned(a), cleaned(b)) for a, b in itertools.pairwise(alone)
             if len(a) == len(b)]
    if np.mean([score > 1.3 for score in alike] or [False]) < 0.8:
        raise UserError(
            f"{path}: people without the image they are in; give each image_id or frame_id, the "
            "number of its frame."
        )


def _of_one_set(path, frames, joints: str, odd: list[str], about: Mapping) -> Found:
    """Keeps the people with the usual number of points, and names their joint set."""
    counts: dict[int, int] = {}
    for people in frames.values():
        for _, points in people:
            counts[len(points)] = counts.get(len(points), 0) + 1
    if not counts:
        raise UserError(f"{path}: no person in any of {len(frames)} frames.")
    count = max(counts, key=lambda number: counts[number])
    if len(counts) > 1:
        others = sum(counts.values()) - counts[count]
        text = f"{path}: {others} people have another number of points than {count}"
        if others > _BAD_SHOWN * counts[count]:
            raise UserError(f"{text}; give one joint set per file.")
        odd.append(text)
        frames = {name: [one for one in people if len(one[1]) == count]
                  for name, people in frames.items()}
    notes = [f"{len(odd)} entries could not be read, such as {odd[0]}"] if odd else []
    named = _named(about, count)
    name, order = named or _set_of(path, joints, count)
    frames = {
        image: [(person, cleaned(points)[order]) for person, points in people]
        for image, people in frames.items()
    }
    return Found(name, frames, notes=notes)


def _named(about: Mapping, count: int) -> tuple[str, Any] | None:
    """Derives the joint set from mmpose's names of the points or of the data set."""
    names = about.get("keypoint_id2name")
    if isinstance(names, Mapping) and len(names) == count:
        ordered = [str(names[key]) for key in sorted(names, key=int)]
        places = np.arange(count, dtype=float)[:, None]
        known = person_points.named_points(ordered, np.concatenate([places + 1] * 3, -1))
        if known is not None and (known[1][:, 0] > 0).all():
            return known[0], (known[1][:, 0] - 1).astype(int)
    name = str(about.get("dataset_name", ""))
    if _DATA_SETS.get(name, name) == "human36m" and count == 17:
        return "human36m", slice(None)
    return None


def _set_of(path, joints: str, count: int) -> tuple[str, Any]:
    """Returns the joint set and the points to keep of it."""
    if count == 18 and joints in ("", "coco"):
        return "coco", _FROM_OPENPOSE18
    if count not in _SETS and not joints:
        raise UserError(
            f"{path}: {count} points; {', '.join(map(str, _SETS))} are known in such a file. "
            "Name other joint sets with --joints."
        )
    return named_set(path, joints or _SETS[count], count)
