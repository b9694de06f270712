"""Youden's index with a 95 % interval over patients, from a run's predictions."""

import pathlib

import numpy as np

from jaxcxr.data import label_tables
from jaxcxr.statistics import ranking
from jaxcxr.statistics.intervals import ratio


def youden(counts: ranking.Counts) -> np.ndarray:
    """Greatest sensitivity + specificity - 1 over thresholds (Youden 1950), `[R]`."""
    gain = counts.true * counts.negatives - counts.false * counts.positives
    return ratio(np.maximum(gain.max(axis=0), 0), counts.positives * counts.negatives)


def with_interval(
    predictions: pathlib.Path, finding: str, resamples: int = 1000
) -> tuple[float, tuple[float, float]]:
    """Computes the index of a class and its interval over resampled patients.

    Arguments:
      predictions: predictions/test.csv of a run, which holds labels and scores.
      finding: name of the class.
      resamples: of whole patients.

    Returns:
      The value, and its percentile interval (low, high).
    """
    table = label_tables.read(predictions)
    labels = table.labels([finding])
    scores = label_tables.read_scores(predictions).scores([finding])
    patients = np.array(table.patients())
    drawn = ranking.cluster_bootstrap(
        labels, scores, patients, resamples, measures={"youden": youden}
    )
    value = ranking.measure(labels[:, 0], scores[:, 0], youden)
    return value, drawn.interval("youden", 0)
