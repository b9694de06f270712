"""Reads ChestX-ray14: 112,120 frontal radiographs of 30,805 patients, 14 findings from reports.

Wang et al., "ChestX-ray8", CVPR 2017; NIH Clinical Center. All images predate 2020, so COVID-19 is
absent. Known forms of the csv are v1 and v2020 of the NIH (unquoted brackets in the header split
two names into four columns; lines may end with a comma), `Patient Sex` for `Patient Gender`, and
Kaggle's sample (other names of the size columns, ages such as 060Y).
"""

import dataclasses
import math
import pathlib
import re
from collections.abc import Iterable

from jaxcxr.data import vocabulary
from jaxcxr.data.label_tables import ALIASES, FINDINGS, findings_of, years
from jaxcxr.data.text_files import csv_rows, read_text
from jaxcxr.errors import UserError, some
from jaxcxr.xray.sources import builder
from jaxcxr.xray.sources.builder import ImageListing, ImageRecord, note, split_of

_CSV = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv", "Data_Entry*.csv", "sample_labels.csv")
_LISTS = {
    "train_val": ("train_val_list.txt", "train_val_list_NIH.txt"),
    "test": ("test_list.txt", "test_list_NIH.txt"),
}
_BOXES = ("BBox_List_2017.csv", "BBox_List_2017_Official_NIH.csv")
_NEEDED = ("Image Index", "Finding Labels", "Patient ID", "Patient Age")
_WIDTHS = ("OriginalImage[Width", "OriginalImageWidth")
_HEIGHTS = ("Height]", "OriginalImageHeight")
_PIXELS = re.compile(r"\d{1,6}", re.ASCII)
_PATIENT = re.compile(r"\d{1,8}", re.ASCII)
_RELEASED = (1024, 1024)  # the images as distributed; the boxes are in these pixels


@dataclasses.dataclass(eq=False)
class ChestXray14Config(builder.XrayConfig):
    """Options of the prepared ChestX-ray14.

    Attributes:
      val_fraction: share of the train_val patients that go to validation.
      images: folder of the images, where they are not under the raw folder.
    """

    images: str = dataclasses.field(default="", metadata=builder.RUN_ONLY)


class ChestXray14(builder.XrayBuilder):
    """Official patient-disjoint split, validation carved from train_val by patient."""

    name = "chestxray14"
    builder_config_class = ChestXray14Config

    description = (
        "NIH ChestX-ray14, official test split, validation carved from train_val by a hash of the "
        "patient id."
    )
    homepage = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
    citation = "Wang et al., ChestX-ray8, CVPR 2017. Data: NIH Clinical Center."
    raw_content = "Data_Entry_2017*.csv, train_val_list.txt, test_list.txt and the images"

    def collect(self, raw: pathlib.Path) -> builder.Collection:
        """Returns the rows of the csv that are in a split list, with their images."""
        config = self.builder_config
        content = read_table(raw, config.val_fraction)
        folder = builder.given_path("images", config.images) if config.images else raw
        return find_images(content, folder)


def find_images(content: builder.ImageListing, folder: pathlib.Path) -> builder.Collection:
    """Finds the image of each row on disk.

    Arguments:
      content: the label table.
      folder: holds `images_001/images/` ... `images_012/images/`, or `images/`, or the files.
        Endings may differ, so that JPEG copies are found too.

    Raises:
      UserError: no such folder, or none of the images in it.
    """
    if not folder.is_dir():
        raise UserError(f"chestxray14: no image folder {folder}")
    places = [folder, folder / "images", *sorted(folder.glob("images_*"))]
    places += [place / "images" for place in places[2:]]
    files = builder.files_by_name(places, endings=False)
    paths = {row: files.get(pathlib.PurePath(row.image_id).stem) for row in content.rows}
    if not any(paths.values()):
        raise UserError(
            f"chestxray14: none of the {len(paths)} listed images is under {folder}; looked in "
            "images_*/images/, images_*/, images/ and the folder itself. Give their folder with "
            "--images DIR."
        )
    return builder.Collection.of(paths, content.notes)


