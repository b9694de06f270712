"""Checks data sets for leaks, copies, contradicting labels and shortcuts.

Each check looks at all data sets at once and returns findings as dicts, as `finding` makes them.
"""

import collections
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse

from jaxcxr.errors import UserError
from jaxcxr.report.tables import value_or_none
from jaxcxr.statistics import association
from jaxcxr.xray.audit import duplicates
from jaxcxr.xray.audit.audited_sets import UNSPLIT, Everything, Part
from jaxcxr.xray.images import image_files, manifest

LEAK, WARNING = SEVERITIES = "leak", "warning"  # the worst first
ATTRIBUTES = ("source", "view", "sex", "age")
# AUROC from which discrimination is "acceptable": Hosmer, Lemeshow, Sturdivant, 2013, section 5.2.4
SHORTCUT = 0.7
TOGETHER = "all data sets"
_FEWEST = 10  # positives and negatives; with fewer, an attribute predicts a label by chance
_NO_PAIRS = np.zeros((0, 2), np.int64)

ADVICE = {
    "patient_in_two_splits": "move all images of a patient to one split, or leave them out of one",
    "identical_across_splits": "remove the images from the split that is trained on",
    "near_duplicate_across_splits": "look at the pairs; remove the copies from training",
    "near_duplicate_candidates": "audit the prepared data sets, which compares the pixels",
    "patient_in_unsplit": "give the split of each row, or remove the patients from one data set",
    "identical_in_unsplit": "give the split of each row, or remove the images from one data set",
    "identical_within_split": "keep one of the copies; otherwise the image counts several times",
    "label_conflict": "decide on one label, or set it to unknown",
    "same_file_names": "audit the images too (--images DIR), or write the ids alike in all files",
    "two_sexes": "look whether these are two people under one id",
    "impossible_age": "correct these ages; until then they count as unknown",
    "ages_apart": "look whether these are two people under one id",
    "shortcut": "evaluate within each group, or report this AUROC as the baseline",
    "no_patients": "give patient ids; without them, patients in two splits cannot be found",
}


def finding(kind: str, severity: str, between: Sequence[dict], count: int, text: str,
            items: Sequence[str]) -> dict:
    """Makes a finding as it is written to JSON."""
    return {
        "kind": kind, "severity": severity, "count": int(count), "text": text,
        "between": list(between), "advice": ADVICE[kind], "items": list(items),
    }


def identical(everything: Everything) -> Iterator[dict]:
    """Finds images that are the same by name, by a map or by the SHA-256 of their pixels."""
    for first, second, known in everything.across():
        kind = "identical_across_splits" if known else "identical_in_unsplit"
        yield from _identical(everything, first, second, kind, LEAK if known else WARNING)
    for first, second in itertools.combinations(everything.parts, 2):
        if first.split == second.split != UNSPLIT:
            yield from _identical(everything, first, second, "identical_within_split", WARNING)
    for part in everything.parts:
        group = groups(everything, part.rows)
        members = np.bincount(group)[group]
        copies = members > 1
        if copies.any():
            names = [", ".join(names) for names in _members(everything, part.rows, group, copies)]
            text = f"{copies.sum():,} images of the split show only {len(names):,} different ones"
            yield finding("identical_within_split", WARNING, [side(part, copies)], copies.sum(),
                          text, names)


def same_file_names(everything: Everything) -> Iterator[dict]:
    """Finds file names that two parts have in different folders, where no pixels tell more."""
    rows, doubtful = everything.rows, everything.doubtful
    doubtful = doubtful[(rows.sha256[doubtful] == "").any(axis=1)]
    for first, second, _ in everything.across():
        pairs = doubtful[np.isin(doubtful[:, 0], first.rows) & np.isin(doubtful[:, 1], second.rows)]
        if len(pairs):
            sides = [side(part, np.isin(part.rows, pairs[:, i]))
                     for i, part in enumerate((first, second))]
            items = [f"{rows.image_id[i]} ? {rows.image_id[j]}" for i, j in pairs.tolist()]
            text = f"file names are the same in different folders: {shares(sides)}"
            yield finding("same_file_names", WARNING, sides, len(pairs), text, items)


