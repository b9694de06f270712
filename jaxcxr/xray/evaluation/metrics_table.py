"""Figures of findings with 95% intervals: the content of metrics.json, and its tables.

`jaxcxr score` makes it of files, a run of its own test split.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from jaxcxr.report import tables
from jaxcxr.report.tables import interval_or_none, number, span, value_or_none
from jaxcxr.statistics import classification, intervals, operating, ranking
from jaxcxr.statistics import coverage as reliability
from jaxcxr.xray.evaluation.calibration import Calibration

RANKING = ("auroc", "average_precision", "sensitivity_at_specificity", "f1_max")
# At the shipped thresholds; predictive values too, but they have no macro mean.
AT_THRESHOLD = ("f1", "sensitivity", "specificity", "brier")
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
    patients: Sequence[str] | None,
    resamples: int = 1000,
    seed: int = 0,
    calibration: Calibration | None = None,
) -> dict:
    """Metrics with intervals, in the form of metrics.json.

    Arguments:
      labels: integers `[N, C]` in {1, 0, -1 unknown}.
      scores: `[N, C]`, larger is more positive; in [0, 1] if there is a calibration.
      classes: the C names.
      patients: `[N]`; none: each image is its own patient.
      resamples: of the bootstrap.
      seed: of the bootstrap.
      calibration: of these classes, fitted on other images.

    Returns:
      `per_class` (name -> `auroc`, `average_precision`, `sensitivity_at_specificity`, `f1_max`,
      `threshold` (of f1_max), each with `NAME_interval` as [low, high]; `auroc_interval` is
      DeLong's, `auroc_interval_bootstrap` the bootstrap's; `n_positive`, `n_negative`,
      `n_unknown`, `bootstrap_undefined`: resamples left out), `macro` (unweighted means with the
      bootstrap's intervals, `classes` in the mean, `classes_left_out`), `counts`, `settings`,
      `classes_of_few` (names of those whose intervals are too narrow, see `few_note`). With
      a calibration also `shipped_threshold`, `f1`, `sensitivity`, `specificity`, `ppv`, `npv`
      there, and `calibration` (its method); `brier`, its parts `brier_miscalibration` and
      `brier_discrimination`, and `ece` with it or with scores in [0, 1].
      What is undefined is None.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    table = classification.evaluate(labels, scores, classes)
    clusters = np.arange(len(labels)) if patients is None else np.asarray(patients)
    drawn = ranking.cluster_bootstrap(labels, scores, clusters, resamples, seed)
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
            "resampled": "images" if patients is None else "patients", "notes": _NOTES,
            "calibration": None if calibration is None else dict(calibration.about),
        },
    }


def write(result: Mapping, out: pathlib.Path) -> None:
    """`metrics.json`, `metrics.csv` and `metrics.md` in a folder, which is made.

    Raises:
      UserError: the folder cannot be written.
    """
    rows = [{"class": name, **tables.flat(entry)} for name, entry in result["per_class"].items()]
    macro = tables.flat(result["macro"])
    rows.append({"class": "macro", **{name: macro[name] for name in macro if name in rows[0]}})
    tables.write_result(out, result, rows, ["```\n" + to_text(result) + "\n```"])


def to_text(result: Mapping, brief: bool = False) -> str:
    """The result of `score` as aligned tables: one line per class, then the means.

    Arguments:
      result: of `score`.
      brief: only as much as 80 columns hold.
    """
    shipped = any("shipped_threshold" in entry for entry in result["per_class"].values())
    if brief:
        blocks = [_brief_table(result)]
    else:
        blocks = [_ranking_table(result, with_f1_max=not shipped)]
    if shipped:
        blocks.append(_brief_threshold_table(result) if brief else _threshold_table(result))
    left_out = result["macro"]["classes_left_out"]
    if left_out:
        blocks.append(f"not in the mean (one label value only): {', '.join(left_out)}")
    if result["classes_of_few"]:
        blocks.append(few_note(result))
    return "\n".join(blocks)


