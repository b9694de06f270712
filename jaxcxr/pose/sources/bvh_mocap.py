"""Prepares motion capture in BVH files, seen by virtual cameras.

    jaxcxr prepare bvh_mocap --raw DIR

Skeletons may have the names of any common program, see `bvh_bodies.NAMES`. CMU's clips by cgspeed
get their lost offsets back, but its ASF and AMC files (`cmu_mocap`) are the better source.
"""

import dataclasses
import functools
import hashlib
import pathlib
import re

import numpy as np

from jaxcxr.data import staging, text_files
from jaxcxr.data.dataset import RUN_ONLY
from jaxcxr.errors import UserError
from jaxcxr.pose.formats import bvh, bvh_bodies
from jaxcxr.pose.formats.bvh_bodies import Reading
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
      unit: metres per unit of the files; 0: recognised by the length of the legs.
      up: axis that points up, such as "y" or "-z"; empty: recognised by the poses.
      head: metres from the joint of the head to its top, for skeletons without one.
      joints: names of joints that are not recognised, e.g. "left_hip=Bone12,right_hip=Bone16".
      raw_fps: frames per second of the files; 0: as they say.
      raw: folder of the files, searched at any depth, or one file.
      workers: number of processes; 0 works in this one.
      max_bad: number of malformed clips to tolerate.
    """

    name: str = ""
    subject: str = ""
    test_subjects: str = ""
    validation_subjects: str = ""
    unit: float = 0.0
    up: str = ""
    head: float = 0.0
    joints: str = ""
    raw_fps: float = 0.0
    raw: str = dataclasses.field(default="", metadata=RUN_ONLY)
    workers: int = dataclasses.field(default=0, metadata=RUN_ONLY)
    max_bad: int = dataclasses.field(default=0, metadata=RUN_ONLY)

    def __post_init__(self):
        super().__post_init__()
        for field, wanted in (("unit", "metres per unit"), ("head", "metres"),
                              ("raw_fps", "frames per second")):
            if not 0 <= getattr(self, field) < 1e4:
                raise UserError(
                    f"bvh_mocap: {field} is {getattr(self, field)}; give {wanted}, or 0."
                )
        self.reading = Reading(self.unit, self._up(), self.head, self._joints())
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
        names = hashlib.sha256(self.joints.encode()).hexdigest()[:8]
        more = "".join(
            f"_{short}{value}" for short, value, said in (
                ("up", self.up, self.up), ("head", f"{self.head:g}", self.head),
                ("from", f"{self.raw_fps:g}", self.raw_fps), ("joints", names, self.joints),
            ) if said
        )
        self.name = self.name or (
            f"{self.rig}_{told}_unit{self.unit:g}{more}_{self.detector.label}"
            f"_seed{self.seed}{self.rate}"
        )

    def _up(self) -> str:
        up = self.up.strip().lower().removeprefix("+")
        if up and up not in bvh_bodies.UPS:
            raise UserError(f"bvh_mocap: up is {self.up!r}; allowed: {', '.join(bvh_bodies.UPS)}.")
        return up

    def _joints(self) -> dict[str, str]:
        """Reads "left_hip=Bone12,...": joint of Human3.6M -> name in the files."""
        named = [part.partition("=") for part in pose_set.listed(self.joints)]
        known = [f"{side}_{part}" for side in ("left", "right")
                 for part in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")]
        for joint, _, value in named:
            if joint.strip() not in (*known, "thorax", "neck") or not value.strip():
                raise UserError(
                    f"bvh_mocap: joints names {joint!r}; give JOINT=NAME of {', '.join(known)}, "
                    "thorax or neck (the joint of the head)."
                )
        return {joint.strip(): value.strip() for joint, _, value in named}


@dataclasses.dataclass(frozen=True)
class Clip:
    """One motion file: its name is `inner`, the path below `raw`, with `-` for `/`.

    The size tells changes.
    """

    name: str
    subject: str
    path: str
    inner: str
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
        clips.append(Clip(name, who, str(path), inner, path.stat().st_size))
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


def load_clip(
    path: str | pathlib.Path, reading: Reading = bvh_bodies.RECOGNISED, fps: float = FPS,
    raw_fps: float = 0.0, name: str = "",
) -> np.ndarray:
    """Reads the world positions `[frames, 17, 3]`, metres, z up, without a first frame at rest.

    `name` of the file is for messages; `raw_fps` replaces its frames per second unless 0.
    """
    path = pathlib.Path(path)
    name = name or path.name
    motion = bvh.parse(text_files.read_text(path), name, raw_fps)
    if bvh_bodies.starts_at_rest(motion):
        motion = bvh.without_first_frame(motion)
    world, remark = bvh_bodies.human36m_joints(bvh.resample(motion, fps), name, reading)
    staging.note(remark)
    return world


def encode(
    clip: Clip, rig: str, detector: Detector, seed: int, reading: Reading = bvh_bodies.RECOGNISED,
    fps: float = FPS, raw_fps: float = 0.0,
) -> staging.Records:
    """Makes the records of one clip, one per camera, by their ids.

    Raises:
      BadRecord: the clip is malformed.
    """
    with pose_set.refused_as_bad():
        world = load_clip(clip.path, reading, fps, raw_fps, clip.inner)
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
                reading=config.reading, fps=config.fps, raw_fps=config.raw_fps,
            ),
            chunk=4,
            max_bad=config.max_bad,
        )
