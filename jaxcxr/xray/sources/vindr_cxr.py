"""Reads VinDr-CXR: 18,000 PA radiographs, each training image read by three radiologists.

Nguyen et al., "VinDr-CXR: An open dataset of chest X-rays with radiologist's annotations",
Scientific Data 2022. In PhysioNet's layout, annotations/image_labels_train.csv has a row per image
and reader, image_labels_test.csv the consensus of five, and annotations_*.csv the boxes. In that of
Kaggle's challenge (VinBigData), train.csv has a row per box, or per reader who found nothing, and
there are no test labels. A finding is present if the majority of an image's readers saw it, or, by
option, any; if they are divided equally, it is uncertain and so unknown.

Boxes are in pixels of the DICOM files. Of copies in another format they are kept where a table
names the size of the original, as Kaggle's train_meta.csv (dim0, dim1) and train.csv (height,
width) of some copies do. Patients are not published.
"""

import collections
import dataclasses
import itertools
import math
import pathlib
from collections.abc import Mapping

import numpy as np
import rich.console
import rich.table

from jaxcxr.data import progress
from jaxcxr.data.label_tables import NEGATIVE, POSITIVE, match_classes
from jaxcxr.data.text_files import csv_rows, fold, read_csv
from jaxcxr.data.vocabulary import NO_FINDING, UNCERTAIN
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import builder
from jaxcxr.xray.sources.published import Film, PublishedBuilder, PublishedConfig, labels_of
from jaxcxr.xray.sources.published_files import Files
from jaxcxr.xray.sources.rsna_pneumonia import described, read_headers

NAME = "vindr_cxr"
READERS = ("majority", "any")

_LOCAL = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture",
    "Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity",
    "Lung cavity", "Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture", "Other lesion",
)  # fmt: skip
_GLOBAL = ("COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other disease")
_SYNONYMS = {fold("Other diseases"): "Other disease"}
_BOX = ("x_min", "y_min", "x_max", "y_max")
_DICOM = (".dicom", ".dcm")

Readings = dict[str, dict[str, dict[str, int]]]  # image -> reader -> finding -> 1 or 0


@dataclasses.dataclass(eq=False)
class VindrCxrConfig(PublishedConfig):
    """Options of the prepared VinDr-CXR.

    Attributes:
      readers: when a finding is present, "majority" (more than half of an image's readers saw it)
        or "any" (one did).
    """

    readers: str = "majority"

    def __post_init__(self):
        super().__post_init__()
        self._choice("readers", READERS)


class VindrCxr(PublishedBuilder):
    """PhysioNet's split; Kaggle's training images are split by a hash of their names."""

    name = NAME
    builder_config_class = VindrCxrConfig

    classes = own = unaffected = (*_LOCAL, *_GLOBAL)  # blank here means that nobody was asked
    description = "VinDr-CXR, labels by vote of the readers."
    homepage = "https://physionet.org/content/vindr-cxr/"
    citation = "Nguyen et al., VinDr-CXR, Scientific Data 9, 2022; PhysioNet."
    raw_content = "annotations/image_labels_train.csv or Kaggle's train.csv, and train/*.dicom"

    def films(self, raw: pathlib.Path, files: Files) -> tuple[list[Film], list[str]]:
        """Reads the tables of one layout and counts the readers' votes."""
        tables = {split: files.table([f"image_labels_{split}.csv"]) for split in ("train", "test")}
        films: list[Film] = []
        if any(tables.values()):
            for split, path in tables.items():
                if path:
                    boxes = files.table([f"annotations_{split}.csv"])
                    films += self._voted(_by_columns(path), _boxes(boxes) if boxes else {}, split)
        else:
            wanted = "annotations/image_labels_train.csv or train.csv"
            path = files.needed_table(["train.csv"], wanted, ["class_name"])
            films = self._voted(_by_rows(path), _boxes(path), "")
        sizes = {
            files.table(["train_meta.csv"]): ("dim0", "dim1"),
            files.table(["train.csv"], ["class_name"]): ("height", "width"),
        }
        for table, columns in sizes.items():
            if table and {*columns} <= {*read_csv(table).columns}:
                films = _sized(films, table, columns)
        return films, [
            "patients are not published: each image counts as one of its own, so films of one "
            "patient can be in several splits"
        ]

    def _voted(self, readings: Readings, boxes: Mapping[str, list], split: str) -> list[Film]:
        show_agreement(f"{NAME} {split}".strip(), readings)
        any_reader = self.builder_config.readers == "any"
        films = []
        for image, by_reader in readings.items():
            labels = {}
            for name in dict.fromkeys(itertools.chain(*by_reader.values())):
                votes = [reading[name] for reading in by_reader.values() if name in reading]
                labels[name] = _vote(votes, any_reader)
            if NO_FINDING in labels:  # that all found nothing is no vote of its own
                found = any(labels[name] == POSITIVE for name in labels if name != NO_FINDING)
                labels[NO_FINDING] = NEGATIVE if found else labels[NO_FINDING]
            films.append(Film(
                image_id=image, patient_id=f"{NAME}/{image}", path=image, split=split,
                labels=labels, view="PA",
                boxes=tuple(b for b in boxes.get(image, ()) if labels.get(b[0]) == POSITIVE),
            ))  # fmt: skip
        return films

    def completed(self, rows: dict) -> dict:
        """Adds sex and age of the DICOM headers; drops boxes whose pixels are not known."""
        headers = read_headers(self.name, {row: path for row, path in rows.items() if path})
        result, unboxed = {}, []
        for row, path in rows.items():
            told = described(headers.get(row))
            told.pop("view", None)
            if path and row.boxes and not any(row.box_size) and path.suffix.lower() not in _DICOM:
                unboxed.append(row.image_id)
                told["boxes"] = ()
            result[dataclasses.replace(row, **told)] = path
        fact = (
            "images lose their boxes, as these are in pixels of the DICOM files; train_meta.csv "
            "with dim0 and dim1 would tell their size"
        )
        for text in builder.note(unboxed, fact):
            progress.say(f"{self.name}: {text}")
        return result


