"""Reads label tables: a row per image, a column per class, or ChestX-ray14's Finding Labels."""

import dataclasses
import itertools
import math
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from jaxcxr.data.table_files import read_table
from jaxcxr.data.text_files import CsvFile, column_key, fold
from jaxcxr.data.vocabulary import FINDINGS, NEGATIVE, POSITIVE, UNKNOWN, union_name
from jaxcxr.errors import UserError

# Names of the column of image ids as `text_files.column_key` leaves them; the first counts.
IMAGE_COLUMNS = (
    "imageid", "imageindex", "image", "filename", "imagename", "imagefilename", "imagefile",
    "imagepath", "filepath", "path", "file", "img", "imgpath", "imgname", "dicomid", "dicom",
    "dicompath", "dicomfile", "sopinstanceuid", "sopuid", "id",
)  # fmt: skip
# Column of a label table -> its names as `text_files.column_key` leaves them; the first counts.
COLUMNS = {
    "image_id": IMAGE_COLUMNS,
    "patient_id": (
        "patientid", "patient", "subjectid", "subject", "patientnumber", "patientno", "pid", "mrn",
    ),
    "study_id": (
        "studyid", "study", "studyinstanceuid", "studyuid", "accessionnumber", "accession",
    ),
    "split": ("split", "subset", "fold", "partition"),
    "source": ("source", "dataset", "hospital", "site"),
    "view": ("view", "viewposition", "projection", "patientview"),
    "sex": ("sex", "gender", "patientsex", "patientgender"),
    "age": ("age", "patientage", "ageyears", "ageinyears", "ageatstudy"),
    "sha256": ("sha256",),
    "phash": ("phash",),
}
# Names of findings in some releases of ChestX-ray14 -> those of `FINDINGS`.
ALIASES = {"Infiltrate": "Infiltration", "Pleural Thickening": "Pleural_Thickening"}
LABEL_PREFIX = re.compile(r"label[_ ]", re.IGNORECASE)
_SCORE_PREFIX = re.compile(r"(?:prob|score)[_ ]", re.IGNORECASE)

_VALUES = {1.0: POSITIVE, 0.0: NEGATIVE, -1.0: UNKNOWN}
_BLANK = ("", "nan", "na", "n/a", "#n/a", "<na>", "null")
_UNCERTAIN = ("uncertain", "u", "?")
_WORDS = (
    dict.fromkeys(("true", "yes", "y", "positive", "pos", "present"), POSITIVE)
    | dict.fromkeys(("false", "no", "n", "negative", "neg", "absent"), NEGATIVE)
    | {"unknown": UNKNOWN}
)
_NO_FINDING = "No Finding"
_AGE = re.compile(
    r"(?:(?:early|mid|late)\s+)?0*(\d{1,4})(?:[.,]\d*)?\s*([YMWD+S]?)", re.ASCII | re.IGNORECASE
)
_UNITS_PER_YEAR = {"M": 12, "W": 52, "D": 365}
_OLDEST = 120


