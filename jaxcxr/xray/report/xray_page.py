"""Builds the report page of a run on radiographs from the files of the run and later commands."""

import csv
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcxr.data.label_tables import POSITIVE
from jaxcxr.report import page
from jaxcxr.report.page import Block, Cell, Section, SortableTable, about, not_run, pictures
from jaxcxr.statistics import ranking
from jaxcxr.xray.evaluation import metrics_table, stress_xrays, subgroups
from jaxcxr.xray.evaluation.calibration import NAME, Calibration
from jaxcxr.xray.evaluation.xray_metrics import AUROC, AVERAGE_PRECISION, METRICS
from jaxcxr.xray.explain import explanation, faithfulness, saliency
from jaxcxr.xray.images.manifest import Manifest

CASES = 6  # in a group


def build(
    task: Any, model: Any, variables: Mapping, split: str, workdir: pathlib.Path, title: str
) -> str:
    """Renders the page of a run from its predictions and report."""
    folder, rows = workdir / "report", task.source(split).manifest
    scores = read_scores(workdir / "predictions" / f"{split}.csv", rows.classes)
    metrics = json.loads((folder / "metrics.json").read_text())
    calibration = None
    if (workdir / NAME).exists():
        calibration = Calibration.load(workdir / NAME).select(rows.classes)
    stress = _read(folder / "stress.json")
    explained = _read(folder / "explanations.json")
    top = [
        page.Paragraph("For research only; not a medical device.", warning=True),
        _headline(metrics, split),
        *(page.Paragraph(line, warning=True) for line in (stress or {}).get("warnings", ())),
    ]
    return page.render(title, top, [
        Section("findings", "Findings", list(_findings(metrics))),
        Section("curves", "ROC and precision-recall", list(_curves(rows, scores))),
        Section("calibration", "Calibration and thresholds", _calibration(folder, calibration)),
        Section("together", "Findings predicted together", _together(rows, scores, calibration)),
        Section("cases", "Best and worst cases", list(
            _cases(task, model, variables, split, scores))),
        Section("subgroups", "Subgroups", list(_subgroups(folder / "subgroups.csv"))),
        Section("stress", "Stress test", list(_stress(stress, folder))),
        Section("explanations", "Explanations", _explanations(explained, folder)),
        *about(workdir, task, _limits(rows, stress)),
    ])


