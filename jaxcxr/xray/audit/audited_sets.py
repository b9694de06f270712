"""Holds the data sets that are audited, and joins them: which rows are the same image or patient.

A row whose source is unknown may be of any source, so its ids are compared with all others. Ids of
two known sources are not: patient 1 of one hospital is not patient 1 of another.
"""

import dataclasses
import functools
import itertools
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np

from jaxcxr.data import image_paths
from jaxcxr.xray.images import manifest

UNSPLIT = "all"  # the split of rows whose file names none
_NO_PAIRS = np.zeros((0, 2), np.int64)
_RSNA = ("rsna_pneumonia", "rsna")


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Holds one data set to audit.

    Attributes:
      name: unique within the report.
      rows: one per image; the split is "all" where the file names none, the source "" where
        nothing tells it.
      identity: `[n]` strings, equal for images that are known to be the same.
      folder: the prepared data set; None if there is none.
      small: uint8 `[n, side, side]` of `duplicates.thumbnail`, where image files were read.
      ages: `[n]` ages as written that nobody has, "" where there is none; None if not known.
      notes: remarks of the reader.
    """

    name: str
    rows: manifest.Manifest
    identity: np.ndarray
    folder: pathlib.Path | None = None
    small: np.ndarray | None = None
    ages: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def with_patients_known(self) -> "DataSet":
        """Makes patients unknown where each image was given one of its own for want of ids."""
        rows = self.rows
        pairs = zip(rows.patient_id.tolist(), rows.image_id.tolist(), strict=True)
        alone = image_paths.name_alone
        if len(rows) < 2 or any(alone(patient) != alone(image) for patient, image in pairs):
            return self
        note = "each image has a patient of its own, so the patients are unknown"
        rows = dataclasses.replace(rows, patient_id=np.full(len(rows), ""))
        return dataclasses.replace(self, rows=rows, notes=(*self.notes, note))

    @classmethod
    def of(cls, name: str, rows: manifest.Manifest, **fields) -> "DataSet":
        """Makes a data set whose images are known by source and id alone."""
        rows = dataclasses.replace(rows, split=np.where(rows.split == "", UNSPLIT, rows.split))
        return cls(name, rows, identity_of(rows), **fields)


@dataclasses.dataclass(frozen=True)
class Part:
    """Locates one split of one data set by indices into all rows; `small` as of `DataSet`."""

    data_set: str
    split: str
    rows: np.ndarray
    folder: pathlib.Path | None = None
    small: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Everything:
    """Holds all data sets one after another, and where each split is.

    Attributes:
      rows: of all data sets.
      identity: `[n]` strings, see `DataSet`.
      parts: the splits.
      named_alike: int64 `[k, 2]`, rows whose ids name the same image by the ends of their paths.
      doubtful: int64 `[k, 2]`, rows of which these ends do not tell.
      ages: see `DataSet`.
    """

    rows: manifest.Manifest
    identity: np.ndarray
    parts: tuple[Part, ...]
    named_alike: np.ndarray
    doubtful: np.ndarray
    ages: np.ndarray

    def across(self) -> Iterator[tuple[Part, Part, bool]]:
        """Pairs the parts that must share nothing; and whether the splits of both are known."""
        for first, second in itertools.combinations(self.parts, 2):
            if UNSPLIT in (first.split, second.split):
                if first.data_set != second.data_set:
                    yield first, second, False
            elif first.split != second.split:
                yield first, second, True

    @functools.cached_property
    def patients(self) -> "Patients":
        """The patients of all rows."""
        return Patients(self)


class Patients:
    """Compares patients by source and id.

    `007`, `7` and `7.0`, or `p1` and `P1`, are equal, as spreadsheets make one of the other, unless
    one of the splits compared has both spellings.
    """

    def __init__(self, everything: Everything):
        rows = everything.rows
        self._sources = rows.source
        self._id = np.array([
            _without_source(patient, source)
            for patient, source in zip(rows.patient_id.tolist(), rows.source.tolist(), strict=True)
        ], object).reshape(len(rows), 2)
        self._plain = np.array([_simplest(text) for text in self._id[:, 1].tolist()], object)
        self._has_both = {
            (part.data_set, part.split): len(set(map(tuple, self._id[part.rows].tolist())))
            != len(set(zip(self._id[part.rows, 0], self._plain[part.rows], strict=True)))
            for part in everything.parts
        }

    def shared(self, first: Part, second: Part) -> tuple[np.ndarray, np.ndarray]:
        """Tells which rows of two parts are of patients that both have: bool `[n]` and `[m]`."""
        parts = ((part.data_set, part.split) for part in (first, second))
        texts = self._id[:, 1] if any(map(self._has_both.get, parts)) else self._plain
        sides = []
        for part in (first, second):
            text = texts[part.rows].astype(str)
            whole = np.char.add(self._id[part.rows, 0].astype(str), text)
            sides.append((text, whole, self._sources[part.rows] == ""))
        return _met(sides[0], sides[1]), _met(sides[1], sides[0])


def _met(ours, theirs) -> np.ndarray:
    (text, whole, unknown), (other_text, other_whole, other_unknown) = ours, theirs
    met = np.isin(whole, other_whole) | (unknown & np.isin(text, other_text))
    return (met | np.isin(text, other_text[other_unknown])) & (text != "")


def _without_source(patient: str, source: str) -> tuple[str, str]:
    """Splits `source/patient` into `source/` and `patient`."""
    prefix, slash, rest = patient.partition("/")
    return (prefix + slash, rest) if slash and source else ("", patient)


def _simplest(patient: str) -> str:
    """Spells ids alike that differ only by case, leading zeros or an empty decimal."""
    match = re.fullmatch(r"0*(\d+?)(?:\.0*)?", patient, re.ASCII)
    return match[1] if match else patient.casefold()


def join(data_sets: Sequence[DataSet]) -> Everything:
    """Joins the data sets."""
    rows = concatenate([data_set.rows for data_set in data_sets])
    parts, ages, start = [], [], 0
    for data_set in data_sets:
        for split in (*manifest.SPLITS, UNSPLIT):
            place = np.flatnonzero(data_set.rows.split == split)
            if len(place):
                small = None if data_set.small is None else data_set.small[place]
                parts.append(Part(data_set.name, split, place + start, data_set.folder, small))
        unknown = np.full(len(data_set.rows), "")
        ages.append(unknown if data_set.ages is None else data_set.ages)
        start += len(data_set.rows)
    identity = np.concatenate([data_set.identity for data_set in data_sets])
    named_alike, doubtful = _by_name(rows, identity, parts)
    return Everything(
        rows, identity, tuple(parts), named_alike, doubtful, np.concatenate(ages).astype(str)
    )


def _by_name(rows: manifest.Manifest, identity: np.ndarray, parts: Sequence[Part]):
    """Pairs rows of different parts by the ends of their ids: those alike, and the doubtful."""
    alike, doubtful = [_NO_PAIRS], [_NO_PAIRS]
    for first, second in itertools.combinations(parts, 2):
        for left, right in _of_like_sources(rows, first, second):
            places = []
            for chosen in (left, right):
                _, once = np.unique(rows.image_id[chosen], return_index=True)
                places.append(chosen[once])
            names = [rows.image_id[place].tolist() for place in places]
            for pairs, found in zip(image_paths.same_names(*names), (alike, doubtful), strict=True):
                if pairs:
                    one, other = np.array(pairs).T
                    found.append(np.stack([places[0][one], places[1][other]], axis=1))
    unsure = np.concatenate(doubtful)
    return np.concatenate(alike), unsure[identity[unsure[:, 0]] != identity[unsure[:, 1]]]


def _of_like_sources(rows: manifest.Manifest, first: Part, second: Part):
    """Yields the rows of two parts for each pair of sources that may be the same."""
    for one, other in itertools.product(
        np.unique(rows.source[first.rows]), np.unique(rows.source[second.rows])
    ):
        if one == other or "" in (one, other):
            yield (first.rows[rows.source[first.rows] == one],
                   second.rows[rows.source[second.rows] == other])


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


def identity_of(rows: manifest.Manifest) -> np.ndarray:
    """Names each image by source and id, without ending for the RSNA's (PNG in COVIDx)."""
    names = np.char.add(np.char.add(rows.source, "/"), rows.image_id).astype(object)
    for i in of_rsna(rows):
        names[i] = f"{_RSNA[0]}/{rsna_id(rows.image_id[i])}"
    return names.astype(str)


def of_rsna(rows: manifest.Manifest) -> np.ndarray:
    """Returns the indices of the RSNA's images."""
    return np.flatnonzero(np.isin(rows.source, _RSNA))


def rsna_id(image_id: str) -> str:
    """Removes the ending of an RSNA image's id."""
    return re.sub(r"\.(png|dcm|jpe?g)$", "", image_id)
