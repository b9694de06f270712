"""Whether a stated uncertainty is the uncertainty: of intervals, and of probabilities."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats
from sklearn import isotonic

LEVELS = (0.5, 0.9, 0.95)
BINS = 10


def coverage(
    error: np.ndarray, sigma: np.ndarray, levels: Sequence[float] = LEVELS
) -> dict[float, float]:
    """Share of errors within the central intervals of normal distributions.

    Arguments:
      error: `[...]`, predicted minus true.
      sigma: standard deviations, positive, in the same unit; broadcast to `error`.
      levels: probabilities of the intervals.

    Returns:
      Level -> share of the errors within mean +- z(level) sigma; a calibrated model has shares
      equal to the levels, a model too sure of itself smaller ones.

    Raises:
      ValueError: there is no error, or a sigma is not positive.
    """
    error, sigma = np.broadcast_arrays(np.asarray(error), np.asarray(sigma))
    if not error.size or not (sigma > 0).all():
        raise ValueError("coverage needs errors, and standard deviations above 0")
    away = np.abs(error) / sigma
    return {level: float((away <= stats.norm.ppf((1 + level) / 2)).mean()) for level in levels}


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Probabilities in bins of equal mass, lowest first; bins that ties leave empty are absent.

    Attributes:
      count: examples in each bin, `[bins]`.
      predicted: mean probability in each, `[bins]`.
      observed: share of positives in each, `[bins]`.
    """

    count: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error, mean of |predicted - observed| over examples; NaN of none.

        With few examples it is above 0 for perfect probabilities too.
        """
        if not len(self.count):
            return math.nan
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.count))

    def intervals(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Wilson's intervals (low `[bins]`, high `[bins]`) of the observed shares."""
        found = [
            stats.binomtest(round(share * n), int(n)).proportion_ci(level, "wilson")
            for share, n in zip(self.observed, self.count, strict=True)
        ]
        return np.array([ends.low for ends in found]), np.array([ends.high for ends in found])


def reliability(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> Reliability:
    """Probabilities beside how often they came true.

    Arguments:
      labels: `[n]` of 1 and 0.
      probabilities: `[n]`.
      bins: number of bins; their edges are quantiles of the probabilities, so that each holds as
        many examples as ties allow.

    Source: Nixon et al., "Measuring calibration in deep learning", 2019 (bins of equal mass).
    """
    labels, values = np.asarray(labels, np.float64), np.asarray(probabilities, np.float64)
    if not len(values):
        return Reliability(*(np.zeros(0),) * 3)
    edges = np.quantile(values, np.linspace(0, 1, bins + 1))
    place = np.searchsorted(edges[1:-1], values)
    count = np.bincount(place, minlength=bins)
    kept = count > 0
    predicted, observed = (
        np.bincount(place, weights, bins)[kept] / count[kept] for weights in (values, labels)
    )
    return Reliability(count[kept], predicted, observed)


def brier_parts(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Brier score = miscalibration - discrimination + uncertainty.

    The parts come from the isotonic recalibration of the probabilities to the very labels, hence
    from no choice of bins.

    Arguments:
      labels: `[n]` of 1 and 0, at least one.
      probabilities: `[n]`.

    Returns:
      `brier`, `miscalibration` (0: isotonic recalibration gains nothing), `discrimination` (0: no
      better than one probability for all), `uncertainty` (of the labels alone).

    Source: Dimitriadis et al., "Stable reliability diagrams for probabilistic classifiers", 2021.
    """
    labels, values = np.asarray(labels, np.float64), np.asarray(probabilities, np.float64)
    best = isotonic.IsotonicRegression().fit_transform(values, labels)

    def brier(forecast) -> float:
        return float(((forecast - labels) ** 2).mean())

    total, recalibrated, uncertainty = brier(values), brier(best), brier(labels.mean())
    return {
        "brier": total, "miscalibration": total - recalibrated,
        "discrimination": uncertainty - recalibrated, "uncertainty": uncertainty,
    }
