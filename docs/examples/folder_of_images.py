"""Radiographs in a folder, with one csv: image_id, patient_id and a column for each finding."""

import dataclasses
import pathlib
from typing import ClassVar

from jaxcxr import registry
from jaxcxr.data import label_tables
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import builder

NAME = "folder_of_images"
ENTRY = registry.Source(f"{__name__}:FolderOfImages", "cxr")  # of registry.SOURCES[NAME]


@dataclasses.dataclass(eq=False)
class FolderConfig(builder.UnsplitConfig):
    """Options: those of every source, and the shares of patients in each split."""

    SOURCE: ClassVar[str] = NAME


class FolderOfImages(builder.XrayBuilder):
    """Reads labels.csv and images/ID.png; splits by a hash of the patient."""

    name = NAME
    builder_config_class = FolderConfig

    classes = ("Effusion", "Mass")
    description = "Radiographs in a folder, with one csv."
    homepage = ""
    citation = ""
    raw_content = "labels.csv and the folder images"

    def collect(self, raw: pathlib.Path) -> builder.Collection:
        """Names each image's file, patient, split and labels."""
        table = label_tables.read(raw / "labels.csv")
        patients = table.patients()
        if patients is None:
            raise UserError(f"{raw / 'labels.csv'}: no column patient_id; add one.")
        labels = table.labels(self.classes).tolist()
        paths = {}
        for image, patient, row in zip(table.ids, patients, labels, strict=True):
            path = raw / "images" / f"{image}.png"
            split = builder.split_of(patient, *self.builder_config.fractions)
            entry = builder.ImageRecord(image, patient, NAME, split, tuple(row))
            paths[entry] = path if path.exists() else None
        return builder.Collection.of(paths)
