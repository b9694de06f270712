"""Temporal convolutions and the per-frame network: sizes, both forms, padding, an oracle."""

import jax
import numpy as np
import pytest

from jaxcxr import models
from jaxcxr.errors import UserError

RNG = np.random.default_rng(0)
KEYPOINTS = RNG.normal(size=(2, 30, 17, 3)).astype(np.float32)
KEYPOINTS[..., 2] = 1


def small(**options):
    return models.create("pose_convolution", channels=8, **{"widths": (3, 3), **options})


@pytest.mark.parametrize(("widths", "expected"), [
    ((3, 3, 3), 8_555_571), ((3, 3, 3, 3), 12_753_971), ((3, 3, 3, 3, 3), 16_952_371),
])
def test_sizes_are_the_published_ones(widths, expected):
    model = models.create("pose_convolution", widths=widths)
    assert model.receptive_field == 3 ** len(widths)
    shapes = jax.eval_shape(model.init, jax.random.key(0), KEYPOINTS)
    assert sum(models.parameter_counts(shapes["params"]).values()) == expected


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("widths", [(3, 3), (3, 5, 3)])
def test_dilated_on_sequences_and_strided_on_windows_agree(draw, causal, widths):
    model = small(causal=causal, widths=widths)
    variables = draw(model, KEYPOINTS, scale=0.3)
    whole = jax.jit(model.apply)(variables, KEYPOINTS[:1])
    assert whole.shape == (1, 30, 17, 3)
    size = model.receptive_field
    reach = size - 1 if causal else size // 2
    padded = np.pad(KEYPOINTS[0], ((reach, size - 1 - reach), (0, 0), (0, 0)), mode="edge")
    windows = np.stack([padded[t : t + size] for t in range(30)])
    single = jax.jit(lambda v, x: model.apply(v, x, strided=True))(variables, windows)
    assert single.shape == (30, 1, 17, 3)
    np.testing.assert_allclose(single[:, 0], whole[0], atol=1e-5)


def test_against_convolutions_written_out(draw):
    model = small()
    variables = draw(model, KEYPOINTS, scale=0.3)
    params, stats = variables["params"]["backbone"], variables["batch_stats"]["backbone"]

    def convolve(x, kernel, gap):
        left = len(x) - (len(kernel) - 1) * gap
        return sum(x[i * gap : i * gap + left] @ tap for i, tap in enumerate(kernel))

    def after(x, name):
        p, s = params[name]["norm"], stats[name]["norm"]
        y = (x - s["mean"]) / np.sqrt(s["var"] + 1e-5) * p["scale"] + p["bias"]
        return np.maximum(y, 0)

    x = KEYPOINTS[1, ..., :2].reshape(30, -1)
    x = np.concatenate([x[:1].repeat(4, 0), x, x[-1:].repeat(4, 0)])
    x = after(convolve(x, params["convolution_0"]["kernel"], 1), "after_0")
    y = after(convolve(x, params["convolution_1"]["kernel"], 3), "after_1")
    x = x[3:-3] + after(convolve(y, params["mix_1"]["kernel"], 1), "mixed_1")
    head = variables["params"]["head"]
    expected = (x @ head["kernel"] + head["bias"]).reshape(30, 17, 3)
    found = jax.jit(model.apply)(variables, KEYPOINTS)[1]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["pose_convolution", "pose_frame"])
@pytest.mark.parametrize("inputs", ["screen", "standardized"])
def test_padding_is_as_if_it_were_not_there_in_training_too(draw, name, inputs):
    options = {"channels": 8, "widths": (3, 3)} if name == "pose_convolution" else {"width": 8}
    model = models.create(name, dropout=0.0, inputs=inputs, **options)
    variables = draw(model, KEYPOINTS, scale=0.3)
    short = KEYPOINTS[:, :11]
    padded = np.concatenate([short, np.full((2, 5, 17, 3), np.nan, np.float32)], 1)
    mask = np.broadcast_to(np.arange(16) < 11, (2, 16))

    @jax.jit
    def apply(x, mask):
        return model.apply(variables, x, mask=mask, train=True, mutable=["batch_stats"],
                           rngs={"dropout": jax.random.key(0)})

    alone, stats = apply(short, None)
    found, stats_padded = apply(padded, mask)
    np.testing.assert_allclose(found[:, :11], alone, atol=1e-5)
    for one, two in zip(jax.tree.leaves(stats), jax.tree.leaves(stats_padded), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_uncertainty_and_trajectory_are_asked_for():
    model = small(uncertainty=True, trajectory=True)
    found = jax.eval_shape(
        lambda key: model.init_with_output(key, KEYPOINTS)[0], jax.random.key(0)
    )
    shapes = {name: value.shape for name, value in found.items()}
    assert shapes["joints"] == (2, 30, 17, 3)
    assert (2, 30, 17) in shapes.values()
    assert (2, 30, 3) in shapes.values()


def test_unseen_joints_count_as_zero_whatever_they_hold(draw):
    model = models.create("pose_frame", width=8)
    x = KEYPOINTS[:1, :2].copy()
    x[0, 0, 3] = (0, 0, 0)
    variables = draw(model, x)
    found = jax.jit(model.apply)(variables, x)
    x[0, 0, 3] = (5, np.nan, 0)
    np.testing.assert_array_equal(jax.jit(model.apply)(variables, x), found)


def test_mistakes():
    with pytest.raises(UserError, match="odd numbers of taps"):
        jax.eval_shape(small(widths=(2, 3)).init, jax.random.key(0), KEYPOINTS)
    with pytest.raises(UserError, match="inputs='pixels'"):
        jax.eval_shape(small(inputs="pixels").init, jax.random.key(0), KEYPOINTS)
    with pytest.raises(UserError, match="windows of 9 frames, not 30"):
        jax.eval_shape(lambda k: small().init(k, KEYPOINTS, strided=True), jax.random.key(0))
