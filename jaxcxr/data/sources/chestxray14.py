"""ChestX-ray14: 112,120 frontal radiographs of 30,805 patients with 14 findings read from reports.

Wang et al., "ChestX-ray8", CVPR 2017; NIH Clinical Center. All images predate 2020, so COVID-19 is
known to be absent.
"""

import dataclasses
import functools
import io
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from jaxcxr.data import images, schema
from jaxcxr.data.sources import chestxray14_table as table
from jaxcxr.data.sources import progress, staging
from jaxcxr.errors import UserError

_RELEASED_SIZE = 1024  # the images as distributed; the boxes are in these pixels
_SIZES = (16, 4096)
_NAMED = 5
_RUN = {"variant": False}  # an option that does not change what is prepared


@dataclasses.dataclass(eq=False)
class ChestXray14Config(tfds.core.BuilderConfig):
    """Options of the prepared ChestX-ray14; those that change the records name the variant.

    Attributes:
      size: side of the stored images, pixels.
      equalize: "hist", "clahe" or "none"; applied after resizing.
      encoding: "png", "zstd", "raw" (all lossless) or "jpeg".
      val_fraction: share of the train_val patients that go to validation.
      allow_missing: prepare what is there when listed images are absent.
      raw: folder with Data_Entry_2017*.csv, train_val_list.txt, test_list.txt and the images.
      images: folder of the images, where they are not under the raw folder.
      max_bad: how many broken images are tolerated.
      workers: number of processes; 0 works in this process.
    """

    name: str = ""
    size: int = _RELEASED_SIZE
    equalize: str = "hist"
    encoding: str = "png"
    val_fraction: float = 0.125
    allow_missing: bool = False
    raw: str = dataclasses.field(default="", metadata=_RUN)
    images: str = dataclasses.field(default="", metadata=_RUN)
    max_bad: int = dataclasses.field(default=0, metadata=_RUN)
    workers: int = dataclasses.field(default=0, metadata=_RUN)

    def __post_init__(self):
        _choice("equalize", self.equalize, images.EQUALIZE)
        _choice("encoding", self.encoding, images.ENCODINGS)
        _between("size", self.size, *_SIZES)
        _between("val_fraction", self.val_fraction, 0.0, 0.9)
        _between("max_bad", self.max_bad, 0, 10**9)
        _between("workers", self.workers, 0, 1024)
        validation = "" if self.val_fraction == 0.125 else f"_val{self.val_fraction:g}"
        partial = "_partial" if self.allow_missing else ""
        self.name = self.name or f"{self.size}_{self.equalize}_{self.encoding}{validation}{partial}"


@dataclasses.dataclass(frozen=True)
class Item:
    """One image to prepare; `bytes` tells a changed file from the one prepared before."""

    row: table.Row
    path: str
    bytes: int


class ChestXray14(tfds.core.GeneratorBasedBuilder):
    """Official patient-disjoint split; records of `schema.xray_features`."""

    name = "chestxray14"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIG_CLASS = ChestXray14Config
    builder_config_class = ChestXray14Config

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="NIH ChestX-ray14, official test split, validation carved from train_val "
            "by a hash of the patient id.",
            features=schema.xray_features(),
            homepage="https://nihcc.app.box.com/v/ChestXray-NIHCC",
            citation="Wang et al., ChestX-ray8, CVPR 2017. Data: NIH Clinical Center.",
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        config = self.builder_config
        if not config.raw:
            raise UserError(
                "chestxray14: where is the data? Give --raw DIR with Data_Entry_2017*.csv, "
                "train_val_list.txt, test_list.txt and the images."
            )
        raw = pathlib.Path(config.raw).expanduser().absolute()
        content = table.read(raw, config.val_fraction)
        for note in content.notes:
            progress.say(f"chestxray14: {note}")
        folder = pathlib.Path(config.images).expanduser().absolute() if config.images else raw
        splits = staging.staged_splits(
            find_images(content.rows, folder, config.allow_missing),
            functools.partial(
                encode, size=config.size, equalize=config.equalize, encoding=config.encoding
            ),
            directory=staging.directory_of(self),
            workers=config.workers,
            label=self.name,
            max_bad=config.max_bad,
        )
        # TFDS fails on a split without records, which allow_missing can lead to.
        return {name: self._generate_examples(part) for name, part in splits.items() if len(part)}

    def _generate_examples(self, records: staging.Staged) -> Iterator[tuple[str, dict]]:
        for key, record in records:
            yield key, {**record, "image": io.BytesIO(record["image"])}


