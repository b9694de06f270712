"""Fits `calibration.json`: probabilities and thresholds of each class, on validation images."""

import math
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy
import sklearn

import jaxcxr
from jaxcxr.errors import UserError
from jaxcxr.report import tables
from jaxcxr.statistics import NEGATIVE, POSITIVE, UNKNOWN, reliability
from jaxcxr.xray.evaluation import scored_files
from jaxcxr.xray.evaluation.calibration import METHODS, Calibration, ClassCalibration, logit

# Positives, and negatives, that a fit needs: ten for each number fitted (Peduzzi et al., "A
# simulation study of the number of events per variable in logistic regression", 1996). An isotonic
# fit has as many numbers as the data want.
LEAST = {"identity": 0, "temperature": 10, "platt": 20, "isotonic": 100}
LEAST_FOR_THRESHOLD = 10
# Of a class with too few labels to choose one.
PLAIN_THRESHOLD = 0.5


def fit(
    labels: np.ndarray,
    scores: np.ndarray,
    classes: Sequence[str],
    method: str = "platt",
    rule: str = "f1",
    target: float = 0.9,
    about: Mapping[str, Any] | None = None,
) -> Calibration:
    """Fits a calibration on examples, which should be of the validation split.

    A class with fewer positives or negatives than `LEAST` says falls back to "identity", one with
    fewer than `LEAST_FOR_THRESHOLD` to a threshold of 0.5; its note says so.

    Arguments:
      labels: integers `[N, C]` in {1, 0, -1 unknown}.
      scores: `[N, C]` in [0, 1].
      classes: the C names.
      method: of `calibration.METHODS`.
      rule: of `reliability.THRESHOLD_RULES`, for the threshold that is shipped.
      target: of the rules "sensitivity" and "specificity".
      about: more facts to keep, such as the step of the checkpoint.
    """
    labels, logits = np.asarray(labels), logit(scores)
    entries = tuple(
        _fit_class(name, labels[:, i], logits[:, i], method, rule, target)
        for i, name in enumerate(classes)
    )
    return Calibration(entries, {
        "images": len(labels), "method": method, "threshold": rule, "target": target,
        "least_of_each_label": LEAST[method],
        "versions": {
            "jaxcxr": jaxcxr.__version__, "scikit-learn": sklearn.__version__,
            "scipy": scipy.__version__, "numpy": np.__version__,
            "python": platform.python_version(),
        },
        **(about or {}),
    })


def fit_split(rows: Any, scores: np.ndarray, settings: Any, about: Mapping) -> Calibration:
    """Fits a calibration on the validation split of a run, by its `config.calibration`."""
    return fit(
        rows.labels, scores, rows.classes, settings.method, settings.threshold, settings.target,
        {"fitted_on": "validation", "patients": len(np.unique(rows.patient_id)), **about},
    )


def _fit_class(name, labels, logits, method: str, rule: str, target: float) -> ClassCalibration:
    known = labels != UNKNOWN
    positives, negatives = (int((labels == value).sum()) for value in (POSITIVE, NEGATIVE))
    y, z, fewest = labels[known], logits[known], min(positives, negatives)
    notes, used = [], method
    if fewest < LEAST[method]:
        used = "identity"
        notes.append(f"not calibrated, which takes {LEAST[method]} positives and negatives")
    entry = ClassCalibration(
        name=name, method=used, parameters=_parameters(used, y, z), threshold=PLAIN_THRESHOLD,
        thresholds={}, prevalence=positives / len(y) if len(y) else math.nan,
        positives=positives, negatives=negatives, unknown=int((~known).sum()),
        fallback=used != method,
    )
    thresholds = {}
    if fewest >= LEAST_FOR_THRESHOLD:
        probabilities = entry.probabilities(z)
        thresholds = {
            one: reliability.threshold(y, probabilities, one, target)
            for one in reliability.THRESHOLD_RULES
        }
    else:
        notes.append(
            f"threshold left at {PLAIN_THRESHOLD}: choosing one takes {LEAST_FOR_THRESHOLD} "
            "positives and negatives"
        )
    if entry.parameters.get("slope") == reliability.LEAST_SLOPE:
        notes.append("scores rank the validation labels no better than chance")
    return ClassCalibration(**{
        **vars(entry), "threshold": thresholds.get(rule, PLAIN_THRESHOLD),
        "thresholds": thresholds, "note": "; ".join(notes),
    })


def _parameters(method: str, labels: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
    if method == "identity":
        return {}
    values = getattr(reliability, method)(labels, logits)
    if method == "temperature":
        values = (values,)
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in zip(METHODS[method], values, strict=True)
    }


def fit_files(
    labels: str | pathlib.Path,
    predictions: str | pathlib.Path,
    split_list: str | None = None,
    method: str = "platt",
    rule: str = "f1",
    target: float = 0.9,
) -> Calibration:
    """Fits a calibration on predictions of any framework, from files for `scored_files.join`.

    Raises:
      UserError: a file is not as it must be, or a score is no probability.
    """
    joined = scored_files.join(labels, predictions, split_list)
    return fit(
        joined.labels, checked_scores(joined, predictions), joined.classes, method, rule, target,
        {"fitted_on": "files", "inputs": joined.inputs},
    )


def checked_scores(joined: scored_files.Joined, path: str | pathlib.Path) -> np.ndarray:
    """Returns the scores; a UserError names the image and class of one that is not in [0, 1]."""
    wrong = np.argwhere((joined.scores < 0) | (joined.scores > 1))
    if len(wrong):
        row, column = wrong[0]
        raise UserError(
            f"{path}: the score of {joined.ids[row]} for {joined.classes[column]} is "
            f"{joined.scores[row, column]:g}, and {len(wrong) - 1} more are outside [0, 1]; give "
            "what the model's sigmoid makes of them"
        )
    return joined.scores


def to_text(calibration: Calibration) -> str:
    """Formats a line for each class, and its notes."""
    lines = [("class", "n+", "n-", "prevalence", "target", "method", "parameters", "threshold")]
    for entry in calibration.classes:
        values = [
            f"{len(v)} steps" if isinstance(v, list) else f"{v:.3f}"
            for v in entry.parameters.values()
        ][:2]
        if entry.method == "isotonic":
            values = values[:1]
        target = entry.target_prevalence
        lines.append((
            entry.name, f"{entry.positives:,}", f"{entry.negatives:,}",
            "n/a" if math.isnan(entry.prevalence) else f"{entry.prevalence:.4f}",
            "" if target is None else f"{target:.4f}", entry.method, ", ".join(values),
            f"{entry.threshold:.4f}",
        ))
    return "\n".join([*tables.aligned(lines), *remarks(calibration)])


def remarks(calibration: Calibration) -> list[str]:
    """Lists the notes of the classes, each once, with the names of its classes."""
    names: dict[str, list[str]] = {}
    for entry in calibration.classes:
        for note in filter(None, entry.note.split("; ")):
            names.setdefault(note, []).append(entry.name)
    return [f"{note}: {', '.join(of)}" for note, of in names.items()]
