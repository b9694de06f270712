"""Prepares CMU's motion capture (mocap.cs.cmu.edu, NSF EIA-0196217), seen by virtual cameras.

It reads the downloaded `allasfamc.zip`, or ASF and AMC files in any folders with any names, such
as HDM05's. The 17 joints are Human3.6M's in order, not in shape (CMU's hip joints lie 0.08 m from
the hip, Human3.6M's 0.13 m), so never compare the errors of both data sets.
"""

import collections
import dataclasses
import functools
import itertools
import os
import pathlib
import re
import zipfile
from collections.abc import Mapping

import numpy as np

from jaxcxr.data import progress, staging
from jaxcxr.data.dataset import RUN_ONLY
from jaxcxr.errors import UserError, some
from jaxcxr.pose.formats import asf_amc
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.sources import pose_set, virtual
from jaxcxr.pose.sources.virtual import Detector

FPS = virtual.FPS
RAW_FPS = 120.0

# Joint -> bone that ends there. The hip is the middle of both hip joints, because CMU's root lies
# 0.1 m above it; the spine, which CMU lacks, is halfway from the hip to the thorax.
_BONE_ENDS = {
    "right_hip": "rhipjoint", "right_knee": "rfemur", "right_ankle": "rtibia",
    "left_hip": "lhipjoint", "left_knee": "lfemur", "left_ankle": "ltibia", "thorax": "thorax",
    "neck": "upperneck", "head": "head", "left_shoulder": "lclavicle", "left_elbow": "lhumerus",
    "left_wrist": "lwrist", "right_shoulder": "rclavicle", "right_elbow": "rhumerus",
    "right_wrist": "rwrist",
}

_VALIDATION_SHARE = _TEST_SHARE = 0.15


@dataclasses.dataclass(eq=False)
class CmuMocapConfig(virtual.VirtualConfig):
    """Options of the CMU clips; those that change the records name the variant.

    Attributes:
      train_subjects: subjects for training, e.g. ("01", "02"); empty for all others.
      validation_subjects: subjects for validation; empty for 15 % of the training subjects' clips,
        by a hash of their names.
      test_subjects: subjects for the test; empty for numbers that are 3 modulo 8 (03, 11, 19,
        ...), or without numbers for 15 % of the names. CMU gave some people several numbers and
        does not say which.
      raw_fps: frames per second of the files, which do not say it; CMU's and HDM05's are 120.
      raw: `allasfamc.zip`, or a folder with it or its unpacked tree.
      workers: number of processes; 0 works in this one.
      max_bad: number of malformed clips to tolerate.
    """

    name: str = ""
    train_subjects: tuple[str, ...] = ()
    validation_subjects: tuple[str, ...] = ()
    test_subjects: tuple[str, ...] = ()
    raw_fps: float = RAW_FPS
    raw: str = dataclasses.field(default="", metadata=RUN_ONLY)
    workers: int = dataclasses.field(default=0, metadata=RUN_ONLY)
    max_bad: int = dataclasses.field(default=0, metadata=RUN_ONLY)

    def __post_init__(self):
        for field in ("train_subjects", "validation_subjects", "test_subjects"):
            setattr(self, field, _subjects(getattr(self, field)))
        super().__post_init__()
        if not 1 <= self.raw_fps <= 1000:
            raise UserError(f"cmu_mocap: raw_fps is {self.raw_fps:g}; give frames per second.")
        if self.raw_fps != RAW_FPS:
            self.rate = f"_from{self.raw_fps:g}{self.rate}"
        self.name = self.name or (
            f"{self.rig}_train{_joined(self.train_subjects)}_val{_joined(self.validation_subjects)}"
            f"_test{_joined(self.test_subjects)}"
            f"_{self.detector.label}_seed{self.seed}{self.rate}"
        )


def _subjects(value: str | tuple) -> tuple[str, ...]:
    """Converts ("1", "02") or "1,02" to ("01", "02"), the archive's names."""
    names = pose_set.listed(value)
    return tuple(sorted({_subject(name) for name in names}))


def _joined(names: tuple[str, ...]) -> str:
    return "".join(f"-{name}" for name in names) or "-auto"


@dataclasses.dataclass(frozen=True)
class Clip:
    """One motion file, e.g. "01_03" of "01".

    The paths of skeleton and motion are within the archive, a zip file or folder; the size of the
    motion file tells changes.
    """

    name: str
    subject: str
    archive: str
    asf: str
    amc: str
    bytes: int


