"""Our ResNets against torchvision's and timm's, with random weights and BatchNorm statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr import models
from jaxcxr.models.weights import pretrained

pytestmark = pytest.mark.oracles


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)


def randomize(torch, network):
    """Weights of torch's own initialisation, and BatchNorm that is far from the identity."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
            ):
                tensor.uniform_(low, high, generator=generator)
    return network.eval()


def flax_of(torch, network, path, name, image, **options):
    """Our model, and the variables that `pretrained.load` makes of torch's file."""
    torch.save(network.state_dict(), path)
    model = models.create(name, head_width=0, **options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    return model, pretrained.load(path, shapes, name, skip_head=False)


def assert_stages_agree(torch, network, model, variables, image):
    """Names the first stage whose output differs."""
    _, kept = model.apply(variables, image, capture_intermediates=True)
    ours = kept["intermediates"]["backbone"]
    theirs = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _, __, y, name=name: theirs.update({name: y}))
    with torch.no_grad():
        network(torch.from_numpy(image.transpose(0, 3, 1, 2)))
    blocks = sorted(name for name in ours if name.startswith("layer"))
    assert len(blocks) == sum(model.stages)
    for name in blocks:
        expected = theirs[name.replace("_", ".")].numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(
            ours[name]["__call__"][0], expected, atol=1e-5 * np.abs(expected).max(), err_msg=name
        )


@pytest.mark.parametrize(("name", "classes"), [("resnet18", 5), ("resnet50", 7)])
def test_equals_torchvision_stage_by_stage(
    torch, torchvision, agree, tmp_path, image, name, classes
):
    network = randomize(torch, getattr(torchvision.models, name)(num_classes=classes))
    with torch.no_grad():
        expected = network(torch.from_numpy(image.transpose(0, 3, 1, 2))).numpy()
    model, variables = flax_of(
        torch, network, tmp_path / "w.pth", name, image, classes=classes
    )
    assert_stages_agree(torch, network, model, variables, image)
    logits = model.apply(variables, image)
    assert np.abs(expected).max() > 0.1
    agree("ResNet18 and 50 against torchvision, logits", logits, expected, 1e-4)


def test_one_channel_stem_equals_three_identical_channels(torch, torchvision, tmp_path, image):
    network = randomize(torch, torchvision.models.resnet18(num_classes=3))
    gray = image[..., :1]
    model, variables = flax_of(torch, network, tmp_path / "w.pth", "resnet18", gray, classes=3)
    with torch.no_grad():
        expected = network(torch.from_numpy(gray.repeat(3, -1).transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(model.apply(variables, gray), expected.numpy(), atol=1e-4)


def test_training_statistics_equal_torch(torch, torchvision, tmp_path, image):
    network = randomize(torch, torchvision.models.resnet18(num_classes=3))
    model, variables = flax_of(
        torch, network, tmp_path / "w.pth", "resnet18", image, classes=3, head_dropout=0.0
    )
    network.train()
    network(torch.from_numpy(image.transpose(0, 3, 1, 2)))
    _, updates = model.apply(variables, image, train=True, mutable=["batch_stats"])
    stem = updates["batch_stats"]["backbone"]["bn1"]
    np.testing.assert_allclose(stem["mean"], network.bn1.running_mean.numpy(), atol=1e-5)
    # torch stores the unbiased variance: n / (n - 1) times the batch part.
    old = variables["batch_stats"]["backbone"]["bn1"]["var"]
    count = 2 * 32 * 32
    expected = old * 0.9 + (stem["var"] - old * 0.9) * count / (count - 1)
    np.testing.assert_allclose(expected, network.bn1.running_var.numpy(), rtol=1e-5)


def test_resnet26_equals_timm(torch, timm, agree, tmp_path, image):
    network = randomize(torch, timm.create_model("resnet26", num_classes=4))
    model, variables = flax_of(torch, network, tmp_path / "w.pth", "resnet26", image, classes=4)
    with torch.no_grad():
        expected = network(torch.from_numpy(image.transpose(0, 3, 1, 2))).numpy()
    agree("ResNet26 against timm, logits", model.apply(variables, image), expected, 1e-4)
    assert jnp.abs(expected).max() > 0.01
