"""Prepares Human3.6M from MotionBERT's files: poses in the image with each frame's true scale.

    jaxcxr prepare motionbert --raw h36m_sh_conf_cam_source_final.pkl

The network gives poses in half widths of the image. Evaluation multiplies them by each frame's true
`2.5d_factor`, so results belong under the protocols motionbert-sh, motionbert-cpn and
motionbert-gt; never compare them with VideoPose3D's. The training part has no factor; validation,
on a training subject, is in nominal millimetres (a person of 1.75 m): good for choosing models, not
for tables.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from jaxcxr.errors import UserError
from jaxcxr.pose.formats import human36m_files, motionbert_files, videopose3d_files
from jaxcxr.pose.formats.motionbert_files import nominal_scale  # noqa: F401 (what predict asks for)
from jaxcxr.pose.geometry.cameras import HUMAN36M_INTRINSICS
from jaxcxr.pose.keypoints import frame_rates
from jaxcxr.pose.sources import subjects
from jaxcxr.pose.sources.pose_set import PoseSet, pose_features

FPS = 50.0
_FILES = {"sh": "h36m_sh_conf_cam_source_final.pkl", "cpn": "h36m_cpn_cam_source.pkl"}
_RUN = {"variant": False}  # an option that does not change what is prepared


@dataclasses.dataclass(eq=False)
class MotionbertConfig(subjects.SubjectConfig):
    """Options; those that change the records name the variant.

    Attributes:
      keypoints: "sh" (stacked hourglass, with confidences), "cpn" (cascaded pyramid network), or
        "gt" (the true x and y).
      train_subjects: by default the published five without the validation subject.
      test_subjects: subjects of the file's test part, which alone has the scale.
      clip: frames of a test clip; the rest of a take is dropped, as MotionBERT does with 243,
        unless the take is shorter than one clip. 0 keeps all frames.
      raw: the pickle, or its folder.
    """

    name: str = ""
    keypoints: str = "sh"
    train_subjects: tuple[str, ...] = ("S1", "S5", "S6", "S7")
    validation_subjects: tuple[str, ...] = ("S8",)
    test_subjects: tuple[str, ...] = ("S9", "S11")
    clip: int = 243
    raw: str = dataclasses.field(default="", metadata=_RUN)

    def __post_init__(self):
        told = self.settle("motionbert", human36m_files.SUBJECTS)
        if self.keypoints not in (*_FILES, "gt"):
            raise UserError(f"motionbert: keypoints is {self.keypoints!r}; allowed: sh, cpn, gt.")
        if self.clip < 0:
            raise UserError(f"motionbert: clip is {self.clip}; give frames, or 0 for all.")
        self.name = self.name or f"{self.keypoints}_{told}_clip{self.clip}"


class Motionbert(PoseSet):
    """MotionBERT's Human3.6M; records of `pose_features` with their scale."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIG_CLASS = MotionbertConfig
    builder_config_class = MotionbertConfig

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Human3.6M by MotionBERT: 17 joints in the image with the true scale of "
            f"each frame, {self.builder_config.fps:g} frames per second.",
            features=pose_features(scaled=True),
            homepage="https://github.com/Walter0807/MotionBERT",
            citation="W. Zhu, X. Ma, Z. Liu, L. Liu, W. Wu, Y. Wang: MotionBERT: A Unified "
            "Perspective on Learning Human Motion Representations. ICCV 2023.",
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        config = self.builder_config
        parts = motionbert_files.read(_file(config), config.keypoints)
        splits: dict[str, list] = {split: [] for split in subjects.SPLITS}
        for part, views in parts.items():
            for view in views:
                split = config.split_of(view.subject, view.take)
                if split == "test" and part != "test":
                    raise UserError(
                        f"motionbert: {view.subject} is in the file's training part, which has no "
                        "2.5d_factor and cannot be tested on; choose test_subjects of S9 and S11."
                    )
                if split:
                    splits[split].append(view)
        subjects.check_splits(
            "motionbert", splits, {view.subject for views in parts.values() for view in views}
        )
        return {split: self._generate_examples(views, split) for split, views in splits.items()}

    def _generate_examples(self, views: list, split: str) -> Iterator[tuple[str, dict]]:
        config = self.builder_config
        for view in views:
            frames = len(view.joints)
            if split == "test" and config.clip and frames >= config.clip:
                frames -= frames % config.clip
            name = f"{view.subject}_{view.take.replace(' ', '_')}_{view.camera}"
            lens = HUMAN36M_INTRINSICS[view.camera]
            record = {
                "sequence_id": name,
                "subject": view.subject,
                "action": videopose3d_files.action_name(view.take),
                "camera": view.camera,
                "fps": FPS,
                "keypoints": view.keypoints[:frames],
                "confidence": view.confidence[:frames],
                "joints": view.joints[:frames],
                "scale": view.scale[:frames],
                "image_size": np.array([lens.width, lens.height], np.int32),
                "intrinsics": lens.vector(),
            }
            yield name, frame_rates.resample(record, config.fps)


def _file(config: MotionbertConfig) -> pathlib.Path:
    if not config.raw:
        raise UserError("motionbert: where is the data? Give --raw FILE, one of its pickles.")
    raw = pathlib.Path(config.raw).expanduser()
    if not raw.is_dir():
        return raw
    names = [_FILES[config.keypoints]] if config.keypoints in _FILES else list(_FILES.values())
    found = next((raw / name for name in names if (raw / name).is_file()), None)
    if found is None:
        there = ", ".join(sorted(path.name for path in raw.glob("*.pkl"))) or "none"
        raise UserError(f"motionbert: no {' or '.join(names)} in {raw}; pickles there: {there}.")
    return found
