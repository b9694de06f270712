"""Prepares SURREAL (Varol et al. 2017, www.di.ens.fr/willow/research/surreal).

    jaxcxr prepare surreal --raw SURREAL/data/cmu

The folder holds train/ and test/ as published, with run0/ to run2/ of `*_info.mat`: rendered SMPL
bodies at 30 frames per second. Users obtain the licence themselves. The motions are CMU's, so
models trained here have seen test subjects of other sources of CMU's motion capture. The published
val/ is a part of test/ and is not used; held-out training subjects choose models.

Blender's camera has the same rotation in every clip: x of the camera is -z of the world, y is y,
and depth is -x, which is a reflection. People in the images are thus mirrored, and joints named
left appear on the right. Left and right are exchanged here, so poses in the camera frame are real
(the authors' scripts 3Dto2D and smpl_relations). Pixels count from 0, are rounded, and may lie
outside the image. All joints of a frame that was not rendered are 0.
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
from jaxcxr.pose.formats import mat_files
from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.geometry.cameras import Camera, Intrinsics
from jaxcxr.pose.keypoints import frame_rates
from jaxcxr.pose.sources import pose_set, virtual
from jaxcxr.pose.sources.virtual import Detector

FPS = 30.0
LENS = Intrinsics(600.0, 600.0, 160.0, 120.0, width=320, height=240)
ROTATION = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
KEYPOINTS = ("joints2D", "projected")
_APART = 2.0  # pixels; rounding gives half of one
_TALL = (0.4, 3.5)  # metres from head to foot, for bodies of all shapes
_SHARE = 0.1
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
    raw: str = dataclasses.field(default="", metadata=RUN_ONLY)
    workers: int = dataclasses.field(default=0, metadata=RUN_ONLY)
    max_bad: int = dataclasses.field(default=0, metadata=RUN_ONLY)

    def __post_init__(self):
        super().__post_init__()
        self.fps = frame_rates.check("surreal", self.fps, native=True)
        if self.keypoints not in KEYPOINTS:
            raise UserError(
                f"surreal: keypoints is {self.keypoints!r}; allowed: {', '.join(KEYPOINTS)}."
            )
        for field in ("runs", "validation_subjects"):
            setattr(self, field, pose_set.listed(getattr(self, field)))
        self.name = self.name or (
            f"{self.keypoints}_{'-'.join(self.runs)}_"
            f"val-{'-'.join(self.validation_subjects) or 'auto'}_{self.detector.label}"
            f"_seed{self.seed}{frame_rates.label(self.fps, 0.0)}"
        )


@dataclasses.dataclass(frozen=True)
class Clip:
    """One file of a clip of the part "train" or "test"; its size tells changes.

    Attributes:
      subject: CMU's number.
      take: the subject's take, with "ung" before ungrouped clips.
      number: number of the clip in all runs of the take.
    """

    part: str
    subject: str
    take: str
    number: int
    path: str
    bytes: int


def find_clips(raw: str | pathlib.Path, runs: tuple[str, ...]) -> list[Clip]:
    """Finds the clips of the published parts and the runs wanted."""
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
    """Assigns clips to splits, each subject to one."""
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
    with pose_set.refused_as_bad():
        found = read_clip(clip.path)
    pixels = found.keypoints if keypoints == "joints2D" else found.projected
    seen = np.all((pixels >= 0) & (pixels < (LENS.width, LENS.height)), axis=-1)
    name = f"{clip.subject}_motion_{clip.take}"
    rng = virtual.generator(seed, f"{name} {clip.number}")
    records: list[tuple[str, dict]] = []
    for part, (start, end) in enumerate(virtual.runs(found.there)):
        chosen = slice(start, end)
        # For confidence intervals, overlapping clips of one take are chunks of one motion.
        sequence = f"{name}_chunk{clip.number:05d}{part}_camera"
        records.append(pose_set.record(
            sequence, clip.subject, "motion", "camera",
            virtual.observed(found.joints[chosen], pixels[chosen], seen[chosen], LENS, detector,
                             rng, FPS), FPS, fps,
        ))
    return dict(records)


class Surreal(pose_set.PoseSet):
    """SURREAL, 17 joints in the order of Human3.6M; records of `pose_features`."""

    builder_config_class = SurrealConfig
    description = (
        "SURREAL: rendered SMPL bodies, 17 joints in Human3.6M order in the camera frame and in "
        "the image, 30 frames per second."
    )
    homepage = "https://www.di.ens.fr/willow/research/surreal/"
    citation = (
        "G. Varol, J. Romero, X. Martin, N. Mahmood, M. J. Black, I. Laptev, C. Schmid: Learning "
        "from Synthetic Humans. CVPR 2017."
    )

    def _splits(self, config) -> dict[str, list[staging.Staged]]:
        clips = find_clips(self.given_raw("DIR with train and test"), config.runs)
        return self.staged(
            split_clips(clips, config.validation_subjects),
            functools.partial(
                encode, keypoints=config.keypoints, detector=config.detector, seed=config.seed,
                fps=config.fps,
            ),
            max_bad=config.max_bad,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Motion:
    """The bodies of a clip.

    Attributes:
      joints: float64 `[frames, 17, 3]` in metres in the camera frame (x right, y down, z forward).
      keypoints: `[frames, 17, 2]`, the file's pixels.
      projected: `[frames, 17, 2]`, pixels of the projected joints.
      there: bool `[frames]`, whether the frame was rendered.
    """

    joints: np.ndarray
    keypoints: np.ndarray
    projected: np.ndarray
    there: np.ndarray


def _exchanged() -> list[int]:
    """Returns the order of SMPL's joints with left and right exchanged."""
    names = joint_sets.JOINT_SETS["smpl24"].joints
    swap = {"left": "right", "right": "left"}
    other = ["_".join([swap.get(name.split("_")[0], name.split("_")[0]), *name.split("_")[1:]])
             for name in names]
    return [names.index(name) for name in other]