def read_scores(path: pathlib.Path, classes: Sequence[str]) -> np.ndarray:
    """Reads the scores `[n, classes]` of `predictions/SPLIT.csv`."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        return np.array([[float(line[f"score_{c}"]) for c in classes] for line in lines])


def _read(path: pathlib.Path) -> dict | None:
    return json.loads(path.read_text()) if path.exists() else None


def _metric(entry: Mapping, name: str) -> Cell:
    value = entry.get(name)
    return Cell(faithfulness.cell(value, entry.get(f"{name}_interval")), value)


def _count(number: int) -> Cell:
    return Cell(f"{number:,}", number)


def _headline(metrics: Mapping, split: str) -> page.Headline:
    macro, counts = metrics["macro"], metrics["counts"]
    note = ("(no interval: too few patients for some classes)" if macro[AUROC.interval] is None
            else "[95 % interval over patients]")
    return page.Headline([
        (_metric(macro, AUROC.name).text, f"macro {AUROC.page}, {split} {note}"),
        (_metric(macro, AVERAGE_PRECISION.name).text, f"macro {AVERAGE_PRECISION.page}"),
        (f"{counts['images']:,}", f"images of {counts['patients']:,} patients"),
    ])


def _findings(metrics: Mapping) -> Iterable[Block]:
    heads = {m.name: m.page for m in METRICS if m.page}
    names = [name for name in heads if any(name in e for e in metrics["per_class"].values())]
    header = ["class", "n+", "n\u2212", *(heads[name] for name in names)]
    lines: list[list[str | Cell]] = [
        [name, _count(entry["n_positive"]), _count(entry["n_negative"]),
         *(_metric(entry, metric) for metric in names)]
        for name, entry in metrics["per_class"].items()
    ]
    lines.append(["macro mean", "", "", *(_metric(metrics["macro"], name) for name in names)])
    if metrics.get("classes_of_few"):  # not in reports of older versions
        yield page.Paragraph(metrics_table.few_note(metrics), warning=True)
    yield SortableTable(header, lines, "Click a heading to sort. F1, sensitivity and specificity "
                        "are at the shipped threshold; n/a where a class has one label value only.")
    notes = metrics["settings"].get("notes", {})
    yield page.Details("What the metrics mean", [
        SortableTable(("metric", "meaning"), list(notes.items())),
    ])


def _curves(rows: Manifest, scores: np.ndarray) -> Iterable[Block]:
    drawn = []
    for column, name in enumerate(rows.classes):
        found = ranking.roc_and_pr(rows.labels[:, column], scores[:, column], rows.patient_id)
        if found is None:
            continue
        share = float((rows.labels[:, column] == POSITIVE).sum() /
                      (rows.labels[:, column] >= 0).sum())
        title = name.replace("_", " ")
        drawn.append(page.Charts((
            page.unit_chart(title, found[0], ("false positive rate", "sensitivity"), (0, 1)),
            page.unit_chart(title, found[1], ("recall", "precision"), (share, share)),
        ), title))
    if drawn:
        yield page.Paragraph("Band: 95 % interval over patients. Dashed line: chance.")
        yield page.SideBySide(drawn)


def _calibration(folder: pathlib.Path, calibration: Calibration | None) -> list[Block]:
    found = pictures(folder, {
        "reliability.png": "Reliability: observed frequency over predicted probability, "
        "one panel per class",
    })
    if calibration is None:
        return found
    lines: list[list[str | Cell]] = [
        [entry.name, entry.method, Cell(f"{entry.threshold:.3f}", entry.threshold),
         Cell(f"{entry.prevalence:.3f}", entry.prevalence), _count(entry.positives),
         _count(entry.negatives), entry.note]
        for entry in calibration.classes
    ]
    header = ("class", "method", "threshold", "prevalence", "n+", "n\u2212", "note")
    return [SortableTable(header, lines, "Fitted on the validation split only."), *found]


def _together(
    rows: Manifest, scores: np.ndarray, calibration: Calibration | None
) -> list[Block]:
    """Shows the findings predicted on images of each finding: mistakes are off the diagonal."""
    if calibration is None:
        return []
    predicted = calibration.findings(calibration.from_scores(scores)) == POSITIVE
    lines: list[list[str | Cell]] = []
    for i, name in enumerate(rows.classes):
        present = rows.labels[:, i] == POSITIVE
        if present.any():
            shares = predicted[present].mean(0)
            lines.append([name, _count(int(present.sum())),
                          *(Cell(f"{share:.2f}", share, share) for share in shares)])
    return [SortableTable(
        ["present", "images", *(f"predicted {name}" for name in rows.classes)], lines,
        "Of the images with a finding (row), the share for which each finding (column) is "
        "predicted; images may have several.",
    )]


def _cases(task, model, variables, split: str, scores: np.ndarray) -> Iterable[Block]:
    source = task.source(split)
    rows = source.manifest
    groups = explanation.choose(rows.labels, scores, CASES)
    chosen = [case for group in groups.values() for case in group]
    if not chosen:
        return
    pixels = source.read(np.array([case.index for case in chosen]))["image"]
    inputs = jnp.asarray(task.inputs({"image": pixels})[0])
    black = np.asarray(task.inputs({"image": np.zeros_like(pixels[:1])})[0])
    explainer = saliency.Explainer(model, variables, float(black.ravel()[0]))
    method = explanation.method_for(explainer, inputs[:1])
    maps = explainer.maps(method, inputs, np.array([case.finding for case in chosen]))
    yield page.Paragraph(
        f"Heat maps: {method.replace('_', ' ')}, each with its own scale. They show what the "
        "score depends on, not where the finding is; `jaxcxr explain` measures how well they point "
        "at findings."
    )
    place = 0
    for name, group in groups.items():
        shown = []
        for case in group:
            finding = rows.classes[case.finding].replace("_", " ")
            before, after = explanation.pictures(pixels[place, ..., 0], maps[place])
            label = "present" if case.label == POSITIVE else "absent"
            shown.append(page.BeforeAfter(
                before, after, f"radiograph {rows.image_id[case.index]}",
                f"{finding}: {label}, score {case.score:.3f} ({rows.image_id[case.index]})",
            ))
            place += 1
        if shown:
            yield page.Subtitle(name[0].upper() + name[1:])
            yield page.SideBySide(shown)


def _subgroups(path: pathlib.Path) -> Iterable[Block]:
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        entries = list(csv.DictReader(file))
    names = {metric.name: metric.page for metric in subgroups.SHOWN}

    def table(keys: tuple[str, ...], chosen: list[dict], caption: str = "") -> SortableTable:
        lines = [[*(entry[key] for key in keys), _count(int(entry["images"])),
                  _count(int(entry["patients"])), *(_from_csv(entry, name) for name in names)]
                 for entry in chosen]
        return SortableTable((*keys, "images", "patients", *names.values()), lines, caption)

    yield table(
        ("attribute", "group"), [entry for entry in entries if entry["class"] == "all"],
        "gap: sensitivity at the shipped thresholds minus that of all other images.",
    )
    each = [entry for entry in entries if entry["class"] != "all"]
    if each:
        yield page.Details("By class", [table(("attribute", "group", "class"), each)])


def _from_csv(entry: Mapping[str, str], name: str) -> Cell:
    numbers = (entry.get(f"{name}{end}") for end in ("", "_interval_low", "_interval_high"))
    value, low, high = (float(number) if number else None for number in numbers)
    interval = None if low is None or high is None else (low, high)
    return Cell(faithfulness.cell(value, interval), value)


def _stress(stress: Mapping | None, folder: pathlib.Path) -> Iterable[Block]:
    if stress is None:
        yield not_run("stress")
        return
    for title, (header, *lines) in stress_xrays.sections(stress):
        yield page.Subtitle(title)
        yield SortableTable(header, lines)
    yield from pictures(folder, {
        "stress.png": f"Macro {AUROC.title} of parts of the image, of attributes alone, and under "
        "each corruption",
    })


def _explanations(explained: Mapping | None, folder: pathlib.Path) -> list[Block]:
    if explained is None:
        return [not_run("explain")]
    header, *lines = faithfulness.lines(explained)
    return [
        SortableTable(header, lines, faithfulness.heading(explained)),
        *pictures(folder, {
            "explanations.png": "Radiographs with boxes around findings, and the map of each "
            "method over them",
        }),
    ]


def _limits(rows: Manifest, stress: Mapping | None) -> list[str]:
    """States the limits of the data for the model card."""
    unknown = [n for i, n in enumerate(rows.classes) if not (rows.labels[:, i] >= 0).any()]
    few = [n for i, n in enumerate(rows.classes) if 0 < (rows.labels[:, i] == POSITIVE).sum() < 20]
    sources = sorted(set(rows.source) - {""})
    lines = [f"Evaluated only on images of {', '.join(sources) or 'an unnamed source'}; how the "
             "model does with other hospitals, scanners or populations is unknown."]
    if unknown:
        lines.append(f"No known label in the evaluated split: {', '.join(unknown)}.")
    if few:
        lines.append(f"Fewer than 20 positive images, so wide intervals: {', '.join(few)}.")
    if stress is None:
        lines.append("Not tested for shortcuts (`jaxcxr stress`).")
    return [*lines, *(stress or {}).get("warnings", ())]
