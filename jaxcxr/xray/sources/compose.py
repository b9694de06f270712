"""Composes radiograph data sets into one, with the findings of a schema.

A finding that a data set was never read for is unknown there. `composition.compose` removes
what several label files list, and the films of patients who stand in two splits. Copies of equal
pixels are removed too: the test split keeps its film, then validation, then the data set named
first. Two patients who share a film count as one. For near copies, run `jaxcxr audit`.
"""

import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxcxr import registry
from jaxcxr.data import progress, staging, vocabulary
from jaxcxr.data.dataset import open_builder
from jaxcxr.errors import UserError, did_you_mean
from jaxcxr.xray.images import image_files, manifest, radiographs
from jaxcxr.xray.sources import builder, composition, rsna_pneumonia, understood
from jaxcxr.xray.sources.radiograph_set import xray_record

NAME = "compose"
PARTS = "parts.json"  # beside the records: what they were composed of

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
_OPTION = re.compile(r",(?=[\w-]+=)")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Describes a film of a prepared data set; as `builder.Item`, but its image is in a record.

    Attributes:
      equalize: what is to be done with the stored image.
    """

    row: builder.ImageRecord
    path: str
    split: str
    index: int
    sha256: str
    equalize: str


Item = builder.Item | Prepared
Rows = Mapping[builder.ImageRecord, Callable[[builder.ImageRecord], Item]]


@dataclasses.dataclass(eq=False)
class ComposeConfig(builder.UnsplitConfig):
    """Options of a composed data set.

    Attributes:
      parts: what to compose, each SOURCE=DIR (raw files, with options of that source as in
        chexpert=DIR,uncertain=positive), SOURCE (prepared under --out) or the folder of a prepared
        data set; earlier ones have precedence.
      dataset: name of the prepared data set, which configs ask for.
      schema: names of the classes, "chestxray14", "cxr15", "chexpert" or "union".
      map: csv with the columns rsna_patientId, chestxray14_image, mse, if both the RSNA's films and
        ChestX-ray14 are among the parts.
      val_fraction: share of the training patients that go to validation, in raw parts.
      test_fraction: share of the patients that go to the test split, in raw parts without a split.
      raw: not used.
    """

    parts: tuple[str, ...] = dataclasses.field(
        default=(), metadata={**builder.RUN_ONLY, "positional": True}
    )
    dataset: str = "union"
    schema: str = "union"
    map: str = dataclasses.field(default="", metadata=builder.RUN_ONLY)

    def __post_init__(self):
        super().__post_init__()
        self.parts = tuple(self.parts)
        self._choice("schema", tuple(vocabulary.SCHEMAS))
        if not _WORD.fullmatch(self.dataset):
            raise UserError(f"dataset is {self.dataset!r}; use letters, digits, dots and hyphens.")


class Compose(builder.XrayBuilder):
    """Keeps the split of each part."""

    name = NAME
    builder_config_class = ComposeConfig

    classes = vocabulary.SCHEMAS["union"]
    description = "Radiograph data sets composed under one vocabulary of findings."
    homepage = ""
    citation = ""
    raw_content = "the data sets as PART arguments"
    given = ("PART", "PART")

    def _info(self) -> tfds.core.DatasetInfo:
        self.classes = vocabulary.SCHEMAS[self.builder_config.schema]
        return super()._info()

    def collect(self, raw: pathlib.Path) -> builder.Collection:
        """Is not used: parts have their own folders."""
        raise NotImplementedError

    def understand(self) -> bool:
        """Collects the parts; prints images, patients and labels of each split, and gaps.

        Copies of equal pixels are found later, when the images have been read.
        """
        config = self.builder_config
        if not config.parts:
            raise UserError(
                f"{NAME}: what is to be composed? Name data sets as SOURCE=DIR, SOURCE, or the "
                "folder of a prepared one."
            )
        parts: dict[str, Rows] = {}
        self.classes = vocabulary.SCHEMAS[config.schema]
        for text in config.parts:
            name, rows = self._part(text)
            name = name if name not in parts else f"{name} ({len(parts) + 1})"
            parts[name] = rows
        items, self._order = self._composed(parts)
        self._items: dict[str, list[Item]] = {split: [] for split in manifest.SPLITS}
        for item in items:
            self._items[item.row.split].append(item)
        listed = {split: [item.row for item in part] for split, part in self._items.items()}
        understood.show_counts(listed, self.classes)
        for line in understood.gaps(listed, self.classes):
            progress.say(f"{NAME}: {line}")
        return True

    def _split_generators(self, dl_manager) -> dict[str, list[staging.Staged]]:
        del dl_manager
        config = self.builder_config
        encode = functools.partial(
            _encode, size=config.size, equalize=config.equalize, encoding=config.encoding
        )
        staged = self.staged(self._items, encode, max_bad=config.max_bad)
        rows = {
            composition.key_of(item.row): item.row
            for part in self._items.values() for item in part
        }
        kept, notes = composition.without_copies(staged, rows, self._order)
        if len(config.parts) > 1:
            notes.append(
                "copies in another size or format are not equal; look for them in the prepared "
                "data with jaxcxr audit"
            )
        for text in notes:
            progress.say(f"{NAME}: {text}")
        return kept

    def confirm(self, directory: pathlib.Path) -> None:
        """Refuses a prepared data set of this name that was composed of other parts."""
        before = json.loads((directory / PARTS).read_text(encoding="utf-8"))
        if self.builder_config.parts and before != list(self.builder_config.parts):
            raise UserError(
                f"{directory} was composed of {', '.join(before)}; give this one another name by "
                "--dataset NAME, or remove that folder first."
            )

    def write_index(self, directory: pathlib.Path) -> None:
        """Writes the manifest, and what the data set was composed of."""
        text = json.dumps(list(self.builder_config.parts), indent=1)
        (directory / PARTS).write_text(f"{text}\n", encoding="utf-8")
        super().write_index(directory)

    def _composed(self, parts: Mapping[str, Rows]) -> tuple[list[Item], dict[str, int]]:
        """Returns the items that stay, and the place of each image's part."""
        composed = composition.compose(
            {name: list(rows) for name, rows in parts.items()}, self._matches(parts),
            self.builder_config.val_fraction, self.classes,
        )
        makers = {
            (name, composition.key_of(row)): make
            for name, rows in parts.items() for row, make in rows.items()
        }
        items: list[Item] = []
        order: dict[str, int] = {}
        for place, (name, rows) in enumerate(composed.parts.items()):
            items += [makers[name, composition.key_of(row)](row) for row in rows]
            order |= {composition.key_of(row): place for row in rows}
        counts = ", ".join(f"{name} {len(rows)}" for name, rows in composed.parts.items())
        for text in (*composed.notes, f"images by data set: {counts}"):
            progress.say(f"{NAME}: {text}")
        return items, order

    def _matches(self, parts: Mapping[str, Rows]) -> dict[str, str]:
        """Maps the RSNA's patientId to the image of ChestX-ray14, if both are there."""
        sources = {row.source for rows in parts.values() for row in rows}
        if not {rsna_pneumonia.NAME, "chestxray14"} <= sources:
            return {}
        if not self.builder_config.map:
            raise UserError(
                f"{NAME}: the RSNA's images are films of ChestX-ray14; give --map FILE, a csv with "
                "rsna_patientId, chestxray14_image, mse, which tells which"
            )
        return rsna_pneumonia.chestxray14_images(builder.given_path("map", self.builder_config.map))

    def _part(self, text: str) -> tuple[str, Rows]:
        name, equals, rest = text.partition("=")
        if equals and name in registry.SOURCES:
            return name, self._raw_part(name, rest)
        if text in registry.SOURCES:
            there = sorted(pathlib.Path(self.data_dir_root, text).glob(f"*/*/{manifest.NAME}"))
            if len(there) != 1:
                raise UserError(
                    f"{NAME}: {len(there)} data sets of {text} are prepared in "
                    f"{self.data_dir_root}; give the folder of one, or {text}=DIR with raw files"
                )
            return text, self._prepared_part(there[0].parent)
        folder = builder.given_path("part", text)
        if not (folder / manifest.NAME).is_file():
            known = [name for name, source in registry.SOURCES.items() if source.task == "cxr"]
            raise UserError(
                f"{NAME}: {text} is neither the folder of a prepared data set nor SOURCE=DIR."
                f"{did_you_mean(name, known)} Sources: {', '.join(known)}."
            )
        return folder.parts[-3:][0], self._prepared_part(folder)

    def _raw_part(self, source: str, text: str) -> Rows:
        """Collects raw files by the source's own builder."""
        config = self.builder_config
        folder, *given = _OPTION.split(text)
        fields = {field.name: field for field in registry.source_fields(source)}
        options: dict[str, Any] = {
            name: getattr(config, name) for name in ("val_fraction", "test_fraction", "schema")
            if name in fields
        }
        for word in given:
            name, _, value = word.partition("=")
            name = name.replace("-", "_")
            if name not in fields:
                known = ", ".join(fields)
                raise UserError(f"{NAME}: {source} has no option {name!r}; it has {known}")
            options[name] = _typed(name, value, fields[name].default)
        raw = builder.given_path("part", folder)
        if not raw.is_dir():
            raise UserError(f"{NAME}: no folder {raw} with the raw files of {source}")
        # TFDS looks for a prepared data set; in the raw folder it finds none.
        other = open_builder(registry.builder_class(source), raw, **options)
        if not isinstance(other, builder.XrayBuilder):
            raise UserError(f"{NAME}: {source} has no raw files; prepare it, and give its folder")
        collection = other.collect(raw)
        splits = builder.by_split(source, collection, config.allow_missing)
        paths = {item.row: item for part in splits.values() for item in part}
        return {
            row: functools.partial(_with_row, item)
            for row, item in zip(
                self._relabeled([*paths], other.classes), paths.values(), strict=True
            )
        }

    def _prepared_part(self, folder: pathlib.Path) -> Rows:
        """Reads the manifest of a prepared data set."""
        config, whole = self.builder_config, manifest.read(folder)
        equalize = self._equalization(folder)
        found: dict[builder.ImageRecord, Prepared] = {}
        for split in manifest.SPLITS:
            part = whole.take(whole.split == split)
            if not len(part):
                continue
            height, width = self._stored_size(folder, split)
            if min(height, width) < config.size:
                raise UserError(
                    f"{NAME}: {folder} holds images of {width} x {height} pixels, too small for "
                    f"--size {config.size}; give --size {min(height, width)}, or prepare it anew"
                )
            for i in range(len(part)):
                row = _row(part, i, (height, width))
                path, sha256 = str(folder), str(part.sha256[i])
                found[row] = Prepared(row, path, split, i, sha256, equalize)
        rows = self._relabeled([*found], whole.classes)
        return {
            row: functools.partial(_with_row, item)
            for row, item in zip(rows, found.values(), strict=True)
        }

    def _equalization(self, folder: pathlib.Path) -> str:
        """Returns what the images of a prepared data set still need."""
        done = radiographs.equalization(folder)
        if done is None:
            raise UserError(
                f"{NAME}: {folder} does not record how its images were equalised; compose its raw "
                "data, or prepare it anew with jaxcxr prepare"
            )
        wanted = self.builder_config.equalize
        if done not in ("none", wanted):
            raise UserError(
                f"{NAME}: {folder} was prepared with --equalize {done}, not {wanted}; compose with "
                f"--equalize {done}, or prepare it with none"
            )
        return wanted if done == "none" else "none"

    @staticmethod
    def _stored_size(folder: pathlib.Path, split: str) -> tuple[int, int]:
        record = radiographs.open_records(folder, split)[0]
        return image_files.decode(record["image"]).shape

    def _relabeled(
        self, rows: Sequence[builder.ImageRecord], read: Sequence[str]
    ) -> list[builder.ImageRecord]:
        """Gives records the labels and box classes of the schema."""
        if tuple(read) == tuple(self.classes):
            return list(rows)
        parts = [
            [read.index(part) for part in vocabulary.parts_of(name, read)] for name in self.classes
        ]
        place = {part: i for i, own in enumerate(parts) for part in own}
        return [
            dataclasses.replace(
                row,
                labels=tuple(vocabulary.combined(row.labels[i] for i in own) for own in parts),
                boxes=tuple(
                    (float(place[int(box[0])]), *box[1:]) for box in row.boxes
                    if int(box[0]) in place
                ),
            )
            for row in rows
        ]