def _vote(votes: list[int], any_reader: bool) -> int:
    share = sum(votes) / len(votes)
    if any_reader:
        return POSITIVE if share else NEGATIVE
    return UNCERTAIN if share == 0.5 else POSITIVE if share > 0.5 else NEGATIVE


def show_agreement(title: str, readings: Readings) -> None:
    """Prints how many readers saw each finding, and how far they agree.

    Agreement is that of all pairs of readers of an image; kappa is Fleiss' (Psychological Bulletin
    1971), of the images with the most frequent number of readers, n/a if only one answer occurs.
    """
    numbers = collections.Counter(len(readers) for readers in readings.values())
    readers = numbers.most_common(1)[0][0]
    if readers < 2:
        return
    images = [list(by.values()) for by in readings.values() if len(by) == readers]
    table = rich.table.Table(
        "seen by", *map(str, range(1, readers + 1)), "agreement", "kappa",
        title=f"{title}: {len(images):,} images of {readers} readers", title_justify="left",
    )
    for name in (*VindrCxr.own, NO_FINDING):
        votes = np.array([[r.get(name, -1) for r in by] for by in images])
        if (votes < 0).any():
            continue
        seen = votes.sum(1)
        cells = [f"{(seen == k).sum():,}" for k in range(1, readers + 1)]
        agreed = (seen * (seen - 1) + (readers - seen) * (readers - seen - 1)).mean()
        agreed /= readers * (readers - 1)
        share = votes.mean()
        chance = share**2 + (1 - share) ** 2
        kappa = "n/a" if chance == 1 else f"{(agreed - chance) / (1 - chance):.2f}"
        table.add_row(name, *cells, f"{agreed:.1%}", kappa)
    rich.console.Console().print(table)


def _by_columns(path: pathlib.Path) -> Readings:
    """Reads PhysioNet's table: a row per image and reader, a column per finding."""
    columns = match_classes((*VindrCxr.own, NO_FINDING), read_csv(path).columns)
    columns |= {
        name: column for column in read_csv(path).columns
        if (name := _SYNONYMS.get(fold(column)))
    }
    readings: Readings = {}
    for where, cells in csv_rows(path, ("image_id",)):
        labels = labels_of({n: cells[column] for n, column in columns.items()}, columns, where)
        _add(readings, cells["image_id"], cells.get("rad_id", ""), labels, where)
    return readings


def _by_rows(path: pathlib.Path) -> Readings:
    """Reads Kaggle's table: a row per box, or per reader without a finding."""
    readings: Readings = {}
    read = (*_KAGGLE, NO_FINDING)
    for where, cells in csv_rows(path, ("image_id", "class_name", "rad_id")):
        name = _own_name(cells["class_name"], where)
        by_reader = readings.setdefault(cells["image_id"], {})
        labels = by_reader.setdefault(cells["rad_id"], dict.fromkeys(read, NEGATIVE))
        labels[name] = POSITIVE
    return readings


_KAGGLE = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD",
    "Infiltration", "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis",
)  # fmt: skip
_NAMES = {fold(name): name for name in (*_LOCAL, *_GLOBAL, NO_FINDING)} | _SYNONYMS


def _own_name(text: str, where: str) -> str:
    if fold(text) not in _NAMES:
        raise UserError(f"{where}: {text!r} is no finding of VinDr-CXR")
    return _NAMES[fold(text)]


def _add(readings: Readings, image: str, reader: str, labels: dict[str, int], where: str) -> None:
    if not image:
        raise UserError(f"{where}: no image_id")
    if reader in readings.setdefault(image, {}):
        raise UserError(f"{where}: a second row of reader {reader or 'consensus'} for {image}")
    readings[image][reader] = labels


def _boxes(path: pathlib.Path) -> dict[str, list[tuple]]:
    """Reads (finding, x, y, width, height) by image."""
    boxes: dict[str, list[tuple]] = collections.defaultdict(list)
    for where, cells in csv_rows(path, ("image_id", "class_name", *_BOX)):
        name = _own_name(cells["class_name"], where)
        texts = [cells[side] for side in _BOX]
        if name == NO_FINDING or not any(texts):
            continue
        try:
            left, top, right, bottom = map(float, texts)
        except ValueError:
            left = top = right = bottom = math.nan
        if not (0 <= left < right < math.inf and 0 <= top < bottom < math.inf):
            raise UserError(f"{where}: x_min,y_min,x_max,y_max are {','.join(texts)}; no box")
        boxes[cells["image_id"]].append((name, left, top, right - left, bottom - top))
    return boxes


def _sized(films: list[Film], path: pathlib.Path, columns: tuple[str, str]) -> list[Film]:
    """Gives films the size that their boxes are measured in, from columns of height and width."""
    sizes = {}
    for where, cells in csv_rows(path, ("image_id", *columns)):
        try:
            height, width = (int(float(cells[name])) for name in columns)
        except (ValueError, OverflowError):
            height = width = 0
        if height < 1 or width < 1:
            raise UserError(f"{where}: {' and '.join(columns)} are no numbers of pixels")
        sizes[cells["image_id"]] = height, width
    return [
        dataclasses.replace(film, others={
            "box_size": sizes[film.image_id], "original_size": sizes[film.image_id]
        }) if film.image_id in sizes else film
        for film in films
    ]  # fmt: skip
