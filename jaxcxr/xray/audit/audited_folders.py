"""Reads folders to audit: images of any layout, those of published data sets with their tables."""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from jaxcxr.data import folders, image_paths, label_tables, table_files, vocabulary
from jaxcxr.errors import UserError, some
from jaxcxr.xray.audit import duplicates, fingerprint_cache
from jaxcxr.xray.audit.audited_sets import UNSPLIT, DataSet
from jaxcxr.xray.images import manifest
from jaxcxr.xray.sources import builder, images_folders, published

_TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".xlsx")
_AGE = re.compile(r"-?\d+(?:[.,]\d*)?\s*[YMWD]?", re.ASCII | re.IGNORECASE)


def read_images(folder: pathlib.Path, labels_only: bool) -> DataSet:
    """Reads a folder of images: patient and split by the paths and DICOM headers, pixels.

    The split is that of the first folder whose name holds one, or of the folder itself; the class
    that of a folder for each class, as `jaxcxr prepare images` takes it.

    Raises:
      UserError: there is no image, or none that can be read.
    """
    files, notes = images_folders.find(folder)
    names = list(files)
    splits, patients, more = told_by_paths(names, image_paths.split_in(folder.name))
    classes, labels = _classes(names, folder)
    rows = manifest.from_rows(
        ({"image_id": name, "split": split, "patient_id": patient, "labels": label}
         for name, split, patient, label in zip(names, splits, patients, labels, strict=True)),
        classes,
    )
    tables = [name.name for name in sorted(folder.iterdir()) if name.name.endswith(_TABLES)]
    if tables:
        more = (*more, f"{', '.join(tables)} not read; for labels, patients and splits give the "
                f"table: jaxcxr audit {folder / tables[0]} --images {folder}")
    name = folder.resolve().name
    data_set = DataSet.of(name, rows, notes=(*notes, *more))
    return data_set if labels_only else with_pixels(data_set, list(files.values()))


def told_by_paths(
    names: Sequence[str], otherwise: str = ""
) -> tuple[list[str], list[str], tuple[str, ...]]:
    """Returns split and patient of each path, as far as it tells them, and remarks.

    Arguments:
      names: paths.
      otherwise: the split where a path tells none.
    """
    splits = [image_paths.split_of(name) or otherwise or UNSPLIT for name in names]
    patients = image_paths.patients_in(names)
    notes: tuple[str, ...] = ()
    if patients:
        found = some(dict.fromkeys(patients))
        notes = (f"patients are taken from the paths of the images: {found}",)
    return splits, patients or [""] * len(names), notes


def published_set(folder: pathlib.Path, labels_only: bool) -> DataSet | None:
    """Reads the tables of a published data set, and its images; None if the folder holds none."""
    found = published.recognised(folder)
    if found is None:
        return None
    source, listing = found
    rows = of_rows(listing.rows, source.classes)
    ages = _impossible_ages(folder, rows.image_id.tolist())
    data_set = DataSet.of(source.name, rows, ages=ages, notes=listing.notes).with_patients_known()
    return data_set if labels_only else with_images_below(data_set, folder)


def with_images_below(data_set: DataSet, folder: pathlib.Path) -> DataSet:
    """Adds what the files of a published data set show, as far as they are there."""
    try:
        files = published.Files.below(folder).find(data_set.rows.image_id.tolist())
    except UserError as error:
        return dataclasses.replace(
            data_set, notes=(*data_set.notes, f"the images are not read: {error}")
        )
    return with_pixels(data_set, files)


def impossible_age(text: str) -> bool:
    """Tells whether a cell is an age that nobody has, such as -3, 414 or 411Y."""
    return bool(_AGE.fullmatch(text.strip())) and label_tables.years(text) < 0


def _impossible_ages(folder: pathlib.Path, ids: list[str]) -> np.ndarray:
    """Looks for ages that nobody has in the tables of a data set, `[ids]` as of `DataSet`."""
    result = np.full(len(ids), "", object)
    for path in map(pathlib.Path, folders.files_below(folder).paths):
        if not path.name.casefold().endswith(_TABLES):
            continue
        try:
            file = table_files.read_table(path, label_tables.IMAGE_COLUMNS)
            image, age = (file.column(label_tables.COLUMNS[n]) for n in ("image_id", "age"))
            if image is None or age is None:
                continue
            strange = {row[image]: row[age] for row in file.rows if impossible_age(row[age])}
            places = image_paths.match(list(strange), ids, path, folder)
        except UserError:
            continue  # the source has read what it needs
        for text, place in zip(strange.values(), places.tolist(), strict=True):
            if place >= 0:
                result[place] = text
    return result.astype(str)


