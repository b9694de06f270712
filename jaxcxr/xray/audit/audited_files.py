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
import pyarrow.parquet

from jaxcxr.data import image_paths
from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.data.text_files import read_list
from jaxcxr.errors import UserError, some
from jaxcxr.xray.audit import audited_folders, audited_tables
from jaxcxr.xray.audit.audited_sets import UNSPLIT, DataSet, concatenate, of_rsna, rsna_id
from jaxcxr.xray.images import manifest
from jaxcxr.xray.sources import builder, covidx_table, rsna_pneumonia

_LISTS = {"train": ("train_val_list.txt", "train_val_list_NIH.txt"),
          "test": ("test_list.txt", "test_list_NIH.txt")}
_TABLES = ("Data_Entry*.csv", "sample_labels.csv")
_LOCK = "lock"  # of a preparation
_COVIDX = re.compile(r"(train|val|test)_(.+)\.txt", re.IGNORECASE)
_FORMS = (
    "a prepared data set (its folder or manifest.parquet), the folder or the Data_Entry csv of "
    "ChestX-ray14, the folder of another published data set (such as CheXpert's), a folder of "
    "images, COVIDx lists (train_NAME.txt test_NAME.txt), or a csv, Parquet or xlsx table with the "
    "columns image_id, patient_id, split, source, view, sex, age and one per label"
)


def load(
    paths: Sequence[str | pathlib.Path],
    rsna_map: str | pathlib.Path | None = None,
    images: str | pathlib.Path | None = None,
    labels_only: bool = False,
) -> list[DataSet]:
    """Reads all data sets, in any of the forms listed by `jaxcxr audit --help`.

    Tables, and lists of COVIDx, whose names differ only in the split are one data set.

    Arguments:
      paths: files and folders.
      rsna_map: csv with the columns rsna_patientId, chestxray14_image, mse.
      images: folder of the images of all tables.
      labels_only: read no image file.

    Raises:
      UserError: a file is absent or not in its form.
    """
    known = None
    if rsna_map is not None:
        known = rsna_pneumonia.chestxray14_images(pathlib.Path(rsna_map))
    tables: dict[tuple, list[DataSet]] = {}
    for path, parts in _grouped(paths).items():
        key: tuple = (path,)
        if "" not in parts:
            data_set = _read_covidx(path, parts)
        elif path.is_dir():
            data_set = _read_folder(path, labels_only)
        elif _is_prepared(path):
            data_set = _read_prepared(path)
        elif audited_tables.ENDING.search(path.name):
            table = audited_tables.read(path, pathlib.Path(images) if images else None)
            data_set = _with_unsplit_noted(table, f"no split in {path.name}")
            stem = audited_tables.ENDING.sub("", path.name)
            series = path.parent, image_paths.without_split(stem)
            splits = {split for one in tables.get(series, ()) for split in set(one.rows.split)}
            if not splits & set(table.rows.split):
                key = series
        else:
            raise UserError(f"{path}: the name tells no known form; expected {_FORMS}")
        tables.setdefault(key, []).append(data_set)
    found = [_merged(data_sets) for data_sets in tables.values()]
    return _distinct([_mapped(data_set, known) for data_set in found])


def _grouped(
    paths: Sequence[str | pathlib.Path]
) -> dict[pathlib.Path, dict[str, pathlib.Path]]:
    """Groups lists of COVIDx by their common name, split -> path; other paths have split ""."""
    given: dict[pathlib.Path, dict[str, pathlib.Path]] = {}
    for path in map(pathlib.Path, paths):
        if not os.path.exists(path):  # pathlib's raises where a name is too long to exist
            raise UserError(f"{path}: no such file or folder; expected {_FORMS}")
        if path.name == _LOCK and any(path.parent.glob(f"*/{manifest.NAME}")):
            continue  # NAME/*/* lists it beside the versions of a prepared data set
        match = _COVIDX.fullmatch(path.name) if _is_list(path) else None
        key, split = (path.parent / match[2], match[1].lower()) if match else (path, "")
        if given.setdefault(key, {}).setdefault(split, path) is not path:
            raise UserError(f"{path}: given twice; give each file once")
    return given


def _is_list(path: pathlib.Path) -> bool:
    """Tells whether a file is no table: its first line has no separator of cells."""
    if path.is_dir():
        return False
    with path.open("rb") as file:
        return not re.search(rb"[,;\t|]", file.readline(10_000))


def _is_prepared(path: pathlib.Path) -> bool:
    """Tells whether a file is, or may be meant as, a manifest."""
    if path.suffix.lower() != ".parquet":
        return False
    try:
        return "original_height" in pyarrow.parquet.read_schema(path).names
    except (pyarrow.ArrowException, OSError):
        return True  # reading it will tell what is wrong


