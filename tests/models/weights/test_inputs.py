"""What weights expect of an image is read, known, or asked for; and models compute with it."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxcxr import config as config_lib
from jaxcxr import models
from jaxcxr.errors import UserError
from jaxcxr.models.vision.classifier import colored
from jaxcxr.models.weights import inputs, networks
from jaxcxr.models.weights.layouts import FIRST_CONV
from tests.models.weights.test_pretrained import (
    augreg_names,
    resnet,
    timm_names,
    torchvision_names,
    vit,
)

COLOR = np.zeros((1, 32, 32, 3), np.float32)
GRAY = COLOR[..., :1]
UNKNOWN = "nothing says which values these weights expect"


def found(path, model="resnet50"):
    return inputs.find(networks.open_file(path, model))


@pytest.fixture
def color(draw):
    return torchvision_names(draw(resnet(), COLOR))


@pytest.fixture
def gray(draw):
    return torchvision_names(draw(resnet(), GRAY))


@pytest.fixture
def transformer(draw):
    return timm_names(draw(vit(), COLOR))


TIMM = {"architecture": "x", "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6],
                                               "input_size": [3, 288, 288]}}
HUB = {"do_normalize": True, "do_rescale": True, "rescale_factor": 1 / 255,
       "image_mean": [0.5307] * 3,
       "image_std": [0.2583] * 3, "crop_size": {"height": 518, "width": 518},
       "size": {"shortest_edge": 518}}
MONAI = {"network_data_format": {"inputs": {"image": {
    "num_channels": 1, "spatial_shape": [512, 512], "value_range": [0, 1]}}}}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("config.json", TIMM, ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (0.0, 1.0), 288)),
        ("config.json", {"mean": [0.5] * 3, "std": [0.5] * 3}, ((0.5,), (0.5,), (0.0, 1.0), 0)),
        ("preprocessor_config.json", HUB, ((0.5307,), (0.2583,), (0.0, 1.0), 518)),
        ("preprocessor_config.json", HUB | {"do_normalize": False, "crop_size": 224},
         ((0.0,), (1.0,), (0.0, 1.0), 224)),
        ("preprocessor_config.json", HUB | {"do_rescale": False, "image_mean": 127.5,
                                            "image_std": 64.0},
         ((127.5,), (64.0,), (0.0, 255.0), 518)),
        ("preprocessor_config.json", HUB | {"rescale_factor": 1 / 127.5, "rescale_offset": True,
                                            "do_normalize": False},
         ((0.0,), (1.0,), (-1.0, 1.0), 518)),
        ("open_clip_config.json", {"model_cfg": {}, "preprocess_cfg": {
            "mean": [0.48, 0.45, 0.4], "std": [0.26, 0.26, 0.27], "size": [224, 224]}},
         ((0.48, 0.45, 0.4), (0.26, 0.26, 0.27), (0.0, 1.0), 224)),
    ],
)
def test_the_config_beside_the_weights(tmp_path, transformer, name, content, expected):
    save_file(transformer, tmp_path / "model.safetensors")
    (tmp_path / name).write_text(json.dumps(content))
    for path in (tmp_path / "model.safetensors", tmp_path):
        input_ = found(path, "vit_tiny")
        assert (input_.mean, input_.std, input_.size) == (expected[0], expected[1], expected[3])
        np.testing.assert_allclose(input_.range, expected[2], atol=1e-12)
        assert input_.source == str(tmp_path / name)


def test_a_config_of_another_file_is_not_taken(tmp_path, transformer):
    save_file(transformer, tmp_path / "mine.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(TIMM))
    assert found(tmp_path / "mine.safetensors", "vit_tiny") is None
    (tmp_path / "mine.json").write_text(json.dumps(TIMM))
    assert found(tmp_path / "mine.safetensors", "vit_tiny").size == 288
    (tmp_path / "mine.json").write_text("{'")
    with pytest.raises(UserError, match=r"mine\.json beside the weights was not understood"):
        found(tmp_path / "mine.safetensors", "vit_tiny")


def test_a_bundle_of_monai(tmp_path, gray):
    for folder in ("models", "configs"):
        (tmp_path / folder).mkdir()
    save_file(gray, tmp_path / "models" / "model.pt")
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps(MONAI))
    input_ = found(tmp_path / "models" / "model.pt")
    assert (input_.unit, input_.size) == (((0.0, 1.0),), 512)


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("vit_small_patch16_224.safetensors", (0.5,)),
        ("vit_small_patch16_224.augreg_in21k_ft_in1k.pth", (0.5,)),
        ("vit_base_patch16_224.dino.pth", inputs.IMAGENET.mean),
        ("vit_base_patch16_224.mae/model.safetensors", inputs.IMAGENET.mean),
        ("deit_small_patch16_224.fb_in1k.bin", inputs.IMAGENET.mean),
        ("vit_base_patch16_clip_224.openai.bin", None),
        ("my_vit.pth", None),
    ],
)
def test_names_under_which_weights_are_published(tmp_path, transformer, name, mean):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    save_file(transformer, path)
    assert (found(path, "vit_tiny") or inputs.Inputs((9.0,), (1.0,))).mean == (mean or (9.0,))


def test_layouts_of_which_all_files_expect_the_same(tmp_path, draw, color):
    save_file(color, tmp_path / "any.pth")
    assert found(tmp_path / "any.pth").unit == inputs.IMAGENET.unit
    np.savez(tmp_path / "any.npz", **augreg_names(draw(vit(), COLOR)))
    assert found(tmp_path / "any.npz", "vit_tiny").unit == ((0.5, 0.5),)


def test_one_channel_is_asked_for_unless_it_is_known(tmp_path, gray):
    save_file(gray, tmp_path / "mine.pth")
    network = networks.open_file(tmp_path / "mine.pth", "resnet50")
    assert network.stem_channels == 1
    assert inputs.find(network) is None
    message = str(inputs.unknown(network))
    assert "takes one channel" in message
    assert "--config.model.input.range='(-1024,1024)'" in message
    save_file(gray, tmp_path / "pc-nih-rsna-siim-vin-resnet50-test512-e400-state.pt")
    save_file(gray | {"op_threshs": np.zeros(3, np.float32)}, tmp_path / "other.pt")
    for name in ("pc-nih-rsna-siim-vin-resnet50-test512-e400-state.pt", "other.pt"):
        input_ = found(tmp_path / name)
        assert input_.unit == ((0.5, 1 / 2048),)
        assert input_.source == "torchxrayvision's normalisation"
    # Values of three channels do not say how one was made of them.
    (tmp_path / "mine.json").write_text(json.dumps(TIMM))
    assert found(tmp_path / "mine.pth") is None


@pytest.mark.parametrize(
    "input_",
    [inputs.GRAY, inputs.IMAGENET, inputs.NAMED["half"], inputs.NAMED["torchxrayvision"],
     inputs.Inputs((100.0, 120.0, 90.0), (50.0, 60.0, 70.0), (0.0, 255.0))],
)
def test_one_channel_becomes_what_the_weights_expect(input_):
    """By the definition: range first, then mean and deviation of each channel."""
    gray = np.random.default_rng(0).random((2, 4, 4, 1), np.float32)
    mean, std = input_.gray
    ours = colored(np.float32(1) * (gray - mean) / std, input_.colors)
    low, high = input_.range
    expected = (low + gray * (high - low) - np.array(input_.mean)) / np.array(input_.std)
    np.testing.assert_allclose(np.broadcast_to(ours, np.broadcast(ours, expected).shape),
                               np.broadcast_to(expected, np.broadcast(ours, expected).shape),
                               rtol=2e-5, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vit_tiny"])
def test_models_color_their_input(name, draw):
    small = {"resnet18": {"width": 8, "stages": (1, 1)},
             "densenet121": {"width": 8, "stages": (2, 1), "growth": 4, "bn_size": 2},
             "vit_tiny": {"dim": 12, "depth": 1, "heads": 2, "patch": 8}}[name]
    plain = models.create(name, **small)
    tinted = models.create(name, colors=inputs.IMAGENET.colors, **small)
    variables = draw(plain, COLOR)
    x = np.random.default_rng(1).normal(size=(2, 32, 32, 1)).astype(np.float32)
    expected = plain.apply(variables, colored(x, inputs.IMAGENET.colors))
    np.testing.assert_allclose(tinted.apply(variables, x), expected, atol=1e-5)
    shapes = jax.eval_shape(tinted.init, jax.random.key(0), x)
    assert models.parameter_counts(shapes) == models.parameter_counts(variables)


def test_options_of_a_config():
    settings = config_lib.default("cxr").model.input
    assert inputs.of_config(settings) is inputs.GRAY
    settings.range = (-1024.0, 1024.0)
    assert inputs.of_config(settings).unit == ((0.5, 1 / 2048),)
    settings.mean = (0.5,)
    with pytest.raises(UserError, match="belong together"):
        inputs.of_config(settings)
    settings.std = (0.5, 0.5)
    with pytest.raises(UserError, match="not one or three values"):
        inputs.of_config(settings)
    settings.std = (0.0,)
    with pytest.raises(UserError, match="not positive"):
        inputs.of_config(settings)


def test_the_first_layer_of_every_layout_is_known():
    from jaxcxr import registry

    for name in registry.MODELS:
        for layout in getattr(registry.model(name).func, "layouts", ()):
            stems = [entry.theirs for entry in layout.entries
                     if layout.stem_axis(entry.theirs.format(*"0" * entry.theirs.count("{}")))
                     is not None]
            assert len(stems) == 1, (name, stems)
            assert FIRST_CONV
