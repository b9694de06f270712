"""Draws skeletons in 3D and the error of each joint."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxcxr.report.canvas import BLUE, GRAY, ORANGE, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mpl_toolkits.mplot3d import Axes3D


@styled
def skeletons_figure(
    pred: np.ndarray,
    truth: np.ndarray,
    parents: Sequence[int],
    titles: Sequence[str] | None = None,
) -> "Figure":
    """Draws predicted skeletons over the true ones, upright in 3D.

    Arguments:
      pred: `[n, J, 3]`, mm in the camera frame (x right, y down, z forward).
      truth: `[n, J, 3]`, likewise.
      parents: index of each joint's parent, -1 for the root.
      titles: n names, such as action and frame; None: numbers.

    Raises:
      ValueError: no pose, or shapes that do not agree.
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
    """Draws the mean position error of each joint as bars, with the mean over joints.

    Arguments:
      per_joint: `[J]`, mm; NaN is shown as n/a.
      names: the J names, in the order to show.

    Raises:
      ValueError: lengths that do not agree, or no finite error.
    """
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
