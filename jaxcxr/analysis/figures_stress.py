"""Figures of stress tests: error against how much worse the input is."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from jaxcxr.analysis.canvas import BLUE, GRAY, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def pose_figure(result: Mapping) -> "Figure":
    """MPJPE at the levels of each kind, a panel each, harder to the right.

    Arguments:
      result: of `stress_pose.measure`.
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
