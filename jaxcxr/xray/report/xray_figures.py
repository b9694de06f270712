"""Draws ROC and reliability curves, and radiographs with their scores."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn import metrics as sk

from jaxcxr.report import tables
from jaxcxr.report.canvas import BLUE, FAINT, GRAY, ORANGE, draw_image, new_figure, styled
from jaxcxr.statistics import NEGATIVE, POSITIVE, UNKNOWN, reliability
from jaxcxr.xray.evaluation import xray_metrics
from jaxcxr.xray.evaluation.xray_metrics import AUROC

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN_SCORES = 6
_LABELS: dict[int, tuple[str, dict[str, Any]]] = {
    POSITIVE: ("label positive", {"color": ORANGE}),
    NEGATIVE: ("label negative", {"color": BLUE}),
    UNKNOWN: (
        "label unknown",
        {"facecolor": "white", "edgecolor": GRAY, "hatch": "////"},
    ),
}


@styled
def roc_figure(labels: np.ndarray, scores: np.ndarray, classes: Sequence[str]) -> "Figure":
    """Draws the ROC curve of each class over its known labels, with AUROC and counts.

    The panel of a class with a single label value says why it is n/a. Arguments and errors are
    those of `xray_metrics.evaluate`.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    table = xray_metrics.evaluate(labels, scores, classes)
    columns = min(5, math.ceil(math.sqrt(len(classes))))
    rows = math.ceil(len(classes) / columns)
    figure = new_figure(max(3.6, 2.3 * columns), 2.35 * rows + 0.9)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for i, row in enumerate(table.rows):
        known = labels[:, i] != UNKNOWN
        _draw_roc(panels[i], row, labels[known, i], scores[known, i])
    for i, axes in enumerate(panels):
        if i >= len(classes):
            axes.remove()
        elif i + columns >= len(classes):
            axes.tick_params(labelbottom=True)
    figure.supxlabel("false positive rate", fontsize=10)
    figure.supylabel("true positive rate", fontsize=10)
    mean = f"macro {AUROC.title} {tables.number(table.macro(AUROC.name))}"
    figure.suptitle(f"{mean} over {len(table.used)} of {len(classes)} classes", fontsize=12)
    return figure


