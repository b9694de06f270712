import jax
import numpy as np
import pytest

from jaxcxr import models

IMAGES = np.random.default_rng(0).normal(size=(2, 32, 48, 3)).astype(np.float32)


def test_imagenet_stem_reduces_by_32_and_small_stem_by_8():
    sizes = {}
    for stem in ("imagenet", "small"):
        model = models.create("resnet18", width=8, stages=(1, 1, 1, 1), stem=stem)
        shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 64, 96, 1), np.float32))
        _, kept = jax.eval_shape(
            lambda v, m=model: m.apply(
                v, np.zeros((1, 64, 96, 1), np.float32), capture_intermediates=True
            ),
            shapes,
        )
        sizes[stem] = kept["intermediates"]["backbone"]["layer4_0"]["__call__"][0].shape
    assert sizes == {"imagenet": (1, 2, 3, 64), "small": (1, 8, 12, 64)}


def test_zero_init_starts_every_block_as_the_identity(draw):
    """The last BatchNorm scale is 0, so a block without shortcut layer returns relu(x) = x."""
    model = models.create("resnet50", width=8, stages=(2,), zero_init=True)
    variables = jax.jit(model.init)(jax.random.key(0), IMAGES)
    _, kept = jax.jit(lambda v: model.apply(v, IMAGES, capture_intermediates=True))(variables)
    kept = kept["intermediates"]["backbone"]
    first, second = (kept[name]["__call__"][0] for name in ("layer1_0", "layer1_1"))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first).max() > 0


def test_last_stage_is_named_for_the_stage_rules():
    shapes = jax.eval_shape(
        models.create("resnet50").init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32)
    )
    names = set(shapes["params"]["backbone"])
    assert {n for n in names if n.startswith("layer4")} == {"layer4_0", "layer4_1", "layer4_2"}
    assert set(shapes["params"]["backbone"]["layer4_0"]) == {
        "conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample_conv", "downsample_bn",
    }


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_vit_without_positions_ignores_the_order_of_patches(pool, draw):
    """With a zero position table only the content of the patches counts."""
    model = models.create("vit_tiny", dim=16, depth=2, heads=2, pool=pool)
    variables = draw(model, IMAGES, scale=0.3)
    shuffled = IMAGES.reshape(2, 2, 16, 3, 16, 3)[:, ::-1, :, ::-1].reshape(IMAGES.shape)
    assert np.abs(model.apply(variables, IMAGES) - model.apply(variables, shuffled)).max() > 1e-3
    variables["params"]["backbone"]["pos_embed"][:] = 0.0
    np.testing.assert_allclose(
        model.apply(variables, shuffled), model.apply(variables, IMAGES), atol=1e-5
    )


def test_vit_takes_images_of_any_shape():
    model = models.create("vit_small", patch=8, positions="sinusoidal", depth=1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    for size in ((8, 8), (64, 24)):
        logits = jax.eval_shape(model.apply, shapes, np.zeros((3, *size, 3), np.float32))
        assert logits.shape == (3, 15)


def test_head_dropout_is_active_only_while_training(draw):
    model = models.create("vit_tiny", dim=16, depth=1, heads=2, head_width=32, head_dropout=0.5)
    variables = draw(model, IMAGES, scale=0.3)
    quiet = model.apply(variables, IMAGES)
    np.testing.assert_array_equal(quiet, model.apply(variables, IMAGES))
    noisy = model.apply(variables, IMAGES, train=True, rngs={"dropout": jax.random.key(0)})
    assert np.abs(noisy - quiet).max() > 1e-2
