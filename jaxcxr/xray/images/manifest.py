"""Reads and writes `manifest.parquet`: all that a prepared data set holds except its images.

Row i of a split is record i of that split, so the index that travels through the pipeline finds
labels, patients and names. pandas, DuckDB and Polars open the file too.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from jaxcxr.errors import UserError

NAME = "manifest.parquet"
SPLITS = ("train", "validation", "test")
_TEXTS = ("split", "image_id", "patient_id", "source", "view", "sex", "sha256")
_LABEL = "label_"  # begins the name of a label column
_BOX = pa.struct([
    ("finding", pa.string()), *((name, pa.float32()) for name in ("x", "y", "width", "height")),
])


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Holds the rows of a radiograph data set, or of one of its splits.

    Attributes:
      split, image_id, patient_id, source, view, sex: `[n]` strings, "" unknown.
      sha256: `[n]` strings, "" if the pixels were never read.
      age: int32 `[n]` years, -1 unknown.
      original_size: int32 `[n, 2]` (height, width) in pixels, 0 unknown.
      phash: uint64 `[n]`, undefined where `sha256` is "".
      labels: int8 `[n, classes]` in {1, 0, -1 unknown}.
      boxes: for each row float32 `[k, 5]`: class index, x, y, width, height in stored pixels.
      classes: names of the label columns.
    """

    split: np.ndarray
    image_id: np.ndarray
    patient_id: np.ndarray
    source: np.ndarray
    view: np.ndarray
    sex: np.ndarray
    sha256: np.ndarray
    age: np.ndarray
    original_size: np.ndarray
    phash: np.ndarray
    labels: np.ndarray
    boxes: tuple[np.ndarray, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.image_id)

    def of_classes(self, classes: Sequence[str]) -> "Manifest":
        """Selects classes, in this order; labels of a class that is not there are unknown."""
        place = {name: i for i, name in enumerate(self.classes)}
        unknown = np.full((len(self), 1), -1, np.int8)
        labels = np.concatenate([self.labels, unknown], 1)[:, [place.get(c, -1) for c in classes]]
        number = {place[name]: i for i, name in enumerate(classes) if name in place}
        boxes = []
        for found in self.boxes:
            kept = found[[int(box[0]) in number for box in found]]
            kept[:, 0] = [number[int(box[0])] for box in kept]
            boxes.append(kept)
        return dataclasses.replace(
            self, labels=labels, boxes=tuple(boxes), classes=tuple(classes)
        )

    def renamed(self, classes: tuple[str, ...]) -> "Manifest":
        """Gives the classes other names, in their order."""
        return dataclasses.replace(self, classes=classes)

    def take(self, rows: np.ndarray) -> "Manifest":
        """Selects rows by indices or a mask `[n]`."""
        rows = np.arange(len(self))[rows]
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        taken = {name: value[rows] for name, value in fields.items()
                 if isinstance(value, np.ndarray)}
        return dataclasses.replace(self, **taken, boxes=tuple(self.boxes[i] for i in rows))


def from_rows(rows: Iterable[Mapping[str, Any]], classes: tuple[str, ...]) -> Manifest:
    """Makes a manifest of rows in memory.

    Arguments:
      rows: mappings with any attributes of `Manifest`, at least `image_id`, `labels` and `split`;
        text as str or bytes.
      classes: names of the label columns.
    """
    rows = list(rows)

    def column(name, default, dtype, width=()):
        values = [row.get(name, default) for row in rows]
        return np.array(values, dtype).reshape(len(rows), *width)

    texts = {name: np.array([_text(row.get(name, "")) for row in rows], str) for name in _TEXTS}
    return Manifest(
        **texts,
        age=column("age", -1, np.int32),
        original_size=column("original_size", (0, 0), np.int32, (2,)),
        # Records hold the same 64 bits as int64.
        phash=np.array([int(row.get("phash", 0)) % 2**64 for row in rows], np.uint64),
        labels=column("labels", None, np.int8, (len(classes),)),
        boxes=tuple(np.array(row.get("boxes", ()), np.float32).reshape(-1, 5) for row in rows),
        classes=tuple(classes),
    )


