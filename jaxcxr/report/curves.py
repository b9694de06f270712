"""Draws the training curves of a run, from its metrics.jsonl, and its stress tests."""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.report.canvas import BLUE, GRAY, GREEN, LIGHT, ORANGE, new_figure, save, styled
from jaxcxr.report.tables import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SMOOTH_ABOVE = 60  # points, beyond which the loss is drawn faint under its running mean


def write(workdir: pathlib.Path, metric: Metric) -> None:
    """Draws `report/curves.png` once the run has trained a step; `metric`: of validation."""
    path = workdir / "metrics.jsonl"
    if path.is_file() and any(record["kind"] == "train" for record in read_metrics(path)):
        save(curves_figure(path, metric), workdir / "report" / "curves.png")


@styled
def curves_figure(metrics_path: pathlib.Path | str, metric: Metric) -> "Figure":
    """Draws training loss, validation metric and learning rate over steps.

    Raises:
      UserError: no metrics.jsonl at `metrics_path`, no training record, or a broken line.
    """
    records = sorted(read_metrics(metrics_path), key=lambda record: record["step"])
    train = _series(records, "train", "loss")
    if not len(train[0]):
        raise UserError(f"{metrics_path} holds no training loss yet; train for a step first")
    validation = _series(records, "validation", metric.name)

    figure = new_figure(8.0, 7.2)
    loss, score, rate = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 3, 2]}
    )
    _draw_loss(loss, train, _series(records, "validation", "loss"))
    score.plot(*validation, color=BLUE, marker="o", markersize=4)
    score.set_ylabel(f"validation\n{_name(metric)}")
    if len(validation[0]):
        _mark_best(score, *validation, lower_is_better=not metric.higher)
    else:
        score.text(0.5, 0.5, "no validation yet", transform=score.transAxes, ha="center")
    rate.plot(*_series(records, "train", "learning_rate"), color=GREEN)
    rate.set(ylabel="learning rate", xlabel="step")
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    _mark_stages((loss, score, rate), records)
    figure.align_ylabels()
    return figure


def read_metrics(path: pathlib.Path | str) -> list[dict]:
    """Reads metrics.jsonl: a JSON object per line with `step` and `kind`.

    `kind` is "train", "stage", "hosts" or a split. A line that was cut is skipped. A line of kind
    "start" says that a run went on after its `step`: what stands above it of later steps was done
    again, as was the result of the test split.

    Returns:
      The records in the order written; of two with the same kind and step, the later one.

    Raises:
      UserError: no file, or a line that is not a JSON object with `step` and `kind`.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"no metrics at {path}; give the metrics.jsonl of a run's workdir")
    records: dict[tuple[str, int], dict] = {}
    for number, line in enumerate(
        path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
    ):
        try:
            record = json.loads(line)
            key = record["kind"], int(record["step"])
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            if line.startswith("{"[:len(line)]) and not line.rstrip().endswith("}"):
                continue
            raise UserError(
                f"{path}, line {number} is not a JSON object with step and kind; remove the line"
            ) from error
        if record["kind"] == "start":
            records = {k: v for k, v in records.items() if _stays(*k, record["step"])}
            continue
        records.pop(key, None)
        records[key] = record
    return list(records.values())


def _stays(kind: str, step: int, resumed: int) -> bool:
    """Tells whether a record of before a start is not written again; a stage begins at its step."""
    return kind != "test" and step <= (resumed - 1 if kind == "stage" else resumed)


def _series(records: list[dict], kind: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Collects the steps and finite values of one key."""
    points = [
        (record["step"], record[key])
        for record in records
        if record["kind"] == kind and _is_finite(record.get(key))
    ]
    steps, values = zip(*points, strict=True) if points else ((), ())
    return np.array(steps), np.array(values, float)


def _name(metric: Metric) -> str:
    """Names a metric with its unit, or as the mean over classes that it is."""
    return f"{metric.title} ({metric.unit})" if metric.unit else f"macro {metric.title}"


def _draw_loss(axes: "Axes", train: tuple, validation: tuple) -> None:
    steps, values = train
    many = len(values) > _SMOOTH_ABOVE
    style = {"color": LIGHT, "linewidth": 0.8} if many else {"color": ORANGE}
    axes.plot(steps, values, label="train", marker="." if len(values) < 3 else None, **style)
    if many:
        width = len(values) // 20
        mean = np.convolve(values, np.full(width, 1 / width), mode="valid")
        half = (width - 1) // 2
        shown = steps[half : half + len(mean)]
        axes.plot(shown, mean, color=ORANGE, label=f"train, mean of {width} points")
    if len(validation[0]):
        axes.plot(*validation, color=BLUE, marker="o", markersize=4, label="validation")
    axes.set_ylabel("loss")
    axes.legend(loc="upper right")


def _mark_best(
    axes: "Axes", steps: np.ndarray, values: np.ndarray, *, lower_is_better: bool
) -> None:
    best = int(np.argmin(values) if lower_is_better else np.argmax(values))
    label = f"best {values[best]:.4g} at step {steps[best]:,}"
    axes.plot(steps[best], values[best], "o", markersize=9, mfc="none", mec=ORANGE, label=label)
    axes.legend(loc="best")


