"""Prepares HumanEva-I (Sigal et al. 2010, humaneva.is.tue.mpg.de) from VideoPose3D's files.

    jaxcxr prepare humaneva --raw DIR --keypoints detectron_pt_coco

DIR holds `data_3d_humaneva15.npz` and `data_2d_humaneva15_KEYPOINTS.npz`. A chunk, "Walking 1
chunk0", is a run of frames in which the motion capture saw all joints. As published, the test uses
other takes of the training people; a held-out training subject chooses models. The files have no
intrinsics, so records have estimated ones without distortion.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator

import numpy as np

from jaxcxr.data import object_arrays
from jaxcxr.data.dataset import RUN_ONLY
from jaxcxr.errors import UserError
from jaxcxr.pose.formats import videopose3d_files
from jaxcxr.pose.formats.videopose3d_files import entry, mapping
from jaxcxr.pose.geometry import cameras, joint_sets
from jaxcxr.pose.sources import pose_set

FPS = 60.0
NAME = "data_3d_humaneva15.npz"
CAMERAS = ("C1", "C2", "C3")
SIZE = (640, 480)
PEOPLE = ("S1", "S2", "S3")
SUBJECTS = tuple(f"{part}/{person}" for part in ("Train", "Validate") for person in PEOPLE)
_LARGEST = 1e6  # metres
# Largest median distance of a view's keypoints from projected joints, pixels; a tenth of the width.
_TOLERANCE = 64.0
_LAYOUTS = {15: "humaneva15", 17: "coco"}
_JOINTS = joint_sets.joint_set("humaneva15").joints

# The data set's calibration of each camera, see `cameras.calibrated`; alike for S1 and S3.
_FIRST = (
    ((0.424207, -0.4983646, -0.5802981, 0.4847012), (4062.227, 663.2477, 1528.397)),
    ((0.6503354, -0.7481602, -0.0919284, 0.0941766), (844.8131, -3805.2092, 1504.9929)),
    ((0.0664734, -0.0690535, 0.7416416, -0.6639132), (-797.6738, 3916.3174, 1433.6602)),
)
_SECOND = (
    ((0.4214752, -0.4961493, -0.5838273, 0.4851187), (4112.9121, 626.4929, 1545.2988)),
    ((0.6501393, -0.7476588, -0.0954617, 0.0959808), (923.5740, -3877.9243, 1504.5518)),
    ((0.0699353, -0.0712403, 0.7421637, -0.662742), (-781.4915, 3838.8853, 1444.9929)),
)
_EXTRINSICS = {"S1": _FIRST, "S2": _SECOND, "S3": _FIRST}


@dataclasses.dataclass(eq=False)
class HumanevaConfig(pose_set.SubjectConfig):
    """Options of HumanEva; those that change the records name the variant.

    Attributes:
      keypoints: the 2D file: "detectron_pt_coco", "gt", or another NAME of a
        `data_2d_humaneva15_NAME.npz`.
      actions: first words of the takes to prepare; empty for all. The published protocol has
        Walking, Jog and Box.
      train_subjects: two of the three; the third validates.
      raw: folder of the files, or `data_3d_humaneva15.npz` with the 2D files beside it.
    """

    name: str = ""
    keypoints: str = "detectron_pt_coco"
    actions: tuple[str, ...] = ("Walking", "Jog", "Box")
    train_subjects: tuple[str, ...] = ("Train/S1", "Train/S3")
    validation_subjects: tuple[str, ...] = ("Train/S2",)
    test_subjects: tuple[str, ...] = ("Validate/S1", "Validate/S2", "Validate/S3")
    fps: float = FPS
    raw: str = dataclasses.field(default="", metadata=RUN_ONLY)

    def __post_init__(self):
        told = self.settle("humaneva", SUBJECTS)
        self.actions = pose_set.listed(self.actions)
        self.name = self.name or (
            f"{self.keypoints}_{'-'.join(self.actions) or 'all'}_{told}"
        )


class Humaneva(pose_set.PoseSet):
    """HumanEva-I in Human3.6M's 17 joints; records of `pose_features`."""

    builder_config_class = HumanevaConfig
    description = (
        "HumanEva-I: 15 joints, and two between them, in Human3.6M's order, from each of three "
        "cameras, {fps:g} frames per second."
    )
    homepage = "http://humaneva.is.tue.mpg.de"
    citation = (
        "L. Sigal, A. Balan, M. Black: HumanEva: Synchronized Video and Motion Capture Dataset and "
        "Baseline Algorithm for Evaluation of Articulated Human Motion. IJCV 87, 2010."
    )

    def _splits(self, config) -> dict[str, Iterator]:
        folder = pathlib.Path(self.given_raw(f"DIR with {NAME}")).expanduser()
        path = folder / NAME if folder.is_dir() else folder
        positions = read_positions(path)
        splits = config.split_takes("humaneva", (
            (subject, chunk, world)
            for subject, chunks in positions.items() for chunk, world in sorted(chunks.items())
            if not config.actions or chunk.split(" ")[0] in config.actions
        ), positions)
        views = _views([take for takes in splits.values() for take in takes], path, config)
        return {
            split: self._generate_examples(takes, views) for split, takes in splits.items()
        }

    def _generate_examples(self, takes: list, views: dict) -> Iterator[tuple[str, dict]]:
        for subject, chunk, _ in takes:
            for camera in CAMERAS:
                yield pose_set.record(
                    pose_set.sequence_name(subject, chunk, camera), subject,
                    videopose3d_files.action_name(chunk), camera,
                    views[subject, chunk, camera], FPS, self.builder_config.fps,
                )


