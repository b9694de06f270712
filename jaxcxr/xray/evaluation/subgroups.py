"""Computes metrics by sex, age band, view, source or any other attribute, with intervals."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from jaxcxr.data import image_paths, label_tables
from jaxcxr.data.label_tables import COLUMNS, years
from jaxcxr.data.text_files import CsvFile, fold, read_csv
from jaxcxr.errors import UserError, some
from jaxcxr.report import tables
from jaxcxr.report.tables import Metric
from jaxcxr.statistics import NEGATIVE, POSITIVE, intervals, operating, ranking
from jaxcxr.xray.evaluation import xray_metrics
from jaxcxr.xray.evaluation.xray_metrics import METRICS, RANKING, RATES

ALL = "all"  # stands in the column of the class for a whole group
UNKNOWN = "unknown"
LEAST_PATIENTS = 10  # of a group whose metrics get intervals: resamples of fewer are too alike
AGE_BANDS = ((0, 19), (20, 39), (40, 59), (60, 79), (80, 120))
_ATTRIBUTES = ("sex", "age", "view", "source")  # of `label_tables.COLUMNS`
_RANKED = tuple(m for m in METRICS if m.groups and m.basis == RANKING)
_RATED = tuple(m for m in METRICS if m.groups and m.basis == RATES)
_GAP = Metric(name="gap", page="gap", brief="sensitivity gap", form="+.3f", higher=None,
              undefined="no positive in the group or outside it")
_MISSED = Metric(name="under_diagnosis", page="under-diagnosis", brief="under-diagnosis",
                 higher=False, undefined="no image with a finding")
_OVERCALLED = Metric(name="over_diagnosis", page="over-diagnosis", higher=False,
                     undefined="no image without any finding")
SHOWN = (
    *(dataclasses.replace(m, brief=m.brief if m.groups == "brief" else "")
      for m in (*_RANKED, *_RATED)),
    _GAP, _MISSED, _OVERCALLED,
)
_NOTES = (
    "95 % intervals over resamples of whole patients, not corrected for the number of rows; none "
    f"of fewer than {LEAST_PATIENTS} patients, nor where all resamples agree. "
    "gap: sensitivity at the shipped thresholds minus that of all other images of the attribute, "
    "for a whole group the mean over classes that both have. Under-diagnosis: share of images with "
    "a finding but none predicted; over-diagnosis: share without any but with one predicted "
    "(Seyyed-Kalantari et al., 2021). AUROC of a whole group: mean over the classes counted; do "
    "not compare it with means over other classes."
)


def rows(
    labels: np.ndarray,
    scores: np.ndarray,
    classes: Sequence[str],
    patients: Sequence[str] | np.ndarray | None,
    attributes: Mapping[str, np.ndarray],
    found: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> list[dict]:
    """Makes one row for each group of each attribute, and for each of its classes.

    Arguments:
      labels, scores, classes, patients, resamples, seed: as of `metrics_table.score`.
      attributes: name -> `[N]` of text; those with one value only are left out.
      found: bool `[N, C]`, findings predicted at the shipped thresholds; None: AUROC alone.

    Returns:
      Dicts of `attribute`, `group`, `class` (`ALL` for the whole group), `images`, `patients`,
      `positives`, `negatives`, `classes` (in the AUROC of a whole group), and of the metrics of
      `SHOWN`, each with `NAME_interval`; None where undefined.

    Source: Seyyed-Kalantari et al., "Underdiagnosis bias of artificial intelligence algorithms
      applied to chest radiographs in under-served patient populations", 2021.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    clusters = np.arange(len(labels)) if patients is None else np.asarray(patients)
    terms = None
    if found is not None:
        # The Brier score, which takes probabilities, is not wanted of these sums.
        rated = operating.terms(labels, np.zeros(labels.shape), found)
        terms = np.concatenate([rated, np.stack(_any(labels, found), axis=-1)], axis=-1)
    result = []
    for attribute, values in attributes.items():
        values = np.where(np.asarray(values, str) == "", UNKNOWN, np.asarray(values, str))
        names = np.unique(values)
        if len(names) < 2:
            continue
        for name in names:
            mask = values == name
            part = (labels[mask], scores[mask], clusters[mask])
            entries = _ranked_rows(*part, classes, resamples, seed)
            if terms is not None:
                _add_rates(entries, terms, mask, clusters, (resamples, seed))
            if len(np.unique(part[2])) < LEAST_PATIENTS:
                entries = [_without_intervals(entry) for entry in entries]
            about = {"attribute": attribute, "group": str(name)}
            result += [about | entry for entry in entries]
    return result


