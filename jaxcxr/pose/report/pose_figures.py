"""Draws the errors of a pose model by action, joint and time, and skeletons in 3D."""

import math
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxcxr.pose.evaluation import mean_errors
from jaxcxr.pose.geometry.skeletons import Skeleton
from jaxcxr.pose.report.error_report import (
    DRAWN,
    ActionErrors,
    Errors,
    ErrorsOverTime,
    WorstSequence,
)
from jaxcxr.report.canvas import BLUE, GRAY, GREEN, ORANGE, PURPLE, new_figure, save, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from mpl_toolkits.mplot3d import Axes3D

_COLORS = "YlGnBu"
_MISSING = "#F2F2F2"
_DARK = 0.55  # of the range of colours, beyond which text is white
_SKELETONS = 6  # frames drawn in 3D
_SHOWN = 40  # sequences shown over time


def write(errors: Errors, skeleton: Skeleton, split: str, folder: pathlib.Path) -> None:
    """Draws `errors_actions.png`, `errors_time.png`, `errors_worst.png`, joints and skeletons."""
    values, actual = np.concatenate(errors.predicted), np.concatenate(errors.truth)
    chosen = np.linspace(0, len(actual) - 1, min(_SKELETONS, len(actual))).astype(int)
    figures = {
        f"skeletons_{split}": skeletons_figure(values[chosen], actual[chosen], skeleton.parents),
        f"joint_errors_{split}": joint_errors_figure(
            mean_errors.per_joint(values, actual), skeleton.joints
        ),
        "errors_actions": actions_figure(errors.actions, skeleton.joints),
        "errors_time": time_figure(errors.time, errors.names, _SHOWN),
        "errors_worst": worst_figure(errors.worst[:DRAWN], skeleton, errors.actions[-1].mean),
    }
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")


@styled
def actions_figure(rows: Sequence[ActionErrors], joints: Sequence[str]) -> "Figure":
    """Draws the mean error of each action and joint as colours and values."""
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


@styled
def skeletons_figure(
    pred: np.ndarray,
    truth: np.ndarray,
    parents: Sequence[int],
    titles: Sequence[str] | None = None,
) -> "Figure":
    """Draws predicted skeletons over the true ones, upright in 3D.

    Both are `[n, J, 3]`, mm in the camera frame (x right, y down, z forward).
    """
    pred, truth = np.asarray(pred, float), np.asarray(truth, float)
    if pred.shape != truth.shape or pred.ndim != 3 or pred.shape[1:] != (len(parents), 3):
        raise ValueError(
            f"prediction {list(pred.shape)} and truth {list(truth.shape)} must both be "
            f"[n, {len(parents)}, 3]: one row per joint"
        )
    if not len(pred):
        raise ValueError("there is no pose to draw: give at least one")
    titles = [f"pose {i + 1}" for i in range(len(pred))] if titles is None else titles
    columns = min(3, len(pred))
    rows = math.ceil(len(pred) / columns)
    figure = new_figure(3.6 * columns, 3.4 * rows + 0.4)
    for i, (estimate, actual) in enumerate(zip(pred, truth, strict=True)):
        axes = figure.add_subplot(rows, columns, i + 1, projection="3d")
        _draw_skeleton(axes, actual, parents, BLUE, "truth", "-")
        _draw_skeleton(axes, estimate, parents, ORANGE, "prediction", "--")
        _frame(axes, np.concatenate([actual, estimate]))
        error = np.linalg.norm(estimate - actual, axis=-1).mean()
        axes.set_title(f"{titles[i]}: {error:.0f} mm", y=0.98)
    handles, names = figure.axes[0].get_legend_handles_labels()
    chosen = dict(zip(names, handles, strict=True))
    figure.legend(chosen.values(), chosen.keys(), loc="outside upper center", ncols=2, fontsize=10)
    return figure


@styled
def joint_errors_figure(per_joint: np.ndarray, names: Sequence[str]) -> "Figure":
    """Draws the mean position error of each joint `[J]`, mm, as bars; NaN is shown as n/a."""
    errors = np.asarray(per_joint, float)
    if errors.shape != (len(names),):
        raise ValueError(f"errors {list(errors.shape)} must be [{len(names)}]: one per joint name")
    if not np.isfinite(errors).any():
        raise ValueError("no joint has a finite error: there is nothing to draw")
    figure = new_figure(6.5, 0.3 * len(names) + 1.2)
    axes = figure.subplots()
    places = np.arange(len(names))
    axes.barh(places, np.nan_to_num(errors), color=BLUE, height=0.7)
    longest = np.nanmax(errors) or 1.0
    for place, error in enumerate(errors):
        text = f"{error:.1f}" if np.isfinite(error) else "n/a"
        axes.text(1.13 * longest, place, text, ha="right", va="center", fontsize=9)
    mean = np.nanmean(errors)
    axes.axvline(mean, color=ORANGE, linestyle="--", label=f"mean {mean:.1f} mm")
    axes.set_yticks(places, [name.replace("_", " ") for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="mean position error (mm)", xlim=(0, 1.14 * longest))
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper right")
    return figure


def _draw_skeleton(
    axes: "Axes3D", joints: np.ndarray, parents: Sequence[int], color: str, label: str, line: str
) -> None:
    x, y, z = _upright(joints).T
    for child, parent in enumerate(parents):
        if parent >= 0:
            pair = [parent, child]
            axes.plot(x[pair], y[pair], z[pair], color=color, linestyle=line, label=label)
    axes.plot(x, y, z, "o", color=color, markersize=2.5)


def _frame(axes: "Axes3D", joints: np.ndarray) -> None:
    """Frames all joints in a cube, so that every direction has the same scale."""
    shown = _upright(joints)
    shown = shown[np.isfinite(shown).all(axis=1)]
    middle = (shown.max(axis=0) + shown.min(axis=0)) / 2
    half = max(1.0, 0.53 * np.ptp(shown, axis=0).max())
    for i, name in enumerate("xyz"):
        axes.set(**{f"{name}lim": (middle[i] - half, middle[i] + half), f"{name}ticklabels": ()})
    axes.set_xlabel("right", labelpad=-12, color=GRAY, fontsize=8)
    axes.set_ylabel("away", labelpad=-12, color=GRAY, fontsize=8)
    axes.set_zlabel("up", labelpad=-12, color=GRAY, fontsize=8)
    axes.set_box_aspect((1, 1, 1), zoom=1.15)
    axes.view_init(elev=12, azim=-70)


def _upright(joints: np.ndarray) -> np.ndarray:
    """Turns the camera frame (right, down, forward) into the plot's (right, away, up)."""
    return joints[..., [0, 2, 1]] * np.array([1, 1, -1])