@dataclasses.dataclass(frozen=True)
class LabelTable:
    """Labels or scores of images by class.

    Attributes:
      file: the table as text, which knows where each row stands.
      ids: image of each row.
      classes: names, as the file has them without a prefix, to the indices of their columns.
      finding_labels: the one column Finding Labels holds the labels of all classes.
    """

    file: CsvFile
    ids: tuple[str, ...]
    classes: dict[str, int]
    finding_labels: bool = False

    def labels(self, classes: Sequence[str]) -> np.ndarray:
        """Returns the labels of some classes, int8 `[rows, classes]` in {1, 0, -1 unknown}.

        Raises:
          UserError: a cell is no label.
        """
        if self.finding_labels:
            chosen = [FINDINGS.index(name) for name in classes]
            return self.file.parse(self.classes[FINDINGS[0]], findings_of, np.int8)[:, chosen]
        return self._values(classes, label_of, np.int8)

    def scores(self, classes: Sequence[str]) -> np.ndarray:
        """Returns the scores of some classes, float64 `[rows, classes]`.

        Raises:
          UserError: a cell is no finite number.
        """
        return self._values(classes, score_of, np.float64)

    def _values(self, classes: Sequence[str], parse: Callable, dtype) -> np.ndarray:
        values = [self.file.parse(self.classes[name], parse, dtype) for name in classes]
        return np.array(values, dtype).reshape(len(values), len(self.ids)).T

    def readable_classes(self, parse: Callable) -> list[str]:
        """Lists the classes: columns that `parse` reads (`label_of`, `score_of`), so no dates.

        The name of a finding, or a prefix such as `label_`, makes a class whatever it holds.
        """
        findings = match_classes(self.classes, FINDINGS)

        def read(column: int) -> bool:
            try:
                self.file.parse(column, parse, np.float64)
            except UserError:
                return False
            return True

        return [
            name for name, column in self.classes.items()
            if name in findings or self.file.columns[column] != name or read(column)
        ]

    def patients(self) -> tuple[str, ...] | None:
        """Returns the patient of each row; None if the file has no such column.

        Raises:
          UserError: a cell is empty.
        """
        column = self.file.column(COLUMNS["patient_id"])
        if column is None:
            return None
        patients = tuple(row[column] for row in self.file.rows)
        if "" in patients:
            raise UserError(
                f"{self.file.where(patients.index(''))}: no patient in column "
                f"{self.file.columns[column]}; fill it in, or remove the column to take each image "
                "for a patient"
            )
        return patients


def read(path: str | pathlib.Path, repeated: bool = False) -> LabelTable:
    """Reads labels as `Data_Entry_2017*.csv` of ChestX-ray14, or one column per class.

    The second form has an image column (such as image_id, Image Index, image, filename, id) and may
    have others of `COLUMNS`. If any column is called `label_CLASS`, only these are classes; else
    all others except `prob_CLASS` and `score_CLASS` are.

    Arguments:
      path: the file, see `table_files.read_table`.
      repeated: an image may have several rows.

    Raises:
      UserError: the file is in neither form. The cells are checked when `labels` reads them.
    """
    file = read_table(path, IMAGE_COLUMNS)
    ids = image_ids(file, repeated)
    findings = file.column(["findinglabels"])
    if findings is not None:
        return LabelTable(file, ids, dict.fromkeys(FINDINGS, findings), finding_labels=True)
    return LabelTable(file, ids, _class_columns(file, LABEL_PREFIX, other=_SCORE_PREFIX))


def read_scores(path: str | pathlib.Path) -> LabelTable:
    """Reads scores, one column per class, beside an image column as of labels.

    If any column is called `prob_CLASS` or `score_CLASS`, only these are classes; else all others
    except `label_CLASS` are. Any finite number is a score; larger is more positive. Rows without
    any score, as `jaxcxr predict` writes for files that it could not read, are left out.

    Raises:
      UserError: as `read`; no row has a score.
    """
    file = read_table(path, IMAGE_COLUMNS)
    classes = _class_columns(file, _SCORE_PREFIX, other=LABEL_PREFIX)
    kept = [i for i, row in enumerate(file.rows) if any(row[c] for c in classes.values())]
    if classes and not kept:
        raise UserError(f"{file.path}: no row has a score; the columns of the classes are empty")
    rows, lines = [file.rows[i] for i in kept], [file.lines[i] for i in kept]
    file = dataclasses.replace(file, rows=rows, lines=lines)
    return LabelTable(file, image_ids(file), classes)


def _class_columns(file: CsvFile, prefix: re.Pattern, other: re.Pattern) -> dict[str, int]:
    """Classes and their columns: those that begin with the prefix, or else all of no known name."""
    names = {i: name for i, name in enumerate(file.columns) if prefix.match(name)}
    if not names:
        known = {"", *itertools.chain(*COLUMNS.values())}
        names = {
            i: name for i, name in enumerate(file.columns)
            if column_key(name) not in known and not other.match(name)
        }
    seen: dict[str, int] = {}
    for i, name in names.items():
        names[i] = prefix.sub("", name, count=1)
        first = seen.setdefault(fold(names[i]), i)
        if first != i:
            raise UserError(
                f"{file.head}: the columns {file.columns[first]} and {file.columns[i]} are both "
                f"of the class {names[i]}; remove one"
            )
    return {name: i for i, name in names.items()}


