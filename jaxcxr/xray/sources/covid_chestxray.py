"""Reads covid-chestxray-dataset, and Figure 1 and Actualmed, which have its csv form.

Cohen, Morrison, Dao, "COVID-19 Image Data Collection", 2020: films and CT slices of COVID-19 and
other pneumonias. The `finding` is the "type of pneumonia" (its SCHEMA.md): the diagnosis of the
patient, not a reading of the film. Known forms of metadata.csv: the first (`Patientid`, no
modality, no folder), that of June 2020, and the last (`RT_PCR_positive`, findings as paths). In
some versions the patient id 62 means two people (issue 36 there), distinguished by age and sex.

Figure 1 and Actualmed: Chung, Wong et al., DarwinAI and University of Waterloo, 2020. Figure 1 has
55 images of physicians, each named as its `patientid`, such as COVID-00003a, whose letter
distinguishes the films of one patient; most rows have no view and count as frontal, which the
images are. Actualmed has 238 images of 215 patients; by its notes, `No finding` means "covid-19
viral infection is excluded", so only COVID-19 is absent, and an empty finding "inconclusive".
"""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Sequence

from jaxcxr.data import vocabulary
from jaxcxr.data.label_tables import FINDINGS, NEGATIVE, POSITIVE, UNKNOWN, years
from jaxcxr.data.text_files import csv_rows
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import builder

NAME, FIGURE1, ACTUALMED = "covid_chestxray", "figure1", "actualmed"
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
_TWO_PEOPLE = "62"
_LETTER = re.compile(r"(?<=\d)[a-z]$", re.IGNORECASE)
_NO_CAUSE = {"viral", "unknown", "todo", ""}  # levels of a path that leave COVID-19 possible


@dataclasses.dataclass(eq=False)
class CovidChestXrayConfig(builder.UnsplitConfig):
    """Options of the prepared covid-chestxray-dataset.

    Attributes:
      views: which images to take, of PA, AP, AP Supine, AP Erect, L and CT (the slices).
    """

    views: tuple[str, ...] = FRONTAL

    def __post_init__(self):
        strange = [view for view in self.views if view not in VIEWS]
        if strange or not self.views:
            raise UserError(
                f"views are {', '.join(map(repr, self.views)) or 'none'}; allowed: some of "
                f"{', '.join(VIEWS)}."
            )
        self.views = tuple(view for view in VIEWS if view in self.views)
        super().__post_init__()


class CovidChestXray(builder.XrayBuilder):
    """Split by a hash of the patient id; CT slices and lateral films only where asked for."""

    name = NAME
    builder_config_class = CovidChestXrayConfig

    description = "covid-chestxray-dataset, split by a hash of the patient id."
    homepage = "https://github.com/ieee8023/covid-chestxray-dataset"
    citation = "Cohen, Morrison, Dao, COVID-19 Image Data Collection, arXiv:2003.11597, 2020."
    raw_content = "metadata.csv and the folder images"

    def collect(self, raw: pathlib.Path) -> builder.Collection:
        """Rows of metadata.csv of the chosen views, with their images."""
        config = self.builder_config
        val, test = config.fractions
        table = read_table(raw, val, test, config.views)
        return with_images(table, [raw / "images", raw])


class Figure1(builder.XrayBuilder):
    """Split by a hash of the patient id, which is the image's name without its last letter."""

    name = FIGURE1
    builder_config_class = builder.UnsplitConfig

    description = "Figure 1 COVID-19 chest X-ray data set, split by a hash of the patient id."
    homepage = "https://github.com/agchung/Figure1-COVID-chestxray-dataset"
    citation = "Figure 1 COVID-19 Chest X-ray Dataset Initiative, DarwinAI and Waterloo, 2020."
    raw_content = CovidChestXray.raw_content

    def collect(self, raw: pathlib.Path) -> builder.Collection:
        """Rows of metadata.csv with their images."""
        table = read_figure1(raw, *self.builder_config.fractions)
        return with_images(table, [raw / "images", raw])


