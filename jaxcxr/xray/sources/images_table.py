"""Reads a table of images and labels of one's own: which column is what, and the labels."""

import dataclasses
import re
from collections.abc import Callable, Sequence

import numpy as np

from jaxcxr.data import label_tables
from jaxcxr.data.label_tables import NEGATIVE, POSITIVE, UNKNOWN
from jaxcxr.data.text_files import CsvFile, column_key, fold
from jaxcxr.data.vocabulary import no_finding
from jaxcxr.errors import UserError, nearest_or_known, some
from jaxcxr.xray.sources.images_options import LABELS, ROLES, Meaning

# Columns of the names of classes, as `text_files.column_key` leaves them; the first counts.
_LABEL_COLUMNS = (
    "findinglabels", "labels", "findings", "classes", "label", "finding", "class", "classname",
    "diagnosis", "diagnoses", "pathology", "pathologies", "category",
)  # fmt: skip
_SEPARATORS = ("|", ";", ",")
_INDEX = re.compile(r"unnamed\d*|index|no|nr|row|rownumber|")  # of the rows, as pandas writes it
_SCORES = re.compile(r"(?:prob|score)[_ ]", re.IGNORECASE)
_MOST_NAMES = 200  # of classes in a column of labels; more is free text


@dataclasses.dataclass(frozen=True)
class OwnTable:
    """Holds a table as it was understood, one entry per image.

    Attributes:
      where: place in the file, for messages.
      ids: as the file has them.
      classes: names.
      labels: int8 `[images, classes]` in {1, 0, -1 unknown}.
      cells: role -> the text of each image, of the columns that are there.
      used: (column, what it is).
      ignored: (column, why).
      notes: remarks on rows.
    """

    where: tuple[str, ...]
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    labels: np.ndarray
    cells: dict[str, tuple[str, ...]]
    used: tuple[tuple[str, str], ...]
    ignored: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


def read(file: CsvFile, meaning: Meaning, found: Callable[[Sequence[str]], int]) -> OwnTable:
    """Reads a table.

    Arguments:
      file: the table as text.
      meaning: what the user told about it.
      found: counts the images that exist of some ids; of several columns that may name the
        images, the one with most counts.

    Raises:
      UserError: no column names the images or is of a class, or a cell is wrong.
    """
    roles = _roles(file, meaning, found)
    names = meaning.columns.get(LABELS)
    taken = {*roles.values(), *(_column(file, name, "--ignore") for name in meaning.ignored)}
    labelled = _column(file, names, LABELS) if names else _names_column(file, meaning, taken)
    if labelled is None:
        classes, labels, how, ignored = _by_column(file, meaning, taken)
    else:
        classes, labels, how, ignored = _by_names(file, meaning, labelled, taken)
    used = {column: role for role, column in roles.items()} | how
    chosen = {column: file.columns[column] for column in used}
    ids = [row[roles["image"]] for row in file.rows]
    keep, labels, notes = _once(file, ids, labels, roles, labelled is not None)
    return OwnTable(
        where=tuple(file.where(i) for i in keep),
        ids=tuple(ids[i] for i in keep),
        classes=classes,
        labels=labels,
        cells={
            role: tuple(file.rows[i][column] for i in keep) for role, column in roles.items()
        },
        used=tuple((chosen[column], used[column]) for column in sorted(used)),
        ignored=tuple((file.columns[column], why) for column, why in sorted(ignored.items())),
        notes=notes,
    )


def _column(file: CsvFile, name: str, option: str) -> int:
    """Finds a column that the user named."""
    keys = [fold(column) for column in file.columns]
    if name in file.columns:
        return file.columns.index(name)
    if keys.count(fold(name)) != 1:
        raise UserError(
            f"{file.head}: no column {name!r} ({option}).{nearest_or_known(name, file.columns)}"
        )
    return keys.index(fold(name))


