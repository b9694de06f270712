"""Prepares TotalCapture (Trumble et al. 2017, cvssp.org/data/totalcapture).

    jaxcxr prepare totalcapture --raw DIR

DIR holds `calibration.cal` of eight cameras and, at any depth, a folder for each subject and take,
such as S1/vicon/acting1/, with Vicon's `gt_skel_gbl_pos.txt`. Users obtain the licence themselves.
The keypoints are the projected true joints, with optional noise.

`gt_skel_gbl_pos.txt`: a line with the names of the joints, then one line per frame at 60 per
second, x, y and z of each joint in inches, y up. `calibration.cal`: the number of cameras and of
distortion coefficients, then seven lines per camera: first and last row and column of the image;
fx, fy, cx, cy in pixels; k1; three lines of rotation R; the translation t in metres. A point X is
at R X + t in the camera frame.
"""

import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Iterator

import numpy as np

from jaxcxr.data.dataset import RUN_ONLY
from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.geometry.cameras import Camera, Intrinsics
from jaxcxr.pose.keypoints import frame_rates
from jaxcxr.pose.sources import pose_set, virtual

FPS = 60.0
FILE, CALIBRATION = "gt_skel_gbl_pos.txt", "calibration.cal"
METRES = 0.0254  # of an inch
# Names of the joint set "totalcapture21" in the files, in its order.
NAMES = (
    "Hips", "Spine", "Spine1", "Spine2", "Spine3", "Neck", "Head", "RightShoulder", "RightArm",
    "RightForeArm", "RightHand", "LeftShoulder", "LeftArm", "LeftForeArm", "LeftHand",
    "RightUpLeg", "RightLeg", "RightFoot", "LeftUpLeg", "LeftLeg", "LeftFoot",
)
_TALL = (0.5, 3.0)  # metres from head to foot
_LONGEST = 1_000_000  # frames
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
    raw: str = dataclasses.field(default="", metadata=RUN_ONLY)

    def __post_init__(self):
        super().__post_init__()
        self.fps = frame_rates.check("totalcapture", self.fps, native=True)
        for field in _LISTS:
            setattr(self, field, pose_set.listed(getattr(self, field)))
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
    """Finds the files of positions by subject ("S1") and take ("acting1")."""
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
    """Reads the cameras of the only `calibration.cal` below a folder."""
    raw = pathlib.Path(raw).expanduser()
    paths = sorted(raw.rglob(CALIBRATION))
    if len(paths) != 1:
        raise UserError(f"totalcapture: {len(paths)} files {CALIBRATION} in {raw}; expected one.")
    cameras = read_cameras(paths[0])
    names = [camera.name for camera in cameras]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise UserError(f"totalcapture: no camera {unknown[0]!r}; there are {', '.join(names)}.")
    return tuple(camera for camera in cameras if not wanted or camera.name in wanted)


class Totalcapture(pose_set.PoseSet):
    """TotalCapture, 17 joints in the order of Human3.6M; records of `pose_features`."""

    builder_config_class = TotalcaptureConfig
    description = (
        "TotalCapture: 17 joints in the frame of each of eight cameras and their projections, 60 "
        "frames per second."
    )
    homepage = "https://cvssp.org/data/totalcapture/"
    citation = (
        "M. Trumble, A. Gilbert, C. Malleson, A. Hilton, J. Collomosse: Total Capture: 3D Human "
        "Pose Estimation Fusing Video and Inertial Sensors. BMVC 2017."
    )

    def _splits(self, config) -> dict[str, Iterator]:
        raw = self.given_raw(f"DIR with {CALIBRATION}")
        cameras = find_cameras(raw, config.cameras)
        takes: dict[str, list] = {split: [] for split in pose_set.SPLITS}
        found = find_takes(raw)
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
            world = read_positions(path)
            rng = virtual.generator(config.seed, f"{subject} {take}")
            for camera in cameras:
                yield pose_set.record(
                    f"{subject}_{take}_{camera.name}", subject, take, camera.name,
                    virtual.capture(world, camera, config.detector, rng, FPS), FPS, config.fps,
                )


