"""Coverage against the normal distribution."""

import numpy as np
import pytest

from jaxcxr.metrics import calibration


def test_a_calibrated_model_covers_what_it_says():
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.5, 2.0, (200_000, 1))
    error = rng.normal(size=(200_000, 3)) * sigma
    for level, share in calibration.coverage(error, sigma).items():
        assert share == pytest.approx(level, abs=3e-3)
    sure = calibration.coverage(error, sigma / 2)
    assert sure[0.95] == pytest.approx(0.673, abs=3e-3)  # P(|z| < 0.98)


def test_bounds_count_and_mistakes_are_refused():
    assert calibration.coverage([0.0, 1.0, 9.0], 1.0, (0.9,)) == {0.9: 2 / 3}
    for error, sigma in (([1.0], 0.0), ([1.0], np.nan), (np.zeros(0), 1.0)):
        with pytest.raises(ValueError, match="above 0"):
            calibration.coverage(error, sigma)
