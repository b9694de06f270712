"""Reads tables to audit: csv in its forms, Parquet and xlsx, one row per image."""

import pathlib
import re
from collections.abc import Callable

import numpy as np

from jaxcxr.data import image_paths, label_tables, vocabulary
from jaxcxr.data.label_tables import FINDINGS, LabelTable
from jaxcxr.errors import some
from jaxcxr.xray.audit import audited_folders
from jaxcxr.xray.audit.audited_sets import UNSPLIT, DataSet
from jaxcxr.xray.images import manifest
from jaxcxr.xray.sources import builder

ENDING = re.compile(r"\.(?:csv|tsv|txt|xlsx|parquet)(?:\.gz)?$|\.gz$", re.IGNORECASE)
_UNIT = re.compile(r"0*\d+\s*[MWD]", re.ASCII | re.IGNORECASE)
_OTHER_SEX = ("o", "other", "x", "diverse", "nonbinary", "non-binary")


def read(path: pathlib.Path, images: pathlib.Path | None = None) -> DataSet:
    """Reads a table.

    Arguments:
      path: the file, see `label_tables.read`.
      images: folder of its images, which are read too.

    Raises:
      UserError: as `label_tables.read`, or a cell is wrong.
    """
    table = label_tables.read(path, repeated=True)
    sources = _parsed(table, "source")
    patients, notes = _parsed(table, "patient_id"), tuple[str, ...]()
    if table.finding_labels:
        name = "chestxray14"
        sources = np.full(len(table.ids), name)
        patients = np.where(patients == "", "", np.char.zfill(patients, 8))
    else:
        name = ENDING.sub("", path.name)
        if table.file.column(label_tables.COLUMNS["patient_id"]) is None:
            _, found, notes = audited_folders.told_by_paths(table.ids)
            patients = np.array(found, str)
        patients = _of_source(patients, sources)
    splits, more = _splits(table, path)
    labels, classes, ignored = _labels(table)
    ages, strange, told = _ages(table)
    sexes, unread = _sexes(table)
    rows = manifest.Manifest(
        image_id=np.array([text.replace("\\", "/") for text in table.ids], str),
        patient_id=patients,
        source=sources,
        split=splits,
        view=_parsed(table, "view", lambda text: vocabulary.view_of(text) or text.upper()),
        sex=sexes,
        age=ages,
        sha256=_parsed(table, "sha256"),
        phash=_parsed(table, "phash", _hash, 0, np.uint64),
        original_size=np.zeros((len(table.ids), 2), np.int32),
        labels=labels,
        boxes=(np.zeros((0, 5), np.float32),) * len(table.ids),
        classes=classes,
    )
    notes = (*notes, *more, *ignored, *told, *unread)
    data_set = DataSet.of(name, rows, ages=strange, notes=notes)
    if images is None:
        return data_set
    return audited_folders.with_pixels(
        data_set, audited_folders.files_of(rows.image_id.tolist(), images, path)
    )


def _parsed(
    table: LabelTable, name: str, parse: Callable = str, absent="", dtype=str
) -> np.ndarray:
    """Parses a column of `label_tables.COLUMNS`; without it, every row gets `absent`."""
    column = table.file.column(label_tables.COLUMNS[name])
    if column is None:
        return np.array([absent] * len(table.ids), dtype)
    return table.file.parse(column, parse, dtype)


def _splits(table: LabelTable, path: pathlib.Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Reads the splits: of the column, else of the file's name, its folder's or the images'."""
    if table.file.column(label_tables.COLUMNS["split"]) is not None:
        return _parsed(table, "split", _split, UNSPLIT), ()
    named = image_paths.split_in(ENDING.sub("", path.name))
    named = named or image_paths.split_word(path.parent.name)
    if named:
        note = f"no column of splits; by the name, all rows are {named}"
        return np.full(len(table.ids), named), (note,)
    found, _, _ = audited_folders.told_by_paths(table.ids)
    notes: tuple[str, ...] = ()
    if set(found) != {UNSPLIT}:
        notes = ("no column of splits; taken from the paths of the images",)
    return np.array(found, str), notes


def _split(text: str) -> str:
    split = image_paths.split_word(text)
    if not split and text.casefold() not in ("", UNSPLIT, "nan", "n/a"):
        raise ValueError("is not a split; allowed: train, validation, test")
    return split or UNSPLIT


def _hash(text: str) -> int:
    if not re.fullmatch(r"\d{0,20}", text) or int(text or 0) >= 2**64:
        raise ValueError("is not an unsigned integer of 64 bits")
    return int(text or 0)


def _sexes(table: LabelTable) -> tuple[np.ndarray, tuple[str, ...]]:
    """Reads "M", "F" or "O"; and a remark on what was not understood."""
    unread: dict[str, None] = {}

    def parse(text: str) -> str:
        sex = "O" if text.casefold() in _OTHER_SEX else vocabulary.sex_of(text)
        if text and not sex:
            unread[repr(text)] = None
        return sex

    sexes = _parsed(table, "sex", parse)
    return sexes, (f"not understood, and unknown, as sex: {some(unread)}",) if unread else ()


def _ages(table: LabelTable) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Reads ages in years, those that nobody has by row, and a remark on other units."""
    column = table.file.column(label_tables.COLUMNS["age"])
    if column is None:
        return np.full(len(table.ids), -1, np.int32), None, ()
    texts = [row[column] for row in table.file.rows]
    strange = np.array([
        text if audited_folders.impossible_age(text) else "" for text in texts
    ])
    units = [text for text in texts if _UNIT.fullmatch(text) and label_tables.years(text) >= 0]
    notes = builder.note(units, "ages are in months, weeks or days, and count as whole years")
    return table.file.parse(column, label_tables.years, np.int32), strange, notes


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
    """Prefixes patient ids with their source, if known; but ChestX-ray14's, as everywhere here."""
    ids = [
        patient if not patient or source in ("", "chestxray14") or patient.startswith(f"{source}/")
        else f"{source}/{patient}"
        for patient, source in zip(patients.tolist(), sources.tolist(), strict=True)
    ]
    return np.array(ids, str)
