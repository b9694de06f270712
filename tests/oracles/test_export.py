"""Weights written in torch's names: torchvision and timm load them, and compute the same."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxcxr import models
from jaxcxr.deploy.export import torch_weights

pytestmark = pytest.mark.oracles


def ours(name, size, **options):
    """A model of one channel, its variables, and an image."""
    model = models.create(name, classes=5, **options)
    image = np.random.default_rng(0).normal(size=(2, size, size, 1)).astype(np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    rng = np.random.default_rng(1)

    def value(path, s):
        if path[0].key == "batch_stats":
            return rng.uniform(0.5, 1.5, s.shape).astype(np.float32)
        fan = max(1, int(np.prod(s.shape[:-1])))
        return (rng.normal(size=s.shape) / np.sqrt(fan) + (s.ndim == 1)).astype(np.float32)

    trees = {k: shapes[k] for k in ("params", "batch_stats") if k in shapes}
    variables = jax.tree_util.tree_map_with_path(value, trees)
    return model, variables, image


def compared(torch, network, model, variables, image, path, hidden=False, name=""):
    """Loads the file strictly and compares the logits."""
    safetensors.numpy.save_file(torch_weights.state_dict(variables, name, hidden), path)
    from_file = {k: torch.from_numpy(v) for k, v in safetensors.numpy.load_file(path).items()}
    network.load_state_dict(from_file, strict=True)
    network.eval()
    with torch.no_grad():
        theirs = network(torch.from_numpy(image.repeat(3, -1).transpose(0, 3, 1, 2))).numpy()
    expected = np.asarray(jax.jit(model.apply)(variables, image))
    assert np.abs(expected - expected[:1]).max() > 1e-3
    np.testing.assert_allclose(theirs, expected, atol=1e-4 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121"])
def test_torchvision_loads_them(torch, torchvision, tmp_path, name):
    model, variables, image = ours(name, 64, head_width=0)
    network = getattr(torchvision.models, name)(num_classes=5)
    compared(torch, network, model, variables, image, tmp_path / "w", name=name)


def test_a_hidden_head_is_a_sequential(torch, torchvision, tmp_path):
    model, variables, image = ours("resnet18", 64, head_width=16)
    network = torchvision.models.resnet18()
    network.fc = torch.nn.Sequential(
        torch.nn.Linear(512, 16), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(16, 5))
    compared(torch, network, model, variables, image, tmp_path / "w", True, "resnet18")


def test_timm_loads_them(torch, timm, tmp_path):
    model, variables, image = ours("vit_tiny", 64)
    network = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5)
    compared(torch, network, model, variables, image, tmp_path / "w", name="vit_tiny")
