"""Reads SIIM-FISABIO-RSNA COVID-19: radiographs graded by their likeness to COVID-19 pneumonia.

Lakhani et al., "The 2021 SIIM-FISABIO-RSNA Machine Learning COVID-19 Challenge", Journal of Digital
Imaging 2022; films of BIMCV-COVID19 and RICORD. Radiologists gave each study one of four grades
(Litmanovich et al., Journal of Thoracic Imaging 2020). They graded the appearance, not a test, so
the labels are:

- Negative for Pneumonia: Pneumonia absent; COVID-19 unknown, as films of patients can be clear.
- Typical Appearance: Pneumonia and COVID-19 present.
- Indeterminate Appearance, Atypical Appearance: Pneumonia present in the challenge's sense of not
  negative (an atypical opacity can have another cause); COVID-19 unknown.

The other findings are unknown. All images of a study have its labels, with or without boxes. Boxes
surround airspace opacities, here of class Pneumonia, in pixels of the DICOM files.

Patients have several studies. Their ids are in the headers of the images and in train_meta.csv, a
table of these headers that is not part of the challenge's own files.
"""

import collections
import dataclasses
import json
import math
import pathlib
import re
import types
from collections.abc import Mapping

from jaxcxr.data.label_tables import FINDINGS, NEGATIVE, POSITIVE, UNKNOWN
from jaxcxr.data.text_files import csv_rows
from jaxcxr.errors import UserError
from jaxcxr.xray.images import dicom
from jaxcxr.xray.sources import builder
from jaxcxr.xray.sources.rsna_pneumonia import PNEUMONIA, described, read_headers

NAME = "siim_covid19"
STUDIES, IMAGES, META = "train_study_level.csv", "train_image_level.csv", "train_meta.csv"

_GRADES = {
    "Negative for Pneumonia": {"Pneumonia": NEGATIVE},
    "Typical Appearance": {"Pneumonia": POSITIVE, "COVID-19": POSITIVE},
    "Indeterminate Appearance": {"Pneumonia": POSITIVE},
    "Atypical Appearance": {"Pneumonia": POSITIVE},
}
_NEGATIVE = "Negative for Pneumonia"
_BOX = ("x", "y", "width", "height")
_NO_BOX = "none 1 0 0 1 1"
_WORDS = 6  # opacity, confidence, left, top, right, bottom
_LARGEST = 1e5  # no film has as many pixels a side
_ROUNDING = 0.01  # pixels; the two columns have five decimals
_ID = re.compile(r"[\w.-]+", re.ASCII)


@dataclasses.dataclass(frozen=True)
class _Film:
    """Holds an image of the image csv, with boxes as in `builder.ImageRecord`."""

    study_id: str
    boxes: tuple[tuple[float, ...], ...]


class SiimCovid19(builder.XrayBuilder):
    """Split by a hash of the patient id."""

    name = NAME
    builder_config_class = builder.UnsplitConfig

    description = "SIIM-FISABIO-RSNA COVID-19 challenge, split by a hash of the patient id."
    homepage = "https://www.kaggle.com/c/siim-covid19-detection"
    citation = "Lakhani et al., J. Digit. Imaging 2022. Data: BIMCV-COVID19, RICORD."
    raw_content = f"{STUDIES}, {IMAGES} and train/<study>/<series>/<image>.dcm"

    def collect(self, raw: pathlib.Path) -> builder.Collection:
        """Returns the rows of the csv files, completed by the headers of their images."""
        # DICOM files alone: the boxes are in their pixels, and a copy may be smaller.
        files = {path.stem: path for path in sorted((raw / "train").glob("*/*/*.dcm"))}
        headers = read_headers(NAME, files)
        val, test = self.builder_config.fractions
        table = read_table(raw, val, test, headers=headers)
        laterals = {name for name, header in headers.items() if header.view == "L"}
        listed = {row.image_id for row in table.rows} | laterals
        unlisted = [name for name in files if name not in listed]
        left_out = builder.note(unlisted, "images have no row and are left out")
        paths = {row: files.get(row.image_id) for row in table.rows}
        return builder.Collection.of(paths, (*table.notes, *left_out))


