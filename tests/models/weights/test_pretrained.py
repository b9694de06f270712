import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from jaxcxr import models
from jaxcxr.errors import UserError
from jaxcxr.models.weights import pretrained

COLOR = np.zeros((1, 32, 32, 3), np.float32)
GRAY = COLOR[..., :1]


def resnet(**options):
    return models.create("resnet50", width=8, stages=(2, 1), classes=3, head_width=0, **options)


def vit(**options):
    sizes = {"dim": 12, "depth": 2, "heads": 3, "patch": 8, "classes": 3}
    return models.create("vit_tiny", **{**sizes, **options})


def torchvision_names(variables):
    """The inverse of the loader's table, written on its own: our variables as torchvision's."""
    arrays = {}
    for (_, group, *path), value in traverse_util.flatten_dict(variables).items():
        *layer, leaf = ["fc", path[-1]] if group == "head" else path
        name = ".".join(layer).replace("layer1_", "layer1.").replace("layer2_", "layer2.")
        name = name.replace("downsample_conv", "downsample.0")
        name = name.replace("downsample_bn", "downsample.1")
        if leaf == "kernel":
            value = value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1)
        renamed = {"mean": "running_mean", "var": "running_var", "bias": "bias"}
        leaf = renamed.get(leaf, "weight")
        arrays[f"{name}.{leaf}"] = np.ascontiguousarray(value)
        if leaf == "running_mean":
            arrays[f"{name}.num_batches_tracked"] = np.array(7)
    return arrays


def timm_names(variables):
    """Our ViT variables under timm's names."""
    arrays, fused = {}, {}
    for (group, *path), value in traverse_util.flatten_dict(variables["params"]).items():
        *layer, leaf = ["head", path[-1]] if group == "head" else path
        name = ".".join(layer).replace("blocks_", "blocks.").replace("attention", "attn")
        if leaf == "kernel":
            value = (
                value.transpose(3, 2, 0, 1)
                if name == "patch_embed"
                else value.reshape(-1, 12).T if name.endswith("out")
                else value.reshape(value.shape[0], -1).T
            )
        elif name.endswith(("query", "key", "value")):
            value = value.reshape(-1)
        leaf = {"kernel": "weight", "scale": "weight"}.get(leaf, leaf)
        name = name.replace("patch_embed", "patch_embed.proj").replace("attn.out", "attn.proj")
        for index, part in enumerate(("query", "key", "value")):
            if name.endswith(part):
                fused.setdefault(f"{name.removesuffix(part)}qkv.{leaf}", {})[index] = value
                break
        else:
            arrays[f"{name}.{leaf}" if name else leaf] = np.ascontiguousarray(value)
    for key, parts in fused.items():
        # safetensors writes the buffer as it lies, whatever the strides say.
        arrays[key] = np.ascontiguousarray(np.concatenate([parts[i] for i in range(3)]))
    return arrays


def hf_names(arrays):
    """timm's names as those of transformers' `ViTModel`; nothing is fused there."""
    renamed = {}
    for key, value in arrays.items():
        for old, new in (
            ("blocks", "encoder.layer"), ("head", "classifier"),
            ("norm1", "layernorm_before"), ("norm2", "layernorm_after"),
            ("attn.proj", "attention.output.dense"),
            ("mlp.fc1", "intermediate.dense"), ("mlp.fc2", "output.dense"),
            ("cls_token", "embeddings.cls_token"),
            ("pos_embed", "embeddings.position_embeddings"),
            ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
        ):
            key = key.replace(old, new)
        key = f"layer{key}" if key.startswith("norm.") else key
        names = [
            key.replace("attn.qkv", f"attention.attention.{part}")
            for part in ("query", "key", "value")
        ]
        parts = np.split(value, 3) if "qkv" in key else [value]
        renamed.update(zip(names, map(np.ascontiguousarray, parts), strict=False))
    renamed["pooler.dense.bias"] = np.zeros(12, np.float32)
    return renamed


