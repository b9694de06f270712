"""The report page of a run on radiographs, of what the run and commands on it have written."""

import csv
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcxr.data.schema import POSITIVE
from jaxcxr.report import charts, page
from jaxcxr.report.page import Cell, Section
from jaxcxr.report.run_sections import about, picture_of
from jaxcxr.statistics import ranking
from jaxcxr.xray.evaluation import metrics_table, stress_xrays
from jaxcxr.xray.evaluation.calibration import NAME, Calibration
from jaxcxr.xray.explain import cases, faithfulness, saliency

CASES = 6  # in a group
_FIGURES = {
    "auroc": "AUROC", "average_precision": "AP", "f1": "F1", "sensitivity": "sensitivity",
    "specificity": "specificity", "sensitivity_at_specificity": "sensitivity at spec. 0.9",
    "brier": "Brier", "ece": "ECE",
}


def build(
    task: Any, model: Any, variables: Mapping, split: str, workdir: pathlib.Path, title: str
) -> str:
    """The page.

    Arguments:
      task: the `XrayTask`.
      model, variables: that made the predictions.
      split: that was evaluated.
      workdir: folder of the run, with its predictions and report.
      title: of the page.
    """
    folder, rows = workdir / "report", task.source(split).manifest
    scores = read_scores(workdir / "predictions" / f"{split}.csv", rows.classes)
    metrics = json.loads((folder / "metrics.json").read_text())
    calibration = None
    if (workdir / NAME).exists():
        calibration = Calibration.load(workdir / NAME).select(rows.classes)
    stress = _read(folder / "stress.json")
    told = _read(folder / "explanations.json")
    counts = metrics["counts"]
    auroc = faithfulness.cell(metrics["macro"]["auroc"], metrics["macro"]["auroc_interval"])
    told_by = ("(no interval: too few patients for some classes)"
               if metrics["macro"]["auroc_interval"] is None
               else "[95 % interval over patients]")
    top = [
        page.paragraph("For research only; not a medical device.", "warning"),
        page.headline([
            (auroc, f"macro AUROC, {split} {told_by}"),
            (faithfulness.cell(metrics["macro"]["average_precision"],
                          metrics["macro"]["average_precision_interval"]), "macro AP"),
            (f"{counts['images']:,}", f"images of {counts['patients']:,} patients"),
        ]),
        *(page.paragraph(line, "warning") for line in (stress or {}).get("warnings", ())),
    ]
    return page.whole(title, top, [
        Section("findings", "Findings", tuple(_findings(metrics))),
        Section("curves", "ROC and precision-recall", tuple(_curves(rows, scores))),
        Section("calibration", "Calibration and thresholds", tuple(
            _calibration(folder, calibration))),
        Section("together", "Findings together", tuple(_together(rows, scores, calibration))),
        Section("cases", "Best and worst cases", tuple(
            _cases(task, model, variables, split, scores))),
        Section("subgroups", "Subgroups", tuple(_subgroups(folder / "subgroups.csv"))),
        Section("stress", "Stress test", tuple(_stress(stress, folder))),
        Section("explanations", "Explanations", tuple(_explanations(told, folder))),
        *about(workdir, task, _limits(rows, stress)),
    ])