def _identical(everything, first: Part, second: Part, kind: str, severity: str) -> Iterator[dict]:
    matches: dict[int, int] = {}
    matched = [np.zeros(len(part.rows), bool) for part in (first, second)]

    def add(left: np.ndarray, right: np.ndarray) -> None:
        shared = np.intersect1d(left, right)
        shared = shared[shared != ""]
        matched[0][:] |= np.isin(left, shared)
        matched[1][:] |= np.isin(right, shared)
        place = {name: i for i, name in enumerate(right.tolist())}
        for i in np.flatnonzero(np.isin(left, shared)).tolist():
            matches.setdefault(i, place[left[i]])

    identity = everything.identity
    add(identity[first.rows], identity[second.rows])
    alike = everything.named_alike
    alike = alike[np.isin(alike[:, 0], first.rows) & np.isin(alike[:, 1], second.rows)]
    theirs = {identity[j]: identity[i] for i, j in alike.tolist()}
    named = [theirs.get(name, "") for name in identity[second.rows].tolist()]
    add(identity[first.rows], np.array(named, str).reshape(-1))
    add(everything.rows.sha256[first.rows], everything.rows.sha256[second.rows])
    if not matches:
        return
    sides = [side(part, matched[i]) for i, part in enumerate((first, second))]
    names = everything.rows.image_id
    items = [f"{names[first.rows[i]]} = {names[second.rows[j]]}" for i, j in matches.items()]
    text = f"the same images are {shares(sides)}"
    yield finding(kind, severity, sides, max(one["images"] for one in sides), text, items)


def near(everything: Everything, bits: int) -> tuple[list[dict], np.ndarray]:
    """Finds near-duplicates across splits: hashes differ in few bits; pixels, if present, confirm.

    Returns:
      Findings, and the confirmed pairs as indices `[k, 2]` of all rows.
    """
    searched = list(_near_by_hash(everything, bits))
    correlation = _Correlation(everything, [near.pairs for near in searched if near.has_pixels])
    names = everything.rows.image_id
    findings, confirmed = [], [_NO_PAIRS]
    for near in searched:
        pairs, values = near.pairs, np.zeros(0)
        if near.has_pixels:
            values = correlation.of(pairs)
            alike = values >= duplicates.CORRELATION
            pairs, values = pairs[alike], values[alike]
            confirmed.append(pairs)
        if not len(pairs):
            continue
        sides = [side(part, np.isin(part.rows, pairs[:, i]))
                 for i, part in enumerate((near.first, near.second))]
        items = [f"{names[i]} ~ {names[j]}" for i, j in pairs.tolist()]
        count = f"{'at least ' if near.ended else ''}{len(pairs):,} pairs"
        if near.has_pixels:
            items = [f"{item} (r {value:.3f})" for item, value in zip(items, values, strict=True)]
            text = f"{count} are nearly the same picture, pixels compared: {shares(sides)}"
            kind, severity = "near_duplicate_across_splits", near.severity
        else:
            text = f"{count} have hashes that differ in at most {bits} bits, pixels not compared"
            rate = duplicates.FALSE_MATCHES.get(bits)
            if rate:
                text += f"; {rate * near.compared:,.0f} are expected by chance"
            kind, severity = "near_duplicate_candidates", WARNING
        findings.append(finding(kind, severity, sides, len(pairs), text, items))
    return findings, np.concatenate(confirmed)


@dataclasses.dataclass(frozen=True)
class _Near:
    """Pairs `[k, 2]` with similar hashes in two splits, and whether the search hit its limit."""

    first: Part
    second: Part
    severity: str
    pairs: np.ndarray
    ended: bool
    compared: int

    @property
    def has_pixels(self) -> bool:
        return all(part.folder or part.small is not None for part in (self.first, self.second))


def _near_by_hash(everything: Everything, bits: int) -> Iterator[_Near]:
    """Finds pairs across splits by their hashes; known copies are left out."""
    rows = everything.rows
    hashed = (rows.sha256 != "") | (rows.phash != 0)
    for first, second, known in everything.across():
        left, right = first.rows[hashed[first.rows]], second.rows[hashed[second.rows]]
        pairs, ended = duplicates.near_pairs(rows.phash[left], rows.phash[right], bits)
        pairs = np.stack([left[pairs[:, 0]], right[pairs[:, 1]]], axis=1)
        same = (rows.sha256[pairs] == rows.sha256[pairs[:, ::-1]]) & (rows.sha256[pairs] != "")
        same |= everything.identity[pairs] == everything.identity[pairs[:, ::-1]]
        named = {*map(tuple, everything.named_alike.tolist())}
        pairs = pairs[[not one[0] and tuple(pair) not in named
                       for one, pair in zip(same, pairs.tolist(), strict=True)]]
        if len(pairs):
            severity = LEAK if known else WARNING
            yield _Near(first, second, severity, pairs, ended, len(left) * len(right))


