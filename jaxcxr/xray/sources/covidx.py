"""COVIDx: a benchmark of COVID-19 radiographs, put together from other data sets by list files.

Wang, Lin and Wong, "COVID-Net", Scientific Reports 2020; lists of github.com/lindawangg/COVID-Net.
What the labels say stands at `covidx_table.read`. In the test lists of the versions 8 and 9 all
positive images are of RICORD and all negative ones of the RSNA: a score on them shows as much of
the source as of the disease.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import ClassVar

from jaxcxr.errors import UserError
from jaxcxr.xray.sources import (
    actualmed,
    builder,
    covid19_radiography,
    covid_chestxray,
    covidx_table,
    figure1,
    rsna_pneumonia,
    rsna_pneumonia_table,
)

NAME = "covidx"
KAGGLE = "kaggle"  # the version of the prebuilt data set, whose lists bear no number

_LISTS = ("{}_COVIDx{}.txt", "{}_COVIDx_{}.txt", "{}_COVIDx_CXR-{}.txt", "{}_split_v{}.txt")
_FIRST_LISTS = ("{}_COVIDx.txt", "{}_split.txt")
_SPLITS = ("train", "val", "test")
_VERSION = re.compile(r"[\w-]+", re.ASCII)
_TABLES = {
    module.NAME: module for module in (covid_chestxray, figure1, actualmed, rsna_pneumonia_table)
}
_RSNA = rsna_pneumonia_table.NAME


@dataclasses.dataclass(eq=False)
class CovidxConfig(builder.XrayConfig):
    """Options of the prepared COVIDx.

    Attributes:
      list_version: of the lists in RAW/labels, such as 3, 8A or 9B; "kaggle" for the prebuilt
        covidx-cxr2 with its own train.txt and test.txt.
    """

    SOURCE: ClassVar[str] = NAME

    list_version: str = "9B"

    def __post_init__(self):
        self.list_version = checked_version(self.list_version, self.SOURCE)
        super().__post_init__()


class Covidx(builder.XrayBuilder):
    """The published split, validation carved from the training list by patient."""

    name = NAME
    BUILDER_CONFIG_CLASS = CovidxConfig
    builder_config_class = CovidxConfig

    description = (
        "COVIDx by its published lists, validation carved from the training list by a hash of the "
        "patient id."
    )
    homepage = "https://github.com/lindawangg/COVID-Net"
    citation = "Wang, Lin and Wong, COVID-Net, Scientific Reports 2020."
    raw_content = (
        "labels/train_COVIDx9B.txt, labels/test_COVIDx9B.txt and a folder for each source: "
        f"{', '.join(dict.fromkeys(covidx_table.SOURCES.values()))}"
    )

    def collect(self, raw: pathlib.Path) -> builder.Collection:
        """Rows of the lists, with their images in the folders of their sources."""
        config = self.builder_config
        table = read_table(raw, config.list_version, config.val_fraction)
        return find_images(table, raw)


def checked_version(version: str, source: str) -> str:
    """Version of the lists in its usual letters.

    Raises:
      UserError: it is no word.
    """
    if not _VERSION.fullmatch(version):
        raise UserError(f"{source}: list_version is {version!r}; expected is 8A, 9B or the like.")
    return KAGGLE if version.lower() == KAGGLE else version.upper()


def read_table(raw: pathlib.Path, version: str, val_fraction: float) -> builder.ImageListing:
    """Reads the lists of a version, and what the sources' own tables say of their images.

    Arguments:
      raw: folder with `labels/`, or the lists themselves, and the folders of the sources.
      version: as in `CovidxConfig`.
      val_fraction: share of the training list's patients that go to validation.

    Returns:
      View, sex, age and boxes are those of the source, as far as its folder has a label file; and
      so is the patient, as some lists take two people for one.

    Raises:
      UserError: a list is absent or not in its form.
    """
    train, validation, test = _list_files(raw, version)
    listed = covidx_table.read(train, test, validation)
    rows, notes = list(listed.rows), list(listed.notes)
    for source in dict.fromkeys(row.source for row in rows):
        if source in _TABLES and (raw / source).is_dir():
            try:
                own = _TABLES[source].read_table(raw / source, 0.0, 0.0).rows
            except UserError as error:
                notes.append(f"{source}: view, sex and age are unknown: {error}")
                continue
            known = {covidx_table.image_of(row): row for row in own}
            rows = [_described(row, known) for row in rows]
    return builder.ImageListing(covidx_table.carved(rows, val_fraction), tuple(notes))


def find_images(table: builder.ImageListing, raw: pathlib.Path) -> builder.Collection:
    """Finds the images of the lists, by name, in the folders of their sources.

    Arguments:
      table: the rows.
      raw: folder with a folder per source, `covid_chestxray/` and so on, whose images lie in it or
        one folder below, those of the RSNA as `<patientId>.dcm`; or with `train/`, `val/` and
        `test/` of the prebuilt data set, where images are called as in the lists.

    Returns:
      A note per source says which of its images are absent.
    """
    find = _finder(table.rows, raw)
    paths = {row: find(row) for row in table.rows}
    headers = rsna_pneumonia.read_headers(
        NAME, {row: path for row, path in paths.items() if path and row.source == _RSNA}
    )
    items = []
    for row, path in paths.items():
        if path:
            known = rsna_pneumonia.described(headers.get(row))
            items.append(builder.Item.of(dataclasses.replace(row, **known), path))
    absent: dict[str, list[str]] = {}
    for row, path in paths.items():
        if not path:
            absent.setdefault(row.source, []).append(row.image_id)
    notes = list(table.notes)
    for source, names in absent.items():
        there = "" if (raw / source).is_dir() else ", a folder that is not there"
        notes += builder.note(names, f"listed images are not in {raw / source}{there}")
    missing = tuple(f"{source}/{name}" for source, names in absent.items() for name in names)
    return builder.Collection(tuple(items), missing, tuple(notes))


def _finder(
    rows: Sequence[builder.ImageRecord], raw: pathlib.Path
) -> Callable[[builder.ImageRecord], pathlib.Path | None]:
    """Function from row to image file."""
    prebuilt = builder.files_by_name(raw / split for split in _SPLITS)
    files: dict[str, dict[str, pathlib.Path]] = {}
    for source in {row.source for row in rows} - {covid19_radiography.NAME}:
        folder = raw if source == covidx_table.UNKNOWN_SOURCE else raw / source
        files[source] = builder.files_by_name(_with_subfolders(folder))
    folder = raw / covid19_radiography.NAME
    renamed = covid19_radiography.find_images(folder) if folder.is_dir() else {}

    def find(row: builder.ImageRecord) -> pathlib.Path | None:
        if row.image_id in prebuilt:
            return prebuilt[row.image_id]
        if row.source == covid19_radiography.NAME:
            return renamed.get(covid19_radiography.image_key(row.image_id))
        there = files[row.source]
        return there.get(row.image_id) or there.get(f"{covidx_table.image_of(row)[1]}.dcm")

    return find


def _with_subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
    below = sorted(folder.iterdir()) if folder.is_dir() else []
    return [folder, *(path for path in below if path.is_dir())]


def _described(
    row: builder.ImageRecord, known: dict[tuple[str, str], builder.ImageRecord]
) -> builder.ImageRecord:
    own = known.get(covidx_table.image_of(row))
    if own is None:
        return row
    return dataclasses.replace(
        row,
        patient_id=own.patient_id,
        view=own.view or row.view,
        sex=own.sex,
        age=own.age,
        boxes=own.boxes,
        box_size=own.box_size,
    )


def _list_files(
    raw: pathlib.Path, version: str
) -> tuple[pathlib.Path, pathlib.Path | None, pathlib.Path]:
    """The lists of train, validation and test; None where a version has none of validation."""
    if version == KAGGLE:
        patterns, wanted = ("{}.txt",), "train.txt and test.txt"
    else:
        patterns = (*_LISTS, *(_FIRST_LISTS if version == "1" else ()))
        wanted = f"train_COVIDx{version}.txt and test_COVIDx{version}.txt"
    found = []
    for split in _SPLITS:
        names = [pattern.format(split, version) for pattern in patterns]
        places = [folder / name for name in names for folder in (raw / "labels", raw)]
        found.append(next((path for path in places if path.is_file()), None))
    train, validation, test = found
    if train is None or test is None:
        lists = sorted({p.name for folder in (raw / "labels", raw) for p in folder.glob("*.txt")})
        raise UserError(
            f"{NAME}: {wanted} looked for in {raw / 'labels'} and {raw}, not found"
            + (f"; there are {', '.join(lists)}" if lists else "")
            + ". Choose with --list-version."
        )
    return train, validation, test
