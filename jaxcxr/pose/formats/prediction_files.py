"""Writes the lifted people of a video as `.npz`, `.csv` and `.bvh`."""

import csv
import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcxr import __version__
from jaxcxr.pose.formats import bvh_export
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.keypoints import gaps
from jaxcxr.pose.keypoints.keypoint_files import Track, Video

AXES = "x right, y down, z forward, as the camera sees it; relative to the hip"
MM = 1000.0
FORMATS = ("npz", "csv", "bvh")


@dataclasses.dataclass(frozen=True, eq=False)
class Person:
    """One lifted person of a video.

    Attributes:
      track: the 2D keypoints.
      joints: `[frames, 17, 3]`, metres, relative to the hip, in the frames of the track; NaN
        where the person is absent.
      root: `[frames, 3]`, metres, position of the hip in the camera frame, if the model gives it.
      sigma: `[frames, 17]`, metres, standard deviation of each coordinate, if the model gives it.
    """

    track: Track
    joints: np.ndarray
    root: np.ndarray | None = None
    sigma: np.ndarray | None = None


def sequence_id(stem: str, person: str) -> str:
    """Names a sequence as subject/action/camera, the form that `jaxcxr score` reads."""
    return f"{stem.replace('/', '_')}/person {person.replace('/', '_')}/camera"


def write_npz(
    out: pathlib.Path, video: Video, people: Sequence[Person], about: Mapping[str, str | float]
) -> pathlib.Path:
    """Writes `STEM.npz` with one row per person and frame, completely or not at all.

    It holds `poses` float32 `[N, 17, 3]` (mm), `sequence`, `frame` (of the video, from 0), the
    `keypoints` float32 `[N, 17, 2]` (pixels, gaps filled), their `confidence` `[N, 17]` (0 where
    unseen) and `state` ("seen", "filled" or "absent", then NaN); `fps`, `unit`, `axes`, `joints`
    (names), `image_size` (`[N, 2]` if people are of images of several sizes), `source` and
    `source_joints`; and `root` `[N, 3]` and `sigma` `[N, 17]` (mm) if the model gives them.
    `about` adds entries, such as the run that predicted.
    """
    frames = [video.frames(person.track) for person in people]
    sizes = {video.size_of(person.track) for person in people}
    size = np.array([video.size_of(p.track) for p in people for _ in p.joints]) if (
        len(sizes) > 1) else np.array(*sizes)
    names = [sequence_id(out.stem, person.track.person) for person in people]
    content: dict[str, Any] = {
        "poses": np.concatenate([person.joints for person in people]).astype(np.float32)
        * np.float32(MM),
        "sequence": np.repeat(names, [len(f) for f in frames]),
        "frame": np.concatenate(frames).astype(np.int64),
        "keypoints": np.concatenate([p.track.keypoints for p in people]).astype(np.float32),
        "confidence": np.concatenate([p.track.confidence for p in people]).astype(np.float32),
        "fps": np.float64(video.fps), "unit": "mm", "axes": AXES,
        "joints": np.array(HUMAN36M.joints), "image_size": size,
        "state": np.concatenate([np.array(gaps.STATES)[p.track.states] for p in people]),
        "source": video.path.name, "source_joints": video.joint_set,
        "jaxcxr_version": __version__, **about,
    }

    for name in ("root", "sigma"):
        parts = [getattr(person, name) for person in people]
        if all(part is not None for part in parts):
            content[name] = (np.concatenate(parts) * MM).astype(np.float32)

    def write(path: pathlib.Path) -> None:
        with path.open("wb") as file:  # NumPy would append .npz to the name of a partial file
            np.savez_compressed(file, **content)

    return _whole(out, write)


def write_csv(out: pathlib.Path, video: Video, people: Sequence[Person]) -> pathlib.Path:
    """Writes `STEM.csv`: the columns of a run's `predictions/test.csv` without true joints, mm."""

    def write(path: pathlib.Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            columns = [f"predicted_{name}_{axis}" for name in HUMAN36M.joints for axis in "xyz"]
            first = ("id", "sequence_id", "subject", "action", "frame", "seconds", "state")
            writer.writerow((*first, *columns))
            for person in people:
                name = sequence_id(out.stem, person.track.person)
                rows = (person.joints * MM).reshape(len(person.joints), -1)
                states = person.track.states
                for i, (frame, row) in enumerate(zip(video.frames(person.track), rows,
                                                     strict=True)):
                    writer.writerow((
                        f"{name}@{frame}", name, f"person {person.track.person}", "", frame,
                        f"{frame / (video.fps * video.step):.4f}", gaps.STATES[states[i]],
                        *("" if np.isnan(value) else f"{value:.1f}" for value in row),
                    ))

    return _whole(out, write)


def write_bvhs(
    out: pathlib.Path, stem: str, video: Video, person: Person, symmetric: bool
) -> Iterator[tuple[pathlib.Path, bvh_export.Fit]]:
    """Writes a file for each stretch without absent frames, and yields their paths and fits.

    It is `STEM.bvh` for a person from frame 0 on, `STEM_fromFRAME.bvh` for one that begins later.
    Lengths are in centimetres, y up. The hip is at the origin; if the model gives the root, the
    camera is. Left and right bones have the same length if `symmetric`.
    """
    for begin, end in gaps.runs(np.isfinite(person.joints).all((1, 2))):
        joints = person.joints[begin:end]
        if person.root is not None:
            joints = joints - joints[:, :1] + person.root[begin:end, None]
        fit = bvh_export.fit(joints, video.fps, symmetric)
        text = bvh_export.to_text(fit.motion).encode()
        first = int(video.frames(person.track)[begin])
        path = out / (f"{stem}_from{first}.bvh" if first else f"{stem}.bvh")
        yield _whole(path, functools.partial(pathlib.Path.write_bytes, data=text)), fit


def file_name(text: str) -> str:
    """Replaces characters that do not belong in a file name."""
    return re.sub(r"[^\w.-]+", "_", text) or "_"


class Names:
    """Gives output files unique names; equal ones get numbers."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._next: dict[str, int] = {}

    def new(self, path: str | pathlib.Path) -> str:
        """Returns an unused name for a file, without folder and extension."""
        stem = name = file_name(pathlib.Path(path).stem)
        while name in self._used:
            number = self._next.get(stem, 2)
            name, self._next[stem] = f"{stem}_{number}", number + 1
        self._used.add(name)
        return name


def _whole(out: pathlib.Path, write: Callable[[pathlib.Path], object]) -> pathlib.Path:
    partial = out.with_name(out.name + ".partial")
    write(partial)
    partial.replace(out)
    return out
