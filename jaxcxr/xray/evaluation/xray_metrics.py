"""Records of the metrics of findings, and the values of a split that every validation logs.

A record is all that a column takes: `metrics_table`, `subgroups`, `compare_xrays` and the report
page go by `METRICS`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcxr.report import tables
from jaxcxr.report.tables import Metric
from jaxcxr.statistics import (
    NEGATIVE,
    POSITIVE,
    UNKNOWN,
    association,
    intervals,
    operating,
    ranking,
    reliability,
)

# What a measure takes: `ranking.Counts`, `operating.Sums`, or (labels, probabilities, scores) of
# the examples of one class whose label is known, `[n]` each.
RANKING, RATES, PROBABILITIES = "ranking", "rates", "probabilities"


@dataclasses.dataclass(frozen=True, kw_only=True)
class XrayMetric(Metric):
    """Describes a metric of one finding.

    Attributes:
      basis: `RANKING`, `RATES` or `PROBABILITIES`; the last have no interval.
      measure: computes it from its basis; NaN where undefined.
      whole: (labels, scores) of a class -> value in the full set; None: by `measure`.
      analytic: (labels, scores) of a class -> an interval beside that of the bootstrap.
      calibrated: whether it takes a calibration, that is shipped thresholds.
      uncalibrated: whether tables show it only without a calibration.
      groups: whether it is reported for subgroups: "", "full", or "brief" for short tables too.
      compared: whether models are compared by it.
      logged: whether every validation logs it.
    """

    basis: str
    measure: Callable[..., Any]
    whole: Callable[[np.ndarray, np.ndarray], float] | None = None
    analytic: Callable[[np.ndarray, np.ndarray], Sequence[float]] | None = None
    calibrated: bool = False
    uncalibrated: bool = False
    groups: str = ""
    compared: bool = False
    logged: bool = False

    @property
    def bootstrap(self) -> str:
        """Key of the interval of the bootstrap."""
        return f"{self.interval}_bootstrap" if self.analytic else self.interval

    def value(self, labels: np.ndarray, scores: np.ndarray) -> float:
        """Computes a metric of `RANKING` in the full set: labels and scores `[N]` of a class."""
        if self.whole is not None:
            return self.whole(labels, scores)
        return ranking.measure(labels, scores, self.measure)


_ONE_VALUE = "one label value only"
_NONE_KNOWN = "no known label"
_rate = functools.partial(XrayMetric, basis=RATES, calibrated=True)
_part = functools.partial(
    XrayMetric, basis=PROBABILITIES, undefined=_NONE_KNOWN, macro=False, span=False
)

METRICS = (
    XrayMetric(
        name="auroc", title="AUROC", brief="AUROC", page="AUROC", brief_span=True,
        basis=RANKING, measure=ranking.auroc, whole=association.auroc,
        analytic=lambda labels, scores: intervals.delong(labels, scores).interval,
        groups="brief", compared=True, logged=True, undefined=_ONE_VALUE,
    ),
    XrayMetric(
        name="average_precision", title="AP", brief="AP", page="AP", brief_span=True,
        basis=RANKING, measure=ranking.average_precision, whole=association.average_precision,
        compared=True, logged=True, undefined=_ONE_VALUE,
    ),
    _rate(
        name="f1", title="F1", brief="F1", page="F1", brief_span=True, measure=operating.f1,
        compared=True, undefined="no positive",
    ),
    _rate(
        name="sensitivity", title="sens", brief="sens.", page="sensitivity",
        measure=operating.sensitivity, groups="full", undefined="no positive",
    ),
    _rate(
        name="specificity", title="spec", brief="spec.", page="specificity",
        measure=operating.specificity, undefined="no negative",
    ),
    XrayMetric(
        name="sensitivity_at_specificity", title=f"sens@sp{100 * ranking.SPECIFICITY:.0f}",
        page=f"sensitivity at spec. {ranking.SPECIFICITY}", basis=RANKING,
        measure=ranking.sensitivity_at_specificity, undefined=_ONE_VALUE,
    ),
    XrayMetric(
        name="f1_max", title="F1max", basis=RANKING, measure=ranking.best_f1, uncalibrated=True,
        undefined=_ONE_VALUE,
    ),
    XrayMetric(
        name="threshold", title="threshold", basis=RANKING, measure=ranking.best_threshold,
        uncalibrated=True, form=".4g", span=False, macro=False, higher=None, undefined=_ONE_VALUE,
    ),
    _rate(name="ppv", measure=operating.ppv, macro=False, undefined="nothing predicted positive"),
    _rate(name="npv", measure=operating.npv, macro=False, undefined="nothing predicted negative"),
    XrayMetric(
        name="brier", title="Brier", brief="Brier", page="Brier", basis=RATES,
        measure=operating.brier, higher=False, compared=True, undefined=_NONE_KNOWN,
    ),
    _part(
        name="ece", title="ECE", brief="ECE", page="ECE", higher=False,
        measure=lambda labels, probabilities, _: reliability.reliability(labels, probabilities).ece,
    ),
    _part(
        name="ece_uncalibrated", higher=False, calibrated=True,
        measure=lambda labels, _, scores: reliability.reliability(labels, scores).ece,
    ),
    _part(
        name="brier_miscalibration", higher=False,
        measure=lambda labels, probabilities, _:
            reliability.brier_parts(labels, probabilities)["miscalibration"],
    ),
    _part(
        name="brier_discrimination",
        measure=lambda labels, probabilities, _:
            reliability.brier_parts(labels, probabilities)["discrimination"],
    ),
)

AUROC, AVERAGE_PRECISION = METRICS[:2]


def of_basis(basis: str, calibrated: bool = True) -> tuple[XrayMetric, ...]:
    """Lists the metrics of a basis; without a calibration those that need none."""
    return tuple(m for m in METRICS if m.basis == basis and (calibrated or not m.calibrated))


LOGGED = tuple(metric for metric in METRICS if metric.logged)


@dataclasses.dataclass(frozen=True)
class ClassMetrics:
    """Holds counts and metrics of one class: name -> value, NaN if undefined."""

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
    """Holds the metrics of all classes, in the order given."""

    rows: tuple[ClassMetrics, ...]

    @property
    def used(self) -> list[int]:
        """Indices of the defined classes, of which means are."""
        return [i for i, row in enumerate(self.rows) if row.defined]

    @property
    def undefined(self) -> tuple[str, ...]:
        """Names of the classes with one label value only: the macro means leave them out."""
        return tuple(row.name for row in self.rows if not row.defined)

    def macro(self, name: str) -> float:
        """Averages a metric over the defined classes, NaN if there is none."""
        values = [row.values[name] for row in self.rows if row.defined]
        return float(np.mean(values)) if values else math.nan

    def scalars(self) -> dict[str, float]:
        """Makes numbers for a log, undefined ones left out: macro means, counts, `NAME/CLASS`."""
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
        """Formats the metrics as an aligned table, followed by the classes left out, if any."""
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
    labels: np.ndarray, scores: np.ndarray, classes: Sequence[str],
    metrics: Sequence[XrayMetric] = LOGGED,
) -> ClassificationMetrics:
    """Computes the metrics of each class over the examples whose label is known.

    Arguments:
      labels: integers `[N, C]` in {1, 0, -1 unknown}.
      scores: `[N, C]`, finite, larger is more positive; any monotone scale.
      classes: the C names.
      metrics: of `RANKING`, those to compute.

    Raises:
      ValueError: shapes that do not agree, labels of another value, scores that are not finite.
    """
    labels, scores = _checked(labels, scores, classes)
    return ClassificationMetrics(tuple(
        _class_metrics(name, labels[:, i], scores[:, i], metrics) for i, name in enumerate(classes)
    ))


def _class_metrics(name: str, labels: np.ndarray, scores: np.ndarray, metrics) -> ClassMetrics:
    positives, negatives, unknown = (
        int((labels == value).sum()) for value in (POSITIVE, NEGATIVE, UNKNOWN)
    )
    values = {metric.name: metric.value(labels, scores) for metric in metrics}
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