def match_classes(wanted: Iterable[str], available: Iterable[str]) -> dict[str, str]:
    """Maps each wanted class that is available to its name there.

    Case, spaces and underscores of the names do not matter, and Pleural Effusion is Effusion, see
    `vocabulary.SAME`.
    """
    available = list(available)
    by_name = {fold(name): name for name in available}
    by_finding = {union_name(name, parts=False): name for name in available}
    found = {name: by_name.get(fold(name)) for name in wanted}
    taken = set(found.values())
    for name, there in found.items():
        same = by_finding.get(union_name(name, parts=False) or "")
        if there is None and same not in taken:
            found[name] = same
    return {name: there for name, there in found.items() if there}


def label_of(text: str, blank: int = UNKNOWN, uncertain: int = UNKNOWN) -> int:
    """Parses the cell of a label: 1, 0 or, for unknown, -1.

    Arguments:
      text: the cell.
      blank: label of an empty cell, or one that says n/a or nan.
      uncertain: label of -1, "uncertain", "u" and "?".

    Raises:
      ValueError: it is no label.
    """
    word = text.casefold()
    if word in _BLANK:
        return blank
    if word in _UNCERTAIN:
        return uncertain
    if word in _WORDS:
        return _WORDS[word]
    try:
        value = _VALUES[float(word.replace(",", ".", 1))]
        return uncertain if value == UNKNOWN else value
    except (KeyError, ValueError):
        raise ValueError(
            "is no label; allowed: 1, 0, yes, no, true, false, positive, negative, present, absent "
            "and, for unknown, -1, unknown, uncertain, n/a, nan or nothing"
        ) from None


def score_of(text: str) -> float:
    """Parses the cell of a score.

    Raises:
      ValueError: it is no finite number.
    """
    try:
        score = float(text.replace(",", ".", 1))
    except ValueError:
        raise ValueError("is no number; every image needs a score of every class") from None
    if not math.isfinite(score):
        raise ValueError("is not finite; scores must be finite numbers")
    return score


def findings_of(text: str) -> tuple[int, ...]:
    """Parses a cell of ChestX-ray14 such as `Mass|Hernia`: a label for each of `FINDINGS`.

    Raises:
      ValueError: a name is none of its findings, or stands beside "No Finding".
    """
    names = {ALIASES.get(name, name) for name in map(str.strip, text.split("|"))}
    if names - {*FINDINGS, _NO_FINDING} or (_NO_FINDING in names and len(names) > 1):
        raise ValueError("is not made of ChestX-ray14's findings, joined by |")
    return tuple(POSITIVE if finding in names else NEGATIVE for finding in FINDINGS)


def years(age: str) -> int:
    """Parses an age such as `57`, `57.0`, `060Y`, `013M`, `006W`, `001D`, `50+` or `early 50s`.

    Returns:
      Whole years; -1 for all else, ages over 120 included, of which ChestX-ray14 has some (411Y).
    """
    match = _AGE.fullmatch(age.strip())
    whole = int(match[1]) // _UNITS_PER_YEAR.get(match[2].upper(), 1) if match else -1
    return whole if whole <= _OLDEST else -1


def image_ids(file: CsvFile, repeated: bool = False) -> tuple[str, ...]:
    """Reads the image of each row, as text: `0000012` stays so.

    Arguments:
      repeated: an image may have several rows.

    Raises:
      UserError: there is no such column, a cell is empty, or an id stands twice.
    """
    column = file.column(IMAGE_COLUMNS)
    if column is None:
        raise UserError(
            f"{file.path}: no column of image ids among {', '.join(file.columns)}; call it "
            "image_id, Image Index, image, filename or id"
        )
    first: dict[str, int] = {}
    for i, row in enumerate(file.rows):
        if not row[column]:
            raise UserError(f"{file.where(i)}: no image id in column {file.columns[column]}")
        if first.setdefault(row[column], i) != i and not repeated:
            raise UserError(
                f"{file.where(i)}: a second row for {row[column]}, the first is line "
                f"{file.lines[first[row[column]]]}; remove one"
            )
    return tuple(row[column] for row in file.rows)