def write(directory: pathlib.Path, splits: Mapping[str, Any], classes: tuple[str, ...]) -> None:
    """Writes the manifest of a prepared radiograph data set, atomically.

    Arguments:
      directory: the prepared data set.
      splits: split name -> its records, images still encoded.
      classes: names of the label columns.
    """
    rows = from_rows(
        ({key: value for key, value in records[i].items() if key != "image"} | {"split": split}
         for split, records in splits.items() for i in range(len(records))),
        classes,
    )
    partial = directory / f"{NAME}.partial"
    pyarrow.parquet.write_table(to_table(rows), partial, compression="zstd")
    partial.replace(directory / NAME)


def read(path: pathlib.Path, split: str | None = None) -> Manifest:
    """Reads the rows of a prepared data set in the order of its records.

    Arguments:
      path: the prepared data set, or the manifest itself.
      split: one of `SPLITS`; None for all rows.

    Raises:
      UserError: no manifest, not a manifest of this program, or no such split.
    """
    if split is not None and split not in SPLITS:
        raise UserError(f"there is no split {split!r}; allowed: {', '.join(SPLITS)}.")
    path = path / NAME if path.is_dir() else path
    if not path.exists():
        raise UserError(f"{path} is missing: the preparation did not finish; run it again.")
    try:
        rows = from_table(pyarrow.parquet.read_table(path))
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise UserError(f"{path} is not a manifest of jaxcxr: {error}") from error
    return rows if split is None else rows.take(rows.split == split)


def to_table(rows: Manifest) -> pa.Table:
    """Converts a manifest to an Arrow table: unknown is null, label columns are label_NAME."""
    columns = {name: _nullable(getattr(rows, name), "") for name in _TEXTS}
    seen = rows.sha256 != ""
    columns |= {
        "age": _nullable(rows.age, -1),
        "original_height": _nullable(rows.original_size[:, 0], 0),
        "original_width": _nullable(rows.original_size[:, 1], 0),
        "phash": pa.array(rows.phash, mask=~seen),
    }
    columns |= {
        f"{_LABEL}{name}": _nullable(rows.labels[:, i], -1) for i, name in enumerate(rows.classes)
    }
    boxes = [
        [{"finding": rows.classes[int(box[0])],
          **dict(zip(("x", "y", "width", "height"), box[1:], strict=True))} for box in boxes]
        for boxes in rows.boxes
    ]
    columns["boxes"] = pa.array(boxes, pa.list_(_BOX))
    return pa.table(columns)


def from_table(table: pa.Table) -> Manifest:
    """Converts an Arrow table of `to_table` back to a manifest."""
    names = [name for name in table.column_names if name.startswith(_LABEL)]
    classes = tuple(name.removeprefix(_LABEL) for name in names)

    def numbers(name, unknown, dtype):
        return table[name].fill_null(unknown).to_numpy().astype(dtype)

    labels = [numbers(name, -1, np.int8) for name in names]
    sizes = [numbers(f"original_{side}", 0, np.int32) for side in ("height", "width")]
    return Manifest(
        **{name: np.array(table[name].fill_null("").to_pylist(), str) for name in _TEXTS},
        age=numbers("age", -1, np.int32),
        original_size=np.stack(sizes, 1),
        phash=numbers("phash", 0, np.uint64),
        labels=np.stack(labels, 1) if labels else np.zeros((len(table), 0), np.int8),
        boxes=_boxes(table["boxes"].combine_chunks(), classes),
        classes=classes,
    )


def _boxes(column: pa.Array, classes: tuple[str, ...]) -> tuple[np.ndarray, ...]:
    number = {name: i for i, name in enumerate(classes)}
    flat = column.flatten()
    finding = [number[name] for name in flat.field("finding").to_pylist()]
    sides = (flat.field(name).to_numpy() for name in ("x", "y", "width", "height"))
    boxes = np.stack([np.array(finding, np.float32), *sides], 1).astype(np.float32)
    ends = np.cumsum(column.value_lengths().to_numpy())
    return tuple(np.split(boxes, ends[:-1])) if len(ends) else ()


def _nullable(values: np.ndarray, unknown) -> pa.Array:
    return pa.array(values, mask=values == unknown)


def _text(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def unlearned(labels: np.ndarray, classes: Sequence[str]) -> dict[str, str]:
    """Maps each class that training labels int8 `[n, classes]` cannot teach to the reason."""
    reasons = {}
    for i, name in enumerate(classes):
        missing = [word for word, value in (("positive", 1), ("negative", 0))
                   if not (labels[:, i] == value).any()]
        if missing:
            reasons[name] = f"no {' and no '.join(missing)} training label"
    return reasons
