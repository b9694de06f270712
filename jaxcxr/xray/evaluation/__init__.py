"""Metrics, calibration, subgroups and comparisons of findings."""