def age_bands(ages: np.ndarray) -> np.ndarray:
    """Names the `AGE_BANDS` of ages `[N]` in whole years; "" for an unknown age, below 0."""
    names = np.full(len(ages), "", "<U5")
    for low, high in AGE_BANDS:
        name = f"{low}+" if high == AGE_BANDS[-1][1] else f"{low:02d}-{high}"
        names[(ages >= low) & (ages <= high)] = name
    return names


def read(
    path: str | pathlib.Path, ids: Sequence[str], labels_path: str | pathlib.Path
) -> dict[str, np.ndarray]:
    """Reads attributes of images from a csv file.

    The file has a column of image ids, as `jaxcxr score` knows them, and any of sex (or Patient
    Sex, Patient Gender), age (or Patient Age: 57, 057Y), view (or View Position) and source, so
    that ChestX-ray14's Data_Entry csv will do. With none of them, all other columns are attributes.

    Returns:
      Attribute -> `[N]` of text; ages are in bands.

    Raises:
      UserError: the file is not of this form, or does not hold every image.
    """
    table = read_csv(path)
    place = image_paths.match(ids, label_tables.image_ids(table), labels_path, path)
    absent = [name for name, row in zip(ids, place, strict=True) if row < 0]
    if absent:
        raise UserError(
            f"{path}: {len(absent)} of {len(ids)} images have no row: {some(absent)}; "
            "add them, with empty cells where nothing is known"
        )
    chosen = _chosen(table)
    if not chosen:
        raise UserError(f"{path}: no column beside the image's; one per attribute is needed")
    found = {}
    for attribute, column in chosen.items():
        values = np.array([table.rows[row][column] for row in place], str)
        if attribute == "age":
            values = age_bands(np.array([years(value) for value in values]))
        found[attribute] = values
    return found


