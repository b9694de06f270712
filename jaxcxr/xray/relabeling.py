"""Relabels training images by out-of-fold scores.

CheXNeXt (Rajpurkar et al. 2018, doi:10.1371/journal.pmed.1002686) trains several networks on the
recorded labels, averages their scores, thresholds each finding where F1 is greatest, and takes an
image as positive if it is recorded or predicted positive. There the networks score images they
were trained on. Here only networks that never saw the patient score an image, and labels of the
validation and test splits never change.
"""

import dataclasses
import hashlib
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcxr.data import image_paths, label_tables
from jaxcxr.data.label_tables import NEGATIVE, POSITIVE, UNKNOWN
from jaxcxr.errors import UserError, some
from jaxcxr.report import tables
from jaxcxr.statistics import ranking

# Columns of the adjudicated labels of Majkowska et al. 2020 (doi:10.1148/radiol.2019191293) that
# cover several of our findings: positive if any of these is positive. Airspace opacity covers the
# findings below it in CheXpert's hierarchy (Irvin et al. 2019, arXiv:1901.07031, figure 1) and
# Infiltration, the older word for it. Fracture is not one of our findings.
ADJUDICATED = {
    "Airspace opacity": ("Infiltration", "Pneumonia", "Edema", "Consolidation", "Atelectasis"),
    "Nodule or mass": ("Nodule", "Mass"),
}


def folds(patients: Sequence[str] | np.ndarray, count: int, seed: int) -> np.ndarray:
    """Assigns each image a fold, 0 to count - 1, a fixed function of its patient and the seed."""
    names, inverse = np.unique(np.asarray(patients, str), return_inverse=True)
    digests = (hashlib.sha256(f"fold {seed} {name}".encode()).digest() for name in names)
    return np.array([int.from_bytes(d[:8], "big") % count for d in digests], np.int64)[inverse]


def left_out(member: int, count: int, held_out: int) -> tuple[int, ...]:
    """Lists the folds that a member is not trained on: `held_out`, cyclic from its own number.

    Every fold is left out by exactly `held_out` of the `count` members.
    """
    return tuple(sorted((member + k) % count for k in range(held_out)))


