"""Reads MPI-INF-3DHP (Mehta et al. 2017) from the npz files of P-STMO and D3DP.

Both have one array `data`, a dict: "S1 Seq1" -> [{camera: {"data_3d", "data_2d"}}] for training,
"TS1" -> {"data_3d", "data_2d", "valid"} for the test. Poses are in millimetres in the camera frame,
keypoints in pixels, with 17 joints in the test set's order.

P-STMO's poses are `univ_annot3`, scaled about the person to the height of one skeleton; D3DP's are
`annot3`, as recorded. The file names are the same, but only D3DP's poses project onto the
keypoints, which tells both kinds apart.
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
from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import joint_sets, pinhole

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


@dataclasses.dataclass(frozen=True)
class View:
    """One sequence from one camera.

    Attributes:
      subject, take, camera: such as "S1", "Seq1" and "0"; in the test "TS1", "test" and "0".
      joints: float32 `[frames, 17, 3]` in metres in the camera frame, Human3.6M's order.
      keypoints: float32 `[frames, 17, 2]` in pixels.
      confidence: float32 `[frames, 17]`, 0 where a keypoint is not finite.
      valid: bool `[frames]`, which frames are scored.
      fps: frames per second.
      size: width and height of the image.
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


def read(path: str | pathlib.Path) -> File:
    """Reads a file of either kind.

    Raises:
      UserError: the file is absent, damaged or malformed, or its poses and keypoints disagree.
    """
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
        cameras = value[0] if isinstance(value, list | tuple) and value else value
        if not isinstance(cameras, dict) or not cameras:
            raise UserError(f"{path}: {name} has no cameras.")
        for camera, entry in cameras.items():
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
        pinhole.vector(lens),
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
    """Estimates the factor that enlarges poses to match the keypoints, and the camera.

    Raises:
      UserError: no factor and camera match.
    """
    chosen = np.unique(np.linspace(0, len(points) - 1, _FRAMES).astype(int))
    some, seen = points[chosen], pixels[chosen]
    root = some[:, [_ROOT]]

    def sized(scale: float) -> np.ndarray:
        return root + (some - root) * scale

    def fitted(scale: float) -> tuple[float, np.ndarray]:
        camera = pinhole.fit(sized(scale).reshape(-1, 3), seen.reshape(-1, 2))
        off = pinhole.distances(camera, sized(scale), seen)
        off = off[~np.isnan(off)]
        return float(np.median(off)) if len(off) else np.inf, camera

    plain = fitted(1.0)
    best = minimize_scalar(
        lambda scale: fitted(scale)[0], bounds=_SCALES, method="bounded", options={"xatol": 1e-4}
    )
    # Any size fits a person who hardly moves; without a clear gain there is no scale.
    scale = float(best.x) if best.fun < plain[0] / 2 and plain[0] > _PLAIN else 1.0
    off, camera = fitted(scale)
    if not off < _TOLERANCE * width or not pinhole.plausible(camera):
        raise UserError(
            f"{where}: keypoints are {off:.0f} pixels from the projected joints in the median; "
            "poses and keypoints must be of one camera."
        )
    return scale, camera