def find_images(
    rows: tuple[table.Row, ...], folder: pathlib.Path, allow_missing: bool
) -> dict[str, list[Item]]:
    """Finds the image of each row on disk.

    Arguments:
      rows: the label table.
      folder: holds `images_001/images/` ... `images_012/images/`, or `images/`, or the files
        themselves. Endings are not compared, so that a copy as JPEG is found too.
      allow_missing: leave out rows without an image, and say so, instead of failing.

    Returns:
      Split -> items in the order of the rows.

    Raises:
      UserError: an image is absent and `allow_missing` is False; or none at all is there.
    """
    files = _files_by_stem(folder)
    splits: dict[str, list[Item]] = {"train": [], "validation": [], "test": []}
    missing = []
    for row in rows:
        entry = files.get(pathlib.PurePath(row.image_id).stem)
        if entry is None:
            missing.append(row.image_id)
        else:
            splits[row.split].append(Item(row, entry.path, entry.stat().st_size))
    if len(missing) == len(rows):
        raise UserError(
            f"chestxray14: none of the {len(rows)} listed images is under {folder}; looked in "
            "images_*/images/, images_*/, images/ and the folder itself. Give their folder with "
            "--images DIR."
        )
    if missing:
        names = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        fact = f"chestxray14: {len(missing)} of {len(rows)} listed images are absent under {folder}"
        if not allow_missing:
            raise UserError(f"{fact}: {names}. Prepare what is there with --allow-missing.")
        counts = ", ".join(f"{name} {len(part)}" for name, part in splits.items())
        progress.say(f"{fact}: {names}. Prepared is what is there: {counts}.")
    return splits


def _files_by_stem(folder: pathlib.Path) -> dict[str, os.DirEntry]:
    if not folder.is_dir():
        raise UserError(f"chestxray14: no image folder {folder}")
    places = [folder, folder / "images", *sorted(folder.glob("images_*"))]
    places += [place / "images" for place in places[2:]]
    files: dict[str, os.DirEntry] = {}
    for place in filter(pathlib.Path.is_dir, places):
        with os.scandir(place) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_file():
                    files.setdefault(pathlib.PurePath(entry.name).stem, entry)
    return files


def encode(item: Item, *, size: int, equalize: str, encoding: str) -> staging.Record:
    """Makes one record: reads, resizes, equalises and encodes the image.

    Arguments:
      item: the row and its image file.
      size, equalize, encoding: as in `ChestXray14Config`.

    Returns:
      (image id, record of `schema.xray_features` with the image as bytes).

    Raises:
      images.BadImage: the file cannot be read.
    """
    row = item.row
    stored = images.equalize(images.resize(images.read(item.path), size), equalize)
    boxes = np.array(row.boxes, np.float32).reshape(-1, 5)
    boxes[:, 1:] *= size / _RELEASED_SIZE
    return row.image_id, {
        "image": images.encode(stored, encoding),
        "image_id": row.image_id,
        "patient_id": row.patient_id,
        "view": row.view,
        "sex": row.sex,
        "age": row.age,
        "labels": np.array(row.labels, np.int8),
        "boxes": boxes,
        "original_size": np.array(row.original_size, np.int32),
    }


def _choice(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"chestxray14: {option} is {value!r}; allowed: {', '.join(allowed)}.")


def _between(option: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise UserError(f"chestxray14: {option} is {value}; allowed: {least} to {most}.")
