"""Prepares Human3.6M (Ionescu et al. 2014, vision.imar.ro/human3.6m) with VideoPose3D's 2D files.

    jaxcxr prepare human36m --raw DIR --keypoints cpn_ft_h36m_dbb

DIR holds the positions (`data_3d_h36m.npz`, the original CDF files, or the h5 files of Martinez
et al. 2017) and `data_2d_h36m_KEYPOINTS.npz`. Users obtain the licence themselves.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterator

import numpy as np

from jaxcxr.data import object_arrays
from jaxcxr.data.dataset import RUN_ONLY
from jaxcxr.errors import UserError
from jaxcxr.pose.formats import videopose3d_files
from jaxcxr.pose.formats.videopose3d_files import entry, mapping, take_name
from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.geometry.cameras import HUMAN36M_INTRINSICS, Camera, calibrated
from jaxcxr.pose.sources import pose_set, virtual
from jaxcxr.pose.sources.virtual import Detector

FPS = 50.0
PROJECTED = "projected"
ALL_JOINTS = 32
# VideoPose3D keeps these joints; the others are ends of feet and hands, and copies.
KEPT = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
_LEFT_OUT = ("S11", "Directions")  # its video is damaged, so no 2D file has it

Positions = dict[str, dict[str, np.ndarray]]

# Subject -> the data set's calibration of each camera, in the order of `HUMAN36M_INTRINSICS`: the
# rotation from camera to world as a unit quaternion (w, x, y, z), and the position in millimetres.
_EXTRINSICS = {
    "S1": (
        ((0.1407056, -0.1500702, -0.7552408, 0.6223280), (1841.1071, 4955.2847, 1563.4454)),
        ((0.6157188, -0.7648363, -0.1483383, 0.1179474), (1761.2786, -5078.0068, 1606.2650)),
        ((0.1465147, -0.1464785, 0.7653024, -0.6094176), (-1846.7777, 5215.0464, 1491.9724)),
        ((0.5834008, -0.7853162, 0.1454882, -0.1474959), (-1794.7897, -3722.6990, 1574.8927)),
    ),
    "S5": (
        ((0.1467377, -0.1623710, -0.7551893, 0.6178939), (2097.3916, 4880.9448, 1605.7324)),
        ((0.6159759, -0.7626792, -0.1572819, 0.1189815), (2031.7008, -5167.9331, 1612.9231)),
        ((0.1429137, -0.1290784, 0.7678385, -0.6110143), (-1620.5948, 5171.6587, 1496.4370)),
        ((0.5920480, -0.7814218, 0.1274749, -0.1503642), (-1637.1737, -3867.3174, 1547.0332)),
    ),
    "S6": (
        ((0.1337898, -0.1569240, -0.7571090, 0.6198879), (1935.4518, 4950.2456, 1618.0839)),
        ((0.6147197, -0.7628813, -0.1617477, 0.1181924), (1969.8040, -5128.7388, 1632.7788)),
        ((0.1529948, -0.1352913, 0.7646096, -0.6112781), (-1769.5964, 5185.3613, 1476.9934)),
        ((0.5916101, -0.7804774, 0.1283227, -0.1561594), (-1721.6687, -3884.1313, 1540.4879)),
    ),
    "S7": (
        ((0.1435242, -0.1631337, -0.7548329, 0.6188825), (1974.5129, 4926.3545, 1597.8326)),
        ((0.6141673, -0.7638263, -0.1596646, 0.1177930), (1937.0585, -5119.7900, 1631.5665)),
        ((0.1455006, -0.1287482, 0.7660517, -0.6127139), (-1741.8112, 5208.2495, 1464.8246)),
        ((0.5912848, -0.7821764, 0.1244547, -0.1519649), (-1734.7106, -3832.4214, 1548.5830)),
    ),
    "S8": (
        ((0.1411059, -0.1558987, -0.7561917, 0.6196440), (2150.6519, 4896.1611, 1611.9047)),
        ((0.6169602, -0.7647668, -0.1484635, 0.1115816), (2219.9656, -5148.4531, 1613.0441)),
        ((0.1471444, -0.1337712, 0.7670128, -0.6100370), (-1571.2216, 5137.0186, 1498.1762)),
        ((0.5927824, -0.7825871, 0.1214782, -0.1463200), (-1476.9133, -3896.7412, 1547.9722)),
    ),
    "S9": (
        ((0.1554059, -0.1554822, -0.7532095, 0.6199595), (2044.4585, 4935.1172, 1481.2275)),
        ((0.6187845, -0.7634735, -0.1413223, 0.1193397), (1990.9597, -5123.8105, 1568.8048)),
        ((0.1335783, -0.1367100, 0.7689455, -0.6100739), (-1670.9922, 5211.9858, 1528.3879)),
        ((0.5879399, -0.7823407, 0.1427614, -0.1479487), (-1696.0435, -3827.0999, 1591.4127)),
    ),
    "S11": (
        ((0.1523247, -0.1544232, -0.7547563, 0.6191070), (2098.4402, 4926.5547, 1500.2786)),
        ((0.6189449, -0.7600917, -0.1530063, 0.1255258), (2083.1822, -4912.1729, 1561.0786)),
        ((0.1494323, -0.1565023, 0.7681234, -0.6026304), (-1609.8153, 5177.3359, 1537.8967)),
        ((0.5894251, -0.7818877, 0.1399121, -0.1471536), (-1590.7380, -3854.1689, 1578.0177)),
    ),
}

SUBJECTS = tuple(_EXTRINSICS)


@dataclasses.dataclass(eq=False)
class Human36mConfig(pose_set.SubjectConfig):
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
    raw: str = dataclasses.field(default="", metadata=RUN_ONLY)

    def __post_init__(self):
        told = self.settle("human36m", SUBJECTS)
        self.name = self.name or f"{self.keypoints}_{told}"


class Human36m(pose_set.PoseSet):
    """Human3.6M, 17 joints; records of `pose_features`."""

    builder_config_class = Human36mConfig
    description = (
        "Human3.6M: 17 joints in the camera frame and their keypoints from each of four cameras, "
        "{fps:g} frames per second."
    )
    homepage = "http://vision.imar.ro/human3.6m"
    citation = (
        "C. Ionescu, D. Papava, V. Olaru, C. Sminchisescu: Human3.6M: Large Scale Datasets and "
        "Predictive Methods for 3D Human Sensing in Natural Environments. IEEE TPAMI 36(7), 2014."
    )

    def _splits(self, config) -> dict[str, Iterator]:
        positions = read_positions(self.given_raw("DIR with data_3d_h36m.npz"))
        splits = config.split_takes("human36m", (
            (subject, take, world)
            for subject, takes in positions.items() for take, world in sorted(takes.items())
        ), positions)
        keypoints = _Keypoints(config)
        return {
            split: self._generate_examples(takes, keypoints) for split, takes in splits.items()
        }

    def _generate_examples(self, takes: list, keypoints: "_Keypoints") -> Iterator:
        """Yields one record per take and camera."""
        for subject, take, world in takes:
            views = keypoints.of(subject, take, world)
            for camera, arrays in zip(cameras_of(subject), views, strict=True):
                yield pose_set.record(
                    pose_set.sequence_name(subject, take, camera.name), subject,
                    videopose3d_files.action_name(take), camera.name, arrays, FPS,
                    self.builder_config.fps,
                )


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
        cameras = cameras_of(subject)
        found = [virtual.capture(world, camera, Detector(), np.random.default_rng(0))
                 for camera in cameras]
        if self._file is None:
            return found
        views = videopose3d_files.views(
            self._file, self._path, subject, take, [c.name for c in cameras], len(world)
        )
        for arrays, view in zip(found, views, strict=True):
            pixels, seen = self._convert(view)
            arrays["keypoints"] = np.where(seen[..., None], pixels, 0).astype(np.float32)
            arrays["confidence"] = seen.astype(np.float32)
        return found


@functools.cache
def cameras_of(subject: str) -> tuple[Camera, ...]:
    """Returns a subject's four cameras in the order of the 2D files."""
    return tuple(
        Camera(name, lens, *calibrated(*place))
        for (name, lens), place in zip(
            HUMAN36M_INTRINSICS.items(), _EXTRINSICS[subject], strict=True
        )
    )


