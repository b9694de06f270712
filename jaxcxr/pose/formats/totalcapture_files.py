"""Reads TotalCapture's positions of the Vicon skeleton and the cameras' calibration.

`gt_skel_gbl_pos.txt`: a line with the names of the joints, then one line per frame at 60 per
second, x, y and z of each joint in inches, y up. `calibration.cal`: the number of cameras and of
distortion coefficients, then seven lines per camera: first and last row and column of the image;
fx, fy, cx, cy in pixels; k1; three lines of rotation R; the translation t in metres. A point X is
at R X + t in the camera frame.
"""

import pathlib

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.geometry.cameras import Camera, Intrinsics

FPS = 60.0
METRES = 0.0254  # of an inch
# Names of the joint set "totalcapture21" in the files, in its order.
NAMES = (
    "Hips", "Spine", "Spine1", "Spine2", "Spine3", "Neck", "Head", "RightShoulder", "RightArm",
    "RightForeArm", "RightHand", "LeftShoulder", "LeftArm", "LeftForeArm", "LeftHand",
    "RightUpLeg", "RightLeg", "RightFoot", "LeftUpLeg", "LeftLeg", "LeftFoot",
)
_TALL = (0.5, 3.0)  # metres from head to foot
_LONGEST = 1_000_000  # frames


def read_positions(path: str | pathlib.Path) -> np.ndarray:
    """Reads the world positions of one take from `gt_skel_gbl_pos.txt`.

    Returns:
      float64 `[frames, 17, 3]` in metres, y up.

    Raises:
      UserError: the file is absent, malformed, empty, or not in inches.
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
    """Reads the cameras of `calibration.cal`, named "cam1", "cam2", ... like the videos.

    Raises:
      UserError: the file is absent or malformed, or a camera is impossible.
    """
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
