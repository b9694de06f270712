"""Prepares MPI-INF-3DHP (Mehta et al. 2017) from npz files of P-STMO or D3DP, with true keypoints.

    jaxcxr prepare mpi_inf_3dhp --raw DIR

DIR holds a training and a test file of one kind. Both kinds have one array `data`, a dict: "S1
Seq1" -> [{camera: {"data_3d", "data_2d"}}] for training, "TS1" -> {"data_3d", "data_2d", "valid"}
for the test. Poses are in millimetres in the camera frame, keypoints in pixels, with 17 joints in
the test set's order. The file names are the same, but only D3DP's poses (`annot3`, as recorded)
project onto the keypoints; P-STMO's (`univ_annot3`) are scaled about the person to the height of
one skeleton. They belong under the protocols mpi-inf-3dhp and mpi-inf-3dhp-univ. Invalid test
frames are left out; the runs between them are sequences "test chunk0", "test chunk1", ...

Training sequences have 25 or 50 frames per second. By default all are resampled to 25; with
`--fps 0` each keeps its own, so windows of equal frames last half as long in some.
"""

import dataclasses
import pathlib
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from jaxcxr.data import object_arrays
from jaxcxr.data.dataset import RUN_ONLY
from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import cameras, joint_sets
from jaxcxr.pose.sources import pose_set, virtual

FPS = 25.0
ANNOTATIONS = ("annot3", "univ_annot3")
TRAIN = tuple(f"S{number}" for number in range(1, 9))
TEST = tuple(f"TS{number}" for number in range(1, 7))
# Sequences at 50 frames per second by the data set's table; the others have 25. The table omits the
# test sequences; 25 is assumed.
_FAST = {("S1", "Seq2"), ("S3", "Seq1"), ("S3", "Seq2"), ("S5", "Seq1"), ("S5", "Seq2")}
_WIDE = ("TS5", "TS6")  # filmed outdoors, 1920x1080
_LARGEST = 1e7  # millimetres or pixels; larger numbers count as missing
_JOINTS = 17
_ROOT = 14
# Poses were scaled if they match the keypoints only when scaled back by more than this.
_SCALED = 0.004
_SCALES = (0.7, 1.4)
_PLAIN = 0.5  # pixels; a smaller error of the keypoints needs no scale
_FRAMES = 200  # frames from which a sequence's scale is estimated
_TOLERANCE = 0.05  # largest median error of keypoints, as a share of the width


@dataclasses.dataclass(eq=False)
class MpiInf3dhpConfig(pose_set.SubjectConfig):
    """Options of MPI-INF-3DHP; those that change the records name the variant.

    Attributes:
      annotations: "annot3" (poses as recorded, D3DP's files) or "univ_annot3" (scaled to one
        height, P-STMO's files).
      train_subjects: by default the published eight without the validation subject.
      test_subjects: TS1 to TS6; the last two are outdoors.
      fps: frames per second of the prepared sequences, 0 for each
        sequence's own, 25 or 50.
      raw: folder of the two files.
    """

    name: str = ""
    annotations: str = "annot3"
    train_subjects: tuple[str, ...] = TRAIN[:7]
    validation_subjects: tuple[str, ...] = ("S8",)
    test_subjects: tuple[str, ...] = TEST
    fps: float = FPS
    raw: str = dataclasses.field(default="", metadata=RUN_ONLY)

    def __post_init__(self):
        known = (*TRAIN, *TEST)
        told = self.settle("mpi_inf_3dhp", known, native=True)
        if self.annotations not in ANNOTATIONS:
            raise UserError(
                f"mpi_inf_3dhp: annotations is {self.annotations!r}; allowed: "
                f"{', '.join(ANNOTATIONS)}."
            )
        self.name = self.name or f"{self.annotations}_{told}"


class MpiInf3dhp(pose_set.PoseSet):
    """MPI-INF-3DHP in Human3.6M's order; records of `pose_features`."""

    name = "mpi_inf_3dhp"
    builder_config_class = MpiInf3dhpConfig
    homepage = "https://vcai.mpi-inf.mpg.de/3dhp-dataset/"
    citation = (
        "D. Mehta, H. Rhodin, D. Casas, P. Fua, O. Sotnychenko, W. Xu, C. Theobalt: Monocular 3D "
        "Human Pose Estimation In The Wild Using Improved CNN Supervision. 3DV 2017."
    )

    @property
    def description(self) -> str:  # type: ignore[override]
        """Description with the frame rates, which may be two."""
        rate = "{fps:g}" if self.builder_config.fps else "25 or 50"
        return ("MPI-INF-3DHP: 17 joints in the camera frame and their true keypoints, "
                f"{rate} frames per second.")

    def _splits(self, config) -> dict[str, Iterator]:
        self.given_raw("DIR with a training and a test file")
        views = [view for file in _files(config) for view in file.views]
        splits = config.split_takes(
            "mpi_inf_3dhp", ((view.subject, view.take, view) for view in views),
            {view.subject for view in views},
        )
        return {split: self._generate_examples(takes) for split, takes in splits.items()}

    def _generate_examples(self, takes: list) -> Iterator[tuple[str, dict]]:
        for subject, take, view in takes:
            for run, frames in _runs(view):
                arrays = {
                    "keypoints": view.keypoints[frames], "confidence": view.confidence[frames],
                    "joints": view.joints[frames], "image_size": np.array(view.size, np.int32),
                    "intrinsics": view.camera_vector,
                }
                yield pose_set.record(
                    pose_set.sequence_name(subject, run, view.camera), subject, take, view.camera,
                    arrays, view.fps, self.builder_config.fps,
                )


