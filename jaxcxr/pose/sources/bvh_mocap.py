"""Prepares motion capture in BVH files, seen by virtual cameras.

    jaxcxr prepare bvh_mocap --raw DIR

Skeletons may have the names of MotionBuilder (CMU's clips by cgspeed, whose lost offsets are
restored), Daz or Bandai-Namco, see `jaxcxr.pose.formats.bvh_bodies`. For CMU's motion the ASF and
AMC files (`cmu_mocap`) are a better source.
"""

import dataclasses
import functools
import hashlib
import pathlib
import re

import numpy as np

from jaxcxr.data import staging
from jaxcxr.data.dataset import RUN_ONLY
from jaxcxr.errors import UserError
from jaxcxr.pose.formats import bvh, bvh_bodies
from jaxcxr.pose.sources import pose_set, virtual
from jaxcxr.pose.sources.virtual import Detector

FPS = virtual.FPS
_SHARES = {"test": 0.15, "validation": 0.15}


@dataclasses.dataclass(eq=False)
class BvhMocapConfig(virtual.VirtualConfig):
    """Options of the BVH clips; those that change the records name the variant.

    Attributes:
      subject: regular expression with a group that matches the subject in a file's path below
        `raw`; by default the digits before `_` in CMU's names, NN_MM.bvh, else the folder.
      test_subjects: subjects for the test, e.g. "03,11"; empty for 15 % of the subjects by a hash
        of their names, or 15 % of the clips with fewer than 3 subjects.
      validation_subjects: the same for validation.
      unit: metres per unit of the files; 0 for the unit of the kind of skeleton.
      raw: folder of the files, searched at any depth, or one file.
      workers: number of processes; 0 works in this one.
      max_bad: number of malformed clips to tolerate.
    """

    name: str = ""
    subject: str = ""
    test_subjects: str = ""
    validation_subjects: str = ""
    unit: float = 0.0
    raw: str = dataclasses.field(default="", metadata=RUN_ONLY)
    workers: int = dataclasses.field(default=0, metadata=RUN_ONLY)
    max_bad: int = dataclasses.field(default=0, metadata=RUN_ONLY)

    def __post_init__(self):
        super().__post_init__()
        if not self.unit >= 0:
            raise UserError(f"bvh_mocap: unit is {self.unit}; give metres per unit, or 0.")
        try:
            groups = re.compile(self.subject).groups
        except re.error as error:
            raise UserError(f"bvh_mocap: subject={self.subject!r}: {error}.") from error
        if self.subject and groups != 1:
            raise UserError(f"bvh_mocap: subject={self.subject!r} needs one group, as in (\\d+)_.")
        told = "_".join(
            re.sub(r"[^\w-]+", "-", value) or "auto"
            for value in (self.subject, self.validation_subjects, self.test_subjects)
        )
        self.name = self.name or (
            f"{self.rig}_{told}_unit{self.unit:g}_{self.detector.label}"
            f"_seed{self.seed}{self.rate}"
        )


@dataclasses.dataclass(frozen=True)
class Clip:
    """One motion file: its name is the path below `raw` with `-` for `/`; size tells changes."""

    name: str
    subject: str
    path: str
    bytes: int


def find_clips(raw: str | pathlib.Path, subject: str = "") -> list[Clip]:
    """Finds all BVH files below a folder, ordered by name."""
    raw = pathlib.Path(raw).expanduser().absolute()
    paths = [raw] if raw.is_file() else sorted(raw.rglob("*.[bB][vV][hH]"))
    if not paths:
        raise UserError(f"no BVH file in {raw}; give the folder of the motion capture.")
    clips = []
    for path in paths:
        inner = path.name if path == raw else path.relative_to(raw).as_posix()
        found = re.search(subject or r"(?:^|/)(\d+)_\d+\.bvh$", inner, re.IGNORECASE)
        if subject and not found:
            raise UserError(f"bvh_mocap: subject={subject!r} finds no subject in {inner!r}.")
        who = found[1] if found else path.parent.name
        name = inner.rsplit(".", 1)[0].replace("/", "-")
        clips.append(Clip(name, who, str(path), path.stat().st_size))
    return clips


