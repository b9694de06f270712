"""Reads radiographs of a prepared data set in any order, decoded to the model's size."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds

from jaxcxr import registry
from jaxcxr.data import image_paths, label_tables
from jaxcxr.errors import UserError, some
from jaxcxr.xray.images import image_files, manifest

# Size, equalisation and encoding in the name of a variant, see `sources.builder.XrayConfig`.
_VARIANT = re.compile(
    rf"(?:^|_)\d+_(?P<equalize>{'|'.join(image_files.EQUALIZE)})"
    rf"_(?:{'|'.join(image_files.ENCODINGS)})(?:_|$)"
)


def open_records(directory: pathlib.Path, split: str):
    """Opens the records of a split with the image still encoded; none if there is no such split."""
    builder = tfds.builder_from_directory(directory)
    if split not in builder.info.splits:
        return ()
    return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


def equalization(directory: pathlib.Path) -> str | None:
    """Tells how the gray values of a prepared data set were equalised, as it records itself.

    Returns:
      One of `image_files.EQUALIZE`; None if that is not recorded.
    """
    try:
        info = json.loads((directory / "dataset_info.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{directory / 'dataset_info.json'} cannot be read; prepare the data set anew."
        ) from error
    if recorded := _VARIANT.search(info.get("configName", "")):
        return recorded["equalize"]
    name = info.get("name", "")
    never = name in registry.SOURCES and "equalize" not in registry.source_options(name)
    return "none" if never else None


class Radiographs:
    """Reads one split of a prepared radiograph data set, or some of its records.

    Arguments:
      directory: the prepared data set.
      split: "train", "validation" or "test".
      image_size: pixels per side; stored images of another size are resized (area interpolation).
      rows: indices or mask of the records to read; None for all.
      labels: int8 `[records of the split, classes]` that replace the recorded labels, or None.
      classes: those to read, see `Manifest.of_classes`; None for all.
    """

    def __init__(
        self, directory: pathlib.Path, split: str, image_size: int,
        rows: np.ndarray | None = None, labels: np.ndarray | None = None,
        classes: Sequence[str] | None = None,
    ):
        self._records = open_records(directory, split)
        self._image_size = image_size
        whole = manifest.read(directory, split)
        if labels is not None:
            whole = dataclasses.replace(whole, labels=labels)
        if classes is not None:
            whole = whole.of_classes(classes)
        self._rows = np.arange(len(whole))[slice(None) if rows is None else rows]
        self.manifest = whole if rows is None else whole.take(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        record = self._records[int(self._rows[index])]
        image = image_files.resize(image_files.decode(record["image"]), self._image_size)
        return {"image": image[..., None], "labels": self.manifest.labels[index]}

    def boxes(self, index: int) -> np.ndarray:
        """Returns boxes as (class index, x, y, width, height) in model pixels, float32 `[k, 5]`."""
        boxes = self.manifest.boxes[index].copy()
        if len(boxes):
            record = self._records[int(self._rows[index])]
            height, width = image_files.decode(record["image"]).shape
            boxes[:, 1::2] *= self._image_size / width
            boxes[:, 2::2] *= self._image_size / height
        return boxes

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Reads several radiographs: `image` uint8 `[n, size, size, 1]`, `labels` int8."""
        examples = [self[index] for index in indices]
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


class BlankRadiograph(Radiographs):
    """Holds one blank radiograph that labels half of the classes positive, to plan without data."""

    def __init__(self, size: int, classes: tuple[str, ...]):
        row = {"image_id": "0", "patient_id": "0", "split": "train",
               "labels": np.arange(len(classes)) % 2}
        self.manifest = manifest.from_rows([row], classes)
        self._example = {
            "image": np.zeros((size, size, 1), np.uint8),
            "labels": np.zeros(len(classes), np.int8),
        }

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self._example


def read_labels(path: str | pathlib.Path, directory: pathlib.Path) -> np.ndarray:
    """Reads labels of the training split from a csv file, such as `jaxcxr relabel` writes.

    The file has the data set's classes in any order and a row for each training image. It cannot
    change validation and test labels: evaluation always uses the recorded ones.

    Arguments:
      path: the file, in a form that `label_tables.read` knows.
      directory: the prepared data set.

    Returns:
      int8 `[training images, classes]` in the order of the records.

    Raises:
      UserError: the file has another form or other images than the training split.
    """
    path = pathlib.Path(path).expanduser()
    rows = manifest.read(directory)
    try:
        ids, labels = _read_table(path, rows.classes)
    except UserError as error:
        raise UserError(f"config.data.labels: {error}") from error
    train = rows.split == "train"
    names = rows.image_id[train].tolist()
    evaluated = set(rows.image_id[~train].tolist()).difference(names).intersection(ids)
    if evaluated:
        raise UserError(
            f"{path}: {len(evaluated)} of its images belong to the validation or test split, whose "
            "labels are never changed: "
            f"{some(name for name in ids if name in evaluated)}; remove them."
        )
    strange = _absent(ids, names, path, directory)
    if strange:
        raise UserError(
            f"{path}: {len(strange)} of its images are not in the training split of {directory}: "
            f"{some(strange)}; make the file from this data set."
        )
    absent = _absent(names, ids, directory, path)
    if absent:
        raise UserError(
            f"{path}: {len(absent)} of the {len(names)} training images have no row: "
            f"{some(absent)}; make the file from this data set."
        )
    return labels[image_paths.match(names, ids, directory, path)]


def _absent(wanted, available, asked, given) -> list[str]:
    found = image_paths.match(wanted, available, asked, given)
    return [name for name, place in zip(wanted, found, strict=True) if place < 0]


def _read_table(path: pathlib.Path, classes: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the images of the file and their labels, int8 `[images, classes]`."""
    table = label_tables.read(path)
    found = label_tables.match_classes(classes, table.classes)
    for wrong, names in (
        ("no column", [name for name in classes if name not in found]),
        ("unknown", [name for name in table.classes if name not in found.values()]),
    ):
        if names:
            raise UserError(
                f"{table.file.head}: {wrong} {some(map(repr, names))} among "
                f"{', '.join(table.file.columns)[:300]}; beside image_id the columns must be the "
                f"{len(classes)} classes of the data set"
            )
    return table.ids, table.labels(list(found.values()))
