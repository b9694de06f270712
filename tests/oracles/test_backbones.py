"""DINOv2, ConvNeXt and Swin against timm, torchvision and transformers, with random weights."""

import jax
import numpy as np
import pytest

from jaxcxr import models
from jaxcxr.models.weights import pretrained

pytestmark = pytest.mark.oracles


def randomized(torch, network):
    """Every parameter far from its start: scales of layers that begin near 0 hide their branch."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.named_parameters():
        fan = max(1, int(np.prod(tensor.shape[1:])))
        scale = 0.3 if tensor.ndim == 1 or "table" in name else fan**-0.5
        tensor.data.normal_(0, scale, generator=generator)
        if (name.endswith("weight") and tensor.ndim == 1) or "scale" in name or "gamma" in name:
            tensor.data.add_(1)
    return network.eval()


def compared(torch, network, path, name, size, features=None, **options):
    """Loads what torch saves, strictly, and compares the features of two images."""
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    torch.save(network.state_dict(), path)
    model = models.create(name, **options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    variables = pretrained.load(path, zeros, name)
    run = jax.jit(lambda v, x: model.apply(v, x, method=lambda m, x: m.backbone(x, False)))
    found = np.asarray(run(variables, images))
    with torch.no_grad():
        x = torch.from_numpy(images.transpose(0, 3, 1, 2))
        expected = (features or network)(x).numpy()
    assert np.abs(expected[0] - expected[1]).max() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-4 * max(1, np.abs(expected).max()))


DINO = {"dim": 64, "depth": 3, "heads": 4}


@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2_of_timm(torch, timm, tmp_path, registers):
    network = timm.models.vision_transformer.VisionTransformer(
        img_size=56, patch_size=14, embed_dim=64, depth=3, num_heads=4, init_values=1e-5,
        reg_tokens=registers, no_embed_class=registers > 0, num_classes=0)
    compared(torch, randomized(torch, network), tmp_path / "w", "dinov2_small", 56,
             registers=registers, **DINO)


@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2_of_transformers(torch, tmp_path, registers):
    transformers = pytest.importorskip("transformers")
    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=56, patch_size=14)
    network = randomized(torch, getattr(transformers, f"{kind}Model")(config))
    compared(torch, network, tmp_path / "w", "dinov2_small", 56,
             lambda x: network(x).pooler_output, registers=registers, **DINO)
    network.save_pretrained(tmp_path)  # its file has the names of all versions but the fifth
    model = models.create("dinov2_small", registers=registers, **DINO)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 56, 56, 1), np.float32))
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    both = [pretrained.load(path, zeros, "dinov2_small")
            for path in (tmp_path / "w", tmp_path / "model.safetensors")]
    jax.tree.map(np.testing.assert_array_equal, *both)


def test_dinov2_of_its_repository(torch, timm, tmp_path):
    """Registers under another name, blocks in chunks, inside a teacher."""
    network = randomized(torch, timm.models.vision_transformer.VisionTransformer(
        img_size=56, patch_size=14, embed_dim=64, depth=3, num_heads=4, init_values=1e-5,
        reg_tokens=2, num_classes=0, no_embed_class=True))
    state = {}
    for name, value in network.state_dict().items():
        name = name.replace("reg_token", "register_tokens").replace("blocks.", "blocks.0.")
        state[f"teacher.backbone.{name}"] = value
    state["teacher.backbone.mask_token"] = torch.zeros(1, 64)
    state["teacher.dino_head.mlp.0.weight"] = torch.zeros(3, 64)
    images = np.random.default_rng(0).normal(size=(2, 56, 56, 3)).astype(np.float32)
    torch.save(state, tmp_path / "w")
    model = models.create("dinov2_small", registers=2, **DINO)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    variables = pretrained.load(tmp_path / "w", zeros, "dinov2_small")
    found = model.apply(variables, images, method=lambda m, x: m.backbone(x, False))
    with torch.no_grad():
        expected = network(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


CONVNEXT = {"stages": (2, 1, 1, 1), "widths": (8, 16, 32, 64)}


@pytest.mark.parametrize("library", ["timm", "torchvision", "transformers"])
def test_convnext(torch, timm, torchvision, tmp_path, library):
    features = None
    if library == "timm":
        network = timm.models.convnext.ConvNeXt(
            depths=(2, 1, 1, 1), dims=(8, 16, 32, 64), num_classes=0)
    elif library == "torchvision":
        from torchvision.models import convnext

        network = convnext.ConvNeXt([convnext.CNBlockConfig(*row) for row in (
            (8, 16, 2), (16, 32, 1), (32, 64, 1), (64, None, 1))])
        features = lambda x: network.classifier[:2](network.avgpool(network.features(x)))  # noqa: E731
    else:
        transformers = pytest.importorskip("transformers")
        network = transformers.ConvNextModel(transformers.ConvNextConfig(
            depths=[2, 1, 1, 1], hidden_sizes=[8, 16, 32, 64], layer_norm_eps=1e-6))
        features = lambda x: network(x).pooler_output  # noqa: E731
    randomized(torch, network)
    compared(torch, network, tmp_path / "w", "convnext_tiny", 64, features, **CONVNEXT)


SWIN = {"dim": 16, "stages": (2, 2, 2), "heads": (2, 4, 8), "window": 4}


@pytest.mark.parametrize(
    ("library", "size"), [("timm", 64), ("timm", 72), ("torchvision", 64), ("transformers", 64)]
)
def test_swin(torch, timm, torchvision, tmp_path, library, size):
    """At 64 pixels the last stage is one window; at 72 windows do not divide the map."""
    features = None
    if library == "timm":
        network = timm.models.swin_transformer.SwinTransformer(
            img_size=size, window_size=4, embed_dim=16, depths=(2, 2, 2), num_heads=(2, 4, 8),
            num_classes=0)
    elif library == "torchvision":
        from torchvision.models import swin_transformer

        network = swin_transformer.SwinTransformer(
            [4, 4], 16, [2, 2, 2], [2, 4, 8], [4, 4], num_classes=3)
        features = lambda x: network.flatten(  # noqa: E731
            network.avgpool(network.permute(network.norm(network.features(x)))))
    else:
        transformers = pytest.importorskip("transformers")
        network = transformers.SwinModel(transformers.SwinConfig(
            image_size=size, embed_dim=16, depths=[2, 2, 2], num_heads=[2, 4, 8], window_size=4))
        features = lambda x: network(x).pooler_output  # noqa: E731
    randomized(torch, network)
    compared(torch, network, tmp_path / "w", "swin_tiny", size, features, **SWIN)


@pytest.mark.parametrize(
    ("name", "theirs", "size"),
    [("convnext_tiny", "convnext_tiny", 64), ("convnext_small", "convnext_small", 64),
     ("convnext_base", "convnext_base", 64), ("dinov2_small", "vit_small_patch14_dinov2", 518),
     ("dinov2_base", "vit_base_patch14_dinov2", 518),
     ("dinov2_large", "vit_large_patch14_dinov2", 518),
     ("swin_tiny", "swin_tiny_patch4_window7_224", 224),
     ("swin_base", "swin_base_patch4_window7_224", 224)],
)
def test_sizes_are_those_of_timm(torch, timm, name, theirs, size):
    with torch.device("meta"):
        network = timm.create_model(theirs, num_classes=5)
    expected = sum(p.numel() for p in network.parameters())
    model = models.create(name, classes=5)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, size, size, 3), np.float32))
    assert sum(models.parameter_counts(shapes["params"]).values()) == expected
