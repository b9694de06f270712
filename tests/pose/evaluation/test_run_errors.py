"""Errors of a run from the predictions it left."""

import numpy as np
import pytest

from jaxcxr.errors import UserError
from jaxcxr.pose.evaluation import mean_errors, run_errors

RNG = np.random.default_rng(0)
KEYS = [f"03/03_{take:02d}/{camera}" for take in (1, 2, 3) for camera in ("a", "b")]


def poses(frames):
    return RNG.normal(0, 0.3, (frames, 17, 3)).astype(np.float32)


def workdir(folder, noise=0.05):
    (folder / "predictions").mkdir(parents=True)
    truth = {key: poses(5 + i) for i, key in enumerate(KEYS)}
    guess = {key: one + RNG.normal(0, noise, one.shape).astype(np.float32)
             for key, one in truth.items()}
    np.savez(folder / "predictions" / "test_labels.npz", unit="m", **truth)
    np.savez(folder / "predictions" / "test.npz", unit="m", **guess)
    return truth, guess


def test_means_are_those_of_the_metrics_over_all_frames(tmp_path):
    truth, guess = workdir(tmp_path)
    sums = run_errors.sequence_sums(tmp_path)
    assert list(sums) == KEYS
    y, x = (np.concatenate(list(part.values())) * 1000 for part in (truth, guess))
    names = np.repeat(KEYS, [len(part) for part in truth.values()])
    expected = {
        "mpjpe": mean_errors.mpjpe(x, y), "p_mpjpe": mean_errors.p_mpjpe(x, y),
        "mpjve": mean_errors.mpjve(x, y, sequences=names),
    }
    for name, (value, low, high) in run_errors.overall(sums).items():
        assert value == pytest.approx(expected.pop(name), rel=1e-5)
        assert low < value < high
    assert not expected


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="test_labels"):
        run_errors.sequence_sums(tmp_path)
