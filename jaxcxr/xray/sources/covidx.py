"""Reads COVIDx: a benchmark of COVID-19 radiographs that lists compose from other data sets.

Wang, Lin and Wong, "COVID-Net", Scientific Reports 2020; lists of github.com/lindawangg/COVID-Net.
`covidx_table.read` derives the labels. In the test lists of versions 8 and 9 all positive images
are from RICORD and all negative ones from the RSNA, so a score on them may measure the source
instead of the disease.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence

from jaxcxr.errors import UserError
from jaxcxr.xray.sources import (
    builder,
    covid19_radiography,
    covid_chestxray,
    covidx_table,
    rsna_pneumonia,
)

NAME = "covidx"
KAGGLE = "kaggle"  # the version of the prebuilt data set, which has lists without a number

_LISTS = ("{}_COVIDx{}.txt", "{}_COVIDx_{}.txt", "{}_COVIDx_CXR-{}.txt", "{}_split_v{}.txt")
_FIRST_LISTS = ("{}_COVIDx.txt", "{}_split.txt")
_SPLITS = ("train", "val", "test")
_VERSION = re.compile(r"[\w-]+", re.ASCII)
_TABLES = {
    covid_chestxray.NAME: covid_chestxray.read_table,
    covid_chestxray.FIGURE1: covid_chestxray.read_figure1,
    covid_chestxray.ACTUALMED: covid_chestxray.read_actualmed,
    rsna_pneumonia.NAME: rsna_pneumonia.read_table,
}


@dataclasses.dataclass(eq=False)
class CovidxConfig(builder.XrayConfig):
    """Options of the prepared COVIDx.

    Attributes:
      list_version: of the lists in RAW/labels, such as 3, 8A or 9B; "kaggle" for the prebuilt
        covidx-cxr2 with its own train.txt and test.txt.
    """

    list_version: str = "9B"

    def __post_init__(self):
        self.list_version = checked_version(self.list_version)
        super().__post_init__()


class Covidx(builder.XrayBuilder):
    """The published split, validation carved from the training list by patient."""

    name = NAME
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


def checked_version(version: str) -> str:
    """Returns the version of the lists in its usual spelling.

    Raises:
      UserError: it is not a word.
    """
    if not _VERSION.fullmatch(version):
        raise UserError(f"list_version is {version!r}; expected a name such as 8A or 9B.")
    return KAGGLE if version.lower() == KAGGLE else version.upper()


def read_table(raw: pathlib.Path, version: str, val_fraction: float) -> builder.ImageListing:
    """Reads the lists of a version, completed by the sources' own tables.

    Arguments:
      raw: folder with `labels/`, or the lists themselves, and the folders of the sources.
      version: as in `CovidxConfig`.
      val_fraction: share of the training list's patients that go to validation.

    Returns:
      Rows. View, sex, age, boxes and patient (some lists confuse two people) come from the source
      if its folder has a label file.

    Raises:
      UserError: a list is absent or malformed.
    """
    train, validation, test = _list_files(raw, version)
    listed = covidx_table.read(train, test, validation)
    rows, notes = list(listed.rows), list(listed.notes)
    for source in dict.fromkeys(row.source for row in rows):
        if source in _TABLES and (raw / source).is_dir():
            try:
                own = _TABLES[source](raw / source, 0.0, 0.0).rows
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
      raw: holds a folder per source, such as `covid_chestxray/`, with images in it or one level
        below (the RSNA's as `<patientId>.dcm`); or `train/`, `val/` and `test/` of the prebuilt
        data set, with images named as in the lists.

    Returns:
      A note per source says which of its images are absent.
    """
    find = _finder(table.rows, raw)
    paths = {row: find(row) for row in table.rows}
    rsna = {row: path for row, path in paths.items() if row.source == rsna_pneumonia.NAME}
    headers = rsna_pneumonia.read_headers(NAME, {row: path for row, path in rsna.items() if path})
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
    """Returns a function from row to image file."""
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
            return renamed.get(covid19_radiography.image_key(row.image_id) or "")
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
    """Finds the lists of train, validation (None if the version has none) and test."""
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
            f"{NAME}: {wanted} are neither in {raw / 'labels'} nor in {raw}"
            + (f"; there are {', '.join(lists)}" if lists else "")
            + ". Choose with --list-version."
        )
    return train, validation, test
