"""Human3.6M (Ionescu et al. 2014, vision.imar.ro/human3.6m), with each of VideoPose3D's 2D files.

    jaxcxr prepare human36m --raw DIR --keypoints cpn_ft_h36m_dbb

DIR holds the positions, `data_3d_h36m.npz` or the original CDF files or the h5 files of Martinez
et al. 2017, and `data_2d_h36m_KEYPOINTS.npz`. The licence of the data is the user's to obtain.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from jaxcxr.data import capture, human36m_cameras, human36m_files, joint_sets, schema
from jaxcxr.data.detector import Detector
from jaxcxr.errors import UserError

FPS = 50.0
PROJECTED = "projected"
_VALIDATION_SHARE = 0.1
_RUN = {"variant": False}  # an option that does not change what is prepared


@dataclasses.dataclass(eq=False)
class Human36mConfig(tfds.core.BuilderConfig):
    """Options of Human3.6M; those that change the records name the variant.

    Attributes:
      keypoints: which 2D file: "cpn_ft_h36m_dbb", "detectron_ft_h36m", "sh_ft_h36m", "gt" or
        any other NAME of a `data_2d_h36m_NAME.npz` in `raw`; "projected" needs no file: the true
        joints as the four cameras see them.
      train_subjects: the published protocol's five by default, but for the one that validates.
      validation_subjects: models are chosen on these, never on the test subjects. Empty: a tenth
        of the training subjects' takes, chosen by a hash of their names, with all their cameras.
      test_subjects: the published protocol's.
      raw: folder of the files, or `data_3d_h36m.npz` with the 2D files beside it.
    """

    name: str = ""
    keypoints: str = "cpn_ft_h36m_dbb"
    train_subjects: tuple[str, ...] = ("S1", "S5", "S6", "S7")
    validation_subjects: tuple[str, ...] = ("S8",)
    test_subjects: tuple[str, ...] = ("S9", "S11")
    raw: str = dataclasses.field(default="", metadata=_RUN)

    def __post_init__(self):
        groups = {}
        for split in ("train", "validation", "test"):
            field = f"{split}_subjects"
            value = getattr(self, field)
            names = value.split(",") if isinstance(value, str) else value
            names = tuple(name.strip() for name in names if str(name).strip())
            setattr(self, field, names)
            groups[split] = names
            unknown = [name for name in names if name not in human36m_cameras.SUBJECTS]
            if unknown:
                raise UserError(
                    f"human36m: {field} names {unknown[0]!r}; subjects are "
                    f"{', '.join(human36m_cameras.SUBJECTS)}."
                )
        named = [name for names in groups.values() for name in names]
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise UserError(f"human36m: subject {twice[0]} is named for two splits; choose one.")
        if not groups["train"] or not groups["test"]:
            raise UserError("human36m: train_subjects and test_subjects must not be empty.")
        joined = "_".join(
            f"{short}-{'-'.join(groups[split]) or 'takes'}"
            for short, split in (("train", "train"), ("val", "validation"), ("test", "test"))
        )
        self.name = self.name or f"{self.keypoints}_{joined}"


def split_of(subject: str, take: str, config: Human36mConfig) -> str:
    """The split of a take, "" for subjects in none."""
    if subject in config.test_subjects:
        return "test"
    if subject in config.validation_subjects:
        return "validation"
    if subject not in config.train_subjects:
        return ""
    if config.validation_subjects:
        return "train"
    digest = hashlib.sha256(f"{subject} {take}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "validation" if share < _VALIDATION_SHARE else "train"


class Human36m(tfds.core.GeneratorBasedBuilder):
    """Human3.6M at 50 frames per second, 17 joints; records of `schema.pose_features`."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIG_CLASS = Human36mConfig
    builder_config_class = Human36mConfig

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Human3.6M: 17 joints in the camera frame and their keypoints from each "
            "of four cameras, 50 frames per second.",
            features=schema.pose_features(),
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
        takes: dict[str, list] = {"train": [], "validation": [], "test": []}
        for subject, actions in positions.items():
            for take, world in sorted(actions.items()):
                split = split_of(subject, take, config)
                if split:
                    takes[split].append((subject, take, world))
        empty = [split for split, chosen in takes.items() if not chosen]
        if empty:
            raise UserError(
                f"human36m: no take for the {empty[0]} split; the data hold subjects "
                f"{', '.join(sorted(positions))}."
            )
        keypoints = _Keypoints(config)
        return {
            split: self._generate_examples(chosen, keypoints) for split, chosen in takes.items()
        }

    def _generate_examples(self, takes: list, keypoints: "_Keypoints") -> Iterator:
        """One record per camera of each take."""
        for subject, take, world in takes:
            cameras = human36m_cameras.cameras_of(subject)
            views = keypoints.of(subject, take, world)
            for camera, arrays in zip(cameras, views, strict=True):
                name = f"{subject}_{take.replace(' ', '_')}_{camera.name}"
                yield name, {
                    "sequence_id": name,
                    "subject": subject,
                    "action": human36m_files.action_name(take),
                    "camera": camera.name,
                    "fps": FPS,
                    **arrays,
                }


class _Keypoints:
    """Gives the keypoints of each take and camera in Human3.6M's 17 joints."""

    def __init__(self, config: Human36mConfig):
        self._file = None
        if config.keypoints == PROJECTED:
            return
        folder = pathlib.Path(config.raw).expanduser()
        folder = folder if folder.is_dir() else folder.parent
        self._path = folder / f"data_2d_h36m_{config.keypoints}.npz"
        if not self._path.is_file():
            there = sorted(path.stem[len("data_2d_h36m_"):]
                           for path in folder.glob("data_2d_h36m_*.npz"))
            raise UserError(
                f"human36m: no {self._path}; keypoints there: {', '.join(there) or 'none'}, and "
                f"{PROJECTED!r}, which needs no file."
            )
        self._file = human36m_files.read_keypoints(self._path)
        layout = self._file.layout or {17: "h36m", 16: "mpii"}.get(self._file.joints, "")
        self._convert = joint_sets.to_human36m(layout or f"{self._file.joints} joints")

    def of(self, subject: str, take: str, world: np.ndarray) -> list[dict]:
        """`keypoints`, `confidence`, `joints`, `image_size` and `intrinsics` for each camera."""
        cameras = human36m_cameras.cameras_of(subject)
        exact = Detector()
        found = [capture.capture(world, camera, exact, np.random.default_rng(0))
                 for camera in cameras]
        if self._file is None:
            return found
        views = self._file.sequences.get(subject, {}).get(take)
        if views is None or len(views) != len(cameras):
            raise UserError(
                f"{self._path}: {subject}, {take!r} is absent or has not {len(cameras)} cameras, "
                "which the positions have; take both files from one preparation."
            )
        for record, view, camera in zip(found, views, cameras, strict=True):
            if len(view) < len(world):
                raise UserError(
                    f"{self._path}: {subject}, {take!r}, camera {camera.name}: {len(view)} frames "
                    f"of keypoints for {len(world)} of positions."
                )
            # Videos go on a little after the motion capture has stopped.
            pixels, seen = self._convert(view[: len(world)].astype(np.float32))
            record["keypoints"] = np.where(seen[..., None], pixels, 0).astype(np.float32)
            record["confidence"] = seen.astype(np.float32)
        return found

