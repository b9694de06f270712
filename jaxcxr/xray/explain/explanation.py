"""Draws and scores where a model looks, and writes what was found."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxcxr.errors import UserError, nearest_or_known
from jaxcxr.report import canvas, tables
from jaxcxr.xray.explain import faithfulness, saliency, saliency_figures
from jaxcxr.xray.images.radiographs import Radiographs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 6  # images in the figure


def explain(
    task: Any,
    model: Any,
    variables: Mapping,
    source: Radiographs,
    cases: Sequence[faithfulness.Case],
    wanted: str,
    cheap: int,
    seed: int,
    say: Callable[[str], None],
) -> tuple[dict[str, Any], "Figure"]:
    """Draws maps of findings and scores them, beside a model with random weights.

    Arguments:
      task: that makes inputs of images.
      model: Linen module.
      variables: its `params` and `batch_stats`.
      source: a split of radiographs.
      cases: its findings to explain, see `faithfulness.choose`.
      wanted: methods, joined by commas; "all"; or "" for the cheap ones.
      cheap: forward passes for an image that a cheap method costs at most.
      seed: of the training; the random weights are of the next one.
      say: gets a line for each method.

    Returns:
      the summary, and the figure of the first cases.

    Raises:
      UserError: a method that does not explain the model.
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
    """The maps of the first cases, over their images."""
    titles = [
        f"{classes[case.finding].replace('_', ' ')}\np = {1 / (1 + np.exp(-row[case.finding])):.2f}"
        for case, row in zip(cases[:_SHOWN], logits, strict=True)
    ]
    return saliency_figures.saliency_figure(
        pixels[:_SHOWN, ..., 0], {name: one[:_SHOWN] for name, one in maps.items()},
        [case.boxes for case in cases[:_SHOWN]], titles,
    )


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
    """The scores for the screen; one line for each method would not fit 80 columns."""
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
    """Writes explanations.json, .md and .png.

    Raises:
      UserError: the folder cannot be written.
    """
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
