"""Calibrated probabilities and findings of scores, with NumPy alone."""

import numpy as np

from jaxcxr.xray.evaluation.calibration import Calibration


def findings(path: str, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reads a calibration.json and applies it to logits `[images, classes]`."""
    calibration = Calibration.load(path)
    probabilities = calibration.probabilities(logits)
    return probabilities, calibration.findings(probabilities)