def read_positions(path: str | pathlib.Path) -> np.ndarray:
    """Reads the world positions of one take from `gt_skel_gbl_pos.txt`.

    Returns:
      float64 `[frames, 17, 3]` in metres, y up.
    """
    path = pathlib.Path(path)
    lines = _lines(path)
    names = lines[0].split() if lines else []
    lacking = [name for name in NAMES if name not in names]
    if lacking or len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        what = f"has no {', '.join(lacking[:5])}" if lacking else f"names {twice[0]} twice"
        raise UserError(f"{path}: its first line, the names of the joints, {what}.")
    rows = [(number, line.split()) for number, line in enumerate(lines[1:], 2) if line.strip()]
    if not rows or len(rows) > _LONGEST:
        raise UserError(f"{path}: {len(rows):,} frames; expected 1 to {_LONGEST:,}.")
    for number, words in rows:
        if len(words) != 3 * len(names):
            raise UserError(
                f"{path}, line {number}: {len(words)} numbers, but {len(names)} joints need "
                f"{3 * len(names)}; the file is truncated or of another kind."
            )
    values = _numbers(path, rows).reshape(len(rows), len(names), 3)
    points = values[:, [names.index(name) for name in NAMES]] * METRES
    joints, _ = joint_sets.to_human36m("totalcapture21")(points)
    tall = np.linalg.norm(joints[:, 10] - joints[:, [3, 6]].mean(1), axis=-1).max()
    if not _TALL[0] < tall < _TALL[1]:
        raise UserError(
            f"{path}: head and feet are {tall:.3g} m apart; the file must hold people in inches."
        )
    return joints


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); download it again.") from error


def _numbers(path: pathlib.Path, rows: list[tuple[int, list[str]]]) -> np.ndarray:
    """Converts words to finite numbers `[rows, words]`."""
    found = np.empty((len(rows), len(rows[0][1])))
    for place, (number, words) in enumerate(rows):
        try:
            found[place] = [float(word) for word in words]
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}.") from error
    wrong = ~(np.abs(found) < 1e6).all(1)
    if wrong.any():
        raise UserError(f"{path}, line {rows[int(np.argmax(wrong))][0]}: a number is not finite.")
    return found


def read_cameras(path: str | pathlib.Path) -> tuple[Camera, ...]:
    """Reads the cameras of `calibration.cal`, named "cam1", "cam2", ... like the videos."""
    path = pathlib.Path(path)
    words = [(number, word) for number, line in enumerate(_lines(path), 1)
             for word in line.split()]
    values = np.zeros(2)
    if len(words) > 1:
        values = _numbers(path, [(number, [word]) for number, word in words]).ravel()
    count, order = values[:2]
    if count not in range(1, 100) or order != 1:
        raise UserError(
            f"{path}: its first line must be the number of cameras and 1, the number of "
            "distortion coefficients."
        )
    size = 4 + 4 + 1 + 9 + 3
    if len(values) != 2 + int(count) * size:
        raise UserError(
            f"{path}: {len(values) - 2} numbers for {int(count)} cameras, which need {size} each; "
            "the file is truncated or of another kind."
        )
    blocks = values[2:].reshape(int(count), size)
    return tuple(_camera(f"{path}, camera {i}", f"cam{i}", block)
                 for i, block in enumerate(blocks, 1))


def _camera(where: str, name: str, block: np.ndarray) -> Camera:
    first_row, last_row, first_column, last_column = block[:4]
    width, height = last_column - first_column + 1, last_row - first_row + 1
    fx, fy, cx, cy, k1 = block[4:9]
    rotation, translation = block[9:18].reshape(3, 3), block[18:]
    if min(fx, fy) <= 0 or min(width, height) < 1:
        raise UserError(f"{where}: its focal length or image size is impossible.")
    off = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if off > 1e-3 or np.linalg.det(rotation) < 0:
        raise UserError(f"{where}: its rotation matrix is not a rotation.")
    lens = Intrinsics(fx, fy, cx - first_column, cy - first_row, k1,
                      width=int(width), height=int(height))
    return Camera(name, lens, rotation, -rotation.T @ translation)