def _roles(file: CsvFile, meaning: Meaning, found) -> dict[str, int]:
    """Finds the column of each role: as the user told, or by its name."""
    roles = {
        role: _column(file, column, role)
        for role, column in meaning.columns.items() if role in ROLES
    }
    ignored = {_column(file, name, "--ignore") for name in meaning.ignored}
    asked = {_column(file, name, "--classes") for name in meaning.classes.values()
             if fold(name) in map(fold, file.columns)}
    free = [
        "" if i in {*roles.values(), *ignored, *asked} else column_key(name)
        for i, name in enumerate(file.columns)
    ]
    for role, entry in ROLES.items():
        there = [free.index(key) for key in label_tables.COLUMNS[entry] if key in free]
        if role in roles or not there:
            continue
        if role == "image" and len(there) > 1:
            counts = [found([row[column] for row in file.rows]) for column in there]
            there = [there[counts.index(max(counts))]]
        name = column_key(file.columns[there[0]])
        if free.count(name) > 1:
            raise UserError(
                f"{file.head}: several columns {file.columns[there[0]]!r}; name the one that is "
                f"the {role} by --columns {role}=COLUMN or remove the others"
            )
        roles[role] = there[0]
    if "image" not in roles:
        raise UserError(
            f"{file.head}: which column names the images? Give it by --columns image=COLUMN; there "
            f"are {', '.join(file.columns)}."
        )
    empty = [i for i, row in enumerate(file.rows) if not row[roles["image"]]]
    if empty:
        raise UserError(
            f"{file.where(empty[0])}: no image in column {file.columns[roles['image']]}; fill it "
            "in, or remove the row"
        )
    return roles


def _names_column(file: CsvFile, meaning: Meaning, taken: set[int]) -> int | None:
    """Finds a column of the names of classes; None if the classes are columns."""
    asked = set(map(fold, meaning.classes.values()))
    if asked and asked <= set(map(fold, file.columns)):
        return None
    keys = ["" if i in taken else column_key(name) for i, name in enumerate(file.columns)]
    named = [keys.index(key) for key in _LABEL_COLUMNS if key in keys]
    # A column of 1 and 0 is a class of its own.
    named = [i for i in named if _wrong_cell(file, i, meaning) is not None]
    if not named:
        return None
    others = [
        i for i, key in enumerate(keys)
        if i not in (*named, *taken) and not _INDEX.fullmatch(key) and _reads_as_labels(
            file, i, meaning)
    ]
    if others and keys[named[0]] != _LABEL_COLUMNS[0]:
        one, other = file.columns[named[0]], some(file.columns[i] for i in others)
        raise UserError(
            f"{file.head}: are the labels in column {one}, or in {other}? Say --columns "
            f"labels={one!r} or --ignore {one!r}."
        )
    return named[0]


def _wrong_cell(file: CsvFile, column: int, meaning: Meaning) -> int | None:
    """Finds the first row whose cell is no label."""
    wrong: dict[str, bool] = {}
    for i, row in enumerate(file.rows):
        text = row[column]
        if text not in wrong:
            try:
                meaning.label_of(text)
                wrong[text] = False
            except ValueError:
                wrong[text] = True
        if wrong[text]:
            return i
    return None


def _reads_as_labels(file: CsvFile, column: int, meaning: Meaning) -> bool:
    filled = any(row[column] for row in file.rows)
    return filled and _wrong_cell(file, column, meaning) is None


