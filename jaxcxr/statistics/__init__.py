"""Intervals, paired tests, metrics of rankings and rates, calibration: NumPy and scikit-learn only."""
