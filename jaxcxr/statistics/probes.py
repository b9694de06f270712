"""What can be told from features by a linear model: findings, or what should not be there.

A probe is scikit-learn's logistic regression on standardised features. That sex or source can be
told from the features of a model of findings does not show that the model uses them; that they
cannot be told shows that it does not.
"""

import numpy as np
from sklearn import linear_model, pipeline, preprocessing

from jaxcxr.statistics.classification import NEGATIVE, POSITIVE, UNKNOWN

MOST = 4000  # examples that a probe is fitted on; a random choice of more
_STRENGTH = 0.1  # inverse of the L2 penalty


def scores(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Decision values of one probe for each label.

    Arguments:
      train: features `[N, d]`.
      labels: integers `[N, C]` in {1, 0, -1 unknown}, of the same examples.
      test: features `[M, d]`.
      seed: of the choice of examples where there are more than `MOST`.

    Returns:
      float64 `[M, C]`; NaN in the column of a label of which one value is missing in training.
    """
    found = np.full((len(test), labels.shape[1]), np.nan)
    random = np.random.default_rng(seed)
    for column in range(labels.shape[1]):
        known = np.flatnonzero(labels[:, column] != UNKNOWN)
        if len(known) > MOST:
            known = np.sort(random.choice(known, MOST, replace=False))
        values = labels[known, column]
        if (values == POSITIVE).any() and (values == NEGATIVE).any():
            model = pipeline.make_pipeline(
                preprocessing.StandardScaler(),
                linear_model.LogisticRegression(C=_STRENGTH, max_iter=1000),
            )
            model.fit(train[known], values == POSITIVE)
            found[:, column] = model.decision_function(test)
    return found


def indicators(values: np.ndarray, groups: np.ndarray | None = None) -> tuple[np.ndarray, list]:
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
