"""Layouts of the weights of ConvNeXt and Swin: timm, torchvision, transformers, the authors."""

import re
from collections.abc import Mapping

import numpy as np

from jaxcxr.models.weights.layouts import (
    BACKBONE,
    CONV,
    DENSE,
    FIRST_CONV,
    FLAT,
    FROM_HEADS,
    HEAD,
    Entry,
    Layout,
    Transform,
    linear,
    norm,
    tensor,
)

_ROLES = ("query", "key", "value")
_STAGE_BLOCK = "params/backbone/stages_{}_blocks_{}"
_VECTOR = Transform(lambda w, shape: w.reshape(shape), lambda w: w)
# Torchvision numbers blocks and the layers between stages in one row.
_FEATURES = (
    *((rf"^features\.{2 * i + 1}\.(\d+)\.", rf"stages.{i}.blocks.\1.") for i in range(4)),
    *((rf"^features\.{2 * i}\.", f"stages.{i}.downsample.") for i in (1, 2, 3)),
)

TIMM_CONVNEXT = Layout(
    entries=(
        *linear("stem.0", f"{BACKBONE}/stem_conv", FIRST_CONV),
        *norm("stem.1", f"{BACKBONE}/stem_norm"),
        *norm("stages.{}.downsample.0", "params/backbone/stages_{}_downsample_norm"),
        *linear("stages.{}.downsample.1", "params/backbone/stages_{}_downsample_conv", CONV),
        *linear("stages.{}.blocks.{}.conv_dw", f"{_STAGE_BLOCK}/conv_dw", CONV),
        *norm("stages.{}.blocks.{}.norm", f"{_STAGE_BLOCK}/norm"),
        *linear("stages.{}.blocks.{}.mlp.fc1", f"{_STAGE_BLOCK}/mlp/fc1"),
        *linear("stages.{}.blocks.{}.mlp.fc2", f"{_STAGE_BLOCK}/mlp/fc2"),
        tensor("stages.{}.blocks.{}.gamma", f"{_STAGE_BLOCK}/gamma", _VECTOR),
        *norm("head.norm", f"{BACKBONE}/norm"),
        *linear("head.fc", HEAD),
    ),
    renamed=(
        # torchvision
        (r"^features\.0\.([01])\.", r"stem.\1."), *_FEATURES,
        (r"\.block\.0\.", ".conv_dw."), (r"\.block\.2\.", ".norm."),
        (r"\.block\.3\.", ".mlp.fc1."), (r"\.block\.5\.", ".mlp.fc2."),
        (r"\.layer_scale(_parameter)?$", ".gamma"),
        (r"^classifier\.0\.", "head.norm."), (r"^classifier\.2\.", "head.fc."),
        # transformers
        (r"^embeddings\.patch_embeddings\.", "stem.0."), (r"^embeddings\.layernorm\.", "stem.1."),
        (r"^encoder\.stages\.", "stages."), (r"\.layers\.(\d+)\.", r".blocks.\1."),
        (r"\.downsampling_layer\.", ".downsample."), (r"^layernorm\.", "head.norm."),
        (r"\.layernorm\.", ".norm."), (r"^classifier\.(?=weight|bias)", "head.fc."),
        # the authors' repository
        (r"^downsample_layers\.0\.", "stem."),
        (r"^downsample_layers\.([123])\.", r"stages.\1.downsample."),
        (r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2."), (r"\.dwconv\.", ".conv_dw."),
        (r"\.pwconv([12])\.", r".mlp.fc\1."), (r"^norm\.", "head.norm."),
        (r"^head\.(weight|bias)$", r"head.fc.\1"),
    ),
    library="timm",
    inputs="imagenet",
    fixed=("stages", "widths"),
    head="head.fc",
    constructor="timm.create_model('{name}', num_classes={classes})",
)


def _of_stage_begun(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Counts a merging of patches to the stage after it, as timm does and Swin's authors do not."""
    if not any(name.startswith("layers.0.downsample.") for name in tensors):
        return dict(tensors)
    merging = re.compile(r"^layers\.(\d)\.downsample\.")
    return {
        merging.sub(lambda match: f"layers.{int(match[1]) + 1}.downsample.", name): value
        for name, value in tensors.items()
    }


def _swin(theirs: str, attention: tuple[Entry, ...], names: Mapping[str, str]) -> tuple[Entry, ...]:
    return (
        *linear(names["patches"], f"{BACKBONE}/patch_embed", FIRST_CONV),
        *norm(names["patch_norm"], f"{BACKBONE}/patch_norm"),
        *norm(f"{names['merge']}.norm", "params/backbone/stages_{}_downsample_norm"),
        tensor(f"{names['merge']}.reduction.weight",
               "params/backbone/stages_{}_downsample_reduction/kernel", DENSE),
        *norm(f"{theirs}.{names['norm1']}", f"{_STAGE_BLOCK}/norm1"),
        *norm(f"{theirs}.{names['norm2']}", f"{_STAGE_BLOCK}/norm2"),
        *linear(f"{theirs}.{names['fc1']}", f"{_STAGE_BLOCK}/mlp/fc1"),
        *linear(f"{theirs}.{names['fc2']}", f"{_STAGE_BLOCK}/mlp/fc2"),
        *attention,
        *norm(names["norm"], f"{BACKBONE}/norm"),
        *linear(names["head"], HEAD),
    )


_SWIN_ATTENTION = f"{_STAGE_BLOCK}/attention"
TIMM_SWIN = Layout(
    entries=_swin(
        "layers.{}.blocks.{}",
        (
            Entry("layers.{}.blocks.{}.attn.qkv.weight",
                  tuple(f"{_SWIN_ATTENTION}/{role}/kernel" for role in _ROLES), DENSE),
            Entry("layers.{}.blocks.{}.attn.qkv.bias",
                  tuple(f"{_SWIN_ATTENTION}/{role}/bias" for role in _ROLES), FLAT),
            *linear("layers.{}.blocks.{}.attn.proj", f"{_SWIN_ATTENTION}/out", FROM_HEADS),
            tensor("layers.{}.blocks.{}.attn.relative_position_bias_table",
                   f"{_SWIN_ATTENTION}/relative_positions"),
        ),
        {"patches": "patch_embed.proj", "patch_norm": "patch_embed.norm",
         "merge": "layers.{}.downsample", "norm1": "norm1", "norm2": "norm2", "fc1": "mlp.fc1",
         "fc2": "mlp.fc2", "norm": "norm", "head": "head.fc"},
    ),
    renamed=(
        # torchvision
        (r"^features\.0\.0\.", "patch_embed.proj."), (r"^features\.0\.2\.", "patch_embed.norm."),
        *_FEATURES, (r"^stages\.", "layers."), (r"\.mlp\.0\.", ".mlp.fc1."),
        (r"\.mlp\.3\.", ".mlp.fc2."), (r"^head\.(weight|bias)$", r"head.fc.\1"),
    ),
    ignored=r".*\.(relative_position_index|attn_mask)",
    prepare=_of_stage_begun,
    library="timm",
    inputs="imagenet",
    fixed=("dim", "stages", "heads", "window", "patch"),
    head="head.fc",
    names=tuple((f"swin_{size}", f"swin_{size}_patch4_window7_224") for size in ("tiny", "base")),
    constructor="timm.create_model('{name}', num_classes={classes}, img_size={image_size})",
)

_HF_SWIN = "encoder.layers.{}.blocks.{}"
HF_SWIN = Layout(
    entries=_swin(
        _HF_SWIN,
        (
            *(entry for role in _ROLES for entry in linear(
                f"{_HF_SWIN}.attention.self.{role}", f"{_SWIN_ATTENTION}/{role}", DENSE, FLAT)),
            *linear(f"{_HF_SWIN}.attention.output.dense", f"{_SWIN_ATTENTION}/out", FROM_HEADS),
            tensor(f"{_HF_SWIN}.attention.self.relative_position_bias_table",
                   f"{_SWIN_ATTENTION}/relative_positions"),
        ),
        {"patches": "embeddings.patch_embeddings.projection", "patch_norm": "embeddings.norm",
         "merge": "merging.{}", "norm1": "layernorm_before", "norm2": "layernorm_after",
         "fc1": "intermediate.dense", "fc2": "output.dense", "norm": "layernorm",
         "head": "classifier"},
    ),
    renamed=(
        *((rf"^encoder\.layers\.{i}\.downsample\.", f"merging.{i + 1}.") for i in range(3)),
        # transformers 5
        *((rf"\.attention\.{role[0]}_proj\.", f".attention.self.{role}.") for role in _ROLES),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"\.attention\.relative_position_bias\.", ".attention.self."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."), (r"\.mlp\.fc2\.", ".output.dense."),
    ),
    ignored=r".*\.relative_position_index|embeddings\.mask_token",
    inputs="imagenet",
    head="classifier",
)
SWIN = (HF_SWIN, TIMM_SWIN)
