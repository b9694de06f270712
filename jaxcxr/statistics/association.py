"""How far a label can be told from one attribute alone, such as source, view, sex or age.

A model that scores no better than the attribute alone may have learnt nothing but the attribute.
"""

import math

import numpy as np
from sklearn import metrics as sk

POSITIVE, NEGATIVE = 1, 0


def counts(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Contingency table of a label and a categorical attribute, over the known labels.

    Arguments:
      labels: integers `[N]` in {1, 0, -1 unknown}.
      groups: `[N]`, category of each example, of any type that sorts.

    Returns:
      int64 `[2, categories]`: negatives, then positives, the categories sorted. Categories
      without a known label are left out.
    """
    labels, groups = np.asarray(labels), np.asarray(groups)
    if labels.shape != groups.shape or labels.ndim != 1:
        raise ValueError(f"labels {list(labels.shape)} and groups {list(groups.shape)} must be [N]")
    known = (labels == POSITIVE) | (labels == NEGATIVE)
    names, place = np.unique(groups[known], return_inverse=True)
    table = [np.bincount(place[labels[known] == value], minlength=len(names))
             for value in (NEGATIVE, POSITIVE)]
    return np.stack(table).astype(np.int64)


def cramers_v(table: np.ndarray) -> float:
    """Cramer's V, not corrected for bias: 0 independent, 1 one determines the other.

    sqrt(chi2 / (n min(rows - 1, columns - 1))) without Yates' correction (Cramer, "Mathematical
    Methods of Statistics", 1946, section 21.9). In small samples it is above 0 by chance.

    Arguments:
      table: counts `[rows, columns]`.

    Returns:
      V, or NaN where fewer than two rows or columns hold anything.
    """
    table = np.asarray(table, np.float64)
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    degrees = min(table.shape) - 1
    if degrees < 1:
        return math.nan
    total = table.sum()
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / total
    chi2 = ((table - expected) ** 2 / expected).sum()
    return float(math.sqrt(chi2 / (total * degrees)))


def category_auroc(table: np.ndarray) -> float:
    """AUROC of the best score that sees the category alone: the share of positives in it.

    The shares are those of the very examples counted, so that with many small categories the
    result is optimistic; with independent labels and few large ones it is near 0.5.

    Arguments:
      table: counts `[2, categories]` of negatives and positives.

    Returns:
      At least 0.5, ties counted one half; NaN without a positive or without a negative.
    """
    negatives, positives = np.asarray(table, np.float64)
    if not negatives.sum() or not positives.sum():
        return math.nan
    seen = negatives + positives > 0
    negatives, positives = negatives[seen], positives[seen]
    order = np.argsort(positives / (negatives + positives))
    negatives, positives = negatives[order], positives[order]
    below = np.cumsum(negatives) - negatives
    won = (positives * (below + negatives / 2)).sum()
    return float(won / (negatives.sum() * positives.sum()))


def value_auroc(labels: np.ndarray, values: np.ndarray) -> float:
    """AUROC of a number such as the age as the score, in the direction that is better.

    Arguments:
      labels: integers `[N]` in {1, 0, -1 unknown}.
      values: `[N]` finite numbers.

    Returns:
      max(a, 1 - a), at least 0.5; NaN without a positive or without a negative.
    """
    labels, values = np.asarray(labels), np.asarray(values)
    known = (labels == POSITIVE) | (labels == NEGATIVE)
    if len(np.unique(labels[known])) < 2:
        return math.nan
    auroc = float(sk.roc_auc_score(labels[known], values[known]))
    return max(auroc, 1.0 - auroc)
