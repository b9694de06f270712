"""Reads the RSNA Pneumonia Detection Challenge: 26,684 films of ChestX-ray14, read anew.

Shih et al., "Augmenting the NIH chest radiograph dataset with expert annotations of possible
pneumonia", Radiology: Artificial Intelligence 2019. The films are from 2017 and before, so COVID-19
is absent. The class of an image gives the other labels:

- Normal: read as free of abnormality, so all findings are absent.
- No Lung Opacity / Not Normal: Pneumonia absent; other findings unknown.
- Lung Opacity (Target 1): an opacity that suggests pneumonia, so Pneumonia present, with boxes in
  pixels of the 1024 x 1024 images; other findings unknown.

`patientId` names an image, not a patient. Only a comparison of the pixels reveals its film and
patient in ChestX-ray14: a csv with the columns rsna_patientId, chestxray14_image and mse, in which
a mean squared error of 10 squared gray levels or more is no match. With such a map a person has the
same patient id here and in ChestX-ray14.
"""

import contextlib
import dataclasses
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from jaxcxr.data import progress
from jaxcxr.data.label_tables import FINDINGS, NEGATIVE, POSITIVE, UNKNOWN
from jaxcxr.data.text_files import csv_rows, read_text
from jaxcxr.errors import BadRecord, UserError
from jaxcxr.xray.images import dicom
from jaxcxr.xray.sources import builder

NAME = "rsna_pneumonia"
LABELS, CLASSES = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
PNEUMONIA = float(FINDINGS.index("Pneumonia"))  # as the class of a box

_FINDINGS_OF = {
    "Normal": dict.fromkeys(FINDINGS, NEGATIVE),
    "No Lung Opacity / Not Normal": {"Pneumonia": NEGATIVE, "COVID-19": NEGATIVE},
    "Lung Opacity": {"Pneumonia": POSITIVE, "COVID-19": NEGATIVE},
}
_TARGET_OF = {"Normal": "0", "No Lung Opacity / Not Normal": "0", "Lung Opacity": "1"}
_BOX = ("x", "y", "width", "height")
_SIDE = 1024
MAX_MSE = 10.0  # of films taken for the same; 98 of 26,684 lie above, none of the others over 7.2
_ID = re.compile(r"[\w.-]+", re.ASCII)
_NIH_IMAGE = re.compile(r"(\d{8})_\d{3}\.png", re.ASCII)
PATIENTS, SPLITS = ("image", "chestxray14"), ("hash", "chestxray14")

_IMAGES, _MAP, _TEST_LIST = "stage_2_train_images", "rsna_to_chestxray14.csv", "test_list.txt"


@dataclasses.dataclass(eq=False)
class RsnaPneumoniaConfig(builder.UnsplitConfig):
    """Options of the prepared RSNA Pneumonia Detection Challenge.

    Attributes:
      patients: "image" (patients are not known, each image counts as one) or "chestxray14" (those
        of ChestX-ray14, through the map).
      split: "hash" (of the patient id) or "chestxray14" (tested are the patients of its official
        test list; needs its patients).
      map: csv with the columns rsna_patientId, chestxray14_image, mse, if it is not
        rsna_to_chestxray14.csv in the raw folder; implies --patients chestxray14.
      test_list: the official test_list.txt of ChestX-ray14, if it is not in the raw folder;
        implies --split chestxray14.
    """

    patients: str = "image"
    split: str = "hash"
    map: str = dataclasses.field(default="", metadata=builder.RUN_ONLY)
    test_list: str = dataclasses.field(default="", metadata=builder.RUN_ONLY)

    def __post_init__(self):
        self.patients = "chestxray14" if self.map else self.patients
        self.split = "chestxray14" if self.test_list else self.split
        self._choice("patients", PATIENTS)
        self._choice("split", SPLITS)
        if self.split == "chestxray14" != self.patients:
            raise UserError(
                f"split chestxray14 needs to know the patients; give --map FILE, or "
                f"--patients chestxray14 with {_MAP} in the raw folder."
            )
        super().__post_init__()


class RsnaPneumonia(builder.XrayBuilder):
    """Split by a hash of the patient id, or as ChestX-ray14 is."""

    name = NAME
    builder_config_class = RsnaPneumoniaConfig

    description = "RSNA Pneumonia Detection Challenge (stage 2), radiologists' labels and boxes."
    homepage = "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge"
    citation = "Shih et al., Radiology: Artificial Intelligence 2019. Data: RSNA and NIH."
    raw_content = f"{LABELS}, {CLASSES} and {_IMAGES}/"

    def collect(self, raw: pathlib.Path) -> builder.Collection:
        """Returns the rows of the csv files, completed by the headers of their images."""
        config = self.builder_config
        map_file = test_list = None
        if config.patients == "chestxray14":
            map_file = builder.given_path("map", config.map) if config.map else raw / _MAP
        if config.split == "chestxray14":
            given = config.test_list
            test_list = builder.given_path("test-list", given) if given else raw / _TEST_LIST
        files = builder.files_by_name([raw / _IMAGES], endings=False)
        val, test = config.fractions
        content = read_table(raw, val, test, map_file=map_file, test_list=test_list)
        paths = {row: files.pop(row.image_id, None) for row in content.rows}
        headers = read_headers(NAME, {row: path for row, path in paths.items() if path})
        paths = {
            dataclasses.replace(row, **described(headers.get(row))): path
            for row, path in paths.items()
        }
        left_out = builder.note(list(files), "images have no row and are left out")
        return builder.Collection.of(paths, (*content.notes, *left_out))


