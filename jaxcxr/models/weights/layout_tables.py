"""Layouts of the weights of torchvision, timm, transformers and augreg."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcxr.models.weights.layouts import (
    BACKBONE,
    CONV,
    DENSE,
    FIRST_CONV,
    FIRST_CONV_HWIO,
    FLAT,
    FROM_HEADS,
    HEAD,
    Entry,
    Layout,
    batch_norm,
    linear,
    norm,
    tensor,
)

_COUNTERS = r".*\.num_batches_tracked"
_TORCHVISION = "torchvision.models.{name}(num_classes={classes})"


def _without_biases(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Moves biases of MONAI's shortcuts to the means of the BatchNorms that follow, exactly."""
    found = dict(tensors)
    for name in tensors:
        mean = name.replace(".downsample.0.bias", ".downsample.1.running_mean")
        if mean != name and mean in found:
            found[mean] = found[mean] - found.pop(name)
    return found


TORCHVISION_RESNET = Layout(
    entries=(
        tensor("conv1.weight", f"{BACKBONE}/conv1/kernel", FIRST_CONV),
        *batch_norm("bn1", "backbone/bn1"),
        tensor("layer{}.{}.conv{}.weight", "params/backbone/layer{}_{}/conv{}/kernel", CONV),
        *batch_norm("layer{}.{}.bn{}", "backbone/layer{}_{}/bn{}"),
        tensor("layer{}.{}.downsample.0.weight",
               "params/backbone/layer{}_{}/downsample_conv/kernel", CONV),
        *batch_norm("layer{}.{}.downsample.1", "backbone/layer{}_{}/downsample_bn"),
        *linear("fc", HEAD),
    ),
    ignored=_COUNTERS,
    library="torchvision",
    inputs="imagenet",
    fixed=("stages", "bottleneck", "width", "stem"),
    head="fc",
    constructor=_TORCHVISION,
)

_BIAS = "layer{}.{}.downsample.0.bias"
MONAI_RESNET = dataclasses.replace(
    TORCHVISION_RESNET,
    entries=(
        *TORCHVISION_RESNET.entries,
        tensor(_BIAS, "params/backbone/layer{}_{}/downsample_conv/bias"),
    ),
    prepare=_without_biases,
    library="",
    inputs="",
    needs=(("stem", ("stride1", "stride2"), "MONAI's ResNets have stride 1 in the first layer "
            "unless they are made with conv1_t_stride=2, and the file does not say"),),
)
RESNET = (TORCHVISION_RESNET, MONAI_RESNET)

TORCHVISION_DENSENET = Layout(
    entries=(
        tensor("features.conv0.weight", f"{BACKBONE}/conv0/kernel", FIRST_CONV),
        *batch_norm("features.norm{}", "backbone/norm{}"),
        tensor("features.denseblock{}.denselayer{}.conv{}.weight",
               "params/backbone/denseblock{}_{}/conv{}/kernel", CONV),
        *batch_norm("features.denseblock{}.denselayer{}.norm{}",
                    "backbone/denseblock{}_{}/norm{}"),
        tensor("features.transition{}.conv.weight",
               "params/backbone/transition{}/conv/kernel", CONV),
        *batch_norm("features.transition{}.norm", "backbone/transition{}/norm"),
        *linear("classifier", HEAD),
    ),
    # CheXNet's reproductions hold the classifier in a Sequential. Older files, torchvision's own
    # ImageNet weights among them, write `norm.1` for `norm1`; MONAI has names of its own.
    renamed=(
        (r"^classifier\.0\.", "classifier."),
        (r"^class_layers\.out\.", "classifier."),
        (r"(\.denselayer\d+)\.layers\.", r"\1."),
        (r"(\.denselayer\d+\.(?:norm|conv))\.(\d+)", r"\1\2"),
    ),
    ignored=rf"{_COUNTERS}|op_threshs",  # the latter are thresholds of torchxrayvision
    library="torchvision",
    inputs="imagenet",
    fixed=("stages", "growth", "bn_size", "width", "stem"),
    head="classifier",
    constructor=_TORCHVISION,
)

