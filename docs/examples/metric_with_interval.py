"""Balanced accuracy at a threshold, with a 95 % interval over patients, from a run's predictions."""

import pathlib

import numpy as np

from jaxcxr.data import label_tables
from jaxcxr.data.schema import NEGATIVE, POSITIVE


def balanced_accuracy(labels: np.ndarray, scores: np.ndarray, threshold: float) -> float:
    """Returns the mean of sensitivity and specificity; NaN where a class has one label value."""
    positive, negative = labels == POSITIVE, labels == NEGATIVE
    if not positive.any() or not negative.any():
        return float("nan")
    found = scores >= threshold
    return float((found[positive].mean() + (~found[negative]).mean()) / 2)


def with_interval(
    predictions: pathlib.Path, finding: str, threshold: float = 0.5, resamples: int = 1000
) -> tuple[float, float, float]:
    """Computes the metric of a class and its percentile interval over resampled patients.

    Arguments:
      predictions: predictions/test.csv of a run, which holds labels and scores.
      finding: name of the class.
      threshold: from which a score counts as a finding.
      resamples: of whole patients.

    Returns:
      (value, low, high).
    """
    labels = label_tables.read(predictions).labels([finding])[:, 0]
    scores = label_tables.read_scores(predictions).scores([finding])[:, 0]
    patients = label_tables.read(predictions).patients()
    names, patient = np.unique(patients, return_inverse=True)
    images = [np.flatnonzero(patient == i) for i in range(len(names))]
    rng = np.random.default_rng(0)
    draws = (np.concatenate([images[i] for i in rng.integers(len(names), size=len(names))])
             for _ in range(resamples))
    values = [balanced_accuracy(labels[rows], scores[rows], threshold) for rows in draws]
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return balanced_accuracy(labels, scores, threshold), float(low), float(high)
