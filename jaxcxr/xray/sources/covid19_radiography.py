"""Reads the COVID-19 Radiography Database: four classes, gathered from other data sets.

Chowdhury et al., "Can AI help in screening viral and COVID-19 pneumonia?", IEEE Access 2020; Rahman
et al., Computers in Biology and Medicine 2021. The class of an image is its only label:

- COVID: COVID-19 present, all else unknown.
- Viral Pneumonia (children of Guangzhou, 2018 and before): Pneumonia present, COVID-19 absent.
- Lung_Opacity (films of the RSNA challenge, 2017 and before, with an opacity that radiologists
  read as pneumonia): Pneumonia present, COVID-19 absent.
- Normal (by the radiologists of the RSNA challenge and the physicians of Guangzhou): all findings
  absent.

Releases 1 to 3 name images `COVID-19(216).png` or `COVID (216).png` in the class folders, release 4
`images/COVID-216.png`. The workbooks use yet other spellings, so class and number identify an
image.
"""

import collections
import dataclasses
import pathlib
import re
import urllib.parse
import warnings
from collections.abc import Iterator

import openpyxl

from jaxcxr.data.label_tables import FINDINGS, NEGATIVE, POSITIVE, UNKNOWN
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import builder

NAME = "covid19_radiography"

_CLASSES = {
    "COVID": {"COVID-19": POSITIVE},
    "Lung_Opacity": {"Pneumonia": POSITIVE, "COVID-19": NEGATIVE},
    "Normal": dict.fromkeys(FINDINGS, NEGATIVE),
    "Viral Pneumonia": {"Pneumonia": POSITIVE, "COVID-19": NEGATIVE},
}
_SPELLINGS = {"covid": "COVID", "covid19": "COVID"} | {
    re.sub(r"[\W_]", "", name).lower(): name for name in _CLASSES
}
# In COVID-19(216) the 19 belongs to the class, in COVID-19 it is the number of the image.
_IMAGE = re.compile(
    r"(covid(?:[\W_]*19(?=[\W_]+\d))?|normal|viral[\W_]*pneumonia|lung[\W_]*opacity)"
    r"[\W_]*(\d{1,7})[\W_]*",
    re.ASCII | re.IGNORECASE,
)
_ENDING = re.compile(r"\.(png|jpe?g)$", re.IGNORECASE)
_COLUMNS = ("FILE NAME", "URL")


@dataclasses.dataclass(frozen=True)
class WorkbookRecords:
    """Holds rows in the order of the workbooks, the URL of origin by image, and remarks."""

    rows: tuple[builder.ImageRecord, ...]
    urls: dict[str, str]
    notes: tuple[str, ...]


class Covid19Radiography(builder.XrayBuilder):
    """Split by a hash of the image's name, as the data set has no patient ids."""

    name = NAME
    builder_config_class = builder.UnsplitConfig

    description = "COVID-19 Radiography Database, split by a hash of the image's name."
    homepage = "https://www.kaggle.com/tawsifurrahman/covid19-radiography-database"
    citation = "Chowdhury et al., IEEE Access 2020; Rahman et al., Comput. Biol. Med. 2021."
    raw_content = "COVID.metadata.xlsx ... and the class folders COVID, Normal, Viral Pneumonia ..."

    def collect(self, raw: pathlib.Path) -> builder.Collection:
        """Rows of the workbooks, with their images."""
        table = read_table(raw, *self.builder_config.fractions)
        files = find_images(raw)
        rows = {row: files.pop(image_key(row.image_id) or "", None) for row in table.rows}
        unlisted = [path.name for path in files.values()]
        left_out = builder.note(unlisted, "images are in no workbook and are left out")
        return builder.Collection.of(rows, (*table.notes, *left_out))


