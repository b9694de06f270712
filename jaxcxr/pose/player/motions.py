"""Reads motions to show from files of `jaxcxr predict`, of a run, or of any framework."""

import dataclasses
import pathlib
import zipfile
from collections.abc import Iterator

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.evaluation import pose_arrays
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.keypoints import gaps

_COLUMNS = {
    kind: [f"{kind}_{name}_{axis}" for name in HUMAN36M.joints for axis in "xyz"]
    for kind in ("predicted", "true")
}


@dataclasses.dataclass(frozen=True, eq=False)
class Take:
    """One sequence, whose first frame has the number `start`.

    Attributes:
      joints: float32 `[frames, 17, 3]`, mm relative to the hip: x right, y down, z forward.
      truth: true joints, NaN where unknown; or None.
      keypoints: float32 `[frames, 17, 3]`, pixels and confidence, 0 where unseen; or None.
      size: width and height of the keypoints' image; or None.
      state: uint8 `[frames]`, the place in `gaps.STATES`; or None. Absent poses are NaN.
    """

    name: str
    fps: float
    start: int
    joints: np.ndarray
    truth: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    size: tuple[int, int] | None = None
    state: np.ndarray | None = None

    def errors(self) -> np.ndarray | None:
        """Computes the mean joint error in mm, `[frames]`; NaN without known joints."""
        if self.truth is None:
            return None
        distance = np.linalg.norm(self.joints - self.truth, axis=-1)
        known = np.isfinite(distance)
        total = np.where(known, distance, 0.0).sum(1)
        count = known.sum(1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def every(self, step: int) -> "Take":
        """Keeps every `step`-th frame at the same speed."""
        truth, keypoints, state = (
            None if part is None else part[::step]
            for part in (self.truth, self.keypoints, self.state)
        )
        return dataclasses.replace(
            self, fps=self.fps / step, joints=self.joints[::step], truth=truth,
            keypoints=keypoints, state=state,
        )


def read(path: str | pathlib.Path, fps: float | None = None) -> list[Take]:
    """Reads the sequences of a file.

    It is an `.npz` of `jaxcxr predict` or in a form of `pose_arrays`, or a `.csv` of a run's
    predictions or of `jaxcxr predict`. Without `fps` the file must tell its frames per second.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"no predictions at {path}; check the path.")
    if fps is not None and not 0 < fps <= 1000:
        raise UserError(f"--fps {fps:g}: give a rate above 0 and up to 1,000.")
    if path.suffix not in (".npz", ".csv"):
        raise UserError(f"{path}: give an .npz or a .csv.")
    takes = list((_npz if path.suffix == ".npz" else _csv)(path, fps))
    for take in takes:
        there = True if take.state is None else take.state != gaps.ABSENT
        if not (np.isfinite(take.joints).all((1, 2)) | ~np.asarray(there)).all():
            raise UserError(f"{path}: sequence {take.name} has a pose that is not finite.")
    return takes


def with_labels(takes: list[Take], path: str | pathlib.Path) -> list[Take]:
    """Adds the true poses of a file in a form of `pose_arrays` to takes.

    Sequences match takes by name, unless there is one of each.
    """
    labels = pose_arrays.read(path)
    known = {str(key): value for key, value in labels.sequences.items()}
    if len(known) == len(takes) == 1:
        known = {takes[0].name: next(iter(known.values()))}
    shown = []
    for take in takes:
        if take.name not in known:
            raise UserError(
                f"{path}: no sequence {take.name!r}; its sequences: {', '.join(list(known)[:5])}."
            )
        numbers, poses = known[take.name]
        poses = _about_hip(_millimetres(poses, labels.about.get("unit")), path)
        truth = np.full_like(take.joints, np.nan)
        wanted = take.start + np.arange(len(truth))
        place = np.clip(np.searchsorted(numbers, wanted), 0, len(numbers) - 1)
        found = numbers[place] == wanted
        truth[found] = poses[place[found]]
        shown.append(dataclasses.replace(take, truth=truth))
    return shown


def _millimetres(poses: np.ndarray, unit: str | None) -> np.ndarray:
    """Converts poses to mm; without a unit, numbers below 20 are metres."""
    poses = poses.astype(np.float32)
    if unit is None:
        unit = "m" if np.nanmax(np.abs(poses), initial=0.0) < 20 else "mm"
    return poses * np.float32(1000 if unit == "m" else 1)


def _about_hip(poses: np.ndarray, path) -> np.ndarray:
    if poses.shape[1:] != (HUMAN36M.num_joints, 3):
        raise UserError(
            f"{path}: poses have {poses.shape[1]} joints; expected Human3.6M's "
            f"{HUMAN36M.num_joints}."
        )
    return poses - poses[:, :1]


def _npz(path: pathlib.Path, fps: float | None) -> Iterator[Take]:
    content = pose_arrays.read(path)
    inputs, own_fps = _input(path)
    fps = own_fps if fps is None else fps
    if fps is None:
        raise UserError(f"{path} does not say its frames per second; give --fps, such as 50.")
    for key, (numbers, poses) in content.sequences.items():
        poses = _about_hip(_millimetres(poses, content.about.get("unit")), path)
        shown = inputs.get(key)
        if shown is None:
            yield Take(str(key), fps, int(numbers[0]), poses)
            continue
        rows, keypoints, size, state = shown
        joints = np.full((len(rows), *poses.shape[1:]), np.nan, np.float32)
        joints[np.isin(rows, numbers)] = poses
        yield Take(str(key), fps, int(rows[0]), joints, keypoints=keypoints, size=size, state=state)


def _input(path: pathlib.Path) -> tuple[dict, float | None]:
    """Reads a file's frame rate and by sequence frames, keypoints, size and state, if it has them.

    The frames of a sequence include those in which the person is absent.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            names = {"keypoints", "confidence", "sequence", "frame", "image_size", "fps", "state"}
            content = {name: file[name] for name in names & set(file.files)}
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}); predict again.") from error
    fps = float(content.get("fps", 0)) or None  # 0 means several rates
    if not {"keypoints", "confidence", "sequence", "frame", "image_size"} <= content.keys():
        return {}, fps
    count = len(content["sequence"])
    joints = (count, HUMAN36M.num_joints)
    if content["keypoints"].shape != (*joints, 2) or content["confidence"].shape != joints:
        raise UserError(
            f"{path}: keypoints {list(content['keypoints'].shape)} do not match {count} poses."
        )
    state = content.get("state")
    shown = content["confidence"]
    if state is not None:  # filled points are shown too
        filled = (content["keypoints"] != 0).any(-1)
        shown = np.where(filled & (shown == 0), 1.0, shown)
        state = np.array([gaps.STATES.index(word) for word in state.tolist()], np.uint8)
    points = np.concatenate([content["keypoints"], shown[..., None]], -1)
    sizes = np.broadcast_to(content["image_size"], (count, 2))
    seen = {}
    for name in np.unique(content["sequence"]):
        rows = np.flatnonzero(content["sequence"] == name)
        rows = rows[np.argsort(content["frame"][rows], kind="stable")]
        width, height = (int(side) for side in sizes[rows[0]])
        seen[pose_arrays.parse_key(str(name), path)] = (
            content["frame"][rows], points[rows].astype(np.float32), (width, height),
            None if state is None else state[rows],
        )
    return seen, fps