def _by_column(file: CsvFile, meaning: Meaning, taken: set[int]):
    """Reads one class per column: names, labels, columns used, columns ignored."""
    prefixed = any(label_tables.LABEL_PREFIX.match(name) for name in file.columns)
    asked = {_column(file, column, "--classes"): name for name, column in meaning.classes.items()}
    found: dict[int, str] = {}
    ignored = {_column(file, name, "--ignore"): "--ignore" for name in meaning.ignored}
    for i, name in enumerate(file.columns):
        if i in asked:
            found[i] = asked[i]
            continue
        if i in taken:
            continue
        why = _why_no_class(file, i, meaning, bool(asked), prefixed)
        if why:
            ignored[i] = why
        else:
            found[i] = label_tables.LABEL_PREFIX.sub("", name, count=1)
    if not found:
        reasons = "; ".join(f"{file.columns[i]}: {why}" for i, why in ignored.items())
        raise UserError(
            f"{file.head}: no column holds labels ({reasons or 'there is no other column'}). Name "
            "them with --classes, a column of the names of classes with --columns labels=COLUMN, "
            "or the meaning of cells under `values` in a YAML file."
        )
    doubled = [n for n in found.values() if list(map(fold, found.values())).count(fold(n)) > 1]
    if doubled:
        raise UserError(
            f"{file.head}: several columns of the class {doubled[0]}; --ignore all but one"
        )
    labels = [file.parse(i, meaning.label_of, np.int8) for i in found]
    how = {
        i: "class" if name == file.columns[i] else f"class {name}" for i, name in found.items()
    }
    return tuple(found.values()), np.stack(labels, 1), how, ignored


def _why_no_class(
    file: CsvFile, column: int, meaning: Meaning, asked: bool, prefixed: bool
) -> str:
    """Says why a column is no class; "" if it is one."""
    name = file.columns[column]
    if asked:
        return "not among --classes"
    if prefixed and not label_tables.LABEL_PREFIX.match(name):
        return "classes are the columns label_..."
    if _INDEX.fullmatch(column_key(name)) or _SCORES.match(name):
        return "a number of the row" if not _SCORES.match(name) else "scores, no labels"
    filled = [row[column] for row in file.rows if row[column]]
    if not filled:
        return "empty"
    wrong = _wrong_cell(file, column, meaning)
    if wrong is None:
        return ""
    text, where = file.rows[wrong][column], file.where(wrong)
    if 2 * sum(map(_is_label(meaning), filled)) > len(filled) or prefixed:
        raise UserError(
            f"{where}: {text!r} in column {name} is no label, though most of its cells are; "
            f"correct it, or leave the column out by --ignore {name!r}"
        )
    return f"{text[:30]!r} in line {file.lines[wrong]} is no label"


def _is_label(meaning: Meaning) -> Callable[[str], bool]:
    def test(text: str) -> bool:
        try:
            meaning.label_of(text)
        except ValueError:
            return False
        return True

    return test


def _by_names(file: CsvFile, meaning: Meaning, column: int, taken: set[int]):
    """Reads a column of the names of classes: names, labels, columns used, columns ignored."""
    separator = _separator(file, column, meaning.separator)
    cells = [names_in(row[column], separator) for row in file.rows]
    names = sorted({name for cell in cells for name in cell or ()}, key=str.casefold)
    filled = len(file.rows)
    if len(names) > _MOST_NAMES or (filled >= 20 and 2 * len(names) > filled):
        raise UserError(
            f"{file.head}: column {file.columns[column]} holds {len(names)} different texts in "
            f"{filled} rows, which are no classes: {some(names)}; name the columns of labels with "
            "--classes or a --separator"
        )
    chosen = chosen_classes(names, meaning, f"column {file.columns[column]} of {file.path}")
    labels = labels_of(cells, chosen, meaning.blank)
    what = f"names of classes{f', separated by {separator!r}' if separator else ''}"
    silent = [name for name in names if no_finding(name) and name not in chosen.values()]
    if silent:
        what += f"; {', '.join(silent)}: no finding"
    ignored = {_column(file, name, "--ignore"): "--ignore" for name in meaning.ignored}
    why = f"the labels are in {file.columns[column]}"
    ignored |= {
        i: why for i, name in enumerate(file.columns)
        if i not in taken and i != column and name
    }
    return tuple(chosen), labels, {column: what}, ignored


