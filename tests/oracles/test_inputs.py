"""From film to features: with weights of torchvision and timm, what these libraries compute."""

import json
import re

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxcxr import config as base
from jaxcxr.models.weights import inputs, networks, pretrained
from jaxcxr.train import initial_weights, setup
from tests import toys

pytestmark = pytest.mark.oracles

FILMS = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 1), dtype=np.uint8)


def features(path, tmp_path, name, **options):
    """Features of our model as a run of a config computes them, films to backbone."""
    config = base.default("cxr")
    base.set_model(config, name, **options)
    base.add_stage(config, "all", "1 step")
    config.data.image_size = FILMS.shape[1]
    config.model.pretrained = str(path)
    rows = initial_weights.resolve(config, tmp_path / "run")
    base.validate(config)
    task = toys.make_xray_task(config, train=2, test=2)
    model = setup.make_model(config, task)
    x, _ = task.inputs({"image": FILMS})
    assert x.shape == FILMS.shape
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    shapes = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    variables = pretrained.load(path, shapes, name)
    run = jax.jit(lambda v, x: model.apply(v, x, method=lambda m, x: m.backbone(x, False)))
    return np.asarray(run(variables, x)), rows


def theirs(torch, network, mean, std):
    """The same films as each library's own transforms feed them: to tensor, then normalised."""
    unit = torch.from_numpy(FILMS.transpose(0, 3, 1, 2)).float().div(255).expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    with torch.no_grad():
        return network((unit - mean) / std).numpy()


def randomized(torch, network):
    """Statistics far from the identity, so that a wrong input cannot hide behind BatchNorm."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return network.eval()


def close(found, expected):
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-4 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("name", ["resnet50", "densenet121"])
def test_torchvision(torch, torchvision, tmp_path, name):
    network = randomized(torch, getattr(torchvision.models, name)())
    torch.save(network.state_dict(), tmp_path / f"{name}-0676ba61.pth")
    setattr(network, "fc" if name == "resnet50" else "classifier", torch.nn.Identity())
    preset = torchvision.transforms._presets.ImageClassification(crop_size=224)
    found, rows = features(tmp_path / f"{name}-0676ba61.pth", tmp_path, name)
    close(found, theirs(torch, network, preset.mean, preset.std))
    assert "0.485, 0.456, 0.406" in rows["input"]


@pytest.mark.parametrize(
    ("ours", "timm_name"),
    [("vit_small", "vit_small_patch16_224"), ("vit_tiny", "vit_tiny_patch16_224"),
     ("resnet50", "resnet50"), ("densenet121", "densenet121")],
)
@pytest.mark.parametrize("by", ["name", "config"])
def test_timm(torch, timm, tmp_path, ours, timm_name, by):
    size = {"img_size": 64} if ours.startswith("vit") else {}
    network = randomized(torch, timm.create_model(timm_name, num_classes=0, **size))
    data = timm.data.resolve_model_data_config(network)
    if by == "name":
        path = tmp_path / f"{timm_name}.safetensors"
    else:  # as timm's push_to_hf_hub lays a folder out
        path = tmp_path / "model.safetensors"
        data["mean"], data["std"] = (0.3, 0.4, 0.5), (0.2, 0.3, 0.1)
        cfg = {"input_size": data["input_size"], "mean": data["mean"], "std": data["std"]}
        (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": cfg}))
    arrays = {key: value.numpy() for key, value in network.state_dict().items()}
    safetensors.numpy.save_file(arrays, path)
    found, _ = features(path, tmp_path, ours)
    close(found, theirs(torch, network, data["mean"], data["std"]))


def test_our_table_says_what_timm_says(timm):
    """For every pretrained file of timm that our table knows by name or layout."""
    known = 0
    for name in timm.list_pretrained():
        plain = name.partition(".")[0]
        cfg = timm.get_pretrained_cfg(name)
        layout = "imagenet" if re.fullmatch(r"resnet(18|26|50|101)|densenet121", plain) else ""
        match = next((key for pattern, key, _ in inputs._TABLE if re.fullmatch(pattern, name)),
                     layout)
        if match:
            known += 1
            found = inputs.Inputs(cfg.mean, cfg.std)
            np.testing.assert_allclose(found.unit, inputs.NAMED[match].unit, err_msg=name)
    assert known > 60


@pytest.mark.parametrize("whole", [True, False])
def test_torchxrayvision(torch, tmp_path, whole):
    xrv = pytest.importorskip("torchxrayvision")
    network = randomized(torch, xrv.models.DenseNet(weights=None))
    path = tmp_path / "nih-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
    torch.save(network if whole else network.state_dict(), path)
    films = np.stack([xrv.utils.normalize(film[..., 0], 255)[None] for film in FILMS])
    with torch.no_grad():
        expected = network.features2(torch.from_numpy(films).float()).numpy()
    found, rows = features(path, tmp_path, "densenet121")
    close(found, expected)
    assert "black -1024, white 1024" in rows["input"]


def test_monai(torch, tmp_path):
    nets = pytest.importorskip("monai.networks.nets")
    network = randomized(torch, nets.DenseNet121(spatial_dims=2, in_channels=1, out_channels=4))
    resnet = randomized(torch, nets.resnet50(spatial_dims=2, n_input_channels=1, num_classes=3))
    network.class_layers.out, resnet.fc = torch.nn.Identity(), torch.nn.Identity()
    unit = torch.from_numpy(FILMS.transpose(0, 3, 1, 2)).float().div(255)
    say = {"pretrained_cfg": {"mean": [0.0], "std": [1.0]}}
    for name, model, options in (("densenet121", network, {}),
                                 ("resnet50", resnet, {"stem": "stride1"})):
        torch.save({"net": model.state_dict()}, tmp_path / f"{name}.pth")
        (tmp_path / f"{name}.json").write_text(json.dumps(say))
        with torch.no_grad():
            expected = model(unit).numpy()
        found, _ = features(tmp_path / f"{name}.pth", tmp_path, name, **options)
        close(found, expected)
    bare = networks.open_file(tmp_path / "resnet50.pth", "resnet50")
    assert not any(key.endswith("downsample.0.bias") for key in bare.tensors)
