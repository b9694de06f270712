"""Intervals, paired tests, metrics of rankings, rates, calibration: NumPy, SciPy, scikit-learn."""

POSITIVE, NEGATIVE, UNKNOWN = 1, 0, -1  # values of a label
