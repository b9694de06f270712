"""`jaxcxr explain`: where a trained model of radiographs looks, and whether it means anything.

    jaxcxr explain --workdir=RUN
    jaxcxr explain --workdir=RUN --methods=all --images=200

Maps of findings in the test split, of the classes in turn, those with boxes where the data has
boxes. Each method is scored against the boxes (does the greatest value lie in one, overlap, share
of the map inside) and against the model (how fast the probability falls when what the map marks
goes, and rises when it comes), beside itself with random weights and beside two maps that know
nothing of the model: the center of the image, and noise. Intervals are bootstraps over patients.

Written are `explanations.json`, `.md` and `.png` in RUN/report or `--out`.
"""

import argparse
import contextlib
import json
import pathlib

import numpy as np

from jaxcxr.errors import UserError, nearest_or_known

_SHOWN = 6  # images in the figure
_FEW = 100  # forward passes for an image up to which a method is a default


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--workdir", required=True, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--split", default="test", choices=("validation", "test"), help="default: test"
    )
    parser.add_argument(
        "--images", type=int, default=64, metavar="N", help="findings to explain (default: 64)"
    )
    parser.add_argument(
        "--methods", default="", metavar="A,B",
        help="all, or some of the model's (default: those that cost up to "
        f"{_FEW} forward passes for an image)",
    )
    parser.add_argument("--out", metavar="DIR", help="folder to write to (default: RUN/report)")


def run(args: argparse.Namespace) -> None:
    """Draw, score, print and write.

    Raises:
      UserError: no run of radiographs, a method that the model has not, or nothing to explain.
    """
    from jaxcxr.train import finished
    from jaxcxr.train import workdir as workdir_lib
    from jaxcxr.xray.explain import faithfulness

    if args.images < 1:
        raise UserError(f"--images is {args.images}; give at least 1.")
    workdir = workdir_lib.parse(args.workdir)
    with finished.open_best(workdir, task="cxr") as run_:
        step, source = run_.step, run_.task.source(args.split)
        cases = faithfulness.choose(source, args.images)
        if not cases:
            raise UserError(f"the {args.split} split has no positive finding to explain.")
        result, figure = _explained(run_, source, cases, args.methods)
    result |= {"workdir": str(workdir), "split": args.split, "step": step}
    if args.out:
        _write(result, figure, pathlib.Path(args.out).expanduser())
    else:
        with contextlib.closing(workdir_lib.Local(workdir)) as local:
            _write(result, figure, local.path / "report")
    print(_text(result))
    print(f"written: {args.out or workdir / 'report'}/explanations.json, .md and .png")


def _explained(run_, source, cases, wanted: str):
    """The summary, and the figure of the first cases."""
    import jax

    from jaxcxr.xray.explain import faithfulness, saliency, saliency_figures

    index = np.array([case.index for case in cases])
    pixels = source.read(index)["image"]
    inputs = np.asarray(run_.task.inputs({"image": pixels})[0])
    black = float(np.asarray(run_.task.inputs({"image": np.zeros_like(pixels[:1])})[0]).ravel()[0])
    variables = jax.device_get(run_.variables)
    explainer = saliency.Explainer(run_.model, variables, black)
    methods = _methods(wanted, explainer.methods(inputs[:1]))
    fresh = jax.device_get(
        jax.jit(run_.model.init)(jax.random.key(run_.config.seed + 1), inputs[:1])
    )
    found, maps = faithfulness.score(
        explainer, explainer.with_variables({**variables, **fresh}), inputs, cases, methods,
        lambda text: print(text, flush=True),
    )
    classes = source.manifest.classes
    logits = explainer.logits(inputs[:_SHOWN])
    titles = [
        f"{classes[case.finding].replace('_', ' ')}\np = {1 / (1 + np.exp(-row[case.finding])):.2f}"
        for case, row in zip(cases[:_SHOWN], logits, strict=True)
    ]
    figure = saliency_figures.saliency_figure(
        pixels[:_SHOWN, ..., 0], {name: one[:_SHOWN] for name, one in maps.items()},
        [case.boxes for case in cases[:_SHOWN]], titles,
    )
    counts = np.bincount([case.finding for case in cases], minlength=len(classes))
    cells = None
    if any(saliency.METHODS[name][1] == "map" for name in methods):
        cells = " x ".join(map(str, explainer.stage(inputs[:1])[1]))
    return {
        "model": run_.config.model.name,
        "cells": cells,
        "cases": len(cases),
        "patients": len(np.unique(source.manifest.patient_id[index])),
        "boxes": int(sum(len(case.boxes) > 0 for case in cases)),
        "classes": {name: int(n) for name, n in zip(classes, counts, strict=True) if n},
        "methods": faithfulness.summary(found, source.manifest.patient_id[index]),
    }, figure


def _methods(wanted: str, possible: tuple[str, ...]) -> tuple[str, ...]:
    from jaxcxr.xray.explain import saliency

    if wanted == "all":
        return possible
    if not wanted:
        return tuple(name for name in possible if saliency.METHODS[name][0] <= _FEW)
    names = tuple(dict.fromkeys(name.strip() for name in wanted.split(",")))
    for name in names:
        if name not in possible:
            raise UserError(
                f"--methods: {name!r} does not explain this model."
                f"{nearest_or_known(name, possible)}"
                f" Its methods: {', '.join(possible)}."
            )
    return names


def _text(result: dict) -> str:
    """For the screen: one line for each method and score would not fit 80 columns."""
    from jaxcxr.report import tables
    from jaxcxr.xray.explain import faithfulness

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


def _write(result: dict, figure, out: pathlib.Path) -> None:
    from jaxcxr.report import canvas, tables
    from jaxcxr.xray.explain import faithfulness

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
