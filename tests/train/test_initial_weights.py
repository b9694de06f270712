"""A run starts from the weights it names, for the input they expect, or says why not."""

import json

import numpy as np
import pytest
import safetensors.numpy

from jaxcxr import config as config_lib
from jaxcxr import models
from jaxcxr.deploy.export import torch_weights
from jaxcxr.errors import UserError
from jaxcxr.models.weights import inputs
from jaxcxr.train import initial_weights, loop, setup, writers
from tests import toys
from tests.train.runs import toy_run

SIZES = {"stages": (1, 1, 1, 1), "width": 4, "stem": "small"}


def weights(draw, path, channels=3):
    model = models.create("resnet18", head_width=0, classes=3, **SIZES)
    variables = draw(model, np.zeros((1, 8, 8, channels), np.float32))
    arrays = torch_weights.state_dict(variables, "resnet18")
    if channels == 1:
        arrays["conv1.weight"] = arrays["conv1.weight"].sum(1, keepdims=True)
    safetensors.numpy.save_file(arrays, path)
    return variables


def config(path, **changes):
    return toys.xray_config(
        stages__all__duration="2 steps", report__samples=1, model__pretrained=str(path), **changes
    )


@pytest.fixture
def draw():
    from tests.models.conftest import draw as fixture

    return fixture.__wrapped__()


def test_a_run_records_the_input_of_its_weights_and_resumes_without_the_file(draw, tmp_path):
    variables = weights(draw, tmp_path / "w.pth")
    settings, workdir = config(tmp_path / "w.pth"), tmp_path / "run"
    with toy_run(devices=1):
        loop.train(settings, workdir, writers.Screen(quiet=True))
        saved = json.loads((workdir / "config.json").read_text())["config"]["model"]["input"]
        assert tuple(saved["mean"]) == inputs.IMAGENET.mean
        assert "as all weights in this layout" in saved["source"]
        run = setup.make(settings)
        assert run.model.colors == inputs.IMAGENET.colors
        kernel = run.parameter_shapes["backbone"]["conv1"]["kernel"]
        assert kernel.shape == variables["params"]["backbone"]["conv1"]["kernel"].shape
        (tmp_path / "w.pth").unlink()
        again = config(tmp_path / "w.pth")
        loop.train(again, workdir, writers.Screen(quiet=True))
        assert tuple(again.model.input.mean) == inputs.IMAGENET.mean
        with pytest.raises(UserError, match="no weight file at"):
            loop.train(config(tmp_path / "w.pth"), tmp_path / "new", writers.Screen(quiet=True))


def test_one_channel_needs_its_range(draw, tmp_path):
    weights(draw, tmp_path / "w.pth", channels=1)
    with pytest.raises(UserError, match=r"takes one channel.*--config\.model\.input\.range"):
        initial_weights.resolve(config(tmp_path / "w.pth"), tmp_path / "run")
    settings = config(tmp_path / "w.pth", model__input__range=(-1024.0, 1024.0))
    config_lib.validate(settings)
    rows = initial_weights.resolve(settings, tmp_path / "run")
    assert "black -1024, white 1024" in rows["input"]
    task = toys.make_xray_task(settings)
    x, _ = task.inputs({"image": np.array([0, 255], np.uint8)})
    np.testing.assert_allclose(x, [-1024, 1024])
    assert task.model_options()["colors"] == ()


def test_another_size_than_that_of_the_weights_is_said(draw, tmp_path):
    weights(draw, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {
        "mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 224, 224]}}))
    settings = config(tmp_path / "model.safetensors")
    rows = initial_weights.resolve(settings, tmp_path / "run")
    assert "trained at 224 pixels, this run has 8" in rows["input"]
    assert settings.model.input.mean == (0.5,)
    assert "model.safetensors" in rows["weights"]


def test_monai_leaves_the_stride_open(draw, tmp_path):
    weights(draw, tmp_path / "w.pth", channels=1)
    arrays = safetensors.numpy.load_file(tmp_path / "w.pth")
    arrays["layer2.0.downsample.0.bias"] = np.zeros(8, np.float32)
    safetensors.numpy.save_file(arrays, tmp_path / "w.pth")
    settings = config(tmp_path / "w.pth", model__input__mean=(0.5,), model__input__std=(0.2,))
    with pytest.raises(UserError, match=r"conv1_t_stride=2.*stem=stride1 or stride2"):
        initial_weights.resolve(settings, tmp_path / "run")


def test_a_frozen_random_backbone_is_said_and_needs_an_option(tmp_path):
    settings = toys.xray_config(stages__all__trainable=(r"^head/", r"^backbone/layer4"))
    config_lib.add_stage(settings, "rest", "2 steps")
    with toy_run(devices=1):
        run = setup.make(settings)
        check = lambda: initial_weights.check_frozen(  # noqa: E731
            settings, run.stages, run.parameter_shapes)
        with pytest.raises(UserError, match=r"'all' leaves 2\d% of the backbone at random weights"):
            check()
        settings.model.random_backbone = True
        assert "random weights" in check()
        settings.model.pretrained = "w.pth"
        assert check() == {}
        settings.model.pretrained = ""
        settings.model.random_backbone = False
        settings.stage_order = ("rest", "all")  # what is frozen was trained before
        run = setup.make(settings)
        assert check() == {}
        with pytest.raises(UserError, match="learns from noise"):
            loop.train(toys.xray_config(stages__all__trainable=(r"^head/",)), tmp_path / "run",
                       writers.Screen(quiet=True))
