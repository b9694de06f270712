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
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

from jaxcxr.data import progress
from jaxcxr.errors import BadRecord, UserError
from jaxcxr.xray.images import dicom
from jaxcxr.xray.sources import builder
from jaxcxr.xray.sources import rsna_pneumonia_table as table

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

    SOURCE: ClassVar[str] = table.NAME

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
                f"{table.NAME}: split chestxray14 needs to know the patients; give --map FILE, or "
                f"--patients chestxray14 with {_MAP} in the raw folder."
            )
        super().__post_init__()


class RsnaPneumonia(builder.XrayBuilder):
    """Split by a hash of the patient id, or as ChestX-ray14 is."""

    name = table.NAME
    builder_config_class = RsnaPneumoniaConfig

    description = "RSNA Pneumonia Detection Challenge (stage 2), radiologists' labels and boxes."
    homepage = "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge"
    citation = "Shih et al., Radiology: Artificial Intelligence 2019. Data: RSNA and NIH."
    raw_content = f"{table.LABELS}, {table.CLASSES} and {_IMAGES}/"

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
        content = table.read_table(
            raw, config.val_fraction, config.test_fraction, map_file, test_list
        )
        paths = {row: files.pop(row.image_id, None) for row in content.rows}
        headers = read_headers(table.NAME, {row: path for row, path in paths.items() if path})
        paths = {
            dataclasses.replace(row, **described(headers.get(row))): path
            for row, path in paths.items()
        }
        left_out = builder.note(list(files), "images have no row and are left out")
        return builder.Collection.of(paths, (*content.notes, *left_out))


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
