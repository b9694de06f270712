"""Frame by frame equals the whole sequence, for every kind that can run on a stream."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr import models
from jaxcxr.errors import UserError
from jaxcxr.models.layers import sinusoidal
from jaxcxr.models.pose import streaming
from jaxcxr.models.pose.streaming import _sinusoidal

LENGTH = 9
KEYPOINTS = np.random.default_rng(0).normal(size=(2, LENGTH, 17, 3)).astype(np.float32)
KEYPOINTS[..., 2] = np.abs(KEYPOINTS[..., 2])
SMALL = {"dim": 8, "depth": 2, "heads": 2, "causal": True}
FLEXIBLE = "1*adaptive(2)/table+1*fixed(3)/alibi"


def streamed(model, variables, *, frames=LENGTH, last=LENGTH):
    stream, carry = streaming.start(model, variables, 2, frames=frames)
    step, poses = jax.jit(stream.step), []
    for t in range(last + stream.latency):
        there = t < last
        frame = KEYPOINTS[:, t] if there else np.full((2, 17, 3), np.nan, np.float32)
        carry, pose = step(carry, frame, there)
        poses.append(pose)
    return jax.tree.map(lambda *all_: np.stack(all_, 1), *poses[stream.latency:])


@pytest.mark.parametrize(("name", "options"), [
    ("pose_temporal", SMALL),
    ("pose_temporal", {**SMALL, "latency": 3, "norm": "post"}),
    ("pose_temporal", {**SMALL, "latency": 2, "attention": FLEXIBLE, "positions": "none"}),
    ("pose_temporal", {**SMALL, "attention": f"mha|{FLEXIBLE}", "positions": "learned"}),
    ("pose_spatiotemporal", {**SMALL, "latency": 2, "uncertainty": True}),
    ("pose_dual_stream", {**SMALL, "depth": 1, "latency": 1, "attention": "2*fixed(2)"}),
    ("pose_recurrent", {"width": 8, "cell": "lstm", "trajectory": True}),
    ("pose_recurrent", {"width": 8, "cell": "gru_thesis", "layers": 1}),
    ("pose_convolution", {"channels": 8, "widths": (3, 3), "causal": True}),
    ("pose_convolution", {"channels": 8, "widths": (3, 3)}),
    ("pose_frame", {"width": 8}),
], ids=str)
def test_frame_by_frame_is_all_at_once(draw, name, options):
    model = models.create(name, **options)
    variables = draw(model, KEYPOINTS, scale=0.3)
    expected = jax.jit(model.apply)(variables, KEYPOINTS)
    found = streamed(model, variables)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


@pytest.mark.parametrize("latency", [0, 1, 3])
def test_a_latency_is_what_a_frame_sees(draw, latency):
    """Exactly the frames up to so many after a frame change it, and the weights are the same."""
    model = models.create("pose_temporal", **SMALL, latency=latency)
    variables = draw(model, KEYPOINTS, scale=0.3)
    assert jax.tree.structure(variables) == jax.tree.structure(
        draw(models.create("pose_temporal", **SMALL), KEYPOINTS)
    )
    moved = KEYPOINTS.copy()
    moved[:, 5] += 1.0
    lift = jax.jit(model.apply)
    change = np.abs(lift(variables, moved) - lift(variables, KEYPOINTS)).max((0, 2, 3))
    assert (change[: 5 - latency] == 0).all()
    assert (change[5 - latency :] > 0).all()


def test_what_is_kept_is_what_is_seen(draw):
    """After `frames` frames the oldest are forgotten, as by heads that see no further."""
    model = models.create("pose_temporal", **SMALL, positions="none")
    near = models.create("pose_temporal", **SMALL, positions="none", attention="2*fixed(4)")
    variables = draw(model, KEYPOINTS, scale=0.3)
    expected = jax.jit(near.apply)(variables, KEYPOINTS)
    found = streamed(model, variables, frames=4)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_positions_are_exact_after_hours():
    for frame in (0, 1, 242, 1023, 1024, 123_456, 1_000_000):
        found = jax.jit(_sinusoidal, static_argnums=1)(jnp.int32(frame), 64)
        expected = sinusoidal(np.array(frame), 64)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(("name", "options", "message"), [
    ("pose_temporal", {}, "causal=True"),
    ("pose_temporal", {"causal": True, "attention": "performer"}, "all frames at once"),
    ("pose_recurrent", {"bidirectional": True}, "bidirectional"),
    ("pose_seq2seq", {}, "reads the whole sequence"),
])
def test_models_that_cannot(name, options, message):
    with pytest.raises(UserError, match=message):
        streaming.start(models.create(name, **options), {}, 1, frames=4)


@pytest.mark.parametrize("options", [{"latency": 2}, {"causal": True, "latency": -1}])
def test_a_latency_needs_a_causal_model(options):
    model = models.create("pose_temporal", dim=8, depth=1, heads=2, **options)
    with pytest.raises(UserError, match="only a causal model has a latency"):
        jax.eval_shape(model.init, jax.random.key(0), KEYPOINTS)
