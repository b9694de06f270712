import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcxr import models, registry
from jaxcxr.errors import UserError

SMALL = {
    "resnet18": {"width": 8, "stages": (1, 1)},
    "resnet26": {"width": 8, "stages": (1, 1), "stem": "small"},
    "resnet50": {"width": 8, "stages": (2, 1), "remat": True},
    "resnet101": {"width": 8, "stages": (1, 1), "zero_init": True, "head_width": 0},
    "densenet121": {"width": 8, "stages": (2, 1), "growth": 4, "bn_size": 2, "remat": True},
    "vit_tiny": {"dim": 16, "depth": 1, "heads": 2, "patch": 8},
    "vit_small": {"dim": 16, "depth": 1, "heads": 2, "pool": "mean", "head_width": 8},
    "vit_base": {"dim": 16, "depth": 1, "heads": 4, "positions": "sinusoidal", "remat": True},
    "dinov2_small": {"dim": 16, "depth": 2, "heads": 2, "patch": 8, "registers": 2, "scan": True},
    "dinov2_base": {"dim": 16, "depth": 1, "heads": 4, "patch": 8, "pool": "mean", "registers": 1},
    "dinov2_large": {"dim": 16, "depth": 1, "heads": 4, "patch": 8, "head_width": 8},
    "convnext_tiny": {"stages": (1, 2), "widths": (8, 16), "drop_path": 0.1},
    "convnext_small": {"stages": (1, 1), "widths": (8, 8), "remat": "full", "head_width": 8},
    "convnext_base": {"stages": (1,), "widths": (8,)},
    "swin_tiny": {"dim": 8, "stages": (2, 2), "heads": (2, 4), "window": 4, "drop_path": 0.1},
    "swin_base": {"dim": 8, "stages": (1, 2), "heads": (1, 2), "window": 3, "remat": "full"},
    "pose_temporal": {"dim": 16, "depth": 1, "heads": 2, "causal": True},
    "pose_spatiotemporal": {"dim": 16, "depth": 1, "heads": 2, "positions": "learned"},
    "pose_convolution": {"channels": 8},
    "pose_frame": {"width": 8},
    "pose_dual_stream": {"dim": 16, "depth": 1, "heads": 2, "remat": True},
    "pose_recurrent": {"width": 8, "layers": 1, "bidirectional": True},
    "pose_seq2seq": {"width": 8, "attention": "luong"},
    "pose_encoder_decoder": {"dim": 16, "encoder_depth": 1, "decoder_depth": 1, "heads": 2},
}


def example(name):
    shape = (2, 5, 17, 3) if name.startswith("pose") else (2, 32, 32, 1)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def counts(name, shape, **options):
    model = models.create(name, **options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
    return models.parameter_counts(shapes["params"])


def test_small_options_cover_every_model():
    assert set(SMALL) == set(registry.MODELS)


def test_resnet50_of_the_thesis():
    assert counts("resnet50", (1, 64, 64, 3)) == {
        "backbone": 23_508_032, "head": 24_036_431 - 23_508_032,
    }


@pytest.mark.parametrize(
    ("name", "size", "total"),
    [  # as torchvision and timm print them, with 1000 classes
        ("resnet18", 64, 11_689_512),
        ("resnet26", 64, 15_995_176),
        ("resnet50", 64, 25_557_032),
        ("resnet101", 64, 44_549_160),
        ("densenet121", 64, 7_978_856),
        ("vit_tiny", 224, 5_717_416),
        ("vit_small", 224, 22_050_664),
        ("vit_base", 224, 86_567_656),
        ("convnext_tiny", 64, 28_589_128),
        ("convnext_small", 64, 50_223_688),
        ("convnext_base", 64, 88_591_464),
        ("swin_tiny", 224, 28_288_354),
        ("swin_base", 224, 87_768_224),
        ("dinov2_small", 518, 22_441_192),
        ("dinov2_base", 518, 87_348_712),
        ("dinov2_large", 518, 305_392_616),
    ],
)
def test_published_parameter_counts(name, size, total):
    found = counts(name, (1, size, size, 3), classes=1000, head_width=0)
    assert sum(found.values()) == total


@pytest.mark.parametrize("name", ["resnet50", "densenet121"])
def test_one_channel_input_only_shrinks_the_stem(name):
    gray, color = counts(name, (1, 64, 64, 1)), counts(name, (1, 64, 64, 3))
    assert color["backbone"] - gray["backbone"] == 7 * 7 * 64 * 2
    assert color["head"] == gray["head"]


@pytest.mark.parametrize("name", registry.MODELS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_trace_in_strict_promotion(name, dtype):
    """Parameters, statistics, gradients and outputs are float32 in any compute dtype."""
    model, x = models.create(name, dtype=dtype, **SMALL[name]), example(name)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype(np.float32)}
    assert set(shapes["params"]) == {"backbone", "head"}

    def loss(params, rest):
        output, updates = model.apply(
            {"params": params, **rest}, x, train=True,
            rngs={"dropout": jax.random.key(1)}, mutable=["batch_stats"],
        )
        assert output.dtype == jnp.float32
        return jnp.square(output).mean(), updates

    rest = {key: value for key, value in shapes.items() if key != "params"}
    gradient, updates = jax.eval_shape(jax.grad(loss, has_aux=True), shapes["params"], rest)
    assert jax.tree.structure(gradient) == jax.tree.structure(shapes["params"])
    assert {leaf.dtype for leaf in jax.tree.leaves((gradient, updates))} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", ["resnet50", "densenet121", "vit_tiny", "pose_spatiotemporal"])
def test_gradients_are_finite_and_reach_every_parameter(name, draw):
    model, x = models.create(name, **SMALL[name]), example(name)
    variables = draw(model, x)

    @jax.jit
    def gradient(params):
        def loss(params):
            output, _ = model.apply(
                {**variables, "params": params}, x, train=True,
                rngs={"dropout": jax.random.key(1)}, mutable=["batch_stats"],
            )
            return jnp.square(output - 1.0).mean()

        return jax.grad(loss)(params)

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(variables["params"])):
        assert np.isfinite(leaf).all(), path
        # A key bias moves all scores of a query alike, so softmax gives it no gradient.
        assert np.abs(leaf).max() > 0 or "key" in str(path), path