_BLOCK = "params/backbone/blocks_{}"
_TOKENS: dict[str, Any] = {
    "class_token": f"{BACKBONE}/cls_token", "positions": f"{BACKBONE}/pos_embed",
}
_ROLES = ("query", "key", "value")

_NPZ_BLOCK = "Transformer/encoderblock_{}"
AUGREG_VIT = Layout(
    entries=(
        tensor("cls", f"{BACKBONE}/cls_token"),
        tensor("Transformer/posembed_input/pos_embedding", f"{BACKBONE}/pos_embed"),
        tensor("embedding/kernel", f"{BACKBONE}/patch_embed/kernel", FIRST_CONV_HWIO),
        tensor("embedding/bias", f"{BACKBONE}/patch_embed/bias"),
        *(
            tensor(f"{_NPZ_BLOCK}/{theirs}/{leaf}", f"{_BLOCK}/{ours}/{leaf}")
            for theirs, ours, leaves in (
                ("LayerNorm_0", "norm1", ("scale", "bias")),
                ("LayerNorm_2", "norm2", ("scale", "bias")),
                *((f"MultiHeadDotProductAttention_1/{role}", f"attention/{role}",
                   ("kernel", "bias")) for role in (*_ROLES, "out")),
                ("MlpBlock_3/Dense_0", "mlp/fc1", ("kernel", "bias")),
                ("MlpBlock_3/Dense_1", "mlp/fc2", ("kernel", "bias")),
            )
            for leaf in leaves
        ),
        *(tensor(f"Transformer/encoder_norm/{leaf}", f"{BACKBONE}/norm/{leaf}")
          for leaf in ("scale", "bias")),
        *(tensor(f"head/{leaf}", f"{HEAD}/{leaf}") for leaf in ("kernel", "bias")),
    ),
    ignored=r"pre_logits/.*",
    inputs="half",
    head="head",
    **_TOKENS,
    method="linear",
    antialias=False,
)

_HF_BLOCK = "encoder.layer.{}"
_HF_ATTENTION = (
    *(entry for role in _ROLES for entry in linear(
        f"{_HF_BLOCK}.attention.attention.{role}", f"{_BLOCK}/attention/{role}", DENSE, FLAT,
    )),
    *linear(f"{_HF_BLOCK}.attention.output.dense", f"{_BLOCK}/attention/out", FROM_HEADS),
)
_HF_5_ATTENTION = (  # names of transformers 5
    *((rf"\.attention\.{role[0]}_proj\.", f".attention.attention.{role}.") for role in _ROLES),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
)
HF_VIT = Layout(
    entries=(
        tensor("embeddings.cls_token", f"{BACKBONE}/cls_token"),
        tensor("embeddings.position_embeddings", f"{BACKBONE}/pos_embed"),
        *linear("embeddings.patch_embeddings.projection", f"{BACKBONE}/patch_embed", FIRST_CONV),
        *norm(f"{_HF_BLOCK}.layernorm_before", f"{_BLOCK}/norm1"),
        *norm(f"{_HF_BLOCK}.layernorm_after", f"{_BLOCK}/norm2"),
        *_HF_ATTENTION,
        *linear(f"{_HF_BLOCK}.intermediate.dense", f"{_BLOCK}/mlp/fc1"),
        *linear(f"{_HF_BLOCK}.output.dense", f"{_BLOCK}/mlp/fc2"),
        *norm("layernorm", f"{BACKBONE}/norm"),
        *linear("classifier", HEAD),
    ),
    renamed=(
        (r"^layers\.", "encoder.layer."), *_HF_5_ATTENTION,
        (r"\.mlp\.fc1\.", ".intermediate.dense."), (r"\.mlp\.fc2\.", ".output.dense."),
    ),
    ignored=r"pooler\..*|embeddings\.mask_token",
    head="classifier",
    **_TOKENS,
)