class _Correlation:
    """Correlates pairs of images and decodes each image once."""

    def __init__(self, everything: Everything, pairs: Sequence[np.ndarray]):
        self._rows = np.unique(np.concatenate(pairs)) if pairs else np.zeros(0, np.int64)
        if not len(self._rows):
            return
        self._small = np.zeros((len(self._rows), duplicates.SIDE, duplicates.SIDE), np.uint8)
        for part in everything.parts:
            chosen = np.flatnonzero(np.isin(part.rows, self._rows))
            if part.small is not None:
                small = part.small[chosen]
            elif part.folder and len(chosen):
                small = _of_records(part, part.folder, chosen)
            else:
                continue
            self._small[np.searchsorted(self._rows, part.rows[chosen])] = small

    def of(self, pairs: np.ndarray) -> np.ndarray:
        """Returns the correlation of each of the pairs `[k, 2]`."""
        place = np.searchsorted(self._rows, pairs)
        return duplicates.correlations(self._small[place[:, 0]], self._small[place[:, 1]])


def _of_records(part: Part, folder: pathlib.Path, chosen: np.ndarray) -> np.ndarray:
    """Decodes images of a prepared data set, shrunken."""
    from jaxcxr.xray.images import radiographs  # lazily: TFDS takes seconds to import

    records = radiographs.open_records(folder, part.split)
    if len(records) != len(part.rows):
        raise UserError(
            f"{folder}: {len(records)} records of {part.split}, but its {manifest.NAME} has "
            f"{len(part.rows)} rows; prepare the data set again"
        )
    return duplicates.thumbnails(
        lambda i: image_files.decode(records[i]["image"]), chosen.tolist()
    )


def conflicts(everything: Everything, near_pairs: np.ndarray) -> Iterator[dict]:
    """Finds labels that are 1 in one copy of an image and 0 in another, in any split."""
    every = np.arange(len(everything.rows))
    group = groups(everything, every, near_pairs)
    wrong = np.zeros(len(every), bool)
    by_class: collections.Counter[str] = collections.Counter()
    for i, name in enumerate(everything.rows.classes):
        label = everything.rows.labels[:, i]
        both = np.bincount(group, label == 1) * np.bincount(group, label == 0) > 0
        by_class[name] = int(both.sum())
        wrong |= both[group]
    if wrong.any():
        members = [" = ".join(names) for names in _members(everything, every, group, wrong)]
        classes = ", ".join(f"{name} {n:,}" for name, n in by_class.most_common() if n)
        text = f"copies of {len(members):,} images have different labels: {classes}"
        sides = [side(part, wrong[part.rows]) for part in everything.parts]
        sides = [one for one in sides if one["images"]]
        yield finding("label_conflict", WARNING, sides, len(members), text, members)


def groups(
    everything: Everything, rows: np.ndarray, near_pairs: np.ndarray = _NO_PAIRS
) -> np.ndarray:
    """Numbers the distinct images `[n]`; copies, and copies of copies, share a number.

    Arguments:
      everything: all data sets.
      rows: indices `[n]`.
      near_pairs: copies confirmed by their pixels, `[k, 2]` positions among the rows.
    """
    n = len(rows)
    place = np.full(len(everything.rows), -1)
    place[rows] = np.arange(n)
    named = place[everything.named_alike]
    edges = [near_pairs, named[(named >= 0).all(axis=1)]]
    for key in (everything.identity[rows], everything.rows.sha256[rows]):
        _, first, place = np.unique(key, return_index=True, return_inverse=True)
        known = np.flatnonzero(key != "")
        edges.append(np.stack([known, first[place[known]]], axis=1))
    left, right = np.concatenate(edges).T
    graph = scipy.sparse.coo_array((np.ones(len(left), bool), (left, right)), (n, n))
    return scipy.sparse.csgraph.connected_components(graph, directed=False)[1]


