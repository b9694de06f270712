"""Prepares TotalCapture (Trumble et al. 2017, cvssp.org/data/totalcapture).

    jaxcxr prepare totalcapture --raw DIR

DIR holds `calibration.cal` of eight cameras and, at any depth, a folder for each subject and take,
such as S1/vicon/acting1/, with Vicon's `gt_skel_gbl_pos.txt` at 60 frames per second. Users obtain
the licence themselves. The keypoints are the projected true joints, with optional noise.
"""

import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Iterator

import tensorflow_datasets as tfds

from jaxcxr.errors import UserError
from jaxcxr.pose.formats import totalcapture_files
from jaxcxr.pose.geometry.cameras import Camera
from jaxcxr.pose.keypoints import frame_rates
from jaxcxr.pose.sources import subjects, virtual
from jaxcxr.pose.sources.pose_set import PoseSet, pose_features

FPS = totalcapture_files.FPS
FILE, CALIBRATION = "gt_skel_gbl_pos.txt", "calibration.cal"
_RUN = {"variant": False}  # an option that does not change what is prepared
_SUBJECT = re.compile(r"[sS](\d+)(?:\D.*)?$")
_LISTS = ("train_subjects", "validation_subjects", "test_subjects", "validation_takes",
          "test_takes", "cameras")


@dataclasses.dataclass(eq=False)
class TotalcaptureConfig(virtual.DetectedConfig):
    """Options of TotalCapture; those that change the records name the variant.

    Attributes:
      train_subjects: the published protocol's, with all takes except the test's.
      validation_subjects: subjects that choose models; empty for `validation_takes`.
      validation_takes: takes of the training subjects that choose models.
      test_subjects: the published protocol's; S4 and S5 are in the test only.
      test_takes: the published protocol's, never trained on.
      cameras: "cam1" to "cam8"; empty for all. Many papers use cam1, cam3, cam5 and cam7.
      fps: frames per second; 0 for the files' 60.
      raw: folder of the files.
    """

    name: str = ""
    train_subjects: tuple[str, ...] = ("S1", "S2", "S3")
    validation_subjects: tuple[str, ...] = ()
    test_subjects: tuple[str, ...] = ("S1", "S2", "S3", "S4", "S5")
    validation_takes: tuple[str, ...] = ("freestyle2",)
    test_takes: tuple[str, ...] = ("walking2", "freestyle3", "acting3")
    cameras: tuple[str, ...] = ()
    fps: float = 0.0
    raw: str = dataclasses.field(default="", metadata=_RUN)

    def __post_init__(self):
        super().__post_init__()
        self.fps = frame_rates.check("totalcapture", self.fps, native=True)
        for field in _LISTS:
            setattr(self, field, subjects.listed(getattr(self, field)))
        twice = set(self.train_subjects) & set(self.validation_subjects)
        twice |= set(self.test_takes) & set(self.validation_takes)
        if twice:
            raise UserError(f"totalcapture: {min(twice)} is named for two splits; choose one.")
        told = hashlib.sha256(repr([getattr(self, f) for f in _LISTS]).encode()).hexdigest()[:8]
        published = all(getattr(self, f) == type(self).__dataclass_fields__[f].default
                        for f in _LISTS)
        self.name = self.name or (
            f"{'published' if published else told}_{self.detector.label}_seed{self.seed}"
            f"{frame_rates.label(self.fps, 0.0)}"
        )


def split_of(subject: str, take: str, config: TotalcaptureConfig) -> str:
    """Returns the split of a take, "" for none."""
    if take in config.test_takes:
        return "test" if subject in config.test_subjects else ""
    if subject in config.validation_subjects:
        return "validation"
    if subject not in config.train_subjects:
        return ""
    held_out = not config.validation_subjects and take in config.validation_takes
    return "validation" if held_out else "train"


def find_takes(raw: str | pathlib.Path) -> dict[tuple[str, str], pathlib.Path]:
    """Finds the files of positions by subject ("S1") and take ("acting1").

    Raises:
      UserError: there are none, a file has no subject, or a take has two files.
    """
    raw = pathlib.Path(raw).expanduser()
    found: dict[tuple[str, str], pathlib.Path] = {}
    for path in sorted(raw.rglob(FILE)):
        names = (_SUBJECT.match(part) for part in reversed(path.parts[:-2]))
        subject = next((f"S{match[1]}" for match in names if match), "")
        key = (subject, path.parent.name.lower())
        if not subject or key in found:
            why = f"as {found[key]}" if key in found else "no folder above it is S1 to S5"
            raise UserError(f"totalcapture: {path} is of no subject and take of its own: {why}.")
        found[key] = path
    if not found:
        raise UserError(
            f"totalcapture: no {FILE} in {raw}; it lies in folders such as S1/vicon/acting1."
        )
    return found


def find_cameras(raw: str | pathlib.Path, wanted: tuple[str, ...]) -> tuple[Camera, ...]:
    """Reads the cameras of the only `calibration.cal` below a folder.

    Raises:
      UserError: there is no or more than one such file, or it lacks a wanted camera.
    """
    raw = pathlib.Path(raw).expanduser()
    paths = sorted(raw.rglob(CALIBRATION))
    if len(paths) != 1:
        raise UserError(f"totalcapture: {len(paths)} files {CALIBRATION} in {raw}; expected one.")
    cameras = totalcapture_files.read_cameras(paths[0])
    names = [camera.name for camera in cameras]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise UserError(f"totalcapture: no camera {unknown[0]!r}; there are {', '.join(names)}.")
    return tuple(camera for camera in cameras if not wanted or camera.name in wanted)


class Totalcapture(PoseSet):
    """TotalCapture, 17 joints in the order of Human3.6M; records of `pose_features`."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIG_CLASS = TotalcaptureConfig
    builder_config_class = TotalcaptureConfig

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="TotalCapture: 17 joints in the frame of each of eight cameras and their "
            "projections, 60 frames per second.",
            features=pose_features(),
            homepage="https://cvssp.org/data/totalcapture/",
            citation="M. Trumble, A. Gilbert, C. Malleson, A. Hilton, J. Collomosse: Total "
            "Capture: 3D Human Pose Estimation Fusing Video and Inertial Sensors. BMVC 2017.",
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        config = self.builder_config
        if not config.raw:
            raise UserError(f"totalcapture: where is the data? Give --raw DIR with {CALIBRATION}.")
        cameras = find_cameras(config.raw, config.cameras)
        takes: dict[str, list] = {"train": [], "validation": [], "test": []}
        found = find_takes(config.raw)
        for (subject, take), path in found.items():
            split = split_of(subject, take, config)
            if split:
                takes[split].append((subject, take, path))
        for split, chosen in takes.items():
            if not chosen:
                there = ", ".join(f"{subject}/{take}" for subject, take in list(found)[:8])
                raise UserError(f"totalcapture: no take for the {split} split; there are {there}.")
        return {split: self._generate_examples(chosen, cameras) for split, chosen in takes.items()}

    def _generate_examples(self, takes: list, cameras: tuple[Camera, ...]) -> Iterator:
        """Yields one record per take and camera."""
        config = self.builder_config
        for subject, take, path in takes:
            world = totalcapture_files.read_positions(path)
            rng = virtual.generator(config.seed, f"{subject} {take}")
            for camera in cameras:
                name = f"{subject}_{take}_{camera.name}"
                record = {
                    "sequence_id": name, "subject": subject, "action": take,
                    "camera": camera.name, "fps": FPS,
                    **virtual.capture(world, camera, config.detector, rng, FPS),
                }
                yield name, frame_rates.resample(record, config.fps)
