"""JTA (Fabbri et al. 2018, aimagelab.ing.unimore.it/jta): pedestrians in a video game, 30 fps.

    jaxcxr prepare jta --raw annotations

DIR holds train/, val/ and test/ of `seq_N.json`, as published. The licence is the user's to obtain.
Each person is one sequence for each run of frames without a gap. The authors' paper calls val/ and
test/ together its test set; here val/ chooses models and test/ alone tests.
"""

import dataclasses
import functools
import hashlib
import pathlib
import re

import numpy as np
import tensorflow_datasets as tfds

from jaxcxr.data import staging
from jaxcxr.errors import BadRecord, UserError
from jaxcxr.pose.formats import jta_files
from jaxcxr.pose.keypoints import frame_rates
from jaxcxr.pose.keypoints.detector import Detector
from jaxcxr.pose.sources import records as capture
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
      occluded: "hidden": a joint that something hides is not seen; "kept": it is, as if by a
        detector that guesses right. What the own body hides is seen either way.
      min_frames: shorter runs of frames of a person are left out.
      max_distance: metres from the camera to the hip, beyond which a frame is left out; 0: any.
      fps: frames per second; 0: the files', 30.
      raw: folder with train/, val/ and test/.
      workers: number of processes; 0 works in this one.
      max_bad: how many malformed files are tolerated.
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
    """One file: its split, its number, its path, and its size, which tells a changed file."""

    split: str
    number: str
    path: str
    bytes: int


def find_videos(raw: str | pathlib.Path) -> dict[str, list[Video]]:
    """The files of each split.

    Raises:
      UserError: a split without a file, or a file whose name has no number.
    """
    raw = pathlib.Path(raw).expanduser()
    splits = {}
    for split, folder in SPLITS.items():
        splits[split] = []
        for path in sorted((raw / folder).glob("*.json")):
            match = re.search(r"(\d+)$", path.stem)
            if match is None:
                raise UserError(f"jta: {path} is not named as seq_42.json.")
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
    """Records of one video, one for each run of frames of each person.

    Raises:
      BadRecord: the file is malformed.
    """
    try:
        tracks = jta_files.read(video.path)
    except UserError as error:
        raise BadRecord(str(error).rstrip(".")) from error
    key = int.from_bytes(hashlib.sha256(f"{video.number}".encode()).digest()[:8], "big")
    rng = np.random.default_rng([seed, key])
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
        for start, end in np.flatnonzero(np.diff(np.r_[False, near, False])).reshape(-1, 2):
            if end - start < min_frames:
                continue
            part = slice(start, end)
            # The frame in the name keeps the runs of one person apart.
            name = (f"{video.split}_pedestrian_{video.number}_{track.person}"
                    f"_chunk{track.start + start}_camera")
            record = {
                "sequence_id": name, "subject": video.split, "action": "pedestrian",
                "camera": "camera", "fps": FPS,
                **capture.observed(track.joints[part], track.keypoints[part], seen[part], lens,
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
