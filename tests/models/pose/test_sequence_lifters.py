"""Recurrent, sequence-to-sequence and two-stream lifters: padding, teachers, oracles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcxr import models
from jaxcxr.models.attention import factory
from jaxcxr.models.pose.inputs_outputs import frame_features
from jaxcxr.models.sequence import transformer

RNG = np.random.default_rng(0)
KEYPOINTS = RNG.normal(size=(2, 7, 17, 3)).astype(np.float32)
KEYPOINTS[..., 2] = np.abs(KEYPOINTS[..., 2])
JOINTS = RNG.normal(scale=0.3, size=(2, 7, 17, 3)).astype(np.float32)
SMALL = {
    "bilstm": ("pose_recurrent", {"width": 8, "bidirectional": True}),
    "gru_thesis": ("pose_recurrent", {"width": 8, "cell": "gru_thesis"}),
    "bahdanau": ("pose_seq2seq", {"width": 8, "layers": 2, "cell": "lstm"}),
    "luong": ("pose_seq2seq", {"width": 8, "attention": "luong", "bidirectional": False}),
    "transformer": (
        "pose_encoder_decoder", {"dim": 8, "encoder_depth": 1, "decoder_depth": 1, "heads": 2}
    ),
    "dual": ("pose_dual_stream", {
        "dim": 8, "depth": 1, "heads": 2, "attention": "1*fixed(2)+1*global",
        "joint_attention": "1*fixed(1)+1*global",
    }),
}
WRITERS = ("bahdanau", "luong", "transformer")
KEY = {"dropout": jax.random.key(0)}


def small(kind, **options):
    name, own = SMALL[kind]
    return models.create(name, **own, **options)


@pytest.mark.parametrize("kind", SMALL)
def test_padding_is_as_if_it_were_not_there(kind, draw):
    model = small(kind)
    variables = draw(model, KEYPOINTS, scale=0.3)
    padded = np.concatenate([KEYPOINTS, np.full((2, 3, 17, 3), np.nan, np.float32)], axis=1)
    mask = np.arange(10)[None] < np.array([[7], [7]])
    found = jax.jit(model.apply)(variables, padded, mask=mask)
    alone = jax.jit(model.apply)(variables, KEYPOINTS)
    np.testing.assert_allclose(found[:, :7], alone, atol=1e-5)
    assert np.isfinite(found).all()
    if kind == "bahdanau":
        assert np.abs(alone[:, 1:] - alone[:, :-1]).max() > 1e-3


@pytest.mark.parametrize("kind", ["bilstm", "luong", "dual"])
def test_padding_gives_no_gradient_and_no_nan(kind, draw):
    model = small(kind)
    variables = draw(model, KEYPOINTS, scale=0.3)
    mask = np.arange(7)[None] < np.array([[7], [4]])
    weight = mask[:, :, None, None].astype(np.float32)

    def loss(x):
        return (model.apply(variables, x, mask=mask) ** 2 * weight).sum()

    gradient = jax.jit(jax.grad(loss))(KEYPOINTS)
    np.testing.assert_array_equal(gradient[1, 4:], 0.0)
    assert (np.abs(gradient[1, :4]).max(axis=(1, 2)) > 0).all()
    assert np.isfinite(gradient).all()


def test_recurrent_layers_are_those_of_flax(draw):
    model = models.create("pose_recurrent", width=8, cell="lstm", layers=2)
    variables = draw(model, KEYPOINTS, scale=0.3)
    params = variables["params"]
    x = frame_features(KEYPOINTS, None)
    assert x.shape == (2, 7, 17 * 3 + 3)
    for layer in range(2):
        network = nn.RNN(nn.OptimizedLSTMCell(8))
        x = network.apply({"params": {"cell": params["backbone"][f"forward_{layer}"]}}, x)
    expected = (x @ params["head"]["kernel"] + params["head"]["bias"]).reshape(2, 7, 17, 3)
    np.testing.assert_allclose(jax.jit(model.apply)(variables, KEYPOINTS), expected, atol=1e-5)


@pytest.mark.parametrize("kind", WRITERS)
def test_taught_with_its_own_poses_it_writes_what_it_writes_alone(kind, draw):
    """Teacher forcing and decoding are one function: decoding is its fixed point."""
    model = small(kind, uncertainty=True)
    variables = draw(model, KEYPOINTS, scale=0.3)
    alone = jax.jit(model.apply)(variables, KEYPOINTS)
    taught = jax.jit(
        lambda joints: model.apply(variables, KEYPOINTS, joints=joints, train=True, rngs=KEY)
    )
    again = taught(alone["joints"])
    for name in ("joints", "log_variance"):
        np.testing.assert_allclose(again[name], alone[name], atol=1e-5)
    assert np.abs(taught(JOINTS)["joints"] - alone["joints"]).max() > 1e-3
    later = JOINTS.copy()
    later[:, 4:] += 1.0
    first, second = taught(JOINTS)["joints"], taught(later)["joints"]
    np.testing.assert_array_equal(first[:, :5], second[:, :5])
    assert np.abs(first[:, 5] - second[:, 5]).max() > 1e-3


@pytest.mark.parametrize("kind", ["bilstm", "bahdanau", "transformer", "dual"])
def test_a_head_writes_metres(kind, draw):
    """A unit on the output would slow the layer down: Adam's steps are of one size."""
    model = small(kind)
    variables = draw(model, KEYPOINTS, scale=0.3)
    higher = jax.tree.map(lambda leaf: leaf, variables)
    higher["params"]["head"]["bias"] = higher["params"]["head"]["bias"] + 0.01
    taught = {"joints": JOINTS, "train": True, "rngs": KEY} if kind in WRITERS else {}
    found = [model.apply(v, KEYPOINTS, **taught) for v in (variables, higher)]
    np.testing.assert_allclose(found[1] - found[0], 0.01, atol=1e-6)


