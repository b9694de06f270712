"""Writes the errors of a pose model, as tables and figures, into the report of a run."""

import csv
import pathlib
from collections.abc import Sequence

import numpy as np

from jaxcxr.pose.evaluation import error_breakdown, pose_errors
from jaxcxr.pose.evaluation.error_breakdown import (
    QUANTILES,
    ActionErrors,
    ErrorsOverTime,
    WorstSequence,
)
from jaxcxr.pose.geometry.skeletons import Skeleton
from jaxcxr.pose.report import error_figures, pose_figures
from jaxcxr.pose.sources import clips
from jaxcxr.report import tables
from jaxcxr.report.canvas import save

_MM = 1000.0
_SKELETONS = 6  # frames drawn in 3D
_DRAWN, _SHOWN = 4, 40  # worst sequences drawn; sequences shown over time


def write(
    source: clips.Clips,
    predicted: Sequence[np.ndarray],
    skeleton: Skeleton,
    split: str,
    folder: pathlib.Path,
) -> None:
    """Writes the tables and the figures.

    They are `errors.md` and `errors.csv` (action x joint); `errors_actions.png`, `errors_time.png`
    and `errors_worst.png`, each described in `errors.md`; `skeletons_SPLIT.png` and
    `joint_errors_SPLIT.png`.

    Arguments:
      source: windows of the split, each frame lifted once.
      predicted: of each sequence, metres, `[frames, joints, 3]`.
      skeleton: of the joints.
      split: name of the split.
      folder: to write into; made if absent.
    """
    predicted = [values * _MM for values in predicted]
    truth = [sequence.joints * _MM for sequence in source.sequences]
    errors = list(map(pose_errors.joint_errors, predicted, truth))
    rows = error_breakdown.by_action(errors, [sequence.action for sequence in source.sequences])
    time = error_breakdown.over_time(
        [e.mean(-1) for e in errors], [s.fps for s in source.sequences],
        None if source.center else source.frames,
    )
    listed = error_breakdown.worst(source.sequences, predicted, errors)
    folder.mkdir(exist_ok=True)
    _write_csv(rows, skeleton.joints, folder / "errors.csv")
    text = _markdown(rows, time, listed, skeleton.joints, split)
    (folder / "errors.md").write_text(text, encoding="utf-8")

    values, actual = np.concatenate(predicted), np.concatenate(truth)
    chosen = np.linspace(0, len(actual) - 1, min(_SKELETONS, len(actual))).astype(int)
    names = [sequence.sequence_id for sequence in source.sequences]
    figures = {
        f"skeletons_{split}": pose_figures.skeletons_figure(
            values[chosen], actual[chosen], skeleton.parents
        ),
        f"joint_errors_{split}": pose_figures.joint_errors_figure(
            pose_errors.per_joint(values, actual), skeleton.joints
        ),
        "errors_actions": error_figures.actions_figure(rows, skeleton.joints),
        "errors_time": error_figures.time_figure(time, names, _SHOWN),
        "errors_worst": error_figures.worst_figure(listed[:_DRAWN], skeleton, rows[-1].mean),
    }
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")


def _write_csv(rows: Sequence[ActionErrors], joints: Sequence[str], path: pathlib.Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = [f"{name}_mm" for name in joints]
        writer.writerow(("action", "sequences", "frames", "mpjpe_mm", *columns))
        for row in rows:
            values = (row.mean, *row.joints)
            writer.writerow((row.name, row.sequences, row.frames, *(f"{v:.3f}" for v in values)))


def _markdown(
    rows: Sequence[ActionErrors], time: ErrorsOverTime, listed: Sequence[WorstSequence],
    joints: Sequence[str], split: str,
) -> str:
    *actions, every = rows
    table = [("joint", *(row.name for row in rows))]
    table += [
        (name.replace("_", " "), *(f"{row.joints[j]:.1f}" for row in rows))
        for j, name in enumerate(joints)
    ]
    table += [
        ("all joints", *(f"{row.mean:.1f}" for row in rows)),
        ("frames", *(f"{row.frames:,}" for row in rows)),
        ("sequences", *(str(row.sequences) for row in rows)),
    ]
    ranking = [("sequence", "action", "frames", "MPJPE", "worst frame", "its error", "worst joint")]
    ranking += [
        (one.sequence.sequence_id, one.sequence.action, f"{len(one.errors):,}", f"{one.mean:.1f}",
         str(one.frame), f"{one.errors[one.frame].mean():.1f}",
         joints[one.errors.mean(0).argmax()].replace("_", " "))
        for one in listed
    ]
    blocks = [
        f"# Errors on the {split} split",
        f"MPJPE {every.mean:.1f} mm over {every.frames:,} frames of {every.sequences} sequences; "
        "the mean of the actions' means is "
        f"{pose_errors.action_mean({row.name: row.mean for row in actions}):.1f} mm.",
        "## By action and joint, mm", *_block(table),
        "## By position of the frame in its window, mm", *_places(time),
        "## Worst sequences, mm", "Of each take, the camera with the largest error.",
        *_block(ranking),
        "## Figures", *_block(_figures(rows, time, listed, joints), left=2),
    ]
    return "\n\n".join(blocks) + "\n"


def _block(lines, left: int = 1) -> list[str]:
    return ["\n".join(tables.markdown(lines, left))]


def _places(time: ErrorsOverTime) -> list[str]:
    if time.window is None:
        return ["Every frame is the middle of a window of its own."]
    frames = time.window.shape[1]
    lines = [("frame", *(f"{q:.0%}" if q != 0.5 else "median" for q in QUANTILES))]
    for name, place in {"first": 0, "middle": frames // 2, "last": frames - 1}.items():
        lines.append((f"{name} ({place + 1})", *(f"{x:.1f}" for x in time.window[:, place])))
    return _block(lines)


def _figures(
    rows: Sequence[ActionErrors], time: ErrorsOverTime, listed: Sequence[WorstSequence],
    joints: Sequence[str],
) -> list[tuple[str, ...]]:
    """Describes each figure in words, for readers who cannot see it."""
    *actions, every = rows
    hard, easy = (pick(actions, key=lambda row: row.mean) for pick in (max, min))
    joint = int(every.joints.argmax())
    median = time.quantiles[2]
    known = median[~np.isnan(median)]
    drawn = listed[:_DRAWN]
    window = "" if time.window is None else (
        f"Median error by position in the window: {time.window[2].min():.0f} to "
        f"{time.window[2].max():.0f} mm. "
    )
    return [
        ("file", "what it shows"),
        ("errors_actions.png",
         "Table of colours with a number in each cell: mean position error in mm, a row for each "
         f"action, a column for each joint. Largest for {hard.name} ({hard.mean:.0f} mm), smallest "
         f"for {easy.name} ({easy.mean:.0f} mm); worst joint {joints[joint].replace('_', ' ')} "
         f"({every.joints[joint]:.0f} mm)."),
        ("errors_time.png",
         f"{window}Median over sequences by time from their start: {known.min():.0f} to "
         f"{known.max():.0f} mm. Bands hold half and nine tenths. Below, a row of colours for each "
         "sequence, the worst first."),
        ("errors_worst.png",
         "Worst frame of "
         + ", ".join(f"{one.sequence.sequence_id} ({one.mean:.0f} mm)" for one in drawn)
         + ": 2D input, true and predicted skeleton as the camera sees them and from the side, and "
         "the error over time."),
    ]
