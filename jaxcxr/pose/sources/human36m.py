"""Prepares Human3.6M (Ionescu et al. 2014, vision.imar.ro/human3.6m) with VideoPose3D's 2D files.

    jaxcxr prepare human36m --raw DIR --keypoints cpn_ft_h36m_dbb

DIR holds the positions (`data_3d_h36m.npz`, the original CDF files, or the h5 files of Martinez
et al. 2017) and `data_2d_h36m_KEYPOINTS.npz`. Users obtain the licence themselves.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from jaxcxr.errors import UserError
from jaxcxr.pose.formats import human36m_files, videopose3d_files
from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.keypoints import frame_rates
from jaxcxr.pose.keypoints.detector import Detector
from jaxcxr.pose.sources import subjects, virtual
from jaxcxr.pose.sources.pose_set import PoseSet, pose_features

FPS = 50.0
PROJECTED = "projected"
_RUN = {"variant": False}  # an option that does not change what is prepared


@dataclasses.dataclass(eq=False)
class Human36mConfig(subjects.SubjectConfig):
    """Options of Human3.6M; those that change the records name the variant.

    Attributes:
      keypoints: the 2D file: "cpn_ft_h36m_dbb", "detectron_ft_h36m", "sh_ft_h36m", "gt" or
        another NAME of a `data_2d_h36m_NAME.npz` in `raw`; "projected" projects the true joints to
        the four cameras and needs no file.
      train_subjects: by default the published five without the validation subject.
      raw: folder of the files, or `data_3d_h36m.npz` with the 2D files beside it.
    """

    name: str = ""
    keypoints: str = "cpn_ft_h36m_dbb"
    train_subjects: tuple[str, ...] = ("S1", "S5", "S6", "S7")
    validation_subjects: tuple[str, ...] = ("S8",)
    test_subjects: tuple[str, ...] = ("S9", "S11")
    raw: str = dataclasses.field(default="", metadata=_RUN)

    def __post_init__(self):
        told = self.settle("human36m", human36m_files.SUBJECTS)
        self.name = self.name or f"{self.keypoints}_{told}"


class Human36m(PoseSet):
    """Human3.6M, 17 joints; records of `pose_features`."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIG_CLASS = Human36mConfig
    builder_config_class = Human36mConfig

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Human3.6M: 17 joints in the camera frame and their keypoints from each "
            f"of four cameras, {self.builder_config.fps:g} frames per second.",
            features=pose_features(),
            homepage="http://vision.imar.ro/human3.6m",
            citation="C. Ionescu, D. Papava, V. Olaru, C. Sminchisescu: Human3.6M: Large Scale "
            "Datasets and Predictive Methods for 3D Human Sensing in Natural Environments. "
            "IEEE TPAMI 36(7), 2014.",
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        config = self.builder_config
        if not config.raw:
            raise UserError("human36m: where is the data? Give --raw DIR with data_3d_h36m.npz.")
        positions = human36m_files.read_positions(config.raw)
        takes: dict[str, list] = {split: [] for split in subjects.SPLITS}
        for subject, actions in positions.items():
            for take, world in sorted(actions.items()):
                split = config.split_of(subject, take)
                if split:
                    takes[split].append((subject, take, world))
        subjects.check_splits("human36m", takes, positions)
        keypoints = _Keypoints(config)
        return {
            split: self._generate_examples(chosen, keypoints) for split, chosen in takes.items()
        }

    def _generate_examples(self, takes: list, keypoints: "_Keypoints") -> Iterator:
        """Yields one record per take and camera."""
        for subject, take, world in takes:
            cameras = human36m_files.cameras_of(subject)
            views = keypoints.of(subject, take, world)
            for camera, arrays in zip(cameras, views, strict=True):
                name = f"{subject}_{take.replace(' ', '_')}_{camera.name}"
                record = {
                    "sequence_id": name,
                    "subject": subject,
                    "action": videopose3d_files.action_name(take),
                    "camera": camera.name,
                    "fps": FPS,
                    **arrays,
                }
                yield name, frame_rates.resample(record, self.builder_config.fps)


class _Keypoints:
    """Reads the keypoints of each take and camera as Human3.6M's 17 joints."""

    def __init__(self, config: Human36mConfig):
        self._file = None
        if config.keypoints == PROJECTED:
            return
        folder = pathlib.Path(config.raw).expanduser()
        folder = folder if folder.is_dir() else folder.parent
        self._path = videopose3d_files.keypoint_path(
            folder, "data_2d_h36m", config.keypoints, f", and {PROJECTED!r}, which needs no file"
        )
        self._file = videopose3d_files.read_keypoints(self._path)
        layout = self._file.layout or {17: "h36m", 16: "mpii"}.get(self._file.joints, "")
        self._convert = joint_sets.to_human36m(layout or f"{self._file.joints} joints")

    def of(self, subject: str, take: str, world: np.ndarray) -> list[dict]:
        """Returns the arrays of each camera's record, see `virtual.capture`."""
        cameras = human36m_files.cameras_of(subject)
        exact = Detector()
        found = [virtual.capture(world, camera, exact, np.random.default_rng(0))
                 for camera in cameras]
        if self._file is None:
            return found
        views = videopose3d_files.views(
            self._file, self._path, subject, take, [c.name for c in cameras], len(world)
        )
        for record, view in zip(found, views, strict=True):
            pixels, seen = self._convert(view)
            record["keypoints"] = np.where(seen[..., None], pixels, 0).astype(np.float32)
            record["confidence"] = seen.astype(np.float32)
        return found

