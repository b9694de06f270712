"""Random access to the radiographs of a prepared data set, decoded to the model's size."""

import dataclasses
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from jaxcxr.data.csv_files import csv_rows
from jaxcxr.data.schema import NEGATIVE, POSITIVE, UNKNOWN
from jaxcxr.errors import UserError
from jaxcxr.xray.images import image_files, manifest
from jaxcxr.xray.sources import builder as xray

_LABELS = {"1": POSITIVE, "0": NEGATIVE, "": UNKNOWN}


def open_records(directory: pathlib.Path, split: str):
    """Records of a split with the image still encoded."""
    builder = tfds.builder_from_directory(directory)
    return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


class Radiographs:
    """One split of a prepared radiograph data set, or some of its records.

    Arguments:
      directory: the prepared data set.
      split: "train", "validation" or "test".
      image_size: pixels a side; stored images of another size are resized (area interpolation).
      rows: which records of the split, indices or a mask; None for all.
      labels: int8 `[records of the split, classes]` in place of the recorded labels, or None.
    """

    def __init__(
        self, directory: pathlib.Path, split: str, image_size: int,
        rows: np.ndarray | None = None, labels: np.ndarray | None = None,
    ):
        self._records = open_records(directory, split)
        self._image_size = image_size
        whole = manifest.read(directory, split)
        if labels is not None:
            whole = dataclasses.replace(whole, labels=labels)
        self._rows = np.arange(len(whole))[slice(None) if rows is None else rows]
        self.manifest = whole if rows is None else whole.take(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        record = self._records[int(self._rows[index])]
        image = image_files.decode_resized(record["image"], self._image_size)
        return {"image": image[..., None], "labels": self.manifest.labels[index]}

    def boxes(self, index: int) -> np.ndarray:
        """Boxes of an image: float32 `[k, 5]`, class index, x, y, width, height as `image` is."""
        boxes = self.manifest.boxes[index].copy()
        if len(boxes):
            record = self._records[int(self._rows[index])]
            height, width = image_files.decode(record["image"]).shape
            boxes[:, 1::2] *= self._image_size / width
            boxes[:, 2::2] *= self._image_size / height
        return boxes

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Several radiographs at once: `image` uint8 `[n, size, size, 1]`, `labels` int8."""
        examples = [self[index] for index in indices]
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


def read_labels(path: str | pathlib.Path, directory: pathlib.Path) -> np.ndarray:
    """Labels of the training split from a csv file, such as `jaxcxr relabel` writes.

    The file has a column `image_id` and one for each class, in any order, and a row for each image
    of the training split; a label is 1, 0 or, where unknown, nothing. Labels of the validation and
    test splits cannot be given: evaluation is always on the recorded ones.

    Arguments:
      path: the file.
      directory: the prepared data set.

    Returns:
      int8 `[training images, classes]` in the order of the records.

    Raises:
      UserError: the file is not of this form, or does not hold the training split's images.
    """
    path = pathlib.Path(path).expanduser()
    rows = manifest.read(directory)
    train = rows.split == "train"
    names = [str(name) for name in rows.image_id[train]]
    try:
        given = _read_rows(path, rows.classes)
    except UserError as error:
        raise UserError(f"config.data.labels: {error}") from error
    known = set(names)
    strange = [name for name in given if name not in known]
    evaluated = set(map(str, rows.image_id[~train])).intersection(strange)
    if evaluated:
        raise UserError(
            f"{path}: {len(evaluated)} of its images belong to the validation or test split, whose "
            "labels are never changed: "
            f"{xray.named([name for name in strange if name in evaluated])}; remove them."
        )
    if strange:
        raise UserError(
            f"{path}: {len(strange)} of its images are not in the training split of {directory}: "
            f"{xray.named(strange)}; make the file from this data set."
        )
    absent = [name for name in names if name not in given]
    if absent:
        raise UserError(
            f"{path}: {len(absent)} of the {len(names)} training images have no row: "
            f"{xray.named(absent)}; make the file from this data set."
        )
    return np.array([given[name] for name in names], np.int8).reshape(-1, len(rows.classes))


def _read_rows(path: pathlib.Path, classes: tuple[str, ...]) -> dict[str, list[int]]:
    """Labels of each image of the file, in the order of `classes`."""
    found, places = {}, {}
    needed = ("image_id", *classes)
    for where, cells in csv_rows(path, needed):
        unknown = [name for name in cells if name not in needed]
        if unknown:
            raise UserError(
                f"{path}:1: the columns must be image_id and the {len(classes)} classes of the "
                f"data set; unknown: {xray.named(list(map(repr, unknown)))}."
            )
        name = cells["image_id"]
        if name in found:
            raise UserError(
                f"{where}: a second row for {name}, the first is {places[name]}; remove one."
            )
        found[name] = [_label(cells[c], c, where) for c in classes]
        places[name] = where
    return found


def _label(text: str, name: str, where: str) -> int:
    if text not in _LABELS:
        raise UserError(
            f"{where}: {text!r} in column {name} is no label; 1, 0 and, for unknown, nothing are."
        )
    return _LABELS[text]
