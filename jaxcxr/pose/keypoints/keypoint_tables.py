"""Reads tables of 2D keypoints: Ultralytics' labels, DeepLabCut's and SLEAP's csv, SLEAP's h5."""

import csv
import pathlib
from collections.abc import Hashable

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.keypoints import keypoint_arrays, person_points
from jaxcxr.pose.keypoints.keypoint_arrays import Found, Person, cleaned

_BOX = 5  # class, and centre, width and height of the box


def read_labels(folder: pathlib.Path, joints: str) -> Found:
    """Reads the folder of Ultralytics' save_txt, one file per frame, counted from 1.

    A line is class, box, x, y and confidence of each point from 0 to 1, and then the confidence of
    the box and the id of the person, if asked for.
    """
    frames: dict[Hashable, list[Person]] = {}
    odd: list[str] = []
    name, kept = keypoint_arrays.named_set(folder, joints or "coco", 17)
    for file in sorted(folder.glob("*.txt")):
        people = frames.setdefault(file.stem, [])
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            odd.append(f"{file} is no text")
            continue
        for number, line in enumerate(filter(str.strip, lines), start=1):
            try:
                people.append(_label(line, kept))
            except ValueError as error:
                odd.append(f"{file}, line {number}: {error}")
    if not any(frames.values()):
        raise UserError(odd[0] + "." if odd else f"{folder}: no person in any file.")
    last = {stem: str(stem).rpartition("_")[2] for stem in frames}
    if all(part.isdecimal() for part in last.values()) and not any(
        int(part) == 0 for part in last.values()
    ):
        frames = {int(last[stem]) - 1: people for stem, people in frames.items()}
    notes = [f"{len(odd)} lines could not be read, such as {odd[0]}"] if odd else []
    return Found(name, frames, notes=notes)


def _label(line: str, kept) -> Person:
    """Reads one line of a label file."""
    values = np.array(line.split(), float)
    rest = len(values) - _BOX
    columns = next((columns for columns in (3, 2) if 0 <= rest - 17 * columns <= 2), 0)
    if not columns:
        raise ValueError(f"{len(values)} numbers are no box and 17 points of 2 or 3")
    points = values[_BOX:_BOX + 17 * columns].reshape(17, columns)
    more = values[_BOX + 17 * columns:]
    # The confidence of the box is below 1, ids are whole numbers.
    person = str(int(more[-1])) if len(more) and more[-1] >= 1 and more[-1] % 1 == 0 else None
    return person, cleaned(person_points.with_scores(points, None))[kept]


