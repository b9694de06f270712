"""Explains findings of a model by maps: chooses the images, draws, scores and writes the result."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import jax
import numpy as np

from jaxcxr.data.label_tables import NEGATIVE, POSITIVE
from jaxcxr.errors import UserError, nearest_or_known
from jaxcxr.report import canvas, tables
from jaxcxr.xray.explain import faithfulness, saliency

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jaxcxr.xray.images.radiographs import Radiographs  # imports TFDS, which is slow


_SHOWN = 6  # images in the figure


def explain(
    task: Any,
    model: Any,
    variables: Mapping,
    source: "Radiographs",
    cases: Sequence[faithfulness.ImageFinding],
    wanted: str,
    cheap: int,
    seed: int,
    say: Callable[[str], None],
) -> tuple[dict[str, Any], "Figure"]:
    """Draws maps of findings and scores them against a model with random weights.

    Arguments:
      task: turns images into inputs.
      model, variables: the model.
      source: a split of radiographs.
      cases: the findings to explain, from `faithfulness.choose`.
      wanted: methods joined by commas, "all", or "" for the cheap ones.
      cheap: most forward passes per image that a cheap method costs.
      seed: of the training; the random weights use the next one.
      say: called with a line for each method.

    Returns:
      The summary, and the figure of the first cases.

    Raises:
      UserError: a method does not explain the model.
    """
    index = np.array([case.index for case in cases])
    pixels = source.read(index)["image"]
    inputs = np.asarray(task.inputs({"image": pixels})[0])
    black = float(np.asarray(task.inputs({"image": np.zeros_like(pixels[:1])})[0]).ravel()[0])
    variables = jax.device_get(variables)
    explainer = saliency.Explainer(model, variables, black)
    methods = _methods(wanted, cheap, explainer.methods(inputs[:1]))
    fresh = jax.device_get(jax.jit(model.init)(jax.random.key(seed + 1), inputs[:1]))
    found, maps = faithfulness.score(
        explainer, explainer.with_variables({**variables, **fresh}), inputs, cases, methods, say
    )
    classes = source.manifest.classes
    counts = np.bincount([case.finding for case in cases], minlength=len(classes))
    cells = None
    if any(saliency.METHODS[name][1] == "map" for name in methods):
        cells = " x ".join(map(str, explainer.stage(inputs[:1])[1]))
    return {
        "cells": cells,
        "cases": len(cases),
        "patients": len(np.unique(source.manifest.patient_id[index])),
        "boxes": int(sum(len(case.boxes) > 0 for case in cases)),
        "classes": {name: int(n) for name, n in zip(classes, counts, strict=True) if n},
        "methods": faithfulness.summary(found, source.manifest.patient_id[index]),
    }, _figure(classes, pixels, maps, cases, explainer.logits(inputs[:_SHOWN]))


def _figure(classes, pixels, maps, cases, logits) -> "Figure":
    """Draws the maps of the first cases over their images."""
    titles = [
        f"{classes[case.finding].replace('_', ' ')}\np = {1 / (1 + np.exp(-row[case.finding])):.2f}"
        for case, row in zip(cases[:_SHOWN], logits, strict=True)
    ]
    return saliency_figure(
        pixels[:_SHOWN, ..., 0], {name: one[:_SHOWN] for name, one in maps.items()},
        [case.boxes for case in cases[:_SHOWN]], titles,
    )


@canvas.styled
def saliency_figure(
    images: np.ndarray,
    maps: Mapping[str, np.ndarray],
    boxes: Sequence[np.ndarray],
    titles: Sequence[str],
) -> "Figure":
    """Draws a row for each image `[n, H, W]`: the image with its boxes, then each method over it.

    Arguments:
      images: `[n, H, W]`.
      maps: method -> `[n, H, W]`; each map has its own color scale.
      boxes: of each image `[k, 4]`, x, y, width, height in pixels.
      titles: of each row.
    """
    if not len(images):
        raise ValueError("there is no image to explain")
    columns = 1 + len(maps)
    figure = canvas.new_figure(1.9 * columns + 0.4, 1.95 * len(images) + 0.3)
    panels = figure.subplots(len(images), columns, squeeze=False)
    for i, row in enumerate(panels):
        _draw(row[0], images[i], boxes[i])
        row[0].set_ylabel(titles[i], fontsize=8)
        for axes, one in zip(row[1:], maps.values(), strict=True):
            _draw(axes, images[i], boxes[i])
            low, high = float(one[i].min()), float(one[i].max())
            axes.imshow(one[i], cmap="inferno", alpha=0.55, vmin=low, vmax=high or 1.0)
    for axes, name in zip(panels[0], ["image", *maps], strict=True):
        axes.set_title(name.replace("_", " "), fontsize=9)
    return figure


def _draw(axes: "Axes", image: np.ndarray, boxes: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    axes.imshow(image, cmap="gray", interpolation="nearest" if len(image) < 128 else "antialiased")
    for x, y, width, height in boxes:
        axes.add_patch(
            Rectangle(
                (x - 0.5, y - 0.5), width, height, fill=False, edgecolor=canvas.SKY, linewidth=1.5
            )
        )
    axes.set(xticks=(), yticks=())
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _methods(wanted: str, cheap: int, possible: tuple[str, ...]) -> tuple[str, ...]:
    if wanted == "all":
        return possible
    if not wanted:
        return tuple(name for name in possible if saliency.METHODS[name][0] <= cheap)
    names = tuple(dict.fromkeys(name.strip() for name in wanted.split(",")))
    for name in names:
        if name not in possible:
            raise UserError(
                f"--methods: {name!r} does not explain this model."
                f"{nearest_or_known(name, possible)}"
                f" Its methods: {', '.join(possible)}."
            )
    return names


def to_text(result: Mapping) -> str:
    """Formats the scores for a screen of 80 columns, in a paragraph for each method."""
    lines = [faithfulness.heading(result)]
    if result["cells"]:
        lines.append(f"Grad-CAM and Score-CAM draw a map of {result['cells']} cells")
    for name, entry in result["methods"].items():
        lines.append(f"\n{name}" + (f": {entry['verdict']}" if entry["verdict"] else ""))
        shown = [
            (f"  {title}", faithfulness.cell(entry[key], entry[f"{key}_interval"]))
            for key, title in faithfulness.COLUMNS.items() if entry[key] is not None
        ]
        lines += tables.aligned(shown)
    return "\n".join(lines)


def write(result: Mapping, figure: "Figure", out: pathlib.Path) -> None:
    """Writes explanations.json, .md and .png; a UserError where the folder cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=1, allow_nan=False, ensure_ascii=False)
        (out / "explanations.json").write_text(text + "\n", encoding="utf-8")
        table = tables.markdown(faithfulness.lines(result))
        page = ["# Explanations", "", faithfulness.heading(result), "", *table, ""]
        (out / "explanations.md").write_text("\n".join(page), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; give another --out.") from error
    canvas.save(figure, out / "explanations.png")


_SIDE = 256  # least pixels per side of the pictures
_STRENGTH = 0.6  # opacity of the color where the map is greatest


@dataclasses.dataclass(frozen=True)
class Case:
    """Pairs an image with a class: their indices, the label (1 or 0) and the score (0 to 1)."""

    index: int
    finding: int
    label: int
    score: float


def choose(labels: np.ndarray, scores: np.ndarray, most: int) -> dict[str, list[Case]]:
    """Chooses the surest hits, the clearest misses and the surest false alarms, clearest first.

    No image appears twice in a group, and no class as long as there are others.

    Arguments:
      labels: integers `[n, classes]` in {1, 0, -1 unknown}.
      scores: `[n, classes]` in 0 to 1.
      most: cases per group.
    """
    groups = {
        "found": (labels == POSITIVE, -scores), "missed": (labels == POSITIVE, scores),
        "false alarms": (labels == NEGATIVE, -scores),
    }
    return {name: _clearest(labels, scores, *group, most) for name, group in groups.items()}


def _clearest(labels, scores, mask, rank, most: int) -> list[Case]:
    rows, columns = np.nonzero(mask)
    order = np.argsort(rank[rows, columns], kind="stable")
    chosen: list[Case] = []
    images: set[int] = set()
    classes: set[int] = set()
    for fresh in (True, False):  # other classes first
        for i in order:
            row, column = int(rows[i]), int(columns[i])
            if len(chosen) >= most:
                return chosen
            if row in images or (fresh and column in classes):
                continue
            images.add(row)
            classes.add(column)
            chosen.append(
                Case(row, column, int(labels[row, column]), float(scores[row, column]))
            )
    return chosen


def unit(heat: np.ndarray) -> np.ndarray:
    """Scales a map to 0 to 1; 0 where it is constant."""
    low, high = float(heat.min()), float(heat.max())
    return (heat - low) / (high - low) if high > low else np.zeros_like(heat)


def blended(gray: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Colours an image uint8 `[H, W]` by a map `[H, W]` in 0 to 1, transparent at 0: BGR."""
    colors = cv2.applyColorMap((255 * strength).astype(np.uint8), cv2.COLORMAP_INFERNO)
    weight = _STRENGTH * strength[..., None]
    return np.round((1 - weight) * gray[..., None] + weight * colors).astype(np.uint8)


def pictures(image: np.ndarray, heat: np.ndarray) -> tuple[bytes, bytes]:
    """Encodes an image uint8 `[H, W]`, and the same under a map `[H, W]`, as PNG."""
    side = max(_SIDE, *image.shape)
    image = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
    heat = cv2.resize(heat.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    return _png(image), _png(blended(image, unit(heat)))


def _png(image: np.ndarray) -> bytes:
    _, content = cv2.imencode(".png", image)
    return content.tobytes()


def method_for(explainer: saliency.Explainer, images: saliency.Images) -> str:
    """Picks the method that a report draws: class-specific and fast."""
    possible = explainer.methods(images)
    for name in ("grad_cam", "attention_gradient"):
        if name in possible:
            return name
    return "integrated_gradients"
