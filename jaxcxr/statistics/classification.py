"""Values of labels, AUROC and average precision of one class with unknown labels.

AUROC counts tied pairs as one half (trapezoidal rule); average precision is
sum_n (R_n - R_{n-1}) P_n without interpolation. Both are scikit-learn's, over the known labels.
"""

import math
from collections.abc import Callable

import numpy as np
from sklearn import metrics as sk

POSITIVE, NEGATIVE, UNKNOWN = 1, 0, -1


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """AUROC of one class, labels and scores `[N]`; NaN with one label value only."""
    return _where_defined(sk.roc_auc_score, labels, scores)


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Average precision of one class, labels and scores `[N]`; NaN with one label value only."""
    return _where_defined(sk.average_precision_score, labels, scores)


def _where_defined(
    metric: Callable[..., float], labels: np.ndarray, scores: np.ndarray
) -> float:
    if not ((labels == POSITIVE).any() and (labels == NEGATIVE).any()):
        return math.nan
    known = labels != UNKNOWN
    return float(metric(labels[known], scores[known]))
