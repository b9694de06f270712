"""Reads the folders chest_xray/train, val and test with NORMAL and PNEUMONIA in each.

Kermany et al., "Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning",
Cell 2018: 5,856 films, AP, of children of one to five years from Guangzhou, as Kaggle and Mendeley
Data distribute them. Two physicians graded the films, a third checked the test split. The folder is
the label; a file's name begins with its patient: `person12_bacteria_46` (numbers run for bacteria
and viruses apart), `IM-0115-0001`, `NORMAL2-IM-0427-0001`, `BACTERIA-1008087-0001`.
"""

import pathlib
import re

from jaxcxr.data.label_tables import NEGATIVE, POSITIVE
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import builder
from jaxcxr.xray.sources.published import Film, PublishedBuilder, PublishedConfig
from jaxcxr.xray.sources.published_files import Files

NAME = "kaggle_pneumonia"

_FOLDERS = {"normal": NEGATIVE} | dict.fromkeys(
    ("pneumonia", "bacteria", "bacterial", "virus", "viral"), POSITIVE
)
_SPLITS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation",
    "validation": "validation", "test": "test", "testing": "test",
}  # fmt: skip
_PERSON = re.compile(r"(person\d+_(?:bacteria|virus))_\d+", re.ASCII | re.IGNORECASE)
_NUMBERED = re.compile(r"((?:[A-Z0-9]+-)?(?:IM-)?\d+)(?:-\d+)+", re.ASCII | re.IGNORECASE)
_IMAGE = (".jpeg", ".jpg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".dcm")


class KagglePneumonia(PublishedBuilder):
    """The published folders are the splits; without them, patients are split by a hash."""

    name = NAME
    builder_config_class = PublishedConfig

    classes = own = ("Pneumonia",)
    description = "Chest X-ray images of children, normal or pneumonia, by their folders."
    homepage = "https://data.mendeley.com/datasets/rscbjbr9sj"
    citation = "Kermany et al., Cell 2018; CC BY 4.0."
    raw_content = "train, val and test, each with NORMAL and PNEUMONIA"

    def films(self, raw: pathlib.Path, files: Files) -> tuple[list[Film], list[str]]:
        """Lists the images of the class folders nearest to the raw folder."""
        images = [
            path for path in files.paths
            if path.suffix.casefold() in _IMAGE and path.parent.name.casefold() in _FOLDERS
        ]
        if not images:
            raise UserError(
                f"{NAME}: no images in folders NORMAL and PNEUMONIA, such as train/NORMAL, in {raw}"
            )
        split_at = any(_split_of(path) for path in images)
        tops = [_holder(path).parent if _split_of(path) else _holder(path) for path in images]
        films, nested, outside, unknown = [], [], [], []
        for path, top in zip(images, tops, strict=True):
            if top != tops[0]:
                nested.append(path.as_posix())
            elif split_at and not _split_of(path):
                outside.append(path.as_posix())
            else:
                patient = patient_of(path.name)
                if not patient:
                    unknown.append(path.name)
                    patient = path.name
                name = path.relative_to(top).as_posix()
                films.append(Film(
                    image_id=name, patient_id=f"{NAME}/{patient}", path=path.as_posix(),
                    split=_split_of(path), view="AP",
                    labels={"Pneumonia": _FOLDERS[path.parent.name.casefold()]},
                ))  # fmt: skip
        return films, [
            *builder.note(nested, "images are in a second tree of folders and left out"),
            *builder.note(outside, "images are in no folder of a split and left out"),
            *builder.note(unknown, "images count as patients of their own, as their names do not "
                          "tell one"),
        ]  # fmt: skip


def patient_of(name: str) -> str:
    """Returns the patient that the name of a file begins with, "" if it has another form."""
    stem = pathlib.PurePath(name).stem
    match = _PERSON.fullmatch(stem) or _NUMBERED.fullmatch(stem)
    return match[1] if match else ""


def _holder(path: pathlib.PurePath) -> pathlib.PurePath:
    """Returns the folder of the class folders; PNEUMONIA may hold one for each cause."""
    above = path.parent.parent
    return above.parent if above.name.casefold() in _FOLDERS else above


def _split_of(path: pathlib.PurePath) -> str:
    return _SPLITS.get(_holder(path).name.casefold(), "")
