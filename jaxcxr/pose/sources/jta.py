"""Prepares JTA (Fabbri et al. 2018, aimagelab.ing.unimore.it/jta).

    jaxcxr prepare jta --raw annotations

The folder holds train/, val/ and test/ of `seq_N.json` as published: pedestrians in a video game at
30 frames per second. Users obtain the licence themselves. Each run of consecutive frames of a
person is a sequence. The authors' paper tests on val/ and test/ together; here val/ chooses models
and test/ alone tests.
"""

import dataclasses
import functools
import pathlib
import re

import numpy as np
import tensorflow_datasets as tfds

from jaxcxr.data import staging
from jaxcxr.errors import BadRecord, UserError
from jaxcxr.pose.formats import jta_files
from jaxcxr.pose.keypoints import frame_rates
from jaxcxr.pose.keypoints.detector import Detector
from jaxcxr.pose.sources import virtual
from jaxcxr.pose.sources.pose_set import PoseSet, pose_features

FPS = jta_files.FPS
OCCLUDED = ("hidden", "kept")
SPLITS = {"train": "train", "validation": "val", "test": "test"}
_RUN = {"variant": False}  # an option that does not change what is prepared


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
    raw: str = dataclasses.field(default="", metadata=_RUN)
    workers: int = dataclasses.field(default=0, metadata=_RUN)
    max_bad: int = dataclasses.field(default=0, metadata=_RUN)

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
    """Finds the files of each split.

    Raises:
      UserError: a split has no file, or a file name has no number.
    """
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
    try:
        tracks = jta_files.read(video.path)
    except UserError as error:
        raise BadRecord(str(error).rstrip(".")) from error
    rng = virtual.generator(seed, video.number)
    lens = jta_files.LENS
    records = {}
    for track in tracks:
        near = np.ones(len(track.joints), bool)
        if max_distance:
            near = np.linalg.norm(track.joints[:, 0], axis=-1) <= max_distance
        inside = np.all(
            (track.keypoints >= 0) & (track.keypoints < (lens.width, lens.height)), axis=-1
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
            record = {
                "sequence_id": name, "subject": video.split, "action": "pedestrian",
                "camera": "camera", "fps": FPS,
                **virtual.observed(track.joints[part], track.keypoints[part], seen[part], lens,
                                   detector, rng, FPS),
            }
            records[name] = frame_rates.resample(record, fps)
    return records


class Jta(PoseSet):
    """JTA, 17 joints in the order of Human3.6M; records of `pose_features`."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIG_CLASS = JtaConfig
    builder_config_class = JtaConfig

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="JTA: pedestrians of a video game, 17 joints in Human3.6M order in the "
            "camera frame and in the image, 30 frames per second.",
            features=pose_features(),
            homepage="https://aimagelab.ing.unimore.it/jta",
            citation="M. Fabbri, F. Lanzi, S. Calderara, A. Palazzi, R. Vezzani, R. Cucchiara: "
            "Learning to Detect and Track Visible and Occluded Body Joints in a Virtual World. "
            "ECCV 2018.",
        )

    def _split_generators(self, dl_manager) -> dict[str, list[staging.Staged]]:
        del dl_manager
        config = self.builder_config
        if not config.raw:
            raise UserError("jta: where is the data? Give --raw DIR with train, val and test.")
        return self.staged(
            find_videos(config.raw),
            functools.partial(
                encode, occluded=config.occluded, min_frames=config.min_frames,
                max_distance=config.max_distance, detector=config.detector, seed=config.seed,
                fps=config.fps,
            ),
            chunk=2,
            max_bad=config.max_bad,
        )