def _mark_stages(panels: Sequence["Axes"], records: list[dict]) -> None:
    near = 0.12 * np.ptp(panels[0].get_xlim())
    height, last = 0, -math.inf
    for record in (record for record in records if record["kind"] == "stage"):
        for axes in panels:
            axes.axvline(record["step"], color=GRAY, linestyle=":", linewidth=1)
        # Names of stages that begin close together are stacked.
        height = height + 1 if record["step"] - last < near else 0
        last = record["step"]
        panels[0].annotate(
            str(record.get("name", "")), (record["step"], 1.02),
            xycoords=panels[0].get_xaxis_transform(), xytext=(0, 11 * height),
            textcoords="offset points", color=GRAY, fontsize=9,
        )  # fmt: skip


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@styled
def pose_figure(result: Mapping, metric: Metric) -> "Figure":
    """Draws an error at the levels of each corruption, a panel each, harder to the right.

    Arguments:
      result: of `stress_poses.measure`.
      metric: the error.
    """
    kinds = result["kinds"]
    columns = min(3, len(kinds))
    rows = math.ceil(len(kinds) / columns)
    figure = new_figure(3.7 * columns, 2.9 * rows + 0.4)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    height = result["settings"]["person_height"]
    for axes, (name, kind) in zip(panels.flat, kinds.items(), strict=False):
        _curve(axes, kind["levels"], result[metric.name], metric, name in ("fps", "window"))
        axes.set(title=kind["title"], xlabel=kind["unit"])
        if name in ("noise", "drift") and height:
            levels = [entry["level"] for entry in kind["levels"]]
            labels = [f"{x:g}\n{x / height:.1%}" if x else "0" for x in levels]
            axes.set_xticks(levels, labels, fontsize=9)
            axes.set_xlabel(f"{kind['unit']},\nand in % of the person's height")
        if name in ("missing", "hidden"):
            axes.xaxis.set_major_formatter("{x:.0%}")
    for axes in panels.flat[len(kinds):]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel(_name(metric))
    panels[0, 0].set_ylim(bottom=0)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(handles))
    return figure


def _curve(
    axes: "Axes", levels: list[Mapping], untouched: float, metric: Metric, ratio: bool
) -> None:
    x = np.array([entry["level"] for entry in levels])
    y = np.array([entry[metric.name] for entry in levels])
    ranges = [entry[metric.interval] or (np.nan, np.nan) for entry in levels]
    low, high = np.array(ranges).T
    axes.axhline(untouched, color=GRAY, linestyle=":",
                 label=f"untouched, {untouched:.1f} {metric.unit}")
    axes.errorbar(x, y, yerr=(np.maximum(y - low, 0), np.maximum(high - y, 0)), color=BLUE,
                  marker="o", markersize=5, capsize=3,
                  label=f"{metric.title} with its 95% interval")
    if ratio:
        axes.set_xscale("log")
        axes.set_xticks(x, [f"{level:.3g}" for level in x])
        axes.set_xticks([], minor=True)
        axes.invert_xaxis()


@styled
def xray_figure(result: Mapping, metric: Metric) -> "Figure":
    """Draws a macro metric of parts of the image, of attributes, and at the levels of corruptions.

    Arguments:
      result: of `stress_xrays.measure`.
      metric: with 0.5 at chance.
    """
    bars = {"whole image": result}
    bars |= {name.replace("_", " "): entry for name, entry in result.get("regions", {}).items()}
    alone = result.get("attributes", {}).get("findings_from", {})
    bars |= {
        "all attributes" if name == "all" else f"{name} alone": entry
        for name, entry in alone.items()
    }
    kinds = list(result["kinds"].values())
    columns = min(3, max(1, len(kinds)))
    rows = math.ceil(len(kinds) / columns)
    figure = new_figure(max(5.5, 3.5 * columns), 0.34 * len(bars) + 1.2 + 2.8 * rows)
    grid = figure.add_gridspec(
        1 + rows, columns, height_ratios=[0.34 * len(bars) + 0.6, *([2.8] * rows)]
    )
    _bars(figure.add_subplot(grid[0, :]), bars, metric)
    first = None
    for place, kind in enumerate(kinds):
        axes = figure.add_subplot(grid[1 + place // columns, place % columns], sharey=first)
        first = first or axes
        _level_curve(axes, kind, result[metric.name], metric)
        if place % columns == 0:
            axes.set_ylabel(_name(metric))
    return figure


def _bars(axes: "Axes", bars: Mapping[str, Mapping], metric: Metric) -> None:
    shown = {name: entry for name, entry in bars.items() if entry[metric.name] is not None}
    for place, entry in enumerate(shown.values()):
        value = entry[metric.name]
        low, high = entry[metric.interval] or (value, value)
        axes.barh(place, value - 0.5, left=0.5, height=0.6, color=GRAY if place else BLUE)
        axes.plot((low, high), (place, place), color="black", linewidth=1.2)
        axes.annotate(metric.number(entry), (max(high, 0.5), place), xytext=(4, 0),
                      textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(shown)), list(shown))
    axes.invert_yaxis()
    axes.axvline(0.5, color="black", linewidth=0.8)
    axes.set(xlabel=f"{_name(metric)}, 0.5 is chance, line: 95% interval", xlim=(None, 1.08))
    axes.grid(False, axis="y")


def _level_curve(
    axes: "Axes", kind: Mapping, untouched: float | None, metric: Metric
) -> None:
    known = [entry for entry in kind["levels"] if entry[metric.name] is not None]
    y = np.array([entry[metric.name] for entry in known])
    ranges = [entry[metric.interval] or (np.nan, np.nan) for entry in known]
    low, high = np.array(ranges).reshape(-1, 2).T
    if untouched is not None:
        axes.axhline(untouched, color=GRAY, linestyle=":")
    axes.errorbar(range(len(known)), y, yerr=(np.maximum(y - low, 0), np.maximum(high - y, 0)),
                  color=BLUE, marker="o", markersize=5, capsize=3)
    axes.set_xticks(range(len(known)), [f"{entry['level']:g}" for entry in known])
    axes.set(title=kind["title"], xlabel=kind["unit"])
