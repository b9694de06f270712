"""Prepares JTA (Fabbri et al. 2018, aimagelab.ing.unimore.it/jta).

    jaxcxr prepare jta --raw annotations

The folder holds train/, val/ and test/ of `seq_N.json` as published: pedestrians in Grand Theft
Auto V. Users obtain the licence themselves. Each run of consecutive frames of a person is a
sequence. The authors' paper tests on val/ and test/ together; here val/ chooses models and test/
alone tests.

A file is a list of rows: frame (from 1), person, joint (0 to 21), x and y in pixels, x, y and z in
metres in the camera frame (x right, y down, z forward), whether something hides the joint, and
whether the person's own body hides it. All videos have 1920 x 1080 pixels, 30 frames per second
and the same camera.
"""

import dataclasses
import functools
import json
import pathlib
import re

import numpy as np

from jaxcxr.data import staging
from jaxcxr.data.dataset import RUN_ONLY
from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.geometry.cameras import Intrinsics
from jaxcxr.pose.keypoints import frame_rates
from jaxcxr.pose.sources import pose_set, virtual
from jaxcxr.pose.sources.virtual import Detector

FPS = 30.0
LENS = Intrinsics(1158.0, 1158.0, 960.0, 540.0, width=1920, height=1080)
OCCLUDED = ("hidden", "kept")
SPLITS = {"train": "train", "validation": "val", "test": "test"}
_JOINTS, _COLUMNS = 22, 10
_APART = 20.0  # pixels between given and projected joints, in the median of a video
_TALL = (0.5, 3.0)  # metres from head to foot, in the median of a video


@dataclasses.dataclass(eq=False)
class JtaConfig(virtual.DetectedConfig):
    """Options of JTA; those that change the records name the variant.

    Attributes:
      occluded: "hidden" leaves joints that something hides unseen; "kept" sees them, like a
        detector that guesses right. Joints hidden by the person's own body are always seen.
      min_frames: shortest run of frames to keep.
      max_distance: largest distance from camera to hip in metres; 0 for any.
      fps: frames per second; 0 for the files' 30.
      raw: folder with train/, val/ and test/.
      workers: number of processes; 0 works in this one.
      max_bad: number of malformed files to tolerate.
    """

    name: str = ""
    occluded: str = "hidden"
    min_frames: int = 9
    max_distance: float = 0.0
    fps: float = 0.0
    raw: str = dataclasses.field(default="", metadata=RUN_ONLY)
    workers: int = dataclasses.field(default=0, metadata=RUN_ONLY)
    max_bad: int = dataclasses.field(default=0, metadata=RUN_ONLY)

    def __post_init__(self):
        super().__post_init__()
        self.fps = frame_rates.check("jta", self.fps, native=True)
        if self.occluded not in OCCLUDED:
            raise UserError(
                f"jta: occluded is {self.occluded!r}; allowed: {', '.join(OCCLUDED)}."
            )
        if self.min_frames < 1 or not self.max_distance >= 0:
            raise UserError("jta: min_frames must be at least 1 and max_distance at least 0.")
        self.name = self.name or (
            f"{self.occluded}_min{self.min_frames}_max{self.max_distance:g}"
            f"_{self.detector.label}_seed{self.seed}{frame_rates.label(self.fps, 0.0)}"
        )


@dataclasses.dataclass(frozen=True)
class Video:
    """One file: its split, number, path, and size, which reveals changes."""

    split: str
    number: str
    path: str
    bytes: int


def find_videos(raw: str | pathlib.Path) -> dict[str, list[Video]]:
    """Finds the files of each split."""
    raw = pathlib.Path(raw).expanduser()
    splits: dict[str, list[Video]] = {}
    for split, folder in SPLITS.items():
        splits[split] = []
        for path in sorted((raw / folder).glob("*.json")):
            match = re.search(r"(\d+)$", path.stem)
            if match is None:
                raise UserError(f"jta: {path} is not named like seq_42.json.")
            splits[split].append(Video(folder, match[1], str(path), path.stat().st_size))
        if not splits[split]:
            raise UserError(
                f"jta: no seq_N.json in {raw / folder}; give the folder annotations, which holds "
                "train, val and test."
            )
    return splits


def encode(
    video: Video, occluded: str, min_frames: int, max_distance: float, detector: Detector,
    seed: int, fps: float,
) -> staging.Records:
    """Makes the records of one video, one per person and run of frames.

    Raises:
      BadRecord: the file is malformed.
    """
    with pose_set.refused_as_bad():
        tracks = read_tracks(video.path)
    rng = virtual.generator(seed, video.number)
    records: list[tuple[str, dict]] = []
    for track in tracks:
        near = np.ones(len(track.joints), bool)
        if max_distance:
            near = np.linalg.norm(track.joints[:, 0], axis=-1) <= max_distance
        inside = np.all(
            (track.keypoints >= 0) & (track.keypoints < (LENS.width, LENS.height)), axis=-1
        )
        seen = inside & (track.joints[..., 2] > 0)
        if occluded == "hidden":
            seen &= ~track.hidden
        for start, end in virtual.runs(near):
            if end - start < min_frames:
                continue
            part = slice(start, end)
            # The frame in the name distinguishes runs of one person.
            name = (f"{video.split}_pedestrian_{video.number}_{track.person}"
                    f"_chunk{track.start + start}_camera")
            records.append(pose_set.record(
                name, video.split, "pedestrian", "camera",
                virtual.observed(track.joints[part], track.keypoints[part], seen[part], LENS,
                                 detector, rng, FPS), FPS, fps,
            ))
    return dict(records)


