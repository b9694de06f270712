"""Draws the errors of a pose model: by action and joint, over time, and of the worst sequences."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxcxr.pose.evaluation.error_breakdown import ActionErrors, ErrorsOverTime, WorstSequence
from jaxcxr.pose.geometry.skeletons import Skeleton
from jaxcxr.report.canvas import BLUE, GRAY, GREEN, ORANGE, PURPLE, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_COLORS = "YlGnBu"
_MISSING = "#F2F2F2"
_DARK = 0.55  # of the range of colours, beyond which text is white


@styled
def actions_figure(rows: Sequence[ActionErrors], joints: Sequence[str]) -> "Figure":
    """Draws the mean error of each action and joint as colours and values.

    Arguments:
      rows: of `error_breakdown.by_action`, the last one of all frames.
      joints: names of the joints.
    """
    # A gap sets off the last row and column, which are means over the others.
    values = np.full((len(rows) + 1, len(joints) + 2), np.nan)
    shown = [*range(len(rows) - 1), len(rows)]
    values[shown, : len(joints)] = [row.joints for row in rows]
    values[shown, -1] = [row.mean for row in rows]
    figure = new_figure(0.5 * values.shape[1] + 2.6, 0.34 * values.shape[0] + 1.7)
    axes = figure.subplots()
    top = np.nanmax(values) or 1.0
    image = axes.imshow(values, cmap=_COLORS, vmin=0.0, vmax=top, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=8,
                      color="white" if value > _DARK * top else "black")
    names = [f"{row.name} ({row.frames:,})" for row in rows]
    axes.set_yticks(shown, names)
    columns = [*range(len(joints)), len(joints) + 1]
    axes.set_xticks(columns, [*(name.replace("_", " ") for name in joints), "all joints"],
                    rotation=50, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set(ylabel="action (frames)", xlabel="joint")
    figure.colorbar(image, ax=axes, label="mean position error (mm)", pad=0.01, aspect=14)
    return figure


@styled
def time_figure(time: ErrorsOverTime, names: Sequence[str], most: int) -> "Figure":
    """Draws errors by place in the window, by time in the sequence, and of each sequence over time.

    Arguments:
      time: of `error_breakdown.over_time`.
      names: of the sequences.
      most: sequences shown one by one.
    """
    order = np.argsort(-time.means, kind="stable")[:most]
    height = 0.17 * len(order) + 1.3
    figure = new_figure(10.5, 3.4 + height)
    top, bottom = figure.subfigures(2, 1, height_ratios=(3.4, height), squeeze=False)[:, 0]
    panels = top.subplots(1, 1 if time.window is None else 2, sharey=True, squeeze=False)[0]
    if time.window is not None:
        places = np.arange(1, time.window.shape[1] + 1)
        _bands(panels[0], places, time.window, marker="o" if len(places) < 30 else None)
        panels[0].set(xlabel="position of the frame in its window", title="in the window")
        panels[0].xaxis.get_major_locator().set_params(integer=True)
    middles = (np.arange(time.sequences.shape[1]) + 0.5) * time.bin
    _bands(panels[-1], middles, time.quantiles)
    panels[-1].set(xlabel="time from the start of the sequence (s)",
                   title=f"in the sequence, over {len(names)} sequences")
    panels[0].set_ylabel("error of a frame, MPJPE (mm)")
    panels[0].set_ylim(bottom=0)
    handles, labels = panels[0].get_legend_handles_labels()
    top.legend(handles, labels, loc="outside upper center", ncols=3)
    _carpet(bottom, time, names, order)
    return figure


@styled
def worst_figure(worst: Sequence[WorstSequence], skeleton: Skeleton, mean: float) -> "Figure":
    """Draws the worst frame of each sequence, a row each; `mean` is the MPJPE of the split, mm."""
    figure = new_figure(11.5, 2.9 * len(worst) + 0.3)
    rows = figure.subfigures(len(worst), 1, squeeze=False)[:, 0]
    for rank, (row, one) in enumerate(zip(rows, worst, strict=True), start=1):
        panels = row.subplots(1, 4, gridspec_kw={"width_ratios": (1, 1, 1, 1.5)})
        frame, sequence = one.frame, one.sequence
        row.suptitle(
            f"{rank}. {sequence.sequence_id} ({sequence.action}): {one.mean:.0f} mm. "
            f"Shown: frame {frame} at {frame / sequence.fps:.2f} s, "
            f"{one.errors[frame].mean():.0f} mm", x=0.01, ha="left", fontsize=10,
        )
        _draw_input(panels[0], sequence.inputs[frame], skeleton)
        _draw_views(panels[1:3], one.predicted[frame], 1000.0 * sequence.joints[frame], skeleton)
        _draw_errors(panels[3], one, mean)
    handles = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles)
    )
    return figure


def _bands(axes: "Axes", x: np.ndarray, quantiles: np.ndarray, marker: str | None = None) -> None:
    low, lower, median, upper, high = quantiles
    axes.fill_between(x, low, high, color=BLUE, alpha=0.15, linewidth=0, label="5 to 95%")
    axes.fill_between(x, lower, upper, color=BLUE, alpha=0.3, linewidth=0, label="25 to 75%")
    axes.plot(x, median, color=BLUE, marker=marker, markersize=4, label="median")


def _carpet(
    figure: "SubFigure", time: ErrorsOverTime, names: Sequence[str], order: np.ndarray
) -> None:
    axes = figure.subplots()
    values = time.sequences[order]
    # A single outlier must not compress the colours of all others.
    top = float(np.nanquantile(values, 0.99)) or 1.0
    end = values.shape[1] * time.bin
    axes.set_facecolor(_MISSING)
    image = axes.imshow(values, cmap=_COLORS, vmin=0.0, vmax=top, aspect="auto",
                        extent=(0, end, len(order) - 0.5, -0.5), interpolation="nearest")
    axes.set_yticks(range(len(order)), [names[i] for i in order], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)
    whole = "each sequence" if len(order) == len(names) else (
        f"the {len(order)} worst of {len(names)} sequences"
    )
    axes.set(xlabel="time from the start of the sequence (s)", title=f"{whole}, the worst first")
    figure.colorbar(image, ax=axes, label="MPJPE (mm)", extend="max", pad=0.01)


def _draw_input(axes: "Axes", keypoints: np.ndarray, skeleton: Skeleton) -> None:
    """Draws keypoints `[joints, 3]` whose confidence is above 0."""
    x, y, seen = keypoints[:, 0], keypoints[:, 1], keypoints[:, 2] > 0
    for parent, child in skeleton.bones:
        if seen[parent] and seen[child]:
            side = ("left" if child in skeleton.left else
                    "right" if child in skeleton.right else "middle")
            color, line = {"left": (PURPLE, "--"), "right": (GREEN, "-"), "middle": (GRAY, "-")}[
                side
            ]
            label = None if side == "middle" else f"input, {side} side"
            pair = [parent, child]
            axes.plot(x[pair], y[pair], color=color, linestyle=line, label=label)
    axes.plot(x[seen], y[seen], "o", color=GRAY, markersize=2.5)
    _square(axes, np.stack([x[seen], y[seen]], -1))
    axes.invert_yaxis()
    missing = int((~seen).sum())
    note = f", {missing} of {len(seen)} joints not seen" if missing else ""
    axes.set_title("2D input" + note, fontsize=9)
    axes.set_xlabel("x (1 is half the image's width)", fontsize=8)
    axes.set_ylabel("y", fontsize=8)


def _draw_views(
    panels: "Sequence[Axes]", predicted: np.ndarray, truth: np.ndarray, skeleton: Skeleton
) -> None:
    """Draws poses in mm from the camera (right, up) and from its right (away, up)."""
    for axes, across, title in zip(panels, (0, 2), ("from the camera", "from the side"),
                                   strict=True):
        for joints, color, line, label in (
            (truth, BLUE, "-", "truth"), (predicted, ORANGE, "--", "prediction"),
        ):
            x, y = joints[:, across], -joints[:, 1]
            for pair in map(list, skeleton.bones):
                axes.plot(x[pair], y[pair], color=color, linestyle=line, label=label)
            axes.plot(x, y, "o", color=color, markersize=2.5)
        both = np.concatenate([truth, predicted])
        _square(axes, np.stack([both[:, across], -both[:, 1]], -1), _reach(both))
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(("right" if across == 0 else "away from the camera") + " (mm)", fontsize=8)
    panels[0].set_ylabel("up (mm)", fontsize=8)


def _reach(points: np.ndarray) -> float:
    return float(np.ptp(points, axis=0).max())


def _square(axes: "Axes", points: np.ndarray, reach: float | None = None) -> None:
    """Gives both axes one scale and equal margins."""
    if len(points):
        middle = (points.max(0) + points.min(0)) / 2
        half = 0.55 * (_reach(points) if reach is None else reach) or 1.0
        axes.set(xlim=(middle[0] - half, middle[0] + half),
                 ylim=(middle[1] - half, middle[1] + half))
    axes.set_aspect("equal")
    axes.tick_params(labelsize=8)


def _draw_errors(axes: "Axes", one: WorstSequence, mean: float) -> None:
    errors = one.errors.mean(-1)
    seconds = np.arange(len(errors)) / one.sequence.fps
    axes.plot(seconds, errors, color=ORANGE, linewidth=1.2)
    axes.plot(seconds[one.frame], errors[one.frame], "o", markersize=8, mfc="none", mec="black",
              label="frame shown")
    axes.axhline(mean, color=GRAY, linestyle=":", label=f"mean of all, {mean:.0f} mm")
    axes.set_ylim(0, 1.15 * max(errors.max(), mean, 1.0))
    axes.tick_params(labelsize=8)
    axes.set_title("error over time", fontsize=9)
    axes.set_xlabel("time (s)", fontsize=8)
    axes.set_ylabel("MPJPE (mm)", fontsize=8)
