"""Reads the csv form of covid-chestxray-dataset, which Figure 1 and Actualmed use too.

Its `finding` is the "type of pneumonia" (SCHEMA.md of covid-chestxray-dataset): the diagnosis of
the patient, not a reading of the film. `labels_of` derives the labels.
"""

import collections
import pathlib
import re
from collections.abc import Sequence

from jaxcxr.data.label_tables import FINDINGS, NEGATIVE, POSITIVE, UNKNOWN, years
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import builder

FRONTAL = ("PA", "AP", "AP Supine", "AP Erect")
VIEWS = (*FRONTAL, "L", "CT")
RULED_OUT = ("Pneumonia", "COVID-19")

_SPELLINGS = {view.casefold(): view for view in VIEWS} | {
    "aps": "AP Supine", "ap semi erect": "AP Erect", "lateral": "L", "axial": "CT", "coronal": "CT",
}  # fmt: skip
_SILENT = {"", "todo", "unknown"}
_ARDS = "ards"  # a state of many causes, none of them certain and none of our findings
# Flat names of the findings up to the middle of 2020; later ones are paths under Pneumonia.
_CAUSES = {
    "aspergillosis", "aspiration", "bacterial", "chlamydophila", "e.coli", "fungal", "h1n1",
    "herpes", "influenza", "klebsiella", "legionella", "lipoid", "mers-cov", "mrsa", "mycoplasma",
    "mycoplasma bacterial pneumonia", "nocardia", "pneumocystis", "sars", "staphylococcus",
    "streptococcus", "varicella",
}  # fmt: skip
_NO_CAUSE = {"viral", "unknown", "todo", ""}  # levels of a path that leave COVID-19 possible


def labels_of(
    finding: str, ruled_out: Sequence[str] = RULED_OUT
) -> tuple[tuple[int, ...], list[str]]:
    """Derives labels from a finding, flat (`COVID-19, ARDS`) or a path (`Pneumonia/Viral/...`).

    - COVID-19 is present if named, and absent if another cause is: the data set names one cause
      only, and of two it names COVID-19 (pull request 163 there). `Pneumonia` and
      `Pneumonia/Viral` name no cause and leave it unknown.
    - Pneumonia is present for every path under Pneumonia and every flat name of another cause of
      pneumonia. A flat `COVID-19` leaves it unknown, as patients with clear lungs have it too.
    - `No Finding` excludes `ruled_out` and says nothing of other findings.
    - ARDS, `todo`, `Unknown` and an empty cell say nothing.

    Arguments:
      finding: the cell.
      ruled_out: classes that are absent where the finding is `No Finding`.

    Returns:
      One label per class of `labels.FINDINGS`, and the names that the data set does not define.
    """
    if finding.strip().casefold() == "no finding":
        return _labels(dict.fromkeys(ruled_out, NEGATIVE)), []
    found, strange = {}, []
    for name in (part.strip() for part in finding.split(",")):
        levels = [level.strip() for level in name.casefold().split("/")]
        if levels[0] == "pneumonia" or levels[0] in _CAUSES:
            found["Pneumonia"] = POSITIVE
        elif levels[0] not in {"covid-19", "tuberculosis", _ARDS, *_SILENT}:
            strange.append(name)
            continue
        causes = set(levels) - {"pneumonia", _ARDS} - _NO_CAUSE
        if "covid-19" in causes:
            found["COVID-19"] = POSITIVE
        elif causes:
            found.setdefault("COVID-19", NEGATIVE)
    return _labels(found), strange


def sex_of(cells: dict[str, str]) -> str:
    """Returns "M", "F" or "" from the column sex."""
    sex = cells["sex"].upper()
    return sex if sex in ("M", "F") else ""


def required(cells: dict[str, str], column: str, where: str) -> str:
    """Returns the cell of a column that must not be empty; `where` is for the message."""
    if not cells[column]:
        raise UserError(f"{where}: no {column}")
    return cells[column]


def view_of(cells: dict[str, str]) -> str:
    """Returns one of `VIEWS`, "" for an empty cell, or else the cell itself.

    The modality CT implies the view CT; the earliest tables have no such column.
    """
    if cells.get("modality", "").casefold() == "ct":
        return "CT"
    view = " ".join(cells["view"].split())
    return _SPELLINGS.get(view.casefold(), view)