def test_evaluation_does_not_look_at_the_truth(draw):
    model = small("luong")
    assert model.teacher_forcing
    variables = draw(model, KEYPOINTS, scale=0.3)
    alone = model.apply(variables, KEYPOINTS)
    np.testing.assert_array_equal(model.apply(variables, KEYPOINTS, joints=JOINTS), alone)


def test_noise_of_the_teacher_is_in_training_only(draw):
    model = small("luong", teacher_noise=0.1)
    variables = draw(model, KEYPOINTS, scale=0.3)
    found = [
        model.apply(variables, KEYPOINTS, joints=JOINTS, train=True,
                    rngs={"dropout": jax.random.key(seed)})
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0][:, 0], found[2][:, 0])
    assert np.abs(found[0] - found[2])[:, 1:].max() > 1e-4


def test_two_streams_by_hand(draw):
    model = models.create("pose_dual_stream", dim=8, depth=1, heads=2, positions="none")
    variables = draw(model, KEYPOINTS, scale=0.3)
    params = variables["params"]["backbone"]
    block = transformer.EncoderBlock(
        factory("mha", heads=2, dropout=0.0, dtype=jnp.float32), 2.0
    )

    def along(name, x, frames):
        x = np.swapaxes(x, 1, 2) if frames else x
        y = block.apply({"params": params[name]}, x.reshape(-1, *x.shape[2:])).reshape(x.shape)
        return np.swapaxes(y, 1, 2) if frames else y

    place = np.asarray(frame_features(KEYPOINTS, None))
    pose, place = place[..., :-3].reshape(2, 7, 17, 3), place[..., None, -3:]
    x = np.concatenate([pose, np.broadcast_to(place, pose.shape)], -1)
    x = x @ params["embed"]["kernel"] + params["embed"]["bias"] + params["joint_embed"]
    first = along("frames_0", along("joints_0", x, False), True)
    second = along("other_joints_0", along("other_frames_0", x, True), False)
    scores = np.concatenate([first, second], -1) @ params["fuse_0"]["kernel"]
    scores = np.exp(scores + params["fuse_0"]["bias"])
    share = scores / scores.sum(-1, keepdims=True)
    x = share[..., :1] * first + share[..., 1:] * second
    x = transformer.LayerNorm().apply({"params": params["norm"]}, x)
    head = variables["params"]["head"]
    expected = x @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)(variables, KEYPOINTS), expected, atol=1e-4)

