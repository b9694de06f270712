"""Prints a table of what a prepared data set holds."""

import pathlib
from collections.abc import Callable

import rich.console
import rich.table
import tensorflow_datasets as tfds

_NAMES = ("train", "validation", "test")
UNKNOWN = "unknown labels"  # the row is left out where all labels are known


def show(directory: pathlib.Path, overview: Callable[[pathlib.Path, str], dict[str, int]]) -> None:
    """Prints the table of a prepared data set: one column per split.

    Arguments:
      directory: the prepared data set.
      overview: see `DataSet.overview`.
    """
    info = tfds.builder_from_directory(directory).info
    splits = [name for name in _NAMES if name in info.splits]
    columns = [overview(directory, name) for name in splits]
    table = rich.table.Table("", *splits)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in columns[0]:
        counts = [column[row] for column in columns]
        if row != UNKNOWN or any(counts):
            table.add_row(row, *(f"{count:,}" for count in counts))
    rich.console.Console().print(table)
