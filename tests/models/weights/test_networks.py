"""The network is found in a file behind any prefix and wrapper."""

import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from jaxcxr import models
from jaxcxr.errors import UserError
from jaxcxr.models.weights import networks, pretrained
from tests.models.weights.test_pretrained import assert_trees_equal, torchvision_names

COLOR = np.zeros((1, 32, 32, 3), np.float32)


def resnet():
    return models.create("resnet18", width=4, stages=(1, 1), classes=3, head_width=0)


@pytest.fixture
def pair(draw):
    """Variables of two networks of one geometry."""
    return draw(resnet(), COLOR, 1), draw(resnet(), COLOR, 2)


def save(path, *parts, **extra):
    """A file of several networks, each (prefix, variables), and other tensors."""
    arrays = {prefix + name: value for prefix, variables in parts
              for name, value in torchvision_names(variables).items()}
    save_file({**arrays, **{k.replace("__", "."): v for k, v in extra.items()}}, path)
    return path


PREFIXES = (
    "", "module.", "model.", "backbone.", "encoder.", "encoder_q.", "_orig_mod.", "net.", "vision/",
    "module._orig_mod.", "state_dict.model.", "teacher.module.backbone.", "a.b.c.d.e.f.g.",
    "image_encoder.model.0.", "fc.", "layer1.",
)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_prefix(tmp_path, pair, prefix):
    source, target = pair
    path = save(tmp_path / "w", (prefix, source), criterion__weight=np.zeros(3, np.float32)
                ) if prefix else save(tmp_path / "w", ("", source))
    loaded = pretrained.load(path, target, "resnet18", skip_head=False)
    assert_trees_equal(loaded, source)
    said = networks.open_file(path, "resnet18").describe()
    assert prefix.rstrip("./") in said
    assert ("not criterion" in said) == bool(prefix)


@pytest.mark.parametrize(
    ("taken", "other"),
    [("teacher.", "student."), ("model_ema.", "model."), ("state_dict_ema.", "state_dict."),
     ("ema.module.", "model.module."), ("module.encoder_q.", "module.encoder_k."),
     ("module.base_encoder.", "module.momentum_encoder."),
     ("teacher.backbone.", "student.module.backbone.")],
)
def test_of_two_copies_the_one_that_its_authors_evaluate(tmp_path, pair, taken, other):
    source, target = pair
    path = save(tmp_path / "w", (other, target), (taken, source))
    assert_trees_equal(pretrained.load(path, target, "resnet18", skip_head=False), source)
    part = other.rstrip(".")
    found = pretrained.load(path, source, "resnet18", part=part, skip_head=False)
    assert_trees_equal(found, target)


def test_two_networks_that_nothing_tells_apart_are_asked_for(tmp_path, pair):
    source, target = pair
    path = save(tmp_path / "w", ("first.", source), ("second.", target))
    message = r"holds 2 networks: first, second; choose one by --config\.model\.pretrained_part"
    with pytest.raises(UserError, match=message):
        networks.open_file(path, "resnet18")
    found = pretrained.load(path, target, "resnet18", part="first", skip_head=False)
    assert_trees_equal(found, source)
    with pytest.raises(UserError, match=r"no part 'third'; its names begin with first, second"):
        networks.open_file(path, "resnet18", "third")


def test_what_is_missing_or_unknown_behind_a_prefix_is_named(tmp_path, pair):
    source, _ = pair
    arrays = {f"model.{name}": value for name, value in torchvision_names(source).items()}
    del arrays["model.layer1.0.conv2.weight"]
    save_file({**arrays, "model.layer7.0.weight": np.zeros(1, np.float32)}, tmp_path / "w")
    with pytest.raises(UserError, match=r"layer1_0/conv2/kernel; 1 unknown to the model: layer7"):
        pretrained.load(tmp_path / "w", source, "resnet18")


def test_another_head_is_left_where_the_head_is_not_wanted(tmp_path, pair):
    source, target = pair
    arrays = torchvision_names(source)
    del arrays["fc.weight"], arrays["fc.bias"]
    arrays["fc.2.weight"] = np.zeros((4, 4), np.float32)
    save_file(arrays, tmp_path / "w")
    loaded = pretrained.load(tmp_path / "w", target, "resnet18")
    assert_trees_equal(loaded["params"]["backbone"], source["params"]["backbone"])
    with pytest.raises(UserError, match=r"unknown to the model: fc\.2\.weight"):
        pretrained.load(tmp_path / "w", target, "resnet18", skip_head=False)


@pytest.mark.parametrize(
    ("backbone", "head"),
    [("net.", ""), ("module.net.", "module."), ("module.net.", ""), ("a.b.c.", "a.")],
)
def test_a_head_above_the_prefix_of_its_backbone(tmp_path, pair, backbone, head):
    source, target = pair
    arrays = {
        f"{head if name.startswith('fc.') else backbone}{name}": value
        for name, value in torchvision_names(source).items()
    }
    save_file({**arrays, "other.weight": np.zeros(1, np.float32)}, tmp_path / "w")
    loaded = pretrained.load(tmp_path / "w", target, "resnet18", skip_head=False)
    assert_trees_equal(loaded, source)
    assert networks.open_file(tmp_path / "w", "resnet18").beside == ("other.weight",)


def test_names_of_monai(tmp_path, draw):
    model = models.create("densenet121", width=8, stages=(2, 1), growth=4, bn_size=2, classes=3,
                          head_width=0)
    source, target = draw(model, COLOR, 1), draw(model, COLOR, 2)
    arrays = {}
    leaves = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean",
              "var": "running_var"}
    for (_, group, *path), value in traverse_util.flatten_dict(source).items():
        *layer, leaf = path
        name = ".".join(["features", *layer]) if group == "backbone" else "class_layers.out"
        for block in (1, 2):
            name = name.replace(f"block{block}_", f"block{block}.denselayer")
        name = name.replace("1.norm", "1.layers.norm") if "denselayer1." in name else name
        name = name.replace("1.conv", "1.layers.conv") if "denselayer1." in name else name
        name = name.replace("2.norm", "2.layers.norm") if "denselayer2." in name else name
        name = name.replace("2.conv", "2.layers.conv") if "denselayer2." in name else name
        if leaf == "kernel":
            value = value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1)
        arrays[f"{name}.{leaves[leaf]}"] = np.ascontiguousarray(value)
    assert "features.denseblock1.denselayer2.layers.norm1.running_var" in arrays
    save_file(arrays, tmp_path / "w")
    loaded = pretrained.load(tmp_path / "w", target, "densenet121", skip_head=False)
    assert_trees_equal(loaded, source)


def test_a_bias_before_a_batch_norm_moves_into_its_mean(tmp_path, pair):
    source, target = pair
    arrays = torchvision_names(source)
    bias = np.linspace(-1, 1, 8, dtype=np.float32)
    arrays["layer2.0.downsample.0.bias"] = bias
    save_file(arrays, tmp_path / "w")
    loaded = pretrained.load(tmp_path / "w", target, "resnet18")
    stats = [v["batch_stats"]["backbone"]["layer2_0"]["downsample_bn"] for v in (loaded, source)]
    np.testing.assert_array_equal(stats[0]["mean"], stats[1]["mean"] - bias)
    np.testing.assert_array_equal(stats[0]["var"], stats[1]["var"])