def chosen_classes(names: Sequence[str], meaning: Meaning, where: str) -> dict[str, str]:
    """Maps each class to its name in the data: those asked for, or all that are findings.

    Raises:
      UserError: a class that was asked for is not there, or there is none.
    """
    if meaning.classes:
        there = {fold(name): name for name in names}
        for name in meaning.classes.values():
            if fold(name) not in there:
                raise UserError(
                    f"--classes {name!r}: {where} has no such class.{nearest_or_known(name, names)}"
                )
        return {name: there[fold(source)] for name, source in meaning.classes.items()}
    found = {name: name for name in names if not no_finding(name)}
    if not found:
        raise UserError(f"{where} names no finding, only {some(names) or 'nothing'}.")
    return found


def labels_of(
    cells: Sequence[Sequence[str] | None], chosen: dict[str, str], blank: int
) -> np.ndarray:
    """Makes labels, int8 `[images, classes]`, of the names of each image.

    Arguments:
      cells: names of what an image shows, None if its cell is empty.
      chosen: class -> its name in the data.
      blank: label of all classes where the cell is empty.
    """
    labels = np.full((len(cells), len(chosen)), NEGATIVE, np.int8)
    places: dict[str, list[int]] = {}
    for i, name in enumerate(chosen.values()):
        places.setdefault(fold(name), []).append(i)
    for row, cell in enumerate(cells):
        if cell is None:
            labels[row] = blank
        for name in cell or ():
            labels[row, places.get(fold(name), [])] = POSITIVE
    return labels


def names_in(text: str, separator: str) -> list[str] | None:
    """Splits the names in a cell, such as `A|B` or `['A', 'B']`; None if it is empty."""
    inner = text.strip()
    listed = inner.startswith("[") and inner.endswith("]")
    if listed:
        inner, separator = inner[1:-1], separator or ","
    parts = inner.split(separator) if separator else [inner]
    names = [part.strip().strip("'\"").strip() if listed else part.strip() for part in parts]
    names = [name for name in names if name and name.casefold() not in ("nan", "na", "n/a")]
    return names or (["none"] if listed else None)


def _separator(file: CsvFile, column: int, given: str) -> str:
    """Finds what separates the names; "" if nothing does."""
    if given:
        return "" if given == "none" else given
    cells = [row[column] for row in file.rows]
    plain = [cell for cell in cells if not cell.startswith("[")]
    for mark in _SEPARATORS[:2]:
        if any(mark in cell for cell in plain):
            return mark
    comma = next((cell for cell in plain if _SEPARATORS[2] in cell), None)
    if comma is not None:
        raise UserError(
            f"{file.path}: does the comma of {comma!r} in column {file.columns[column]} separate "
            "two classes? Say --separator , or --separator none."
        )
    return ""


def _once(file: CsvFile, ids, labels: np.ndarray, roles, merge: bool):
    """Keeps one row per image: rows to keep, their labels and remarks.

    Arguments:
      merge: further rows of an image name further findings; else they must repeat the first.
    """
    first: dict[str, int] = {}
    repeated = []
    for i, name in enumerate(ids):
        j = first.setdefault(name, i)
        if i == j:
            continue
        repeated.append(name)
        same = all(file.rows[i][column] == file.rows[j][column] for column in roles.values())
        if not same or not (merge or np.array_equal(labels[i], labels[j])):
            raise UserError(
                f"{file.where(i)}: a second row for {name} contradicts the first, line "
                f"{file.lines[j]}; remove one"
            )
        labels[j] = np.maximum(labels[i], labels[j])
    keep = list(first.values())
    what = "have several rows, whose findings are put together" if merge else "are repeated"
    names = list(dict.fromkeys(repeated))
    notes = (f"{len(names)} images {what}: {some(names)}",) if names else ()
    assert not set(np.unique(labels)) - {POSITIVE, NEGATIVE, UNKNOWN}
    return keep, labels[keep], notes
