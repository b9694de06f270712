"""Reads covid-chestxray-dataset: films and CT slices of COVID-19 and other pneumonias.

Cohen, Morrison, Dao, "COVID-19 Image Data Collection", 2020. The finding is the diagnosis of the
patient; `covid_tables.labels_of` derives the labels. Known forms of metadata.csv: the first
(`Patientid`, no modality, no folder), that of June 2020, and the last (`RT_PCR_positive`, findings
as paths). In some versions the patient id 62 means two people (issue 36 there), distinguished by
age and sex.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import ClassVar

from jaxcxr.data.label_tables import years
from jaxcxr.data.text_files import csv_rows
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import builder, covid_tables

NAME = "covid_chestxray"

_NEEDED = ("patientid", "sex", "age", "finding", "view", "filename")
_TWO_PEOPLE = "62"


@dataclasses.dataclass(eq=False)
class CovidChestXrayConfig(builder.UnsplitConfig):
    """Options of the prepared covid-chestxray-dataset.

    Attributes:
      views: which images to take, of PA, AP, AP Supine, AP Erect, L and CT (the slices).
    """

    SOURCE: ClassVar[str] = NAME

    views: tuple[str, ...] = covid_tables.FRONTAL

    def __post_init__(self):
        strange = [view for view in self.views if view not in covid_tables.VIEWS]
        if strange or not self.views:
            raise UserError(
                f"{NAME}: views are {', '.join(map(repr, self.views)) or 'none'}; allowed: some "
                f"of {', '.join(covid_tables.VIEWS)}."
            )
        self.views = tuple(view for view in covid_tables.VIEWS if view in self.views)
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
        table = read_table(raw, config.val_fraction, config.test_fraction, config.views)
        return covid_tables.with_images(table, [raw / "images", raw])


def read_table(
    raw: pathlib.Path,
    val_fraction: float,
    test_fraction: float,
    views: Sequence[str] = covid_tables.FRONTAL,
) -> builder.ImageListing:
    """Reads metadata.csv.

    Arguments:
      raw: the folder that holds it.
      val_fraction, test_fraction: as in `builder.UnsplitConfig`.
      views: of `covid_tables.VIEWS`; others, and volumes, are left out and noted.

    Raises:
      UserError: the file is absent or malformed.
    """
    path = raw / "metadata.csv"
    selection = covid_tables.Selection(NAME, val_fraction, test_fraction, views)
    for where, cells in csv_rows(path, _NEEDED, ragged=True):
        name = covid_tables.required(cells, "filename", where)
        patient = covid_tables.required(cells, "patientid", where)
        if cells.get("folder", "").casefold() == "volumes":
            selection.remark(name, "volumes are left out")
        else:
            selection.add(cells, name, _one_person(patient, cells))
    return selection.table(path)


def _one_person(patient: str, cells: dict[str, str]) -> str:
    if patient != _TWO_PEOPLE:
        return patient
    age = years(cells["age"])
    return f"{patient}-{age if age >= 0 else ''}-{covid_tables.sex_of(cells)}"
