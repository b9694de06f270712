"""Finds an image of one table in another, or in a folder, by the ends of paths.

The names of files and folders can also hold the split and the patient.
"""

import itertools
import re
from collections.abc import Callable, Sequence

import numpy as np

from jaxcxr.errors import UserError

# Not every last dot begins a file ending: DICOM's identifiers are numbers and dots.
_ENDING = re.compile(r"\.(?:png|jpe?g|dcm|dicom|tiff?|bmp|gif|webp|npy|nii|gz)$", re.IGNORECASE)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_PATIENT_FOLDER = re.compile(
    r"(?:patient|pat|subject|subj|sub|person|case|pt|p)[-_ ]?\d+", re.ASCII | re.IGNORECASE
)
_PATIENT_FILE = re.compile(
    r"((?:patient|pat|subject|subj|sub|pt)[-_ ]?\d+)(?:[-_. ].*)?", re.ASCII | re.IGNORECASE
)
_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trainval", "train_val"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "holdout"), "test"),
}


def match(
    wanted: Sequence[str], available: Sequence[str], asked, given, root: str = ""
) -> np.ndarray:
    """Finds each image in another file by the longest end that both paths have in common.

    An id without folders fits a file in any folder. Where both have folders, the nearest ones must
    be alike, and no beginning may say train where the other says test: `test/0000.png` is not
    `train/0000.png`. File endings, and then case, count only where they tell images apart.

    Arguments:
      wanted, available: ids, each without repetitions.
      asked, given: their files, for messages.
      root: folder that all of `available` lie in; it helps to choose, and need not fit.

    Returns:
      Indices into `available`, -1 where there is none, int64 `[wanted]`.

    Raises:
      UserError: an id matches several, several match one, or only the file names are alike.
    """
    result = np.full(len(wanted), -1)
    whole = {name: place for place, name in enumerate(available)}
    for i, name in enumerate(wanted):
        result[i] = whole.get(name, -1)
    search = _Search(wanted, available, asked, given, root)
    for level in (str, _without_ending, lambda name: _without_ending(name).casefold()):
        if (result >= 0).all():
            return result
        search.extend(result, level)
    search.refuse_conflicts(result)
    return result


def by_name_only(wanted: Sequence[str], available: Sequence[str], places: np.ndarray) -> int:
    """Counts the matches of which one side has folders, and the other none to compare with."""
    return sum(
        place >= 0 and (len(_parts(wanted[i])) == 1) != (len(_parts(available[place])) == 1)
        for i, place in enumerate(places.tolist())
    )


class _Search:
    """Searches ids by ends of their paths, see `match`."""

    def __init__(self, wanted, available, asked, given, root):
        self._wanted, self._available = wanted, available
        self._asked, self._given, self._root = asked, given, _parts(root)
        self._conflicts: dict[int, int] = {}

    def extend(self, result: np.ndarray, level: Callable[[str], str]) -> None:
        """Fills places of `result` that are -1, comparing paths as `level` leaves them."""
        taken = set(result[result >= 0].tolist())
        ends = self._ends(level)
        claims: dict[int, list[tuple[int, int]]] = {}
        for i in np.flatnonzero(result < 0).tolist():
            length, place = self._best(i, _parts(level(self._wanted[i])), ends)
            if place >= 0 and place not in taken:
                claims.setdefault(place, []).append((length, i))
        for place, rivals in claims.items():
            (length, i), *others = sorted(rivals, key=lambda rival: (-rival[0], rival[1]))
            if others and others[0][0] == length:
                raise UserError(
                    f"{self._asked}: {self._wanted[i]} and {self._wanted[others[0][1]]} both match "
                    f"{self._available[place]} of {self._given}; write the ids alike in both files"
                )
            result[i] = place

    def _ends(self, level: Callable[[str], str]) -> dict[tuple[str, ...], list[int]]:
        """Maps each end of each available path to the first two places that have it."""
        ends: dict[tuple[str, ...], list[int]] = {}
        for place, name in enumerate(self._available):
            parts = (*self._root, *_parts(level(name)))
            for begin in range(len(parts)):
                places = ends.setdefault(parts[begin:], [])
                if len(places) < 2:
                    places.append(place)
            if len(parts) - len(self._root) == 1:
                ends.setdefault(("", *parts[-1:]), []).append(place)  # without folders
        return ends

    def _best(self, i: int, parts: tuple[str, ...], ends) -> tuple[int, int]:
        """Returns how many parts of a path are found together, and where; -1: nowhere."""
        for begin in range(len(parts)):
            length = len(parts) - begin
            end = parts[begin:]
            found = ends.get(end, ())
            if length == 1 < len(parts):
                if found:
                    self._conflicts.setdefault(i, found[0])
                found = ends.get(("", *end), ())
            if not found:
                continue
            if len(found) > 1:
                one, other = (self._available[place] for place in found[:2])
                raise UserError(
                    f"{self._given}: {one} and {other} both match {self._wanted[i]} of "
                    f"{self._asked}; write the ids alike in both files"
                )
            rest = (*self._root, *_parts(self._available[found[0]]))[:-length]
            if _other_split(parts[:begin], rest):
                self._conflicts.setdefault(i, found[0])
                return 0, -1
            return length, found[0]
        return 0, -1

    def refuse_conflicts(self, result: np.ndarray) -> None:
        """Refuses ids whose only counterpart has the same name in another folder."""
        taken = set(result.tolist())
        for i, place in self._conflicts.items():
            if result[i] < 0 and place not in taken:
                raise UserError(
                    f"{self._wanted[i]} of {self._asked} and {self._available[place]} of "
                    f"{self._given} have the same name in different folders, and may be different "
                    "images; write the ids alike in both files"
                )


