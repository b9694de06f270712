"""Classification metrics per class with unknown labels: AUROC and average precision.

A class of which only one label value is known has neither; it is reported as n/a and named, and
the macro means name the classes they leave out.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from sklearn import metrics as sk

POSITIVE, NEGATIVE, UNKNOWN = 1, 0, -1


@dataclasses.dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class; `auroc` and `average_precision` are NaN where undefined."""

    name: str
    positives: int
    negatives: int
    unknown: int
    auroc: float
    average_precision: float

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

    @property
    def macro_auroc(self) -> float:
        """Unweighted mean AUROC over the defined classes, NaN if there is none."""
        return self._mean("auroc")

    @property
    def macro_ap(self) -> float:
        """Unweighted mean average precision over the defined classes, NaN if there is none."""
        return self._mean("average_precision")

    def scalars(self) -> dict[str, float]:
        """Numbers for a log, undefined ones left out.

        Returns:
          `auroc` and `average_precision` (macro means), `classes` and `classes_undefined`
          (counts), and `auroc/NAME` and `average_precision/NAME` per defined class.
        """
        result = {"classes": len(self.rows), "classes_undefined": len(self.undefined)}
        if len(self.undefined) < len(self.rows):
            result["auroc"] = self.macro_auroc
            result["average_precision"] = self.macro_ap
        for row in self.rows:
            if row.defined:
                result[f"auroc/{row.name}"] = row.auroc
                result[f"average_precision/{row.name}"] = row.average_precision
        return result

    def to_text(self) -> str:
        """The table as aligned plain text, followed by the classes left out, if any."""
        header = ("class", "positive", "negative", "unknown", "AUROC", "AP")
        lines = [header, *(self._cells(row) for row in self.rows)]
        used = len(self.rows) - len(self.undefined)
        title = f"macro mean ({used} of {len(self.rows)})"
        means = (_number(self.macro_auroc), _number(self.macro_ap))
        lines.append((title, "", "", "", *means))
        widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
        text = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        rule = "-" * max(map(len, text))
        text = [text[0], rule, *text[1:-1], rule, text[-1]]
        if self.undefined:
            text.append(f"not in the mean (one label value only): {', '.join(self.undefined)}")
        return "\n".join(text)

    def _mean(self, field: str) -> float:
        values = [getattr(row, field) for row in self.rows if row.defined]
        return float(np.mean(values)) if values else math.nan

    @staticmethod
    def _cells(row: ClassMetrics) -> tuple[str, ...]:
        counts = (f"{n:,}" for n in (row.positives, row.negatives, row.unknown))
        return (row.name, *counts, _number(row.auroc), _number(row.average_precision))


def evaluate(
    labels: np.ndarray, scores: np.ndarray, classes: Sequence[str]
) -> ClassificationMetrics:
    """AUROC and average precision per class over the examples whose label is known.

    AUROC counts tied pairs as one half (trapezoidal rule); average precision is
    sum_n (R_n - R_{n-1}) P_n without interpolation. Both are scikit-learn's.

    Arguments:
      labels: integers `[N, C]` in {1, 0, -1 unknown}.
      scores: `[N, C]`, larger is more positive; any monotone scale. Scores of unknown labels must
        be finite too.
      classes: the C names.

    Returns:
      the table; a class with one label value has NaN metrics, printed "n/a".

    Raises:
      ValueError: shapes that do not agree, labels of another value, scores that are not finite
        (the class and the first example are named).
    """
    labels, scores = _checked(labels, scores, classes)
    return ClassificationMetrics(tuple(
        _class_row(name, labels[:, i], scores[:, i]) for i, name in enumerate(classes)
    ))


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """AUROC of one class, labels and scores `[N]`; NaN with one label value only."""
    return _where_defined(sk.roc_auc_score, labels, scores)


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Average precision of one class, labels and scores `[N]`; NaN with one label value only."""
    return _where_defined(sk.average_precision_score, labels, scores)


def _where_defined(metric, labels: np.ndarray, scores: np.ndarray) -> float:
    if not ((labels == POSITIVE).any() and (labels == NEGATIVE).any()):
        return math.nan
    known = labels != UNKNOWN
    return float(metric(labels[known], scores[known]))


def _class_row(name: str, labels: np.ndarray, scores: np.ndarray) -> ClassMetrics:
    counts = (int((labels == value).sum()) for value in (POSITIVE, NEGATIVE, UNKNOWN))
    return ClassMetrics(
        name, *counts, auroc(labels, scores), average_precision(labels, scores)
    )


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


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.4f}"