def read_scores(path: pathlib.Path, classes: Sequence[str]) -> np.ndarray:
    """Scores `[n, classes]` of `predictions/<split>.csv`."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        return np.array([[float(line[f"score_{c}"]) for c in classes] for line in lines])


def _read(path: pathlib.Path) -> dict | None:
    return json.loads(path.read_text()) if path.exists() else None


def _figure(entry: Mapping, name: str) -> Cell:
    value = entry.get(name)
    return Cell(faithfulness.cell(value, entry.get(f"{name}_interval")), value)


def _findings(metrics: Mapping) -> Iterable[str]:
    names = [name for name in _FIGURES if any(name in e for e in metrics["per_class"].values())]
    header = ["class", "n+", "n\u2212", *(_FIGURES[name] for name in names)]
    lines = [
        [name, *(Cell(f"{entry[k]:,}", entry[k]) for k in ("n_positive", "n_negative")),
         *(_figure(entry, figure) for figure in names)]
        for name, entry in metrics["per_class"].items()
    ]
    macro = metrics["macro"]
    lines.append(["macro mean", "", "", *(_figure(macro, name) for name in names)])
    if metrics.get("classes_of_few"):  # not in reports of older versions
        yield page.paragraph(metrics_table.few_note(metrics), "warning")
    yield page.table(header, lines, "A click on a heading sorts. F1, sensitivity and specificity "
                     "are those at the shipped threshold; n/a where a class has one label value.")
    notes = metrics["settings"].get("notes", {})
    yield page.details("What the figures are", page.table(("figure", "what it is"), notes.items()))


def _curves(rows, scores: np.ndarray) -> Iterable[str]:
    drawn = []
    for column, name in enumerate(rows.classes):
        found = ranking.roc_and_pr(rows.labels[:, column], scores[:, column], rows.patient_id)
        if found is None:
            continue
        share = float((rows.labels[:, column] == POSITIVE).sum() /
                      (rows.labels[:, column] >= 0).sum())
        title = name.replace("_", " ")
        drawn.append(page.drawing(
            charts.unit_chart(title, found[0], ("false positive rate", "sensitivity"),
                              diagonal=True)
            + charts.unit_chart(title, found[1], ("recall", "precision"), level=share), title,
        ))
    if drawn:
        yield page.paragraph("Band: 95 % of resamples of patients. Dashed: chance.")
        yield page.grid(drawn)


def _calibration(folder: pathlib.Path, calibration: Calibration | None) -> Iterable[str]:
    if calibration is not None:
        yield page.table(
            ["class", "method", "threshold", "prevalence", "n+", "n\u2212", "note"],
            [[entry.name, entry.method, Cell(f"{entry.threshold:.3f}", entry.threshold),
              Cell(f"{entry.prevalence:.3f}", entry.prevalence), Cell(f"{entry.positives:,}",
              entry.positives), Cell(f"{entry.negatives:,}", entry.negatives), entry.note]
             for entry in calibration.classes],
            "Fitted on the validation split alone.",
        )
    yield from picture_of(
        folder / "reliability.png", "Reliability: observed share over predicted probability, "
        "a panel for each class",
    )


def _together(rows, scores: np.ndarray, calibration: Calibration | None) -> Iterable[str]:
    """What is said of images that have a finding: off the diagonal, what is taken for it."""
    if calibration is None:
        return
    said = calibration.findings(calibration.from_scores(scores)) == POSITIVE
    lines = []
    for i, name in enumerate(rows.classes):
        there = rows.labels[:, i] == POSITIVE
        if there.any():
            shares = said[there].mean(0)
            lines.append([name, Cell(f"{there.sum():,}", float(there.sum())),
                          *(Cell(f"{share:.2f}", share, share) for share in shares)])
    yield page.table(
        ["has", "images", *(f"says {name}" for name in rows.classes)], lines,
        "Share of the images with a finding (row) of which another (column) is said; images may "
        "have both.",
    )


def _cases(task, model, variables, split: str, scores: np.ndarray) -> Iterable[str]:
    source = task.source(split)
    rows = source.manifest
    groups = cases.choose(rows.labels, scores, CASES)
    chosen = [case for group in groups.values() for case in group]
    if not chosen:
        return
    pixels = source.read(np.array([case.index for case in chosen]))["image"]
    inputs = np.asarray(task.inputs({"image": pixels})[0])
    black = np.asarray(task.inputs({"image": np.zeros_like(pixels[:1])})[0])
    explainer = saliency.Explainer(model, variables, float(black.ravel()[0]))
    method = cases.method_for(explainer, inputs[:1])
    maps = explainer.maps(method, inputs, np.array([case.finding for case in chosen]))
    yield page.paragraph(
        f"Heat maps: {method.replace('_', ' ')}, each with its own scale. They show what the "
        "score depends on, not where the finding is; `jaxcxr explain` says how well they point."
    )
    place = 0
    for name, group in groups.items():
        shown = []
        for case in group:
            finding = rows.classes[case.finding].replace("_", " ")
            before, after = cases.pictures(pixels[place, ..., 0], maps[place])
            label = "present" if case.label == POSITIVE else "absent"
            shown.append(page.before_after(
                before, after, f"radiograph {rows.image_id[case.index]}",
                f"{finding}: {label}, score {case.score:.3f} ({rows.image_id[case.index]})",
            ))
            place += 1
        if shown:
            yield page.subtitle(name[0].upper() + name[1:])
            yield page.grid(shown)


def _subgroups(path: pathlib.Path) -> Iterable[str]:
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        entries = list(csv.DictReader(file))
    names = {"auroc": "AUROC", "sensitivity": "sensitivity", "gap": "gap",
             "under_diagnosis": "under-diagnosis", "over_diagnosis": "over-diagnosis"}

    def lines(chosen, first):
        return [[*(entry[k] for k in first),
                 *(Cell(f"{int(entry[k]):,}", int(entry[k])) for k in ("images", "patients")),
                 *(_cell_of(entry, name) for name in names)] for entry in chosen]

    counted = ("images", "patients", *names.values())
    yield page.table(
        ["attribute", "group", *counted],
        lines([e for e in entries if e["class"] == "all"], ("attribute", "group")),
        "gap: sensitivity at the shipped thresholds minus that of all other images.",
    )
    each = [entry for entry in entries if entry["class"] != "all"]
    if each:
        yield page.details("Class by class", page.table(
            ["attribute", "group", "class", *counted],
            lines(each, ("attribute", "group", "class")),
        ))


def _cell_of(entry: Mapping[str, str], name: str) -> Cell:
    numbers = [entry.get(key) or "" for key in (name, f"{name}_interval_low",
                                                f"{name}_interval_high")]
    value, low, high = (float(number) if number else None for number in numbers)
    return Cell(faithfulness.cell(value, None if low is None or high is None else (low, high)), value)


def _stress(stress: Mapping | None, folder: pathlib.Path) -> Iterable[str]:
    if stress is None:
        yield page.paragraph("Not run. `jaxcxr stress --workdir=RUN`, then `jaxcxr report`.")
        return
    for title, lines in stress_xrays.sections(stress):
        yield page.subtitle(title)
        yield page.table(lines[0], lines[1:])
    yield from picture_of(folder / "stress.png", "Macro AUROC of parts of the image, of "
                          "attributes alone, and under each corruption")


def _explanations(told: Mapping | None, folder: pathlib.Path) -> Iterable[str]:
    if told is None:
        yield page.paragraph("Not run. `jaxcxr explain --workdir=RUN`, then `jaxcxr report`.")
        return
    header, *lines = faithfulness.lines(told)
    yield page.table(header, lines, faithfulness.heading(told))
    yield from picture_of(folder / "explanations.png", "Radiographs with boxes of findings, and "
                          "the map of each method over them")


def _limits(rows, stress: Mapping | None) -> list[str]:
    """What the model card says of limits, from the data."""
    unknown = [n for i, n in enumerate(rows.classes) if not (rows.labels[:, i] >= 0).any()]
    few = [n for i, n in enumerate(rows.classes) if 0 < (rows.labels[:, i] == POSITIVE).sum() < 20]
    sources = sorted(set(rows.source) - {""})
    lines = [f"Evaluated on images of {', '.join(sources) or 'an unnamed source'} alone; nothing "
             "is known of other hospitals, scanners or populations."]
    if unknown:
        lines.append(f"No known label in the evaluated split: {', '.join(unknown)}.")
    if few:
        lines.append(f"Fewer than 20 positive images, so wide intervals: {', '.join(few)}.")
    if stress is None:
        lines.append("Shortcuts have not been looked for (`jaxcxr stress`).")
    return [*lines, *(stress or {}).get("warnings", ())]