def read_table(path: pathlib.Path) -> Found:
    """Reads a csv of DeepLabCut or SLEAP, or an h5 of SLEAP."""
    if path.suffix.lower() != ".csv":
        return _sleap_h5(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table ({error}).") from error
    header = {row[0].strip().lower() for row in rows[:5]}
    if {"bodyparts", "coords"} <= header:
        return _deeplabcut(path, rows)
    if rows and {"track", "frame_idx"} <= {cell.strip() for cell in rows[0]}:
        return _sleap_csv(path, rows)
    raise UserError(
        f"{path}: neither DeepLabCut's table (rows scorer, bodyparts, coords) nor SLEAP's (columns "
        "track, frame_idx, NODE.x, NODE.y)."
    )


def _deeplabcut(path, rows) -> Found:
    """Reads DeepLabCut's table, of one animal or several individuals."""
    head = {row[0].strip().lower(): row[1:] for row in rows[:5]
            if row[0].strip().lower() in ("scorer", "individuals", "bodyparts", "coords")}
    body = rows[len(head):]
    individuals = head.get("individuals", [""] * len(head["bodyparts"]))
    places: dict[str, dict[str, dict[str, int]]] = {}
    for column, (who, part, axis) in enumerate(
        zip(individuals, head["bodyparts"], head["coords"], strict=False), start=1
    ):
        places.setdefault(who or "0", {}).setdefault(part, {})[axis] = column
    frames: dict[Hashable, list[Person]] = {}
    joint_set = ""
    for row in body:
        name: Hashable = int(row[0]) if row[0].isdecimal() else row[0]
        frames[name] = []
        for who, parts in places.items():
            points = np.array([[_cell(row, axes.get("x")), _cell(row, axes.get("y")),
                                _cell(row, axes.get("likelihood"), 1.0)]
                               for axes in parts.values()])
            joint_set, points = _named(path, list(parts), points)
            frames[name].append((who, points))
    if not frames:
        raise UserError(f"{path}: the table has no row.")
    return Found(joint_set, frames)


def _cell(row, column: int | None, default: float = np.nan) -> float:
    if column is None:
        return default
    text = row[column].strip() if column < len(row) else ""
    try:
        return float(text) if text else np.nan
    except ValueError:
        return np.nan


def _named(path, names: list[str], points: np.ndarray) -> tuple[str, np.ndarray]:
    known = person_points.named_points(names, points)
    if known is None:
        raise UserError(
            f"{path}: its body parts ({', '.join(names[:20])}) are not those of a person in any "
            "joint set; name them as COCO does, such as nose, left_eye, left_shoulder."
        )
    return known[0], cleaned(known[1])


def _sleap_csv(path, rows) -> Found:
    """Reads SLEAP's analysis csv."""
    head = [cell.strip() for cell in rows[0]]
    names = [cell[:-2] for cell in head if cell.endswith(".x")]
    column = {cell: place for place, cell in enumerate(head)}
    frames: dict[Hashable, list[Person]] = {}
    joint_set = ""
    for row in rows[1:]:
        points = np.array([[_cell(row, column[f"{name}.x"]), _cell(row, column.get(f"{name}.y")),
                            _cell(row, column.get(f"{name}.score"), 1.0)] for name in names])
        joint_set, points = _named(path, names, points)
        try:
            frame = int(float(row[column["frame_idx"]]))
        except (ValueError, IndexError) as error:
            raise UserError(f"{path}: a row has no frame_idx.") from error
        frames.setdefault(frame, []).append((row[column["track"]] or None, points))
    if not frames:
        raise UserError(f"{path}: the table has no row.")
    return Found(joint_set, frames)


def _sleap_h5(path) -> Found:
    """Reads SLEAP's analysis h5: tracks `[people, 2, nodes, frames]` and node_names."""
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"{path}: reading it takes `pip install h5py`.") from error
    try:
        with h5py.File(path) as file:
            if not {"tracks", "node_names"} <= set(file):
                raise UserError(
                    f"{path} has no tracks and node_names as SLEAP's analysis has; of DeepLabCut, "
                    "give the csv."
                )
            tracks = np.asarray(file["tracks"], np.float64)
            names = [_word(name) for name in file["node_names"][()]]
            people = [_word(name) for name in file["track_names"][()]] if (
                "track_names" in file) else []
            scores = np.asarray(file["point_scores"], np.float64) if (
                "point_scores" in file) else np.zeros(0)
    except OSError as error:
        raise UserError(f"{path} is no HDF5 file ({error}).") from error
    if tracks.ndim != 4 or tracks.shape[1:3] != (2, len(names)):
        raise UserError(f"{path}: tracks have the shape {list(tracks.shape)}.")
    points = np.full((*tracks.shape[::3], len(names), 3), 1.0)  # [people, frames, nodes, 3]
    points[..., :2] = tracks.transpose(0, 3, 2, 1)
    if np.shape(scores) == (len(tracks), len(names), tracks.shape[3]):
        points[..., 2] = scores.transpose(0, 2, 1)
    joint_set, points = _named(path, names, points)
    people = people if len(people) == len(points) else [str(i) for i in range(len(points))]
    return Found(joint_set, {
        frame: [(who, part[frame]) for who, part in zip(people, points, strict=True)
                if part[frame, :, 2].any()]
        for frame in range(points.shape[1])
    })


def _word(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
