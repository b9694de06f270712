"""Shows what a source understood, before anything is written."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import rich.console
import rich.table
import rich.text

from jaxcxr.data.label_tables import NEGATIVE, POSITIVE, UNKNOWN
from jaxcxr.xray.images import manifest

_VALUES = (POSITIVE, NEGATIVE, UNKNOWN)
SPLITS = ("train", "validation", "test")


def show_columns(
    title: str, used: Iterable[tuple[str, str]], ignored: Iterable[tuple[str, str]]
) -> None:
    """Prints which columns of a table are used as what, and which are not, and why."""
    table = rich.table.Table("column", "is")
    for column, what in used:
        table.add_row(rich.text.Text(column), rich.text.Text(what))
    for column, why in ignored:
        table.add_row(rich.text.Text(column), rich.text.Text(f"ignored: {why}"))
    console = rich.console.Console()
    console.print(title, markup=False, highlight=False, soft_wrap=True)
    console.print(table)


def show_counts(splits: Mapping[str, Sequence], classes: Sequence[str]) -> None:
    """Prints images and patients of each split, and the labels of each class there.

    Arguments:
      splits: split -> records with `patient_id` and `labels`.
      classes: names of the labels.
    """
    table = rich.table.Table("positive / negative / unknown", *SPLITS)
    for column in table.columns[1:]:
        column.justify = "right"
    rows = [splits.get(split, ()) for split in SPLITS]
    table.add_row("images", *(f"{len(part):,}" for part in rows))
    table.add_row("patients", *(f"{len({row.patient_id for row in part}):,}" for part in rows))
    labels = [np.array([row.labels for row in part]).reshape(-1, len(classes)) for part in rows]
    for i, name in enumerate(classes):
        counts = (
            " / ".join(f"{(part[:, i] == value).sum():,}" for value in _VALUES)
            for part in labels
        )
        table.add_row(rich.text.Text(name), *counts)
    rich.console.Console().print(table)


def gaps(splits: Mapping[str, Sequence], classes: Sequence[str]) -> list[str]:
    """Says which splits are empty and which classes cannot be learned."""
    lines = [
        f"there is no {split} split: {cost}" for split, cost in (
            ("train", "nothing can be trained, only evaluated"),
            ("validation", "training will pick no best checkpoint and calibrate nothing"),
            ("test", "training will end without a test"),
        ) if not splits.get(split)
    ]
    labels = np.array([row.labels for row in splits.get("train", ())]).reshape(-1, len(classes))
    reasons = manifest.unlearned(labels, classes) if len(labels) else {}
    for why in dict.fromkeys(reasons.values()):
        names = [name for name, reason in reasons.items() if reason == why]
        lines.append(f"{why}, so cannot be learned: {', '.join(names)}")
    return lines