def few_of(classes: Sequence[str], labels: np.ndarray, clusters: np.ndarray) -> list[str]:
    """Names of the classes of `intervals.few_clusters`."""
    few = intervals.few_clusters(labels, clusters)
    return [name for name, one in zip(classes, few, strict=True) if one]


def few_note(result: Mapping) -> str:
    """What a reader of the intervals of `classes_of_few` has to know."""
    who = result["settings"]["resampled"]
    return (f"intervals too narrow (fewer than {intervals.LEAST_CLUSTERS} {who} with or without "
            f"the finding): {', '.join(result['classes_of_few'])}")


def _class_entry(row, labels, scores, drawn: ranking.Bootstrap, index: int) -> dict:
    f1, threshold = ranking.f1_max(labels, scores)
    delong = intervals.delong(labels, scores)
    entry = {
        "auroc": value_or_none(row.auroc), "auroc_interval": interval_or_none(delong.interval),
        "auroc_interval_bootstrap": interval_or_none(drawn.interval("auroc", index)),
    }
    for name, value in (
        ("average_precision", row.average_precision),
        ("sensitivity_at_specificity", ranking.sensitivity_at(labels, scores)),
        ("f1_max", f1), ("threshold", threshold),
    ):
        entry[name] = value_or_none(value)
        entry[f"{name}_interval"] = interval_or_none(drawn.interval(name, index))
    return entry | {
        "n_positive": row.positives, "n_negative": row.negatives, "n_unknown": row.unknown,
        "bootstrap_undefined": int(drawn.undefined[index]),
    }


def _macro_entry(
    table: classification.ClassificationMetrics, per_class: dict, drawn: ranking.Bootstrap
) -> dict:
    used = [i for i, row in enumerate(table.rows) if row.defined]
    names = [table.rows[i].name for i in used]
    entry = {}
    for metric in RANKING:
        values = drawn.macro(metric, used)
        interval = interval_or_none(intervals.percentile_interval(values))
        entry[metric] = float(np.mean([per_class[n][metric] for n in names])) if names else None
        entry[f"{metric}_interval"] = interval
        if metric == "auroc":
            entry["auroc_interval_bootstrap"] = interval
    undefined = int(np.isnan(values).sum())
    return entry | {
        "classes": names, "classes_left_out": list(table.undefined),
        "bootstrap_undefined": undefined,
    }


def _add_probabilities(
    labels, scores, clusters, draws, calibration: Calibration | None, per_class, macro
) -> None:
    """Adds what needs probabilities, and thresholds if there is a calibration."""
    names = tuple(per_class)
    probabilities, thresholds, rates = scores, np.full(len(names), math.inf), ("brier",)
    if calibration is not None:
        calibration = calibration.select(names)
        probabilities, thresholds = calibration.from_scores(scores), calibration.thresholds
        rates = operating.RATES
    terms = operating.terms(labels, probabilities, probabilities >= thresholds)
    sums, drawn = terms.sum(axis=0), operating.resampled_sums(terms, clusters, *draws)
    for i, (name, found) in enumerate(
        zip(names, operating.with_intervals(sums, drawn), strict=True)
    ):
        known = labels[:, i] != classification.UNKNOWN
        entry = per_class[name]
        if calibration is not None:
            entry["shipped_threshold"] = float(thresholds[i])
            entry["calibration"] = calibration.classes[i].method
        for rate in rates:
            entry[rate] = value_or_none(found[rate][0])
            entry[f"{rate}_interval"] = interval_or_none(found[rate][1:])
        for key, values in (("ece", probabilities), ("ece_uncalibrated", scores)):
            if key == "ece" or calibration is not None:
                bins = reliability.reliability(labels[known, i], values[known, i])
                entry[key] = value_or_none(bins.ece)
        if known.any():
            parts = reliability.brier_parts(labels[known, i], probabilities[known, i])
            entry |= {f"brier_{part}": parts[part] for part in ("miscalibration", "discrimination")}
        else:
            entry |= {"brier_miscalibration": None, "brier_discrimination": None}
    used = [i for i, name in enumerate(names) if name in macro["classes"]]
    of_draws = operating.rates(drawn)
    for rate in AT_THRESHOLD if calibration is not None else rates:
        values = [per_class[names[i]][rate] for i in used]
        macro[rate] = float(np.mean(values)) if used else None
        means = of_draws[rate][:, used].mean(axis=1) if used else np.full(1, math.nan)
        macro[f"{rate}_interval"] = interval_or_none(intervals.percentile_interval(means))