@styled
def reliability_figure(
    labels: np.ndarray,
    scores: np.ndarray,
    classes: Sequence[str],
    probabilities: np.ndarray | None = None,
) -> "Figure":
    """Draws observed frequency over predicted probability, a panel for each class.

    Arguments:
      labels: integers `[N, C]` in {1, 0, -1 unknown}; unknown labels are left out per class.
      scores: `[N, C]` in [0, 1], before calibration.
      classes: the C names.
      probabilities: `[N, C]`, calibrated; None draws the scores alone.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    xray_metrics.evaluate(labels, scores, classes, ())  # refuses invalid labels and scores
    columns = min(5, math.ceil(math.sqrt(len(classes))))
    rows = math.ceil(len(classes) / columns)
    # The legend is as wide as two panels, or as high as half of one.
    across = 3 if columns > 2 else 1
    figure = new_figure(max(3.6, 2.3 * columns), 2.35 * rows + (1.1 if across == 3 else 1.6))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for i, name in enumerate(classes):
        known = labels[:, i] != UNKNOWN
        calibrated = None if probabilities is None else probabilities[known, i]
        _draw_reliability(panels[i], name, labels[known, i], scores[known, i], calibrated)
    for axes in panels[len(classes):]:
        axes.remove()
    figure.supxlabel("predicted probability", fontsize=10)
    figure.supylabel("observed frequency", fontsize=10)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=across, fontsize=10)
    return figure


@styled
def samples_figure(
    images: np.ndarray, labels: np.ndarray, scores: np.ndarray, classes: Sequence[str]
) -> "Figure":
    """Draws radiographs, each beside its highest scores, coloured by the label.

    Arguments:
      images: `[n, H, W]` or `[n, H, W, 1]`, uint8 or float; each is stretched to its own range.
      labels: integers `[n, C]` in {1, 0, -1 unknown}.
      scores: `[n, C]` in [0, 1].
      classes: the C names.
    """
    images, labels, scores = map(np.asarray, (images, labels, scores))
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    expected = (len(images), len(classes))
    if images.ndim != 3 or not len(images) or labels.shape != expected or scores.shape != expected:
        raise ValueError(
            f"images {list(images.shape)}, labels {list(labels.shape)} and scores "
            f"{list(scores.shape)} must be [n, H, W], [n, {len(classes)}] and "
            f"[n, {len(classes)}], with n at least 1"
        )
    columns = min(3, len(images))
    rows = math.ceil(len(images) / columns)
    figure = new_figure(5.2 * columns, 2.4 * rows + 0.5)
    panels = figure.subplots(
        rows, 2 * columns, squeeze=False, gridspec_kw={"width_ratios": [1, 0.65] * columns}
    ).reshape(-1, 2)
    for i, (picture, bars) in enumerate(panels):
        if i < len(images):
            draw_image(picture, images[i])
            _draw_scores(bars, labels[i], scores[i], classes)
        else:
            picture.remove()
            bars.remove()
    _label_legend(figure)
    return figure


def _draw_roc(
    axes: "Axes", row: xray_metrics.ClassMetrics, labels: np.ndarray, scores: np.ndarray
) -> None:
    axes.set_title(row.name.replace("_", " "))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
    axes.set_yticks((0, 0.5, 1), ("0", "0.5", "1"))
    counts = f"{row.positives:,} pos., {row.negatives:,} neg."
    if not row.defined:
        present = "negatives" if row.negatives else "positives" if row.positives else ""
        reason = f"only {present}" if present else "no known label"
        text = f"n/a\n{reason}\n{counts}"
        axes.text(0.5, 0.5, text, ha="center", va="center", color=GRAY, fontsize=9)
        axes.set_facecolor("#F7F7F7")
        axes.grid(False)
        return
    false_positive, true_positive, _ = sk.roc_curve(labels, scores)
    axes.plot((0, 1), (0, 1), color=FAINT, linewidth=1)
    axes.plot(false_positive, true_positive, color=BLUE)
    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}
    text = f"{AUROC.title} {row.values[AUROC.name]:.3f}\n{counts}"
    axes.text(0.99, 0.02, text, ha="right", va="bottom", fontsize=8, bbox=box)


def _draw_reliability(
    axes: "Axes", name: str, labels: np.ndarray, scores: np.ndarray, calibrated: np.ndarray | None
) -> None:
    """Draws bins of equal mass with Wilson's intervals; the axes end where the bins do."""
    series = [("scores", GRAY if calibrated is not None else BLUE, "s", scores)]
    if calibrated is not None:
        series.append(("calibrated (95 % intervals)", BLUE, "o", calibrated))
    axes.set_title(name.replace("_", " "))
    end, texts = 0.02, []
    axes.plot((0, 1), (0, 1), color=FAINT, linewidth=1, label="perfect")
    for label, color, marker, values in series:
        bins = reliability.reliability(labels == POSITIVE, values)
        low, high = bins.intervals()
        faint = calibrated is not None and label == "scores"
        axes.plot(bins.predicted, bins.observed, color=color, marker=marker, label=label,
                  markersize=3, linewidth=1.0, linestyle=":" if faint else "-")
        if not faint:
            axes.vlines(bins.predicted, low, high, color=color, linewidth=1)
        end = max([end, *bins.predicted, *(bins.observed if faint else high)])
        texts.append("n/a" if math.isnan(bins.ece) else f"{bins.ece:.3f}")
    end = min(1.0, 1.05 * end)
    axes.set(xlim=(-0.02 * end, 1.02 * end), ylim=(-0.02 * end, 1.02 * end), aspect="equal")
    ticks = (0, float(f"{end / 2:.1g}"))
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}
    axes.text(0.02, 0.98, f"ECE {' to '.join(texts)}", ha="left", va="top", fontsize=8, bbox=box,
              transform=axes.transAxes)


def _draw_scores(
    axes: "Axes", labels: np.ndarray, scores: np.ndarray, classes: Sequence[str]
) -> None:
    """Draws bars of the positive findings and of the highest other scores, highest on top."""
    positive = labels == POSITIVE
    wanted = np.lexsort((-scores, ~positive))[: max(_SHOWN_SCORES, int(positive.sum()))]
    shown = wanted[np.argsort(scores[wanted], kind="stable")]
    for place, i in enumerate(shown):
        axes.barh(place, scores[i], height=0.75, **_LABELS[int(labels[i])][1])
        axes.text(scores[i] + 0.03, place, f"{scores[i]:.2f}", va="center", fontsize=8)
    names = axes.set_yticks(range(len(shown)), [classes[i].replace("_", " ") for i in shown])
    for i, tick in zip(shown, names, strict=True):
        tick.label1.set(fontsize=8, fontweight="bold" if positive[i] else "normal")
    axes.set(xlim=(0, 1.25), ylim=(-0.6, len(shown) - 0.4), xticks=(0, 0.5, 1))
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(False)


def _label_legend(figure: "Figure") -> None:
    from matplotlib.patches import Patch

    handles = [Patch(label=name, **style) for name, style in _LABELS.values()]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=10)
