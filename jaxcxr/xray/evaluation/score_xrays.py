"""Scores the findings that any framework predicted in radiographs, from files."""

import pathlib
from collections.abc import Mapping

import numpy as np

import jaxcxr
from jaxcxr.errors import some
from jaxcxr.xray.evaluation import calibration_fit, metrics_table, scored_files, subgroups
from jaxcxr.xray.evaluation.calibration import Calibration


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
      labels, predictions: files as `scored_files.join` reads them.
      out: folder to write to.
      split_list: text file, one image per line; only these are scored.
      calibration: calibration.json, fitted on other images.
      groups: csv of attributes of the images, see `subgroups.read`.
      resamples, seed: of the bootstrap over patients.

    Returns:
      the tables, for the screen.

    Raises:
      UserError: a file does not hold what it must, or the folder cannot be written.
    """
    joined = scored_files.join(labels, predictions, split_list)
    fitted, attributes = None, {}
    if calibration:
        fitted = Calibration.load(calibration).select(joined.classes)
        calibration_fit.checked_scores(joined, predictions)
    if groups:
        attributes = subgroups.read(groups, joined.ids, labels)
    result = metrics_table.score(
        joined.labels, joined.scores, joined.classes, joined.patients, resamples, seed, fitted,
    )
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
        rows = _group_rows(joined, fitted, attributes, resamples, seed)
        lines.append(
            f"\n{subgroups.to_text(rows)}\n" if rows
            else f"{groups}: every attribute has one value only; there are no groups to compare"
        )
        written += subgroups.write(rows, out)
    lines += [*_remarks(joined, fitted), f"Written: {', '.join(map(str, written))}"]
    return "\n".join(lines)


def _group_rows(
    joined: scored_files.Joined, calibration: Calibration | None,
    attributes: Mapping[str, np.ndarray], resamples: int, seed: int,
) -> list[dict]:
    """The metrics of subgroups, as `subgroups.rows` has them."""
    found = None
    if calibration is not None:
        found = calibration.findings(calibration.from_scores(joined.scores))
    return subgroups.rows(
        joined.labels, joined.scores, joined.classes, joined.patients, attributes, found,
        resamples, seed,
    )


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
    if joined.ignored:
        remarks.append(f"{joined.ignored} predictions are of images that are not scored: ignored")
    return remarks
