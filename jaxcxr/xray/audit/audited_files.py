"""Reads the data sets to audit: prepared ones, label files of several forms, the RSNA's map.

Each becomes a `Manifest` with an `identity` for each image, equal for images that are known to be
the same whatever their pixels.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from jaxcxr.data import label_tables
from jaxcxr.data.label_tables import FINDINGS, LabelTable
from jaxcxr.data.text_files import read_list
from jaxcxr.errors import UserError
from jaxcxr.xray.images import manifest
from jaxcxr.xray.sources import builder, covidx_table, published, rsna_pneumonia

UNSPLIT = "all"  # the split of rows whose file names none

_SPLITS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation",
    "validation": "validation", "dev": "validation", "test": "test", "testing": "test",
    "": UNSPLIT, UNSPLIT: UNSPLIT,
}
_LISTS = {"train": ("train_val_list.txt", "train_val_list_NIH.txt"),
          "test": ("test_list.txt", "test_list_NIH.txt")}
_TABLES = ("Data_Entry*.csv", "sample_labels.csv")
_COVIDX = re.compile(r"(train|val|test)_(.+)\.txt", re.IGNORECASE)
_CSV = re.compile(r"\.[ct]sv(?:\.gz)?$", re.IGNORECASE)
_RSNA = ("rsna_pneumonia", "rsna")
_FORMS = (
    "a prepared data set (its folder or manifest.parquet), the folder or the Data_Entry csv of "
    "ChestX-ray14, the folder of another published data set (such as CheXpert's), COVIDx lists "
    "(train_NAME.txt test_NAME.txt), or a csv with the columns "
    "image_id, patient_id, split, source, view, sex, age and one per label"
)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Holds one data set to audit.

    Attributes:
      name: unique within the report.
      rows: one per image; the split is "all" where the file names none.
      identity: `[n]` strings, equal for images that are known to be the same.
      folder: the prepared data set; None if there are no images.
      notes: remarks of the reader.
    """

    name: str
    rows: manifest.Manifest
    identity: np.ndarray
    folder: pathlib.Path | None = None
    notes: tuple[str, ...] = ()


def load(paths: Sequence[str | pathlib.Path], rsna_map: str | pathlib.Path | None = None
         ) -> list[DataSet]:
    """Reads all data sets, in any of the forms listed by `jaxcxr audit --help`.

    COVIDx lists of one name and folder form one data set. `rsna_map` is a csv with the columns
    rsna_patientId, chestxray14_image, mse.

    Raises:
      UserError: a file is absent or not in its form.
    """
    known = None
    if rsna_map is not None:
        known = rsna_pneumonia.chestxray14_images(pathlib.Path(rsna_map))
    given: dict[pathlib.Path, dict[str, pathlib.Path]] = {}
    for path in map(pathlib.Path, paths):
        if not os.path.exists(path):  # pathlib's raises where a name is too long to exist
            raise UserError(f"{path}: no such file or folder; expected {_FORMS}")
        match = _COVIDX.fullmatch(path.name)
        key, split = (path.parent / match[2], match[1].lower()) if match else (path, "")
        if given.setdefault(key, {}).setdefault(split, path) is not path:
            raise UserError(f"{path}: given twice; give each file once")
    found = [
        _read(path) if "" in parts else _read_covidx(path, parts) for path, parts in given.items()
    ]
    return _distinct([_mapped(data_set, known) for data_set in found])


def _read(path: pathlib.Path) -> DataSet:
    if path.is_dir():
        return _read_folder(path)
    if path.suffix.lower() == ".parquet":
        return _read_prepared(path)
    if _CSV.search(path.name):
        return _with_unsplit_noted(_read_csv(path), f"no split in {path.name}")
    raise UserError(f"{path}: the name tells no known form; expected {_FORMS}")


