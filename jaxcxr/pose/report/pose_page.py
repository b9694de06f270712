"""The report page of a run on poses, from what the run and the commands on it have written."""

import csv
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxcxr.pose.evaluation import run_errors
from jaxcxr.pose.player import motions, viewer_page
from jaxcxr.report import page
from jaxcxr.report.page import Cell, Section
from jaxcxr.report.run_sections import about, picture_of

PLAYED = 4  # sequences in the player, the worst ones
_MOST_FRAMES = 3000  # in the player, of all of them
_METRICS = {
    "mpjpe": "MPJPE, mm", "p_mpjpe": "P-MPJPE, mm", "mpjve_per_second": "MPJVE, mm/s",
    "mpjpe_action_mean": "MPJPE, mean of actions, mm",
}
_FIGURES = {
    "errors_actions": "Mean position error of each joint in each action, mm",
    "errors_time": "Error over the place in the window and along the sequences",
    "errors_worst": "The worst sequences: 2D input, true and predicted skeleton, error over time",
    "joint_errors": "Error of each joint",
    "skeletons": "True and predicted skeletons of a few frames",
}


def build(task: Any, split: str, workdir: pathlib.Path, title: str) -> str:
    """The page; arguments as those of `page_xray.build`."""
    folder = workdir / "report"
    record = _metrics(workdir / "metrics.jsonl", split)
    shown = {key: (f"{record[key]:.1f}", title) for key, title in _METRICS.items()
             if key in record}
    for key, (value, low, high) in _with_intervals(workdir, split).items():
        shown[key] = (f"{value:.1f}" + ("" if np.isnan(low) else f" [{low:.1f}, {high:.1f}]"),
                      f"{_METRICS[key]} [95 % interval over motions]")
    top = [page.headline(list(shown.values()))]
    stress = folder / "stress.json"
    return page.whole(title, top, [
        Section("metrics", "Metrics", (_table(record),)),
        Section("player", "Skeletons to turn", tuple(_player(workdir, split))),
        Section("errors", "Errors", tuple(_errors(folder, split))),
        Section("stress", "Stress test", tuple(_stress(stress, folder))),
        *about(workdir, task, [
            f"Evaluated on the {split} split of one data set alone; nothing is known of other "
            "cameras, actions or bodies.",
        ]),
    ])


def _with_intervals(workdir: pathlib.Path, split: str) -> dict[str, np.ndarray]:
    """MPJPE and P-MPJPE of the predictions with their intervals; {} where none were written."""
    if not (workdir / "predictions" / f"{split}_labels.npz").exists():
        return {}
    found = run_errors.overall(run_errors.sequence_sums(workdir, split))
    return {name: found[name] for name in ("mpjpe", "p_mpjpe")}


def _metrics(path: pathlib.Path, split: str) -> dict:
    """The last evaluation of a split."""
    records = (json.loads(line) for line in path.read_text().splitlines() if line.strip())
    found = [record for record in records if record["kind"] == split]
    return found[-1] if found else {}


def _table(record: Mapping) -> str:
    rows = []
    for method in ("", "mean_pose/", "ridge/"):
        if f"{method}mpjpe" in record:
            cells = [Cell(f"{record[method + key]:.1f}", record[method + key])
                     for key in _METRICS if method + key in record]
            rows.append([method.rstrip("/").replace("_", " ") or "this model", *cells])
    header = ["", *(title for key, title in _METRICS.items() if key in record)]
    return page.table(header, rows, "Beside it: what needs no network.")


def _player(workdir: pathlib.Path, split: str) -> Iterable[str]:
    path = workdir / "predictions" / f"{split}.npz"
    if not path.exists():
        return
    takes = motions.read(path)
    labels = path.with_name(f"{split}_labels.npz")
    if labels.exists():
        takes = motions.with_labels(takes, labels)
    takes = sorted(takes, key=_error, reverse=True)[:PLAYED]
    yield page.paragraph(f"The {len(takes)} sequences of the greatest error, the worst first.")
    yield page.frame(viewer_page.page(takes, f"{split} predictions", _MOST_FRAMES), "3D player")


def _error(take: motions.Take) -> float:
    if take.truth is None:
        return 0.0
    return float(np.nanmean(np.linalg.norm(take.joints - take.truth, axis=-1)))


def _errors(folder: pathlib.Path, split: str) -> Iterable[str]:
    path = folder / "errors.csv"
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file)
        rows = [
            [line[0], *(Cell(f"{int(x):,}", int(x)) for x in line[1:3]),
             *(Cell(f"{float(x):.1f}", float(x)) for x in line[3:])] for line in lines
        ]
        titles = [name.removesuffix("_mm").replace("_", " ") for name in header]
        yield page.table(titles, rows, "Mean position error, mm, by action and joint.")
    for name, alt in _FIGURES.items():
        file = f"{name}.png" if name.startswith("errors") else f"{name}_{split}.png"
        yield from picture_of(folder / file, alt)


def _stress(path: pathlib.Path, folder: pathlib.Path) -> Iterable[str]:
    if not path.exists():
        yield page.paragraph("Not run. `jaxcxr stress --workdir=RUN`, then `jaxcxr report`.")
        return
    for kind in json.loads(path.read_text())["kinds"].values():
        yield page.table(
            [kind["unit"], "MPJPE, mm", "change"],
            [[Cell(f"{entry['level']:g}", entry["level"]),
              *(Cell(_with(entry, key, form), entry[key])
                for key, form in (("mpjpe", ".1f"), ("change", "+.1f")))]
             for entry in kind["levels"]], kind["title"],
        )
    yield from picture_of(folder / "stress.png", "MPJPE against the level of each kind")


def _with(entry: Mapping, key: str, form: str) -> str:
    interval = entry[f"{key}_interval"]
    return f"{entry[key]:{form}}" + (
        f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else ""
    )
