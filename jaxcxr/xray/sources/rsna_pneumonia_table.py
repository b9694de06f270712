"""The label files of the RSNA Pneumonia Detection Challenge, without the images."""

import dataclasses
import math
import pathlib
import re

from jaxcxr.data.labels import FINDINGS, NEGATIVE, POSITIVE, UNKNOWN
from jaxcxr.data.text_files import csv_rows, read_text
from jaxcxr.errors import UserError
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


@dataclasses.dataclass(frozen=True)
class _Marked:
    """What the label csv says of an image, and where it first does."""

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
    """Reads both csv files, of which each repeats an image for each of its boxes.

    Arguments:
      raw: folder with the csv files.
      val_fraction, test_fraction: as in `xray.UnsplitConfig`.
      map_file: which image of ChestX-ray14 each image is.
      test_list: the images of ChestX-ray14's test split. Its patients go to the test split, other
        patients of ChestX-ray14 do not, and images that match none are split by their hash.

    Returns:
      One row per image, with all its boxes; view, sex and age are not in the csv files.

    Raises:
      UserError: a file is absent or not in its form, or the rows of an image contradict each other.
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
    """Target and boxes by image id, from a csv with one line per box or image without any."""
    marked: dict[str, _Marked] = {}
    for where, cells in csv_rows(path, ("patientId", *_BOX, "Target")):
        image_id, target = _image_id(cells, where), cells["Target"]
        if target not in ("0", "1"):
            raise UserError(f"{where}: Target is {target!r}; expected is 0 or 1")
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
    """The box of a line with Target 1; none of one with Target 0."""
    texts = [cells[name] for name in _BOX]
    if cells["Target"] == "0":
        if any(texts):
            raise UserError(f"{where}: Target is 0, but there is a box: {','.join(texts)}")
        return ()
    try:
        x, y, width, height = map(float, texts)
    except ValueError:
        x = y = width = height = math.nan
    # Not a sum: a box may reach over the edge by the rounding.
    if not (0 <= x < _SIDE and 0 <= y < _SIDE and 0 < width <= _SIDE and 0 < height <= _SIDE):
        raise UserError(
            f"{where}: Target is 1, but x,y,width,height are {','.join(texts)!r}; expected is a "
            f"box in an image of {_SIDE} x {_SIDE} pixels"
        )
    return ((PNEUMONIA, x, y, width, height),)


def _classes(path: pathlib.Path) -> dict[str, tuple[str, str]]:
    """(class, "path:line" of its first line) by image id."""
    classes: dict[str, tuple[str, str]] = {}
    for where, cells in csv_rows(path, ("patientId", "class")):
        image_id, name = _image_id(cells, where), cells["class"]
        if name not in _FINDINGS_OF:
            raise UserError(
                f"{where}: the class {name!r} is none of {', '.join(map(repr, _FINDINGS_OF))}"
            )
        first = classes.setdefault(image_id, (name, where))
        if first[0] != name:
            raise UserError(
                f"{where}: the class of {image_id} is {name!r}, but {first[0]!r} at {first[1]}"
            )
    return classes


def _image_id(cells: dict[str, str], where: str) -> str:
    if not _ID.fullmatch(cells["patientId"]):
        raise UserError(f"{where}: {cells['patientId']!r} is no patientId")
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
    """ChestX-ray14's patient by image id, of the images that match one, and remarks."""
    if path is None:
        return {}, (
            "patientId is the id of an image and patients cannot be told apart: films of one "
            "patient can stand in several splits, and in those of ChestX-ray14. Give --map FILE, "
            "a csv with rsna_patientId, chestxray14_image, mse",
        )
    matches = chestxray14_images(path)
    patients = {name: matches[name][:8] for name in image_ids if name in matches}
    if not patients:
        raise UserError(f"{path}: none of the {len(image_ids)} images matches one of ChestX-ray14")
    others = [name for name in image_ids if name not in patients]
    fact = "images match none of ChestX-ray14 and count as patients of their own"
    return patients, builder.note(others, fact)


def chestxray14_images(path: pathlib.Path) -> dict[str, str]:
    """Which image of ChestX-ray14 each image is; pairs that differ too much are left out.

    Arguments:
      path: csv with the columns rsna_patientId, chestxray14_image and mse.

    Raises:
      UserError: the file is absent or not in this form.
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
    """Patients of ChestX-ray14's official test list."""
    patients = set()
    for number, line in enumerate(read_text(path).splitlines(), 1):
        match = _NIH_IMAGE.fullmatch(line.strip())
        if match:
            patients.add(match[1])
        elif line.strip():
            raise UserError(
                f"{path}:{number}: {line.strip()[:60]!r} is no image such as 00000013_004.png"
            )
    if not patients:
        raise UserError(f"{path}: no image in it; expected is the test_list.txt of ChestX-ray14")
    return patients
