"""Reads CheXpert, small or full: 224,316 radiographs of 65,240 patients, labeled from reports.

Irvin et al., "CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert
Comparison", AAAI 2019. A labeler found 14 observations in the reports: 1 present, 0 absent, -1
uncertain, blank not mentioned. No Finding means that no other is present or uncertain, so blank
ones are absent then, but Support Devices, which is no finding. valid.csv (200 studies) and test.csv
(500, published later, without sex, age and view) were read by radiologists.

The path of an image, `train/patient00001/study1/view1_frontal.jpg`, holds patient, study and view.
"""

import collections
import dataclasses
import pathlib
import re

from jaxcxr.data import vocabulary
from jaxcxr.data.label_tables import match_classes, years
from jaxcxr.data.text_files import csv_rows, read_csv
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import builder
from jaxcxr.xray.sources.published import Film, LabelerConfig, PublishedBuilder, labels_of
from jaxcxr.xray.sources.published_files import Files

NAME = "chexpert"
OBSERVATIONS = (vocabulary.NO_FINDING, *vocabulary.CHEXPERT)

_TABLES = {
    "train": ("train.csv", "train_labels.csv"),
    "validation": ("valid.csv", "val.csv", "validation.csv", "valid_labels.csv", "val_labels.csv"),
    "test": ("test.csv", "test_labels.csv", "groundtruth.csv", "test_groundtruth.csv"),
}
_STUDY = re.compile(r"(?:^|/)(patient\d+/study\d+)(?:/([^/]+))?/?$", re.ASCII)
_FOLDER = re.compile(r"(?:^|/)(train|valid|val|test)/patient\d+/", re.ASCII)


@dataclasses.dataclass(eq=False)
class ChexpertConfig(LabelerConfig):
    """Options of the prepared CheXpert.

    Attributes:
      valid_as: the split of valid.csv, "validation" or "test"; the latter carves validation from
        train.csv and needs a raw folder without test.csv.
    """

    valid_as: str = "validation"

    def __post_init__(self):
        super().__post_init__()
        self._choice("valid_as", ("validation", "test"))


class Chexpert(PublishedBuilder):
    """train.csv, valid.csv and test.csv are the splits."""

    name = NAME
    builder_config_class = ChexpertConfig

    classes = own = vocabulary.CHEXPERT
    unaffected = ("Support Devices",)
    description = "CheXpert by its published splits."
    homepage = "https://stanfordmlgroup.github.io/competitions/chexpert"
    citation = "Irvin et al., CheXpert, AAAI 2019."
    raw_content = "train.csv, valid.csv and the folders train and valid"

    def films(self, raw: pathlib.Path, files: Files) -> tuple[list[Film], list[str]]:
        """Reads the csv files that are there."""
        tables = {split: files.table(names, ('Path', 'Study')) for split, names in _TABLES.items()}
        if not any(tables.values()):
            raise UserError(f"{NAME}: no train.csv, valid.csv or test.csv in {raw} or below it")
        if self.builder_config.valid_as == "test":
            if tables["test"]:
                raise UserError(f"{NAME}: valid_as is test, but {tables['test']} is there too.")
            tables |= {"validation": None, "test": tables["validation"]}
        films, notes = [], []
        for split, path in tables.items():
            if path:
                part, remarks = _read(path, split, files)
                films += part
                notes += remarks
            else:
                name = next(iter(_TABLES[split]))
                notes.append(f"there is no table of the {split} split, such as {name}")
        return films, notes


def _read(path: pathlib.Path, split: str, files: Files) -> tuple[list[Film], list[str]]:
    """Reads one table, by image (Path) or, as the test set's first form, by study (Study)."""
    columns = read_csv(path).columns
    read = match_classes(OBSERVATIONS, columns)
    if not read:
        raise UserError(f"{path}: no column of an observation, such as Cardiomegaly")
    by_image = any(column.casefold() == "path" for column in columns)
    studies = {} if by_image else _images_by_study(files)
    films, elsewhere, absent = [], [], []
    for where, cells in csv_rows(path, ["Path" if by_image else "Study"]):
        place = cells["Path" if by_image else "Study"].replace("\\", "/")
        match = _STUDY.search(place)
        if not match or (by_image and not match[2]):
            raise UserError(
                f"{where}: {place!r} is no path of CheXpert; expected one such as "
                "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg"
            )
        named = {name: cells[column] for name, column in read.items()}
        labels = labels_of(named, read, where)
        within = _FOLDER.search(place)
        folder = f"{within[1]}/" if within else ""
        for file in [match[2]] if by_image else studies.get(match[1], ()):
            films.append(_film(folder, match[1], file, split, labels, cells))
        if not by_image and match[1] not in studies:
            absent.append(match[1])
        if folder and {"train/": "train", "test/": "test"}.get(folder, "validation") != split:
            elsewhere.append(place)
    return films, [
        *builder.note(elsewhere, f"paths of {path.name} are in the folder of another split"),
        *builder.note(absent, f"studies of {path.name} have no image"),
    ]


def _film(
    folder: str, study: str, file: str, split: str, labels: dict[str, int], cells: dict[str, str]
) -> Film:
    told = (cells.get("Frontal/Lateral", "") or file).casefold()
    frontal = False if "lateral" in told else True if "frontal" in told else None
    view = vocabulary.view_of(cells.get("AP/PA", ""), qualified=False)
    return Film(
        image_id=f"{folder}{study}/{file}",
        patient_id=f"{NAME}/{study.partition('/')[0]}",
        path=f"{study}/{file}",
        split=split,
        labels=labels,
        view="L" if frontal is False else view if view != "L" else "",
        frontal=frontal,
        others={
            "sex": vocabulary.sex_of(cells.get("Sex", "")), "age": years(cells.get("Age", ""))
        },
    )


def _images_by_study(files: Files) -> dict[str, list[str]]:
    studies: dict[str, list[str]] = collections.defaultdict(list)
    for path in files.paths:
        match = _STUDY.search(path.as_posix())
        if match and match[2]:
            studies[match[1]].append(match[2])
    return studies