@dataclasses.dataclass(frozen=True)
class _Marked:
    """Holds the target and boxes of an image in the label csv, and its first line."""

    target: str
    boxes: tuple[tuple[float, ...], ...]
    where: str


def read_table(
    raw: pathlib.Path,
    val_fraction: float,
    test_fraction: float,
    map_file: pathlib.Path | None = None,
    test_list: pathlib.Path | None = None,
) -> builder.ImageListing:
    """Reads both csv files, which repeat an image for each of its boxes.

    Arguments:
      raw: folder with the csv files.
      val_fraction, test_fraction: as in `builder.UnsplitConfig`.
      map_file: maps each image to its image of ChestX-ray14.
      test_list: the images of ChestX-ray14's test split. Only its patients, and images that match
        no patient, by their hash, go to the test split.

    Returns:
      One row per image, with all its boxes; view, sex and age are not in the csv files.

    Raises:
      UserError: a file is absent or malformed, or the rows of an image contradict each other.
    """
    marked, classes = _marked(raw / LABELS), _classes(raw / CLASSES)
    _check_agreement(marked, classes, raw)
    patients, notes = _patients(map_file, list(classes))
    tested = _tested(test_list) if test_list else None
    rows = []
    for image_id, (name, _) in classes.items():
        patient_id = patients.get(image_id, f"{NAME}/{image_id}")
        if tested is None or image_id not in patients:
            split = builder.split_of(patient_id, val_fraction, test_fraction)
        else:
            split = "test" if patient_id in tested else builder.split_of(patient_id, val_fraction)
        rows.append(
            builder.ImageRecord(
                image_id=image_id,
                patient_id=patient_id,
                source=NAME,
                split=split,
                labels=tuple(_FINDINGS_OF[name].get(finding, UNKNOWN) for finding in FINDINGS),
                boxes=marked[image_id].boxes,
                box_size=(_SIDE, _SIDE),
            )
        )
    return builder.ImageListing(tuple(rows), notes)


def _marked(path: pathlib.Path) -> dict[str, _Marked]:
    """Reads target and boxes by image id, from a csv with a line per box or per boxless image."""
    marked: dict[str, _Marked] = {}
    for where, cells in csv_rows(path, ("patientId", *_BOX, "Target")):
        image_id, target = _image_id(cells, where), cells["Target"]
        if target not in ("0", "1"):
            raise UserError(f"{where}: Target is {target!r}; expected 0 or 1")
        line = _Marked(target, _boxes(cells, where), where)
        first = marked.setdefault(image_id, line)
        if first.target != target:
            raise UserError(
                f"{where}: Target is {target} for {image_id}, but {first.target} at {first.where}"
            )
        boxes = tuple(dict.fromkeys((*first.boxes, *line.boxes)))
        marked[image_id] = dataclasses.replace(first, boxes=boxes)
    return marked


def _boxes(cells: dict[str, str], where: str) -> tuple[tuple[float, ...], ...]:
    """Reads the box of a line with Target 1; Target 0 has none."""
    texts = [cells[name] for name in _BOX]
    if cells["Target"] == "0":
        if any(texts):
            raise UserError(f"{where}: Target is 0, but there is a box: {','.join(texts)}")
        return ()
    try:
        x, y, width, height = map(float, texts)
    except ValueError:
        x = y = width = height = math.nan
    # No check of x + width: rounding can push a box over the edge.
    if not (0 <= x < _SIDE and 0 <= y < _SIDE and 0 < width <= _SIDE and 0 < height <= _SIDE):
        raise UserError(
            f"{where}: Target is 1, but x,y,width,height are {','.join(texts)!r}; expected a "
            f"box in an image of {_SIDE} x {_SIDE} pixels"
        )
    return ((PNEUMONIA, x, y, width, height),)


