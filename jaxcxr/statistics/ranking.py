"""Metrics of a ranking of examples by score: of the whole, and of resamples of whole patients.

ROC and precision-recall curves with their bands are here too.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import sparse

from jaxcxr.statistics import NEGATIVE, POSITIVE, UNKNOWN
from jaxcxr.statistics.intervals import LEVEL, Groups, percentile_interval, ratio

SPECIFICITY = 0.9  # at which the sensitivity is given
POINTS = 101  # of a curve
# Resamples counted at once: so few that the tables of a class stay in the processor's cache.
_BLOCK = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
    """Positives and negatives of one class by threshold, in each of R resamples.

    All metrics change only where a positive comes in, so the distinct scores of positives are the
    only thresholds needed. Counts are whole numbers far below 2^53, hence exact.

    Attributes:
      thresholds: `[K]`, greatest first.
      at: positives at each threshold, `[K, R]`.
      tied: negatives at each, `[K, R]`.
      true, false: positives and negatives at or above each, `[K, R]`.
      positives, negatives: all of them, `[R]`.
    """

    thresholds: np.ndarray
    at: np.ndarray
    tied: np.ndarray
    true: np.ndarray
    false: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray

    @functools.cached_property
    def f1(self) -> np.ndarray:
        """F1 at each threshold, `[K, R]`."""
        predicted = self.true + self.false
        return 2 * self.true / (predicted + self.positives + (self.positives == 0))

    @functools.cached_property
    def best(self) -> np.ndarray:
        """Index of the greatest threshold with the greatest F1, `[R]`."""
        return np.argmax(self.f1, axis=0)


Measure = Callable[[Counts], np.ndarray]


def auroc(counts: Counts) -> np.ndarray:
    """Computes the share of pairs in the right order; ties count one half."""
    above = counts.negatives - counts.false + 0.5 * counts.tied
    return ratio((counts.at * above).sum(axis=0), counts.positives * counts.negatives)


def average_precision(counts: Counts) -> np.ndarray:
    """Sums the gain in recall times the precision over thresholds, without interpolation."""
    # Above the first example that was drawn nothing is predicted, and nothing is gained.
    predicted = np.maximum(counts.true + counts.false, 1)
    return ratio((counts.at * counts.true / predicted).sum(axis=0), counts.positives)


def best_f1(counts: Counts) -> np.ndarray:
    """Computes the greatest F1 over thresholds."""
    return counts.f1[counts.best, np.arange(len(counts.best))]


def best_threshold(counts: Counts) -> np.ndarray:
    """Computes the greatest threshold at which F1 is greatest."""
    return counts.thresholds[counts.best]


def sensitivity_at_specificity(counts: Counts, specificity: float = SPECIFICITY) -> np.ndarray:
    """Computes the greatest sensitivity of any threshold with at least this specificity."""
    # The last threshold that is specific enough; a rounded share must not lose one.
    allowed = (counts.false <= (1 - specificity) * counts.negatives + 1e-9).sum(axis=0)
    found = counts.true[allowed - 1, np.arange(len(allowed))]
    return ratio(np.where(allowed > 0, found, 0.0), counts.positives)


MEASURES: Mapping[str, Measure] = {
    "auroc": auroc, "average_precision": average_precision, "f1_max": best_f1,
    "threshold": best_threshold, "sensitivity_at_specificity": sensitivity_at_specificity,
}


def measure(labels: np.ndarray, scores: np.ndarray, one: Measure) -> float:
    """Computes a measure of one class; NaN if only one label value is known.
    """
    labels = np.asarray(labels)
    together = Groups(np.zeros(len(labels), np.int64), 1)
    ranking = _ranking(labels, np.asarray(scores, np.float64), together)
    return float(_values(ranking, np.ones((1, 1)), (one,))[0, 0])


def f1_max(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Computes the greatest F1 over thresholds, and the threshold where it is reached.

    A threshold chosen on the very examples it is scored on is optimistic, and so is the F1. To
    foretell what a threshold gives on new images, choose it on the validation split.

    Returns:
      (F1, threshold): predicted positive is score >= threshold. Of several best ones the greatest
      threshold. (NaN, NaN) if only one label value is known.
    """
    return measure(labels, scores, best_f1), measure(labels, scores, best_threshold)