def split_clips(clips: list[Clip], config: BvhMocapConfig) -> dict[str, list[Clip]]:
    """Assigns clips to splits, each subject to one if there are at least 3."""
    subjects = sorted({clip.subject for clip in clips})
    named = {
        split: [name.strip() for name in value.split(",") if name.strip()]
        for split, value in (
            ("test", config.test_subjects), ("validation", config.validation_subjects),
        )
    }
    for name in (*named["test"], *named["validation"]):
        if name not in subjects:
            raise UserError(f"bvh_mocap: no subject {name!r}; there are {', '.join(subjects)}.")
        if name in named["test"] and name in named["validation"]:
            raise UserError(f"bvh_mocap: subject {name!r} is named for two splits; choose one.")
    by_subject = len(subjects) >= 3
    units = subjects if by_subject else [clip.name for clip in clips]
    free = sorted(
        (unit for unit in units if unit not in (*named["test"], *named["validation"])),
        key=lambda unit: hashlib.sha256(unit.encode()).digest(),
    )
    chosen: dict[str, str] = {}
    for split, names in named.items():
        if not names:
            count = max(1, round(_SHARES[split] * len(units)))
            names, free = free[:count], free[count:]
        chosen |= dict.fromkeys(names, split)
    splits: dict[str, list[Clip]] = {"train": [], "validation": [], "test": []}
    for clip in clips:
        split = chosen.get(clip.subject) or chosen.get(clip.name) or "train"
        splits[split].append(clip)
    for split, found in splits.items():
        if not found:
            raise UserError(
                f"bvh_mocap: {len(clips)} clips of {', '.join(subjects)} leave none for the "
                f"{split} split; add clips, or name other subjects."
            )
    return splits


def load_clip(path: str | pathlib.Path, unit: float = 0.0, fps: float = FPS) -> np.ndarray:
    """Reads the world positions `[frames, 17, 3]`, metres, z up, without a first frame at rest.

    The unit in metres may be 0 for that of the kind of skeleton.
    """
    path = pathlib.Path(path)
    motion = bvh.parse(path.read_text(encoding="latin-1"), path.name)
    if bvh_bodies.starts_at_rest(motion):
        motion = bvh.without_first_frame(motion)
    return bvh_bodies.human36m_joints(bvh.resample(motion, fps), path.name, unit)


def encode(
    clip: Clip, rig: str, detector: Detector, seed: int, unit: float, fps: float = FPS
) -> staging.Records:
    """Makes the records of one clip, one per camera, by their ids.

    Raises:
      BadRecord: the clip is malformed.
    """
    with pose_set.refused_as_bad():
        world = load_clip(clip.path, unit, fps)
    rng = virtual.generator(seed, clip.name)
    # The files do not name actions.
    action = f"subject {clip.subject}"
    return virtual.records(
        world, rig, detector, rng, name=clip.name, subject=clip.subject, action=action, fps=fps
    )


class BvhMocap(pose_set.PoseSet):
    """BVH clips; records of `pose_features`."""

    builder_config_class = BvhMocapConfig
    description = (
        "Motion capture from BVH files, 17 joints in Human3.6M order, {fps:g} frames per second, "
        "seen by virtual cameras with lens distortion."
    )

    def _splits(self, config) -> dict[str, list[staging.Staged]]:
        return self.staged(
            split_clips(find_clips(self.given_raw("DIR with BVH files"), config.subject), config),
            functools.partial(
                encode, rig=config.rig, detector=config.detector, seed=config.seed,
                unit=config.unit, fps=config.fps,
            ),
            chunk=4,
            max_bad=config.max_bad,
        )
