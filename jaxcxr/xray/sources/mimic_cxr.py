"""Reads MIMIC-CXR-JPG: 377,110 radiographs of 227,835 studies and 65,379 patients.

Johnson et al., "MIMIC-CXR-JPG, a large publicly available database of labeled chest radiographs",
2019. Two labelers, CheXpert's and NegBio, read the reports: a label belongs to a study and so to
all its images, as 1 present, 0 absent, -1 uncertain, blank not mentioned. The metadata tell the
view of an image, the split list its split.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from jaxcxr.data import vocabulary
from jaxcxr.data.label_tables import match_classes
from jaxcxr.data.text_files import csv_rows, read_csv
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import builder
from jaxcxr.xray.sources.published import Film, LabelerConfig, PublishedBuilder, labels_of
from jaxcxr.xray.sources.published_files import Files

NAME = "mimic_cxr"
LABELERS = ("chexpert", "negbio")

_OBSERVATIONS = (vocabulary.NO_FINDING, *vocabulary.CHEXPERT)
_SPLITS = {
    "train": "train", "validate": "validation", "validation": "validation", "val": "validation",
    "test": "test",
}  # fmt: skip


@dataclasses.dataclass(eq=False)
class MimicCxrConfig(LabelerConfig):
    """Options of the prepared MIMIC-CXR-JPG.

    Attributes:
      labeler: whose labels, "chexpert" or "negbio".
    """

    labeler: str = "chexpert"

    def __post_init__(self):
        super().__post_init__()
        self._choice("labeler", LABELERS)


class MimicCxr(PublishedBuilder):
    """The published split."""

    name = NAME
    builder_config_class = MimicCxrConfig

    classes = own = vocabulary.CHEXPERT
    unaffected = ("Support Devices",)
    description = "MIMIC-CXR-JPG by its published split."
    homepage = "https://physionet.org/content/mimic-cxr-jpg/"
    citation = "Johnson et al., MIMIC-CXR-JPG, arXiv:1901.07042, 2019; PhysioNet."
    raw_content = (
        "mimic-cxr-2.0.0-chexpert.csv.gz, -metadata.csv.gz, -split.csv.gz and the folder files"
    )

    def films(self, raw: pathlib.Path, files: Files) -> tuple[list[Film], list[str]]:
        """Joins the three tables: labels by study, view and split by image."""
        labeler = self.builder_config.labeler
        tables = {
            word: files.needed_table([f"*-{word}.csv"], f"table mimic-cxr-2.0.0-{word}.csv.gz")
            for word in (labeler, "metadata", "split")
        }
        labels, owners = _labels(tables[labeler])
        splits = _splits(tables["split"])
        films: dict[str, Film] = {}
        unread, foreign, unlisted = [], [], []
        for where, cells in csv_rows(tables["metadata"], ("dicom_id", "subject_id", "study_id")):
            image, study, subject = (cells[n] for n in ("dicom_id", "study_id", "subject_id"))
            if image in films:
                raise UserError(f"{where}: a second row for {image}; remove one")
            if image not in splits:
                unlisted.append(image)
            elif study not in labels:
                unread.append(image)
            elif owners[study] != subject:
                foreign.append(image)
            else:
                view, frontal = view_of(cells.get("ViewPosition", ""))
                films[image] = Film(
                    image_id=image, patient_id=f"{NAME}/{subject}", path=f"{image}.jpg",
                    split=splits[image], labels=labels[study], view=view, frontal=frontal,
                    others={"original_size": _size(cells)},
                )  # fmt: skip
        known = {*films, *unread, *foreign}
        return list(films.values()), [
            *builder.note(unread, f"images are left out, as {tables[labeler].name} has no labels "
                          "of their study"),
            *builder.note(foreign, "images are left out, as the labels of their study belong to "
                          "another subject"),
            *builder.note(unlisted, f"images are not in {tables['split'].name} and left out"),
            *builder.note([i for i in splits if i not in known],
                          f"images of {tables['split'].name} are not in the metadata"),
        ]  # fmt: skip


def view_of(position: str) -> tuple[str, bool | None]:
    """Returns the view, "PA", "AP", "L" or "", and whether it is frontal, None if unknown.

    Arguments:
      position: DICOM's ViewPosition as MIMIC has it, such as AP, PA, LATERAL, LL, AP AXIAL, LAO.
    """
    view = vocabulary.view_of(position, qualified=False)
    return view, (view in ("PA", "AP") if position.strip() else None)


def _labels(path: pathlib.Path) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """Returns labels and subject by study."""
    labels: dict[str, dict[str, int]] = {}
    owners: dict[str, str] = {}
    read = match_classes(_OBSERVATIONS, read_csv(path).columns)
    if not read:
        raise UserError(f"{path}: no column of an observation, such as Cardiomegaly")
    for where, cells in csv_rows(path, ("subject_id", "study_id")):
        study = cells["study_id"]
        if study in labels:
            raise UserError(f"{where}: a second row for study {study}; remove one")
        named = {name: cells[column] for name, column in read.items()}
        labels[study], owners[study] = labels_of(named, read, where), cells["subject_id"]
    return labels, owners


def _splits(path: pathlib.Path) -> dict[str, str]:
    splits: dict[str, str] = {}
    for where, cells in csv_rows(path, ("dicom_id", "split")):
        word = cells["split"].casefold()
        if word not in _SPLITS:
            raise UserError(f"{where}: the split is {word!r}; allowed: train, validate, test")
        if splits.setdefault(cells["dicom_id"], _SPLITS[word]) != _SPLITS[word]:
            raise UserError(f"{where}: {cells['dicom_id']} is in two splits")
    return splits


def _size(cells: dict[str, str]) -> Sequence[int]:
    texts = [cells.get(name, "") for name in ("Rows", "Columns")]
    return tuple(int(text) for text in texts) if all(t.isascii() and t.isdigit() for t in texts) \
        else (0, 0)
