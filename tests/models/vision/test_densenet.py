import re

import jax
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from jaxcxr import models
from jaxcxr.errors import UserError
from jaxcxr.models.weights import pretrained

COLOR = np.random.default_rng(0).normal(size=(2, 32, 48, 3)).astype(np.float32)
GRAY = COLOR[..., :1]


def tiny(**options):
    sizes = {"width": 8, "stages": (2, 3), "growth": 4, "bn_size": 2}
    return models.create("densenet121", classes=3, head_width=0, **{**sizes, **options})


def torchvision_names(variables, names="current"):
    """The inverse of the loader's table, written on its own: our variables as torchvision's."""
    arrays = {}
    for (_, group, *path), value in traverse_util.flatten_dict(variables).items():
        *layer, leaf = ["classifier", path[-1]] if group == "head" else ["features", *path]
        if group == "head" and names == "chexnet":
            layer.append("0")
        name = re.sub(r"(denseblock\d)_", r"\1.denselayer", ".".join(layer))
        if names != "current" and "denselayer" in name:
            name = re.sub(r"(norm|conv)(\d)$", r"\1.\2", name)
        if names == "chexnet":
            name = f"densenet121.{name}"
        if leaf == "kernel":
            value = value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1)
        renamed = {"mean": "running_mean", "var": "running_var", "bias": "bias"}
        arrays[f"{name}.{renamed.get(leaf, 'weight')}"] = np.ascontiguousarray(value)
        if leaf == "mean" and names == "current":
            arrays[f"{name}.num_batches_tracked"] = np.array(7)
    return arrays


def test_densenet121_without_its_classifier():
    for channels, expected in ((3, 6_953_856), (1, 6_953_856 - 2 * 7 * 7 * 64)):
        shapes = jax.eval_shape(
            models.create("densenet121").init, jax.random.key(0), np.zeros((1, 64, 64, channels))
        )
        assert models.parameter_counts(shapes["params"])["backbone"] == expected


def test_last_block_is_named_for_the_stage_rules():
    shapes = jax.eval_shape(
        models.create("densenet121").init, jax.random.key(0), np.zeros((1, 64, 64, 1))
    )
    backbone = shapes["params"]["backbone"]
    paths = {f"backbone/{name}" for name in backbone}
    chosen = {path for path in paths if re.search("^backbone/denseblock4", path)}
    assert chosen == {f"backbone/denseblock4_{i}" for i in range(1, 17)}
    assert paths - {p for p in paths if "denseblock" in p} == {
        f"backbone/{name}"
        for name in ("conv0", "norm0", "transition1", "transition2", "transition3", "norm5")
    }
    # Every layer sees the block's input and the 32 channels of each layer before it.
    seen = [backbone[f"denseblock4_{i}"]["conv1"]["kernel"].shape[2] for i in range(1, 17)]
    assert seen == list(range(512, 1024, 32))
    assert backbone["norm5"]["scale"].shape == (1024,)


def test_imagenet_stem_reduces_by_32_and_small_stem_by_8():
    sizes = {}
    for stem in ("imagenet", "small"):
        model, images = tiny(stages=(1, 1, 1, 1), stem=stem), np.zeros((1, 64, 96, 1), np.float32)
        shapes = jax.eval_shape(model.init, jax.random.key(0), images)
        _, kept = jax.eval_shape(
            lambda v, m=model, x=images: m.apply(v, x, capture_intermediates=True), shapes
        )
        sizes[stem] = kept["intermediates"]["backbone"]["denseblock4_1"]["__call__"][0].shape
    assert sizes == {"imagenet": (1, 2, 3, 4), "small": (1, 8, 12, 4)}


def test_recomputing_changes_neither_output_nor_gradient(draw):
    plain, remat = tiny(), tiny(remat=True)
    variables = draw(plain, GRAY)

    def loss(params, model):
        logits, _ = model.apply(
            {**variables, "params": params}, GRAY, train=True,
            rngs={"dropout": jax.random.key(0)}, mutable=["batch_stats"],
        )
        return (logits**2).sum()

    gradient = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    expected, found = gradient(variables["params"], plain), gradient(variables["params"], remat)
    assert np.abs(expected[0]) > 0
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), expected, found
    )


@pytest.mark.parametrize("names", ["current", "legacy", "chexnet"])
def test_weights_are_read_under_every_name_in_use(tmp_path, draw, names):
    source, target = draw(tiny(), COLOR, 1), draw(tiny(), COLOR, 2)
    arrays = torchvision_names(source, names)
    layer = {
        "current": "features.denseblock2.denselayer3.norm1.running_var",
        "legacy": "features.denseblock2.denselayer3.norm.1.running_var",
        "chexnet": "densenet121.features.denseblock2.denselayer3.norm.1.running_var",
    }
    assert layer[names] in arrays
    save_file(arrays, tmp_path / "w.safetensors")
    whole = pretrained.load(tmp_path / "w.safetensors", target, "densenet121", skip_head=False)
    jax.tree.map(np.testing.assert_array_equal, whole, source)
    part = pretrained.load(tmp_path / "w.safetensors", target, "densenet121")
    jax.tree.map(np.testing.assert_array_equal, part["params"]["head"], target["params"]["head"])
    jax.tree.map(np.testing.assert_array_equal, part["batch_stats"], source["batch_stats"])


def test_one_channel_model_responds_as_to_three_identical_channels(tmp_path, draw):
    model = tiny()
    source = draw(model, COLOR, 1)
    save_file(torchvision_names(source), tmp_path / "w.safetensors")
    loaded = pretrained.load(
        tmp_path / "w.safetensors", draw(model, GRAY, 2), "densenet121", skip_head=False
    )
    expected = jax.jit(model.apply)(source, GRAY.repeat(3, axis=-1))
    np.testing.assert_allclose(jax.jit(model.apply)(loaded, GRAY), expected, atol=1e-4, rtol=1e-4)


def test_a_file_of_another_depth_is_refused_with_the_names(tmp_path, draw):
    save_file(torchvision_names(draw(tiny(stages=(2, 2)), COLOR)), tmp_path / "w.safetensors")
    with pytest.raises(UserError) as caught:
        pretrained.load(tmp_path / "w.safetensors", draw(tiny(), COLOR), "densenet121")
    assert "params/backbone/denseblock2_3/conv1/kernel" in str(caught.value)
    assert re.search(r"norm5\.weight \(16,\) for params/backbone/norm5/scale \(20,\)",
                     str(caught.value))
