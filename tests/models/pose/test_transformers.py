import jax
import numpy as np
import pytest

from jaxcxr import models

KEYPOINTS = np.random.default_rng(0).normal(size=(2, 7, 17, 3)).astype(np.float32)
KEYPOINTS[..., 2] = np.abs(KEYPOINTS[..., 2])  # a confidence
NAMES = ("pose_temporal", "pose_spatiotemporal")


def small(name, **options):
    return models.create(name, dim=16, depth=1, heads=2, **options)


@pytest.mark.parametrize("name", NAMES)
def test_padding_is_as_if_it_were_not_there(name, draw):
    """Holds for any length at apply time, and whatever the padded frames hold."""
    model = small(name)
    variables = draw(model, KEYPOINTS, scale=0.3)
    padded = np.concatenate([KEYPOINTS, np.full((2, 3, 17, 3), np.nan, np.float32)], axis=1)
    mask = np.arange(10)[None] < np.array([[7], [4]])
    found = jax.jit(model.apply)(variables, padded, mask=mask)
    assert found.shape == (2, 10, 17, 3)
    for index, length in ((0, 7), (1, 4)):
        alone = jax.jit(model.apply)(variables, KEYPOINTS[index : index + 1, :length])
        np.testing.assert_allclose(found[index, :length], alone[0], atol=1e-5)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", NAMES)
def test_padding_gives_no_gradient_and_no_nan(name, draw):
    model = small(name)
    variables = draw(model, KEYPOINTS, scale=0.3)
    mask = np.arange(7)[None] < np.array([[7], [4]])

    weight = mask[:, :, None, None].astype(np.float32)

    def loss(x):
        return (model.apply(variables, x, mask=mask) ** 2 * weight).sum()

    gradient = jax.jit(jax.grad(loss))(KEYPOINTS)
    np.testing.assert_array_equal(gradient[1, 4:], 0.0)
    assert (np.abs(gradient[1, :4]).max(axis=(1, 2)) > 0).all()
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_causal_model_on_a_stream_equals_the_whole_clip(name, draw):
    model = small(name, causal=True)
    variables = draw(model, KEYPOINTS, scale=0.3)
    whole = jax.jit(model.apply)(variables, KEYPOINTS)
    start = jax.jit(model.apply)(variables, KEYPOINTS[:, :4])
    np.testing.assert_allclose(start, whole[:, :4], atol=1e-5)
    # A padding mask is combined with the causal one, not put in its place.
    masked = jax.jit(model.apply)(variables, KEYPOINTS, mask=np.arange(7)[None] < [[7], [4]])
    np.testing.assert_allclose(masked[:, :4], start, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_frames_and_joints_see_each_other(name, draw):
    """Every output depends on every frame and every joint of the input."""
    model = small(name)
    variables = draw(model, KEYPOINTS, scale=0.3)
    moved = KEYPOINTS.copy()
    moved[:, 6, 16, 0] += 1.0
    lift = jax.jit(model.apply)
    change = np.abs(lift(variables, moved) - lift(variables, KEYPOINTS))
    assert (change.max(-1) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_learned_positions_distinguish_frames(name, draw):
    still = np.repeat(KEYPOINTS[:, :1], 7, axis=1)
    model = small(name, positions="learned", max_length=9)
    variables = draw(model, still, scale=0.3)
    output = jax.jit(model.apply)(variables, still)
    assert np.abs(output[:, 1:] - output[:, :1]).max() > 1e-3
    assert variables["params"]["backbone"]["positions"]["embedding"].shape == (9, 16)
