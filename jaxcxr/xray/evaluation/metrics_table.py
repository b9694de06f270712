"""Computes metrics of findings with 95 % intervals: the content of metrics.json, and its tables."""

import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcxr.report import tables
from jaxcxr.report.tables import interval_or_none, number, span
from jaxcxr.statistics import UNKNOWN, intervals, operating, ranking
from jaxcxr.xray.evaluation import xray_metrics
from jaxcxr.xray.evaluation.calibration import Calibration
from jaxcxr.xray.evaluation.xray_metrics import (
    AUROC,
    METRICS,
    PROBABILITIES,
    RANKING,
    RATES,
    XrayMetric,
    of_basis,
)

_NOTES = {
    "auroc_interval": "DeLong, images taken as independent; of macro: as auroc_interval_bootstrap",
    "other intervals": "percentiles over resamples of whole patients",
    "sensitivity_at_specificity": (
        f"greatest at a specificity of at least {ranking.SPECIFICITY}, read off the ROC curve"
    ),
    "f1_max": "threshold chosen on the images scored, hence optimistic",
    "f1, sensitivity, specificity, ppv, npv": "at shipped_threshold, chosen on validation images",
    "brier, ece": "of calibrated probabilities where there is a calibration, else of the scores; "
                  "ece over 10 bins of equal mass",
    "macro": "a resample in which any class of the mean is undefined is left out; no interval is "
             "given where half of them are",
}


