"""Builds data sets of real radiographs: rows, files, splits and encoding.

A source subclasses `XrayBuilder` and implements `collect`, which reads its label files and finds
its images. All the rest is shared.
"""

import abc
import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from jaxcxr.data import progress, staging
from jaxcxr.data.dataset import RUN_ONLY
from jaxcxr.errors import BadRecord, UserError, some
from jaxcxr.xray.images import film_files, image_files
from jaxcxr.xray.sources import understood
from jaxcxr.xray.sources.radiograph_set import RadiographSet, xray_features, xray_record

MISSING = "missing.txt"  # beside the records: listed images that are absent, one per line
_SIZES = (16, 4096)
_VALIDATION = 0.125


@dataclasses.dataclass(frozen=True)
class ImageRecord:
    """Describes one image from the label files.

    Attributes:
      image_id: its name within its source.
      patient_id: unique to the patient among all sources.
      source: the source that published the image; a composed data set has several.
      split: "train", "validation" or "test".
      labels: 1, 0 or -1 (unknown), one per class of the data set.
      view: "PA", "AP", "L" or "".
      sex: "M", "F" or "".
      age: years, -1 unknown.
      original_size: (height, width) of the film in pixels; (0, 0): the image file's.
      boxes: (class index, x, y, width, height) in pixels of an image of `box_size`.
      box_size: (height, width); (0, 0): the image file's.
    """

    image_id: str
    patient_id: str
    source: str
    split: str
    labels: tuple[int, ...]
    view: str = ""
    sex: str = ""
    age: int = -1
    original_size: tuple[int, int] = (0, 0)
    boxes: tuple[tuple[float, ...], ...] = ()
    box_size: tuple[int, int] = (0, 0)


@dataclasses.dataclass(frozen=True)
class ImageListing:
    """Holds the rows of label files in order, and remarks on what was left out."""

    rows: tuple[ImageRecord, ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Item:
    """Describes one image to prepare; `bytes` reveals that the file has changed."""

    row: ImageRecord
    path: str
    bytes: int

    @classmethod
    def of(cls, row: ImageRecord, path: str | os.PathLike) -> "Item":
        """Makes the item of an existing image file."""
        return cls(row, str(path), os.stat(path).st_size)


@dataclasses.dataclass(frozen=True)
class Collection:
    """Holds all images of a source.

    Attributes:
      items: the images that exist.
      missing: names of listed images that are absent.
      notes: remarks on what was left out and why.
    """

    items: tuple[Item, ...]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, paths: Mapping[ImageRecord, pathlib.Path | None], notes: tuple[str, ...] = ()
    ) -> "Collection":
        """Collects the images of rows, each with its file, or None if it is absent."""
        return cls(
            items=tuple(Item.of(row, path) for row, path in paths.items() if path),
            missing=tuple(row.image_id for row, path in paths.items() if not path),
            notes=notes,
        )


@dataclasses.dataclass(eq=False)
class XrayConfig(tfds.core.BuilderConfig):
    """Holds the options of every source; those that change the records name the variant.

    Attributes:
      size: side of the stored images, pixels.
      equalize: "hist", "clahe" or "none"; applied after resizing.
      encoding: "png", "zstd", "raw" (all lossless) or "jpeg".
      val_fraction: share of the patients of the training list that go to validation.
      allow_missing: prepare what is there when listed images are absent, and name these in
        missing.txt.
      raw: folder with the data set as it was downloaded.
      max_bad: how many broken images are tolerated.
      workers: number of processes; 0 works in this process.
    """

    name: str = ""
    size: int = 1024
    equalize: str = "hist"
    encoding: str = "png"
    val_fraction: float = _VALIDATION
    allow_missing: bool = False
    raw: str = dataclasses.field(default="", metadata=RUN_ONLY)
    max_bad: int = dataclasses.field(default=0, metadata=RUN_ONLY)
    workers: int = dataclasses.field(default=0, metadata=RUN_ONLY)

    def __post_init__(self):
        self._choice("equalize", image_files.EQUALIZE)
        self._choice("encoding", image_files.ENCODINGS)
        self._between("size", *_SIZES)
        self._between("val_fraction", 0.0, 0.9)
        self._between("max_bad", 0, 10**9)
        self._between("workers", 0, 1024)
        self.name = self.name or self._variant()

    def _variant(self) -> str:
        """Names the variant by size, equalisation, encoding and all options off their default."""
        words = [str(self.size), self.equalize, self.encoding]
        if self.val_fraction != _VALIDATION:
            words.append(f"val{self.val_fraction:g}")
        shared = {field.name for field in dataclasses.fields(XrayConfig)}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            own = field.name not in shared and field.metadata.get("variant", True)
            if own and value != field.default:
                value = "-".join(map(str, value)) if isinstance(value, tuple) else value
                words.append(f"{field.name.replace('_', '-')}-{value}")
        return "_".join([*words, *(["partial"] if self.allow_missing else [])])

    def _choice(self, option: str, allowed: Sequence[str]) -> None:
        value = getattr(self, option)
        if value not in allowed:
            raise UserError(f"{option} is {value!r}; allowed: {', '.join(allowed)}.")

    def _between(self, option: str, least: float, most: float) -> None:
        value = getattr(self, option)
        if not least <= value <= most:
            raise UserError(f"{option} is {value}; allowed: {least} to {most}.")