def _with_row(item: Item, row: builder.ImageRecord) -> Item:
    return dataclasses.replace(item, row=row)


def _typed(name: str, text: str, default):
    """Parses an option's value by the type of its default."""
    if isinstance(default, bool):
        return text.casefold() in ("true", "1", "yes")
    if isinstance(default, tuple):
        return tuple(text.split("+"))
    try:
        return type(default)(text)
    except ValueError as error:
        raise UserError(f"{NAME}: {name} is {text!r}; expected {default!r} or the like") from error


def _row(part: manifest.Manifest, i: int, size: tuple[int, int]) -> builder.ImageRecord:
    texts = {
        name: str(getattr(part, name)[i])
        for name in ("split", "image_id", "patient_id", "source", "view", "sex")
    }
    return builder.ImageRecord(
        **texts, age=int(part.age[i]), labels=tuple(part.labels[i].tolist()),
        original_size=tuple(part.original_size[i].tolist()),
        boxes=tuple(tuple(box) for box in part.boxes[i].tolist()), box_size=size,
    )


def _encode(item: Item, *, size: int, equalize: str, encoding: str) -> staging.Records:
    """Makes one record, its key beginning with the SHA-256 of the original's pixels."""
    if isinstance(item, builder.Item):
        made = builder.encode(item, size=size, equalize=equalize, encoding=encoding)
        (record,) = made.values()
    else:
        record = _from_prepared(item, size=size, encoding=encoding)
    return {f"{record['sha256']} {composition.key_of(item.row)}": record}


def _from_prepared(item: Prepared, *, size: int, encoding: str) -> dict:
    """Makes the record of a film of a prepared data set; its fingerprints stay."""
    stored = _records(item.path, item.split)[item.index]
    pixels = image_files.decode(stored["image"])
    image = image_files.equalize(image_files.resize(pixels, size), item.equalize)
    row = item.row
    boxes = np.array(row.boxes, np.float32).reshape(-1, 5)
    boxes[:, 1:] *= np.array([size / pixels.shape[1], size / pixels.shape[0]] * 2, np.float32)
    record = xray_record(
        pixels, image_files.encode(image, encoding),
        image_id=row.image_id, patient_id=row.patient_id, source=row.source,
        view=row.view, sex=row.sex, age=row.age,
        labels=np.array(row.labels, np.int8), boxes=boxes, original_size=row.original_size,
    )
    return record | {"sha256": item.sha256, "phash": stored["phash"]}


@functools.cache
def _records(path: str, split: str):
    """Opens the records of a prepared data set, once in each process."""
    return radiographs.open_records(pathlib.Path(path), split)
