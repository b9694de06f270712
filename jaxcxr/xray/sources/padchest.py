"""Reads PadChest: 160,861 radiographs of 67,625 patients, labeled from Spanish reports.

Bustos et al., "PadChest: A large chest x-ray image dataset with multi-label annotated reports",
Medical Image Analysis 2020. The csv lists the findings and diagnoses of each report, "normal" if
there are none; physicians read 27 % of the reports and a recurrent network the rest. A report
lists all it found, so other findings are absent. Lists without a finding or "normal" (unchanged,
suboptimal study) say nothing, and the image is left out, as is one marked exclude. No split is
published. Projections: PA, AP, AP_horizontal (supine), L, COSTAL (ribs), EXCLUDE.
"""

import collections
import dataclasses
import math
import pathlib
import re

from jaxcxr.data.label_tables import NEGATIVE, POSITIVE
from jaxcxr.data.text_files import csv_rows, fold
from jaxcxr.data.vocabulary import NO_FINDING, sex_of
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import builder
from jaxcxr.xray.sources.published import Film, PublishedBuilder, PublishedConfig
from jaxcxr.xray.sources.published_files import Files

NAME = "padchest"
LABELERS = ("all", "physician")

_TABLES = (
    "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv",
    "*images_labels*.csv", "*padchest*.csv", "*.csv",
)
# Frequent findings that the union has no name for.
_FURTHER = (
    "aortic atheromatosis", "aortic elongation", "granuloma", "kyphosis",
    "costophrenic angle blunting", "chronic changes",
    "vertebral degenerative changes", "increased density", "bronchiectasis", "volume loss",
    "vascular hilar enlargement", "hemidiaphragm elevation", "air trapping",
    "fibrotic band", "hilar enlargement", "heart insufficiency", "pseudonodule", "hypoexpansion",
)  # fmt: skip
_MAPPED = (
    "cardiomegaly", "emphysema", "pleural effusion", "loculated pleural effusion",
    "loculated fissural effusion", "hiatal hernia", "infiltrates", "interstitial pattern",
    "ground glass pattern", "reticular interstitial pattern",
    "reticulonodular interstitial pattern", "miliary opacities", "alveolar pattern", "mass",
    "pulmonary mass", "nodule", "multiple nodules", "atelectasis", "total atelectasis",
    "lobar atelectasis", "segmental atelectasis", "laminar atelectasis", "round atelectasis",
    "atelectasis basal", "pneumothorax", "hydropneumothorax", "pleural thickening",
    "apical pleural thickening", "calcified pleural thickening", "calcified pleural plaques",
    "pneumonia", "atypical pneumonia", "pulmonary fibrosis", "pulmonary edema", "consolidation",
    "mediastinal enlargement", "superior mediastinal enlargement", "fracture", "rib fracture",
    "clavicle fracture", "humeral fracture", "vertebral fracture", "callus rib fracture",
    "nsg tube", "endotracheal tube", "tracheostomy tube", "chest drain tube", "catheter",
    "central venous catheter", "central venous catheter via subclavian vein",
    "central venous catheter via jugular vein", "reservoir central venous catheter",
    "electrical device", "dual chamber device", "single chamber device", "pacemaker", "dai",
    "tuberculosis", "tuberculosis sequelae", "calcified granuloma", "scoliosis", "copd signs",
)  # fmt: skip
_SILENT = {fold(name) for name in ("unchanged", "suboptimal study", "exclude")}
_FRONTAL = {"PA": "PA", "AP": "AP", "AP_HORIZONTAL": "AP"}
_ITEM = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_LIST = re.compile(r"\[\s*(?:(?:'[^']*'|\"[^\"]*\")\s*,?\s*)*\]")


@dataclasses.dataclass(eq=False)
class PadchestConfig(PublishedConfig):
    """Options of the prepared PadChest.

    Attributes:
      labeler: whose labels, "all" or "physician" (reports that physicians read).
    """

    labeler: str = "all"

    def __post_init__(self):
        super().__post_init__()
        self._choice("labeler", LABELERS)