def read_table(raw: pathlib.Path, val_fraction: float) -> ImageListing:
    """Reads the csv, the split lists and the boxes.

    Arguments:
      raw: folder with Data_Entry_2017*.csv, train_val_list.txt, test_list.txt and, optionally,
        BBox_List_2017.csv.
      val_fraction: share of the train_val patients that go to validation, by `split_of`.

    Returns:
      The rows in a split list. Listed images without a row, rows without a list and repeated rows
      are left out and noted.

    Raises:
      UserError: a file is absent or malformed; an image or a patient is in both lists; two rows
        contradict each other.
    """
    if not raw.is_dir():
        raise UserError(f"chestxray14: no folder {raw}; give the raw data with --raw DIR")
    listed = _listed(raw)
    boxes = _boxes(raw)
    rows: dict[str, ImageRecord] = {}
    unlisted, repeated = [], []
    path = _find(raw, _CSV)
    for where, cells in csv_rows(path, _NEEDED, ragged=True):
        row = _row(cells, listed, boxes, val_fraction, where)
        if row.split == "":
            unlisted.append(row.image_id)
        elif row.image_id not in rows:
            rows[row.image_id] = row
        elif rows[row.image_id] == row:
            repeated.append(row.image_id)
        else:
            raise UserError(f"{where}: a second row for {row.image_id} contradicts the first")
    _check_patients(rows.values(), path, raw)
    if not rows:
        raise UserError(f"chestxray14: no image of {path} is in the split lists in {raw}")
    notes = (
        *note(unlisted, f"rows of {path.name} are in no split list and are left out"),
        *note(repeated, f"rows of {path.name} are repetitions and count once"),
        *note([n for n in listed if n not in rows], f"listed images have no row in {path.name}"),
    )
    return ImageListing(tuple(rows.values()), notes)


def _row(cells, listed, boxes, val_fraction, where) -> ImageRecord:
    image_id = cells["Image Index"].strip()
    if not _PATIENT.fullmatch(cells["Patient ID"]):
        raise UserError(f"{where}: {cells['Patient ID']!r} is not a patient id of ChestX-ray14")
    patient_id = cells["Patient ID"].zfill(8)
    split = listed.get(image_id, "")
    if split == "train_val":
        split = split_of(patient_id, val_fraction)
    try:
        labels = findings_of(cells["Finding Labels"])
    except ValueError as error:
        raise UserError(f"{where}: {cells['Finding Labels']!r} {error}") from None
    return ImageRecord(
        image_id=image_id,
        patient_id=patient_id,
        source="chestxray14",
        split=split,
        view=vocabulary.view_of(cells.get("View Position", "")),
        sex=vocabulary.sex_of(cells.get("Patient Gender") or cells.get("Patient Sex") or ""),
        age=years(cells["Patient Age"]),
        labels=labels,
        original_size=(_number(cells, _HEIGHTS), _number(cells, _WIDTHS)),
        boxes=tuple(boxes.get(image_id, ())),
        box_size=_RELEASED,
    )


def _number(cells: dict[str, str], columns: tuple[str, ...]) -> int:
    text = next((cells[column] for column in columns if column in cells), "")
    return int(text) if _PIXELS.fullmatch(text) else 0


def _listed(raw: pathlib.Path) -> dict[str, str]:
    """Image id -> "train_val" or "test"."""
    listed: dict[str, str] = {}
    for split, names in _LISTS.items():
        path = _find(raw, names)
        for line in read_text(path).split():
            if listed.setdefault(line, split) != split:
                raise UserError(f"{path}: {line} is in the train_val list too")
    return listed


def _boxes(raw: pathlib.Path) -> dict[str, list[tuple[float, ...]]]:
    boxes: dict[str, list[tuple[float, ...]]] = {}
    path = next((raw / name for name in _BOXES if (raw / name).exists()), None)
    if path is None:
        return boxes
    for where, cells in csv_rows(path, ("Image Index", "Finding Label"), ragged=True):
        name = cells["Finding Label"].strip()
        name = ALIASES.get(name, name)
        try:
            # The one header "Bbox [x,y,w,h]" splits at its commas, over the very four columns.
            corner_and_size = [float(cells[c]) for c in ("Bbox [x", "y", "w", "h]")]
            if not all(map(math.isfinite, corner_and_size)):
                raise ValueError("not finite")
            boxes.setdefault(cells["Image Index"].strip(), []).append(
                (float(FINDINGS.index(name)), *corner_and_size)
            )
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{where}: no box of a finding of ChestX-ray14 ({error}); expected the "
                "columns Image Index, Finding Label, Bbox [x, y, w, h]"
            ) from error
    return boxes


def _check_patients(
    rows: Iterable[ImageRecord], path: pathlib.Path, raw: pathlib.Path
) -> None:
    """Refuses patients of the csv at `path` whose images stand in both lists."""
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row.patient_id, set()).add(row.split)
    both = sorted(patient for patient, names in splits.items() if len(names) > 1)
    if both:
        lists = " and ".join(str(_find(raw, names)) for names in _LISTS.values())
        raise UserError(
            f"{path}: {len(both)} patients are in both split lists, {lists}: {some(both)}; take "
            "the official csv, train_val_list.txt and test_list.txt"
        )


def _find(raw: pathlib.Path, patterns: tuple[str, ...]) -> pathlib.Path:
    for pattern in patterns:
        for path in sorted(raw.glob(pattern)):
            return path
    raise UserError(f"chestxray14: there is no {' or '.join(patterns)} in {raw}")
