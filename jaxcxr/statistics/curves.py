"""ROC and precision-recall curves with bands, by a bootstrap over patients."""

import dataclasses

import numpy as np

from jaxcxr.statistics.classification import NEGATIVE, POSITIVE
from jaxcxr.statistics.intervals import draws

POINTS = 101


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
    """Sensitivity over the false positive rate, and precision over the recall, of one class.

    Sensitivity between two thresholds is on the straight line between them, the precision at a
    recall is that of the highest threshold that reaches it.

    Arguments:
      labels: integers `[n]` in {1, 0, -1 unknown}; unknown ones are left out.
      scores: `[n]`.
      clusters: `[n]`, the patient of each.
      resamples: of patients.
      seed: of the resamples.

    Returns:
      the two curves; None where one of the labels is missing.
    """
    known = (labels == POSITIVE) | (labels == NEGATIVE)
    positive, scores = labels[known] == POSITIVE, np.asarray(scores, np.float64)[known]
    if not positive.any() or positive.all():
        return None
    names, place = np.unique(np.asarray(clusters)[known], return_inverse=True)
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    positive, place = positive[order], place[order]
    counts = np.concatenate([
        np.ones((len(names), 1)), draws(np.random.default_rng(seed), len(names), resamples)
    ], 1)
    grid = np.linspace(0, 1, POINTS)
    rocs, precisions = [], []
    for weight in counts.T:
        weights = weight[place]
        true = np.cumsum(weights * positive)[ends]
        false = np.cumsum(weights * ~positive)[ends]
        if not true[-1] or not false[-1]:
            continue
        rocs.append(np.interp(grid, np.append(0, false) / false[-1], np.append(0, true) / true[-1]))
        first = np.searchsorted(true / true[-1], grid - 1e-12)
        first = np.maximum(first, np.searchsorted(true, 0, side="right"))
        precisions.append(true[first] / (true[first] + false[first]))
    return _curve(grid, rocs), _curve(grid, precisions)


def _curve(grid: np.ndarray, found: list[np.ndarray]) -> Curve:
    low, high = np.quantile(np.stack(found[1:] or found), (0.025, 0.975), axis=0)
    return Curve(grid, found[0], low, high)
