"""Reads the 2D keypoints of a video from a detector's files as tracks of Human3.6M's 17 joints.

The content decides which form a file has:
  - JSON of COCO results, a list of {image_id, keypoints, score}, or COCO annotations with images,
    of 17, 26 (Halpe), 133 (COCO-WholeBody) or 136 points;
  - JSON of AlphaPose, the same list with image_id "12.jpg" and, if it tracked, idx; with --format
    cmu or open, {"12.jpg": {bodies or people}}, or its sep-json;
  - JSON of mmpose: its inferencer's list of {frame_id, instances}, or --save-predictions' with
    meta_info and instance_info;
  - JSON of Ultralytics: a list of Results.to_json(), one per frame, or its folder of save_txt;
  - JSON of MediaPipe's 33 landmarks, as dicts with x, y and visibility, from 0 to 1;
  - a folder of files, one per frame, such as OpenPose's "..._000000000012_keypoints.json", from its
    models BODY_25, COCO or MPI;
  - tables of DeepLabCut and SLEAP (.csv, .h5) whose body parts have the names of a joint set;
  - `.npz` or `.npy` with `keypoints` [frames, joints, 2 or 3] or [people, frames, joints, 2 or 3],
    VideoPose3D's `positions_2d` and `metadata`, or its raw detections. Nothing in it is executed.

Coordinates are pixels, or from 0 to 1 throughout. A point was not seen if its confidence is 0, if
it is no number, or if it lies at 0, 0 or -1, -1; a frame without a file or entry has no points.
Short gaps are filled (`gaps`). Ids identify people, otherwise the overlap of their boxes from frame
to frame (`people.follow`).
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.keypoints import (
    frame_numbers,
    gaps,
    keypoint_arrays,
    keypoint_json,
    keypoint_tables,
    people,
    plausibility,
)
from jaxcxr.pose.keypoints.keypoint_arrays import LARGEST, LONGEST, Found

_VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
_DETECT = (
    "is a video; detect keypoints first, for example with `pip install ultralytics` and "
    "`yolo pose predict model=yolo11n-pose.pt source={name} save_txt save_conf`, and give the "
    "folder of labels that it writes, with --size and --fps of the video."
)


@dataclasses.dataclass(frozen=True)
class Options:
    """How a file is to be read.

    Attributes:
      fps: frames per second; None to take it from the file.
      size: width and height of the image in pixels; None to take it from the file.
      joints: the joint set, see `joint_sets.joint_set`; "" to infer it.
      fill: longest gap in seconds that is filled.
      rotate: clockwise turn of the image, degrees; None refuses people who lie throughout.
      min_seconds, min_score: see `people.without_ghosts`.
    """

    fps: float | None = None
    size: tuple[int, int] | None = None
    joints: str = ""
    fill: float = gaps.LONGEST
    rotate: int | None = None
    min_seconds: float | None = None
    min_score: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """One person from the first frame with any point found, number `start`, to the last.

    Attributes:
      keypoints: float64 `[frames, 17, 2]`, pixels, zero where neither seen nor filled.
      confidence: float32 `[frames, 17]` in 0 to 1, 0 where unseen.
      state: uint8 `[frames]`, `gaps.SEEN`, `FILLED` or `ABSENT`; None: seen where any joint is.
      size: of the image, if the people of a file are of images of several sizes.
    """

    person: str
    start: int
    keypoints: np.ndarray
    confidence: np.ndarray
    state: np.ndarray | None = None
    size: tuple[int, int] | None = None

    @property
    def known(self) -> np.ndarray:
        """Which joints were seen or filled, bool `[frames, 17]`."""
        return (self.keypoints != 0).any(-1) | (self.confidence > 0)

    @property
    def states(self) -> np.ndarray:
        """The state of each frame, uint8 `[frames]`."""
        if self.state is not None:
            return self.state
        return np.where((self.confidence > 0).any(1), gaps.SEEN, gaps.ABSENT).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Video:
    """The people of one video, with the width and height of the image and the file's joint set.

    Rows of tracks are `step` frames of the video apart and `fps` per second. `notes` are sentences
    on what was read differently from what it says, or not at all.
    """

    path: pathlib.Path
    fps: float
    size: tuple[int, int]
    joint_set: str
    tracks: tuple[Track, ...]
    step: int = 1
    notes: tuple[str, ...] = ()

    def frames(self, track: Track) -> np.ndarray:
        """The number in the video of each row of a track, int64."""
        return track.start + self.step * np.arange(len(track.keypoints))

    def size_of(self, track: Track) -> tuple[int, int]:
        """Width and height of the image of a track."""
        return track.size or self.size


def read(path: str | pathlib.Path, options: Options | None = None, **changes) -> Video:
    """Reads the tracks in a file, or in the folder of a detector's files.

    Arguments:
      options: how; `changes` replace attributes of it.
    """
    options = dataclasses.replace(options or Options(), **changes)
    path = pathlib.Path(path).expanduser()
    if not path.exists():
        raise UserError(f"no keypoints at {path}; check the path.")
    return _video(path, _found(path, options.joints), options)


def _found(path: pathlib.Path, joints: str) -> Found:
    suffix = path.suffix.lower()
    if path.is_dir():
        if any(path.glob("*.json")):
            return keypoint_json.read_folder(path, joints)
        if any(path.glob("*.txt")):
            return keypoint_tables.read_labels(path, joints)
        raise UserError(f"{path} has no .json or .txt file; detectors write one per frame.")
    if suffix in (".npz", ".npy"):
        return keypoint_arrays.read_npz(path, joints)
    if suffix in _VIDEOS:
        raise UserError(f"{path} {_DETECT.format(name=path.name)}")
    if suffix in (".csv", ".h5", ".hdf5"):
        return keypoint_tables.read_table(path)
    return keypoint_json.read_file(path, joints)


def from_json(
    content: bytes, name: str, options: Options | None = None, **changes
) -> Video:
    """Reads the tracks in the content of a JSON file."""
    options = dataclasses.replace(options or Options(), **changes)
    path = pathlib.Path(name)
    return _video(path, keypoint_json.from_content(path, content, options.joints), options)


def _video(path: pathlib.Path, found: Found, options: Options) -> Video:
    """Links the people of all frames to tracks."""
    given = found.fps if options.fps is None else options.fps
    if given is not None:
        check_fps(given, str(path))
    numbering = frame_numbers.number(list(found.frames), given, str(path))
    fps = check_fps(numbering.fps, str(path))
    notes = [*found.notes, *filter(None, [numbering.note])]
    size = _size(path, found, options.size)
    frames = _by_frame(path, found, numbering)
    tracks = people.follow(frames, fps)
    if len(tracks) >= 10 and np.median([len(places) for places in tracks.values()]) == 1:
        raise UserError(
            f"{path}: nobody can be followed from frame to frame ({len(tracks)} people in "
            f"{len(frames)} frames numbered {', '.join(map(str, sorted(frames)[:4]))}, ...); check "
            "--fps and the numbers of the images."
        )
    tracks, more = people.repaired(tracks, fps)
    tracks, ghosts = people.without_ghosts(tracks, fps, options.min_seconds, options.min_score)
    notes += more + ghosts
    if not tracks:
        raise UserError(f"{path}: no point of any person was found in any frame.")
    sizes = found.person_sizes
    placed = _plausible(path, tracks, sizes, size, options.rotate, notes)
    convert = joint_sets.to_human36m(found.joint_set)
    made = []
    for person, points in sorted(placed.items(), key=lambda item: _order(item[0])):
        own = _turned(sizes[person], options.rotate) if person in sizes else None
        made.append(_track(person, points, convert, numbering, fps, options, own))
    if options.rotate is None:
        for track in made:
            plausibility.check_upright(
                track.keypoints, track.confidence, f"{path}, person {track.person}"
            )
    step = 1 if numbering.seconds else numbering.step
    return Video(path, fps, _turned(size, options.rotate), found.joint_set, tuple(made), step,
                 tuple(notes))


def _turned(size: tuple[int, int], rotate: int | None) -> tuple[int, int]:
    return size[::-1] if rotate in (90, 270) else size


def check_fps(fps: float | None, where: str) -> float:
    """Returns a frame rate if it is from 1 to 1,000."""
    if fps is None:
        raise UserError(f"{where} does not say its frames per second; give --fps, such as 30.")
    if not 1 <= fps <= 1000:
        raise UserError(f"{where}: {fps:g} frames per second; give a rate from 1 to 1,000.")
    return float(fps)


def _order(person: str) -> tuple:
    return (0, int(person), "") if person.isdecimal() else (1, 0, person)


def _size(path, found: Found, size: tuple[int, int] | None) -> tuple[int, int]:
    sizes = found.sizes
    if found.person_sizes:
        if size is not None:
            raise UserError(f"{path} has videos of several sizes; leave out --size.")
        return max(found.person_sizes.values())
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
    elif sizes and size not in sizes:
        (own,) = sizes
        raise UserError(
            f"{path}: its images have {own[0]}x{own[1]} pixels, not {size[0]}x{size[1]} as --size "
            "says; leave out --size."
        )
    if not all(1 <= side <= LARGEST for side in size):
        raise UserError(f"{path}: an image of {size[0]}x{size[1]} pixels is not possible.")
    return size


def _by_frame(path, found: Found, numbering) -> dict[int, list]:
    """Gathers people by frame, merges crops of one; refuses gaps too long for one video."""
    merged: dict[int, list] = {}
    names: dict[int, str] = {}
    for name, persons in found.frames.items():
        if isinstance(name, str):
            # Crops of one frame have names that differ in a number alone.
            other = names.setdefault(numbering.frames[name], name)
            if re.sub(r"\d+", "#", other) != re.sub(r"\d+", "#", name):
                raise UserError(
                    f"{path}: frame {numbering.frames[name]} comes twice, as {other} and {name}."
                )
        merged.setdefault(numbering.frames[name], []).extend(persons)
    first, last = min(merged), max(merged)
    if (last - first) // numbering.step >= min(LONGEST, 1000 + 100 * len(merged)):
        raise UserError(
            f"{path}: {len(merged)} frames numbered {first} to {last} are not one video; number "
            "frames consecutively."
        )
    return merged


def _plausible(path, tracks, sizes, size, rotate: int | None, notes: list[str]):
    """Brings the points of all tracks to pixels of the image; adds to `notes`."""
    placed, far, shares = {}, 0, False
    for person, places in tracks.items():
        own, where = sizes.get(person, size), f"{path}, person {person}"
        points = np.stack(list(places.values()))
        points, scaled = plausibility.to_pixels(points, own, where)
        points, outside = plausibility.inside(points, own, where)
        points = plausibility.rotated(points, own, rotate or 0)
        far, shares = far + outside, shares or scaled
        placed[person] = dict(zip(places, points, strict=True))
    if shares:
        notes.append("points run from 0 to 1: taken as shares of the image's width and height")
    if far:
        notes.append(f"{far} points far outside the image count as unseen")
    return placed


def _track(person: str, places: Mapping[int, np.ndarray], convert, numbering, fps: float,
           options: Options, size) -> Track:
    """Makes a track with its short gaps filled."""
    step, seconds = numbering.step, numbering.seconds
    start, end = min(places), max(places)
    points = np.zeros(((end - start) // step + 1, *next(iter(places.values())).shape))
    for frame, found in places.items():
        points[(frame - start) // step] = found
    keypoints, confidence = convert(points[..., :2], points[..., 2])
    if seconds:
        times = np.array([seconds[start + i] for i in range(len(points))])
        start, keypoints, confidence = gaps.at_rate(
            keypoints, confidence, times, fps, options.fill)
    keypoints, state = gaps.fill(keypoints, confidence, fps, options.fill)
    return Track(person, start, keypoints, confidence.astype(np.float32), state, size)
