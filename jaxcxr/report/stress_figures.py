"""Draws stress tests: error against how much the input is degraded."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from jaxcxr.report.canvas import BLUE, GRAY, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def pose_figure(result: Mapping) -> "Figure":
    """Draws MPJPE at the levels of each corruption, a panel each, harder to the right.

    Arguments:
      result: of `stress_poses.measure`.
    """
    kinds = result["kinds"]
    columns = min(3, len(kinds))
    rows = math.ceil(len(kinds) / columns)
    figure = new_figure(3.7 * columns, 2.9 * rows + 0.4)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    height = result["settings"]["person_height"]
    for axes, (name, kind) in zip(panels.flat, kinds.items(), strict=False):
        _curve(axes, kind["levels"], result["mpjpe"], name in ("fps", "window"))
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
        axes.set_ylabel("MPJPE (mm)")
    panels[0, 0].set_ylim(bottom=0)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(handles))
    return figure


def _curve(axes: "Axes", levels: list[Mapping], untouched: float, ratio: bool) -> None:
    x = np.array([entry["level"] for entry in levels])
    y = np.array([entry["mpjpe"] for entry in levels])
    ranges = [entry["mpjpe_interval"] or (np.nan, np.nan) for entry in levels]
    low, high = np.array(ranges).T
    axes.axhline(untouched, color=GRAY, linestyle=":", label=f"untouched, {untouched:.1f} mm")
    axes.errorbar(x, y, yerr=(np.maximum(y - low, 0), np.maximum(high - y, 0)), color=BLUE,
                  marker="o", markersize=5, capsize=3, label="MPJPE with its 95% interval")
    if ratio:
        axes.set_xscale("log")
        axes.set_xticks(x, [f"{level:.3g}" for level in x])
        axes.set_xticks([], minor=True)
        axes.invert_xaxis()


@styled
def xray_figure(result: Mapping) -> "Figure":
    """Draws macro AUROC of parts of the image, of attributes, and at the levels of corruptions.

    Arguments:
      result: of `stress_xrays.measure`.
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
    _bars(figure.add_subplot(grid[0, :]), bars)
    first = None
    for place, kind in enumerate(kinds):
        axes = figure.add_subplot(grid[1 + place // columns, place % columns], sharey=first)
        first = first or axes
        _auroc_curve(axes, kind, result["auroc"])
        if place % columns == 0:
            axes.set_ylabel("macro AUROC")
    return figure


def _bars(axes: "Axes", bars: Mapping[str, Mapping]) -> None:
    shown = {name: entry for name, entry in bars.items() if entry["auroc"] is not None}
    for place, entry in enumerate(shown.values()):
        low, high = entry["auroc_interval"] or (entry["auroc"], entry["auroc"])
        axes.barh(place, entry["auroc"] - 0.5, left=0.5, height=0.6,
                  color=BLUE if place == 0 else GRAY)
        axes.plot((low, high), (place, place), color="black", linewidth=1.2)
        axes.annotate(f"{entry['auroc']:.3f}", (max(high, 0.5), place), xytext=(4, 0),
                      textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(shown)), list(shown))
    axes.invert_yaxis()
    axes.axvline(0.5, color="black", linewidth=0.8)
    axes.set(xlabel="macro AUROC, 0.5 is chance, line: 95% interval", xlim=(None, 1.08))
    axes.grid(False, axis="y")


def _auroc_curve(axes: "Axes", kind: Mapping, untouched: float | None) -> None:
    known = [entry for entry in kind["levels"] if entry["auroc"] is not None]
    y = np.array([entry["auroc"] for entry in known])
    ranges = [entry["auroc_interval"] or (np.nan, np.nan) for entry in known]
    low, high = np.array(ranges).reshape(-1, 2).T
    if untouched is not None:
        axes.axhline(untouched, color=GRAY, linestyle=":")
    axes.errorbar(range(len(known)), y, yerr=(np.maximum(y - low, 0), np.maximum(high - y, 0)),
                  color=BLUE, marker="o", markersize=5, capsize=3)
    axes.set_xticks(range(len(known)), [f"{entry['level']:g}" for entry in known])
    axes.set(title=kind["title"], xlabel=kind["unit"])