def _read_folder(folder: pathlib.Path) -> DataSet:
    if (folder / manifest.NAME).exists():
        return _read_prepared(folder / manifest.NAME)
    for pattern in _TABLES:
        for path in sorted(folder.glob(pattern), reverse=True):  # v2020 before the first version
            return _split_by_lists(_read_csv(path), folder)
    if any(_COVIDX.fullmatch(path.name) for path in folder.iterdir()):
        raise UserError(
            f"{folder}: a folder of lists; name those to audit, such as train_COVIDx9B.txt and "
            "test_COVIDx9B.txt"
        )
    if found := published.recognised(folder):
        source, listing = found
        rows = _of_rows(listing.rows, source.classes)
        rows = dataclasses.replace(rows, split=np.where(rows.split == "", UNSPLIT, rows.split))
        return DataSet(source.name, rows, _identity(rows), notes=listing.notes)
    raise UserError(f"{folder}: nothing to audit; expected {_FORMS}")


def _read_prepared(path: pathlib.Path) -> DataSet:
    try:
        rows = manifest.read(path)
    except OSError as error:  # pyarrow raises it for a damaged page, too
        raise UserError(f"{path} cannot be read: {error}") from error
    strange = np.setdiff1d(rows.split, [*manifest.SPLITS, ""]).tolist()
    if strange:
        raise UserError(
            f"{path}: {strange[0]!r} is not a split; allowed: {', '.join(manifest.SPLITS)}"
        )
    rows = dataclasses.replace(rows, split=np.where(rows.split == "", UNSPLIT, rows.split))
    folder = path.resolve().parent
    versioned = re.fullmatch(r"\d+\.\d+\.\d+", folder.name) and len(folder.parts) > 3
    complete = (folder / "dataset_info.json").exists()
    name = folder.parts[-3] if versioned else folder.name
    return DataSet(name, rows, _identity(rows), folder if complete else None)


def _read_covidx(path: pathlib.Path, parts: dict[str, pathlib.Path]) -> DataSet:
    absent = [split for split in ("train", "test") if split not in parts]
    if absent:
        raise UserError(
            f"{next(iter(parts.values()))}: give {absent[0]}_{path.name}.txt too; the lists of one "
            "name are one data set"
        )
    table = covidx_table.read(parts["train"], parts["test"], parts.get("val"))
    rows = _of_rows(table.rows)
    return DataSet(path.name, rows, _identity(rows), notes=table.notes)


def _read_csv(path: pathlib.Path) -> DataSet:
    table = label_tables.read(path, repeated=True)
    patients, sources = _parsed(table, "patient_id"), _parsed(table, "source")
    if table.finding_labels:
        name = "chestxray14"
        sources = np.full(len(table.ids), name)
        patients = np.where(patients == "", "", np.char.zfill(patients, 8))
    else:
        name = _CSV.sub("", path.name)
        sources = np.where(sources == "", name, sources)
        patients = _of_source(patients, sources)
    labels, classes, notes = _labels(table)
    rows = manifest.Manifest(
        image_id=np.array(table.ids, str),
        patient_id=patients,
        source=sources,
        split=_parsed(table, "split", _split, UNSPLIT),
        view=_parsed(table, "view", str.upper),
        sex=_parsed(table, "sex", lambda text: text.upper()[:1]),
        age=_parsed(table, "age", label_tables.years, -1, np.int32),
        sha256=_parsed(table, "sha256"),
        phash=_parsed(table, "phash", _hash, 0, np.uint64),
        original_size=np.zeros((len(table.ids), 2), np.int32),
        labels=labels,
        boxes=(np.zeros((0, 5), np.float32),) * len(table.ids),
        classes=classes,
    )
    return DataSet(name, rows, _identity(rows), notes=notes)


def _parsed(table: LabelTable, name: str, parse=str, absent="", dtype=str) -> np.ndarray:
    """Parses a column of `label_tables.COLUMNS`; without it, every row gets `absent`."""
    column = table.file.column(label_tables.COLUMNS[name])
    if column is None:
        return np.array([absent] * len(table.ids), dtype)
    return table.file.parse(column, parse, dtype)