def augreg_names(variables):
    """Our ViT variables under the names of the augreg files; their shapes are ours."""
    arrays = {}
    for (group, *path), value in traverse_util.flatten_dict(variables["params"]).items():
        name = "/".join(["head", path[-1]] if group == "head" else path)
        for old, new in (
            ("blocks_", "Transformer/encoderblock_"), ("patch_embed", "embedding"),
            ("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2"), ("cls_token", "cls"),
            ("attention", "MultiHeadDotProductAttention_1"),
            ("mlp/fc1", "MlpBlock_3/Dense_0"), ("mlp/fc2", "MlpBlock_3/Dense_1"),
            ("pos_embed", "Transformer/posembed_input/pos_embedding"),
        ):
            name = name.replace(old, new)
        arrays[f"Transformer/encoder_{name}" if name.startswith("norm/") else name] = value
    return arrays


def assert_trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_resnet_round_trip_keeps_the_head_unless_told(tmp_path, draw):
    model = resnet()
    source, target = draw(model, COLOR, 1), draw(model, COLOR, 2)
    save_file(torchvision_names(source), tmp_path / "w.safetensors")
    loaded = pretrained.load(tmp_path / "w.safetensors", target, "resnet50")
    assert_trees_equal(loaded["params"]["backbone"], source["params"]["backbone"])
    assert_trees_equal(loaded["batch_stats"], source["batch_stats"])
    assert_trees_equal(loaded["params"]["head"], target["params"]["head"])
    whole = pretrained.load(tmp_path / "w.safetensors", target, "resnet50", skip_head=False)
    assert_trees_equal(whole, source)


@pytest.mark.parametrize("layout", ["timm", "hf", "augreg"])
def test_vit_round_trip(tmp_path, draw, layout):
    model = vit()
    source, target = draw(model, COLOR, 1), draw(model, COLOR, 2)
    path = tmp_path / ("w.npz" if layout == "augreg" else "w.safetensors")
    if layout == "augreg":
        np.savez(path, **augreg_names(source))
    else:
        arrays = timm_names(source)
        save_file(hf_names(arrays) if layout == "hf" else arrays, path)
    loaded = pretrained.load(path, target, "vit_tiny", skip_head=False)
    assert_trees_equal(loaded, source)
    assert jax.tree.structure(loaded) == jax.tree.structure(target)


def test_one_missing_one_extra_and_one_misshaped_key_are_named_at_once(tmp_path, draw):
    variables = draw(resnet(), COLOR)
    arrays = torchvision_names(variables)
    del arrays["layer1.1.conv2.weight"]
    arrays["layer9.0.conv1.weight"] = np.zeros((1, 1, 1, 1), np.float32)
    arrays["bn1.bias"] = np.zeros(9, np.float32)
    save_file(arrays, tmp_path / "w.safetensors")
    with pytest.raises(UserError) as caught:
        pretrained.load(tmp_path / "w.safetensors", variables, "resnet50")
    message = str(caught.value)
    assert "1 missing from the file: params/backbone/layer1_1/conv2/kernel;" in message
    assert "1 unknown to the model: layer9.0.conv1.weight;" in message
    assert "1 of another shape: bn1.bias (9,) for params/backbone/bn1/bias (8,)." in message


def test_another_head_is_an_error_only_where_it_is_wanted(tmp_path, draw):
    source, target = draw(resnet(), COLOR, 1), draw(models.create(
        "resnet50", width=8, stages=(2, 1), classes=15, head_width=16), COLOR, 2)
    save_file(torchvision_names(source), tmp_path / "w.safetensors")
    loaded = pretrained.load(tmp_path / "w.safetensors", target, "resnet50")
    assert_trees_equal(loaded["params"]["head"], target["params"]["head"])
    with pytest.raises(UserError, match=r"params/head/hidden/kernel.*fc\.weight \(3, 64\)"):
        pretrained.load(tmp_path / "w.safetensors", target, "resnet50", skip_head=False)


