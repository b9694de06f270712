"""Composes data sets into one without a patient in two splits, from their rows alone."""

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from jaxcxr.data import staging
from jaxcxr.data.label_tables import FINDINGS, NEGATIVE, POSITIVE
from jaxcxr.xray.sources import builder, covidx_table, rsna_pneumonia

OFFICIAL = ("chestxray14", "covidx")  # the parts with a published split

_ORDER = {"test": 0, "validation": 1, "train": 2}  # of two copies of an image, the first stays
_RSNA = rsna_pneumonia.NAME


@dataclasses.dataclass(frozen=True)
class Composition:
    """Holds the composed rows and the ones left out.

    Attributes:
      parts: rows by data set, in their order there.
      left_out: rows by reason, which continues "images of <source> ".
      merged: rows of ChestX-ray14 that got Pneumonia from the RSNA's reading of the same film.
    """

    parts: dict[str, tuple[builder.ImageRecord, ...]]
    left_out: dict[str, tuple[builder.ImageRecord, ...]]
    merged: tuple[builder.ImageRecord, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Says what was left out and why, with counts."""
        notes: list[str] = []
        for reason, rows in self.left_out.items():
            by_source = collections.defaultdict(list)
            for row in rows:
                by_source[row.source].append(row.image_id)
            for source, names in by_source.items():
                notes += builder.note(names, f"images of {source} {reason}")
        merged = [row.image_id for row in self.merged]
        fact = "training images of chestxray14 get Pneumonia, as the RSNA's radiologists read it"
        return (*notes, *builder.note(merged, fact))


def compose(
    parts: Mapping[str, Sequence[builder.ImageRecord]],
    matches: Mapping[str, str],
    val_fraction: float,
    classes: Sequence[str] = FINDINGS,
) -> Composition:
    """Composes data sets.

    Patients of the RSNA's images become those of ChestX-ray14, through the match of the pixels.
    Patients of ChestX-ray14 or COVIDx's lists keep their split there in data sets that have no
    split of their own. The following are left out, in this order:

    - films that are not frontal, or not of the chest;
    - an image that an earlier data set contains too;
    - training and validation images of patients in any test split, and training images of patients
      in validation;
    - an image of the RSNA if its original of ChestX-ray14 is present. If both are training images
      and the RSNA's radiologists read pneumonia, the original becomes positive for Pneumonia;
      validation and test labels stay as published.

    Arguments:
      parts: rows by data set; earlier ones have precedence.
      matches: image of ChestX-ray14 by the RSNA's patientId.
      val_fraction: share of the patients of training lists that go to validation; patients of the
        RSNA are assigned anew, as in ChestX-ray14.
      classes: of the labels.
    """
    left_out: dict[str, list[builder.ImageRecord]] = collections.defaultdict(list)
    rows = [
        (name, _identified(row, matches, val_fraction))
        for name, part in parts.items()
        for row in part
    ]
    rows = _following(rows)
    rows = list(_distinct(rows, matches, left_out))
    rows = list(_apart(rows, left_out))
    rows, merged = _without_twins(rows, matches, left_out, classes.index("Pneumonia"))
    return Composition(
        {name: tuple(row for part, row in rows if part == name) for name in parts},
        {reason: tuple(of_reason) for reason, of_reason in left_out.items()},
        tuple(merged),
    )


def _identified(
    row: builder.ImageRecord, matches: Mapping[str, str], val_fraction: float
) -> builder.ImageRecord:
    original = _original(row, matches)
    if original is None:
        return row
    patient = original[:8]
    split = row.split if row.split == "test" else builder.split_of(patient, val_fraction)
    return dataclasses.replace(row, patient_id=patient, split=split)


def _original(row: builder.ImageRecord, matches: Mapping[str, str]) -> str | None:
    """Returns the image of ChestX-ray14 that an image of the RSNA matches."""
    if row.source != _RSNA:
        return None
    return matches.get(covidx_table.image_of(row)[1])


def _following(
    rows: list[tuple[str, builder.ImageRecord]],
) -> list[tuple[str, builder.ImageRecord]]:
    """Gives patients of an official part their split there."""
    official: dict[str, str] = {}
    for name, row in rows:
        if name in OFFICIAL:
            known = official.setdefault(row.patient_id, row.split)
            official[row.patient_id] = min(known, row.split, key=_ORDER.__getitem__)
    return [
        (name, row)
        if name in OFFICIAL
        else (name, dataclasses.replace(row, split=official.get(row.patient_id, row.split)))
        for name, row in rows
    ]


def _distinct(
    rows: list[tuple[str, builder.ImageRecord]],
    matches: Mapping[str, str],
    left_out: dict[str, list[builder.ImageRecord]],
) -> Iterator[tuple[str, builder.ImageRecord]]:
    """Yields frontal films of the chest, each once; a test copy takes precedence."""

    def image(row: builder.ImageRecord) -> tuple[str, str]:
        original = _original(row, matches)
        return (row.source, original) if original else covidx_table.image_of(row)

    first: dict[tuple[str, str], int] = {}
    for i in sorted(range(len(rows)), key=lambda i: _ORDER[rows[i][1].split]):
        first.setdefault(image(rows[i][1]), i)
    for i, (name, row) in enumerate(rows):
        if row.view == "L" or covidx_table.is_abdomen(row):
            left_out["are not frontal films of the chest and are left out"].append(row)
        elif first[image(row)] != i:
            left_out["are in two data sets or lists and count once"].append(row)
        else:
            yield name, row


def _apart(
    rows: list[tuple[str, builder.ImageRecord]], left_out: dict[str, list[builder.ImageRecord]]
) -> Iterator[tuple[str, builder.ImageRecord]]:
    """Yields rows of patients who are in no split of higher precedence."""
    patients: dict[str, set[str]] = {split: set() for split in _ORDER}
    for _, row in rows:
        patients[row.split].add(row.patient_id)
    for name, row in rows:
        if row.split != "test" and row.patient_id in patients["test"]:
            left_out["are of patients in a test split and are not trained on"].append(row)
        elif row.split == "train" and row.patient_id in patients["validation"]:
            left_out["are of patients in validation and are not trained on"].append(row)
        else:
            yield name, row


def _without_twins(
    rows: list[tuple[str, builder.ImageRecord]],
    matches: Mapping[str, str],
    left_out: dict[str, list[builder.ImageRecord]],
    pneumonia: int,
) -> tuple[list[tuple[str, builder.ImageRecord]], list[builder.ImageRecord]]:
    originals = {row.image_id: row for _, row in rows if row.source == "chestxray14"}
    kept, changed = [], {}
    for name, row in rows:
        original = originals.get(_original(row, matches) or "")
        if original is None:
            kept.append((name, row))
            continue
        left_out["are images of chestxray14, come in as the original and are left out"].append(row)
        both_train = row.split == original.split == "train"
        if both_train and (row.labels[pneumonia], original.labels[pneumonia]) == (
            POSITIVE, NEGATIVE,
        ):
            labels = list(original.labels)
            labels[pneumonia] = POSITIVE
            changed[original] = dataclasses.replace(original, labels=tuple(labels))
    return [(name, changed.get(row, row)) for name, row in kept], list(changed.values())


def without_copies(
    staged: Mapping[str, list[staging.Staged]], rows: Mapping[str, builder.ImageRecord],
    order: Mapping[str, int],
) -> tuple[dict[str, list[staging.Staged]], list[str]]:
    """Removes films of equal pixels, and films of a person in two splits whom they reveal.

    Arguments:
      staged: split -> records, whose keys begin with the SHA-256 of the pixels.
      rows: by `key_of`.
      order: place of the part of each image, by `key_of`.

    Returns:
      What stays, and remarks.
    """
    films = [(split, *_parsed(record), record) for split, part in staged.items() for record in part]
    films.sort(key=lambda film: (_ORDER[film[0]], order[film[2]]))
    seen: dict[str, tuple[str, str]] = {}
    same_person: dict[str, str] = {}

    def person(patient: str) -> str:
        while patient in same_person:
            patient = same_person[patient]
        return patient

    copies, distinct = [], []
    for film in films:
        split, pixels, key, _ = film
        first, its_split = seen.setdefault(pixels, (key, split))
        if (order[first], its_split) == (order[key], split):
            distinct.append(film)  # copies within one split of a data set stay as published
            continue
        copies.append(key)
        one, other = person(rows[first].patient_id), person(rows[key].patient_id)
        if one != other:
            same_person[other] = one
    best: dict[str, int] = {}
    for split, _, key, _ in distinct:
        who = person(rows[key].patient_id)
        best[who] = min(best.get(who, _ORDER[split]), _ORDER[split])
    kept: dict[str, list[staging.Staged]] = {split: [] for split in staged}
    apart = []
    for split, _, key, record in distinct:
        if _ORDER[split] > best[person(rows[key].patient_id)]:
            apart.append(key)
        else:
            kept[split].append(record)
    return kept, [
        *builder.note(copies, "images have the pixels of one in another data set or split"),
        *builder.note(apart, "images are of people whom such copies show in another split"),
    ]


def key_of(row: builder.ImageRecord) -> str:
    """Returns the name of an image among all sources."""
    return f"{row.source}/{row.image_id}"


def _parsed(record: staging.Staged) -> tuple[str, str]:
    """Returns the SHA-256 of the pixels and the name of the image."""
    pixels, _, key = record.key.partition(" ")
    return pixels, key
