"""Youden's index (Youden 1950): the greatest sensitivity + specificity - 1 over thresholds."""

import numpy as np

from jaxcxr.statistics import ranking
from jaxcxr.statistics.intervals import ratio
from jaxcxr.xray.evaluation.xray_metrics import RANKING, XrayMetric


def youden(counts: ranking.Counts) -> np.ndarray:
    """Computes the index of one class in R resamples at once, `[R]`; NaN where undefined."""
    gain = counts.true * counts.negatives - counts.false * counts.positives
    return ratio(np.maximum(gain.max(axis=0), 0), counts.positives * counts.negatives)


# One of jaxcxr.xray.evaluation.xray_metrics.METRICS.
ENTRY = XrayMetric(
    name="youden", title="Youden", page="Youden's index", basis=RANKING, measure=youden,
    undefined="one label value only",
)