def score(
    labels: np.ndarray,
    scores: np.ndarray,
    classes: Sequence[str],
    patients: Sequence[str] | np.ndarray | None,
    resamples: int = 1000,
    seed: int = 0,
    calibration: Calibration | None = None,
) -> dict:
    """Computes metrics with intervals, in the form of metrics.json.

    Arguments:
      labels: integers `[N, C]` in {1, 0, -1 unknown}.
      scores: `[N, C]`, larger is more positive; in [0, 1] if there is a calibration.
      classes: the C names.
      patients: `[N]`; None: each image is its own patient.
      resamples, seed: of the bootstrap.
      calibration: of these classes, fitted on other images.

    Returns:
      `per_class` (name -> the metrics of `METRICS`, each with `NAME_interval` as [low, high];
      `auroc_interval` is DeLong's, `auroc_interval_bootstrap` the bootstrap's; counts;
      `bootstrap_undefined`: resamples left out), `macro` (unweighted means with the bootstrap's
      intervals, `classes` in the mean, `classes_left_out`), `counts`, `settings`,
      `classes_of_few` (see `few_note`). With a calibration also `shipped_threshold`, the rates
      there, and `calibration` (its method). Undefined values are None.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    table = xray_metrics.evaluate(labels, scores, classes, of_basis(RANKING))
    clusters = np.arange(len(labels)) if patients is None else np.asarray(patients)
    drawn = ranking.cluster_bootstrap(
        labels, scores, clusters, resamples, seed,
        {metric.name: metric.measure for metric in of_basis(RANKING)},
    )
    per_class = {
        row.name: _class_entry(row, labels[:, i], scores[:, i], drawn, i)
        for i, row in enumerate(table.rows)
    }
    macro = _macro_entry(table, per_class, drawn)
    if calibration is not None or (scores.size and scores.min() >= 0 and scores.max() <= 1):
        _add_probabilities(
            labels, scores, clusters, (resamples, seed), calibration, per_class, macro
        )
    return {
        "per_class": per_class,
        "macro": macro,
        "counts": {
            "images": len(labels),
            "patients": None if patients is None else len(set(patients)),
        },
        "classes_of_few": few_of(classes, labels, clusters),
        "settings": {
            "resamples": resamples, "seed": seed, "level": intervals.LEVEL,
            "specificity": ranking.SPECIFICITY,
            "resampled": "images" if patients is None else "patients",
            "notes": _NOTES | {"null, n/a": _undefined(calibration is not None)},
            "calibration": None if calibration is None else dict(calibration.about),
        },
    }


def write(result: Mapping, out: pathlib.Path) -> None:
    """Writes `metrics.json`, `metrics.csv` and `metrics.md` to a folder, which is made."""
    rows = [{"class": name, **tables.flat(entry)} for name, entry in result["per_class"].items()]
    macro = tables.flat(result["macro"])
    rows.append({"class": "macro", **{name: macro[name] for name in macro if name in rows[0]}})
    tables.write_result(out, result, rows, ["```\n" + to_text(result) + "\n```"])


def to_text(result: Mapping, brief: bool = False) -> str:
    """Formats the result of `score` as tables: one line per class, then the means.

    If `brief`, only as much as 80 columns hold.
    """
    shipped = any("shipped_threshold" in entry for entry in result["per_class"].values())
    counted = {"n+": "n_positive", "n-": "n_negative"}
    if brief and any(entry["n_unknown"] for entry in result["per_class"].values()):
        counted["unk."] = "n_unknown"
    ranked: list[_Column] = []
    rated: list[_Column] = []
    for metric in METRICS:
        if metric.brief if brief else metric.title and not (shipped and metric.uncalibrated):
            (ranked if metric.basis == RANKING else rated).extend(_columns(metric, brief))
    counts: list[_Column] = [
        (head, functools.partial(_count, name)) for head, name in counted.items()
    ]
    blocks = [_ruled(result, "class", [*counts, *ranked])]
    if shipped:
        head, form = ("thresh.", ".3f") if brief else ("threshold", ".4g")
        threshold: list[_Column] = [(head, functools.partial(_shipped, form))]
        columns = [*rated, *threshold] if brief else [*threshold, *rated]
        blocks.append(_ruled(result, "at shipped thresholds", columns))
    left_out = result["macro"]["classes_left_out"]
    if left_out:
        blocks.append(f"not in the mean (one label value only): {', '.join(left_out)}")
    if result["classes_of_few"]:
        blocks.append(few_note(result))
    return "\n".join(blocks)


def few_of(classes: Sequence[str], labels: np.ndarray, clusters: np.ndarray) -> list[str]:
    """Names the classes of `intervals.few_clusters`."""
    few = intervals.few_clusters(labels, clusters)
    return [name for name, one in zip(classes, few, strict=True) if one]


def few_note(result: Mapping) -> str:
    """Says that the intervals of `classes_of_few` are too narrow."""
    who = result["settings"]["resampled"]
    return (f"intervals too narrow (fewer than {intervals.LEAST_CLUSTERS} {who} with or without "
            f"the finding): {', '.join(result['classes_of_few'])}")


def _undefined(calibrated: bool) -> str:
    """Says where metrics are undefined."""
    names: dict[str, list[str]] = {}
    for metric in METRICS:
        if calibrated or not metric.calibrated:
            names.setdefault(metric.undefined, []).append(metric.name)
    reasons = [f"{', '.join(of)}: {reason}" for reason, of in names.items()]
    return "; ".join([*reasons, "macro: any class of the mean undefined"])


def _class_entry(
    row: xray_metrics.ClassMetrics, labels, scores, drawn: ranking.Bootstrap, index: int
) -> dict:
    entry: dict[str, Any] = {}
    for metric in of_basis(RANKING):
        value, interval = row.values[metric.name], drawn.interval(metric.name, index)
        if metric.analytic is None:
            entry |= metric.entry(value, interval)
        else:
            entry |= metric.entry(value, metric.analytic(labels, scores))
            entry[metric.bootstrap] = interval_or_none(interval)
    return entry | {
        "n_positive": row.positives, "n_negative": row.negatives, "n_unknown": row.unknown,
        "bootstrap_undefined": int(drawn.undefined[index]),
    }


def _macro_entry(
    table: xray_metrics.ClassificationMetrics, per_class: dict, drawn: ranking.Bootstrap
) -> dict:
    used, names = table.used, [table.rows[i].name for i in table.used]
    entry: dict[str, Any] = {}
    for metric in of_basis(RANKING):
        if metric.macro:
            interval = intervals.percentile_interval(drawn.macro(metric.name, used))
            entry |= metric.entry(_mean(metric, per_class, names), interval)
            entry[metric.bootstrap] = entry[metric.interval]
    undefined = int(np.isnan(drawn.macro(AUROC.name, used)).sum())
    return entry | {
        "classes": names, "classes_left_out": list(table.undefined),
        "bootstrap_undefined": undefined,
    }


def _mean(metric: XrayMetric, per_class: Mapping[str, Mapping], names: Sequence[str]) -> float:
    """Averages over classes; NaN where one has no value, as in `ranking.Bootstrap.macro`."""
    values = [per_class[name][metric.name] for name in names]
    return float(np.mean(values)) if values and None not in values else math.nan


def _add_probabilities(
    labels, scores, clusters, draws, calibration: Calibration | None, per_class, macro
) -> None:
    """Adds metrics of probabilities, and of thresholds if there is a calibration."""
    names, calibrated = tuple(per_class), calibration is not None
    probabilities, thresholds = scores, np.full(len(names), math.inf)
    if calibration is not None:
        calibration = calibration.select(names)
        probabilities, thresholds = calibration.from_scores(scores), calibration.thresholds
    rates = of_basis(RATES, calibrated)
    wanted = {metric.name: metric.measure for metric in rates}
    terms = operating.terms(labels, probabilities, probabilities >= thresholds)
    sums, drawn = terms.sum(axis=0), operating.resampled_sums(terms, clusters, *draws)
    for i, (name, found) in enumerate(
        zip(names, operating.with_intervals(sums, drawn, wanted), strict=True)
    ):
        entry = per_class[name]
        if calibration is not None:
            entry["shipped_threshold"] = float(thresholds[i])
            entry["calibration"] = calibration.classes[i].method
        for metric in rates:
            value, *interval = found[metric.name]
            entry |= metric.entry(value, interval)
        known = labels[:, i] != UNKNOWN
        parts = labels[known, i], probabilities[known, i], scores[known, i]
        for metric in of_basis(PROBABILITIES, calibrated):
            entry |= metric.entry(metric.measure(*parts) if known.any() else math.nan)
    used = [i for i, name in enumerate(names) if name in macro["classes"]]
    of_draws = operating.rates(drawn, wanted)
    for metric in rates:
        if metric.macro:
            means = of_draws[metric.name][:, used].mean(axis=1) if used else np.full(1, math.nan)
            value = _mean(metric, per_class, macro["classes"])
            macro |= metric.entry(value, intervals.percentile_interval(means))


# The head of a column, and its cell of an entry; the means have no counts and no DeLong.
_Column = tuple[str, Callable[[Mapping], str]]


def _columns(metric: XrayMetric, brief: bool) -> list[_Column]:
    if brief:
        if not metric.brief_span:
            return [(metric.brief, metric.number)]
        return [(f"{metric.brief} [95 %]", functools.partial(_with_span, metric))]
    columns: list[_Column] = [(metric.title, metric.number)]
    if metric.analytic:
        columns.append(("[DeLong]", lambda entry: (
            span(entry[metric.interval]) if "n_positive" in entry else "")))
    if metric.span:
        columns.append(("[bootstrap]", lambda entry: span(entry[metric.bootstrap])))
    return columns


def _with_span(metric: XrayMetric, entry: Mapping) -> str:
    text = metric.number(entry)
    return text if text in ("", "n/a") else f"{text} {span(entry[metric.bootstrap])}"


def _count(name: str, entry: Mapping) -> str:
    return f"{entry[name]:,}" if name in entry else ""


def _shipped(form: str, entry: Mapping) -> str:
    return number(entry["shipped_threshold"], form) if "shipped_threshold" in entry else ""


def _ruled(result: Mapping, title: str, columns: Sequence[_Column]) -> str:
    """Formats a table with its means between rules."""
    macro = result["macro"]
    mean = f"macro mean ({len(macro['classes'])} of {len(result['per_class'])})"
    rows = [(name, *(cell(entry) for _, cell in columns))
            for name, entry in (*result["per_class"].items(), (mean, macro))]
    text = tables.aligned([(title, *(head for head, _ in columns)), *rows])
    rule = "-" * max(map(len, text))
    return "\n".join([text[0], rule, *text[1:-1], rule, text[-1]])
