"""Rates at given thresholds, and the Brier score, with resamples of whole patients.

All are ratios of sums over images, so that resamples need the sums of each patient alone.
"""

import math
from collections.abc import Mapping

import numpy as np

from jaxcxr.statistics import intervals
from jaxcxr.statistics.classification import NEGATIVE, POSITIVE

RATES = ("f1", "sensitivity", "specificity", "ppv", "npv", "brier")


def terms(labels: np.ndarray, probabilities: np.ndarray, found: np.ndarray) -> np.ndarray:
    """What each image adds to the sums of `rates`.

    Arguments:
      labels: integers `[N, C]` in {1, 0, -1 unknown}; unknown ones add nothing.
      probabilities: `[N, C]`.
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


def rates(sums: np.ndarray) -> dict[str, np.ndarray]:
    """`RATES` of sums.

    Arguments:
      sums: `[..., 5]`, `terms` summed over images.

    Returns:
      Name -> `[...]`; NaN where undefined: F1 and sensitivity without a positive, specificity
      without a negative, predictive values (ppv, npv) where nothing is so predicted, all without
      a known label.
    """
    true, false, missed, right, squared = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
    positives, negatives = true + missed, false + right
    f1 = intervals.ratio(2 * true, 2 * true + false + missed)
    return {
        "f1": np.where(positives > 0, f1, math.nan),
        "sensitivity": intervals.ratio(true, positives),
        "specificity": intervals.ratio(right, negatives),
        "ppv": intervals.ratio(true, true + false),
        "npv": intervals.ratio(right, right + missed),
        "brier": intervals.ratio(squared, positives + negatives),
    }


def resampled_sums(
    values: np.ndarray, clusters: np.ndarray, resamples: int = 1000, seed: int = 0
) -> np.ndarray:
    """Sums over the images of whole clusters drawn with replacement, as many as there are.

    Arguments:
      values: `[N, ...]`.
      clusters: `[N]`, the patient of each image (any sortable values).
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
    sums: np.ndarray, drawn: np.ndarray, level: float = intervals.LEVEL
) -> list[Mapping[str, tuple[float, float, float]]]:
    """`rates` of each class with percentile intervals.

    Arguments:
      sums: `[C, 5]`. drawn: `[resamples, C, 5]`, of `resampled_sums`.
      level: of the intervals.

    Returns:
      For each class, name -> (value, low, high), NaN where undefined; see `interval`.
    """
    values, spread = rates(sums), rates(drawn)
    return [
        {name: (float(values[name][i]), *interval(spread[name][:, i], level)) for name in RATES}
        for i in range(len(sums))
    ]


def interval(values: np.ndarray, level: float = intervals.LEVEL) -> tuple[float, float]:
    """Percentile interval of resampled values, NaN where all are the same.

    No resample can miss what no image of the set missed: 0 of 16 is no proof of 0.
    """
    low, high = intervals.percentile_interval(values, level)
    return (low, high) if low < high else (math.nan, math.nan)
