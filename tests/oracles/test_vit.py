"""Our ViT against timm's with random weights, through every file layout that we read."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxcxr import models
from jaxcxr.models.weights import pretrained

pytestmark = pytest.mark.oracles


def network_of(torch, timm, name="vit_tiny_patch16_224", size=64, **options):
    network = timm.create_model(name, img_size=size, num_classes=5, **options)
    generator = torch.Generator().manual_seed(2)
    for parameter in network.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return network.eval()


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def scores(torch, network, image):
    with torch.no_grad():
        return network(torch.from_numpy(image.transpose(0, 3, 1, 2))).numpy()


def loaded(path, image, name="vit_tiny", grid=None, **options):
    model = models.create(name, classes=5, **options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    return model, pretrained.load(path, shapes, name, skip_head=False, grid=grid)


def state_arrays(network):
    return {key: value.numpy() for key, value in network.state_dict().items()}


def to_hf(state):
    """The same tensors under the names of transformers' `ViTForImageClassification`."""
    renamed = {}
    for key, value in state.items():
        key = key.replace("blocks.", "vit.encoder.layer.")
        for old, new in (
            ("norm1", "layernorm_before"), ("norm2", "layernorm_after"),
            ("attn.proj", "attention.output.dense"), ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"), ("cls_token", "vit.embeddings.cls_token"),
            ("pos_embed", "vit.embeddings.position_embeddings"),
            ("patch_embed.proj", "vit.embeddings.patch_embeddings.projection"),
            ("head.", "classifier."),
        ):
            key = key.replace(old, new)
        key = f"vit.layer{key}" if key.startswith("norm.") else key
        if "qkv" in key:
            for name, part in zip(("query", "key", "value"), np.split(value, 3), strict=True):
                renamed[key.replace("attn.qkv", f"attention.attention.{name}")] = part.copy()
        else:
            renamed[key] = value
    return renamed


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("vit_tiny_patch16_224", "vit_tiny"), ("vit_small_patch16_224", "vit_small")],
)
def test_equals_timm(torch, timm, agree, tmp_path, theirs, ours):
    network, image = network_of(torch, timm, theirs), images(2, 64, 64, 3)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    model, variables = loaded(tmp_path / "w.pth", image, ours)
    expected = scores(torch, network, image)
    assert np.abs(expected).max() > 0.1
    found = jax.jit(model.apply)(variables, image)
    agree("ViT-Tiny and ViT-Small against timm, logits", found, expected, 1e-4)


def test_mean_pooling_equals_timm(torch, timm, tmp_path):
    options = {"global_pool": "avg", "class_token": False, "fc_norm": False, "depth": 2}
    network, image = network_of(torch, timm, **options), images(2, 64, 32, 3)
    network.set_input_size((64, 32))
    save_file(state_arrays(network), tmp_path / "w.safetensors")
    # The file has the table of a 4x2 grid, which only a square model could have guessed.
    with pytest.raises(pretrained.UserError, match="not a square grid"):
        loaded(tmp_path / "w.safetensors", image, pool="mean", depth=2, grid=(4, 2))
    network, image = network_of(torch, timm, **options), images(2, 64, 64, 3)
    save_file(state_arrays(network), tmp_path / "w.safetensors")
    model, variables = loaded(tmp_path / "w.safetensors", image, pool="mean", depth=2)
    np.testing.assert_allclose(
        model.apply(variables, image), scores(torch, network, image), atol=1e-4
    )


def test_hf_names_give_the_same_variables(torch, timm, tmp_path):
    network, image = network_of(torch, timm, depth=2), images(1, 64, 64, 3)
    save_file(state_arrays(network), tmp_path / "timm.safetensors")
    save_file(to_hf(state_arrays(network)), tmp_path / "hf.safetensors")
    _, expected = loaded(tmp_path / "timm.safetensors", image, depth=2)
    _, variables = loaded(tmp_path / "hf.safetensors", image, depth=2)
    jax.tree.map(np.testing.assert_array_equal, variables, expected)


@pytest.mark.parametrize("size", [(96, 96), (32, 80), (48, 48)])
def test_positions_are_resampled_as_timm_does(torch, timm, tmp_path, size):
    network, image = network_of(torch, timm, depth=1), images(1, *size, 3)
    save_file(state_arrays(network), tmp_path / "w.safetensors")
    model, variables = loaded(
        tmp_path / "w.safetensors", image, depth=1, grid=(size[0] // 16, size[1] // 16)
    )
    network.set_input_size(size)
    np.testing.assert_allclose(
        variables["params"]["backbone"]["pos_embed"], network.pos_embed.detach().numpy(), atol=1e-5
    )
    np.testing.assert_allclose(
        model.apply(variables, image), scores(torch, network, image), atol=1e-4
    )


def augreg(variables):
    """Our variables under the names of the augreg `.npz` files."""
    backbone = variables["params"]["backbone"]
    flat = {
        "cls": backbone["cls_token"],
        "Transformer/posembed_input/pos_embedding": backbone["pos_embed"],
        "embedding": backbone["patch_embed"],
        "Transformer/encoder_norm": backbone["norm"],
        "head": variables["params"]["head"]["logits"],
    }
    for key in (k for k in backbone if k.startswith("blocks_")):
        block, root = backbone[key], f"Transformer/encoderblock_{key.removeprefix('blocks_')}"
        for name, layer in block["attention"].items():
            flat[f"{root}/MultiHeadDotProductAttention_1/{name}"] = layer
        flat[f"{root}/MlpBlock_3/Dense_0"] = block["mlp"]["fc1"]
        flat[f"{root}/MlpBlock_3/Dense_1"] = block["mlp"]["fc2"]
        flat[f"{root}/LayerNorm_0"], flat[f"{root}/LayerNorm_2"] = block["norm1"], block["norm2"]
    arrays = {}
    for name, leaf in flat.items():
        parts = leaf.items() if isinstance(leaf, dict) else [(None, leaf)]
        arrays.update({f"{name}/{part}" if part else name: array for part, array in parts})
    return arrays


def test_augreg_npz_equals_timm_at_another_grid(torch, timm, tmp_path):
    source = models.create("vit_tiny", classes=5, depth=2)
    shapes = jax.eval_shape(source.init, jax.random.key(0), images(1, 64, 64, 3))
    rng = np.random.default_rng(3)
    drawn = jax.tree.map(
        lambda s: rng.normal(size=s.shape, scale=0.1).astype(np.float32), shapes
    )
    np.savez(tmp_path / "w.npz", **augreg(drawn))
    network = timm.create_model("vit_tiny_patch16_224", img_size=96, num_classes=5, depth=2)
    network.eval().load_pretrained(str(tmp_path / "w.npz"))
    image = images(1, 96, 96, 3)
    model, variables = loaded(tmp_path / "w.npz", image, depth=2)
    np.testing.assert_allclose(
        model.apply(variables, image), scores(torch, network, image), atol=1e-4
    )


def test_sinusoidal_grid_has_the_codes_of_timm(torch, timm):
    from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed

    from jaxcxr.models.layers import sinusoidal_2d

    ours = sinusoidal_2d(3, 5, 16)
    theirs = build_sincos2d_pos_embed([3, 5], dim=16).numpy().reshape(-1, 16)
    # The columns are the same up to their order; every column appears.
    order = [int(np.abs(theirs - column[:, None]).max(0).argmin()) for column in ours.T]
    np.testing.assert_allclose(ours, theirs[:, order], atol=1e-5)
