"""Prepares HumanEva-I (Sigal et al. 2010, humaneva.is.tue.mpg.de) from VideoPose3D's files.

    jaxcxr prepare humaneva --raw DIR --keypoints detectron_pt_coco

DIR holds `data_3d_humaneva15.npz` and `data_2d_humaneva15_KEYPOINTS.npz`. As published, the test
uses other takes of the training people; a held-out training subject chooses models. The files have
no intrinsics, so records have estimated ones without distortion.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from jaxcxr.errors import UserError
from jaxcxr.pose.formats import humaneva_files, videopose3d_files
from jaxcxr.pose.geometry import joint_sets, pinhole
from jaxcxr.pose.keypoints import frame_rates
from jaxcxr.pose.sources import subjects
from jaxcxr.pose.sources.pose_set import PoseSet, pose_features

FPS = 60.0
# Largest median distance of a view's keypoints from projected joints, pixels; a tenth of the width.
_TOLERANCE = 64.0
_LAYOUTS = {15: "humaneva15", 17: "coco"}
_RUN = {"variant": False}  # an option that does not change what is prepared


@dataclasses.dataclass(eq=False)
class HumanevaConfig(subjects.SubjectConfig):
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
    raw: str = dataclasses.field(default="", metadata=_RUN)

    def __post_init__(self):
        told = self.settle("humaneva", humaneva_files.SUBJECTS)
        self.actions = subjects.listed(self.actions)
        self.name = self.name or (
            f"{self.keypoints}_{'-'.join(self.actions) or 'all'}_{told}"
        )


class Humaneva(PoseSet):
    """HumanEva-I in Human3.6M's 17 joints; records of `pose_features`."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIG_CLASS = HumanevaConfig
    builder_config_class = HumanevaConfig

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="HumanEva-I: 15 joints, and two between them, in Human3.6M's order, from "
            f"each of three cameras, {self.builder_config.fps:g} frames per second.",
            features=pose_features(),
            homepage="http://humaneva.is.tue.mpg.de",
            citation="L. Sigal, A. Balan, M. Black: HumanEva: Synchronized Video and Motion "
            "Capture Dataset and Baseline Algorithm for Evaluation of Articulated Human Motion. "
            "IJCV 87, 2010.",
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        config = self.builder_config
        if not config.raw:
            raise UserError(
                f"humaneva: where is the data? Give --raw DIR with {humaneva_files.NAME}."
            )
        folder = pathlib.Path(config.raw).expanduser()
        path = folder / humaneva_files.NAME if folder.is_dir() else folder
        positions = humaneva_files.read_positions(path)
        splits: dict[str, list] = {split: [] for split in subjects.SPLITS}
        for subject, chunks in positions.items():
            for chunk, world in sorted(chunks.items()):
                split = config.split_of(subject, chunk)
                known = not config.actions or chunk.split(" ")[0] in config.actions
                if split and known:
                    splits[split].append((subject, chunk, world))
        subjects.check_splits("humaneva", splits, positions)
        views = _views([take for takes in splits.values() for take in takes], path, config)
        return {
            split: self._generate_examples(takes, views) for split, takes in splits.items()
        }

    def _generate_examples(self, takes: list, views: dict) -> Iterator[tuple[str, dict]]:
        for subject, chunk, _ in takes:
            for camera in humaneva_files.CAMERAS:
                name = f"{subject}_{chunk.replace(' ', '_')}_{camera}"
                record = {
                    "sequence_id": name,
                    "subject": subject,
                    "action": videopose3d_files.action_name(chunk),
                    "camera": camera,
                    "fps": FPS,
                    "image_size": np.array(humaneva_files.SIZE, np.int32),
                    **views[subject, chunk, camera],
                }
                yield name, frame_rates.resample(record, self.builder_config.fps)


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
            file, flat, subject, chunk, humaneva_files.CAMERAS, len(world)
        )
        joints = to_17(world)[0]
        for camera, view in zip(humaneva_files.CAMERAS, views, strict=True):
            there = np.isfinite(view).all(-1).astype(np.float32)
            pixels, confidence = to_common(view, there)
            found[subject, chunk, camera] = {
                "joints": humaneva_files.to_camera(joints, subject, camera).astype(np.float32),
                "keypoints": pixels.astype(np.float32),
                "confidence": confidence,
            }
            groups.setdefault((humaneva_files.person(subject), camera), []).append(
                (subject, chunk, camera)
            )
    for keys in groups.values():
        names = [f"{flat}: {subject}, {chunk!r}, camera {camera}"
                 for subject, chunk, camera in keys]
        _calibrate([found[key] for key in keys], names)
    return found


def _calibrate(views: list[dict], names: list[str]) -> None:
    """Estimates the intrinsics of one camera's views.

    Raises:
      UserError: a view's keypoints do not match its joints.
    """
    pixels = [np.where(v["confidence"][..., None] > 0, v["keypoints"], np.nan) for v in views]
    camera = pinhole.fit(
        np.concatenate([v["joints"].reshape(-1, 3) for v in views]),
        np.concatenate([p.reshape(-1, 2) for p in pixels]),
    )
    for view, seen, name in zip(views, pixels, names, strict=True):
        off = pinhole.distances(camera, view["joints"], seen)
        off = off[~np.isnan(off)]
        if not len(off):
            raise UserError(f"{name} has no keypoints; leave it out of both files.")
        if np.median(off) > _TOLERANCE or not pinhole.plausible(camera):
            raise UserError(
                f"{name}: keypoints are {np.median(off):.0f} pixels from the projected joints in "
                f"the median, by a camera of focal lengths {camera[0]:.0f} and {camera[1]:.0f}; "
                "cameras or files do not belong together."
            )
        view["intrinsics"] = pinhole.vector(camera)
