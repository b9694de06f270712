"""Intervals, paired tests, metrics of rankings, rates, calibration: NumPy, SciPy, scikit-learn."""
