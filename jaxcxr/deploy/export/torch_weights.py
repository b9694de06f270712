"""Weights in the names and layouts of torchvision and timm: the way back of `models.pretrained`.

What `torch.load_state_dict(strict=True)` takes: torchvision's `resnet*` and `densenet121`, timm's
`vit_*` with `num_classes` as many as the classes. The first convolution of one channel becomes
three equal thirds, which on three identical channels is the same function. A head with a hidden
layer becomes `fc.0` and `fc.3`, those of `nn.Sequential(Linear, ReLU, Dropout, Linear)`.
"""

import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from jaxcxr import registry
from jaxcxr.deploy.bundle.bundled_model import Bundle, flat_weights
from jaxcxr.errors import UserError
from jaxcxr.models.sequence import scanned

Rules = tuple[tuple[str, str, Callable[[np.ndarray], np.ndarray]], ...]


def _keep(w: np.ndarray) -> np.ndarray:
    return w


def _flat(w: np.ndarray) -> np.ndarray:
    return w.reshape(-1)


def _dense(w: np.ndarray) -> np.ndarray:
    """`[in, out]` to `[out, in]`."""
    return w.T


def _from_heads(w: np.ndarray) -> np.ndarray:
    """`[heads, width, out]` to `[out, in]`."""
    return w.reshape(-1, w.shape[-1]).T


def _conv(w: np.ndarray) -> np.ndarray:
    """HWIO to OIHW."""
    return w.transpose(3, 2, 0, 1)


def _first_conv(w: np.ndarray) -> np.ndarray:
    return np.repeat(_conv(w) / 3, 3, axis=1) if w.shape[2] == 1 else _conv(w)


_LEAF = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_BN = r"(?:params|batch_stats)/backbone"


def _norm(ours: str, theirs: str) -> Rules:
    """Rules of a normalisation layer, with its running statistics where it has them."""
    return tuple(
        (rf"{ours}/{leaf}", f"{theirs}.{name}", _keep) for leaf, name in _LEAF.items()
    )


def _head(name: str) -> Rules:
    return (
        (r"params/head/logits/kernel", rf"{name}.weight", _dense),
        (r"params/head/logits/bias", rf"{name}.bias", _keep),
    )


def _deep_head(name: str) -> Rules:
    hidden = (
        (r"params/head/hidden/kernel", rf"{name}.0.weight", _dense),
        (r"params/head/hidden/bias", rf"{name}.0.bias", _keep),
    )
    return (*hidden, *_head(f"{name}.3"))


_RESNET: Rules = (
    (r"params/backbone/conv1/kernel", "conv1.weight", _first_conv),
    (r"params/backbone/layer(\d)_(\d+)/conv(\d)/kernel", r"layer\1.\2.conv\3.weight", _conv),
    (r"params/backbone/layer(\d)_(\d+)/downsample_conv/kernel",
     r"layer\1.\2.downsample.0.weight", _conv),
    *_norm(rf"{_BN}/bn1", "bn1"),
    *_norm(rf"{_BN}/layer(\d)_(\d+)/bn(\d)", r"layer\1.\2.bn\3"),
    *_norm(rf"{_BN}/layer(\d)_(\d+)/downsample_bn", r"layer\1.\2.downsample.1"),
)
_DENSENET: Rules = (
    (r"params/backbone/conv0/kernel", "features.conv0.weight", _first_conv),
    (r"params/backbone/denseblock(\d)_(\d+)/conv(\d)/kernel",
     r"features.denseblock\1.denselayer\2.conv\3.weight", _conv),
    (r"params/backbone/transition(\d)/conv/kernel", r"features.transition\1.conv.weight", _conv),
    *_norm(rf"{_BN}/norm([05])", r"features.norm\1"),
    *_norm(rf"{_BN}/denseblock(\d)_(\d+)/norm(\d)",
           r"features.denseblock\1.denselayer\2.norm\3"),
    *_norm(rf"{_BN}/transition(\d)/norm", r"features.transition\1.norm"),
)
_BLOCK = r"params/backbone/blocks_(\d+)"
_VIT: Rules = (
    (r"params/backbone/cls_token", "cls_token", _keep),
    (r"params/backbone/pos_embed", "pos_embed", _keep),
    (r"params/backbone/patch_embed/kernel", "patch_embed.proj.weight", _first_conv),
    (r"params/backbone/patch_embed/bias", "patch_embed.proj.bias", _keep),
    *_norm(rf"{_BLOCK}/norm(\d)", r"blocks.\1.norm\2"),
    *_norm(r"params/backbone/norm", "norm"),
    (rf"{_BLOCK}/attention/out/kernel", r"blocks.\1.attn.proj.weight", _from_heads),
    (rf"{_BLOCK}/attention/out/bias", r"blocks.\1.attn.proj.bias", _keep),
    (rf"{_BLOCK}/mlp/fc(\d)/kernel", r"blocks.\1.mlp.fc\2.weight", _dense),
    (rf"{_BLOCK}/mlp/fc(\d)/bias", r"blocks.\1.mlp.fc\2.bias", _keep),
)
_QKV = re.compile(rf"{_BLOCK}/attention/(query|key|value)/(kernel|bias)")
# family -> (library, rules, name of the head, options that the library's architecture fixes)
_FAMILIES: dict[str, tuple[str, Rules, str, tuple[str, ...]]] = {
    "resnet": ("torchvision", _RESNET, "fc", ("stages", "bottleneck", "width", "stem")),
    "densenet": ("torchvision", _DENSENET, "classifier",
                 ("stages", "growth", "bn_size", "width", "stem")),
    "vit": ("timm", _VIT, "head",
            ("dim", "depth", "heads", "mlp_ratio", "pool", "positions", "attention", "norm")),
}


