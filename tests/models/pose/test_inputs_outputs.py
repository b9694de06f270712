import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr import models
from jaxcxr.models.pose import inputs_outputs
from jaxcxr.models.pose.inputs_outputs import FIRST_DEPTH, FIRST_SIGMA, Outputs

RNG = np.random.default_rng(0)
XY = RNG.normal(scale=0.2, size=(2, 5, 17, 2)).astype(np.float32)
CONFIDENCE = RNG.uniform(0.1, 1.0, size=(2, 5, 17, 1)).astype(np.float32)
CONFIDENCE[0, 1, 3] = 0.0
KEYPOINTS = np.concatenate([XY, CONFIDENCE], -1)


def moved(scale, shift):
    return np.concatenate([XY * np.float32(scale) + np.float32(shift), CONFIDENCE], -1)


def test_pose_and_place_restore_the_seen_keypoints():
    pose, place = inputs_outputs.standardize(KEYPOINTS)
    restored = pose[..., :2] * np.exp(place[:, :, None, 2:]) + place[:, :, None, :2]
    seen = CONFIDENCE[..., 0] > 0
    np.testing.assert_allclose(restored[seen], XY[seen], atol=1e-6)
    np.testing.assert_array_equal(pose[..., 2:], CONFIDENCE)


def test_centre_and_extent_are_numpys_weighted_mean_and_deviation():
    _, place = inputs_outputs.standardize(KEYPOINTS)
    for clip, frame in np.ndindex(2, 5):
        xy, weight = XY[clip, frame], CONFIDENCE[clip, frame, :, 0]
        centre = np.average(xy, axis=0, weights=weight)
        square = np.average(((xy - centre) ** 2).sum(-1), weights=weight)
        extent = np.log(np.hypot(np.sqrt(square), inputs_outputs.LEAST_EXTENT))
        np.testing.assert_allclose(place[clip, frame], [*centre, extent], atol=1e-5)


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_pose_does_not_depend_on_where_and_how_large_it_stands(shift):
    before, _ = inputs_outputs.standardize(KEYPOINTS)
    after, place = inputs_outputs.standardize(moved(2.0, shift))
    # The least extent keeps the scale from dropping out exactly.
    np.testing.assert_allclose(after, before, atol=6e-3)
    assert (np.abs(place[..., :2] - shift) < 0.5).all()


def test_a_joint_that_was_not_seen_counts_nowhere_whatever_it_holds():
    other = KEYPOINTS.copy()
    other[0, 1, 3, :2] = np.nan
    standardize = inputs_outputs.standardize
    for a, b in zip(standardize(KEYPOINTS), standardize(other), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(inputs_outputs.standardize(other)[0][0, 1, 3], 0.0)


@pytest.mark.parametrize("seen", [0, 1])
def test_frames_with_hardly_a_joint_are_finite(seen):
    few = KEYPOINTS.copy()
    few[:, 2, seen:, 2] = 0.0
    pose, place = inputs_outputs.standardize(few)
    np.testing.assert_array_equal(pose[:, 2, seen:], 0.0)
    np.testing.assert_allclose(pose[:, 2, :seen, :2], 0.0, atol=1e-5)
    np.testing.assert_allclose(place[:, 2, 2], np.log(inputs_outputs.LEAST_EXTENT), atol=1e-5)


def test_features_are_float32_and_see_no_other_frame():
    pose, place = inputs_outputs.standardize(jnp.asarray(KEYPOINTS, jnp.bfloat16))
    assert pose.dtype == place.dtype == jnp.float32
    alone = inputs_outputs.standardize(KEYPOINTS[:, 3:4])
    for whole, one in zip(inputs_outputs.standardize(KEYPOINTS), alone, strict=True):
        np.testing.assert_array_equal(whole[:, 3:4], one)


DRAWN = np.random.default_rng(0)


def test_numbers_of_frames_by_hand():
    outputs = Outputs(17, uncertainty=True, trajectory=True)
    y = DRAWN.normal(size=(2, 5, outputs.width)).astype(np.float32)
    found = outputs.of_frames(jnp.asarray(y))
    np.testing.assert_array_equal(found["joints"], y[..., :51].reshape(2, 5, 17, 3))
    sigma = np.exp(found["log_variance"] / 2)
    np.testing.assert_allclose(sigma, FIRST_SIGMA * np.exp(y[..., 51:68] / 2), rtol=1e-5)
    depth = FIRST_DEPTH * np.exp(y[..., 70])
    expected = np.stack([y[..., 68] * depth, y[..., 69] * depth, depth], -1)
    np.testing.assert_allclose(found["root"], expected, rtol=1e-5)


def test_numbers_of_joints_are_those_of_frames():
    frames, joints = (Outputs(17, True, True) for _ in range(2))
    y = DRAWN.normal(size=(2, 5, 17, joints.joint_width)).astype(np.float32)
    flat = np.concatenate(
        [y[..., :3].reshape(2, 5, 51), y[..., 3], y[..., 4:].mean(-2)], -1
    )
    expected, found = frames.of_frames(jnp.asarray(flat)), joints.of_joints(jnp.asarray(y))
    for name in ("joints", "log_variance", "root"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)


def test_extreme_numbers_stay_finite_and_before_the_camera():
    outputs = Outputs(17, True, True)
    for value in (-1e9, 1e9):
        found = outputs.of_frames(jnp.full((1, 1, outputs.width), value))
        assert np.isfinite(np.exp(found["log_variance"])).all()
        assert (found["root"][..., 2] > 0).all()


@pytest.mark.parametrize("name", [
    "pose_temporal", "pose_spatiotemporal", "pose_dual_stream", "pose_recurrent", "pose_seq2seq",
    "pose_encoder_decoder",
])
def test_options_of_every_model(name):
    x = np.zeros((2, 5, 17, 3), np.float32)
    expected = {"joints": (2, 5, 17, 3), "log_variance": (2, 5, 17), "root": (2, 5, 3)}
    for options, names in (
        ({"uncertainty": True}, ("joints", "log_variance")),
        ({"trajectory": True}, ("joints", "root")),
        ({"uncertainty": True, "trajectory": True}, tuple(expected)),
    ):
        model = models.create(name, dtype=jnp.bfloat16, **options)
        shapes, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
        assert {key: shape.shape for key, shape in shapes.items()} == {
            key: expected[key] for key in names
        }
        assert {shape.dtype for shape in shapes.values()} == {np.dtype(np.float32)}
        assert set(variables["params"]) == {"backbone", "head"}
