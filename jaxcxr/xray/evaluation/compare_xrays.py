"""Compares models on the same radiographs: are they better beyond chance?

Every model is compared with the first one. Of several seeds the mean and the spread are shown, and
the mean is compared; scores are never pooled.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcxr.data import image_paths
from jaxcxr.data.label_tables import LABEL_PREFIX
from jaxcxr.data.text_files import fold, read_csv
from jaxcxr.errors import UserError, some
from jaxcxr.report import tables
from jaxcxr.report.tables import interval_or_none, number, span, value_or_none
from jaxcxr.statistics import intervals, operating, paired, ranking
from jaxcxr.xray.evaluation import calibration_fit, metrics_table, scored_files, xray_metrics
from jaxcxr.xray.evaluation.calibration import NAME, Calibration
from jaxcxr.xray.evaluation.xray_metrics import AUROC, METRICS, RANKING, RATES

MACRO = "macro"
_COMPARED = {metric.name: metric for metric in METRICS if metric.compared}
_NOTES = {
    "difference": "of the model minus the first one; of seeds: between the means over seeds",
    "interval, p": "bootstrap of whole patients, the same draws for both; of other patients with "
                   "these very runs",
    "p_delong": "DeLong's test of AUROC, images taken as independent",
    "p_holm, p_delong_holm": "adjusted by Holm (1979) over the classes and models of a metric",
    "seeds": "Welch's t test over seeds: of other seeds on these very images",
    "f1, brier": "of calibrated probabilities at the thresholds shipped with each run",
}


@dataclasses.dataclass(frozen=True)
class Model:
    """Holds the predictions of one model, whose runs differ by their seed alone.

    Attributes:
      name: "A", "B", ...
      paths: of the runs, as given.
      scores: float64 `[seeds, N, C]`.
      probabilities, found: `[seeds, N, C]`, calibrated, and the findings at the shipped
        thresholds; None unless every run has a calibration.
    """

    name: str
    paths: tuple[str, ...]
    scores: np.ndarray
    probabilities: np.ndarray | None
    found: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Compared:
    """Holds at least two models on the same images.

    Attributes:
      labels: int8 `[N, C]`. classes: the C names.
      patients: `[N]`; None if unknown.
      inputs: for each run its files' names and SHA-256.
    """

    labels: np.ndarray
    classes: tuple[str, ...]
    patients: tuple[str, ...] | None
    models: tuple[Model, ...]
    inputs: dict[str, dict]


def read(
    models: Mapping[str, Mapping[str, pathlib.Path]],
    labels: str | None = None,
    split_list: str | None = None,
) -> Compared:
    """Reads all predictions and puts them on the same images and classes.

    Arguments:
      models: name -> run of each of its seeds, as given -> file of its predictions.
      labels: file of the true labels; None: each file of predictions has its own, which must agree.
      split_list: text file, one image per line; only these are compared.

    Raises:
      UserError: as `scored_files.join`; images, labels or classes differ; a file has no labels.
    """
    joined = {
        path: scored_files.join(labels or _with_labels(file), file, split_list)
        for files in models.values() for path, file in files.items()
    }
    first_path, first = next(iter(joined.items()))
    found = []
    for name, files in models.items():
        scores = np.stack([_aligned(joined[path], path, first_path, first) for path in files])
        found.append(Model(name, tuple(files), scores, *_calibrated(tuple(files), scores, first)))
    inputs = {path: of.inputs for path, of in joined.items()}
    return Compared(first.labels, first.classes, first.patients, tuple(found), inputs)


def _with_labels(file: pathlib.Path) -> pathlib.Path:
    if not any(map(LABEL_PREFIX.match, read_csv(file).columns)):
        raise UserError(f"{file}: no column label_CLASS; give the true labels with --labels FILE")
    return file


def _aligned(
    joined: scored_files.Joined, path: str, first_path: str, first: scored_files.Joined
) -> np.ndarray:
    """Puts scores in the order of the first run's images and classes."""
    if set(map(fold, joined.classes)) != set(map(fold, first.classes)):
        differ = set(map(fold, joined.classes)) ^ set(map(fold, first.classes))
        shown = [n for n in (*first.classes, *joined.classes) if fold(n) in differ]
        raise UserError(
            f"{path}: not the classes of {first_path}; they differ in {some(shown)}"
        )
    place = image_paths.match(first.ids, joined.ids, first_path, path)
    if len(joined.ids) != len(first.ids) or (place < 0).any():
        absent = [name for name, row in zip(first.ids, place, strict=True) if row < 0]
        here = set(range(len(joined.ids))) - set(place.tolist())
        only = [*absent, *(joined.ids[i] for i in sorted(here))]
        raise UserError(
            f"{path}: not the images of {first_path}; {len(only)} are in one of both only: "
            f"{some(only)}; name the common ones with --split-list"
        )
    order = [list(map(fold, joined.classes)).index(fold(name)) for name in first.classes]
    labels = joined.labels[place][:, order]
    wrong = np.argwhere(labels != first.labels)
    if len(wrong):
        row, column = wrong[0]
        raise UserError(
            f"{path}: not the labels of {first_path}; {len(wrong)} differ, the first is "
            f"{first.classes[column]} of {first.ids[row]}"
        )
    return joined.scores[place][:, order]


