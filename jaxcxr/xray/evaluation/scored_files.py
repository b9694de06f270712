"""Label and prediction files of any framework, joined by image and by class name."""

import dataclasses
import functools
import math
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from jaxcxr.data.schema import FINDINGS, NEGATIVE, POSITIVE, UNKNOWN
from jaxcxr.data.sheets import Sheet, fold, read_list, read_sheet
from jaxcxr.errors import UserError, some
from jaxcxr.xray.sources import chestxray14_table

# Names of columns as `sheets.fold` leaves them; of several, the first that is there counts.
IDS = ("imageid", "imageindex", "id", "image", "filename", "imagename", "imagepath", "path")
PATIENTS = ("patientid", "patient", "subjectid", "subject")
_FINDING_LABELS = "findinglabels"
_LABEL_PREFIX = re.compile(r"label[_ ]", re.IGNORECASE)
_SCORE_PREFIX = re.compile(r"(?:prob|score)[_ ]", re.IGNORECASE)
# Not every last dot begins a file ending: DICOM's identifiers are numbers and dots.
_ENDING = re.compile(r"\.(?:png|jpe?g|dcm|dicom|tiff?|bmp|gif|webp|npy|nii|gz)$", re.IGNORECASE)
_VALUES = {1.0: POSITIVE, 0.0: NEGATIVE, -1.0: UNKNOWN}
# The data set has no label of COVID-19: it is known to be absent, which needs no prediction.
_CHESTXRAY14 = tuple(name for name in FINDINGS if name != "COVID-19")


