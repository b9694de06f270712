"""Prepares SURREAL (Varol et al. 2017, www.di.ens.fr/willow/research/surreal).

    jaxcxr prepare surreal --raw SURREAL/data/cmu

The folder holds train/ and test/ as published, with run0/ to run2/ of `*_info.mat`: rendered SMPL
bodies at 30 frames per second. Users obtain the licence themselves. The motions are CMU's, so
models trained here have seen test subjects of other sources of CMU's motion capture. The published
val/ is a part of test/ and is not used; held-out training subjects choose models.
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
from jaxcxr.pose.formats import surreal_files
from jaxcxr.pose.keypoints import frame_rates
from jaxcxr.pose.keypoints.detector import Detector
from jaxcxr.pose.sources import subjects, virtual
from jaxcxr.pose.sources.pose_set import PoseSet, pose_features

FPS = surreal_files.FPS
KEYPOINTS = ("joints2D", "projected")
_SHARE = 0.1
_RUN = {"variant": False}  # an option that does not change what is prepared
_NAME = re.compile(r"(ung_)?(\d+)_(\d+)_c(\d+)_info\.mat$")


@dataclasses.dataclass(eq=False)
class SurrealConfig(virtual.DetectedConfig):
    """Options of SURREAL; those that change the records name the variant.

    Attributes:
      keypoints: "joints2D", the file's whole pixels, or "projected", the projected joints.
      runs: renderings, of run0, run1 and run2; clips of a take overlap by 50, 30 or 70 %.
      validation_subjects: CMU's numbers of training subjects that choose models, as "01,35";
        empty for a tenth of the training subjects, by a hash of their numbers.
      fps: frames per second; 0 for the files' 30.
      raw: folder with train/ and test/.
      workers: number of processes; 0 works in this one.
      max_bad: number of malformed clips to tolerate.
    """

    name: str = ""
    keypoints: str = "joints2D"
    runs: tuple[str, ...] = ("run0", "run1", "run2")
    validation_subjects: tuple[str, ...] = ()
    fps: float = 0.0
    raw: str = dataclasses.field(default="", metadata=_RUN)
    workers: int = dataclasses.field(default=0, metadata=_RUN)
    max_bad: int = dataclasses.field(default=0, metadata=_RUN)

    def __post_init__(self):
        super().__post_init__()
        self.fps = frame_rates.check("surreal", self.fps, native=True)
        if self.keypoints not in KEYPOINTS:
            raise UserError(
                f"surreal: keypoints is {self.keypoints!r}; allowed: {', '.join(KEYPOINTS)}."
            )
        for field in ("runs", "validation_subjects"):
            setattr(self, field, subjects.listed(getattr(self, field)))
        self.name = self.name or (
            f"{self.keypoints}_{'-'.join(self.runs)}_"
            f"val-{'-'.join(self.validation_subjects) or 'auto'}_{self.detector.label}"
            f"_seed{self.seed}{frame_rates.label(self.fps, 0.0)}"
        )


@dataclasses.dataclass(frozen=True)
class Clip:
    """One file of a clip.

    Attributes:
      part: "train" or "test".
      subject: CMU's number.
      take: the subject's take, with "ung" before ungrouped clips.
      number: number of the clip in all runs of the take.
      path: path of the file.
      bytes: size of the file, which reveals changes.
    """

    part: str
    subject: str
    take: str
    number: int
    path: str
    bytes: int


def find_clips(raw: str | pathlib.Path, runs: tuple[str, ...]) -> list[Clip]:
    """Finds the clips of the published parts and the runs wanted.

    Raises:
      UserError: a part has no clips, or both parts share a subject.
    """
    raw = pathlib.Path(raw).expanduser()
    clips = []
    for part in ("train", "test"):
        for run in runs:
            for path in sorted(raw.glob(f"{part}/{run}/*/*_info.mat")):
                match = _NAME.match(path.name)
                if match is None:
                    raise UserError(f"surreal: {path} is not named like 104_46_c0021_info.mat.")
                ungrouped, subject, take, clip = match.groups()
                digits = re.sub(r"\D", "", run) or "0"
                clips.append(Clip(part, subject, f"{'ung' if ungrouped else ''}{take}",
                                  int(digits) * 10_000 + int(clip), str(path),
                                  path.stat().st_size))
    parts = {part: {clip.subject for clip in clips if clip.part == part}
             for part in ("train", "test")}
    for part, people in parts.items():
        if not people:
            raise UserError(
                f"surreal: no clip in {raw}/{part}/{'|'.join(runs)}/*/*_info.mat; give the folder "
                "that holds train and test."
            )
    both = sorted(parts["train"] & parts["test"])
    if both:
        raise UserError(
            f"surreal: subject {both[0]} is in train and in test; no published copy has that."
        )
    return clips


def split_clips(clips: list[Clip], wanted: tuple[str, ...]) -> dict[str, list[Clip]]:
    """Assigns clips to splits, each subject to one.

    Raises:
      UserError: a validation subject is not in train, or nobody is left to train on.
    """
    people = sorted({clip.subject for clip in clips if clip.part == "train"})
    unknown = [name for name in wanted if name not in people]
    if unknown:
        raise UserError(f"surreal: no subject {unknown[0]!r} in train: {', '.join(people)}.")
    ranked = sorted(people, key=lambda name: hashlib.sha256(name.encode()).digest())
    chosen = set(wanted or ranked[: max(1, round(_SHARE * len(people)))])
    if len(chosen) == len(people):
        raise UserError(
            f"surreal: all {len(people)} subjects in train are for validation; nobody is left to "
            "train on."
        )
    splits: dict[str, list[Clip]] = {"train": [], "validation": [], "test": []}
    for clip in clips:
        held_out = clip.part == "train" and clip.subject in chosen
        splits["validation" if held_out else clip.part].append(clip)
    return splits


def encode(
    clip: Clip, keypoints: str, detector: Detector, seed: int, fps: float
) -> staging.Records:
    """Makes the records of one clip, one per run of rendered frames.

    Raises:
      BadRecord: the clip is malformed.
    """
    try:
        found = surreal_files.read(clip.path)
    except UserError as error:
        raise BadRecord(str(error).rstrip(".")) from error
    pixels = found.keypoints if keypoints == "joints2D" else found.projected
    lens = surreal_files.LENS
    seen = np.all((pixels >= 0) & (pixels < (lens.width, lens.height)), axis=-1)
    name = f"{clip.subject}_motion_{clip.take}"
    rng = virtual.generator(seed, f"{name} {clip.number}")
    records = {}
    for part, (start, end) in enumerate(virtual.runs(found.there)):
        chosen = slice(start, end)
        # For confidence intervals, overlapping clips of one take are chunks of one motion.
        sequence = f"{name}_chunk{clip.number:05d}{part}_camera"
        record = {
            "sequence_id": sequence, "subject": clip.subject, "action": "motion",
            "camera": "camera", "fps": FPS,
            **virtual.observed(found.joints[chosen], pixels[chosen], seen[chosen], lens, detector,
                               rng, FPS),
        }
        records[sequence] = frame_rates.resample(record, fps)
    return records


class Surreal(PoseSet):
    """SURREAL, 17 joints in the order of Human3.6M; records of `pose_features`."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIG_CLASS = SurrealConfig
    builder_config_class = SurrealConfig

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="SURREAL: rendered SMPL bodies, 17 joints in Human3.6M order in the camera "
            "frame and in the image, 30 frames per second.",
            features=pose_features(),
            homepage="https://www.di.ens.fr/willow/research/surreal/",
            citation="G. Varol, J. Romero, X. Martin, N. Mahmood, M. J. Black, I. Laptev, "
            "C. Schmid: Learning from Synthetic Humans. CVPR 2017.",
        )

    def _split_generators(self, dl_manager) -> dict[str, list[staging.Staged]]:
        del dl_manager
        config = self.builder_config
        if not config.raw:
            raise UserError("surreal: where is the data? Give --raw DIR with train and test.")
        return self.staged(
            split_clips(find_clips(config.raw, config.runs), config.validation_subjects),
            functools.partial(
                encode, keypoints=config.keypoints, detector=config.detector, seed=config.seed,
                fps=config.fps,
            ),
            max_bad=config.max_bad,
        )