def sensitivity_at(
    labels: np.ndarray, scores: np.ndarray, specificity: float = SPECIFICITY
) -> float:
    """Computes the greatest sensitivity of any threshold with at least this specificity.

    The threshold is chosen on the very examples, as is read off a ROC curve. NaN if only one label
    value is known.
    """
    one = functools.partial(sensitivity_at_specificity, specificity=specificity)
    return measure(labels, scores, one)


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """Metrics of every resample.

    Attributes:
      values: name of a measure to float64 `[classes, resamples]`. NaN where a resample holds one
        label value of the class only, and in all resamples of a class of which fewer than two
        clusters have a known label: their interval would have no width.
    """

    values: Mapping[str, np.ndarray]

    @property
    def undefined(self) -> np.ndarray:
        """Resamples without the class's metrics, `[classes]`; the intervals leave them out."""
        return np.isnan(next(iter(self.values.values()))).sum(axis=1)

    def interval(self, name: str, index: int, level: float = LEVEL) -> tuple[float, float]:
        """Computes the percentile interval (low, high) of one class; NaN if too few define it."""
        return percentile_interval(self.values[name][index], level)

    def macro(self, name: str, classes: Sequence[int]) -> np.ndarray:
        """Computes the unweighted mean over classes in each resample.

        A resample that leaves one of the classes undefined is NaN: the mean over the other classes
        would be another quantity, one that jumps by which rare class is missing.

        Arguments:
          classes: indices of the classes that count, those defined in the full set.
        """
        values = self.values[name][np.asarray(classes, dtype=np.int64)]
        return values.mean(axis=0) if len(values) else np.full(values.shape[1], math.nan)


def cluster_bootstrap(
    labels: np.ndarray,
    scores: np.ndarray,
    clusters: np.ndarray,
    resamples: int = 1000,
    seed: int = 0,
    measures: Mapping[str, Measure] = MEASURES,
) -> Bootstrap:
    """Measures of resamples of whole clusters, drawn with replacement, as many as there are.

    An example counts as often as its cluster was drawn; ties count as in scikit-learn given these
    counts as `sample_weight`. One resample serves all classes. The same clusters, resamples and
    seed give the same draws, in whatever order the examples stand.

    Average precision and F1 of a resample tend to lie above those of the full set, since positives
    drawn twice stand together in the ranking: with few positives their percentile intervals reach
    farther up than down, and may be too high. AUROC has no such bias.

    Arguments:
      labels, scores: `[N, C]`.
      resamples, seed: see `intervals.Groups.resample`.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    groups = Groups.of(clusters)
    rankings = [_ranking(labels[:, i], scores[:, i], groups) for i in range(labels.shape[1])]

    def statistic(counts: np.ndarray) -> np.ndarray:
        values = np.full((len(measures), len(rankings), counts.shape[1]), math.nan)
        for i, ranking in enumerate(rankings):
            if ranking.clusters >= 2:
                values[:, i] = _values(ranking, counts, measures.values())
        return values

    drawn = groups.resample(statistic, resamples, seed, block=_BLOCK)
    return Bootstrap(dict(zip(measures, drawn, strict=True)))


@dataclasses.dataclass(frozen=True)
class Curve:
    """A curve over `x`, `[POINTS]` each; `low` and `high` bound 95 % of the resamples."""

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray


def roc_and_pr(
    labels: np.ndarray, scores: np.ndarray, clusters: np.ndarray, resamples: int = 200,
    seed: int = 0,
) -> tuple[Curve, Curve] | None:
    """Draws the ROC and the precision-recall curve of one class, with bands.

    Sensitivity between two thresholds is on the straight line between them, the precision at a
    recall is that of the highest threshold that reaches it.

    Returns:
      None where one of the labels is missing.
    """
    known = labels != UNKNOWN
    positive, scores = labels[known] == POSITIVE, np.asarray(scores, np.float64)[known]
    if not positive.any() or positive.all():
        return None
    groups = Groups.of(np.asarray(clusters)[known])
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    positive, index = positive[order], groups.index[order]

    def statistic(counts: np.ndarray) -> np.ndarray:
        return np.stack([_points(weight[index], positive, ends) for weight in counts.T], axis=-1)

    whole = statistic(np.ones((groups.count, 1)))[..., 0]
    drawn = groups.resample(statistic, resamples, seed)
    drawn = drawn[..., ~np.isnan(drawn).any(axis=(0, 1))]
    if not drawn.shape[-1]:
        drawn = whole[..., None]
    lows, highs = np.quantile(drawn, (0.025, 0.975), axis=-1)
    grid = np.linspace(0, 1, POINTS)
    roc, pr = (Curve(grid, *of) for of in zip(whole, lows, highs, strict=True))
    return roc, pr


def _points(weights: np.ndarray, positive: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Computes both curves over a grid, `[2, POINTS]`, NaN without one of the labels.

    Arguments:
      weights: how often each example counts, `[n]`, greatest score first.
      positive: bool `[n]`.
      ends: index of the last example of each distinct score.
    """
    grid = np.linspace(0, 1, POINTS)
    true, false = (np.cumsum(weights * of)[ends] for of in (positive, ~positive))
    if not true[-1] or not false[-1]:
        return np.full((2, POINTS), math.nan)
    roc = np.interp(grid, np.append(0, false) / false[-1], np.append(0, true) / true[-1])
    first = np.searchsorted(true / true[-1], grid - 1e-12)
    first = np.maximum(first, np.searchsorted(true, 0, side="right"))
    return np.stack([roc, true[first] / (true[first] + false[first])])