@dataclasses.dataclass(eq=False)
class UnsplitConfig(XrayConfig):
    """Holds the options of a source without a split; a hash of the patient id splits it.

    Attributes:
      val_fraction: share of the patients that go to validation.
      test_fraction: share of the patients that go to the test split.
    """

    test_fraction: float = 0.2

    def __post_init__(self):
        super().__post_init__()
        self._between("test_fraction", 0.0, 0.9)
        if self.val_fraction + self.test_fraction >= 1:
            raise UserError(
                f"val_fraction {self.val_fraction} and test_fraction "
                f"{self.test_fraction} leave nothing to train on; their sum must be below 1."
            )

    @property
    def fractions(self) -> tuple[float, float]:
        """The shares of validation and test."""
        return self.val_fraction, self.test_fraction


def split_of(patient_id: str, val_fraction: float, test_fraction: float = 0.0) -> str:
    """Assigns a patient a split by the id alone, whatever else is in the data set.

    Arguments:
      patient_id: as in `ImageRecord`.
      val_fraction, test_fraction: shares of the patients that go to validation and test.

    Returns:
      "train", "validation" or "test".
    """
    digest = hashlib.sha256(patient_id.encode()).digest()
    place = int.from_bytes(digest[:8], "big")
    if place < val_fraction * 2**64:
        return "validation"
    return "test" if place >= (1.0 - test_fraction) * 2**64 else "train"


# mypy does not see the base class of TFDS that takes `skip_registration`.
class XrayBuilder(RadiographSet, skip_registration=True):  # type: ignore[call-arg]
    """Builds a source of radiographs with records of `xray_features`.

    A subclass sets `name`, `builder_config_class` (an `XrayConfig`),
    and the class attributes below, and implements `collect`.
    """

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"2.0.0": "Source and fingerprints in each record."}

    description: ClassVar[str]
    homepage: ClassVar[str]
    citation: ClassVar[str]
    raw_content: ClassVar[str]  # what the raw folder holds, for a message

    @abc.abstractmethod
    def collect(self, raw: pathlib.Path) -> Collection:
        """Reads the label files and finds the images.

        Arguments:
          raw: the raw folder; it exists.

        Raises:
          UserError: a label file is absent or malformed; the message names file and line.
        """

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.description,
            features=xray_features(self.classes),
            homepage=self.homepage,
            citation=self.citation,
        )

    def raw_folder(self) -> pathlib.Path:
        """Returns the raw folder.

        Raises:
          UserError: it is not given, or does not exist.
        """
        raw = given_path("raw", self.given_raw(f"DIR with {self.raw_content}"))
        if not raw.is_dir():
            raise UserError(f"{self.name}: no folder {raw}; give the raw data with --raw DIR.")
        return raw

    def understand(self) -> bool:
        """Collects the images; prints images, patients and labels of each split, and gaps."""
        self._collection = self.collect(self.raw_folder())
        splits = by_split(self.name, self._collection, self.builder_config.allow_missing)
        self._splits = splits
        rows = {split: [item.row for item in items] for split, items in splits.items()}
        understood.show_counts(rows, self.classes)
        for line in understood.gaps(rows, self.classes):
            progress.say(f"{self.name}: {line}")
        return True

    def _split_generators(self, dl_manager) -> dict[str, list[staging.Staged]]:
        del dl_manager
        config, missing = self.builder_config, self._collection.missing
        if missing:
            text = "".join(f"{name}\n" for name in missing)
            pathlib.Path(self.data_dir, MISSING).write_text(text, encoding="utf-8")
        return self.staged(
            self._splits,
            functools.partial(
                encode, size=config.size, equalize=config.equalize, encoding=config.encoding
            ),
            max_bad=config.max_bad,
        )