def _split(text: str) -> str:
    if text.casefold() not in _SPLITS:
        raise ValueError("is not a split; allowed: train, validation, test")
    return _SPLITS[text.casefold()]


def _hash(text: str) -> int:
    if not re.fullmatch(r"\d{0,20}", text) or int(text or 0) >= 2**64:
        raise ValueError("is not an unsigned integer of 64 bits")
    return int(text or 0)


def _labels(table: LabelTable) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Reads labels, classes and remarks; a column of unknown name that holds labels is a class."""
    if table.finding_labels:
        return table.labels(FINDINGS), FINDINGS, ()
    classes = table.readable_classes(label_tables.label_of)
    ignored = [name for name in table.classes if name not in classes]
    file = table.file.path.name
    notes = builder.note(ignored, f"columns of {file} hold no labels and are ignored")
    if not classes:
        notes += (
            f"no column of {file} holds labels (1, 0 or empty, under the name of a finding): "
            "copies and patients are checked, shortcuts are not",
        )
    return table.labels(classes), tuple(classes), notes


def _of_source(patients: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Prefixes patient ids with their source, except for ChestX-ray14's, as everywhere here."""
    ids = [
        patient if not patient or source == "chestxray14" or patient.startswith(f"{source}/")
        else f"{source}/{patient}"
        for patient, source in zip(patients.tolist(), sources.tolist(), strict=True)
    ]
    return np.array(ids, str)


def _split_by_lists(data_set: DataSet, folder: pathlib.Path) -> DataSet:
    """Splits by ChestX-ray14's lists; an image in both lists is kept twice, one in none dropped."""
    rows = data_set.rows
    place = {name: i for i, name in enumerate(rows.image_id.tolist())}
    parts: list[manifest.Manifest] = []
    notes: list[str] = []
    for split, names in _LISTS.items():
        path = next((folder / name for name in names if (folder / name).exists()), None)
        if path is None:
            continue
        listed, _ = read_list(path)
        known = [place[name] for name in listed if name in place]
        unknown = [name for name in listed if name not in place]
        notes += builder.note(unknown, f"images of {path.name} have no row in the csv")
        part = rows.take(np.array(known, int))
        parts.append(dataclasses.replace(part, split=np.full(len(part), split)))
    if not parts:
        return _with_unsplit_noted(data_set, f"no {_LISTS['train'][0]} in {folder}")
    joined = concatenate(parts)
    unlisted = rows.image_id[~np.isin(rows.image_id, joined.image_id)].tolist()
    notes += builder.note(unlisted, "rows of the csv are in no split list and are left out")
    return dataclasses.replace(
        data_set, rows=joined, identity=_identity(joined), notes=(*data_set.notes, *notes)
    )


def _with_unsplit_noted(data_set: DataSet, reason: str) -> DataSet:
    """Adds a remark to a data set without splits, so that nobody takes it for free of leaks."""
    if (data_set.rows.split != UNSPLIT).any():
        return data_set
    note = f"the images are not split, so none can leak between splits: {reason}"
    return dataclasses.replace(data_set, notes=(*data_set.notes, note))


@dataclasses.dataclass(frozen=True)
class Part:
    """Locates one split of one data set by indices into all rows."""

    data_set: str
    split: str
    rows: np.ndarray
    folder: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Everything:
    """Holds all data sets one after another, and where each split is."""

    rows: manifest.Manifest
    identity: np.ndarray
    parts: tuple[Part, ...]