def write(entries: Sequence[Mapping], folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """Writes `subgroups.csv` and `subgroups.md`, unless there are no rows; returns the files."""
    if not entries:
        return ()
    csv_path, md_path = folder / "subgroups.csv", folder / "subgroups.md"
    flat = [tables.flat(entry) for entry in entries]
    tables.write_csv(csv_path, list(flat[0]), ([row[name] for name in flat[0]] for row in flat))
    groups = tables.markdown(_lines(entries, of_groups=True))
    classes = tables.markdown(_lines(entries, of_groups=False))
    text = "\n".join(["# Subgroups", "", *groups, "", _NOTES, "", "## Classes", "", *classes])
    md_path.write_text(text + "\n", encoding="utf-8")
    return csv_path, md_path


def to_text(entries: Sequence[Mapping], brief: bool = False) -> str:
    """Formats the whole groups as a table, if `brief` of 80 columns; "" without rows."""
    if not entries:
        return ""
    lines = _brief_lines(entries) if brief else _lines(entries, of_groups=True)
    return "\n".join(tables.aligned(lines))


def _chosen(table: CsvFile) -> dict[str, int]:
    """Maps each attribute to its column."""
    columns = {name: table.column(COLUMNS[name]) for name in _ATTRIBUTES}
    known = {name: column for name, column in columns.items() if column is not None}
    if known:
        return known
    skipped = ("", *COLUMNS["image_id"], *COLUMNS["patient_id"])
    return {name: i for i, name in enumerate(table.columns) if fold(name) not in skipped}


def _any(labels, found) -> list[np.ndarray]:
    """Marks whole images: missed, with a finding, overcalled, without any, as `[N, C]` / C."""
    some = (labels == POSITIVE).any(axis=1)
    none = (labels == NEGATIVE).all(axis=1)
    said = found.any(axis=1)
    parts = (some & ~said, some, none & said, none)
    # All terms have one shape; the first class holds what is of the whole image.
    first = np.arange(labels.shape[1]) == 0
    return [part[:, None] * first.astype(np.float64) for part in parts]


def _ranked_rows(labels, scores, clusters, classes, resamples, seed) -> list[dict]:
    """Makes the entries of the whole group and of its classes, with metrics without threshold."""
    table = xray_metrics.evaluate(labels, scores, classes, _RANKED)
    drawn = ranking.cluster_bootstrap(
        labels, scores, clusters, resamples, seed, {m.name: m.measure for m in _RANKED}
    )
    counts = {"images": len(labels), "patients": len(np.unique(clusters))}
    some = (labels == POSITIVE).any(axis=1).sum()
    none = (labels == NEGATIVE).all(axis=1).sum()
    entries = [
        {"class": ALL, **counts, "positives": int(some), "negatives": int(none),
         "classes": len(table.used)},
        *({"class": row.name, **counts, "positives": row.positives, "negatives": row.negatives,
           "classes": 1} for row in table.rows),
    ]
    for metric in _RANKED:
        values = np.array([row.values[metric.name] for row in table.rows])
        of_draws = drawn.values[metric.name]
        means = drawn.macro(metric.name, table.used)
        _add(entries, metric, values, of_draws, table.used, means)
    return entries


def _add_rates(entries, terms, mask, clusters, draws) -> None:
    """Adds rates at the thresholds, the gap to the other images, under- and over-diagnosis."""
    here, rest = terms * mask[:, None, None], terms * ~mask[:, None, None]
    mine, others = _rates(here.sum(axis=0)), _rates(rest.sum(axis=0))
    mine_drawn = _rates(operating.resampled_sums(here, clusters, *draws))
    others_drawn = _rates(operating.resampled_sums(rest, clusters, *draws))
    for rates, other in ((mine, others), (mine_drawn, others_drawn)):
        rates["gap"] = rates["sensitivity"] - other["sensitivity"]
    for metric in (*_RATED, _GAP):
        values, drawn = mine[metric.name], mine_drawn[metric.name].T
        both = ~np.isnan(values)
        means = drawn[both].mean(axis=0) if both.any() else np.full(1, math.nan)
        _add(entries, metric, values, drawn, both, means)
    for metric in (_MISSED, _OVERCALLED):
        ends = operating.interval(mine_drawn[metric.name][:, 0])
        entries[0] |= metric.entry(mine[metric.name][0], ends)
        for entry in entries[1:]:
            entry |= {metric.name: None, metric.interval: None}


def _add(entries, metric: Metric, values, drawn, used, means) -> None:
    """Adds a metric to the entry of the whole group, which comes first, and to its classes."""
    chosen = values[used]
    mean = chosen.mean() if len(chosen) else math.nan
    entries[0] |= metric.entry(mean, operating.interval(means))
    for entry, value, of_draws in zip(entries[1:], values, drawn, strict=True):
        entry |= metric.entry(value, operating.interval(of_draws))


def _rates(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Computes rates, under- and over-diagnosis `[..., C]` of sums of terms `[..., C, 9]`."""
    wanted = {metric.name: metric.measure for metric in _RATED} | {
        "sensitivity": operating.sensitivity
    }
    missed, some, over, none = np.moveaxis(sums[..., 5:], -1, 0)
    return operating.rates(sums[..., :5], wanted) | {
        _MISSED.name: intervals.ratio(missed, some), _OVERCALLED.name: intervals.ratio(over, none),
    }


def _without_intervals(entry: Mapping) -> dict:
    return {n: None if n.endswith("_interval") else value for n, value in entry.items()}


def _brief_lines(entries: Sequence[Mapping]) -> list[tuple[str, ...]]:
    shown = [
        dataclasses.replace(metric, form=metric.form.replace("3", "2"))
        for metric in SHOWN if metric.brief and metric.name in entries[0]
    ]
    lines = [("group", "images", *(metric.brief for metric in shown))]
    for entry in entries:
        if entry["class"] == ALL:
            name = f"{entry['attribute']} {entry['group']}"
            cells = (metric.cell(entry) for metric in shown)
            lines.append((name, f"{entry['images']:,}", *cells))
    return lines


def _lines(entries: Sequence[Mapping], *, of_groups: bool) -> list[tuple[str, ...]]:
    """Formats cells of the whole groups, or of their classes."""
    kept = [entry for entry in entries if (entry["class"] == ALL) == of_groups]
    shown = [m for m in SHOWN if any(entry.get(m.name) is not None for entry in kept)]
    texts: tuple[str, ...]
    if of_groups:
        texts, names = ("attribute", "group"), {
            "images": "images", "patients": "patients", "positives": "with finding",
            "negatives": "without", "classes": "classes",
        }
    else:
        texts = ("attribute", "group", "class")
        names = {"positives": "n+", "negatives": "n-"}
    lines = [(*texts, *names.values(), *(metric.page for metric in shown))]
    for entry in kept:
        lines.append((
            *(entry[name] for name in texts), *(f"{entry[name]:,}" for name in names),
            *(metric.cell(entry) for metric in shown),
        ))
    return lines