def average(scores: Sequence[np.ndarray], rows: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Averages the scores `[count, classes]` of each image over the members that scored it.

    NaN where no member that scored the image could learn the class.

    Arguments:
      scores: for each member, `[its images, classes]`; NaN for classes it could not learn.
      rows: for each member, the positions of its images among all.
      count: number of all images.

    Raises:
      ValueError: an image that no member scored.
    """
    total = np.zeros((count, scores[0].shape[1]))
    times = np.zeros(total.shape, int)
    scored = np.zeros(count, bool)
    for values, places in zip(scores, rows, strict=True):
        total[places] += np.nan_to_num(values)
        times[places] += ~np.isnan(values)
        scored[places] = True
    if not scored.all():
        raise ValueError(f"{(~scored).sum()} images have no score")
    return np.where(times > 0, total / np.maximum(times, 1), np.nan)


def kappa(left: np.ndarray, right: np.ndarray) -> float:
    """Computes Cohen's kappa (1960) of two label columns `[n]`, where both are known.

    NaN if chance alone would give full agreement, or nothing is known.
    """
    known = (left != UNKNOWN) & (right != UNKNOWN)
    if not known.any():
        return math.nan
    a, b = left[known] == POSITIVE, right[known] == POSITIVE
    chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return float(((a == b).mean() - chance) / (1 - chance)) if chance < 1 else math.nan


@dataclasses.dataclass(frozen=True)
class ClassChanges:
    """Counts the changes of one class by relabelling.

    Attributes:
      positives, negatives, unknown: numbers of recorded labels.
      relabelled, added: positives now, and how many of them were negative.
      threshold, f1: threshold with the greatest F1 against the recorded labels, and this F1; NaN
        for a class with one label value among the images with a score; its labels stay.
      unchanged: share of the known labels that stayed.
      kappa: Cohen's, of recorded and new labels; NaN where undefined.
    """

    name: str
    positives: int
    negatives: int
    unknown: int
    relabelled: int
    added: int
    threshold: float
    f1: float
    unchanged: float
    kappa: float


def relabel(
    labels: np.ndarray, scores: np.ndarray, classes: Sequence[str]
) -> tuple[np.ndarray, tuple[ClassChanges, ...]]:
    """Turns negative labels positive where the score reaches the threshold of the class.

    Positives stay, and unknown labels stay unknown: the networks did not learn from them, and
    nobody called them negative. The threshold of a class maximises F1 against the recorded labels
    over all scores. Where a score is NaN the label stays, and does not count for the threshold.

    Arguments:
      labels: int8 `[n, classes]` in {1, 0, -1 unknown}.
      scores: `[n, classes]`, of networks that saw none of these patients; NaN if unknown.
      classes: names.
    """
    new = labels.copy()
    rows = []
    for c, name in enumerate(classes):
        scored = ~np.isnan(scores[:, c])
        f1, threshold = ranking.f1_max(labels[scored, c], scores[scored, c])
        added = (labels[:, c] == NEGATIVE) & (scores[:, c] >= threshold)  # false for NaN
        new[added, c] = POSITIVE
        positives, negatives, unknown = (
            int((labels[:, c] == value).sum()) for value in (POSITIVE, NEGATIVE, UNKNOWN)
        )
        known = positives + negatives
        rows.append(ClassChanges(
            name, positives, negatives, unknown, positives + int(added.sum()), int(added.sum()),
            threshold, f1, 1 - added.sum() / known if known else math.nan,
            kappa(labels[:, c], new[:, c]),
        ))
    return new, tuple(rows)


@dataclasses.dataclass(frozen=True)
class Adjudicated:
    """Holds expert labels of some training images.

    Attributes:
      rows: positions of these images among the training images.
      columns: name in the file -> indices of the classes it covers.
      labels: int8 `[rows, columns]`.
      listed: number of images in the file, those of other splits included.
    """

    rows: np.ndarray
    columns: dict[str, tuple[int, ...]]
    labels: np.ndarray
    listed: int


def read_adjudicated(
    path: str | pathlib.Path, training: Sequence[str], classes: Sequence[str]
) -> Adjudicated:
    """Reads a csv of adjudicated labels and finds its images in the training split.

    Ignores columns that are neither a class nor in `ADJUDICATED`, and images of other splits.

    Raises:
      UserError: the file has no such column, a value that is not a label, or no training image.
    """
    table = label_tables.read(path)
    numbers = {name: i for i, name in enumerate(classes)}
    groups = {name: (name,) for name in classes} | ADJUDICATED
    found = label_tables.match_classes(groups, table.classes)
    members = {
        name: tuple(numbers[finding] for finding in groups[name] if finding in numbers)
        for name in found
    }
    columns = {name: places for name, places in members.items() if places}
    if not columns:
        raise UserError(
            f"{path}: no column is a class of the data set or one of {', '.join(ADJUDICATED)}; it "
            f"has {some(table.file.columns)}."
        )
    labels = table.labels([found[name] for name in columns])
    places = image_paths.match(
        table.ids, list(map(str, training)), path, "the training split"
    )
    there = places >= 0
    if not there.any():
        raise UserError(
            f"{path}: none of its {len(places)} images is in the training split; the file begins "
            f"with {table.ids[0]}, the split with {training[0]}."
        )
    return Adjudicated(places[there], columns, labels[there], len(places))


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Measures the agreement with adjudicated labels, over images where both are known.

    Attributes:
      images, positives: number of images, and of those adjudicated positive.
      sensitivity: share of the adjudicated positives that are labelled positive.
      ppv: positive predictive value, the share of the labelled positives that are confirmed.
      kappa: Cohen's. All three are NaN where undefined.
    """

    images: int
    positives: int
    sensitivity: float
    ppv: float
    kappa: float


def agreement(labels: np.ndarray, truth: Adjudicated) -> dict[str, Agreement]:
    """Measures how labels `[training images, classes]` agree with each adjudicated column.

    Where a column covers several classes, an image is positive if any of them is, and unknown if
    none is positive and any is unknown.
    """
    result = {}
    for j, (name, members) in enumerate(truth.columns.items()):
        ours = labels[truth.rows][:, list(members)]
        ours = np.where((ours == POSITIVE).any(1), POSITIVE, ours.min(1))
        theirs = truth.labels[:, j]
        known = (ours != UNKNOWN) & (theirs != UNKNOWN)
        said, true = (side[known] == POSITIVE for side in (ours, theirs))
        both = (said & true).sum()
        result[name] = Agreement(
            int(known.sum()), int(true.sum()), _ratio(both, true.sum()), _ratio(both, said.sum()),
            kappa(ours, theirs),
        )
    return result


def _ratio(part, whole) -> float:
    return float(part / whole) if whole else math.nan


def write_labels(
    path: pathlib.Path, image_ids: Sequence[str], labels: np.ndarray, classes: Sequence[str]
) -> None:
    """Writes the csv that `data.labels` reads: image_id and the classes, empty where unknown."""
    lines = ((name, *("" if value == UNKNOWN else int(value) for value in row))
             for name, row in zip(image_ids, labels, strict=True))
    tables.write_csv(path, ("image_id", *classes), lines)


def write_changes(path: pathlib.Path, rows, scores, new, summary: Sequence[ClassChanges]) -> None:
    """Writes a csv with a line for each changed label."""
    lines = (
        (rows.image_id[i], rows.patient_id[i], rows.classes[c], int(rows.labels[i, c]),
         int(new[i, c]), f"{scores[i, c]:.6g}", f"{summary[c].threshold:.6g}")
        for i, c in np.argwhere(new != rows.labels)
    )
    header = ("image_id", "patient_id", "class", "original", "new", "score", "threshold")
    tables.write_csv(path, header, lines)


def as_json(rows: Sequence[Any]) -> list[dict]:
    """Converts dataclasses to dicts for JSON; NaN becomes None."""
    return [
        {key: None if isinstance(value, float) and math.isnan(value) else value
         for key, value in dataclasses.asdict(row).items()}
        for row in rows
    ]


COLUMNS = ("class", "positive", "new", "added", "threshold", "F1", "unchanged", "kappa")


def cells(row: ClassChanges) -> tuple[str, ...]:
    """Formats the changes of a class, as `COLUMNS`."""
    numbers = map(tables.number, (row.threshold, row.f1, row.unchanged, row.kappa))
    return (row.name, f"{row.positives:,}", f"{row.relabelled:,}", f"{row.added:,}", *numbers)


def to_text(rows: Sequence[ClassChanges]) -> str:
    """Formats the table of all classes, with warnings below."""
    text = [_aligned([COLUMNS, *map(cells, rows)])]
    kept = [row.name for row in rows if math.isnan(row.threshold)]
    if kept:
        names = ", ".join(kept)
        text.append(f"one label value only where networks give a score, labels kept: {names}")
    flooded = [row.name for row in rows if row.added > row.positives]
    if flooded:
        text.append(
            "more positives added than were recorded: " + ", ".join(flooded) + ". Where scores "
            "separate poorly, F1 is greatest at a threshold that calls most images positive."
        )
    return "\n".join(text)


def agreement_text(before: Mapping[str, Agreement], after: Mapping[str, Agreement]) -> str:
    """Formats the table of agreement with adjudicated labels, recorded -> new."""
    lines: list[tuple[str, ...]] = [
        ("adjudicated", "images", "positive", "sensitivity", "PPV", "kappa")
    ]
    for name, old in before.items():
        new = after[name]
        pairs = ((old.sensitivity, new.sensitivity), (old.ppv, new.ppv), (old.kappa, new.kappa))
        lines.append((name, f"{old.images:,}", f"{old.positives:,}",
                      *(f"{tables.number(a)} -> {tables.number(b)}" for a, b in pairs)))
    return _aligned(lines)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Aligns cells in columns, with a rule below the header."""
    head, *rows = tables.aligned(lines)
    return "\n".join([head, "-" * max(map(len, [head, *rows])), *rows])