def read_table(raw: pathlib.Path, val_fraction: float, test_fraction: float) -> WorkbookRecords:
    """Reads the workbooks `<class>.metadata.xlsx` of the classes that are there.

    Arguments:
      raw: the data set's folder or the one above it.
      val_fraction, test_fraction: as in `builder.UnsplitConfig`.

    Returns:
      One row per image, named as in release 4: `COVID-216.png`. Each is its own patient.

    Raises:
      UserError: there is no workbook, or one is unreadable, lacks the columns FILE NAME and URL, or
        names an image of another class.
    """
    rows: dict[str, builder.ImageRecord] = {}
    urls: dict[str, str] = {}
    repeated = []
    books = _workbooks(raw)
    for label, path in books.items():
        labels = tuple(_CLASSES[label].get(finding, UNKNOWN) for finding in FINDINGS)
        for line, name, url in _cells(path):
            key = image_key(name)
            if key is None or not key.startswith(f"{label}-"):
                raise UserError(
                    f"{path}: row {line}: {name!r} is not an image of class {label}; expected a "
                    f"name such as {label}-1"
                )
            image_id, patient_id = f"{key}.png", f"{NAME}/{key}"
            if image_id in rows:
                repeated.append(image_id)
                continue
            split = builder.split_of(patient_id, val_fraction, test_fraction)
            rows[image_id] = builder.ImageRecord(image_id, patient_id, NAME, split, labels)
            urls[image_id] = url
    hosts = collections.Counter(map(_host, urls.values())).most_common()
    absent = [label for label in _CLASSES if label not in books]
    notes = (
        "there are no patient ids: each image counts as a patient of its own, so films of one "
        "patient can be in several splits",
        "origins of the images: " + ", ".join(f"{host} {count}" for host, count in hosts),
        *builder.note(absent, "classes have no workbook and are left out"),
        *builder.note(repeated, "rows are repetitions and count once"),
    )
    return WorkbookRecords(tuple(rows.values()), urls, notes)


def image_key(name: str) -> str | None:
    """Returns `COVID-216` for `COVID (216).png`, `covid-19(216)` etc.; None for other names."""
    match = _IMAGE.fullmatch(_ENDING.sub("", name.strip()))
    if not match:
        return None
    return f"{_SPELLINGS[_squeezed(match[1])]}-{int(match[2])}"


def find_images(raw: pathlib.Path) -> dict[str, pathlib.Path]:
    """Finds the image files of the class folders by `image_key`, in `images/` or the folder."""
    files: dict[str, pathlib.Path] = {}
    for place in _places(raw):
        for folder in sorted(place.iterdir()):
            if folder.is_dir() and _squeezed(folder.name) in _SPELLINGS:
                for name, path in builder.files_by_name([folder / "images", folder]).items():
                    if (key := image_key(name)) and _ENDING.search(name):
                        files.setdefault(key, path)
    return files


def _workbooks(raw: pathlib.Path) -> dict[str, pathlib.Path]:
    books: dict[str, pathlib.Path] = {}
    for place in _places(raw):
        for path in sorted(place.iterdir()):
            stem, _, rest = path.name.lower().partition(".")
            if rest == "metadata.xlsx" and _squeezed(stem) in _SPELLINGS:
                books.setdefault(_SPELLINGS[_squeezed(stem)], path)
    if not books:
        raise UserError(
            f"{NAME}: no COVID.metadata.xlsx, Normal.metadata.xlsx ... in {raw} or a folder in it"
        )
    return {label: books[label] for label in _CLASSES if label in books}


def _places(raw: pathlib.Path) -> list[pathlib.Path]:
    """Lists the folder and its subfolders, one of which is the data set's own."""
    if not raw.is_dir():
        raise UserError(f"{NAME}: no folder {raw}; give the raw data with --raw DIR")
    return [raw, *sorted(path for path in raw.iterdir() if path.is_dir())]


def _cells(path: pathlib.Path) -> Iterator[tuple[int, str, str]]:
    """Yields the rows of a workbook's first sheet as (row number, file name, URL)."""
    table = _sheet(path)
    header = [str(cell or "").strip().upper() for cell in table[0]] if table else []
    absent = [name for name in _COLUMNS if name not in header]
    if absent:
        raise UserError(
            f"{path}: row 1: no column {', '.join(absent)}; expected FILE NAME, FORMAT, SIZE, "
            "URL"
        )
    for line, cells in enumerate(table[1:], 2):
        named = dict(zip(header, cells, strict=False))
        name, url = (str(named.get(column) or "").strip() for column in _COLUMNS)
        if name:
            yield line, name, url
        elif any(cell is not None for cell in cells):
            raise UserError(f"{path}: row {line}: no FILE NAME")


def _sheet(path: pathlib.Path) -> list[tuple]:
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and dates that are not read here
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            sheet = book.worksheets[0]
            sheet.reset_dimensions()  # what a file says of its size need not be so
            return list(sheet.iter_rows(values_only=True))
    except Exception as error:  # whatever zipfile and the XML parsers below openpyxl raise
        reason = str(error) or type(error).__name__
        raise UserError(f"{path}: no Excel workbook (.xlsx) that can be read: {reason}") from error


def _squeezed(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _host(url: str) -> str:
    try:
        return urllib.parse.urlsplit(url).hostname or "unknown"
    except ValueError:
        return "unknown"
