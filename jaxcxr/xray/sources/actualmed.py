"""Reads the Actualmed COVID-19 Chest X-ray Dataset Initiative: 238 radiographs, 215 patients.

Chung, Wong et al., DarwinAI and University of Waterloo, with Actualmed and Universitat Jaume I,
2020. By its notes, `No finding` means "covid-19 viral infection is excluded", so only COVID-19 is
absent, and an empty finding "inconclusive", so the image is left out. Age and sex are unknown.
"""

import dataclasses
import pathlib
from typing import ClassVar

from jaxcxr.data.text_files import csv_rows
from jaxcxr.xray.sources import builder, covid_tables

NAME = "actualmed"

_NEEDED = ("patientid", "sex", "age", "finding", "view", "imagename")


@dataclasses.dataclass(eq=False)
class ActualmedConfig(builder.UnsplitConfig):
    """Options of the prepared Actualmed data set."""

    SOURCE: ClassVar[str] = NAME


class Actualmed(builder.XrayBuilder):
    """Split by a hash of the patient id."""

    name = NAME
    builder_config_class = ActualmedConfig

    description = "Actualmed COVID-19 chest X-ray data set, split by a hash of the patient id."
    homepage = "https://github.com/agchung/Actualmed-COVID-chestxray-dataset"
    citation = "Actualmed COVID-19 Chest X-ray Dataset Initiative, DarwinAI and Waterloo, 2020."
    raw_content = "metadata.csv and the folder images"

    def collect(self, raw: pathlib.Path) -> builder.Collection:
        """Rows of metadata.csv with their images."""
        config = self.builder_config
        table = read_table(raw, config.val_fraction, config.test_fraction)
        return covid_tables.with_images(table, [raw / "images", raw])


def read_table(
    raw: pathlib.Path, val_fraction: float, test_fraction: float
) -> builder.ImageListing:
    """Reads metadata.csv.

    Arguments:
      raw: the folder that holds it.
      val_fraction, test_fraction: as in `builder.UnsplitConfig`.

    Raises:
      UserError: the file is absent or malformed.
    """
    path = raw / "metadata.csv"
    selection = covid_tables.Selection(NAME, val_fraction, test_fraction, ruled_out=("COVID-19",))
    for where, cells in csv_rows(path, _NEEDED, ragged=True):
        name = covid_tables.required(cells, "imagename", where)
        selection.add(cells, name, covid_tables.required(cells, "patientid", where))
    return selection.table(path)