def read_clip(path: str | pathlib.Path) -> Motion:
    """Reads one clip from its `*_info.mat`."""
    content = mat_files.read(path, ["joints2D", "joints3D", "camLoc"])
    world = _array(path, content, "joints3D", 3)
    pixels = _array(path, content, "joints2D", 2)
    place = np.asarray(content.get("camLoc", []))
    if place.shape != (3,) or place.dtype.kind not in "fiu" or not np.isfinite(place).all():
        raise UserError(f"{path}: camLoc must be the camera's position, three numbers.")
    if len(world) != len(pixels):
        raise UserError(f"{path}: joints3D has {len(world)} frames, joints2D {len(pixels)}.")
    there = (world != 0).any((1, 2))
    if not there.any():
        raise UserError(f"{path}: no frame was rendered; all joints are 0.")
    order = _exchanged()
    camera = Camera("camera", LENS, ROTATION, place.astype(np.float64))
    points = camera.to_camera(world)[:, order]
    if not (points[there][..., 2] > 0).all():
        raise UserError(f"{path}: joints behind the camera; camLoc is of another clip.")
    projected = LENS.project(np.where(there[:, None, None], points, 1.0))
    apart = np.median(np.linalg.norm(projected - pixels[:, order], axis=-1)[there])
    if apart > _APART:
        raise UserError(
            f"{path}: projected joints are {apart:.0f} pixels from joints2D; the camera is of "
            "another clip."
        )
    convert = joint_sets.to_human36m("smpl24")
    joints, _ = convert(points)
    tall = np.linalg.norm(joints[there, 10] - joints[there][:, [3, 6]].mean(1), axis=-1).max()
    if not _TALL[0] < tall < _TALL[1]:
        raise UserError(f"{path}: head and feet are {tall:.3g} m apart; nobody has that size.")
    exact = LENS.project(np.where(there[:, None, None], joints, 1.0))
    return Motion(joints, convert(pixels[:, order])[0], exact, there)


def _array(path, content: dict, name: str, size: int) -> np.ndarray:
    """Reads `[size, 24, frames]`, or `[size, 24]` of one frame, as `[frames, 24, size]`."""
    values = np.asarray(content.get(name, []))
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[:2] != (size, 24) or values.dtype.kind not in "fiu":
        raise UserError(
            f"{path}: {name} has the shape {list(values.shape)}, not [{size}, 24, frames]."
        )
    if not values.shape[2] or not np.isfinite(values).all():
        raise UserError(f"{path}: {name} has no frames, or numbers that are not finite.")
    return values.transpose(2, 1, 0).astype(np.float64)