def projection(view: str) -> str:
    """Returns the view as in `builder.ImageRecord`: "PA", "AP", "L" or ""."""
    word = view.partition(" ")[0]
    return word if word in ("PA", "AP", "L") else ""


class Selection:
    """Makes rows of cells, leaves out unusable ones, and counts the reasons.

    Arguments:
      source: name of the source.
      val_fraction, test_fraction: as in `builder.UnsplitConfig`.
      views: of `VIEWS` and "", those to take.
      ruled_out: as in `labels_of`.
    """

    def __init__(
        self,
        source: str,
        val_fraction: float,
        test_fraction: float,
        views: Sequence[str] = (*FRONTAL, ""),
        ruled_out: Sequence[str] = RULED_OUT,
    ):
        self._source, self._views, self._ruled_out = source, views, ruled_out
        self._fractions = val_fraction, test_fraction
        self._rows: dict[str, list[builder.ImageRecord]] = {}
        self._remarks: dict[str, list[str]] = collections.defaultdict(list)

    def add(self, cells: dict[str, str], image_id: str, patient: str) -> None:
        """Adds a row of the table.

        Arguments:
          cells: sex, age, finding and view; modality where there is one.
          image_id: as in `builder.ImageRecord`.
          patient: the patient's id within the source.
        """
        view = view_of(cells)
        if view not in self._views:
            shown = view if view in VIEWS else repr(view)
            self.remark(image_id, f"images are left out for their view, {shown}")
            return
        labels, strange = labels_of(cells["finding"], self._ruled_out)
        for finding in strange:
            self.remark(finding, "findings are not known and count as nothing")
        if set(labels) == {UNKNOWN}:
            self.remark(image_id, "images are left out, as their finding leaves every class open")
            return
        patient_id = f"{self._source}/{patient}"
        row = builder.ImageRecord(
            image_id=image_id,
            patient_id=patient_id,
            source=self._source,
            split=builder.split_of(patient_id, *self._fractions),
            labels=labels,
            view=projection(view),
            sex=sex_of(cells),
            age=years(cells["age"]),
        )
        self._rows.setdefault(image_id, []).append(row)

    def remark(self, name: str, fact: str) -> None:
        """Notes a fact of an image or a name; the remark has the count and the first names."""
        self._remarks[fact].append(name)

    def table(self, path: pathlib.Path) -> builder.ImageListing:
        """Returns the rows of all images with one row, or with several that agree.

        Raises:
          UserError: no row is left.
        """
        rows = []
        for name, same in self._rows.items():
            if len({(row.patient_id, row.labels) for row in same}) > 1:
                self.remark(name, "images are left out, as their rows contradict each other")
                continue
            rows.append(same[0])
            if len(same) > 1:
                self.remark(name, f"images are in several rows of {path.name} and count once")
        notes = [
            text for fact, names in self._remarks.items() for text in builder.note(names, fact)
        ]
        if not rows:
            raise UserError(f"{path}: no image is left to prepare. " + ". ".join(notes))
        return builder.ImageListing(tuple(rows), tuple(notes))


def with_images(table: builder.ImageListing, folders: Sequence[pathlib.Path]) -> builder.Collection:
    """Finds the images by name or, failing that, by the name without its ending.

    Arguments:
      table: the rows.
      folders: looked through in this order.
    """
    by_name = builder.files_by_name(folders)
    listed = {row.image_id for row in table.rows}
    by_stem: dict[str, pathlib.Path] = {}
    for name, path in by_name.items():
        if name not in listed:
            by_stem.setdefault(path.stem, path)
    paths = {
        row: by_name.get(row.image_id) or by_stem.get(_stem(row.image_id)) for row in table.rows
    }
    return builder.Collection.of(paths, table.notes)


def _stem(image_id: str) -> str:
    return re.sub(r"\.[A-Za-z]{3,4}$", "", image_id)


def _labels(known: dict[str, int]) -> tuple[int, ...]:
    return tuple(known.get(finding, UNKNOWN) for finding in FINDINGS)