def find_clips(raw: str | os.PathLike) -> list[Clip]:
    """Finds all clips, ordered by name, in `allasfamc.zip` or a folder with it or its tree."""
    raw = pathlib.Path(raw).expanduser().absolute()
    if raw.is_dir() and (raw / "allasfamc.zip").is_file():
        raw = raw / "allasfamc.zip"
    members = _members(raw)
    skeletons = [member for member in members if member.lower().endswith(".asf")]
    clips = []
    for member in sorted(members):
        if not member.lower().endswith(".amc"):
            continue
        asf, subject = _skeleton(member, skeletons, raw)
        clips.append(Clip(_stem(member), subject, str(raw), asf, member, members[member]))
    if not clips:
        raise UserError(
            f"{raw}: no motion in it (.amc); give allasfamc.zip of mocap.cs.cmu.edu or the folder "
            "of the files."
        )
    taken = collections.Counter(clip.name for clip in clips)
    clips = [
        clip if taken[clip.name] == 1
        else dataclasses.replace(clip, name=re.sub(r"[/ ]", "-", clip.amc[: -len(".amc")]))
        for clip in clips
    ]
    return sorted(clips, key=lambda clip: [
        (int(part or 0), text) for part, text in re.findall(r"(\d*)(\D*)", clip.name)
    ])


def _stem(member: str) -> str:
    return member.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _skeleton(amc: str, skeletons: list[str], raw: pathlib.Path) -> tuple[str, str]:
    """Finds the skeleton of a motion, and its subject.

    It is the one whose name begins the motion's (01.asf of 01_03.amc, HDM_bd.asf of
    HDM_bd_walk_001_120.amc), the nearest of several, or else the only one in the motion's folder
    or in one above, whose motions are of the subject that the folder is called after.
    """
    def named(asf: str) -> bool:
        number = re.match(r"\d+(?=_)", _stem(amc))
        if number and _subject(_stem(asf)) == _subject(number[0]):
            return True
        return re.match(re.escape(_stem(asf)) + r"(?![A-Za-z0-9])", _stem(amc), re.I) is not None

    folders = amc.split("/")[:-1]
    found = [asf for asf in skeletons if named(asf)]
    if found:
        def nearness(asf: str) -> tuple[int, int]:
            pairs = zip(folders, asf.split("/")[:-1], strict=False)
            shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            return shared, len(_stem(asf))

        asf = max(found, key=nearness)
        return asf, _subject(_stem(asf))
    for depth in range(len(folders), -1, -1):
        beside = [asf for asf in skeletons if asf.split("/")[:-1] == folders[:depth]]
        if len(beside) == 1:
            return beside[0], _subject(folders[-1] if folders else raw.stem)
        if beside:
            break
    raise UserError(
        f"{raw}: no skeleton (.asf) belongs to {amc}; its name must begin that of the motion, or "
        "it must be the only one in the folder."
    )


def _subject(name: str) -> str:
    """Writes the number of a subject as the archive does, 1 as 01; a name stays."""
    return f"{int(name):02d}" if name.isdecimal() else name


def _members(raw: pathlib.Path) -> dict[str, int]:
    """Lists the files of the archive or tree: path -> size in bytes."""
    if raw.is_dir():
        files = raw.rglob("*.[aA][sSmM][fFcC]")
        return {path.relative_to(raw).as_posix(): path.stat().st_size for path in files}
    if not raw.is_file():
        raise UserError(
            f"no motion capture at {str(raw)!r}; give the path of CMU's allasfamc.zip."
        )
    try:
        with zipfile.ZipFile(raw) as archive:
            return {member.filename: member.file_size for member in archive.infolist()}
    except zipfile.BadZipFile as error:
        raise UserError(f"{raw} is no complete zip file ({error}); download it again.") from error


def split_clips(clips: list[Clip], config: CmuMocapConfig) -> dict[str, list[Clip]]:
    """Assigns clips to splits; no subject is in both training and test."""
    present = {clip.subject for clip in clips}
    validation, test = set(config.validation_subjects), set(config.test_subjects)
    train = set(config.train_subjects)
    _check_subjects(present, {"train": train, "validation": validation, "test": test})
    if not test:
        test = _chosen(present) - train - validation
    train = train or present - test - validation
    splits: dict[str, list[Clip]] = {"train": [], "validation": [], "test": []}
    for clip in clips:
        held_out = not validation and pose_set.share(clip.name) < _VALIDATION_SHARE
        if clip.subject in test:
            splits["test"].append(clip)
        elif clip.subject in validation or (clip.subject in train and held_out):
            splits["validation"].append(clip)
        elif clip.subject in train:
            splits["train"].append(clip)
    for split, chosen in splits.items():
        if not chosen:
            raise UserError(
                f"cmu_mocap: no clip for the {split} split among subjects "
                f"{', '.join(sorted(present))}; name {split}_subjects."
            )
    return splits


