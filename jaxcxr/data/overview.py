"""Tables of what a prepared data set holds."""

import pathlib

import numpy as np
import rich.console
import rich.table
import tensorflow_datasets as tfds

from jaxcxr.xray.images import manifest

_NAMES = ("train", "validation", "test")
_UNKNOWN = "unknown labels"  # the row is left out where all labels are known


def show(directory: pathlib.Path, task: str) -> None:
    """Prints the table of a prepared data set: one column per split.

    Arguments:
      directory: the prepared data set.
      task: "cxr" (images, patients and images with each label) or "pose" (sequences, frames,
        subjects).
    """
    info = tfds.builder_from_directory(directory).info
    splits = [name for name in _NAMES if name in info.splits]
    columns = [(_radiographs if task == "cxr" else _sequences)(directory, name) for name in splits]
    table = rich.table.Table("", *splits)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in columns[0]:
        counts = [column[row] for column in columns]
        if row != _UNKNOWN or any(counts):
            table.add_row(row, *(f"{count:,}" for count in counts))
    rich.console.Console().print(table)


def _radiographs(directory: pathlib.Path, split: str) -> dict[str, int]:
    """Counts of one split of radiographs by the name of the row."""
    rows = manifest.read(directory, split)
    positive = rows.labels == 1
    counts = {"images": len(rows), "patients": len(np.unique(rows.patient_id))}
    counts |= {name: int(positive[:, i].sum()) for i, name in enumerate(rows.classes)}
    counts["no finding"] = int((rows.labels == 0).all(axis=1).sum())
    return counts | {_UNKNOWN: int((rows.labels < 0).sum())}


def _sequences(directory: pathlib.Path, split: str) -> dict[str, int]:
    """Counts of one split of motion sequences by the name of the row."""
    records = tfds.builder_from_directory(directory).as_data_source(split)
    shapes = [(record["subject"], len(record["joints"])) for record in records]
    frames = sum(length for _, length in shapes)
    subjects = len({subject for subject, _ in shapes})
    return {"sequences": len(shapes), "frames": frames, "subjects": subjects}