def read_positions(raw: str | pathlib.Path) -> Positions:
    """Reads the world positions float32 `[frames, 17, 3]`, metres, z up, by subject and take.

    `raw` is `data_3d_h36m.npz`, a folder that holds it, or a folder with CDF files
    `S1/MyPoseFeatures/D3_Positions/*.cdf` or h5 files `S1/MyPoses/3D_positions/*.h5`.
    """
    raw = pathlib.Path(raw).expanduser()
    if raw.is_dir() and (raw / "data_3d_h36m.npz").is_file():
        raw = raw / "data_3d_h36m.npz"
    found = _from_npz(raw) if raw.is_file() else _from_folder(raw)
    found.get(_LEFT_OUT[0], {}).pop(_LEFT_OUT[1], None)
    return found


def _from_npz(path: pathlib.Path) -> Positions:
    content = mapping(entry(path, "positions_3d"), path, "positions_3d")
    found: Positions = {}
    for subject, takes in content.items():
        for take, values in mapping(takes, path, subject).items():
            kept = _kept(object_arrays.as_array(values), f"{path}: {subject}, {take!r}", 1.0)
            found.setdefault(subject, {})[take_name(take)] = kept
    return found


def _from_folder(raw: pathlib.Path) -> Positions:
    found: Positions = {}
    for suffix, read in (("cdf", _read_cdf), ("h5", _read_h5)):
        for path in sorted(raw.rglob(f"*.{suffix}")):
            subject = next((p for p in reversed(path.parts) if re.fullmatch(r"S\d+", p)), "")
            folder = path.parent.name.lower()
            if subject and folder in ("d3_positions", "3d_positions"):
                kept = _kept(_opened(read, path), str(path), 1000.0)
                found.setdefault(subject, {})[take_name(path.stem)] = kept
        if found:
            return found
    raise UserError(
        f"no Human3.6M positions in {raw}; give data_3d_h36m.npz, or the folder with "
        "S1/MyPoseFeatures/D3_Positions/*.cdf or S1/MyPoses/3D_positions/*.h5."
    )


