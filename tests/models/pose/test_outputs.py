"""What heads give: the same numbers whether frames or joints have them, their first values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr import models
from jaxcxr.models.pose.outputs import FIRST_DEPTH, FIRST_SIGMA, Outputs

RNG = np.random.default_rng(0)


def test_numbers_of_frames_by_hand():
    outputs = Outputs(17, uncertainty=True, trajectory=True)
    y = RNG.normal(size=(2, 5, outputs.width)).astype(np.float32)
    found = outputs.of_frames(jnp.asarray(y))
    np.testing.assert_array_equal(found["joints"], y[..., :51].reshape(2, 5, 17, 3))
    sigma = np.exp(found["log_variance"] / 2)
    np.testing.assert_allclose(sigma, FIRST_SIGMA * np.exp(y[..., 51:68] / 2), rtol=1e-5)
    depth = FIRST_DEPTH * np.exp(y[..., 70])
    expected = np.stack([y[..., 68] * depth, y[..., 69] * depth, depth], -1)
    np.testing.assert_allclose(found["root"], expected, rtol=1e-5)


def test_numbers_of_joints_are_those_of_frames():
    frames, joints = (Outputs(17, True, True) for _ in range(2))
    y = RNG.normal(size=(2, 5, 17, joints.joint_width)).astype(np.float32)
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
