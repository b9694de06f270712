"""Reads the published list files of COVIDx, versions 1 to 9, without the images.

Each line is `patient file label source`. Known forms: versions 1 and 2, and the RSNA's test images
up to 7A, have no source; patients of 7A to 8B may be called `COVID 216`, with a blank, so lines are
read from the right; 9A and 9B call some images' source `rnsa`. The lists A and those before 6 have
the labels normal, pneumonia and COVID-19, the others positive and negative.

Wang, Lin and Wong, "COVID-Net", Scientific Reports 2020.
"""

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Iterator

from jaxcxr.data.label_tables import FINDINGS, NEGATIVE, POSITIVE, UNKNOWN
from jaxcxr.data.text_files import read_text
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import builder, covid19_radiography

UNKNOWN_SOURCE = "covidx"  # the source of rows whose list does not tell it

SOURCES = {  # COVIDx's word -> name of the source here
    "cohen": "covid_chestxray",
    "fig1": "figure1",
    "actmed": "actualmed",
    "sirm": covid19_radiography.NAME,
    "rsna": "rsna_pneumonia",
    "rnsa": "rsna_pneumonia",
    "ricord": "ricord",
    "stonybrook": "stonybrook",
    "bimcv": "bimcv",
}
_A = {
    "normal": dict.fromkeys(FINDINGS, NEGATIVE),
    "pneumonia": {"Pneumonia": POSITIVE, "COVID-19": NEGATIVE},
    "COVID-19": {"COVID-19": POSITIVE},
}
_B = {"positive": {"COVID-19": POSITIVE}, "negative": {"COVID-19": NEGATIVE}}
_SEVERITY = ("level1", "level2")
_ENDING = re.compile(r"\.(png|jpe?g|dcm)$", re.IGNORECASE)
_IMAGE_NAME = re.compile(r"\S+\.(png|jpe?g)", re.IGNORECASE)
_IDS = {  # the form of a patient's id tells the source, where the line does not
    "rsna": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "cohen": re.compile(r"\d{1,3}[a-z]?", re.ASCII),
    "fig1": re.compile(r"COVID-\d{5}[a-z]?", re.ASCII),
    "actmed": re.compile(r"ANON\d+", re.ASCII),
    "sirm": re.compile(r"COVID-19\(\d+\)|COVID[ _]\d+", re.ASCII),
}
_FIGURE1_ID = re.compile(r"(COVID-\d+)[a-z]")
# Stony Brook's names hold the series' view, BIMCV's the projection.
_VIEW = re.compile(r"\.0+-(AP|PA|LATERAL)-\d|_vp-(ap|pa)_")
_ABDOMEN = re.compile(r"^A\d+-.*-NA-[A-Z_]*ABD")
_EXPECTED = "expected `patient file label source`"


def read(
    train: pathlib.Path,
    test: pathlib.Path,
    validation: pathlib.Path | None = None,
    val_fraction: float = 0.0,
) -> builder.ImageListing:
    """Reads the lists of one version.

    Arguments:
      train, test: the list files.
      validation: the list file of the versions that have one.
      val_fraction: share of the training list's patients that go to validation, by a hash of the
        patient id, if there is no validation list.

    Returns:
      Rows with the source of the image and that source's patient ids; the source is "covidx" if
      neither the line nor the form of the patient id reveals it. COVID-19 and negative leave the
      other findings unknown, pneumonia excludes COVID-19, normal excludes everything. Repetitions
      count once, and images with two labels in a list are left out. An image or patient in two
      lists stays in both, as published; this, and films that are not frontal chest radiographs,
      are noted.

    Raises:
      UserError: a list is absent or malformed, mixes A and B labels, or belongs to COVIDx-S, which
        grades severity.
    """
    lists = {"train": train, "test": test}
    if validation is not None:
        lists = {"train": train, "validation": validation, "test": test}
    rows: list[builder.ImageRecord] = []
    notes: list[str] = []
    kinds: dict[str, pathlib.Path] = {}
    for split, path in lists.items():
        part, kind, remarks = _read_list(path, split)
        rows += part
        notes += remarks
        kinds.setdefault(kind, path)
    if len(kinds) > 1:
        raise UserError(
            f"{kinds['A']} has the labels {', '.join(_A)}, but {kinds['B']} {', '.join(_B)}; "
            "give lists of one version"
        )
    return builder.ImageListing(carved(rows, val_fraction), (*notes, *_remarks(rows)))


def carved(
    rows: Iterable[builder.ImageRecord], val_fraction: float
) -> tuple[builder.ImageRecord, ...]:
    """Moves patients of the training list to validation, unless there is a validation list."""
    rows = tuple(rows)
    if any(row.split == "validation" for row in rows):
        return rows
    return tuple(
        dataclasses.replace(row, split=builder.split_of(row.patient_id, val_fraction))
        if row.split == "train"
        else row
        for row in rows
    )


