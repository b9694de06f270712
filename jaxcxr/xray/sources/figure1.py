"""Reads the Figure 1 COVID-19 Chest X-ray Dataset Initiative: 55 radiographs from physicians.

Chung, Wong et al., DarwinAI and University of Waterloo, 2020. The finding is `COVID-19`,
`Pneumonia`, `No finding` or, for every fourth image, empty; `covid_tables.labels_of` derives the
labels, and images without a finding are left out. An image has the name of its `patientid`, such as
COVID-00003a, whose letter distinguishes the films of one patient. Most rows have no view and count
as frontal, which the images are.
"""

import dataclasses
import pathlib
import re
from typing import ClassVar

from jaxcxr.data.text_files import csv_rows
from jaxcxr.xray.sources import builder, covid_tables

NAME = "figure1"

_NEEDED = ("patientid", "sex", "age", "finding", "view")
_LETTER = re.compile(r"(?<=\d)[a-z]$", re.IGNORECASE)


@dataclasses.dataclass(eq=False)
class Figure1Config(builder.UnsplitConfig):
    """Options of the prepared Figure 1 data set."""

    SOURCE: ClassVar[str] = NAME


class Figure1(builder.XrayBuilder):
    """Split by a hash of the patient id, which is the image's name without its last letter."""

    name = NAME
    builder_config_class = Figure1Config

    description = "Figure 1 COVID-19 chest X-ray data set, split by a hash of the patient id."
    homepage = "https://github.com/agchung/Figure1-COVID-chestxray-dataset"
    citation = "Figure 1 COVID-19 Chest X-ray Dataset Initiative, DarwinAI and Waterloo, 2020."
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

    Returns:
      Rows; `image_id` has no ending, as the table has none.

    Raises:
      UserError: the file is absent or malformed.
    """
    path = raw / "metadata.csv"
    selection = covid_tables.Selection(NAME, val_fraction, test_fraction)
    for where, cells in csv_rows(path, _NEEDED, ragged=True):
        name = covid_tables.required(cells, "patientid", where)
        selection.add(cells, name, _LETTER.sub("", name))
    return selection.table(path)