@dataclasses.dataclass(frozen=True)
class View:
    """One sequence from one camera.

    Attributes:
      subject, take, camera: such as "S1", "Seq1" and "0"; in the test "TS1", "test" and "0".
      joints: float32 `[frames, 17, 3]` in metres in the camera frame, Human3.6M's order.
      keypoints: float32 `[frames, 17, 2]` in pixels.
      confidence: float32 `[frames, 17]`, 0 where a keypoint is not finite.
      valid: bool `[frames]`, which frames are scored.
      camera_vector: float32 `[9]`, estimated intrinsics.
    """

    subject: str
    take: str
    camera: str
    joints: np.ndarray
    keypoints: np.ndarray
    confidence: np.ndarray
    valid: np.ndarray
    fps: float
    size: tuple[int, int]
    camera_vector: np.ndarray


@dataclasses.dataclass(frozen=True)
class File:
    """Content of a file: kind of poses, part ("train" or "test"), and sequences."""

    path: pathlib.Path
    annotations: str
    part: str
    views: tuple[View, ...]


def fps_of(subject: str, take: str) -> float:
    """Returns the frames per second of a sequence."""
    return 50.0 if (subject, take) in _FAST else 25.0


def may_be(path: pathlib.Path) -> bool:
    """Tells whether a file has an array `data`; True for files that cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "data.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return True


def read_file(path: str | pathlib.Path) -> File:
    """Reads a file of either kind."""
    path = pathlib.Path(path).expanduser()
    content = object_arrays.read_npz(path).get("data")
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} has no dict 'data'; it is no file of P-STMO or D3DP.")
    tested = [isinstance(value, dict) and "valid" in value for value in content.values()]
    if any(tested) and not all(tested):
        raise UserError(f"{path} has both training and test sequences; split the file.")
    views, scales = [], []
    for where, names, entry in (_tested if all(tested) else _trained)(content, path):
        view, scale = _view(where, names, entry)
        views.append(view)
        scales.append(scale)
    scaled = max(abs(scale - 1) for scale in scales) > _SCALED
    return File(
        path, ANNOTATIONS[scaled], "test" if all(tested) else "train", tuple(views)
    )


def _tested(content: Mapping, path: pathlib.Path) -> Iterator[tuple]:
    for name, entry in content.items():
        if name not in TEST:
            raise UserError(f"{path}: unknown test sequence {name!r}; they are TS1 to TS6.")
        yield f"{path}: {name}", (name, "test", "0"), entry


def _trained(content: Mapping, path: pathlib.Path) -> Iterator[tuple]:
    for name, value in content.items():
        found = re.fullmatch(r"(S[1-8]) (Seq[12])", str(name))
        if not found:
            raise UserError(
                f"{path}: {name!r} is no sequence; training sequences are named like S1 Seq1, "
                "and test sequences have 'valid'."
            )
        value = value.tolist() if isinstance(value, np.ndarray) else value
        views = value[0] if isinstance(value, list | tuple) and value else value
        if not isinstance(views, dict) or not views:
            raise UserError(f"{path}: {name} has no cameras.")
        for camera, entry in views.items():
            yield f"{path}: {name}, camera {camera}", (*found.groups(), str(camera)), entry


def _view(where: str, names: Sequence[str], entry: Any) -> tuple[View, float]:
    """Reads a view and the factor that enlarges its poses to real size."""
    if not isinstance(entry, dict):
        raise UserError(f"{where}: a {type(entry).__name__}, not data_3d and data_2d.")
    points = _array(entry, "data_3d", 3, where)
    pixels = _array(entry, "data_2d", 2, where)
    if len(points) != len(pixels):
        raise UserError(f"{where}: {len(points)} frames of poses, {len(pixels)} of keypoints.")
    if not np.isfinite(points).all():
        frame = np.argmin(np.isfinite(points).all((1, 2)))
        raise UserError(
            f"{where}: the pose of frame {frame} is not finite; download the file again."
        )
    _check_size(points, where)
    subject, take, camera = names
    size = (1920, 1080) if subject in _WIDE else (2048, 2048)
    scale, lens = _camera(points, pixels, size[0], where)
    convert = joint_sets.to_human36m("mpi_inf_3dhp")
    keypoints, confidence = convert(
        pixels.astype(np.float32), np.isfinite(pixels).all(-1).astype(np.float32)
    )
    return View(
        subject, take, camera, convert((points / 1000).astype(np.float32))[0], keypoints,
        confidence, _valid(entry, len(points), where), fps_of(subject, take), size,
        cameras.pinhole_vector(lens),
    ), scale


def _array(entry: Mapping, key: str, axes: int, where: str) -> np.ndarray:
    values = object_arrays.as_array(entry.get(key))
    if values.dtype.kind not in "fiu" or values.shape[1:] != (_JOINTS, axes) or not len(values):
        raise UserError(
            f"{where}: {key} is {values.dtype} {values.shape}; expected real numbers "
            f"[frames, {_JOINTS}, {axes}], with at least one frame."
        )
    values = values.astype(np.float64)
    return np.where(np.abs(values) < _LARGEST, values, np.nan)


def _check_size(points: np.ndarray, where: str) -> None:
    stature = np.linalg.norm(points[:, 0] - points[:, 13], axis=-1).max()
    if not 500 < stature < 3000:
        raise UserError(
            f"{where}: head and foot are {stature:.3g} mm apart; files must be in millimetres, "
            "in the order of the test set's 17 joints."
        )


def _valid(entry: Mapping, frames: int, where: str) -> np.ndarray:
    if "valid" not in entry:
        return np.ones(frames, bool)
    valid = object_arrays.as_array(entry["valid"])
    if valid.size != frames or valid.dtype.kind not in "bfiu":
        raise UserError(f"{where}: valid has the shape {valid.shape}; expected [{frames}].")
    return valid.ravel() > 0


def _camera(
    points: np.ndarray, pixels: np.ndarray, width: int, where: str
) -> tuple[float, np.ndarray]:
    """Estimates the factor that enlarges poses to match the keypoints, and the camera."""
    chosen = np.unique(np.linspace(0, len(points) - 1, _FRAMES).astype(int))
    some, seen = points[chosen], pixels[chosen]
    root = some[:, [_ROOT]]

    def sized(scale: float) -> np.ndarray:
        return root + (some - root) * scale

    def fitted(scale: float) -> tuple[float, np.ndarray]:
        camera = cameras.fit_pinhole(sized(scale).reshape(-1, 3), seen.reshape(-1, 2))
        off = cameras.reprojection_errors(camera, sized(scale), seen)
        off = off[~np.isnan(off)]
        return float(np.median(off)) if len(off) else np.inf, camera

    plain = fitted(1.0)
    best = minimize_scalar(
        lambda scale: fitted(scale)[0], bounds=_SCALES, method="bounded", options={"xatol": 1e-4}
    )
    # Any size fits a person who hardly moves; without a clear gain there is no scale.
    scale = float(best.x) if best.fun < plain[0] / 2 and plain[0] > _PLAIN else 1.0
    off, camera = fitted(scale)
    if not off < _TOLERANCE * width or not cameras.plausible(camera):
        raise UserError(
            f"{where}: keypoints are {off:.0f} pixels from the projected joints in the median; "
            "poses and keypoints must be of one camera."
        )
    return scale, camera


def _runs(view: View) -> Iterator[tuple[str, slice]]:
    """Yields the names and frames of the runs of valid frames."""
    if view.valid.all():
        yield view.take, slice(None)
        return
    for number, (start, end) in enumerate(virtual.runs(view.valid)):
        yield f"{view.take} chunk{number}", slice(start, end)


def _files(config: MpiInf3dhpConfig) -> list[File]:
    """Finds the training and the test file of the kind wanted."""
    folder = pathlib.Path(config.raw).expanduser()
    paths = sorted(folder.glob("*.npz")) if folder.is_dir() else [folder]
    files = [read_file(path) for path in paths if may_be(path)]
    chosen = []
    for part in ("train", "test"):
        found = [f for f in files if (f.part, f.annotations) == (part, config.annotations)]
        if len(found) != 1:
            there = "; ".join(f"{f.path.name}: {f.part}, {f.annotations}" for f in files)
            raise UserError(
                f"mpi_inf_3dhp: {len(found) or 'no'} {part} file of {config.annotations} in "
                f"{folder}, expected one; files there: {there or 'none'}. Choose with "
                "--annotations."
            )
        chosen += found
    return chosen
