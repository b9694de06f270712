"""Figures of a finished run, as PNG files: curves, ROC, radiographs, skeletons, errors per joint.

Each `NAME` draws, writes and closes; `NAME_figure` returns the open figure. Matplotlib is loaded
when the first figure is drawn, and only its Agg canvas: no window system, no global state.
"""

import json
import math
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.report import pose_figures
from jaxcxr.report.canvas import BLUE, GRAY, GREEN, LIGHT, ORANGE, new_figure, save, styled
from jaxcxr.xray.report import xray_figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What the validation panel shows if no metric is named: the first of these that was logged.
_METRICS = {"auroc": "macro AUROC", "mpjpe": "MPJPE (mm)", "loss": "loss"}
_SMOOTH_ABOVE = 60  # points, from which on the loss is drawn faint under its running mean


def curves(
    metrics_path: pathlib.Path | str, out: pathlib.Path | str, metric: str | None = None
) -> pathlib.Path:
    """Training loss, validation metric and learning rate over steps.

    Arguments:
      metrics_path: metrics.jsonl, one JSON object per line with `step` and `kind` ("train",
        "validation" or "stage"). Where a step was logged twice (a resumed run) the last one counts.
      out: PNG to write; its folder is made.
      metric: validation metric to draw; the main one of the task if not given.

    Returns:
      `out`.

    Errors:
      UserError: no file, no training record, a broken line, or a metric that was not logged.
    """
    return save(curves_figure(metrics_path, metric), out)


def roc(
    labels: np.ndarray, scores: np.ndarray, classes: Sequence[str], out: pathlib.Path | str
) -> pathlib.Path:
    """ROC curve per class, one small panel each, with AUROC and counts.

    Arguments:
      labels: integers `[N, C]` in {1, 0, -1 unknown}; unknown labels are left out per class.
      scores: `[N, C]`, larger is more positive.
      classes: the C names.
      out: PNG to write; its folder is made.

    Returns:
      `out`. A class with one label value has a panel that says "n/a" and why.

    Errors:
      ValueError: as in `jaxcxr.statistics.classification.evaluate`.
    """
    return save(xray_figures.roc_figure(labels, scores, classes), out)


def reliability(
    labels: np.ndarray,
    scores: np.ndarray,
    classes: Sequence[str],
    out: pathlib.Path | str,
    probabilities: np.ndarray | None = None,
) -> pathlib.Path:
    """How often what is said with a probability is so, one small panel per class.

    Arguments:
      labels: integers `[N, C]` in {1, 0, -1 unknown}; unknown labels are left out per class.
      scores: `[N, C]` in [0, 1], before calibration.
      classes: the C names.
      out: PNG to write; its folder is made.
      probabilities: `[N, C]`, calibrated; none: the scores alone are drawn.

    Returns:
      `out`.

    Errors:
      ValueError: as in `jaxcxr.statistics.classification.evaluate`.
    """
    return save(xray_figures.reliability_figure(labels, scores, classes, probabilities), out)


def samples(
    images: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    classes: Sequence[str],
    out: pathlib.Path | str,
) -> pathlib.Path:
    """Radiographs, each beside its highest scores, coloured by the label.

    Arguments:
      images: `[n, H, W]` or `[n, H, W, 1]`, uint8 or float; each is stretched to its own range.
      labels: integers `[n, C]` in {1, 0, -1 unknown}.
      scores: `[n, C]` in [0, 1].
      classes: the C names.
      out: PNG to write; its folder is made.

    Returns:
      `out`.

    Errors:
      ValueError: no image, or shapes that do not agree.
    """
    return save(xray_figures.samples_figure(images, labels, scores, classes), out)