def _other_split(one: Sequence[str], other: Sequence[str]) -> bool:
    splits = [
        {_SPLIT_WORDS[part.casefold()] for part in parts if part.casefold() in _SPLIT_WORDS}
        for parts in (one, other)
    ]
    return all(splits) and not splits[0] & splits[1]


def split_word(text: str) -> str:
    """Returns "train", "validation" or "test" for a word such as `valid`; "" for all others."""
    return _SPLIT_WORDS.get(text.strip().casefold(), "")


def name_alone(path: str) -> str:
    """Returns the last part of a path, without the ending of a file."""
    return _without_ending((_parts(path) or ("",))[-1])


def split_in(name: str) -> str:
    """Returns the split that a name such as `CXR_test`, `val-2` or `TrainSet` holds as a word.

    Returns:
      "train", "validation" or "test"; "" if the name holds none or several.
    """
    words = [word.casefold() for word in _WORD.findall(name)]
    joined = " ".join(words).replace("train val", "trainval").split()
    found = {_SPLIT_WORDS[word] for word in joined if word in _SPLIT_WORDS}
    return found.pop() if len(found) == 1 else ""


def split_of(path: str) -> str:
    """Returns the split that the first of a path's folders to hold one holds, see `split_in`."""
    return next(filter(None, map(split_in, _parts(path)[:-1])), "")


def without_split(name: str) -> str:
    """Removes the words of splits: equal for `CXR_test` and `CXR_train`."""
    rest = _WORD.sub(lambda word: "" if word[0].casefold() in _SPLIT_WORDS else word[0], name)
    return rest.strip("-_. ")


def patients_in(names: Sequence[str]) -> list[str] | None:
    """Returns the patients that paths such as `p10/p10000032/a.jpg` or `sub-01_a.png` hold.

    The innermost folder counts, then the beginning of the file's name.

    Returns:
      The patient of each path; None if any holds none.
    """
    found = []
    for name in names:
        *folders, file = _parts(name) or ("",)
        inner = next(filter(_PATIENT_FOLDER.fullmatch, reversed(folders)), "")
        match = _PATIENT_FILE.fullmatch(file)
        if not inner and not match:
            return None
        found.append(inner or match[1])  # type: ignore[index]  # one of them is there
    return found


def same_names(
    left: Sequence[str], right: Sequence[str]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Pairs the paths of two lists that name the same image, whatever lies around them.

    The whole of one path, without the folders that all of its list lie in, must be the end of the
    other. If both have folders, the nearest must be alike, and no beginning may say train where
    the other says test. Case and file endings count only where they tell images apart.

    Arguments:
      left, right: paths, each without repetitions.

    Returns:
      Pairs of indices; and pairs of the same name of which this cannot tell.
    """
    paths = [[_parts(_without_ending(name).casefold()) for name in side] for side in (left, right)]
    ranks: dict[tuple[int, int], tuple[int, bool]] = {}
    doubtful = []
    for i, j in _candidates(*paths):
        one, other = paths[0][i], paths[1][j]
        length = _alike(one[::-1], other[::-1])
        near = length > 1 or min(len(one), len(other)) == 1
        if near and not _other_split(one[:-length], other[:-length]):
            ranks[i, j] = length, _parts(left[i])[-1] == _parts(right[j])[-1]
        else:
            doubtful.append((i, j))
    best: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for pair, rank in ranks.items():
        for end in ((0, pair[0]), (1, pair[1])):
            rivals = best.setdefault(end, [])
            if not rivals or rank >= ranks[rivals[0]]:
                best[end] = [pair, *(rivals if rivals and ranks[rivals[0]] == rank else ())]
    pairs = [pair for pair in ranks if best[0, pair[0]] == best[1, pair[1]] == [pair]]
    unsure = {pair for rivals in best.values() if len(rivals) > 1 for pair in rivals}
    return pairs, sorted({*doubtful, *unsure})


def _candidates(left: list, right: list) -> set[tuple[int, int]]:
    """Pairs paths of which one, without the root of its list, is the end of the other."""
    found = set()
    for swapped, ours, theirs in ((False, left, right), (True, right, left)):
        root = _alike(min(theirs)[:-1], max(theirs)[:-1]) if theirs else 0
        places: dict[tuple[str, ...], list[int]] = {}
        for j, path in enumerate(theirs):
            places.setdefault(path[root:], []).append(j)
        for i, path in enumerate(ours):
            for begin in range(len(path)):
                for j in places.get(path[begin:], ()):
                    found.add((j, i) if swapped else (i, j))
    return found


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """Counts the parts at the beginning that two paths have in common."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"[/\\]", name) if part not in ("", "."))


def _without_ending(name: str) -> str:
    return _ENDING.sub("", name)