def _csv(path: pathlib.Path, fps: float | None) -> Iterator[Take]:
    import pyarrow as pa
    from pyarrow import csv

    try:
        table = csv.read_csv(path)
        names = set(table.column_names)
    except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path} is no table ({str(error).splitlines()[0]}).") from error
    lacking = [n for n in ("sequence_id", "frame", *_COLUMNS["predicted"]) if n not in names]
    if lacking or not len(table):
        raise UserError(
            f"{path}: " + (f"no column {lacking[0]!r}" if lacking else "no row")
            + "; give the predictions of a pose run or of jaxcxr predict."
        )
    fps = fps or _rate(path, table)
    sequences = np.array(table["sequence_id"].to_pylist(), dtype=str)
    frames = _column(path, table, "frame").astype(int)
    state = None
    if "state" in names:
        words = table["state"].to_pylist()
        state = np.array([gaps.STATES.index(word) if word in gaps.STATES else gaps.SEEN
                          for word in words], np.uint8)
    predicted = _poses(path, table, "predicted", None if state is None else state == gaps.ABSENT)
    true = _poses(path, table, "true") if _COLUMNS["true"][0] in names else None
    for name in dict.fromkeys(sequences.tolist()):
        rows = np.flatnonzero(sequences == name)
        rows = rows[np.argsort(frames[rows], kind="stable")]
        truth = None if true is None else true[rows]
        yield Take(str(name), fps, int(frames[rows[0]]), predicted[rows], truth,
                   state=None if state is None else state[rows])


def _column(path: pathlib.Path, table, name: str) -> np.ndarray:
    if name not in table.column_names:
        raise UserError(f"{path}: no column {name!r}.")
    try:
        return table[name].to_numpy().astype(np.float64)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: column {name!r} must hold numbers.") from error


def _poses(path: pathlib.Path, table, kind: str, absent: np.ndarray | None = None) -> np.ndarray:
    columns = np.stack([_column(path, table, name) for name in _COLUMNS[kind]], -1)
    wrong = ~np.isfinite(columns)
    if absent is not None:
        wrong &= ~absent[:, None]
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise UserError(f"{path}, line {row + 2}: {_COLUMNS[kind][column]} is not a number.")
    return _about_hip(columns.reshape(-1, HUMAN36M.num_joints, 3).astype(np.float32), path)


def _rate(path: pathlib.Path, table) -> float:
    """Derives frames per second from `jaxcxr predict`'s column `seconds`."""
    if "seconds" in table.column_names:
        seconds, frames = (_column(path, table, name) for name in ("seconds", "frame"))
        if seconds.max() > 0:
            # Rows of every nth frame of a video come n times as slowly.
            step = max(1.0, np.diff(np.unique(frames)).min(initial=np.inf)) if (
                len(np.unique(frames)) > 1) else 1.0
            return float(frames[seconds.argmax()] / seconds.max() / step)
    raise UserError(f"{path} does not say its frames per second; give --fps, such as 50.")
