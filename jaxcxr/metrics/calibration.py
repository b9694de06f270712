"""Whether a stated uncertainty is the uncertainty: how often intervals hold the truth."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

LEVELS = (0.5, 0.9, 0.95)


def coverage(
    error: np.ndarray, sigma: np.ndarray, levels: Sequence[float] = LEVELS
) -> dict[float, float]:
    """Share of errors within the central intervals of normal distributions.

    Arguments:
      error: `[...]`, predicted minus true.
      sigma: standard deviations, positive, in the same unit; broadcast to `error`.
      levels: probabilities of the intervals.

    Returns:
      Level -> share of the errors within mean +- z(level) sigma; a calibrated model has shares
      equal to the levels, a model too sure of itself smaller ones.

    Raises:
      ValueError: there is no error, or a sigma is not positive.
    """
    error, sigma = np.broadcast_arrays(np.asarray(error), np.asarray(sigma))
    if not error.size or not (sigma > 0).all():
        raise ValueError("coverage needs errors, and standard deviations above 0")
    away = np.abs(error) / sigma
    return {level: float((away <= stats.norm.ppf((1 + level) / 2)).mean()) for level in levels}