class Padchest(PublishedBuilder):
    """Split by a hash of the patient id."""

    name = NAME
    builder_config_class = PadchestConfig

    classes = own = (*_MAPPED, *_FURTHER)
    description = "PadChest, split by a hash of the patient id."
    homepage = "https://bimcv.cipf.es/bimcv-projects/padchest/"
    citation = "Bustos et al., PadChest, Medical Image Analysis 66, 2020."
    raw_content = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv and the images"

    def films(self, raw: pathlib.Path, files: Files) -> tuple[list[Film], list[str]]:
        """Reads the csv."""
        path = files.needed_table(_TABLES, _TABLES[0])
        physician = self.builder_config.labeler == "physician"
        needed = ("ImageID", "PatientID", "Labels", "Projection")
        films: dict[str, Film] = {}
        left_out: dict[str, list[str]] = collections.defaultdict(list)
        others: collections.Counter[str] = collections.Counter()
        for where, cells in csv_rows(path, (*needed, *(["MethodLabel"] if physician else []))):
            image, projection = cells["ImageID"], cells["Projection"].strip().upper()
            names = _names(cells["Labels"], where)
            if not image or not cells["PatientID"]:
                raise UserError(f"{where}: no {'PatientID' if image else 'ImageID'}")
            if image in films:
                raise UserError(f"{where}: a second row for {image}; remove one")
            if physician and "physician" not in cells["MethodLabel"].casefold():
                left_out["images are left out, as no physician read their report"].append(image)
            elif "exclude" in names or projection == "EXCLUDE":
                left_out["images are marked exclude and left out"].append(image)
            elif not names - _SILENT:
                left_out["images are left out, as their labels name no finding"].append(image)
            else:
                films[image] = _film(cells, names, projection)
                others.update(names - _KNOWN.keys() - _SILENT)
        notes = [text for fact, images in left_out.items() for text in builder.note(images, fact)]
        rare = [f"{name} {count}" for name, count in others.most_common()]
        return list(films.values()), [
            *notes, *builder.note(rare, "names in the lists are no class here"),
        ]


_KNOWN = {fold(name): name for name in Padchest.own} | {"normal": ""}


def _film(cells: dict[str, str], names: set[str], projection: str) -> Film:
    labels = dict.fromkeys(Padchest.own, NEGATIVE)
    labels |= {_KNOWN[name]: POSITIVE for name in names if _KNOWN.get(name)}
    frontal = projection in _FRONTAL if projection else None
    return Film(
        image_id=cells["ImageID"], patient_id=f"{NAME}/{cells['PatientID']}",
        path=cells["ImageID"], split="",
        labels=labels | {NO_FINDING: POSITIVE if "normal" in names else NEGATIVE},
        view=_FRONTAL.get(projection, "L" if projection == "L" else ""), frontal=frontal,
        others={"sex": sex_of(cells.get("PatientSex_DICOM", "")), "age": _age(cells)},
    )  # fmt: skip


def _names(text: str, where: str) -> set[str]:
    """Reads a list in Python's notation, without evaluating it; spaces and case do not matter."""
    if text.casefold() in ("", "nan"):
        return set()
    if not _LIST.fullmatch(text):
        raise UserError(
            f"{where}: the labels {text[:80]!r} are no list such as ['pleural effusion', 'normal']"
        )
    names = {fold(one or other) for one, other in _ITEM.findall(text)}
    return names - {""}


def _age(cells: dict[str, str]) -> int:
    """Returns the year of the study minus that of birth; -1 unknown."""
    try:
        born = float(cells.get("PatientBirth", ""))
        year = int(cells.get("StudyDate_DICOM", "")[:4])
    except ValueError:
        return -1
    age = year - born
    return int(age) if math.isfinite(age) and 0 <= age <= 120 else -1