def read_table(
    raw: pathlib.Path,
    val_fraction: float,
    test_fraction: float,
    headers: Mapping[str, dicom.Header] = types.MappingProxyType({}),
) -> builder.ImageListing:
    """Reads the study csv, the image csv and, where there is one, train_meta.csv.

    Arguments:
      raw: folder with the csv files.
      val_fraction, test_fraction: as in `builder.UnsplitConfig`.
      headers: of the images, by image id, for patient, view, sex and age.

    Returns:
      One row per image that is not lateral. A study counts as a patient if neither header nor
      train_meta.csv names one.

    Raises:
      UserError: a file is absent or malformed, an image has no study, or the columns boxes and
        label contradict each other.
    """
    grades = _grades(raw / STUDIES)
    films = _films(raw / IMAGES, grades, raw / STUDIES)
    patients = _patients(raw / META, films, headers)
    remarks = collections.defaultdict(list)
    rows = []
    for image_id, film in films.items():
        header, grade = headers.get(image_id), grades[film.study_id]
        if header and header.view == "L":
            remarks["images are lateral and left out"].append(image_id)
            continue
        if film.boxes and grade == _NEGATIVE:
            remarks["images have boxes although their study is negative"].append(image_id)
        elif not film.boxes and grade != _NEGATIVE:
            remarks["images have no box although their study is not negative"].append(image_id)
        patient_id = f"{NAME}/{patients.get(film.study_id, film.study_id)}"
        rows.append(
            builder.ImageRecord(
                image_id=image_id,
                patient_id=patient_id,
                source=NAME,
                split=builder.split_of(patient_id, val_fraction, test_fraction),
                labels=tuple(_GRADES[grade].get(finding, UNKNOWN) for finding in FINDINGS),
                boxes=film.boxes,
                **described(header),
            )
        )
    seen = {film.study_id for film in films.values()}
    remarks["studies have no image"] = [study for study in grades if study not in seen]
    remarks[
        "studies count as patients of their own, so that films of one patient can be in several "
        f"splits, as neither DICOM headers nor {META} tell the patients"
    ] = [study for study in grades if study in seen and study not in patients]
    notes = [text for fact, names in remarks.items() for text in builder.note(names, fact)]
    return builder.ImageListing(tuple(rows), tuple(notes))


def _grades(path: pathlib.Path) -> dict[str, str]:
    """Grade by study id."""
    grades: dict[str, str] = {}
    for where, cells in csv_rows(path, ("id", *_GRADES)):
        study_id = _id(cells["id"], "_study", where)
        given = [grade for grade in _GRADES if cells[grade] == "1"]
        if len(given) != 1 or any(cells[grade] not in ("0", "1") for grade in _GRADES):
            values = ",".join(cells[grade] for grade in _GRADES)
            raise UserError(
                f"{where}: the grades are {values!r}; expected 1 for one of "
                f"{', '.join(_GRADES)}, and 0 for the others"
            )
        if study_id in grades:
            raise UserError(f"{where}: a second row for {study_id}; remove one")
        grades[study_id] = given[0]
    return grades


def _films(
    path: pathlib.Path, grades: Mapping[str, str], studies: pathlib.Path
) -> dict[str, _Film]:
    """Study and boxes by image id."""
    films: dict[str, _Film] = {}
    for where, cells in csv_rows(path, ("id", "boxes", "label", "StudyInstanceUID")):
        image_id = _id(cells["id"], "_image", where)
        if image_id in films:
            raise UserError(f"{where}: a second row for {image_id}; remove one")
        if cells["StudyInstanceUID"] not in grades:
            raise UserError(f"{where}: the study {cells['StudyInstanceUID']!r} is not in {studies}")
        films[image_id] = _Film(cells["StudyInstanceUID"], _boxes(cells, where))
    return films