def _views(takes: list, path: pathlib.Path, config: HumanevaConfig) -> dict[tuple, dict]:
    """Reads `joints`, `keypoints`, `confidence` and `intrinsics` by subject, chunk and camera."""
    flat = videopose3d_files.keypoint_path(path.parent, "data_2d_humaneva15", config.keypoints)
    file = videopose3d_files.read_keypoints(flat)
    layout = file.layout or _LAYOUTS.get(file.joints, f"{file.joints} joints")
    to_common, to_17 = joint_sets.to_human36m(layout), joint_sets.to_human36m("humaneva15")
    found: dict[tuple, dict] = {}
    groups: dict[tuple[str, str], list[tuple]] = {}
    for subject, chunk, world in takes:
        views = videopose3d_files.views(
            file, flat, subject, chunk, CAMERAS, len(world)
        )
        joints = to_17(world)[0]
        for camera, view in zip(CAMERAS, views, strict=True):
            there = np.isfinite(view).all(-1).astype(np.float32)
            pixels, confidence = to_common(view, there)
            found[subject, chunk, camera] = {
                "image_size": np.array(SIZE, np.int32),
                "joints": to_camera(joints, subject, camera).astype(np.float32),
                "keypoints": pixels.astype(np.float32),
                "confidence": confidence,
            }
            groups.setdefault((person(subject), camera), []).append(
                (subject, chunk, camera)
            )
    for keys in groups.values():
        names = [f"{flat}: {subject}, {chunk!r}, camera {camera}"
                 for subject, chunk, camera in keys]
        _calibrate([found[key] for key in keys], names)
    return found


def _calibrate(views: list[dict], names: list[str]) -> None:
    """Estimates the intrinsics of one camera's views."""
    pixels = [np.where(v["confidence"][..., None] > 0, v["keypoints"], np.nan) for v in views]
    camera = cameras.fit_pinhole(
        np.concatenate([v["joints"].reshape(-1, 3) for v in views]),
        np.concatenate([p.reshape(-1, 2) for p in pixels]),
    )
    for view, seen, name in zip(views, pixels, names, strict=True):
        off = cameras.reprojection_errors(camera, view["joints"], seen)
        off = off[~np.isnan(off)]
        if not len(off):
            raise UserError(f"{name} has no keypoints; leave it out of both files.")
        if np.median(off) > _TOLERANCE or not cameras.plausible(camera):
            raise UserError(
                f"{name}: keypoints are {np.median(off):.0f} pixels from the projected joints in "
                f"the median, by a camera of focal lengths {camera[0]:.0f} and {camera[1]:.0f}; "
                "cameras or files do not belong together."
            )
        view["intrinsics"] = cameras.pinhole_vector(camera)


def person(subject: str) -> str:
    """Returns the person, such as "S1" for both "Train/S1" and "Validate/S1"."""
    return subject.rsplit("/", 1)[-1]


@functools.cache
def _places_of(who: str) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    return tuple(cameras.calibrated(*place) for place in _EXTRINSICS[who])


def to_camera(world: np.ndarray, subject: str, camera: str) -> np.ndarray:
    """Transforms world positions `[..., 3]` in metres to a camera: x right, y down, z forward."""
    rotation, position = _places_of(person(subject))[CAMERAS.index(camera)]
    return (world - position) @ rotation.T


def read_positions(path: str | pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """Reads `data_3d_humaneva15.npz`: positions of all subjects except S4, who has no cameras.

    Returns:
      subject -> chunk -> float32 `[frames, 15, 3]` in metres, z up.
    """
    path = pathlib.Path(path).expanduser()
    content = mapping(entry(path, "positions_3d"), path, "positions_3d")
    found: dict[str, dict[str, np.ndarray]] = {}
    for subject, chunks in content.items():
        for chunk, values in mapping(chunks, path, subject).items():
            if subject in SUBJECTS:
                checked = _checked(object_arrays.as_array(values), f"{path}: {subject}, {chunk!r}")
                found.setdefault(subject, {})[chunk] = checked
    return found


def _checked(values: np.ndarray, where: str) -> np.ndarray:
    if values.ndim != 3 or values.shape[1:] != (len(_JOINTS), 3) or values.dtype.kind != "f":
        raise UserError(
            f"{where}: an array {values.dtype} {values.shape}; expected real numbers "
            f"[frames, {len(_JOINTS)}, 3], as in data_3d_humaneva15.npz."
        )
    if not len(values):
        raise UserError(f"{where} has no frames; make the file again.")
    fine = (np.abs(values) < _LARGEST).all((1, 2))
    if not fine.all():
        raise UserError(
            f"{where}: frame {np.argmin(fine)} is not finite; all joints of a chunk must be seen, "
            "so split it there."
        )
    top, foot = _JOINTS.index("head"), _JOINTS.index("left_ankle")
    stature = np.linalg.norm(values[:, top] - values[:, foot], axis=-1).max()
    if not 0.5 < stature < 3:
        raise UserError(
            f"{where}: head and foot are {stature:.3g} m apart; the file must be in metres, with "
            "the joints of VideoPose3D's humaneva15."
        )
    return values.astype(np.float32)
