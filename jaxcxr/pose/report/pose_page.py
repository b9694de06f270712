"""Builds the report page of a run on poses from the files of the run and later commands."""

import csv
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxcxr.pose.evaluation import pose_metrics, run_errors
from jaxcxr.pose.player import motions, rendering
from jaxcxr.report import page
from jaxcxr.report.curves import read_metrics
from jaxcxr.report.page import Block, Cell, Section, SortableTable, about, not_run, pictures

PLAYED = 4  # sequences in the player, the worst ones
_MOST_FRAMES = 3000  # in the player, over all sequences
_METRICS = {metric.name: f"{metric.title}, {metric.unit}" for metric in pose_metrics.OF_RUNS}
_FIGURES = {
    "errors_actions.png": "Mean position error of each joint in each action, mm",
    "errors_time.png": "Error by position in the window and by time in the sequence",
    "errors_worst.png": "The worst sequences: 2D input, true and predicted skeleton, error over "
    "time",
    "joint_errors_{split}.png": "Error of each joint",
    "skeletons_{split}.png": "True and predicted skeletons of a few frames",
}


def build(task: Any, split: str, workdir: pathlib.Path, title: str) -> str:
    """Renders the page."""
    folder = workdir / "report"
    record = _metrics(workdir / "metrics.jsonl", split)
    shown = {key: (f"{record[key]:.1f}", title) for key, title in _METRICS.items()
             if key in record}
    for key, (value, low, high) in _with_intervals(workdir, split).items():
        shown[key] = (f"{value:.1f}" + ("" if np.isnan(low) else f" [{low:.1f}, {high:.1f}]"),
                      f"{_METRICS[key]} [95 % interval over motions]")
    return page.render(title, [page.Headline(list(shown.values()))], [
        Section("metrics", "Metrics", [_table(record)]),
        Section("player", "3D viewer", list(_player(workdir, split))),
        Section("errors", "Errors", list(_errors(folder, split))),
        Section("stress", "Stress test", list(_stress(folder))),
        *about(workdir, task, [
            f"Evaluated only on the {split} split of one data set; how the model does with other "
            "cameras, actions or bodies is unknown.",
        ]),
    ])


def _with_intervals(workdir: pathlib.Path, split: str) -> dict[str, np.ndarray]:
    """Computes MPJPE and P-MPJPE of the predictions with intervals; {} without predictions."""
    if not (workdir / "predictions" / f"{split}_labels.npz").exists():
        return {}
    found = run_errors.overall(run_errors.sequence_sums(workdir, split))
    return {name: found[name] for name in ("mpjpe", "p_mpjpe")}


def _metrics(path: pathlib.Path, split: str) -> dict:
    """Reads the last evaluation of a split."""
    found = [record for record in read_metrics(path) if record["kind"] == split]
    return found[-1] if found else {}


def _table(record: Mapping) -> SortableTable:
    rows: list[list[str | Cell]] = []
    for method in ("", "mean_pose/", "ridge/"):
        if f"{method}mpjpe" in record:
            cells = [Cell(f"{record[method + key]:.1f}", record[method + key])
                     for key in _METRICS if method + key in record]
            rows.append([method.rstrip("/").replace("_", " ") or "this model", *cells])
    header = ["", *(title for key, title in _METRICS.items() if key in record)]
    return SortableTable(header, rows, "For comparison: baselines without a network.")


def _player(workdir: pathlib.Path, split: str) -> Iterable[Block]:
    path = workdir / "predictions" / f"{split}.npz"
    if not path.exists():
        return
    takes = motions.read(path)
    labels = path.with_name(f"{split}_labels.npz")
    if labels.exists():
        takes = motions.with_labels(takes, labels)
    takes = sorted(takes, key=_error, reverse=True)[:PLAYED]
    yield page.Paragraph(f"The {len(takes)} sequences with the largest errors, worst first.")
    yield page.EmbeddedPage(
        rendering.page(takes, f"{split} predictions", _MOST_FRAMES), "3D viewer"
    )


def _error(take: motions.Take) -> float:
    if take.truth is None:
        return 0.0
    return float(np.nanmean(np.linalg.norm(take.joints - take.truth, axis=-1)))


def _errors(folder: pathlib.Path, split: str) -> Iterable[Block]:
    path = folder / "errors.csv"
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file)
        rows: list[list[str | Cell]] = [
            [line[0], *(Cell(f"{int(x):,}", int(x)) for x in line[1:3]),
             *(Cell(f"{float(x):.1f}", float(x)) for x in line[3:])] for line in lines
        ]
        titles = [name.removesuffix("_mm").replace("_", " ") for name in header]
        yield SortableTable(titles, rows, "Mean position error, mm, by action and joint.")
    yield from pictures(folder, {
        name.format(split=split): caption for name, caption in _FIGURES.items()
    })


def _stress(folder: pathlib.Path) -> Iterable[Block]:
    path = folder / "stress.json"
    if not path.exists():
        yield not_run("stress")
        return
    for kind in json.loads(path.read_text())["kinds"].values():
        yield SortableTable(
            [kind["unit"], "MPJPE, mm", "change"],
            [[Cell(f"{entry['level']:g}", entry["level"]),
              *(Cell(_with(entry, key, form), entry[key])
                for key, form in (("mpjpe", ".1f"), ("change", "+.1f")))]
             for entry in kind["levels"]], kind["title"],
        )
    yield from pictures(folder, {"stress.png": "MPJPE at each level of each corruption"})


def _with(entry: Mapping, key: str, form: str) -> str:
    interval = entry[f"{key}_interval"]
    return f"{entry[key]:{form}}" + (
        f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else ""
    )
