"""Predictions of a bundle or a run: findings in radiographs, and 3D poses."""