def _read_list(path: pathlib.Path, split: str) -> tuple[list[builder.ImageRecord], str, list[str]]:
    """Reads the rows of one list, the kind of its labels ("A" or "B"), and remarks."""
    rows: dict[tuple[str, str], builder.ImageRecord] = {}
    repeated, contradictory = [], {}
    allowed: dict = {}
    for where, line in _lines(path):
        patient, name, label, source = _fields(line, where)
        allowed = allowed or next((kind for kind in (_A, _B) if label in kind), {})
        if label not in allowed:
            raise UserError(f"{where}: {label!r} is not a label of this list: {_named(allowed)}")
        row = _row(patient, name, allowed[label], source, split)
        first = rows.setdefault((row.source, name), row)
        if first is not row:
            repeated.append(name)
            if first.labels != row.labels:
                contradictory[row.source, name] = name
    if not rows:
        raise UserError(f"{path}: the list is empty; {_EXPECTED}")
    notes = [
        *builder.note(repeated, f"lines of {path.name} repeat an image, which counts once"),
        *builder.note(
            list(contradictory.values()), f"images have two labels in {path.name} and are left out"
        ),
    ]
    kept = [row for key, row in rows.items() if key not in contradictory]
    return kept, "A" if allowed is _A else "B", notes


def _lines(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Yields lines that are not blank as (place for messages, text)."""
    if "sev" in path.name.lower():
        raise UserError(_severity(f"{path}"))
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield f"{path}:{number}", line.strip()


def _fields(line: str, where: str) -> tuple[str, str, str, str]:
    """Splits a line into patient, file, label and source ("" if it ends with the label)."""
    words = line.split()
    source = words.pop() if words[-1] in SOURCES else ""
    if {*words[-2:]} & {*_SEVERITY}:
        raise UserError(_severity(where))
    if len(words) > 1 and words[-1] not in {*_A, *_B} and words[-2] in {*_A, *_B}:
        raise UserError(f"{where}: the source {words[-1]!r} is not one of {', '.join(SOURCES)}")
    if len(words) < 3 or not _IMAGE_NAME.fullmatch(words[-2]) or not "".join(words).isprintable():
        raise UserError(f"{where}: {line[:100]!r} is not a line of COVIDx; {_EXPECTED}")
    return " ".join(words[:-2]), words[-2], words[-1], source


def _row(patient: str, name: str, known: dict, word: str, split: str) -> builder.ImageRecord:
    word = word or next((word for word, form in _IDS.items() if form.fullmatch(patient)), "")
    source = SOURCES.get(word, UNKNOWN_SOURCE)
    if source == covid19_radiography.NAME:
        patient = covid19_radiography.image_key(name) or patient
    if source == "figure1" and (match := _FIGURE1_ID.fullmatch(patient)):
        patient = match[1]
    view = next(filter(None, match.groups())).upper() if (match := _VIEW.search(name)) else ""
    return builder.ImageRecord(
        image_id=name,
        patient_id=f"{source}/{patient}",
        source=source,
        split=split,
        labels=tuple(known.get(finding, UNKNOWN) for finding in FINDINGS),
        view={"LATERAL": "L"}.get(view, view),
    )


def image_of(row: builder.ImageRecord) -> tuple[str, str]:
    """Returns the (source, name) that an image has both in the lists and in its source's table."""
    if row.source == covid19_radiography.NAME:
        return row.source, row.patient_id
    if row.source in ("figure1", "rsna_pneumonia"):  # their tables name no endings
        return row.source, _ENDING.sub("", row.image_id)
    return row.source, row.image_id


def is_abdomen(row: builder.ImageRecord) -> bool:
    """Tells whether a row is one of Stony Brook's films of the abdomen, which the lists contain."""
    return row.source == "stonybrook" and bool(_ABDOMEN.search(row.image_id))


def _remarks(rows: list[builder.ImageRecord]) -> Iterator[str]:
    images = [(row.split, f"{row.source}/{row.image_id}") for row in rows]
    yield from builder.note(_in_two(images), "images are in two lists and stay in both")
    patients = [(row.split, row.patient_id) for row in rows]
    yield from builder.note(_in_two(patients), "patients are in two lists and stay in both")
    unknown = [row.image_id for row in rows if row.source == UNKNOWN_SOURCE]
    yield from builder.note(unknown, "images have no source in the lists, nor a known form of id")
    lateral = [row.image_id for row in rows if row.view == "L"]
    yield from builder.note(lateral, "images are lateral views by their names")
    abdomen = [row.image_id for row in rows if is_abdomen(row)]
    yield from builder.note(abdomen, "images are of the abdomen by their names")


def _in_two(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Lists the names that occur in two splits, sorted."""
    splits: dict[str, set[str]] = {}
    for split, name in pairs:
        splits.setdefault(name, set()).add(split)
    return sorted(name for name, found in splits.items() if len(found) > 1)


def _severity(where: str) -> str:
    return (
        f"{where}: this list is of COVIDx-S, which grades how severe COVID-19 is (level1, level2) "
        "and says of no finding whether it is there; give train_COVIDx9A.txt or the like"
    )


def _named(allowed: dict) -> str:
    return f"allowed: {', '.join(allowed or {**_A, **_B})}"
