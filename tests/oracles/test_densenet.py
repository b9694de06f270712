"""Our DenseNet121 against torchvision's and timm's, with random weights and statistics."""

import re

import jax
import numpy as np
import pytest

from jaxcxr import models
from jaxcxr.models.weights import pretrained

pytestmark = pytest.mark.oracles


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype(np.float32)


def randomize(torch, network):
    """Weights of the library's own initialisation, and BatchNorm far from the identity."""
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


@pytest.fixture(scope="module")
def network(torch, torchvision):
    return randomize(torch, torchvision.models.densenet121(num_classes=7))


def legacy(state):
    """The same tensors under the names of torchvision's published file."""
    pattern = re.compile(r"(denselayer\d+\.(?:norm|conv))([12]\.)")
    renamed = {pattern.sub(r"\1.\2", key): value for key, value in state.items()}
    return {k: v for k, v in renamed.items() if not k.endswith("num_batches_tracked")}


def chexnet(state):
    """Those names inside a module `densenet121` with a Sequential classifier, in parallel."""
    renamed = {key.replace("classifier.", "classifier.0."): v for key, v in legacy(state).items()}
    return {"state_dict": {f"module.densenet121.{key}": v for key, v in renamed.items()}}


def loaded(path, image, classes=7):
    model = models.create("densenet121", classes=classes, head_width=0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    return model, pretrained.load(path, shapes, "densenet121", skip_head=False)


def scores(torch, network, image):
    with torch.no_grad():
        return network(torch.from_numpy(image.transpose(0, 3, 1, 2))).numpy()


def test_equals_torchvision_layer_by_layer(torch, network, agree, tmp_path, image):
    torch.save(network.state_dict(), tmp_path / "w.pth")
    model, variables = loaded(tmp_path / "w.pth", image)
    logits, kept = jax.jit(lambda v, x: model.apply(v, x, capture_intermediates=True))(
        variables, image
    )
    theirs, hooks = {}, []
    for name, module in network.features.named_modules():
        name = name.replace(".denselayer", "_")
        hooks.append(module.register_forward_hook(
            lambda _, __, y, name=name: theirs.update({name: y})
        ))
    expected = scores(torch, network, image)
    for hook in hooks:
        hook.remove()
    ours = kept["intermediates"]["backbone"]
    names = [n for n in ours if n.startswith(("denseblock", "transition"))]
    assert len(names) == 6 + 12 + 24 + 16 + 3
    for name in names:
        wanted = theirs[name].numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(
            ours[name]["__call__"][0], wanted, atol=2e-5 * np.abs(wanted).max(), err_msg=name
        )
    features = torch.relu(theirs["norm5"]).mean((2, 3)).numpy()
    np.testing.assert_allclose(ours["__call__"][0], features, atol=1e-4)
    assert np.abs(expected).max() > 0.1
    agree("DenseNet121 against torchvision, logits", logits, expected, 1e-4)


@pytest.mark.parametrize("rename", [legacy, chexnet])
def test_older_names_give_the_same_variables(torch, network, tmp_path, image, rename):
    state = network.state_dict()
    torch.save(rename(state), tmp_path / "old.pth")
    torch.save(state, tmp_path / "new.pth")
    _, found = loaded(tmp_path / "old.pth", image)
    _, expected = loaded(tmp_path / "new.pth", image)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_legacy_names_are_those_torchvision_renames(torchvision, network, monkeypatch):
    """torchvision's own loader of its published file turns them back into the current names."""
    densenet = torchvision.models.densenet
    old, current = legacy(network.state_dict()), network.state_dict()
    assert not set(old) & {key for key in current if "denselayer" in key}

    class Weights:
        def get_state_dict(self, **_):
            return dict(old)

    taken = []
    monkeypatch.setattr(network, "load_state_dict", taken.append)
    densenet._load_state_dict(network, Weights(), False)
    assert set(taken[0]) == {k for k in current if not k.endswith("num_batches_tracked")}


def test_one_channel_stem_equals_three_identical_channels(torch, network, tmp_path, image):
    torch.save(network.state_dict(), tmp_path / "w.pth")
    gray = image[..., :1]
    model, variables = loaded(tmp_path / "w.pth", gray)
    expected = scores(torch, network, gray.repeat(3, -1))
    np.testing.assert_allclose(jax.jit(model.apply)(variables, gray), expected, atol=1e-4)


def test_equals_timm(torch, timm, agree, tmp_path, image):
    network = randomize(torch, timm.create_model("densenet121", num_classes=4))
    torch.save(network.state_dict(), tmp_path / "w.pth")
    model, variables = loaded(tmp_path / "w.pth", image, classes=4)
    expected = scores(torch, network, image)
    assert np.abs(expected).max() > 0.1
    found = jax.jit(model.apply)(variables, image)
    agree("DenseNet121 against timm, logits", found, expected, 1e-4)