@dataclasses.dataclass(frozen=True)
class _Ranking:
    """Sorts one class once for all resamples; negatives count by where they fall.

    Attributes:
      thresholds: `[K]`, distinct scores of positives, greatest first.
      members: `[3 K + 1, clusters]`, numbers of examples per cluster: positives at each threshold
        (K rows), negatives above each threshold and below the one before, the last row those below
        all (K + 1), negatives at each threshold (K).
      clusters: number of clusters with a known label.
    """

    thresholds: np.ndarray
    members: sparse.csr_array
    clusters: int

    def counted(self, draws: np.ndarray) -> Counts:
        """Computes the counts of resamples, from the draws of clusters `[clusters, R]`."""
        k = len(self.thresholds)
        members = self.members @ draws
        at, between, tied = members[:k], members[k : 2 * k + 1], members[2 * k + 1 :]
        true, false = np.cumsum(at, axis=0), np.cumsum(between[:k] + tied, axis=0)
        return Counts(self.thresholds, at, tied, true, false, true[-1], false[-1] + between[k])


def _ranking(labels: np.ndarray, scores: np.ndarray, groups: Groups) -> _Ranking:
    positive, negative = labels == POSITIVE, labels == NEGATIVE
    ascending = np.unique(-scores[positive])
    k = len(ascending)
    place = np.searchsorted(ascending, -scores[negative])
    tied = np.searchsorted(ascending, -scores[negative], side="right") > place
    rows = np.concatenate([
        np.searchsorted(ascending, -scores[positive]),
        np.where(tied, 2 * k + 1, k) + place,
    ])
    columns = np.concatenate([groups.index[positive], groups.index[negative]])
    members = sparse.coo_array(
        (np.ones(len(rows)), (rows, columns)), shape=(3 * k + 1, groups.count)
    ).tocsr()
    known = len(np.unique(groups.index[labels != UNKNOWN]))
    return _Ranking(0.0 - ascending, members, known)


def _values(ranking: _Ranking, draws: np.ndarray, measures) -> np.ndarray:
    """Measures of resamples, `[measures, R]`, from the draws of clusters."""
    result = np.full((len(measures), draws.shape[1]), math.nan)
    if len(ranking.thresholds):
        counts = ranking.counted(draws)
        defined = (counts.positives > 0) & (counts.negatives > 0)
        for row, one in zip(result, measures, strict=True):
            row[defined] = one(counts)[defined]
    return result
