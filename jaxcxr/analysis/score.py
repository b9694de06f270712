"""`jaxcxr score`: predictions of any framework against labels, with 95% intervals.

    jaxcxr score --labels Data_Entry_2017_v2020.csv --split-list test_list.txt \
        --predictions predictions.csv --out scores

With `--task pose` the files hold 3D poses, see `jaxcxr.analysis.score_pose`.
"""

import argparse
import csv
import json
import math
import pathlib

import numpy as np

import jaxcxr
from jaxcxr.analysis import score_files, score_pose, tables
from jaxcxr.errors import UserError
from jaxcxr.metrics import classification, intervals

# The metrics that are averaged over classes; a mean of thresholds would mean nothing.
_METRICS = ("auroc", "average_precision", "f1_max")
_NOTES = {
    "auroc_interval": "DeLong, images taken as independent; of macro: as auroc_interval_bootstrap",
    "other intervals": "percentiles over resamples of whole patients",
    "f1_max": "threshold chosen on the images scored, hence optimistic",
    "macro": "a resample in which any class of the mean is undefined is left out",
}
_EPILOG = (
    "The labels are ChestX-ray14's Data_Entry csv, or a csv with a column of image ids, if "
    "possible one of patients, and one per class (1, 0, empty: unknown). The predictions have a "
    "column of image ids and one per class, with or without the prefix prob_ or score_. Images and "
    "classes match by name. Poses are .npz files with one array [frames, joints, 3] for each "
    "sequence, called subject/action/camera."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `jaxcxr score`."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "--task", choices=("cxr", "pose"), default="cxr", help="default: %(default)s"
    )
    parser.add_argument("--labels", required=True, metavar="FILE", help="the true labels")
    parser.add_argument("--predictions", required=True, metavar="FILE", help="the scores, or poses")
    parser.add_argument("--split-list", metavar="TXT", help="score these images only, one per line")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder for metrics.json and metrics.csv"
    )
    parser.add_argument("--resamples", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    score_pose.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Scores, writes metrics.json and metrics.csv, prints the table.

    Raises:
      UserError: an option is out of range, a file is not as `score_files` wants it, or the folder
        cannot be written.
    """
    if args.resamples < 1 or args.seed < 0:
        raise UserError("--resamples must be at least 1 and --seed at least 0")
    _check_task(args)
    if args.task == "pose":
        score_pose.run(args)
        return
    joined = score_files.join(args.labels, args.predictions, args.split_list)
    result = score(
        joined.labels, joined.scores, joined.classes, joined.patients, args.resamples, args.seed
    )
    result["counts"] |= {
        "predictions_ignored": joined.ignored, "listed_without_labels": len(joined.unlabelled),
    }
    result["classes"] = {
        "scored": joined.classes,
        "labels_without_predictions": joined.labels_only,
        "predictions_without_labels": joined.predictions_only,
    }
    result |= {"inputs": joined.inputs, "jaxcxr_version": jaxcxr.__version__}
    out = pathlib.Path(args.out)
    _write(result, out)
    print(to_text(result))
    for remark in _remarks(joined):
        print(remark)
    print(f"Written: {out / 'metrics.json'}, {out / 'metrics.csv'}")


def score(
    labels: np.ndarray,
    scores: np.ndarray,
    classes: tuple[str, ...],
    patients: tuple[str, ...] | None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """Metrics with intervals, in the form of metrics.json.

    Arguments:
      labels: integers `[N, C]` in {1, 0, -1 unknown}.
      scores: `[N, C]`, larger is more positive.
      classes: the C names.
      patients: `[N]`; none: each image is its own patient.
      resamples: of the bootstrap.
      seed: of the bootstrap.

    Returns:
      `per_class` (name -> `auroc`, `average_precision`, `f1_max`, `threshold`, each with
      `NAME_interval` as [low, high]; `auroc_interval` is DeLong's, `auroc_interval_bootstrap` the
      bootstrap's; `n_positive`, `n_negative`, `n_unknown`, `bootstrap_undefined`: resamples left
      out), `macro` (unweighted means with the bootstrap's intervals, `classes` in the mean,
      `classes_left_out`), `counts`, `settings`. What is undefined is None.
    """
    table = classification.evaluate(labels, scores, classes)
    clusters = np.arange(len(labels)) if patients is None else np.asarray(patients)
    drawn = intervals.cluster_bootstrap(labels, scores, clusters, resamples, seed)
    per_class = {
        row.name: _class_entry(row, labels[:, i], scores[:, i], drawn, i)
        for i, row in enumerate(table.rows)
    }
    return {
        "per_class": per_class,
        "macro": _macro_entry(table, per_class, drawn),
        "counts": {
            "images": len(labels),
            "patients": None if patients is None else len(set(patients)),
        },
        "settings": {
            "resamples": resamples, "seed": seed, "level": intervals.LEVEL,
            "resampled": "images" if patients is None else "patients", "notes": _NOTES,
        },
    }


def to_text(result: dict) -> str:
    """The result of `score` as an aligned table: one line per class, then the means."""
    header = ("class", "n+", "n-", "AUROC", "[DeLong]", "[bootstrap]", "AP", "[bootstrap]",
              "F1max", "[bootstrap]", "threshold")
    rows = [_cells(name, entry) for name, entry in result["per_class"].items()]
    macro = result["macro"]
    title = f"macro mean ({len(macro['classes'])} of {len(result['per_class'])})"
    lines = [header, *rows, _cells(title, macro)]
    text = tables.aligned(lines)
    rule = "-" * max(map(len, text))
    text = [text[0], rule, *text[1:-1], rule, text[-1]]
    if macro["classes_left_out"]:
        names = ", ".join(macro["classes_left_out"])
        text.append(f"not in the mean (one label value only): {names}")
    return "\n".join(text)


def _check_task(args: argparse.Namespace) -> None:
    """Refuses options of the other task, which would do nothing."""
    if args.task == "pose" and args.split_list:
        raise UserError("--split-list is of radiographs; of poses the protocol says what is scored")
    given = [name for name in score_pose.OPTIONS if getattr(args, name)]
    if args.task == "cxr" and given:
        option = given[0].replace("_", "-")
        raise UserError(f"--{option} is of poses; add --task pose, or leave it out")


def _class_entry(row, labels, scores, drawn: intervals.Bootstrap, index: int) -> dict:
    f1, threshold = intervals.f1_max(labels, scores)
    delong = intervals.delong(labels, scores)
    entry = {"auroc": _value(row.auroc), "auroc_interval": _interval(delong.interval)}
    entry["auroc_interval_bootstrap"] = _interval(drawn.interval("auroc", index))
    for name, value in (
        ("average_precision", row.average_precision), ("f1_max", f1), ("threshold", threshold)
    ):
        entry[name] = _value(value)
        entry[f"{name}_interval"] = _interval(drawn.interval(name, index))
    return entry | {
        "n_positive": row.positives, "n_negative": row.negatives, "n_unknown": row.unknown,
        "bootstrap_undefined": int(drawn.undefined[index]),
    }


def _macro_entry(table: classification.Table, per_class: dict, drawn: intervals.Bootstrap) -> dict:
    used = [i for i, row in enumerate(table.rows) if row.defined]
    names = [table.rows[i].name for i in used]
    entry = {}
    for metric in _METRICS:
        values = drawn.macro(metric, used)
        interval = _interval(intervals.percentile_interval(values))
        entry[metric] = float(np.mean([per_class[n][metric] for n in names])) if names else None
        entry[f"{metric}_interval"] = interval
        if metric == "auroc":
            entry["auroc_interval_bootstrap"] = interval
    undefined = int(np.isnan(values).sum())
    return entry | {
        "classes": names, "classes_left_out": list(table.undefined),
        "bootstrap_undefined": undefined,
    }


def _remarks(joined: score_files.Joined) -> list[str]:
    remarks = ["F1max and its threshold are fitted on these very images, and so optimistic."]
    if joined.patients is None:
        remarks.append(
            "The labels name no patients: each image counts as its own, and the intervals are too "
            "narrow if some show the same patient."
        )
    for names, fact in (
        (joined.labels_only, "classes of the labels have no prediction and are left out"),
        (joined.predictions_only, "classes of the predictions have no labels and are left out"),
        (joined.unlabelled, "images of the split list have no label and are left out"),
    ):
        if names:
            remarks.append(f"{len(names)} {fact}: {score_files.some(names)}")
    if joined.ignored:
        remarks.append(f"{joined.ignored} predictions are of images that are not scored: ignored")
    return remarks


def _write(result: dict, out: pathlib.Path) -> None:
    rows = [{"class": name, **tables.flat(entry)} for name, entry in result["per_class"].items()]
    rows.append({"class": "macro", **tables.flat(result["macro"])})
    try:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False)
        (out / "metrics.json").write_text(text + "\n", encoding="utf-8")
        with (out / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise UserError(
            f"{error.filename or out} cannot be written ({error.strerror}); choose another folder "
            "with --out DIR"
        ) from error


def _cells(title: str, entry: dict) -> tuple[str, ...]:
    positives = negatives = delong = threshold = ""  # the means have none of these
    if "threshold" in entry:
        positives, negatives = f"{entry['n_positive']:,}", f"{entry['n_negative']:,}"
        delong, threshold = _range(entry["auroc_interval"]), _number(entry["threshold"], ".4g")
    cells = [title, positives, negatives, _number(entry["auroc"]), delong]
    cells.append(_range(entry["auroc_interval_bootstrap"]))
    for metric in _METRICS[1:]:
        cells += [_number(entry[metric]), _range(entry[f"{metric}_interval"])]
    return (*cells, threshold)


def _number(value: float | None, form: str = ".3f") -> str:
    return "n/a" if value is None else format(value, form)


def _range(interval: list[float] | None) -> str:
    return "n/a" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def _value(value: float) -> float | None:
    return None if math.isnan(value) else value


def _interval(interval: tuple[float, float]) -> list[float] | None:
    return None if math.isnan(interval[0]) else list(interval)