TIMM_VIT = Layout(
    entries=(
        tensor("cls_token", f"{BACKBONE}/cls_token"),
        tensor("pos_embed", f"{BACKBONE}/pos_embed"),
        *linear("patch_embed.proj", f"{BACKBONE}/patch_embed", FIRST_CONV),
        *norm("blocks.{}.norm1", f"{_BLOCK}/norm1"),
        *norm("blocks.{}.norm2", f"{_BLOCK}/norm2"),
        Entry("blocks.{}.attn.qkv.weight",
              tuple(f"{_BLOCK}/attention/{role}/kernel" for role in _ROLES), DENSE),
        Entry("blocks.{}.attn.qkv.bias",
              tuple(f"{_BLOCK}/attention/{role}/bias" for role in _ROLES), FLAT),
        *linear("blocks.{}.attn.proj", f"{_BLOCK}/attention/out", FROM_HEADS),
        *linear("blocks.{}.mlp.fc1", f"{_BLOCK}/mlp/fc1"),
        *linear("blocks.{}.mlp.fc2", f"{_BLOCK}/mlp/fc2"),
        *norm("norm", f"{BACKBONE}/norm"),
        *linear("head", HEAD),
    ),
    renamed=((r"^fc_norm\.", "norm."),),
    # A masked autoencoder's decoder, and the token in the place of masked patches.
    ignored=r"decoder_.*|mask_token",
    **_TOKENS,
    library="timm",
    fixed=("dim", "depth", "heads", "mlp_ratio", "pool", "positions", "attention", "norm"),
    head="head",
    constructor=(
        "timm.create_model('{name}_patch{patch}_224', num_classes={classes}, "
        "img_size={image_size})"
    ),
)

VIT = (AUGREG_VIT, HF_VIT, TIMM_VIT)

_SCALES = tuple(
    tensor(f"blocks.{{}}.ls{i}.gamma", f"{_BLOCK}/ls{i}") for i in (1, 2)
)
TIMM_DINOV2 = dataclasses.replace(
    TIMM_VIT,
    entries=(*TIMM_VIT.entries, *_SCALES, tensor("reg_token", f"{BACKBONE}/registers")),
    # The DINOv2 repository's name of the registers, and its blocks in chunks.
    renamed=(
        *TIMM_VIT.renamed, (r"^register_tokens$", "reg_token"),
        (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
    ),
    fixed=(*TIMM_VIT.fixed, "patch", "registers", "layer_scale"),
    names=tuple((f"dinov2_{size}", f"vit_{size}_patch14_dinov2")
                for size in ("small", "base", "large")),
    constructor="timm.create_model('{name}', num_classes={classes}, img_size={image_size})",
)

HF_DINOV2 = Layout(
    entries=(
        tensor("embeddings.cls_token", f"{BACKBONE}/cls_token"),
        tensor("embeddings.register_tokens", f"{BACKBONE}/registers"),
        tensor("embeddings.position_embeddings", f"{BACKBONE}/pos_embed"),
        *linear("embeddings.patch_embeddings.projection", f"{BACKBONE}/patch_embed", FIRST_CONV),
        *(entry for i in (1, 2) for entry in (
            *norm(f"{_HF_BLOCK}.norm{i}", f"{_BLOCK}/norm{i}"),
            tensor(f"{_HF_BLOCK}.layer_scale{i}.lambda1", f"{_BLOCK}/ls{i}"),
            *linear(f"{_HF_BLOCK}.mlp.fc{i}", f"{_BLOCK}/mlp/fc{i}"),
        )),
        *_HF_ATTENTION,
        *norm("layernorm", f"{BACKBONE}/norm"),
        *linear("classifier", HEAD),
    ),
    renamed=_HF_5_ATTENTION,
    ignored=r"embeddings\.mask_token",
    head="classifier",
    **_TOKENS,
)

DINOV2 = (HF_DINOV2, TIMM_DINOV2)
