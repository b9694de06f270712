"""Tables that map the tensor names of other libraries to ours, with what each tensor needs."""

from collections.abc import Callable

import numpy as np

# A transform takes (array of the file, shape in the model) and returns the converted array. It may
# raise ValueError with the reason why the array does not fit.
Transform = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]


def _keep(w: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return w


def _dense(w: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`[out, in]` to `[in, out]`, split into heads where the model has them."""
    return w.T.reshape(shape)


def _flat(w: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A bias `[dim]`, split into heads where the model has them."""
    return w.reshape(shape)


def _conv(w: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """OIHW to HWIO."""
    return w.transpose(2, 3, 1, 0)


def _first_conv_hwio(w: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sums over RGB for a one-channel model: the response to three identical channels."""
    if w.ndim == 4 and w.shape[2] == 3 and shape[2] == 1:
        return w.sum(axis=2, keepdims=True)
    return w


def _first_conv(w: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return _first_conv_hwio(_conv(w, shape), shape)


def _third(index: int, transform: Transform) -> Transform:
    """One of query, key and value of timm's fused projection `[3 * dim, ...]`."""

    def take(w: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return transform(np.split(w, 3)[index], shape)

    return take


Rule = tuple[str, tuple[tuple[str, Transform], ...]]


def _rule(pattern: str, target: str, transform: Transform = _keep) -> Rule:
    return pattern, ((target, transform),)


def _pair(
    source: str, target: str, kernel: Transform, bias: Transform = _keep
) -> tuple[Rule, Rule]:
    """Rules of a torch layer with `weight` and `bias`."""
    return (
        _rule(rf"{source}\.weight", f"{target}/kernel", kernel),
        _rule(rf"{source}\.bias", f"{target}/bias", bias),
    )


def _norm(source: str, target: str) -> tuple[Rule, Rule]:
    """Rules of a torch normalisation layer."""
    return (
        _rule(rf"{source}\.weight", f"{target}/scale"),
        _rule(rf"{source}\.bias", f"{target}/bias"),
    )


def _batch_norm(source: str, target: str) -> tuple[Rule, ...]:
    """Rules of a torch BatchNorm, its running statistics included."""
    return (
        *_norm(source, f"params/{target}"),
        _rule(rf"{source}\.running_mean", f"batch_stats/{target}/mean"),
        _rule(rf"{source}\.running_var", f"batch_stats/{target}/var"),
    )


BACKBONE, HEAD = "params/backbone", "params/head/logits"
_BLOCK = rf"{BACKBONE}/blocks_\1"

# Each table is read from the top: the first pattern that matches a whole key decides. A rule
# without targets drops the key.
TORCHVISION_RESNET: tuple[Rule, ...] = (
    (r".*\.num_batches_tracked", ()),
    _rule(r"conv1\.weight", f"{BACKBONE}/conv1/kernel", _first_conv),
    *_batch_norm(r"bn1", "backbone/bn1"),
    _rule(
        r"layer(\d)\.(\d+)\.conv(\d)\.weight", rf"{BACKBONE}/layer\1_\2/conv\3/kernel", _conv
    ),
    *_batch_norm(r"layer(\d)\.(\d+)\.bn(\d)", r"backbone/layer\1_\2/bn\3"),
    _rule(
        r"layer(\d)\.(\d+)\.downsample\.0\.weight",
        rf"{BACKBONE}/layer\1_\2/downsample_conv/kernel",
        _conv,
    ),
    *_batch_norm(r"layer(\d)\.(\d+)\.downsample\.1", r"backbone/layer\1_\2/downsample_bn"),
    *_pair(r"fc", HEAD, _dense),
)

# Older files, torchvision's own ImageNet weights among them, write `norm.1` for `norm1`.
# CheXNet's reproductions hold the network in an attribute and the classifier in a Sequential.
_DENSENET = r"(?:densenet121\.)?features"
_DENSE_LAYER = rf"{_DENSENET}\.denseblock(\d)\.denselayer(\d+)"
TORCHVISION_DENSENET: tuple[Rule, ...] = (
    (r".*\.num_batches_tracked", ()),
    _rule(rf"{_DENSENET}\.conv0\.weight", f"{BACKBONE}/conv0/kernel", _first_conv),
    *_batch_norm(rf"{_DENSENET}\.norm([05])", r"backbone/norm\1"),
    _rule(
        rf"{_DENSE_LAYER}\.conv\.?(\d)\.weight",
        rf"{BACKBONE}/denseblock\1_\2/conv\3/kernel",
        _conv,
    ),
    *_batch_norm(rf"{_DENSE_LAYER}\.norm\.?(\d)", r"backbone/denseblock\1_\2/norm\3"),
    _rule(
        rf"{_DENSENET}\.transition(\d)\.conv\.weight",
        rf"{BACKBONE}/transition\1/conv/kernel",
        _conv,
    ),
    *_batch_norm(rf"{_DENSENET}\.transition(\d)\.norm", r"backbone/transition\1/norm"),
    *_pair(r"(?:densenet121\.)?classifier(?:\.0)?", HEAD, _dense),
)

_QKV = tuple(enumerate(("query", "key", "value")))
TIMM_VIT: tuple[Rule, ...] = (
    _rule(r"cls_token", f"{BACKBONE}/cls_token"),
    _rule(r"pos_embed", f"{BACKBONE}/pos_embed"),
    *_pair(r"patch_embed\.proj", f"{BACKBONE}/patch_embed", _first_conv),
    *_norm(r"blocks\.(\d+)\.norm1", f"{_BLOCK}/norm1"),
    *_norm(r"blocks\.(\d+)\.norm2", f"{_BLOCK}/norm2"),
    (
        r"blocks\.(\d+)\.attn\.qkv\.weight",
        tuple((f"{_BLOCK}/attention/{n}/kernel", _third(i, _dense)) for i, n in _QKV),
    ),
    (
        r"blocks\.(\d+)\.attn\.qkv\.bias",
        tuple((f"{_BLOCK}/attention/{n}/bias", _third(i, _flat)) for i, n in _QKV),
    ),
    *_pair(r"blocks\.(\d+)\.attn\.proj", f"{_BLOCK}/attention/out", _dense),
    *_pair(r"blocks\.(\d+)\.mlp\.fc([12])", rf"{_BLOCK}/mlp/fc\2", _dense),
    *_norm(r"(?:fc_)?norm", f"{BACKBONE}/norm"),
    *_pair(r"head", HEAD, _dense),
)

_HF_BLOCK = r"(?:vit\.)?encoder\.layer\.(\d+)"
HF_VIT: tuple[Rule, ...] = (
    (r"(?:vit\.)?(pooler\..*|embeddings\.mask_token)", ()),
    _rule(r"(?:vit\.)?embeddings\.cls_token", f"{BACKBONE}/cls_token"),
    _rule(r"(?:vit\.)?embeddings\.position_embeddings", f"{BACKBONE}/pos_embed"),
    *_pair(
        r"(?:vit\.)?embeddings\.patch_embeddings\.projection",
        f"{BACKBONE}/patch_embed",
        _first_conv,
    ),
    *_norm(rf"{_HF_BLOCK}\.layernorm_before", f"{_BLOCK}/norm1"),
    *_norm(rf"{_HF_BLOCK}\.layernorm_after", f"{_BLOCK}/norm2"),
    *_pair(
        rf"{_HF_BLOCK}\.attention\.attention\.(query|key|value)",
        rf"{_BLOCK}/attention/\2",
        _dense,
        _flat,
    ),
    *_pair(rf"{_HF_BLOCK}\.attention\.output\.dense", f"{_BLOCK}/attention/out", _dense),
    *_pair(rf"{_HF_BLOCK}\.intermediate\.dense", f"{_BLOCK}/mlp/fc1", _dense),
    *_pair(rf"{_HF_BLOCK}\.output\.dense", f"{_BLOCK}/mlp/fc2", _dense),
    *_norm(r"(?:vit\.)?layernorm", f"{BACKBONE}/norm"),
    *_pair(r"classifier", HEAD, _dense),
)

_NPZ_BLOCK = r"Transformer/encoderblock_(\d+)"
AUGREG_VIT: tuple[Rule, ...] = (
    (r"pre_logits/.*", ()),
    _rule(r"cls", f"{BACKBONE}/cls_token"),
    _rule(r"Transformer/posembed_input/pos_embedding", f"{BACKBONE}/pos_embed"),
    _rule(r"embedding/kernel", f"{BACKBONE}/patch_embed/kernel", _first_conv_hwio),
    _rule(r"embedding/bias", f"{BACKBONE}/patch_embed/bias"),
    _rule(rf"{_NPZ_BLOCK}/LayerNorm_0/(scale|bias)", rf"{_BLOCK}/norm1/\2"),
    _rule(rf"{_NPZ_BLOCK}/LayerNorm_2/(scale|bias)", rf"{_BLOCK}/norm2/\2"),
    _rule(
        rf"{_NPZ_BLOCK}/MultiHeadDotProductAttention_1/(query|key|value|out)/(kernel|bias)",
        rf"{_BLOCK}/attention/\2/\3",
    ),
    _rule(rf"{_NPZ_BLOCK}/MlpBlock_3/Dense_0/(kernel|bias)", rf"{_BLOCK}/mlp/fc1/\2"),
    _rule(rf"{_NPZ_BLOCK}/MlpBlock_3/Dense_1/(kernel|bias)", rf"{_BLOCK}/mlp/fc2/\2"),
    _rule(r"Transformer/encoder_norm/(scale|bias)", rf"{BACKBONE}/norm/\1"),
    _rule(r"head/(kernel|bias)", rf"{HEAD}/\1"),
)