def state_dict(
    variables: Mapping[str, Any], model_name: str, hidden_head: bool = False
) -> dict[str, np.ndarray]:
    """Weights in torch's names and layouts.

    Arguments:
      variables: of the model, blocks by number.
      model_name: of `registry.MODELS`.
      hidden_head: whether the head has a hidden layer.

    Returns:
      name -> float32 array; `num_batches_tracked` is 0.

    Errors:
      ValueError: a weight has no place there.
    """
    _, rules, head, _ = _FAMILIES[_family(model_name)]
    rules = (*rules, *(_deep_head(head) if hidden_head else _head(head)))
    fused, found = {}, {}
    for name, value in flat_weights(variables).items():
        match = _QKV.fullmatch(name)
        if match:
            block, part, leaf = match.groups()
            # Kernels are [in, heads, width]; timm has one of [3 out, in].
            flat = value.reshape(value.shape[0], -1).T if leaf == "kernel" else _flat(value)
            fused.setdefault((block, leaf), {})[part] = flat
            continue
        key, array = _placed(name, value, rules)
        found[key] = array.astype(np.float32)
        if key.endswith("running_mean"):
            found[key.replace("running_mean", "num_batches_tracked")] = np.zeros((), np.int64)
    for (block, leaf), parts in fused.items():
        name = f"blocks.{block}.attn.qkv.{'weight' if leaf == 'kernel' else 'bias'}"
        found[name] = np.concatenate([parts[p] for p in ("query", "key", "value")])
    # safetensors writes memory as it lies.
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def write(bundle: Bundle, out: pathlib.Path) -> dict[str, Any]:
    """Writes the weights of a bundle.

    Arguments:
      bundle: of radiographs.
      out: the file.

    Returns:
      facts about the file.

    Raises:
      UserError: the model is none that torchvision or timm have.
    """
    name = bundle.model_name
    library, _, _, fixed = _FAMILIES[_family(name)]
    options, standard = bundle.config.model.options, registry.model_options(name)
    for option in fixed:
        if options[option] != standard[option]:
            raise UserError(
                f"{library} has no {name} with {option}={options[option]!r}, only with "
                f"{standard[option]!r}; export onnx or stablehlo instead."
            )
    _, variables = scanned.unrolled(bundle.model, bundle.variables)
    arrays = state_dict(variables, name, bool(options.head_width))
    safetensors.numpy.save_file(arrays, out, {"format": "pt"})
    return {"library": library, "tensors": len(arrays), **_advice(library, bundle, options)}


def _advice(library: str, bundle: Bundle, options: Any) -> dict[str, str]:
    """How the model is made there."""
    classes, name = len(bundle.classes), bundle.model_name
    if library == "timm":
        make = (f"timm.create_model('vit_{name.removeprefix('vit_')}_patch{options.patch}_224', "
                f"num_classes={classes}, img_size={bundle.image_size})")
    else:
        make = f"torchvision.models.{name}(num_classes={classes})"
    head = (f"nn.Sequential(nn.Linear(features, {options.head_width}), nn.ReLU(), nn.Dropout(), "
            f"nn.Linear({options.head_width}, {classes}))") if options.head_width else ""
    return {"model": make, **({"its head": head} if head else {})}


def _family(model_name: str) -> str:
    for family in _FAMILIES:
        if model_name.startswith(family):
            return family
    raise UserError(
        f"torchvision and timm have no {model_name}; torch-safetensors is for resnet, densenet "
        "and vit models."
    )


def _placed(name: str, value: np.ndarray, rules: Rules) -> tuple[str, np.ndarray]:
    for pattern, target, transform in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(target), transform(value)
    raise ValueError(f"{name} has no place in torch's model")