def _opened(read: Callable[[pathlib.Path], np.ndarray], path: pathlib.Path) -> np.ndarray:
    try:
        return read(path)
    except ImportError as error:
        raise UserError(
            f"{path} needs {error.name}; run: pip install 'jaxcxr[human36m]'"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError) as error:
        raise UserError(
            f"{path} is damaged or of another kind ({error}); download it again."
        ) from error


def _read_cdf(path: pathlib.Path) -> np.ndarray:
    import cdflib

    return np.asarray(cdflib.CDF(str(path)).varget("Pose")).reshape(-1, ALL_JOINTS, 3)


def _read_h5(path: pathlib.Path) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
        return np.asarray(file["3D_positions"]).reshape(ALL_JOINTS, 3, -1).transpose(2, 0, 1)


def _kept(values: np.ndarray, where: str, units_per_metre: float) -> np.ndarray:
    """Checks positions and converts them to 17 joints in metres."""
    shaped = values.ndim == 3 and values.shape[1:] in ((ALL_JOINTS, 3), (len(KEPT), 3))
    if not shaped or values.dtype.kind != "f":
        raise UserError(
            f"{where}: an array {values.dtype} {values.shape}; expected real numbers "
            f"[frames, {ALL_JOINTS}, 3]."
        )
    if not len(values) or not np.isfinite(values).all():
        raise UserError(f"{where}: no frames, or positions that are not finite; download it again.")
    values = values[:, KEPT] if values.shape[1] == ALL_JOINTS else values
    positions = (values / units_per_metre).astype(np.float32)
    stature = np.linalg.norm(positions[:, 10] - positions[:, 3], axis=-1).max()
    if not 0.5 < stature < 3:
        raise UserError(
            f"{where}: head and foot are {stature:.3g} m apart; such files must be in "
            f"{'metres' if units_per_metre == 1 else 'millimetres'}."
        )
    return positions
