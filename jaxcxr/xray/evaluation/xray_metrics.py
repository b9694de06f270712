"""The metrics of findings: a record for each is all that a column takes.

`METRICS` is what `metrics_table`, `subgroups`, `compare_xrays` and the report page go by.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxcxr.report.tables import Metric
from jaxcxr.statistics import association, intervals, operating, ranking, reliability

# What a measure takes: `ranking.Counts`, `operating.Sums`, or (labels, probabilities, scores) of
# the examples of one class whose label is known, `[n]` each.
RANKING, RATES, PROBABILITIES = "ranking", "rates", "probabilities"


@dataclasses.dataclass(frozen=True, kw_only=True)
class XrayMetric(Metric):
    """A metric of one finding.

    Attributes:
      basis: `RANKING`, `RATES` or `PROBABILITIES`; the last have no interval.
      measure: computes it from what the basis says; NaN where undefined.
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
        """In the full set, of a metric of `RANKING`: labels and scores `[N]` of a class."""
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


def of_basis(basis: str, calibrated: bool = True) -> tuple[XrayMetric, ...]:
    """The metrics of a basis; without a calibration those that need none."""
    return tuple(m for m in METRICS if m.basis == basis and (calibrated or not m.calibrated))