class Jta(pose_set.PoseSet):
    """JTA, 17 joints in the order of Human3.6M; records of `pose_features`."""

    builder_config_class = JtaConfig
    description = (
        "JTA: pedestrians of a video game, 17 joints in Human3.6M order in the camera frame and in "
        "the image, 30 frames per second."
    )
    homepage = "https://aimagelab.ing.unimore.it/jta"
    citation = (
        "M. Fabbri, F. Lanzi, S. Calderara, A. Palazzi, R. Vezzani, R. Cucchiara: Learning to "
        "Detect and Track Visible and Occluded Body Joints in a Virtual World. ECCV 2018."
    )

    def _splits(self, config) -> dict[str, list[staging.Staged]]:
        return self.staged(
            find_videos(self.given_raw("DIR with train, val and test")),
            functools.partial(
                encode, occluded=config.occluded, min_frames=config.min_frames,
                max_distance=config.max_distance, detector=config.detector, seed=config.seed,
                fps=config.fps,
            ),
            chunk=2,
            max_bad=config.max_bad,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """A person in consecutive frames.

    Attributes:
      start: the first frame, from 1.
      joints: float64 `[frames, 17, 3]`, metres in the camera frame.
      keypoints: `[frames, 17, 2]`, pixels.
      hidden: bool `[frames, 17]`, whether something hides a point that forms the joint.
    """

    person: int
    start: int
    joints: np.ndarray
    keypoints: np.ndarray
    hidden: np.ndarray


def read_tracks(path: str | pathlib.Path) -> list[Track]:
    """Reads the tracks in a video's `seq_N.json`, ordered by person and time."""
    path = pathlib.Path(path)
    rows = _rows(path)
    frame, person, joint = (rows[:, column].astype(np.int64) for column in range(3))
    order = np.lexsort((joint, frame, person))
    rows, frame, person, joint = rows[order], frame[order], person[order], joint[order]
    poses = len(rows) // _JOINTS
    regular = len(rows) == poses * _JOINTS
    grid = [values[: poses * _JOINTS].reshape(poses, _JOINTS) for values in (frame, person, joint)]
    same = [(values == values[:, :1]).all(1) for values in grid[:2]]
    same.append((grid[2] == np.arange(_JOINTS)).all(1))
    wrong = ~np.all(same, axis=0)
    if wrong.any() or not regular:
        where = int(np.argmax(wrong)) * _JOINTS if wrong.any() else len(rows) - 1
        raise UserError(
            f"{path}: person {person[where]} in frame {frame[where]} must have each of the joints "
            "0 to 21 once."
        )
    values = rows.reshape(poses, _JOINTS, _COLUMNS)
    pixels, points, hidden = values[..., 3:5], values[..., 5:8], values[..., 8] > 0
    _check_camera(path, pixels, points)
    convert = joint_sets.to_human36m("jta22")
    joints, _ = convert(points)
    tall = np.median(np.linalg.norm(joints[:, 10] - joints[:, [3, 6]].mean(1), axis=-1))
    if not _TALL[0] < tall < _TALL[1]:
        raise UserError(f"{path}: heads and feet are {tall:.3g} m apart; it must be in metres.")
    keypoints, _ = convert(pixels)
    _, seen = convert(pixels, (~hidden).astype(np.float64))
    ids, frames = grid[1][:, 0], grid[0][:, 0]
    starts = np.flatnonzero((np.diff(ids) != 0) | (np.diff(frames) != 1)) + 1
    return [
        Track(int(ids[part[0]]), int(frames[part[0]]), joints[part], keypoints[part],
              seen[part] == 0)
        for part in np.split(np.arange(poses), starts)
    ]


def _rows(path: pathlib.Path) -> np.ndarray:
    """Reads the rows as float64 `[rows, 10]` and checks their ranges."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        rows = np.array(content, np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} must be a list of rows of numbers ({error}).") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error
    if rows.ndim != 2 or rows.shape[1] != _COLUMNS or not len(rows):
        raise UserError(
            f"{path}: rows have the shape {list(rows.shape)}; expected one or more rows of "
            f"{_COLUMNS} numbers."
        )
    whole = rows[:, :3]
    possible = np.abs(rows).max(1) < 1e6
    possible &= (whole == np.floor(np.where(possible[:, None], whole, 0.0))).all(1)
    possible &= (rows[:, 0] >= 1) & (rows[:, 2] >= 0) & (rows[:, 2] < _JOINTS)
    possible &= np.isin(rows[:, 8:], (0, 1)).all(1)
    if not possible.all():
        row = int(np.argmin(possible))
        raise UserError(f"{path}, row {row}: {content[row]} is no valid joint.")
    return rows


def _check_camera(path: pathlib.Path, pixels: np.ndarray, points: np.ndarray) -> None:
    projected = LENS.project(points)
    seen = np.isfinite(projected).all(-1)
    if not seen.any():
        raise UserError(f"{path}: nobody is in front of the camera.")
    apart = float(np.median(np.linalg.norm(projected - pixels, axis=-1)[seen]))
    if apart > _APART:
        raise UserError(
            f"{path}: projected joints are {apart:.0f} pixels from the file's; its camera or axes "
            "are not JTA's."
        )