def _id(text: str, ending: str, where: str) -> str:
    name = text.removesuffix(ending)
    if name == text or not _ID.fullmatch(name):
        raise UserError(f"{where}: the id {text!r} is invalid; expected a name with {ending}")
    return name


def _boxes(cells: Mapping[str, str], where: str) -> tuple[tuple[float, ...], ...]:
    """Reads boxes from the column boxes; the column label must repeat them."""
    boxes = _listed_boxes(cells["boxes"], where) if cells["boxes"] else []
    corners = [] if cells["label"] == _NO_BOX else _corners(cells["label"], where)
    same = len(boxes) == len(corners) and all(
        math.isclose(side, repeated, rel_tol=0, abs_tol=_ROUNDING)
        for (x, y, width, height), corner in zip(boxes, corners, strict=True)
        for side, repeated in zip((x, y, x + width, y + height), corner, strict=True)
    )
    if not same:
        raise UserError(
            f"{where}: the {len(boxes)} boxes of the column boxes are not the {len(corners)} of "
            "the column label, which are given by their corners"
        )
    return tuple((PNEUMONIA, *box) for box in boxes)


def _listed_boxes(text: str, where: str) -> list[tuple[float, ...]]:
    """Reads (x, y, width, height) from a list in Python's notation, by JSON, not by evaluation."""
    try:
        entries = json.loads(text.replace("'", '"'))
        boxes = [tuple(entry[name] for name in _BOX) for entry in entries]
    except (ValueError, TypeError, KeyError, RecursionError):
        boxes = []
    if not boxes or not all(map(_is_box, boxes)):
        raise UserError(
            f"{where}: the boxes {text[:80]!r} are none; expected entries such as "
            "{'x': 789.3, 'y': 582.4, 'width': 1026.7, 'height': 1917.3} in a list"
        )
    return boxes


def _is_box(box: tuple) -> bool:
    numbers = all(type(value) in (int, float) and abs(value) < _LARGEST for value in box)
    return numbers and box[2] > 0 and box[3] > 0


def _corners(text: str, where: str) -> list[tuple[float, ...]]:
    """Reads (left, top, right, bottom) of each box of `opacity 1 left top right bottom ...`."""
    words = text.split() or [""]
    corners: list[tuple[float, ...]] = []
    for start in range(0, len(words), _WORDS):
        name, *numbers = words[start : start + _WORDS]
        try:
            confidence, left, top, right, bottom = map(float, numbers)
        except ValueError:
            confidence = math.nan
        if name != "opacity" or confidence != 1:
            raise UserError(
                f"{where}: the label {text[:80]!r} is neither {_NO_BOX!r} nor boxes such as "
                "'opacity 1 789.3 582.4 1815.9 2499.7'"
            )
        corners.append((left, top, right, bottom))
    return corners


def _patients(
    path: pathlib.Path, films: Mapping[str, _Film], headers: Mapping[str, dicom.Header]
) -> dict[str, str]:
    """Reads the patient by study id, from the headers or else from train_meta.csv."""
    patients: dict[str, str] = {}
    for image_id, film in films.items():
        if image_id in headers and headers[image_id].patient_id:
            patients.setdefault(film.study_id, headers[image_id].patient_id)
    if not path.exists():
        return patients
    for where, cells in csv_rows(path, ("patientid", "studyid", "imageid")):
        patient, study, image_id = (cells[name] for name in ("patientid", "studyid", "imageid"))
        if not _ID.fullmatch(patient):
            raise UserError(f"{where}: {patient!r} is not a patientid")
        if image_id in films and films[image_id].study_id != study:
            raise UserError(
                f"{where}: the study of {image_id} is {study!r}, but {films[image_id].study_id} in "
                f"{path.with_name(IMAGES)}"
            )
        if patients.setdefault(study, patient) != patient:
            raise UserError(
                f"{where}: the patient of study {study} is {patient}, but {patients[study]} in its "
                "DICOM headers or a line above; take the file that belongs to the images"
            )
    return patients
