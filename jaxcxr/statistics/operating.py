"""Rates at given thresholds, and the Brier score, with resamples of whole patients.

All are ratios of sums over images, so that resamples need the sums of each patient alone.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from jaxcxr.statistics import NEGATIVE, POSITIVE, intervals
from jaxcxr.statistics.intervals import ratio


def terms(labels: np.ndarray, probabilities: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Computes each image's terms of the sums of `rates`.

    Arguments:
      found: bool `[N, C]`, the findings said.

    Returns:
      float64 `[N, C, 5]`: true and false positives, false and true negatives, and the squared
      difference of probability and label.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    found = np.asarray(found, bool)
    positive, negative = labels == POSITIVE, labels == NEGATIVE
    squared = np.where(positive | negative, (probabilities - labels) ** 2, 0.0)
    parts = [found & positive, found & negative, ~found & positive, ~found & negative, squared]
    return np.stack([part.astype(np.float64) for part in parts], axis=-1)


@dataclasses.dataclass(frozen=True, eq=False)
class Sums:
    """`terms` summed over images, `[...]` each: all that a rate is computed from.

    Attributes:
      true, false: found, rightly and wrongly.
      missed, right: not found, wrongly and rightly.
      squared: squared differences of probability and label.
    """

    true: np.ndarray
    false: np.ndarray
    missed: np.ndarray
    right: np.ndarray
    squared: np.ndarray

    @property
    def positives(self) -> np.ndarray:
        """Positive labels."""
        return self.true + self.missed

    @property
    def negatives(self) -> np.ndarray:
        """Negative labels."""
        return self.false + self.right


Rate = Callable[[Sums], np.ndarray]


def f1(sums: Sums) -> np.ndarray:
    """Computes F1; NaN without a positive."""
    found = ratio(2 * sums.true, 2 * sums.true + sums.false + sums.missed)
    return np.where(sums.positives > 0, found, math.nan)


def sensitivity(sums: Sums) -> np.ndarray:
    """Computes the share of the positives that are found; NaN without a positive."""
    return ratio(sums.true, sums.positives)


def specificity(sums: Sums) -> np.ndarray:
    """Computes the share of the negatives that are not found; NaN without a negative."""
    return ratio(sums.right, sums.negatives)


def ppv(sums: Sums) -> np.ndarray:
    """Computes the share of what is found that is positive; NaN where nothing is found."""
    return ratio(sums.true, sums.true + sums.false)


def npv(sums: Sums) -> np.ndarray:
    """Computes the share of what is not found that is negative; NaN where everything is found."""
    return ratio(sums.right, sums.right + sums.missed)


def brier(sums: Sums) -> np.ndarray:
    """Computes the mean squared difference of probability and label; NaN without a known label."""
    return ratio(sums.squared, sums.positives + sums.negatives)


RATES: Mapping[str, Rate] = {
    "f1": f1, "sensitivity": sensitivity, "specificity": specificity, "ppv": ppv, "npv": npv,
    "brier": brier,
}


def rates(sums: np.ndarray, wanted: Mapping[str, Rate] = RATES) -> dict[str, np.ndarray]:
    """Rates of sums.

    Arguments:
      sums: `[..., 5]`, `terms` summed over images.

    Returns:
      Name -> `[...]`; NaN where undefined.
    """
    parts = Sums(*np.moveaxis(np.asarray(sums, np.float64), -1, 0))
    return {name: rate(parts) for name, rate in wanted.items()}


def resampled_sums(
    values: np.ndarray, clusters: np.ndarray, resamples: int = 1000, seed: int = 0
) -> np.ndarray:
    """Sums over the images of whole clusters drawn with replacement, as many as there are.

    Arguments:
      values: `[N, ...]`.
      resamples, seed: see `intervals.Groups.resample`, which also pairs them with other metrics.

    Returns:
      float64 `[resamples, ...]`; NaN throughout with fewer than two clusters.
    """
    values, groups = np.asarray(values, np.float64), intervals.Groups.of(clusters)
    order = np.argsort(groups.index, kind="stable")
    starts = np.searchsorted(groups.index[order], np.arange(groups.count))
    flat = values.reshape(len(values), math.prod(values.shape[1:]))
    sums = np.add.reduceat(flat[order], starts, axis=0)
    drawn = groups.resample(lambda counts: (counts.T @ sums).T, resamples, seed)
    return np.ascontiguousarray(drawn.T).reshape(resamples, *values.shape[1:])


def with_intervals(
    sums: np.ndarray,
    drawn: np.ndarray,
    wanted: Mapping[str, Rate] = RATES,
    level: float = intervals.LEVEL,
) -> list[Mapping[str, tuple[float, float, float]]]:
    """Computes `rates` of each class with percentile intervals.

    Arguments:
      sums: `[C, 5]`. drawn: `[resamples, C, 5]`, of `resampled_sums`.

    Returns:
      For each class, name -> (value, low, high), NaN where undefined; see `interval`.
    """
    values, spread = rates(sums, wanted), rates(drawn, wanted)
    return [
        {name: (float(values[name][i]), *interval(spread[name][:, i], level)) for name in wanted}
        for i in range(len(sums))
    ]


def interval(values: np.ndarray, level: float = intervals.LEVEL) -> tuple[float, float]:
    """Computes the percentile interval of resampled values, NaN where all are the same.

    No resample can miss what no image of the set missed: 0 of 16 is no proof of 0.
    """
    low, high = intervals.percentile_interval(values, level)
    return (low, high) if low < high else (math.nan, math.nan)