def test_bfloat16_stays_near_float32(draw):
    x = example("vit_tiny")
    full, half = (models.create("vit_tiny", dtype=d, **SMALL["vit_tiny"]) for d in
                  (jnp.float32, jnp.bfloat16))
    variables = draw(full, x)
    expected = jax.jit(full.apply)(variables, x)
    np.testing.assert_allclose(jax.jit(half.apply)(variables, x), expected, atol=0.05, rtol=0.05)


def test_batch_norm_is_told_its_mode_at_the_call():
    model, x = models.create("resnet50", **SMALL["resnet50"]), example("resnet50")
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    seen = []

    def spy(call, args, kwargs, context):
        if isinstance(context.module, nn.BatchNorm):
            seen.append(kwargs["use_running_average"])
        return call(*args, **kwargs)

    for train in (False, True):
        seen.clear()
        with nn.intercept_methods(spy):
            jax.eval_shape(
                lambda v, train=train: model.apply(
                    v, x, train=train, rngs={"dropout": jax.random.key(0)},
                    mutable=["batch_stats"],
                ),
                shapes,
            )
        # Stem; three blocks of three; a shortcut in the first block of each stage.
        assert seen == [not train] * (1 + 3 * 3 + 2)


def test_options_are_plain_values_and_build_the_same_model():
    for name in registry.MODELS:
        options = registry.model_options(name)
        assert all(isinstance(v, bool | int | float | str | tuple) for v in options.values())
        assert models.create(name, **options) == models.create(name)
    assert registry.model_options("vit_small")["dim"] == 384
    assert registry.model_options("resnet18")["stages"] == (2, 2, 2, 2)


def test_axis_name_reaches_batch_norm_only():
    assert models.create("resnet18", axis_name="batch").axis_name == "batch"
    assert not hasattr(models.create("vit_tiny", axis_name="batch"), "axis_name")


def test_unknown_names_are_met_with_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'resnet50'"):
        models.create("resnet5")
    with pytest.raises(UserError, match=r"Did you mean 'depth'.*mlp_ratio"):
        models.create("vit_tiny", dept=3)
    with pytest.raises(UserError, match=r"Options:.*stages"):
        models.create("resnet18", dtype=jnp.float32, parent=None)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", {"stem": "large"}, "'imagenet', 'stride2', 'stride1', 'small'"),
        ("densenet121", {"stem": "large"}, "'imagenet' or 'small'"),
        ("densenet121", {"stages": (1,) * 5}, "images of 32x32 are too small for the 5 stages"),
        ("vit_tiny", {"pool": "max"}, "'token' or 'mean'"),
        ("vit_tiny", {"positions": "none"}, "'learned' or 'sinusoidal'"),
        ("vit_tiny", {"attention": "mah"}, "Did you mean 'mha'"),
        ("vit_tiny", {"patch": 7}, "patches of 7"),
        ("vit_tiny", {"heads": 5}, "heads=5 does not divide"),
        ("vit_tiny", {"positions": "sinusoidal", "dim": 6}, "divisible by 4"),
        ("pose_temporal", {"positions": "rotary"}, "'sinusoidal' or 'learned'"),
        ("pose_temporal", {"dim": 15, "heads": 5}, "even width"),
        ("pose_temporal", {"positions": "learned", "max_length": 4}, "raise max_length"),
    ],
)
def test_impossible_values_say_what_to_change(name, options, message):
    model = models.create(name, **{**SMALL[name], **options})
    with pytest.raises(UserError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), example(name))