def _ranking_table(result: Mapping, with_f1_max: bool) -> str:
    share = f"{ranking.SPECIFICITY:.0%}".replace("%", "")
    header = ["class", "n+", "n-", "AUROC", "[DeLong]", "[bootstrap]", "AP", "[bootstrap]",
              f"sens@sp{share}", "[bootstrap]"]
    metrics = RANKING[1:3]
    if with_f1_max:
        header += ["F1max", "[bootstrap]", "threshold"]
        metrics = RANKING[1:]

    def cells(title: str, entry: Mapping) -> list[str]:
        one_class = "n_positive" in entry  # the means have no counts, threshold and DeLong
        counts = [f"{entry[n]:,}" if one_class else "" for n in ("n_positive", "n_negative")]
        delong = span(entry["auroc_interval"]) if one_class else ""
        line = [title, *counts, number(entry["auroc"]), delong,
                span(entry["auroc_interval_bootstrap"])]
        for metric in metrics:
            line += [number(entry[metric]), span(entry[f"{metric}_interval"])]
        if with_f1_max:
            line.append(number(entry["threshold"], ".4g") if one_class else "")
        return line

    return _ruled(result, header, cells)


def _threshold_table(result: Mapping) -> str:
    header = ["at shipped thresholds", "threshold", "F1", "[bootstrap]", "sens", "[bootstrap]",
              "spec", "[bootstrap]", "Brier", "[bootstrap]", "ECE"]

    def cells(title: str, entry: Mapping) -> list[str]:
        line = [title, number(entry["shipped_threshold"], ".4g")
                if "shipped_threshold" in entry else ""]
        for metric in AT_THRESHOLD:
            line += [number(entry[metric]), span(entry[f"{metric}_interval"])]
        return [*line, number(entry["ece"]) if "ece" in entry else ""]

    return _ruled(result, header, cells)


def _brief_table(result: Mapping) -> str:
    header = ["class", "n+", "n-", "AUROC [95 %]", "AP [95 %]"]
    unknown = any(entry["n_unknown"] for entry in result["per_class"].values())
    names = ["n_positive", "n_negative", *(["n_unknown"] if unknown else [])]
    if unknown:
        header.insert(3, "unk.")

    def cells(title: str, entry: Mapping) -> list[str]:
        counts = [f"{entry[name]:,}" if name in entry else "" for name in names]
        auroc = _both(entry["auroc"], entry["auroc_interval_bootstrap"])
        precision = _both(entry["average_precision"], entry["average_precision_interval"])
        return [title, *counts, auroc, precision]

    return _ruled(result, header, cells)


def _brief_threshold_table(result: Mapping) -> str:
    header = ["at shipped thresholds", "F1 [95 %]", "sens.", "spec.", "Brier", "ECE", "thresh."]

    def cells(title: str, entry: Mapping) -> list[str]:
        last = [number(entry[n]) if n in entry else "" for n in ("ece", "shipped_threshold")]
        rates = [number(entry[name]) for name in AT_THRESHOLD[1:]]
        return [title, _both(entry["f1"], entry["f1_interval"]), *rates, *last]

    return _ruled(result, header, cells)


def _both(value: float | None, interval: Sequence[float] | None) -> str:
    return "n/a" if value is None else f"{number(value)} {span(interval)}"


def _ruled(result: Mapping, header: list[str], cells) -> str:
    """A table with its means between rules."""
    macro = result["macro"]
    title = f"macro mean ({len(macro['classes'])} of {len(result['per_class'])})"
    rows = [cells(name, entry) for name, entry in result["per_class"].items()]
    text = tables.aligned([header, *rows, cells(title, macro)])
    rule = "-" * max(map(len, text))
    return "\n".join([text[0], rule, *text[1:-1], rule, text[-1]])
