"""Metrics of both tasks: NumPy and scikit-learn only, no framework."""
