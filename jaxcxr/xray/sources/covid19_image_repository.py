"""Reads the COVID-19 Image Repository of Hannover Medical School.

Winther et al., 2020, CC BY 3.0; 243 images of 71 patients in data.csv, many in series of one
patient. Every patient has COVID-19; nobody read the films, so all other findings are unknown.
"""

import pathlib

from jaxcxr.data import vocabulary
from jaxcxr.data.label_tables import FINDINGS, POSITIVE, UNKNOWN, years
from jaxcxr.data.text_files import csv_rows
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import builder, covid_chestxray

NAME = "covid19_image_repository"

_NEEDED = ("patient_id", "image_id", "sex", "age", "projection")
_PROJECTIONS = {"pa": "PA", "ap": "AP", "": ""}
_LABELS = tuple(POSITIVE if finding == "COVID-19" else UNKNOWN for finding in FINDINGS)


class Covid19ImageRepository(builder.XrayBuilder):
    """Split by a hash of the patient id."""

    name = NAME
    builder_config_class = builder.UnsplitConfig

    description = "COVID-19 Image Repository of Hannover, split by a hash of the patient id."
    homepage = "https://github.com/ml-workgroup/covid-19-image-repository"
    citation = "Winther et al., COVID-19 Image Repository, 2020."
    raw_content = "data.csv and the folder png"

    def collect(self, raw: pathlib.Path) -> builder.Collection:
        """Rows of data.csv with their images."""
        table = read_table(raw, *self.builder_config.fractions)
        return covid_chestxray.with_images(table, [raw / "png", raw])


def read_table(
    raw: pathlib.Path, val_fraction: float, test_fraction: float
) -> builder.ImageListing:
    """Reads data.csv.

    Arguments:
      raw: the folder that holds it.
      val_fraction, test_fraction: as in `builder.UnsplitConfig`.

    Returns:
      Rows; `image_id` is the file name in the folder png.

    Raises:
      UserError: the file is absent or malformed, or names an image twice.
    """
    path = raw / "data.csv"
    rows: dict[str, builder.ImageRecord] = {}
    others = []
    for where, cells in csv_rows(path, _NEEDED, ragged=True):
        name = covid_chestxray.required(cells, "image_id", where) + ".png"
        patient_id = f"{NAME}/{covid_chestxray.required(cells, 'patient_id', where)}"
        view = _PROJECTIONS.get(cells["projection"].lower())
        if view is None:
            others.append(name)
            continue
        if name in rows:
            raise UserError(f"{where}: a second row of the image {name}")
        rows[name] = builder.ImageRecord(
            image_id=name,
            patient_id=patient_id,
            source=NAME,
            split=builder.split_of(patient_id, val_fraction, test_fraction),
            labels=_LABELS,
            view=view,
            sex=vocabulary.sex_of(cells["sex"]),
            age=years(cells["age"]),
        )
    notes = builder.note(others, "images are left out, as their projection is neither PA nor AP")
    if not rows:
        raise UserError(f"{path}: no image is left to prepare. " + ". ".join(notes))
    return builder.ImageListing(tuple(rows.values()), notes)
