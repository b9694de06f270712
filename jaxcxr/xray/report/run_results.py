"""Writes the results of a chest X-ray run: predictions, calibration, metrics with intervals."""

import csv
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from jaxcxr.report.canvas import save
from jaxcxr.statistics import UNKNOWN
from jaxcxr.xray.evaluation import calibration_fit, metrics_table, subgroups
from jaxcxr.xray.evaluation.calibration import NAME, Calibration
from jaxcxr.xray.images.manifest import Manifest
from jaxcxr.xray.report import xray_figures


def write_calibration(
    rows: Manifest, scores: np.ndarray, settings, about: Mapping, workdir: pathlib.Path
) -> Calibration:
    """Fits and writes `calibration.json`, and writes the predictions that it was fitted on.

    Arguments:
      rows: of the validation split.
      scores: `[n, classes]`, sigmoids of the model's outputs.
      settings: `config.calibration`.
      about: more facts to keep.
      workdir: folder of the run.
    """
    calibration = calibration_fit.fit(
        rows.labels, scores, rows.classes, settings.method, settings.threshold, settings.target,
        {"fitted_on": "validation", "patients": len(np.unique(rows.patient_id)), **about},
    )
    write_scores(rows, scores, workdir / "predictions" / "validation.csv")
    calibration.save(workdir / NAME)
    return calibration


def write_metrics(rows: Manifest, scores: np.ndarray, workdir: pathlib.Path) -> str:
    """Writes `report/metrics.*`, `reliability.png`, `subgroups.csv` and `subgroups.md`.

    Where the workdir has a `calibration.json`, they include the metrics at its thresholds.

    Arguments:
      rows: of the evaluated split.
      scores: `[n, classes]`, sigmoids of the model's outputs.
      workdir: folder of the run.

    Returns:
      The tables for the screen.
    """
    folder, path = workdir / "report", workdir / NAME
    calibration = Calibration.load(path).select(rows.classes) if path.exists() else None
    result = metrics_table.score(
        rows.labels, scores, rows.classes, rows.patient_id, calibration=calibration
    )
    metrics_table.write(result, folder)
    found, probabilities = None, None
    if calibration is not None:
        probabilities = calibration.from_scores(scores)
        found = calibration.findings(probabilities)
    figure = xray_figures.reliability_figure(rows.labels, scores, rows.classes, probabilities)
    save(figure, folder / "reliability.png")
    groups = subgroups.rows(
        rows.labels, scores, rows.classes, rows.patient_id, attributes(rows), found
    )
    subgroups.write(groups, folder)
    parts = [metrics_table.to_text(result, brief=True), subgroups.to_text(groups, brief=True)]
    if calibration is not None:
        parts += calibration_fit.remarks(calibration)
    return "\n".join(filter(None, parts))


def attributes(rows: Manifest) -> dict[str, np.ndarray]:
    """Collects sex, age band, view and source of each image for `subgroups.rows`."""
    return {
        "sex": rows.sex, "age": subgroups.age_bands(rows.age), "view": rows.view,
        "source": rows.source,
    }


def write_scores(rows: Manifest, scores: np.ndarray, path: pathlib.Path) -> None:
    """Writes `predictions/SPLIT.csv`, whole or not at all: an existing file is complete."""
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_columns(rows.classes))
        for i in range(len(rows)):
            labels = ("" if label == UNKNOWN else int(label) for label in rows.labels[i])
            writer.writerow((rows.image_id[i], rows.patient_id[i], *labels,
                             *(f"{score:.6g}" for score in scores[i])))
    partial.replace(path)


def _columns(classes: Sequence[str]) -> tuple[str, ...]:
    return ("image_id", "patient_id", *(f"label_{c}" for c in classes),
            *(f"score_{c}" for c in classes))