def given_path(option: str, text: str) -> pathlib.Path:
    """Resolves an option's value to an absolute path, with `~` for a home folder.

    Raises:
      UserError: the path is impossible: an unknown user's home folder, or a name too long.
    """
    try:
        path = pathlib.Path(text).expanduser().absolute()
        path.exists()  # raises for a name that is too long
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "no such home folder"
        raise UserError(f"--{option} {text} cannot be read: {reason}") from error
    return path


def by_split(name: str, collection: Collection, allow_missing: bool) -> dict[str, list[Item]]:
    """Sorts a collection into its splits and says what was left out.

    Arguments:
      name: of the source, for messages.
      collection: from `collect`.
      allow_missing: leave out listed images that are absent, instead of failing.

    Returns:
      "train", "validation" and "test" -> items in the order of the collection.

    Raises:
      UserError: an image is absent and `allow_missing` is False, or all images are absent.
    """
    for note in collection.notes:
        progress.say(f"{name}: {note}")
    splits: dict[str, list[Item]] = {split: [] for split in ("train", "validation", "test")}
    for item in collection.items:
        splits[item.row.split].append(item)
    missing, listed = collection.missing, len(collection.items) + len(collection.missing)
    if not collection.items:
        raise UserError(
            f"{name}: none of the {listed} listed images is there"
            + (f": {some(missing)}" if missing else "")
            + ". Look whether --raw is the folder that holds them."
        )
    if missing:
        fact = f"{name}: {len(missing)} of {listed} listed images are absent: {some(missing)}"
        if not allow_missing:
            raise UserError(
                f"{fact}. Prepare what is there with --allow-missing; {MISSING} beside the records "
                "will name them all."
            )
        counts = ", ".join(f"{split} {len(part)}" for split, part in splits.items())
        progress.say(f"{fact}; {MISSING} names them all. Prepared is what is there: {counts}.")
    return splits


def note(names: Sequence[str], fact: str) -> tuple[str, ...]:
    """Makes a tuple of one remark, such as "3 rows are repeated: a, b, c"; empty for no names."""
    return (f"{len(names)} {fact}: {some(names)}",) if names else ()


def files_by_name(
    folders: Iterable[pathlib.Path], endings: bool = True
) -> dict[str, pathlib.Path]:
    """Lists the files of folders by name; of two with one name, the first counts.

    Arguments:
      folders: searched in this order without subfolders; absent ones are skipped.
      endings: False drops the endings, so that copies in another format count.
    """
    files: dict[str, pathlib.Path] = {}
    for folder in filter(pathlib.Path.is_dir, folders):
        for path in sorted(folder.iterdir()):
            if path.is_file():
                files.setdefault(path.name if endings else path.stem, path)
    return files


def encode(item: Item, *, size: int, equalize: str, encoding: str) -> staging.Records:
    """Makes one record: reads, resizes, equalises and encodes the image.

    Arguments:
      item: the row and its image file.
      size, equalize, encoding: as in `XrayConfig`.

    Returns:
      The record of `xray_features` by its key.

    Raises:
      BadRecord: the file cannot be read, or the film is blank.
    """
    row = item.row
    film = film_files.read(item.path)
    if film.blank:
        raise BadRecord(f"{item.path}: blank, all its pixels have one gray")
    pixels, stored = film.gray8, film.prepared(size, equalize)
    boxes = np.array(row.boxes, np.float32).reshape(-1, 5)
    height, width = row.box_size if any(row.box_size) else pixels.shape
    boxes[:, 1:] *= np.array([size / width, size / height] * 2, np.float32)
    record = xray_record(
        pixels, image_files.encode(stored, encoding),
        image_id=row.image_id, patient_id=row.patient_id, source=row.source,
        view=row.view, sex=row.sex, age=row.age,
        labels=np.array(row.labels, np.int8), boxes=boxes,
        original_size=row.original_size if any(row.original_size) else pixels.shape,
    )
    return {f"{row.source}/{row.image_id}": record}
