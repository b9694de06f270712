"""Writes the results of a run, or of predictions in files: metrics with intervals, subgroups."""

import pathlib
from collections.abc import Mapping

import numpy as np

import jaxcxr
from jaxcxr.errors import some
from jaxcxr.report import tables
from jaxcxr.report.canvas import save
from jaxcxr.statistics import UNKNOWN
from jaxcxr.xray.evaluation import calibration_fit, metrics_table, scored_files, subgroups
from jaxcxr.xray.evaluation.calibration import NAME, Calibration
from jaxcxr.xray.images.manifest import Manifest
from jaxcxr.xray.report import xray_figures


def write_calibration(
    rows: Manifest, scores: np.ndarray, settings, about: Mapping, workdir: pathlib.Path
) -> None:
    """Fits and writes `calibration.json`, and writes the predictions that it was fitted on.

    `scores` `[n, classes]` are sigmoids of the model's outputs, `about` more facts to keep.
    """
    calibration = calibration_fit.fit_split(rows, scores, settings, about)
    write_scores(rows, scores, workdir / "predictions" / "validation.csv")
    calibration.save(workdir / NAME)


def write_metrics(rows: Manifest, scores: np.ndarray, workdir: pathlib.Path) -> str:
    """Writes `report/metrics.*`, `reliability.png` and `subgroups.*`; returns tables to show.

    Where the workdir has a `calibration.json`, they include the metrics at its thresholds.
    """
    folder, path = workdir / "report", workdir / NAME
    calibration = Calibration.load(path).select(rows.classes) if path.exists() else None
    of = rows.labels, scores, rows.classes, rows.patient_id
    result = metrics_table.score(*of, calibration=calibration)
    metrics_table.write(result, folder)
    probabilities = None if calibration is None else calibration.from_scores(scores)
    figure = xray_figures.reliability_figure(rows.labels, scores, rows.classes, probabilities)
    save(figure, folder / "reliability.png")
    attributes = {
        "sex": rows.sex, "age": subgroups.age_bands(rows.age), "view": rows.view,
        "source": rows.source,
    }
    groups = subgroups.rows(*of, attributes, _found(calibration, scores))
    subgroups.write(groups, folder)
    parts = [metrics_table.to_text(result, brief=True), subgroups.to_text(groups, brief=True)]
    if calibration is not None:
        parts += calibration_fit.remarks(calibration)
    return "\n".join(filter(None, parts))


def _found(calibration: Calibration | None, scores: np.ndarray) -> np.ndarray | None:
    return None if calibration is None else calibration.findings(calibration.from_scores(scores))


def write_scores(rows: Manifest, scores: np.ndarray, path: pathlib.Path) -> None:
    """Writes `predictions/SPLIT.csv`, whole or not at all: an existing file is complete."""
    path.parent.mkdir(exist_ok=True)
    header = ("image_id", "patient_id", *(f"label_{c}" for c in rows.classes),
              *(f"score_{c}" for c in rows.classes))
    tables.write_csv(path, header, (
        (rows.image_id[i], rows.patient_id[i],
         *("" if label == UNKNOWN else int(label) for label in rows.labels[i]),
         *(f"{score:.6g}" for score in scores[i]))
        for i in range(len(rows))
    ))


def score_files(
    labels: str,
    predictions: str,
    out: pathlib.Path,
    *,
    split_list: str | None = None,
    calibration: str | None = None,
    groups: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> str:
    """Scores predictions and writes metrics.json, .csv and .md, with groups also subgroups.*.

    Arguments:
      labels, predictions, split_list: files as `scored_files.join` reads them.
      out: folder to write to.
      calibration: calibration.json, fitted on other images.
      groups: csv of attributes of the images, see `subgroups.read`.
      resamples, seed: of the bootstrap over patients.

    Returns:
      The tables for the screen.

    Raises:
      UserError: a file is not as it must be, or the folder cannot be written.
    """
    joined = scored_files.join(labels, predictions, split_list)
    fitted, attributes = None, {}
    if calibration:
        fitted = Calibration.load(calibration).select(joined.classes)
        calibration_fit.checked_scores(joined, predictions)
    if groups:
        attributes = subgroups.read(groups, joined.ids, labels)
    of = joined.labels, joined.scores, joined.classes, joined.patients
    result = metrics_table.score(*of, resamples, seed, fitted)
    result["counts"] |= {
        "predictions_ignored": joined.ignored, "listed_without_labels": len(joined.unlabelled),
    }
    result["classes"] = {
        "scored": joined.classes,
        "labels_without_predictions": joined.labels_only,
        "predictions_without_labels": joined.predictions_only,
    }
    result |= {"inputs": joined.inputs, "jaxcxr_version": jaxcxr.__version__}
    metrics_table.write(result, out)
    lines, written = [metrics_table.to_text(result)], [
        out / f"metrics.{ending}" for ending in ("json", "csv", "md")
    ]
    if attributes:
        rows = subgroups.rows(*of, attributes, _found(fitted, joined.scores), resamples, seed)
        lines.append(
            f"\n{subgroups.to_text(rows)}\n" if rows
            else f"{groups}: every attribute has one value only; there are no groups to compare"
        )
        written += subgroups.write(rows, out)
    lines += [*_remarks(joined, fitted), f"Written: {', '.join(map(str, written))}"]
    return "\n".join(lines)


def _remarks(joined: scored_files.Joined, calibration: Calibration | None) -> list[str]:
    if calibration is None:
        remarks = ["F1max and its threshold are fitted on these very images, and so optimistic."]
    else:
        remarks = calibration_fit.remarks(calibration)
    if joined.patients is None:
        remarks.append(
            "The labels name no patients: each image counts as its own, and the intervals are too "
            "narrow if some show the same patient."
        )
    for names, fact in (
        (joined.labels_only, "classes of the labels have no prediction and are left out"),
        (joined.predictions_only, "classes of the predictions have no labels and are left out"),
        (joined.unlabelled, "images of the split list have no label and are left out"),
    ):
        if names:
            remarks.append(f"{len(names)} {fact}: {some(names)}")
    if joined.by_name:
        remarks.append(
            f"{joined.by_name} of {len(joined.ids)} images match by file name only, as one of the "
            "files names no folders."
        )
    if joined.ignored:
        remarks.append(f"{joined.ignored} predictions are of images that are not scored: ignored")
    return remarks
