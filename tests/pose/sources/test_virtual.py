"""The simulated detector: each kind of error has the size that its option says."""

import numpy as np
import pytest

from jaxcxr.errors import UserError
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.sources.virtual import Detector

FPS = 50.0


def find(frames=20_000, **options):
    """Errors `[frames, 17, 2]` and confidence of a detector on points that stand still."""
    pixels = np.broadcast_to(500.0 + np.arange(17.0)[:, None] * [1, 2], (frames, 17, 2))
    seen = np.ones((frames, 17), bool)
    found, confidence = Detector(**options).find(pixels, seen, FPS, np.random.default_rng(0))
    return np.where(confidence[..., None] > 0, found - pixels, np.nan), confidence


def test_an_exact_detector_changes_nothing():
    error, confidence = find(10)
    np.testing.assert_array_equal(error, 0)
    np.testing.assert_array_equal(confidence, 1)


def test_noise_is_white_and_drift_is_slow():
    for name, lag in (("noise", 0.0), ("drift", np.exp(-1 / (0.2 * FPS)))):
        error, _ = find(**{name: 4.0})
        assert error.std() == pytest.approx(4.0, rel=0.03)
        one, two = error[:-1].ravel(), error[1:].ravel()
        assert np.corrcoef(one, two)[0, 1] == pytest.approx(lag, abs=0.02)
        apart = np.corrcoef(error[:, 0].T, error[:, 5].T)
        assert abs(apart[0, 2]) < 0.1  # joints err on their own


def test_misses_and_occlusions_take_their_share_and_occlusions_last():
    for name in ("dropout", "occlusion"):
        _, confidence = find(**{name: 0.2})
        missed = confidence == 0
        assert missed.mean() == pytest.approx(0.2, abs=0.01)
        starts = (missed[1:] & ~missed[:-1]).sum()
        length = missed.sum() / starts / FPS
        expected = 1 / 0.8 / FPS if name == "dropout" else 0.3
        assert length == pytest.approx(expected, rel=0.1)


def test_outliers_are_far_and_the_detector_doubts_them():
    error, confidence = find(noise=1.0, outliers=0.05)
    distance = np.linalg.norm(error, axis=-1)
    far = distance > 40
    assert far.mean() == pytest.approx(0.05, abs=0.005)
    assert confidence[far].max() < confidence[~far].min()
    assert confidence.min() >= 0.05


def test_sides_are_taken_for_each_other_as_whole_limbs():
    error, _ = find(100_000, swap=0.1)
    moved = np.abs(error).sum(-1) > 0
    legs = [HUMAN36M.index(f"{side}_{part}") for side in ("left", "right")
            for part in ("hip", "knee", "ankle")]
    arms = [HUMAN36M.index(f"{side}_{part}") for side in ("left", "right")
            for part in ("shoulder", "elbow", "wrist")]
    for limb in (legs, arms):
        assert moved[:, limb].mean() == pytest.approx(0.1, abs=0.02)
        assert np.all(moved[:, limb].all(1) == moved[:, limb].any(1))
    others = sorted(set(range(17)) - set(legs) - set(arms))
    assert not moved[:, others].any()


def test_what_is_not_in_the_image_is_never_found():
    seen = np.arange(17) % 2 == 0
    found, confidence = Detector(noise=2, drift=1, outliers=0.1).find(
        np.full((50, 17, 2), 300.0), np.broadcast_to(seen, (50, 17)), FPS, np.random.default_rng(1)
    )
    assert np.all(confidence[:, ~seen] == 0)
    assert np.all(found[:, ~seen] == 0)
    assert np.all(confidence[:, seen] > 0)


@pytest.mark.parametrize(("options", "match"), [
    ({"noise": -1.0}, "noise is -1.0 pixels"),
    ({"drift": float("nan")}, "drift is nan"),
    ({"dropout": 1.0}, "at least 0 and below 1"),
    ({"occlusion": -0.1}, "occlusion is -0.1"),
])
def test_impossible_options(options, match):
    with pytest.raises(UserError, match=match):
        Detector(**options)


def test_labels_tell_detectors_apart_and_old_names_stay():
    assert Detector(2.0, 0.02).label == "noise2_drop0.02"
    assert Detector(2.0, 0.02, occlusion=0.1, swap=0.01).label == "noise2_drop0.02_occ0.1_swap0.01"