@dataclasses.dataclass(frozen=True)
class ClassValues:
    """Values by image and class.

    Attributes:
      sheet: the file.
      ids: image of each row.
      patients: patient of each row; none if the file has no such column.
      classes: names as the file has them, without a prefix.
      read: names of classes to `[rows, classes]`.
    """

    sheet: Sheet
    ids: tuple[str, ...]
    patients: tuple[str, ...] | None
    classes: tuple[str, ...]
    read: Callable[[Sequence[str]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Joined:
    """Labels and scores of the same images.

    Attributes:
      labels: int8 `[N, C]` in {1, 0, -1 unknown}; scores: float64 `[N, C]`.
      classes: the C names, as the label file has them.
      ids: `[N]`. patients: `[N]`, none if unknown.
      labels_only, predictions_only: classes that stand in one of the two files only.
      ignored: number of predictions for images that are not scored.
      unlabelled: images of the split list that have no label.
      inputs: role ("labels", "predictions", "split_list") to name and SHA-256 of the file.
    """

    labels: np.ndarray
    scores: np.ndarray
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    patients: tuple[str, ...] | None
    labels_only: tuple[str, ...]
    predictions_only: tuple[str, ...]
    ignored: int
    unlabelled: tuple[str, ...]
    inputs: dict[str, dict[str, str]]


def join(
    labels: str | pathlib.Path,
    predictions: str | pathlib.Path,
    split_list: str | pathlib.Path | None = None,
) -> Joined:
    """Reads both files and puts together what belongs together, by name and in any order.

    Images match by their whole id, else without folders, else without the file ending too. Classes
    match whatever their case, spaces and underscores.

    Arguments:
      labels: see `read_labels`.
      predictions: see `read_predictions`.
      split_list: text file, one image per line; only these are scored.

    Raises:
      UserError: as the readers; an image has no prediction, or matches several; no class matches.
    """
    truth, guess = read_labels(labels), read_predictions(predictions)
    rows, unlabelled = np.arange(len(truth.ids)), ()
    inputs = {"labels": truth.sheet.fingerprint, "predictions": guess.sheet.fingerprint}
    if split_list is not None:
        listed, inputs["split_list"] = read_list(pathlib.Path(split_list))
        found = match_ids(listed, truth.ids, split_list, labels)
        unlabelled = tuple(name for name, row in zip(listed, found, strict=True) if row < 0)
        rows = found[found >= 0]
        if not len(rows):
            raise UserError(
                f"{split_list}: none of its {len(listed)} images has a label in {labels}; the "
                f"list begins with {listed[0]}, the labels with {truth.ids[0]}"
            )
    ids = tuple(truth.ids[row] for row in rows)
    chosen = match_ids(ids, guess.ids, labels, predictions)
    absent = [name for name, row in zip(ids, chosen, strict=True) if row < 0]
    if absent:
        raise UserError(
            f"{predictions}: {len(absent)} of {len(ids)} images have no prediction: "
            f"{some(absent)}; predict them too, or name the images to score with --split-list"
        )
    pairs = _match_classes(truth, guess)
    return Joined(
        labels=truth.read(list(pairs))[rows],
        scores=guess.read(list(pairs.values()))[chosen],
        classes=tuple(pairs),
        ids=ids,
        patients=None if truth.patients is None else tuple(truth.patients[row] for row in rows),
        labels_only=tuple(name for name in truth.classes if name not in pairs),
        predictions_only=tuple(n for n in guess.classes if n not in pairs.values()),
        ignored=len(guess.ids) - len(ids),
        unlabelled=unlabelled,
        inputs=inputs,
    )


def read_labels(path: str | pathlib.Path) -> ClassValues:
    """Labels as `Data_Entry_2017*.csv` of ChestX-ray14, or one column per class.

    The second form has an image column (such as image_id, Image Index, id, image, filename), may
    have a patient column (such as patient_id, Patient ID), and holds 1, 0 or, where unknown,
    nothing or -1. If any column is called `label_CLASS`, only these are classes; else all others
    are that are not called `prob_CLASS` or `score_CLASS`.

    Raises:
      UserError: the file is not in one of these forms; the values of a class are looked at when
        they are read.
    """
    sheet = read_sheet(pathlib.Path(path))
    ids = image_ids(sheet)
    patients = _patients(sheet)
    findings = sheet.column([_FINDING_LABELS])
    if findings is not None:
        read = functools.partial(_read_findings, sheet, findings)
        return ClassValues(sheet, ids, patients, _CHESTXRAY14, read)
    columns = _class_columns(sheet, _LABEL_PREFIX, other=_SCORE_PREFIX)
    read = functools.partial(_read_values, sheet, columns, _label, np.int8)
    return ClassValues(sheet, ids, patients, tuple(columns), read)


def read_predictions(path: str | pathlib.Path) -> ClassValues:
    """Scores, one column per class, beside an image column as in `read_labels`.

    If any column is called `prob_CLASS` or `score_CLASS`, only these are classes; else all others
    are that are not called `label_CLASS`. Any finite number is a score, larger is more positive.
    A row without any score, as `jaxcxr predict` writes for a file that it could not read, is no
    prediction.

    Raises:
      UserError: as `read_labels`; no row has a score.
    """
    sheet = read_sheet(pathlib.Path(path))
    columns = _class_columns(sheet, _SCORE_PREFIX, other=_LABEL_PREFIX)
    sheet = _with_scores(sheet, columns.values())
    read = functools.partial(_read_values, sheet, columns, _score, np.float64)
    return ClassValues(sheet, image_ids(sheet), None, tuple(columns), read)


def _with_scores(sheet: Sheet, columns: Iterable[int]) -> Sheet:
    """The rows in which any of the columns is filled."""
    kept = [i for i, row in enumerate(sheet.rows) if any(row[column] for column in columns)]
    if not kept:
        raise UserError(f"{sheet.path}: no row has a score; the columns of the classes are empty")
    rows, lines = [sheet.rows[i] for i in kept], [sheet.lines[i] for i in kept]
    return dataclasses.replace(sheet, rows=rows, lines=lines)


def match_ids(wanted: Sequence[str], available: Sequence[str], asked, given) -> np.ndarray:
    """Where each image stands in another file.

    Arguments:
      wanted, available: ids, each without repetition.
      asked, given: names of their files, for messages.

    Returns:
      Indices into `available`, -1 where there is none, int64 `[wanted]`.

    Raises:
      UserError: an id matches several, or several match one, without folder or file ending.
    """
    result = np.full(len(wanted), -1)
    owners: dict[int, tuple[Callable, str]] = {}
    for key in (str, _without_folder, _without_ending):
        if (result >= 0).all():
            break
        places: dict[str, list[int]] = {}
        for place, name in enumerate(available):
            places.setdefault(key(name), []).append(place)
        for i in np.flatnonzero(result < 0):
            found = places.get(key(wanted[i]), ())
            if len(found) > 1:
                raise UserError(
                    f"{given}: {available[found[0]]} and {available[found[1]]} both match "
                    f"{wanted[i]} of {asked}; write the ids alike in both files"
                )
            if not found:
                continue
            used_by, owner = owners.setdefault(found[0], (key, wanted[i]))
            if owner == wanted[i]:
                result[i] = found[0]
            elif used_by is key:
                raise UserError(
                    f"{asked}: {owner} and {wanted[i]} both match {available[found[0]]} of "
                    f"{given}; write the ids alike in both files"
                )
    return result


def _match_classes(truth: ClassValues, guess: ClassValues) -> dict[str, str]:
    """Class of the labels -> class of the predictions, in the order of the labels."""
    by_name = {fold(name): name for name in guess.classes}
    pairs = {name: by_name[fold(name)] for name in truth.classes if fold(name) in by_name}
    if not pairs:
        raise UserError(
            f"{guess.sheet.path}: none of its classes ({some(guess.classes)}) is one of "
            f"{truth.sheet.path} ({some(truth.classes)}); name the columns as there, with or "
            "without the prefix prob_ or score_"
        )
    return pairs


def _read_findings(sheet: Sheet, column: int, classes: Sequence[str]) -> np.ndarray:
    chosen = [FINDINGS.index(name) for name in classes]
    parse = chestxray14_table.labels_of
    labels = [parse(row[column], sheet.where(i)) for i, row in enumerate(sheet.rows)]
    return np.array(labels, np.int8)[:, chosen]


def _read_values(
    sheet: Sheet, columns: dict[str, int], parse: Callable, dtype, classes: Sequence[str]
) -> np.ndarray:
    result = np.empty((len(sheet.rows), len(classes)), dtype)
    for i, name in enumerate(classes):
        column = columns[name]
        for j, row in enumerate(sheet.rows):
            try:
                result[j, i] = parse(row[column])
            except ValueError as error:
                raise UserError(
                    f"{sheet.where(j)}: {row[column]!r} in column {sheet.columns[column]} {error}"
                ) from None
    return result


def _label(text: str) -> int:
    try:
        return _VALUES[float(text)] if text else UNKNOWN
    except (KeyError, ValueError):
        raise ValueError("is no label; 1, 0 and, for unknown, nothing or -1 are") from None


def _score(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("is no number; every image needs a score of every class") from None
    if not math.isfinite(value):
        raise ValueError("is not finite; scores must be finite numbers")
    return value


def _class_columns(sheet: Sheet, prefix: re.Pattern, other: re.Pattern) -> dict[str, int]:
    """Class -> column."""
    names = {i: name for i, name in enumerate(sheet.columns) if prefix.match(name)}
    if names:
        names = {i: name[prefix.match(name).end() :] for i, name in names.items()}
    else:
        no_class = ("", *IDS, *PATIENTS)
        names = {
            i: name for i, name in enumerate(sheet.columns)
            if fold(name) not in no_class and not other.match(name)
        }
    seen: dict[str, int] = {}
    for i, name in names.items():
        first = seen.setdefault(fold(name), i)
        if first != i:
            raise UserError(
                f"{sheet.path}: the columns {sheet.columns[first]} and {sheet.columns[i]} are both "
                f"of the class {name}; remove one"
            )
    if not names:
        raise UserError(
            f"{sheet.path}: no column of a class among {', '.join(sheet.columns)}; one column per "
            "class is needed beside the image's"
        )
    return {name: i for i, name in names.items()}


def image_ids(sheet: Sheet) -> tuple[str, ...]:
    """Image of each row.

    Raises:
      UserError: there is no such column, a cell is empty, or an id stands twice.
    """
    column = sheet.column(IDS)
    if column is None:
        raise UserError(
            f"{sheet.path}: no column of image ids among {', '.join(sheet.columns)}; call it "
            "image_id, Image Index, id, image or filename"
        )
    first: dict[str, int] = {}
    for i, row in enumerate(sheet.rows):
        if not row[column]:
            raise UserError(f"{sheet.where(i)}: no image id in column {sheet.columns[column]}")
        if first.setdefault(row[column], i) != i:
            raise UserError(
                f"{sheet.where(i)}: a second row for {row[column]}, the first is line "
                f"{sheet.lines[first[row[column]]]}; remove one"
            )
    return tuple(first)


def _patients(sheet: Sheet) -> tuple[str, ...] | None:
    column = sheet.column(PATIENTS)
    if column is None:
        return None
    for i, row in enumerate(sheet.rows):
        if not row[column]:
            raise UserError(
                f"{sheet.where(i)}: no patient in column {sheet.columns[column]}; fill it in, or "
                "remove the column to take each image for a patient"
            )
    return tuple(row[column] for row in sheet.rows)


def _without_folder(name: str) -> str:
    return re.split(r"[/\\]", name)[-1]


def _without_ending(name: str) -> str:
    return _ENDING.sub("", _without_folder(name))
