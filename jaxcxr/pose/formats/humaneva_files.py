"""Reads HumanEva-I from VideoPose3D's `data_3d_humaneva15.npz`, and its camera calibration.

A chunk, "Walking 1 chunk0", is a run of frames in which the motion capture saw all joints.
"""

import functools
import pathlib

import numpy as np
from scipy.spatial.transform import Rotation

from jaxcxr.data import object_arrays
from jaxcxr.errors import UserError
from jaxcxr.pose.formats import videopose3d_files
from jaxcxr.pose.geometry import joint_sets

NAME = "data_3d_humaneva15.npz"
CAMERAS = ("C1", "C2", "C3")
SIZE = (640, 480)
PEOPLE = ("S1", "S2", "S3")
SUBJECTS = tuple(f"{part}/{person}" for part in ("Train", "Validate") for person in PEOPLE)
_LARGEST = 1e6  # metres
_JOINTS = joint_sets.joint_set("humaneva15").joints

# The data set's calibration of each camera: the rotation from camera to world as a unit quaternion
# (w, x, y, z), and the position in millimetres. The cameras stood alike for S1 and S3.
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


def person(subject: str) -> str:
    """Returns the person, such as "S1" for both "Train/S1" and "Validate/S1"."""
    return subject.rsplit("/", 1)[-1]


@functools.cache
def _frames_of(who: str) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    return tuple(
        (Rotation.from_quat((*quaternion[1:], quaternion[0])).inv().as_matrix(),
         np.array(position) / 1000)
        for quaternion, position in _EXTRINSICS[who]
    )


def to_camera(world: np.ndarray, subject: str, camera: str) -> np.ndarray:
    """Transforms world positions `[..., 3]` in metres to a camera: x right, y down, z forward."""
    rotation, position = _frames_of(person(subject))[CAMERAS.index(camera)]
    return (world - position) @ rotation.T


def read_positions(path: str | pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """Reads `data_3d_humaneva15.npz`: positions of all subjects except S4, who has no cameras.

    Returns:
      subject -> chunk -> float32 `[frames, 15, 3]` in metres, z up.

    Raises:
      UserError: the file is absent, damaged or malformed, or a chunk has unseen joints.
    """
    path = pathlib.Path(path).expanduser()
    content = videopose3d_files.mapping(
        videopose3d_files.entry(path, "positions_3d"), path, "positions_3d"
    )
    found: dict[str, dict[str, np.ndarray]] = {}
    for subject, chunks in content.items():
        for chunk, values in videopose3d_files.mapping(chunks, path, subject).items():
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
