"""How far labels can be told from attributes such as source, view, sex or age, or from features.

A model that scores no better than an attribute alone may have learnt nothing but the attribute.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from sklearn import linear_model, pipeline, preprocessing
from sklearn import metrics as sk

from jaxcxr.statistics import NEGATIVE, POSITIVE, UNKNOWN

MOST_PROBED = 4000  # examples that a probe is fitted on; a random choice of more
_STRENGTH = 0.1  # inverse of the L2 penalty


def counts(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Computes the contingency table of a label and a categorical attribute, over the known labels.

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
    """Computes the AUROC of the share of positives in a category as the score, the best there is.

    The shares are those of the very examples counted, so that with many small categories the
    result is optimistic; with independent labels and few large ones it is near 0.5.

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
    """Computes the AUROC of a number such as the age as the score, in the direction that is better.

    Returns:
      max(a, 1 - a), at least 0.5; NaN without a positive or without a negative.
    """
    score = auroc(np.asarray(labels), np.asarray(values))
    return max(score, 1.0 - score)


def probe_scores(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Computes the decision values of one probe for each label.

    A probe is scikit-learn's logistic regression on standardised features. That sex or source can
    be told from the features of a model of findings does not show that the model uses them; that
    they cannot be told shows that it does not.

    Arguments:
      train: features `[N, d]`.
      labels: `[N, C]`, of the same examples.
      test: features `[M, d]`.
      seed: of the choice of examples where there are more than `MOST_PROBED`.

    Returns:
      float64 `[M, C]`; NaN in the column of a label of which one value is missing in training.
    """
    found = np.full((len(test), labels.shape[1]), np.nan)
    random = np.random.default_rng(seed)
    for column in range(labels.shape[1]):
        known = np.flatnonzero(labels[:, column] != UNKNOWN)
        if len(known) > MOST_PROBED:
            known = np.sort(random.choice(known, MOST_PROBED, replace=False))
        values = labels[known, column]
        if (values == POSITIVE).any() and (values == NEGATIVE).any():
            model = pipeline.make_pipeline(
                preprocessing.StandardScaler(),
                linear_model.LogisticRegression(C=_STRENGTH, max_iter=1000),
            )
            model.fit(train[known], values == POSITIVE)
            found[:, column] = model.decision_function(test)
    return found


def indicators(values: np.ndarray, groups: Sequence[str] | None = None) -> tuple[np.ndarray, list]:
    """Categories as labels, one column each.

    Arguments:
      values: `[N]` strings, "" unknown.
      groups: the categories; by default those in `values`.

    Returns:
      Integers `[N, groups]` in {1, 0, -1}, -1 in the whole row where unknown; the groups, sorted.
      Two groups are one column, of the second: the first is its negative.
    """
    names = sorted(set(values[values != ""]) if groups is None else groups)
    columns = names[1:] if len(names) == 2 else names
    found = np.stack([np.where(values == name, POSITIVE, NEGATIVE) for name in columns], 1)
    found[values == ""] = UNKNOWN
    return found, names


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Computes the AUROC of one class, labels and scores `[N]`; NaN with one label value only."""
    return _where_defined(sk.roc_auc_score, labels, scores)


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Computes the average precision of one class `[N]`; NaN with one label value only."""
    return _where_defined(sk.average_precision_score, labels, scores)


def _where_defined(
    metric: Callable[..., float], labels: np.ndarray, scores: np.ndarray
) -> float:
    if not ((labels == POSITIVE).any() and (labels == NEGATIVE).any()):
        return math.nan
    known = labels != UNKNOWN
    return float(metric(labels[known], scores[known]))
