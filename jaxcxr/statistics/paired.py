"""Whether two models differ on the same examples, and two sets of seeds beyond their spread."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from jaxcxr.statistics import intervals


@dataclasses.dataclass(frozen=True)
class Difference:
    """Second minus first: its value, interval (low, high) and two-sided p; NaN where undefined."""

    value: float
    interval: tuple[float, float]
    p: float


NONE = Difference(math.nan, (math.nan, math.nan), math.nan)


def delong(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, level: float = intervals.LEVEL
) -> Difference:
    """Computes the difference of two AUROCs by DeLong's test, as if the examples were independent.

    With several scores for a model (its seeds) their AUROCs are averaged; the variance is of the
    examples alone, as if no other seeds had been possible.

    Arguments:
      first, second: scores `[N]` or `[seeds, N]`.

    Returns:
      the difference; interval and p are NaN with fewer than two positives or negatives. Equal
      AUROCs without variance, such as of the same scores, have p = 1.

    Source: DeLong et al., "Comparing the areas under two or more correlated receiver operating
      characteristic curves: a nonparametric approach", 1988.
    """
    first, second = np.atleast_2d(first), np.atleast_2d(second)
    aurocs, covariance = intervals.delong_covariance(labels, np.concatenate([first, second]))
    contrast = np.concatenate([
        np.full(len(first), -1 / len(first)), np.full(len(second), 1 / len(second)),
    ])
    value, variance = float(contrast @ aurocs), float(contrast @ covariance @ contrast)
    if math.isnan(variance):
        return Difference(value, (math.nan, math.nan), math.nan)
    # Equal scores differ by nothing but rounding.
    deviation = math.sqrt(max(variance, 0.0)) if variance > 1e-18 else 0.0
    if not deviation:
        return Difference(value, (value, value), 1.0 if abs(value) < 1e-12 else 0.0)
    half = stats.norm.ppf((1 + level) / 2) * deviation
    p = 2 * stats.norm.sf(abs(value) / deviation)
    return Difference(value, (value - half, value + half), float(p))


def resampled(
    value: float, differences: np.ndarray, level: float = intervals.LEVEL
) -> Difference:
    """Adds to a difference the percentile interval and p of its resamples.

    p is twice the smaller share of resamples on either side of 0, each side counted one more, so
    that it is never 0 (Davison and Hinkley, "Bootstrap methods and their application", 1997,
    section 4.4).

    Arguments:
      differences: `[resamples]`, of the same draws for both; NaN ones are left out, and with too
        many of them (`intervals.percentile_interval`) there is neither interval nor p.
    """
    ends = intervals.percentile_interval(differences, level)
    if math.isnan(value) or math.isnan(ends[0]):
        return Difference(float(value), (math.nan, math.nan), math.nan)
    known = differences[~np.isnan(differences)]
    side = min((known <= 0).sum(), (known >= 0).sum())
    p = min(1.0, 2 * (side + 1) / (len(known) + 1))
    return Difference(float(value), ends, float(p))


def seeds(
    first: np.ndarray, second: np.ndarray, level: float = intervals.LEVEL
) -> Difference:
    """Computes the difference of means over seeds by Welch's t test; seeds of both are independent.

    Returns:
      NONE unless both have two seeds and a spread.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if min(len(first), len(second)) < 2:
        return NONE
    if not min(np.ptp(first), np.ptp(second)) > 1e-12:  # NaN, or no spread but of rounding
        return NONE
    test = stats.ttest_ind(second, first, equal_var=False)
    ends = test.confidence_interval(level)
    return Difference(
        float(second.mean() - first.mean()), (float(ends.low), float(ends.high)),
        float(test.pvalue),
    )


def t_interval(values: npt.ArrayLike, level: float = intervals.LEVEL) -> tuple[float, float]:
    """Student's t interval of a mean; NaN with fewer than two values."""
    sample = np.asarray(values, np.float64)
    if len(sample) < 2:
        return math.nan, math.nan
    half = stats.t.ppf((1 + level) / 2, len(sample) - 1) * sample.std(ddof=1) / len(sample) ** 0.5
    return float(sample.mean() - half), float(sample.mean() + half)


def same_seeds(reference: Mapping[int, float], values: Mapping[int, float]) -> Difference:
    """Computes the mean difference over the seeds that both have, by the paired t test.

    Returns:
      NONE without a seed in common; p is NaN with one, or where all differences are equal.
    """
    common = sorted(values.keys() & reference.keys())
    if not common:
        return NONE
    differences = np.array([values[seed] - reference[seed] for seed in common])
    rounding = 1e-12 * max(abs(values[seed]) for seed in common)
    tested = len(common) > 1 and np.ptp(differences) > rounding
    p = float(stats.ttest_1samp(differences, 0).pvalue) if tested else math.nan
    return Difference(float(differences.mean()), t_interval(differences), p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p values for their number by Holm's step-down method; NaN stays NaN, uncounted.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    p = np.asarray(p_values, np.float64)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted = p.copy()
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return adjusted.tolist()