def join(data_sets: Sequence[DataSet]) -> Everything:
    """Joins the data sets."""
    rows = concatenate([data_set.rows for data_set in data_sets])
    parts, start = [], 0
    for data_set in data_sets:
        for split in (*manifest.SPLITS, UNSPLIT):
            place = np.flatnonzero(data_set.rows.split == split) + start
            if len(place):
                parts.append(Part(data_set.name, split, place, data_set.folder))
        start += len(data_set.rows)
    identity = np.concatenate([data_set.identity for data_set in data_sets])
    return Everything(rows, identity, tuple(parts))


def concatenate(parts: Sequence[manifest.Manifest]) -> manifest.Manifest:
    """Joins manifests and their classes; labels of classes that one lacks are unknown."""
    classes = tuple(dict.fromkeys(name for part in parts for name in part.classes))
    labels = []
    for part in parts:
        wide = np.full((len(part), len(classes)), -1, np.int8)
        wide[:, [classes.index(name) for name in part.classes]] = part.labels
        labels.append(wide)
    names = [field.name for field in dataclasses.fields(manifest.Manifest)]
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in names if name not in ("labels", "boxes", "classes")
    }
    boxes = tuple(box for part in parts for box in part.boxes)
    return manifest.Manifest(**arrays, labels=np.concatenate(labels), boxes=boxes, classes=classes)


def _of_rows(
    records: Sequence[builder.ImageRecord], classes: tuple[str, ...] = FINDINGS
) -> manifest.Manifest:
    """Makes a manifest of a source's rows, with the classes that any of them labels."""
    rows = manifest.from_rows(map(vars, records), classes)
    known = (rows.labels >= 0).any(axis=0)
    classes = tuple(np.array(rows.classes, object)[known])
    # Boxes index the columns, some of which are gone; an audit does not look at boxes.
    boxes = (np.zeros((0, 5), np.float32),) * len(rows)
    return dataclasses.replace(rows, labels=rows.labels[:, known], boxes=boxes, classes=classes)


def _identity(rows: manifest.Manifest) -> np.ndarray:
    """Names each image by source and id, without ending for the RSNA's (PNG in COVIDx)."""
    names = np.char.add(np.char.add(rows.source, "/"), rows.image_id).astype(object)
    for i in _of_rsna(rows):
        names[i] = f"{_RSNA[0]}/{_rsna_id(rows.image_id[i])}"
    return names.astype(str)


def _of_rsna(rows: manifest.Manifest) -> np.ndarray:
    return np.flatnonzero(np.isin(rows.source, _RSNA))


def _rsna_id(image_id: str) -> str:
    return re.sub(r"\.(png|dcm|jpe?g)$", "", image_id)


def _mapped(data_set: DataSet, known: dict[str, str] | None) -> DataSet:
    """Replaces identity and patient of RSNA images by those of ChestX-ray14 that they match."""
    rows = data_set.rows
    theirs = _of_rsna(rows)
    if known is None or not len(theirs):
        return data_set
    patients, identity = rows.patient_id.astype(object), data_set.identity.astype(object)
    joined = 0
    for i in theirs:
        image = known.get(_rsna_id(rows.image_id[i]))
        if image is not None:
            joined += 1
            identity[i], patients[i] = f"chestxray14/{image}", image[:8]
    note = (
        f"{joined:,} of {len(theirs):,} RSNA images are images of ChestX-ray14 by the map "
        f"(MSE below {rsna_pneumonia.MAX_MSE:g}) and have its patients"
    )
    return dataclasses.replace(
        data_set, rows=dataclasses.replace(rows, patient_id=patients.astype(str)),
        identity=identity.astype(str), notes=(*data_set.notes, note),
    )


def _distinct(data_sets: list[DataSet]) -> list[DataSet]:
    """Numbers the data sets that share a name."""
    seen: dict[str, int] = {}
    result = []
    for data_set in data_sets:
        number = seen[data_set.name] = seen.get(data_set.name, 0) + 1
        name = data_set.name if number == 1 else f"{data_set.name} ({number})"
        result.append(dataclasses.replace(data_set, name=name))
    return result