def _calibrated(
    paths: Sequence[str], scores: np.ndarray, joined: scored_files.Joined
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Computes probabilities and findings, if every run is a workdir with a calibration."""
    files = [pathlib.Path(path) / NAME for path in paths]
    if not all(file.is_file() for file in files):
        return None, None
    probabilities, found = [], []
    for path, file, values in zip(paths, files, scores, strict=True):
        calibration_fit.checked_scores(dataclasses.replace(joined, scores=values), path)
        calibration = Calibration.load(file).select(joined.classes)
        probabilities.append(calibration.from_scores(values))
        found.append(calibration.findings(probabilities[-1]))
    return np.stack(probabilities), np.stack(found)


def compare(compared: Compared, resamples: int = 1000, seed: int = 0) -> dict:
    """Compares each model with the first; the result has the form of metrics.json.

    Returns:
      `metrics` (name -> class or "macro" -> `models` (model -> `values` of its seeds, `mean`,
      `deviation`, `interval`) and `differences` (model -> `difference`, `interval`, `p`, `p_holm`;
      of AUROC `p_delong`, `p_delong_holm`; with seeds `seeds` (`interval`, `p`)), and
      `n_positive`, `n_negative`), `counts`, `settings`. None where undefined.
    """
    labels, classes = compared.labels, compared.classes
    clusters = np.arange(len(labels)) if compared.patients is None else np.asarray(
        compared.patients)
    table = xray_metrics.evaluate(labels, compared.models[0].scores[0], classes, ())
    measured = {m.name: _measured(m, labels, clusters, table.used, resamples, seed)
                for m in compared.models}
    common = [metric for metric in _COMPARED if all(metric in m for m in measured.values())]
    result = {}
    for metric in common:
        of_metric = {}
        for i, name in enumerate((*classes, MACRO)):
            counts = {} if name == MACRO else {
                "n_positive": table.rows[i].positives, "n_negative": table.rows[i].negatives,
            }
            of_metric[name] = counts | _entry({m: f[metric] for m, f in measured.items()}, i)
        if _COMPARED[metric].analytic:
            _add_delong(of_metric, compared)
        _add_holm(of_metric, classes, "p")
        result[metric] = of_metric
    return {
        "task": "cxr", "metrics": result,
        "counts": {
            "images": len(labels),
            "patients": None if compared.patients is None else len(set(compared.patients)),
        },
        "classes_left_out": list(table.undefined),
        "classes_of_few": metrics_table.few_of(classes, labels, clusters),
        "settings": {"resamples": resamples, "seed": seed, "level": intervals.LEVEL,
                     "resampled": "images" if compared.patients is None else "patients",
                     "notes": _NOTES},
    }


def _measured(model: Model, labels, clusters, used, resamples: int, seed: int) -> dict:
    """Computes metric -> (values `[seeds, C + 1]`, draws of their mean `[C + 1, resamples]`)."""
    ranked = [metric for metric in _COMPARED.values() if metric.basis == RANKING]
    wanted = {m.name: m.measure for m in _COMPARED.values() if m.basis == RATES}
    values: dict[str, list] = {}
    draws: dict[str, list] = {}

    def add(metric: str, of_classes: np.ndarray, of_draws: np.ndarray) -> None:
        macro = of_classes[used].mean() if used else math.nan
        drawn = of_draws[used].mean(axis=0) if used else np.full(resamples, math.nan)
        values.setdefault(metric, []).append([*of_classes, macro])
        draws.setdefault(metric, []).append(np.concatenate([of_draws, drawn[None]]))

    for seed_, scores in enumerate(model.scores):
        bootstrap = ranking.cluster_bootstrap(
            labels, scores, clusters, resamples, seed, {m.name: m.measure for m in ranked}
        )
        for metric in ranked:
            found = [metric.value(*of) for of in zip(labels.T, scores.T, strict=True)]
            add(metric.name, np.array(found), bootstrap.values[metric.name])
        if model.probabilities is not None and model.found is not None:
            terms = operating.terms(labels, model.probabilities[seed_], model.found[seed_])
            rates = operating.rates(terms.sum(axis=0), wanted)
            drawn = operating.resampled_sums(terms, clusters, resamples, seed)
            for name, of_draws in operating.rates(drawn, wanted).items():
                add(name, rates[name], of_draws.T)
    return {m: (np.array(values[m]), np.mean(draws[m], axis=0)) for m in values}


def _entry(measured: Mapping[str, tuple[np.ndarray, np.ndarray]], column: int) -> dict:
    """Describes one class of one metric: the models, and their differences from the first."""
    models, first = {}, None
    differences: dict[str, dict[str, Any]] = {}
    for name, (values, draws) in measured.items():
        of_seeds, drawn = values[:, column], draws[column]
        models[name] = {
            "values": [value_or_none(value) for value in of_seeds],
            "mean": value_or_none(of_seeds.mean()),
            "deviation": float(of_seeds.std(ddof=1)) if len(of_seeds) > 1 and not np.isnan(
                of_seeds).any() else None,
            "interval": interval_or_none(intervals.percentile_interval(drawn)),
        }
        if first is None:
            first = (of_seeds, drawn)
            continue
        difference = paired.resampled(of_seeds.mean() - first[0].mean(), drawn - first[1])
        differences[name] = {
            "difference": value_or_none(difference.value),
            "interval": interval_or_none(difference.interval), "p": value_or_none(difference.p),
        }
        over_seeds = paired.seeds(first[0], of_seeds)
        if over_seeds is not paired.NONE:
            differences[name]["seeds"] = {
                "interval": interval_or_none(over_seeds.interval), "p": value_or_none(over_seeds.p)
            }
    return {"models": models, "differences": differences}


def _add_delong(of_metric: dict, compared: Compared) -> None:
    first = compared.models[0]
    for i, name in enumerate(compared.classes):
        for model in compared.models[1:]:
            found = paired.delong(
                compared.labels[:, i], first.scores[:, :, i], model.scores[:, :, i]
            )
            of_metric[name]["differences"][model.name] |= {
                "p_delong": value_or_none(found.p),
                "interval_delong": interval_or_none(found.interval),
            }
    _add_holm(of_metric, compared.classes, "p_delong")


def _add_holm(of_metric: dict, classes, key: str) -> None:
    """Adds adjusted p values beside the others, over classes and models."""
    entries = [entry for name in classes for entry in of_metric[name]["differences"].values()]
    p = [math.nan if entry[key] is None else entry[key] for entry in entries]
    for entry, adjusted in zip(entries, paired.holm(p), strict=True):
        entry[f"{key}_holm"] = value_or_none(adjusted)


def lines(result: Mapping) -> dict[str, list[tuple[str, ...]]]:
    """Formats the table of each metric as cells, by its title."""
    found = {}
    for metric, of_metric in result["metrics"].items():
        names = list(next(iter(of_metric.values()))["models"])
        header = ["class", "n+", *names]
        for name in names[1:]:
            header += [f"{name} - A [95 %]", "p", "p Holm"]
            header += ["DeLong", "Holm"] if _COMPARED[metric].analytic else []
        table = [tuple(header)]
        for title, entry in of_metric.items():
            cells = [title, f"{entry['n_positive']:,}" if "n_positive" in entry else ""]
            cells += [_model_cell(model) for model in entry["models"].values()]
            for one in entry["differences"].values():
                interval = one["interval"]
                cells.append(f"{number(one['difference'], '+.3f')} {span(interval, '+.3f')}")
                keys = ["p", "p_holm"] + (
                    ["p_delong", "p_delong_holm"] if _COMPARED[metric].analytic else [])
                cells += ["" if title == MACRO and key != "p" else number(one.get(key))
                          for key in keys]
            table.append(tuple(cells))
        found[_COMPARED[metric].title] = table
    return found


def _model_cell(model: Mapping) -> str:
    if model["deviation"] is None:
        return number(model["mean"])
    return f"{number(model['mean'])} +- {number(model['deviation'])} ({len(model['values'])})"


def rows(result: Mapping) -> list[dict]:
    """Makes the rows of metrics.csv: one for each metric, class and model but the first."""
    found = []
    for metric, of_metric in result["metrics"].items():
        for title, entry in of_metric.items():
            first = next(iter(entry["models"].values()))
            for name, one in entry["differences"].items():
                seeds = one.get("seeds", {"interval": None, "p": None})
                row = {
                    "metric": metric, "class": title, "model": name,
                    "n_positive": entry.get("n_positive"), "n_negative": entry.get("n_negative"),
                    "first": first["mean"], "first_deviation": first["deviation"],
                    "value": entry["models"][name]["mean"],
                    "deviation": entry["models"][name]["deviation"],
                    "difference": one["difference"], "difference_interval": one["interval"],
                    **{key: one.get(key) for key in ("p", "p_holm", "p_delong", "p_delong_holm")},
                    "seeds_interval": seeds["interval"], "p_seeds": seeds["p"],
                }
                found.append(tables.flat(row))
    return found


def remarks(result: Mapping) -> list[str]:
    """Lists remarks on the tables, one line each."""
    found = [
        f"{result['counts']['images']:,} images"
        + (f" of {result['counts']['patients']:,} patients" if result["counts"]["patients"]
           else "; no patients are named, so each image counts as its own")
        + ". [95 %] and p: bootstrap of patients, paired. Holm: adjusted over classes and models."
    ]
    macro = result["metrics"][AUROC.name][MACRO]
    for name, one in macro["differences"].items():
        if "seeds" in one:
            difference = number(one["difference"], "+.3f")
            found.append(
                f"Over seeds, macro {AUROC.title} of {name} - A {difference} "
                f"{span(one['seeds']['interval'], '+.3f')}, p {number(one['seeds']['p'])} (Welch)."
            )
    if any(len(model["values"]) > 1 for model in macro["models"].values()):
        found.append("mean +- standard deviation (seeds); p and intervals of other patients.")
    if result["classes_left_out"]:
        names = some(result["classes_left_out"])
        found.append(f"Not in the means (one label value only): {names}.")
    if result["classes_of_few"]:
        note = metrics_table.few_note(result)
        found.append(f"{note[0].upper()}{note[1:]}; their p are too small.")
    return found