@pytest.mark.parametrize("kind", ["resnet50", "vit_tiny", "augreg"])
def test_one_channel_model_responds_as_to_three_identical_channels(tmp_path, draw, kind):
    model = resnet() if kind == "resnet50" else vit()
    source = draw(model, COLOR, 1)
    path = tmp_path / ("w.npz" if kind == "augreg" else "w.safetensors")
    if kind == "augreg":
        np.savez(path, **augreg_names(source))
    else:
        save_file((torchvision_names if kind == "resnet50" else timm_names)(source), path)
    name = "resnet50" if kind == "resnet50" else "vit_tiny"
    loaded = pretrained.load(path, draw(model, GRAY, 2), name, skip_head=False)
    gray = np.random.default_rng(0).normal(size=GRAY.shape).astype(np.float32)
    expected = jax.jit(model.apply)(source, gray.repeat(3, axis=-1))
    np.testing.assert_allclose(jax.jit(model.apply)(loaded, gray), expected, atol=1e-4, rtol=1e-4)


def test_mean_pooling_leaves_the_class_token_of_the_file(tmp_path, draw):
    source = draw(vit(), COLOR, 1)
    save_file(timm_names(source), tmp_path / "w.safetensors")
    target = draw(vit(pool="mean"), COLOR, 2)
    loaded = pretrained.load(tmp_path / "w.safetensors", target, "vit_tiny")
    backbone, expected = loaded["params"]["backbone"], source["params"]["backbone"]
    assert "cls_token" not in backbone
    np.testing.assert_array_equal(backbone["pos_embed"], expected["pos_embed"][:, 1:])
    # The other way the token is missing, and said to be.
    save_file(timm_names(draw(vit(pool="mean"), COLOR, 1)), tmp_path / "mean.safetensors")
    with pytest.raises(UserError, match="missing from the file: params/backbone/cls_token"):
        pretrained.load(tmp_path / "mean.safetensors", source, "vit_tiny")


def test_positions_keep_what_a_smooth_grid_holds():
    """A constant table stays constant, a linear one stays monotone, prefixes stay themselves."""
    ramp = np.repeat(np.arange(4, dtype=np.float32), 4)
    table = np.stack([np.ones(16, np.float32), ramp], axis=-1)
    table = np.concatenate([[[7.0, -3.0]], table])[None].astype(np.float32)
    found = pretrained.resample_positions(table, (6, 3), prefix=1)
    assert found.shape == (1, 19, 2)
    np.testing.assert_array_equal(found[0, 0], [7.0, -3.0])
    np.testing.assert_allclose(found[0, 1:, 0], 1.0, atol=1e-6)
    rows = found[0, 1:, 1].reshape(6, 3)
    assert (np.diff(rows, axis=0) > 0).all()
    np.testing.assert_allclose(rows, rows[:, :1].repeat(3, axis=1), atol=1e-6)


def test_grid_of_images_that_are_not_square_must_be_given(tmp_path, draw):
    source = draw(vit(), COLOR, 1)
    save_file(timm_names(source), tmp_path / "w.safetensors")
    wide = draw(vit(), np.zeros((1, 16, 24, 3), np.float32), 2)
    with pytest.raises(UserError, match=r"give grid=\(rows, columns\)"):
        pretrained.load(tmp_path / "w.safetensors", wide, "vit_tiny")
    loaded = pretrained.load(tmp_path / "w.safetensors", wide, "vit_tiny", grid=(2, 3))
    assert loaded["params"]["backbone"]["pos_embed"].shape == (1, 7, 12)


def test_leaves_keep_their_dtype_and_devices(tmp_path, draw):
    source = draw(vit(), COLOR, 1)
    save_file(timm_names(source), tmp_path / "w.safetensors")
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    target = jax.device_put(jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), source), spread)
    loaded = pretrained.load(tmp_path / "w.safetensors", target, "vit_tiny")
    leaf = loaded["params"]["backbone"]["blocks_0"]["mlp"]["fc1"]["kernel"]
    assert leaf.dtype == jnp.bfloat16
    assert leaf.sharding == spread