def with_pixels(data_set: DataSet, files: Sequence[pathlib.Path | None]) -> DataSet:
    """Adds fingerprints of image files, and what DICOM headers tell and the rows do not.

    Arguments:
      data_set: of rows.
      files: of each row; None if it has none.
    """
    rows = data_set.rows
    there = [i for i, path in enumerate(files) if path]
    if not there:
        return data_set
    seen = fingerprint_cache.of_files(
        [path for path in files if path], f"{data_set.name}: reading images"
    )
    small = np.zeros((len(rows), duplicates.SIDE, duplicates.SIDE), np.uint8)
    columns = {
        name: getattr(rows, name).astype(object)
        for name in ("sha256", "patient_id", "sex", "view")
    }
    phash, age, bad = rows.phash.copy(), rows.age.copy(), []
    for i, film in zip(there, seen, strict=True):
        if film.error:
            bad.append(f"{rows.image_id[i]} ({film.error})")
            continue
        small[i] = np.frombuffer(film.small, np.uint8).reshape(small.shape[1:])
        columns["sha256"][i], phash[i] = film.sha256, film.phash
        columns["patient_id"][i] = columns["patient_id"][i] or film.patient
        columns["sex"][i] = columns["sex"][i] or film.sex
        columns["view"][i] = columns["view"][i] or film.view
        age[i] = film.age if age[i] < 0 else age[i]
    absent = [str(rows.image_id[i]) for i, path in enumerate(files) if not path]
    notes = (*data_set.notes, *builder.note(bad, "images cannot be read"),
             *builder.note(absent, "images of the table have no file"))
    texts = {name: column.astype(str) for name, column in columns.items()}
    rows = dataclasses.replace(rows, **texts, phash=phash, age=age)
    return dataclasses.replace(data_set, rows=rows, small=small, notes=notes)


def files_of(ids: Sequence[str], folder: pathlib.Path, table: pathlib.Path):
    """Finds the files of a table's images by the longest common end; None where there is none.

    Raises:
      UserError: no image is found, or an id fits several files.
    """
    files, _ = images_folders.find(folder)
    available = list(files)
    wanted = list(dict.fromkeys(ids))
    places = image_paths.match(wanted, available, table, folder, root=str(folder))
    if (places < 0).all():
        raise UserError(
            f"{folder}: none of the {len(wanted)} images of {table} is there: {some(wanted)}"
        )
    found = {
        name: files[available[place]] if place >= 0 else None
        for name, place in zip(wanted, places.tolist(), strict=True)
    }
    return [found[name] for name in ids]


def of_rows(records: Sequence[builder.ImageRecord], classes: tuple[str, ...]) -> manifest.Manifest:
    """Makes a manifest of a source's rows, with the classes that any of them labels."""
    rows = manifest.from_rows(map(vars, records), classes)
    known = (rows.labels >= 0).any(axis=0)
    classes = tuple(np.array(rows.classes, object)[known])
    # Boxes index the columns, some of which are gone; an audit does not look at boxes.
    boxes = (np.zeros((0, 5), np.float32),) * len(rows)
    return dataclasses.replace(rows, labels=rows.labels[:, known], boxes=boxes, classes=classes)


def _classes(names: Sequence[str], folder: pathlib.Path):
    """Returns the classes of a folder for each, and the labels of each image; else no classes."""
    try:
        taken, found, _, _ = images_folders.classes_of(names, folder)
    except UserError:
        taken, found = [], []
    patients = set(image_paths.patients_in(names) or ())
    if len(set(found)) < 2 or len(taken) < len(names) or patients & set(found):
        return (), [()] * len(names)
    classes = tuple(sorted(name for name in set(found) if not vocabulary.no_finding(name)))
    return classes, [tuple(int(name == one) for name in classes) for one in found]