def tables(everything: Everything) -> list[dict]:
    """Counts each class per data set and split, and how well attributes alone predict it.

    Splits are also counted together; so are data sets, for the classes that several of them label.
    """
    rows, shared = everything.rows, np.zeros(len(everything.rows.classes), int)
    origin = rows.source.astype(object)
    for part in everything.parts:  # where nothing tells the source, it is the data set
        origin[part.rows] = np.where(rows.source[part.rows] == "", part.data_set, origin[part.rows])
    rows = dataclasses.replace(rows, source=origin.astype(str))
    by_set: dict[str, dict[str, np.ndarray]] = {}
    for part in everything.parts:
        by_set.setdefault(part.data_set, {})[part.split] = part.rows
    for splits in by_set.values():
        shared += (rows.labels[np.concatenate(list(splits.values()))] >= 0).any(axis=0)
    if (shared > 1).any():
        merged: dict[str, list] = {}
        for part in everything.parts:
            merged.setdefault(part.split, []).append(part.rows)
        by_set[TOGETHER] = {split: np.concatenate(rows) for split, rows in merged.items()}
    result = []
    for name, splits in by_set.items():
        if len(splits) > 1:
            splits = {**splits, UNSPLIT: np.concatenate(list(splits.values()))}
        least = 2 if name == TOGETHER else 1
        result += [_table(rows.take(chosen), name, split, shared >= least)
                   for split, chosen in splits.items()]
    return result


def _table(rows: manifest.Manifest, name: str, split: str, wanted: np.ndarray) -> dict:
    values = {"source": rows.source, "view": rows.view, "sex": rows.sex, "age": rows.age}
    known = {name: values[name] != (-1 if name == "age" else "") for name in ATTRIBUTES}
    varied = [a for a in ATTRIBUTES if len(np.unique(values[a][known[a]])) > 1]
    classes = []
    for i, label in enumerate(rows.classes):
        labels = rows.labels[:, i]
        if not wanted[i] or not (labels >= 0).any():
            continue
        entry = {"name": label, "positive": int((labels == 1).sum()),
                 "negative": int((labels == 0).sum()), "unknown": int((labels < 0).sum())}
        for attribute in varied:
            chosen = known[attribute]
            entry[attribute] = _told(attribute, labels[chosen], values[attribute][chosen])
        classes.append(entry)
    patients_known = rows.patient_id[rows.patient_id != ""]
    return {"data_set": name, "split": split, "images": len(rows),
            "patients": len(np.unique(patients_known)), "attributes": varied, "classes": classes}


def _told(attribute: str, labels: np.ndarray, values: np.ndarray) -> dict:
    """Measures how well an attribute alone predicts a label: `auroc`, and `cramers_v`."""
    if attribute == "age":
        return {"auroc": value_or_none(association.value_auroc(labels, values))}
    table = association.counts(labels, values)
    v = association.cramers_v(table)
    # A single category tests nothing.
    auroc = association.category_auroc(table) if table.shape[1] > 1 else np.nan
    return {"auroc": value_or_none(auroc), "cramers_v": value_or_none(v)}


def shortcuts(found: Sequence[dict], threshold: float) -> Iterator[dict]:
    """Finds labels that one attribute alone predicts with at least this AUROC, one per attribute.

    Classes with under ten positives or negatives are skipped.
    """
    told: dict[tuple[str, str], list] = {}
    for table in found:
        for entry in table["classes"]:
            if min(entry["positive"], entry["negative"]) < _FEWEST:
                continue
            for attribute in table["attributes"]:
                auroc = entry[attribute]["auroc"]
                if auroc is not None and auroc >= threshold:
                    told.setdefault((table["data_set"], attribute), []).append(
                        (auroc, entry["name"], table["split"], table["images"])
                    )
    for (name, attribute), entries in told.items():
        entries.sort(key=lambda entry: -entry[0])
        items = [f"{label} in {split}: AUROC {auroc:.3f}" for auroc, label, split, _ in entries]
        sides = {split: {"data_set": name, "split": split, "images": n, "of": n}
                 for _, _, split, n in entries}
        labels = len({label for _, label, _, _ in entries})
        text = f"{attribute} alone predicts {labels} {'label' if labels == 1 else 'labels'}"
        yield finding("shortcut", WARNING, list(sides.values()), labels, text, items)


def side(part: Part, chosen: np.ndarray) -> dict:
    """Describes the chosen images of a part, bool `[n]`, for `finding`."""
    return {"data_set": part.data_set, "split": part.split,
            "images": int(chosen.sum()), "of": len(chosen)}


def shares(sides: Sequence[dict]) -> str:
    """Words how many images of each side are meant."""
    return " and ".join(
        f"{one['images']:,} of {one['of']:,} {one['split']} images" for one in sides
    )


def _members(everything, rows, group, chosen) -> list[list[str]]:
    """Lists the names of the chosen rows by group."""
    members: dict[int, list[str]] = {}
    for i in np.flatnonzero(chosen).tolist():
        members.setdefault(int(group[i]), []).append(str(everything.rows.image_id[rows[i]]))
    return list(members.values())