def _chosen(present: set[str]) -> set[str]:
    """Chooses the test subjects: CMU's by their numbers, without numbers the first by a hash."""
    numbered = {name for name in present if name.isdecimal()}
    if numbered or len(present) < 3:
        return {name for name in numbered if int(name) % 8 == 3}
    return set(sorted(present, key=pose_set.share)[: max(1, round(_TEST_SHARE * len(present)))])


def _check_subjects(present: set[str], splits: Mapping[str, set[str]]) -> None:
    for split, names in splits.items():
        for other, others in splits.items():
            if split < other and names & others:
                raise UserError(
                    f"cmu_mocap: subjects {', '.join(sorted(names & others))} stand in both "
                    f"{split}_subjects and {other}_subjects."
                )
        if names - present:
            raise UserError(
                f"cmu_mocap: {split}_subjects names {', '.join(sorted(names - present))}, but "
                f"the data hold {', '.join(sorted(present))}."
            )


def human36m_joints(ends: Mapping[str, np.ndarray]) -> np.ndarray:
    """Computes the 17 joints `[frames, 17, 3]` from the bones' ends, name -> `[frames, 3]`."""
    joints = {joint: ends[bone] for joint, bone in _BONE_ENDS.items()}
    joints["hip"] = (joints["right_hip"] + joints["left_hip"]) / 2
    joints["spine"] = (joints["hip"] + joints["thorax"]) / 2
    return np.stack([joints[name] for name in HUMAN36M.joints], axis=1)


def load_clip(clip: Clip, fps: float = FPS, raw_fps: float = RAW_FPS) -> np.ndarray:
    """Reads the world positions `[frames, 17, 3]` of a clip, metres, z up, resampled."""
    asf, amc = (_read(clip.archive, member) for member in (clip.asf, clip.amc))
    skeleton = asf_amc.parse_asf(asf, clip.asf)
    lacking = set(_BONE_ENDS.values()) - set(skeleton.names)
    if lacking:
        raise UserError(f"{clip.asf}: no bone called {', '.join(sorted(lacking))}.")
    motion = asf_amc.resample(asf_amc.parse_amc(amc, skeleton, clip.amc, raw_fps), fps)
    joints = human36m_joints(asf_amc.forward_kinematics(skeleton, motion))
    leg = HUMAN36M.bone_lengths(joints[:1])[0][[1, 2]].sum()
    if not 0.4 < leg < 1.2:
        raise UserError(
            f"{clip.asf}: a leg is {leg:.3g} m long by the length of :units; mend that number."
        )
    # y up to z up: a quarter turn about x.
    return np.stack([joints[..., 0], -joints[..., 2], joints[..., 1]], axis=-1)


def _read(archive: str, member: str) -> str:
    if os.path.isdir(archive):
        return pathlib.Path(archive, member).read_text(encoding="latin-1")
    with zipfile.ZipFile(archive) as container:
        return container.read(member).decode("latin-1")


def encode(
    clip: Clip, rig: str, detector: Detector, seed: int, fps: float = FPS,
    raw_fps: float = RAW_FPS,
) -> staging.Records:
    """Makes the records of one clip, one per camera, by their ids.

    Raises:
      BadRecord: the clip is malformed.
    """
    with pose_set.refused_as_bad():
        world = load_clip(clip, fps, raw_fps)
    rng = virtual.generator(seed, clip.name)
    if re.fullmatch(r"\d+_\d+", clip.name):  # as prepared since the first version
        rng = np.random.default_rng([seed, *(int(part) for part in clip.name.split("_"))])
    # The archive does not name actions.
    action = f"subject {clip.subject}"
    return virtual.records(
        world, rig, detector, rng, name=clip.name, subject=clip.subject, action=action, fps=fps
    )


class CmuMocap(pose_set.PoseSet):
    """CMU clips; records of `pose_features`."""

    builder_config_class = CmuMocapConfig
    description = (
        "CMU motion capture, 17 joints in Human3.6M order, {fps:g} frames per second, seen by "
        "virtual cameras with lens distortion."
    )
    homepage = "http://mocap.cs.cmu.edu"
    citation = (
        "The data used in this project was obtained from mocap.cs.cmu.edu. The database was "
        "created with funding from NSF EIA-0196217."
    )

    def _splits(self, config) -> dict[str, list[staging.Staged]]:
        clips = find_clips(self.given_raw("PATH of allasfamc.zip"))
        subjects = sorted({clip.subject for clip in clips})
        progress.say(
            f"{self.name}: {len(clips):,} clips of {len(subjects):,} subjects: {some(subjects)}"
        )
        return self.staged(
            split_clips(clips, config),
            functools.partial(
                encode, rig=config.rig, detector=config.detector, seed=config.seed, fps=config.fps,
                raw_fps=config.raw_fps,
            ),
            chunk=4,
            max_bad=config.max_bad,
        )
