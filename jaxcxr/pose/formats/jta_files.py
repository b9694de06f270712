"""Reads JTA's annotations of people in videos of Grand Theft Auto V.

A file is a list of rows: frame (from 1), person, joint (0 to 21), x and y in pixels, x, y and z in
metres in the camera frame (x right, y down, z forward), whether something hides the joint, and
whether the person's own body hides it. All videos have 1920 x 1080 pixels, 30 frames per second
and the same camera.

Source: Fabbri et al., "Learning to detect and track visible and occluded body joints in a virtual
world", 2018.
"""

import dataclasses
import json
import pathlib

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.geometry.cameras import Intrinsics

FPS = 30.0
LENS = Intrinsics(1158.0, 1158.0, 960.0, 540.0, width=1920, height=1080)
_JOINTS, _COLUMNS = 22, 10
_APART = 20.0  # pixels between given and projected joints, in the median of a video
_TALL = (0.5, 3.0)  # metres from head to foot, in the median of a video


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """A person in consecutive frames.

    Attributes:
      person: id in the file.
      start: the first frame, from 1.
      joints: float64 `[frames, 17, 3]`, metres in the camera frame.
      keypoints: `[frames, 17, 2]`, pixels.
      hidden: bool `[frames, 17]`, whether something hides a point that forms the joint.
    """

    person: int
    start: int
    joints: np.ndarray
    keypoints: np.ndarray
    hidden: np.ndarray


def read(path: str | pathlib.Path) -> list[Track]:
    """Reads the tracks in a video's `seq_N.json`, ordered by person and time.

    Raises:
      UserError: the file is absent or malformed, a person lacks a joint, or pixels do not match
        the camera.
    """
    path = pathlib.Path(path)
    rows = _rows(path)
    frame, person, joint = (rows[:, column].astype(np.int64) for column in range(3))
    order = np.lexsort((joint, frame, person))
    rows, frame, person, joint = rows[order], frame[order], person[order], joint[order]
    poses = len(rows) // _JOINTS
    regular = len(rows) == poses * _JOINTS
    grid = [values[: poses * _JOINTS].reshape(poses, _JOINTS) for values in (frame, person, joint)]
    same = [(values == values[:, :1]).all(1) for values in grid[:2]]
    same.append((grid[2] == np.arange(_JOINTS)).all(1))
    wrong = ~np.all(same, axis=0)
    if wrong.any() or not regular:
        where = int(np.argmax(wrong)) * _JOINTS if wrong.any() else len(rows) - 1
        raise UserError(
            f"{path}: person {person[where]} in frame {frame[where]} must have each of the joints "
            "0 to 21 once."
        )
    values = rows.reshape(poses, _JOINTS, _COLUMNS)
    pixels, points, hidden = values[..., 3:5], values[..., 5:8], values[..., 8] > 0
    _check_camera(path, pixels, points)
    convert = joint_sets.to_human36m("jta22")
    joints, _ = convert(points)
    tall = np.median(np.linalg.norm(joints[:, 10] - joints[:, [3, 6]].mean(1), axis=-1))
    if not _TALL[0] < tall < _TALL[1]:
        raise UserError(f"{path}: heads and feet are {tall:.3g} m apart; it must be in metres.")
    keypoints, _ = convert(pixels)
    _, seen = convert(pixels, (~hidden).astype(np.float64))
    ids, frames = grid[1][:, 0], grid[0][:, 0]
    starts = np.flatnonzero((np.diff(ids) != 0) | (np.diff(frames) != 1)) + 1
    return [
        Track(int(ids[part[0]]), int(frames[part[0]]), joints[part], keypoints[part],
              seen[part] == 0)
        for part in np.split(np.arange(poses), starts)
    ]


def _rows(path: pathlib.Path) -> np.ndarray:
    """Reads the rows as float64 `[rows, 10]` and checks their ranges."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        rows = np.array(content, np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} must be a list of rows of numbers ({error}).") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error
    if rows.ndim != 2 or rows.shape[1] != _COLUMNS or not len(rows):
        raise UserError(
            f"{path}: rows have the shape {list(rows.shape)}; expected one or more rows of "
            f"{_COLUMNS} numbers."
        )
    whole = rows[:, :3]
    possible = np.abs(rows).max(1) < 1e6
    possible &= (whole == np.floor(np.where(possible[:, None], whole, 0.0))).all(1)
    possible &= (rows[:, 0] >= 1) & (rows[:, 2] >= 0) & (rows[:, 2] < _JOINTS)
    possible &= np.isin(rows[:, 8:], (0, 1)).all(1)
    if not possible.all():
        row = int(np.argmin(possible))
        raise UserError(f"{path}, row {row}: {content[row]} is no valid joint.")
    return rows


def _check_camera(path: pathlib.Path, pixels: np.ndarray, points: np.ndarray) -> None:
    projected = LENS.project(points)
    seen = np.isfinite(projected).all(-1)
    if not seen.any():
        raise UserError(f"{path}: nobody is in front of the camera.")
    apart = float(np.median(np.linalg.norm(projected - pixels, axis=-1)[seen]))
    if apart > _APART:
        raise UserError(
            f"{path}: projected joints are {apart:.0f} pixels from the file's; its camera or axes "
            "are not JTA's."
        )