@pytest.mark.parametrize("layout", ["timm", "augreg"])
def test_flexible_heads_that_see_everything_respond_as_the_plain_file(tmp_path, draw, layout):
    source = draw(vit(), COLOR, 1)
    path = tmp_path / ("w.npz" if layout == "augreg" else "w.safetensors")
    if layout == "augreg":
        np.savez(path, **augreg_names(source))
    else:
        save_file(timm_names(source), path)
    kind = "1*adaptive(2,init=1)/static + 1*talking + 1*fixed(9)/token|3*adaptive/table/element"
    flexible = vit(attention=kind)
    start = flexible.init(jax.random.key(0), COLOR)
    loaded = pretrained.load(path, start, "vit_tiny", skip_head=False)
    own = loaded["params"]["backbone"]["blocks_0"]["attention"]
    np.testing.assert_array_equal(own["group_0"]["span"], [1.0])
    np.testing.assert_array_equal(own["group_0"]["gate"], [2.5])
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    expected = jax.jit(vit().apply)(source, images)
    np.testing.assert_allclose(jax.jit(flexible.apply)(loaded, images), expected, atol=1e-5)


@pytest.mark.parametrize("layout", ["timm", "augreg"])
def test_heads_of_other_sizes_take_slices_in_order(tmp_path, draw, layout):
    source = draw(vit(), COLOR, 1)
    path = tmp_path / ("w.npz" if layout == "augreg" else "w.safetensors")
    if layout == "augreg":
        np.savez(path, **augreg_names(source))
    else:
        save_file(timm_names(source), path)
    model = vit(attention="1*global/dim(6) + 2*fixed(1)/dim(3)")
    target = draw(model, COLOR, 2)
    loaded = pretrained.load(path, target, "vit_tiny", skip_head=False)
    plain = source["params"]["backbone"]["blocks_1"]["attention"]
    found = loaded["params"]["backbone"]["blocks_1"]["attention"]
    for role in ("query", "key", "value"):
        for leaf, lead in (("kernel", (12,)), ("bias", ())):
            joined = [found[f"group_{g}_{role}"][leaf].reshape(*lead, 6) for g in (0, 1)]
            expected = plain[role][leaf].reshape(*lead, 12)
            np.testing.assert_array_equal(np.concatenate(joined, -1), expected)
        assert found[f"group_1_{role}"]["kernel"].shape == (12, 2, 3)
    outs = [found[f"group_{g}_out"]["kernel"].reshape(6, 12) for g in (0, 1)]
    np.testing.assert_array_equal(np.concatenate(outs), plain["out"]["kernel"].reshape(12, 12))
    np.testing.assert_array_equal(found["group_0_out"]["bias"], plain["out"]["bias"])
    wide = draw(vit(attention="1*global/dim(6) + 2*global/dim(4)"), COLOR, 2)
    with pytest.raises(UserError, match="groups of heads are 14 wide together"):
        pretrained.load(path, wide, "vit_tiny")


def test_other_kinds_of_attention_still_miss_their_parameters(tmp_path, draw):
    save_file(timm_names(draw(vit(), COLOR, 1)), tmp_path / "w.safetensors")
    for kind, name in (("linformer(rank=2)", "key_projection"), ("transformer_xl", "relative")):
        target = draw(vit(attention=kind), COLOR)
        with pytest.raises(UserError, match=f"missing from the file: .*{name}"):
            pretrained.load(tmp_path / "w.safetensors", target, "vit_tiny")


def test_pose_models_have_no_foreign_weights(tmp_path, draw):
    save_file({"w": np.zeros(1, np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="no pretrained weights for model 'pose_temporal'"):
        pretrained.load(tmp_path / "w.safetensors", {"params": {}}, "pose_temporal")