def _merged(data_sets: Sequence[DataSet]) -> DataSet:
    """Joins the tables of the splits of one data set."""
    if len(data_sets) == 1:
        return data_sets[0]
    rows = concatenate([data_set.rows for data_set in data_sets])
    small = [data_set.small for data_set in data_sets if data_set.small is not None]
    ages = [
        np.full(len(data_set.rows), "") if data_set.ages is None else data_set.ages
        for data_set in data_sets
    ]
    return DataSet.of(
        "+".join(data_set.name for data_set in data_sets), rows, ages=np.concatenate(ages),
        small=np.concatenate(small) if len(small) == len(data_sets) else None,
        notes=tuple(f"{one.name}: {note}" for one in data_sets for note in one.notes),
    )


def _read_folder(folder: pathlib.Path, labels_only: bool) -> DataSet:
    prepared = [
        path for depth in ("", "*/", "*/*/") for path in sorted(folder.glob(depth + manifest.NAME))
    ]
    if len(prepared) > 1:
        names = some(str(path.parent) for path in prepared)
        raise UserError(f"{folder}: several prepared data sets; name those to audit: {names}")
    if prepared:
        return _read_prepared(prepared[0])
    for pattern in _TABLES:
        for path in sorted(folder.glob(pattern), reverse=True):  # v2020 before the first version
            data_set = _split_by_lists(audited_tables.read(path), folder)
            return data_set if labels_only else audited_folders.with_images_below(data_set, folder)
    if any(_COVIDX.fullmatch(path.name) for path in folder.iterdir()):
        raise UserError(
            f"{folder}: a folder of lists; name those to audit, such as train_COVIDx9B.txt and "
            "test_COVIDx9B.txt"
        )
    if published := audited_folders.published_set(folder, labels_only):
        return published
    try:
        return _with_unsplit_noted(
            audited_folders.read_images(folder, labels_only),
            "no folder in it is called train, val or test",
        )
    except UserError as error:
        tables = sorted(
            path.name for path in folder.iterdir() if audited_tables.ENDING.search(path.name)
        )
        hint = f"; name the tables to audit: {some(tables)}" if tables else ""
        raise UserError(f"{error}{hint}. Nothing to audit; expected {_FORMS}") from error


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
    folder = path.resolve().parent
    versioned = re.fullmatch(r"\d+\.\d+\.\d+", folder.name) and len(folder.parts) > 3
    complete = (folder / "dataset_info.json").exists()
    name = folder.parts[-3] if versioned else folder.name
    data_set = DataSet.of(name, rows, folder=folder if complete else None)
    return data_set.with_patients_known()


def _read_covidx(path: pathlib.Path, parts: dict[str, pathlib.Path]) -> DataSet:
    absent = [split for split in ("train", "test") if split not in parts]
    if absent:
        raise UserError(
            f"{next(iter(parts.values()))}: give {absent[0]}_{path.name}.txt too; the lists of one "
            "name are one data set"
        )
    table = covidx_table.read(parts["train"], parts["test"], parts.get("val"))
    rows = audited_folders.of_rows(table.rows, FINDINGS)
    return DataSet.of(path.name, rows, notes=table.notes)


def _split_by_lists(data_set: DataSet, folder: pathlib.Path) -> DataSet:
    """Splits by ChestX-ray14's lists; an image in both lists is kept twice, one in none dropped."""
    rows = data_set.rows
    place = {name: i for i, name in enumerate(rows.image_id.tolist())}
    parts: list[manifest.Manifest] = []
    chosen: list[int] = []
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
        chosen += known
        parts.append(dataclasses.replace(part, split=np.full(len(part), split)))
    if not parts:
        return _with_unsplit_noted(data_set, f"no {_LISTS['train'][0]} in {folder}")
    joined = concatenate(parts)
    unlisted = rows.image_id[~np.isin(rows.image_id, joined.image_id)].tolist()
    notes += builder.note(unlisted, "rows of the csv are in no split list and are left out")
    ages = None if data_set.ages is None else data_set.ages[chosen]
    return DataSet.of(data_set.name, joined, ages=ages, notes=(*data_set.notes, *notes))


def _with_unsplit_noted(data_set: DataSet, reason: str) -> DataSet:
    """Adds a remark to a data set without splits, so that nobody takes it for free of leaks."""
    if (data_set.rows.split != UNSPLIT).any():
        return data_set
    note = f"the images are not split, so none can leak between splits: {reason}"
    return dataclasses.replace(data_set, notes=(*data_set.notes, note))


def _mapped(data_set: DataSet, known: dict[str, str] | None) -> DataSet:
    """Replaces identity and patient of RSNA images by those of ChestX-ray14 that they match."""
    rows = data_set.rows
    theirs = of_rsna(rows)
    if known is None or not len(theirs):
        return data_set
    patients, identity = rows.patient_id.astype(object), data_set.identity.astype(object)
    joined = 0
    for i in theirs:
        image = known.get(rsna_id(rows.image_id[i]))
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
