"""Rates at given thresholds, and the Brier score, with resamples of whole patients.

All are ratios of sums over images, so that resamples need the sums of each patient alone.
"""

import math
from collections.abc import Mapping

import numpy as np

from jaxcxr.statistics import intervals
from jaxcxr.statistics.classification import NEGATIVE, POSITIVE

RATES = ("f1", "sensitivity", "specificity", "ppv", "npv", "brier")
_BLOCK = 64


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
    f1 = _ratio(2 * true, 2 * true + false + missed)
    return {
        "f1": np.where(positives > 0, f1, math.nan),
        "sensitivity": _ratio(true, positives),
        "specificity": _ratio(right, negatives),
        "ppv": _ratio(true, true + false),
        "npv": _ratio(right, right + missed),
        "brier": _ratio(squared, positives + negatives),
    }


def resampled_sums(
    values: np.ndarray, clusters: np.ndarray, resamples: int = 1000, seed: int = 0
) -> np.ndarray:
    """Sums over the images of whole clusters drawn with replacement, as many as there are.

    The same clusters and seed give the draws of `intervals.cluster_bootstrap`: differences of
    figures of both are paired.

    Arguments:
      values: `[N, ...]`.
      clusters: `[N]`, the patient of each image (any sortable values).
      resamples, seed: as there.

    Returns:
      float64 `[resamples, ...]`; NaN throughout with fewer than two clusters, which have no
      spread.
    """
    values = np.asarray(values, np.float64)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    flat = values.reshape(len(values), -1)
    if len(names) < 2:
        return np.full((resamples, *values.shape[1:]), math.nan)
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(len(names)))
    sums = np.add.reduceat(flat[order], starts, axis=0)
    random = np.random.default_rng(seed)
    parts = [
        intervals.draws(random, len(names), min(_BLOCK, resamples - start)).T @ sums
        for start in range(0, resamples, _BLOCK)
    ]
    return np.concatenate(parts).reshape(resamples, *values.shape[1:])


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


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), math.nan), where=whole > 0)