def skeletons(
    pred: np.ndarray,
    truth: np.ndarray,
    parents: Sequence[int],
    out: pathlib.Path | str,
    titles: Sequence[str] | None = None,
) -> pathlib.Path:
    """Predicted skeletons over the true ones, upright in 3D.

    Arguments:
      pred: `[n, J, 3]`, mm in the camera frame (x right, y down, z forward).
      truth: `[n, J, 3]`, likewise.
      parents: index of each joint's parent, -1 for the root.
      out: PNG to write; its folder is made.
      titles: n names, such as the action and frame; numbers if not given.

    Returns:
      `out`.

    Errors:
      ValueError: no pose, or shapes that do not agree.
    """
    return save(pose_figures.skeletons_figure(pred, truth, parents, titles), out)


def joint_errors(
    per_joint: np.ndarray, names: Sequence[str], out: pathlib.Path | str
) -> pathlib.Path:
    """Mean position error of each joint as bars, with the mean over joints.

    Arguments:
      per_joint: `[J]`, mm; NaN is shown as n/a.
      names: the J names, in the order to show.
      out: PNG to write; its folder is made.

    Returns:
      `out`.

    Errors:
      ValueError: lengths that do not agree, or no finite error.
    """
    return save(pose_figures.joint_errors_figure(per_joint, names), out)


@styled
def curves_figure(metrics_path: pathlib.Path | str, metric: str | None = None) -> "Figure":
    """The figure of `curves`; arguments and errors as there."""
    records = read_metrics(metrics_path)
    train = _series(records, "train", "loss")
    if not len(train[0]):
        raise UserError(f"{metrics_path} holds no training loss yet; train for a step first")
    name, validation = _validation(records, metric, metrics_path)

    figure = new_figure(8.0, 7.2)
    loss, score, rate = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 3, 2]}
    )
    _draw_loss(loss, train, _series(records, "validation", "loss"))
    score.plot(*validation, color=BLUE, marker="o", markersize=4)
    score.set_ylabel(f"validation\n{_METRICS.get(name, name)}")
    if len(validation[0]):
        _mark_best(score, *validation, lower_is_better="mpjpe" in name or "loss" in name)
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
    """Records of metrics.jsonl, by step; of two with the same kind and step the last one.

    Arguments:
      path: metrics.jsonl. A last line without its end, left by a killed run, is skipped.

    Returns:
      the records.

    Errors:
      UserError: no file, or a line that is not a JSON object with `step` and `kind`.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"no metrics at {path}; give the metrics.jsonl of a run's workdir")
    records: dict[tuple, dict] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(True), start=1):
        try:
            record = json.loads(line)
            records[record["kind"], record["step"]] = record
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            if not line.endswith("\n"):
                break
            raise UserError(
                f"{path}, line {number} is not a JSON object with step and kind; remove the line"
            ) from error
    return sorted(records.values(), key=lambda record: record["step"])


def _series(records: list[dict], kind: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and finite values of one number."""
    points = [
        (record["step"], record[key])
        for record in records
        if record["kind"] == kind and _is_finite(record.get(key))
    ]
    steps, values = zip(*points, strict=True) if points else ((), ())
    return np.array(steps), np.array(values, float)


def _validation(
    records: list[dict], metric: str | None, path: pathlib.Path | str
) -> tuple[str, tuple[np.ndarray, np.ndarray]]:
    logged = {
        key: None
        for record in records
        if record["kind"] == "validation"
        for key, value in record.items()
        if key != "step" and _is_finite(value)
    }
    if metric is not None and metric not in logged:
        raise UserError(
            f"{path} holds no validation metric {metric!r}; logged: {', '.join(logged) or 'none'}"
        )
    preferred = [name for name in _METRICS if name in logged]
    name = metric or next(iter([*preferred, *logged]), "metric")
    return name, _series(records, "validation", name)


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
        # Names of stages that begin close to each other stand one above the other.
        height = height + 1 if record["step"] - last < near else 0
        last = record["step"]
        panels[0].annotate(
            str(record.get("name", "")), (record["step"], 1.02),
            xycoords=panels[0].get_xaxis_transform(), xytext=(0, 11 * height),
            textcoords="offset points", color=GRAY, fontsize=9,
        )  # fmt: skip


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
