"""Splits images of one's own: by a column, by lists, or by patient."""

import collections
import hashlib
import pathlib
from collections.abc import Iterable, Sequence

from jaxcxr.data import image_paths
from jaxcxr.data.text_files import read_list
from jaxcxr.errors import UserError, some

SPLITS = ("train", "validation", "test")


def from_words(words: Sequence[str], where: Sequence[str]) -> list[str]:
    """Reads splits from the cells of a column; "" for an empty one.

    Raises:
      UserError: a word is no split.
    """
    splits = [image_paths.split_word(word) for word in words]
    wrong = sorted({word for word, split in zip(words, splits, strict=True) if word and not split})
    if wrong:
        place = where[words.index(wrong[0])]
        raise UserError(
            f"{place}: no splits in the column of splits: {some(map(repr, wrong))}; write train, "
            "val or test, or leave the column out by --ignore COLUMN"
        )
    return splits


def from_lists(paths: dict[str, pathlib.Path], ids: Sequence[str], labels) -> list[str]:
    """Reads splits from lists of images; without a list of train, all others are train.

    Arguments:
      paths: split -> file with an image per line.
      ids: of all images.
      labels: where these stand, for messages.

    Returns:
      The split of each image, "" if no list has it.

    Raises:
      UserError: a list is absent or empty, names an image that has no row, or two have the same.
    """
    splits = ["" if "train" in paths else "train"] * len(ids)
    owner: dict[int, str] = {}
    for split, path in paths.items():
        names, _ = read_list(path)
        places = image_paths.match(names, ids, path, labels)
        absent = [name for name, place in zip(names, places, strict=True) if place < 0]
        if absent:
            raise UserError(
                f"{path}: {len(absent)} of its {len(names)} images have no row in {labels}: "
                f"{some(absent)}"
            )
        for place in places.tolist():
            if owner.setdefault(place, split) != split:
                raise UserError(f"{path}: {ids[place]} is in the list of {owner[place]} too")
            splits[place] = split
    return splits


def check_patients(patients: Sequence[str], splits: Sequence[str], where) -> None:
    """Refuses patients whose images stand in several splits."""
    seen: dict[str, set[str]] = collections.defaultdict(set)
    for patient, split in zip(patients, splits, strict=True):
        if split:
            seen[patient].add(split)
    both = [f"{patient} ({', '.join(sorted(there))})" for patient, there in seen.items()
            if len(there) > 1]
    if both:
        raise UserError(
            f"{where}: {len(both)} patients stand in several splits: {some(both)}. Put all images "
            "of a patient into one split, or --ignore the column to split anew by patient."
        )


def carve(
    patients: Iterable[str], shares: dict[str, float], seed: int
) -> dict[str, str]:
    """Splits patients at random: exact shares, and at least one patient in each split asked for.

    Arguments:
      patients: ids, in any order and number.
      shares: of the patients for "validation" and "test"; the rest is "train".
      seed: another seed gives another split.

    Returns:
      Patient -> split.
    """
    order = sorted(
        set(patients), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest()
    )
    count, splits, begin = len(order), dict.fromkeys(order, "train"), 0
    for split, share in shares.items():
        size = min(max(round(share * count), share > 0), count - begin - 1)
        for name in order[begin : begin + max(size, 0)]:
            splits[name] = split
        begin += max(size, 0)
    return splits
