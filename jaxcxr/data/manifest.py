"""What is in a prepared data set, without its images or coordinates: one row per record.

`manifest.csv` lies beside the shards. Row i of a split is record i of that split, so that labels,
patients and names can be looked up by the index which travels through the pipeline.
"""

import csv
import dataclasses
import pathlib

import numpy as np

from jaxcxr.errors import UserError

NAME = "manifest.csv"
SPLITS = ("train", "validation", "test")
_FIELDS = ("split", "image_id", "patient_id", "view", "sex", "age")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Rows of one split of a radiograph data set.

    Attributes:
      image_id, patient_id, view, sex: `[n]` strings.
      age: `[n]` years, -1 unknown.
      labels: `[n, classes]` int8 in {1, 0, -1 unknown}.
      classes: names of the label columns.
    """

    image_id: np.ndarray
    patient_id: np.ndarray
    view: np.ndarray
    sex: np.ndarray
    age: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.image_id)


def write(directory: pathlib.Path, splits: dict, classes: tuple[str, ...]) -> None:
    """Write `manifest.csv` of a prepared radiograph data set, atomically.

    Arguments:
      directory: the prepared data set.
      splits: split name -> random-access source of its records, images not decoded.
      classes: names of the label columns.
    """
    partial = directory / f"{NAME}.partial"
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((*_FIELDS, *classes))
        for split, records in splits.items():
            for i in range(len(records)):
                record = records[i]
                text = [_text(record[field]) for field in _FIELDS[1:5]]
                labels = ("" if label < 0 else int(label) for label in record["labels"])
                writer.writerow((split, *text, int(record["age"]), *labels))
    partial.replace(directory / NAME)


def read(directory: pathlib.Path, split: str) -> Manifest:
    """Rows of one split, in the order of its records.

    Raises:
      UserError: the data set has no manifest, or no such split.
    """
    if split not in SPLITS:
        raise UserError(f"there is no split {split!r}; allowed: {', '.join(SPLITS)}.")
    path = directory / NAME
    if not path.exists():
        raise UserError(f"{path} is missing: the preparation did not finish; run it again.")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        classes = tuple(next(reader)[len(_FIELDS):])
        rows = [row for row in reader if row[0] == split]
    columns = list(zip(*rows, strict=True)) if rows else [()] * (len(_FIELDS) + len(classes))
    labels = [[-1 if cell == "" else int(cell) for cell in row[len(_FIELDS):]] for row in rows]
    return Manifest(
        *(np.array(column, dtype=str) for column in columns[1:5]),
        age=np.array(columns[5], dtype=np.int32),
        labels=np.array(labels, dtype=np.int8).reshape(len(rows), len(classes)),
        classes=classes,
    )


def _text(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