class Actualmed(builder.XrayBuilder):
    """Split by a hash of the patient id."""

    name = ACTUALMED
    builder_config_class = builder.UnsplitConfig

    description = "Actualmed COVID-19 chest X-ray data set, split by a hash of the patient id."
    homepage = "https://github.com/agchung/Actualmed-COVID-chestxray-dataset"
    citation = "Actualmed COVID-19 Chest X-ray Dataset Initiative, DarwinAI and Waterloo, 2020."
    raw_content = CovidChestXray.raw_content

    def collect(self, raw: pathlib.Path) -> builder.Collection:
        """Rows of metadata.csv with their images."""
        table = read_actualmed(raw, *self.builder_config.fractions)
        return with_images(table, [raw / "images", raw])


def read_table(
    raw: pathlib.Path,
    val_fraction: float,
    test_fraction: float,
    views: Sequence[str] = FRONTAL,
) -> builder.ImageListing:
    """Reads metadata.csv of covid-chestxray-dataset.

    Arguments:
      raw: the folder that holds it.
      val_fraction, test_fraction: as in `builder.UnsplitConfig`.
      views: of `VIEWS`; others, and volumes, are left out and noted.

    Raises:
      UserError: the file is absent or malformed.
    """
    path = raw / "metadata.csv"
    selection = _Selection(NAME, val_fraction, test_fraction, views)
    needed = ("patientid", "sex", "age", "finding", "view", "filename")
    for where, cells in csv_rows(path, needed, ragged=True):
        name = required(cells, "filename", where)
        patient = required(cells, "patientid", where)
        if cells.get("folder", "").casefold() == "volumes":
            selection.remark(name, "volumes are left out")
        else:
            selection.add(cells, name, _one_person(patient, cells))
    return selection.table(path)


def read_figure1(
    raw: pathlib.Path, val_fraction: float, test_fraction: float
) -> builder.ImageListing:
    """Reads metadata.csv of Figure 1, as `read_table`; `image_id` has no ending, as it has none."""
    path = raw / "metadata.csv"
    selection = _Selection(FIGURE1, val_fraction, test_fraction)
    needed = ("patientid", "sex", "age", "finding", "view")
    for where, cells in csv_rows(path, needed, ragged=True):
        name = required(cells, "patientid", where)
        selection.add(cells, name, _LETTER.sub("", name))
    return selection.table(path)


def read_actualmed(
    raw: pathlib.Path, val_fraction: float, test_fraction: float
) -> builder.ImageListing:
    """Reads metadata.csv of Actualmed, as `read_table`."""
    path = raw / "metadata.csv"
    selection = _Selection(ACTUALMED, val_fraction, test_fraction, ruled_out=("COVID-19",))
    needed = ("patientid", "sex", "age", "finding", "view", "imagename")
    for where, cells in csv_rows(path, needed, ragged=True):
        name = required(cells, "imagename", where)
        selection.add(cells, name, required(cells, "patientid", where))
    return selection.table(path)


def _one_person(patient: str, cells: dict[str, str]) -> str:
    if patient != _TWO_PEOPLE:
        return patient
    age = years(cells["age"])
    return f"{patient}-{age if age >= 0 else ''}-{vocabulary.sex_of(cells['sex'])}"


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


def required(cells: dict[str, str], column: str, where: str) -> str:
    """Returns the cell of a column that must not be empty; `where` is for the message."""
    if not cells[column]:
        raise UserError(f"{where}: no {column}")
    return cells[column]


def _view_of(cells: dict[str, str]) -> str:
    """Returns one of `VIEWS`, "" for an empty cell, or else the cell itself.

    The modality CT implies the view CT; the earliest tables have no such column.
    """
    if cells.get("modality", "").casefold() == "ct":
        return "CT"
    view = " ".join(cells["view"].split())
    return _SPELLINGS.get(view.casefold(), view)


class _Selection:
    """Makes rows of cells, leaves out unusable ones, and counts the reasons."""

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
        """Adds an image with a row of the table; `patient` is the id within the source."""
        view = _view_of(cells)
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
            view=vocabulary.view_of(view),
            sex=vocabulary.sex_of(cells["sex"]),
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