def _classes(path: pathlib.Path) -> dict[str, tuple[str, str]]:
    """Reads (class, "path:line" of its first line) by image id."""
    classes: dict[str, tuple[str, str]] = {}
    for where, cells in csv_rows(path, ("patientId", "class")):
        image_id, name = _image_id(cells, where), cells["class"]
        if name not in _FINDINGS_OF:
            raise UserError(
                f"{where}: the class {name!r} is not one of {', '.join(map(repr, _FINDINGS_OF))}"
            )
        first = classes.setdefault(image_id, (name, where))
        if first[0] != name:
            raise UserError(
                f"{where}: the class of {image_id} is {name!r}, but {first[0]!r} at {first[1]}"
            )
    return classes


def _image_id(cells: dict[str, str], where: str) -> str:
    if not _ID.fullmatch(cells["patientId"]):
        raise UserError(f"{where}: {cells['patientId']!r} is not a patientId")
    return cells["patientId"]


def _check_agreement(
    marked: dict[str, _Marked], classes: dict[str, tuple[str, str]], raw: pathlib.Path
) -> None:
    for image_id, (name, where) in classes.items():
        if image_id not in marked:
            raise UserError(f"{where}: {image_id} has no line in {raw / LABELS}")
        if marked[image_id].target != _TARGET_OF[name]:
            raise UserError(
                f"{where}: the class of {image_id} is {name!r}, but its Target is "
                f"{marked[image_id].target} at {marked[image_id].where}"
            )
    for image_id, line in marked.items():
        if image_id not in classes:
            raise UserError(f"{line.where}: {image_id} has no line in {raw / CLASSES}")


def _patients(
    path: pathlib.Path | None, image_ids: list[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Reads ChestX-ray14's patient by image id, of the images that match one, and remarks."""
    if path is None:
        return {}, (
            "patientId is the id of an image, and patients are unknown: films of one patient can "
            "be in several splits, and in those of ChestX-ray14. Give --map FILE, a csv with "
            "rsna_patientId, chestxray14_image, mse",
        )
    matches = chestxray14_images(path)
    patients = {name: matches[name][:8] for name in image_ids if name in matches}
    if not patients:
        raise UserError(f"{path}: none of the {len(image_ids)} images matches one of ChestX-ray14")
    others = [name for name in image_ids if name not in patients]
    fact = "images match none of ChestX-ray14 and count as patients of their own"
    return patients, builder.note(others, fact)


def chestxray14_images(path: pathlib.Path) -> dict[str, str]:
    """Maps each image to its image of ChestX-ray14; pairs that differ too much are left out.

    Arguments:
      path: csv with the columns rsna_patientId, chestxray14_image and mse.

    Raises:
      UserError: the file is absent or malformed.
    """
    matches: dict[str, tuple[str, str]] = {}
    for where, cells in csv_rows(path, ("rsna_patientId", "chestxray14_image", "mse")):
        name, image = cells["rsna_patientId"], cells["chestxray14_image"]
        if not (_ID.fullmatch(name) and _NIH_IMAGE.fullmatch(image)):
            raise UserError(
                f"{where}: {name!r} and {image!r} are no patientId and image of ChestX-ray14 "
                "such as 00000001_000.png"
            )
        try:
            error = float(cells["mse"])
        except ValueError:
            error = math.nan
        if not 0 <= error < math.inf:
            raise UserError(f"{where}: mse is {cells['mse']!r}; a number from 0 on is expected")
        first = matches.setdefault(name, (image if error < MAX_MSE else "", where))
        if first[1] != where:
            raise UserError(f"{where}: a second line for {name}, the first is {first[1]}")
    return {name: image for name, (image, _) in matches.items() if image}


def _tested(path: pathlib.Path) -> set[str]:
    """Reads the patients of ChestX-ray14's official test list."""
    patients = set()
    for number, line in enumerate(read_text(path).splitlines(), 1):
        match = _NIH_IMAGE.fullmatch(line.strip())
        if match:
            patients.add(match[1])
        elif line.strip():
            raise UserError(
                f"{path}:{number}: {line.strip()[:60]!r} is not an image such as 00000013_004.png"
            )
    if not patients:
        raise UserError(f"{path}: no image in it; expected the test_list.txt of ChestX-ray14")
    return patients


def read_headers(label: str, files: Mapping[Any, pathlib.Path]) -> dict[Any, dicom.Header]:
    """Reads the headers of the DICOM files among `files`.

    Arguments:
      label: of the progress bar.
      files: paths by any key.

    Returns:
      Headers by the same key. A broken file has none; reading its pixels reports it.
    """
    headers = {}
    with progress.Progress(f"{label}: headers", len(files), brief=True) as bar:
        for key, path in files.items():
            if path.suffix.lower() in (".dcm", ".dicom"):
                with contextlib.suppress(BadRecord):
                    headers[key] = dicom.read_header(path)
            bar.advance(1)
    return headers


def described(header: dicom.Header | None) -> dict[str, Any]:
    """Returns the fields of an `ImageRecord` that a DICOM header fills; none without a header."""
    return {"view": header.view, "sex": header.sex, "age": header.age} if header else {}
