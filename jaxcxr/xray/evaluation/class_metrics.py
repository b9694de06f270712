"""Metrics of each finding on a split, as every validation logs them; labels may be unknown.

A class with one known label value has no metric: it is named, and the macro means leave it out.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxcxr.report import tables
from jaxcxr.statistics import NEGATIVE, POSITIVE, UNKNOWN
from jaxcxr.xray.evaluation.xray_metrics import METRICS

LOGGED = tuple(metric for metric in METRICS if metric.logged)


@dataclasses.dataclass(frozen=True)
class ClassMetrics:
    """Counts and metrics of one class; `values`: name in `LOGGED` -> value, NaN if undefined."""

    name: str
    positives: int
    negatives: int
    unknown: int
    values: Mapping[str, float]

    @property
    def defined(self) -> bool:
        """Whether both label values are present."""
        return self.positives > 0 and self.negatives > 0


@dataclasses.dataclass(frozen=True)
class ClassificationMetrics:
    """Metrics of all classes, in the order given."""

    rows: tuple[ClassMetrics, ...]

    @property
    def undefined(self) -> tuple[str, ...]:
        """Names of the classes with one label value only: the macro means leave them out."""
        return tuple(row.name for row in self.rows if not row.defined)

    def macro(self, name: str) -> float:
        """Unweighted mean of a metric over the defined classes, NaN if there is none."""
        values = [row.values[name] for row in self.rows if row.defined]
        return float(np.mean(values)) if values else math.nan

    def scalars(self) -> dict[str, float]:
        """Numbers for a log, undefined ones left out.

        Returns:
          `NAME` of each metric in `LOGGED` (macro mean), `classes` and `classes_undefined`
          (counts), and `NAME/CLASS` per defined class.
        """
        result: dict[str, float] = {
            "classes": len(self.rows), "classes_undefined": len(self.undefined),
        }
        if len(self.undefined) < len(self.rows):
            result |= {metric.name: self.macro(metric.name) for metric in LOGGED}
        for row in self.rows:
            if row.defined:
                result |= {f"{metric}/{row.name}": value for metric, value in row.values.items()}
        return result

    def to_text(self) -> str:
        """The metrics as an aligned table, followed by the classes left out, if any."""
        used = len(self.rows) - len(self.undefined)
        means = {metric.name: self.macro(metric.name) for metric in LOGGED}
        text = tables.aligned([
            ("class", "positive", "negative", "unknown", *(metric.title for metric in LOGGED)),
            *((row.name, f"{row.positives:,}", f"{row.negatives:,}", f"{row.unknown:,}",
               *_cells(row.values)) for row in self.rows),
            (f"macro mean ({used} of {len(self.rows)})", "", "", "", *_cells(means)),
        ])
        rule = "-" * max(map(len, text))
        text = [text[0], rule, *text[1:-1], rule, text[-1]]
        if self.undefined:
            text.append(f"not in the mean (one label value only): {', '.join(self.undefined)}")
        return "\n".join(text)


def evaluate(
    labels: np.ndarray, scores: np.ndarray, classes: Sequence[str]
) -> ClassificationMetrics:
    """Computes the metrics of each class over the examples whose label is known.

    Arguments:
      labels: integers `[N, C]` in {1, 0, -1 unknown}.
      scores: `[N, C]`, larger is more positive; any monotone scale. Scores of unknown labels must
        be finite too.
      classes: the C names.

    Raises:
      ValueError: shapes that do not agree, labels of another value, scores that are not finite
        (the class and the first example are named).
    """
    labels, scores = _checked(labels, scores, classes)
    return ClassificationMetrics(tuple(
        _class_metrics(name, labels[:, i], scores[:, i]) for i, name in enumerate(classes)
    ))


def _class_metrics(name: str, labels: np.ndarray, scores: np.ndarray) -> ClassMetrics:
    positives, negatives, unknown = (
        int((labels == value).sum()) for value in (POSITIVE, NEGATIVE, UNKNOWN)
    )
    values = {metric.name: metric.value(labels, scores) for metric in LOGGED}
    return ClassMetrics(name, positives, negatives, unknown, values)


def _cells(values: Mapping[str, float]) -> list[str]:
    return [tables.number(value, ".4f") for value in values.values()]


def _checked(
    labels: np.ndarray, scores: np.ndarray, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    if labels.ndim != 2 or labels.shape != scores.shape or labels.shape[1] != len(classes):
        raise ValueError(
            f"labels {list(labels.shape)} and scores {list(scores.shape)} must both be "
            f"[examples, {len(classes)}]: one column per class"
        )
    allowed = np.isin(labels, (POSITIVE, NEGATIVE, UNKNOWN))
    if not allowed.all():
        row, column = np.argwhere(~allowed)[0]
        raise ValueError(
            f"label {labels[row, column]} of example {row}, class {classes[column]}: "
            "labels must be 1, 0 or -1 (unknown)"
        )
    finite = np.isfinite(scores)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise ValueError(
            f"{(~finite).sum()} scores are not finite, the first is {scores[row, column]} for "
            f"example {row}, class {classes[column]}: the model has diverged or its input is bad"
        )
    return labels.astype(np.int8), scores
