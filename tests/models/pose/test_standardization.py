import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr.models.pose import standardization

RNG = np.random.default_rng(0)
XY = RNG.normal(scale=0.2, size=(2, 5, 17, 2)).astype(np.float32)
CONFIDENCE = RNG.uniform(0.1, 1.0, size=(2, 5, 17, 1)).astype(np.float32)
CONFIDENCE[0, 1, 3] = 0.0
KEYPOINTS = np.concatenate([XY, CONFIDENCE], -1)


def moved(scale, shift):
    return np.concatenate([XY * np.float32(scale) + np.float32(shift), CONFIDENCE], -1)


def test_pose_and_place_restore_the_seen_keypoints():
    pose, place = standardization.standardize(KEYPOINTS)
    restored = pose[..., :2] * np.exp(place[:, :, None, 2:]) + place[:, :, None, :2]
    seen = CONFIDENCE[..., 0] > 0
    np.testing.assert_allclose(restored[seen], XY[seen], atol=1e-6)
    np.testing.assert_array_equal(pose[..., 2:], CONFIDENCE)


def test_centre_and_extent_are_numpys_weighted_mean_and_deviation():
    _, place = standardization.standardize(KEYPOINTS)
    for clip, frame in np.ndindex(2, 5):
        xy, weight = XY[clip, frame], CONFIDENCE[clip, frame, :, 0]
        centre = np.average(xy, axis=0, weights=weight)
        square = np.average(((xy - centre) ** 2).sum(-1), weights=weight)
        extent = np.log(np.hypot(np.sqrt(square), standardization.LEAST_EXTENT))
        np.testing.assert_allclose(place[clip, frame], [*centre, extent], atol=1e-5)


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_pose_does_not_depend_on_where_and_how_large_it_stands(shift):
    before, _ = standardization.standardize(KEYPOINTS)
    after, place = standardization.standardize(moved(2.0, shift))
    # The least extent keeps the scale from dropping out exactly.
    np.testing.assert_allclose(after, before, atol=6e-3)
    assert (np.abs(place[..., :2] - shift) < 0.5).all()


def test_a_joint_that_was_not_seen_counts_nowhere_whatever_it_holds():
    other = KEYPOINTS.copy()
    other[0, 1, 3, :2] = np.nan
    standardize = standardization.standardize
    for a, b in zip(standardize(KEYPOINTS), standardize(other), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(standardization.standardize(other)[0][0, 1, 3], 0.0)


@pytest.mark.parametrize("seen", [0, 1])
def test_frames_with_hardly_a_joint_are_finite(seen):
    few = KEYPOINTS.copy()
    few[:, 2, seen:, 2] = 0.0
    pose, place = standardization.standardize(few)
    np.testing.assert_array_equal(pose[:, 2, seen:], 0.0)
    np.testing.assert_allclose(pose[:, 2, :seen, :2], 0.0, atol=1e-5)
    np.testing.assert_allclose(place[:, 2, 2], np.log(standardization.LEAST_EXTENT), atol=1e-5)


def test_features_are_float32_and_see_no_other_frame():
    pose, place = standardization.standardize(jnp.asarray(KEYPOINTS, jnp.bfloat16))
    assert pose.dtype == place.dtype == jnp.float32
    alone = standardization.standardize(KEYPOINTS[:, 3:4])
    for whole, one in zip(standardization.standardize(KEYPOINTS), alone, strict=True):
        np.testing.assert_array_equal(whole[:, 3:4], one)
