"""Intervals, paired tests, calibration and curves: NumPy and scikit-learn only."""
