"""The input that weights were trained on: which numbers a model expects for black and white.

It belongs to the weight file: it is read from the file's own config where that lies beside it, is
known by the name under which the file is published, or is that of all files of a layout. What is
not known is asked for.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from jaxcxr.errors import UserError
from jaxcxr.models.weights import hub
from jaxcxr.models.weights.networks import Network
from jaxcxr.models.weights.weight_files import IN_FOLDERS, SIDECARS


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Values of a model's input.

    A gray level of 0 (black) to 1 becomes low + level (high - low), and then (value - mean) / std,
    in each channel.

    Attributes:
      mean, std: one for all channels, or one for each of three.
      range: (low, high).
      size: pixels a side of the images that the weights were trained on; 0 if not known.
      source: where this is known from.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    range: tuple[float, float] = (0.0, 1.0)
    size: int = 0
    source: str = ""

    def __post_init__(self):
        """Refuses values that no image can be normalised by."""
        low, high = self.range
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise ValueError(
                f"mean {self.mean} and std {self.std} are not one or three values each")
        if not all(s > 0 for s in self.std) or not low < high:
            raise ValueError(f"std {self.std} is not positive, or range {self.range} not rising")

    @property
    def unit(self) -> tuple[tuple[float, float], ...]:
        """(mean, std) of each channel for gray levels from 0 to 1; one where all are equal."""
        low, high = self.range
        pairs = [((m - low) / (high - low), s / (high - low))
                 for m, s in zip(self.mean, self.std, strict=True)]
        return tuple(pairs[:1] if len(set(pairs)) == 1 else pairs)

    @property
    def gray(self) -> tuple[float, float]:
        """(mean, std) of gray levels from 0 to 1, for the one channel that a model gets."""
        means, stds = zip(*self.unit, strict=True)
        return sum(means) / len(means), sum(stds) / len(stds)

    @property
    def colors(self) -> tuple[tuple[float, float], ...]:
        """(scale, shift) that make each channel of the first layer from the one that a model gets.

        () where all are equal: then the kernels of the first layer are added up.
        """
        mean, std = self.gray
        return tuple((std / s, (mean - m) / s) for m, s in self.unit) if self.unit[1:] else ()

    def describe(self) -> str:
        """One line, for the screen."""
        text = f"mean {_numbers(self.mean)}, std {_numbers(self.std)}"
        if self.range != (0.0, 1.0):
            text += f", black {self.range[0]:g}, white {self.range[1]:g}"
        return f"{text} ({self.source})" if self.source else text


# The average over ImageNet's channels, for models that no weight file says otherwise of.
GRAY = Inputs((0.449,), (0.226,))
IMAGENET = Inputs((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = Inputs((0.5,), (0.5,))
_XRV = Inputs((0.0,), (1.0,), (-1024.0, 1024.0), 224)

NAMED = {"gray": GRAY, "imagenet": IMAGENET, "half": _HALF, "torchxrayvision": _XRV}

# Patterns of published names, in order -> a key of `NAMED` and where it is documented.
_TABLE = (
    # timm.models.vision_transformer's default_cfgs: augreg's and the original weights, not those
    # of DINO, MAE, CLIP, SAM or of other training, whose own config says theirs.
    (r"vit_(tiny|small|base|large)(_r\w+)?_patch\d+_\d+(\.(augreg|orig)\w*)?", "half",
     "timm's default_cfgs"),
    (r"vit_\w+_patch\d+(_reg4)?_dinov2(\.\w+)?|dinov2_vit[sbl]14(_reg4)?_pretrain", "imagenet",
     "the DINOv2 repository"),
    (r"vit_\w+_patch\d+_\d+\.(dino|mae)|deit_\w+_patch\d+_\d+(\.fb_in1k)?", "imagenet",
     "timm's default_cfgs"),
    (r".*densenet121-d121-tw-lr001.*|densenet121-res224-\w+|.*resnet50-test512-e400-state"
     r"|resnet50-res512-all", "torchxrayvision", "torchxrayvision's normalisation"),
)


def find(network: Network) -> Inputs | None:
    """Returns the input that the weights of a network expect; None if nothing tells.

    Raises:
      UserError: the config beside the file is damaged.
    """
    found = _of_config(network.path) or _of_name(network)
    if not found and network.layout.inputs and network.stem_channels != 1:
        found = dataclasses.replace(
            NAMED[network.layout.inputs], source="as all weights in this layout that are published"
        )
    if found and network.stem_channels == 1 and len(found.unit) > 1:
        return None  # a single channel is made in several ways from values for three
    return found


def of_config(settings: Any) -> Inputs:
    """Returns the input of a config's `model.input`; `GRAY` if it names none.

    Raises:
      UserError: impossible values.
    """
    mean, std = tuple(settings.mean), tuple(settings.std)
    if not given(settings):
        return GRAY
    if bool(mean) != bool(std):
        raise UserError("config.model.input.mean and std belong together; give both.")
    try:
        return Inputs(mean or (0.0,), std or (1.0,), tuple(settings.range), settings.size,
                      settings.source)
    except ValueError as error:
        raise UserError(f"config.model.input: {error}.") from error


def given(settings: Any) -> bool:
    """Whether a config's `model.input` names an input."""
    return bool(settings.mean or settings.std) or tuple(settings.range) != (0.0, 1.0)


def unknown(network: Network) -> UserError:
    """The error for weights whose input nothing tells."""
    one = ("its first layer takes one channel, and " if network.stem_channels == 1 else "")
    return UserError(
        f"{network.path}: {one}nothing says which values these weights expect of an image. Say it: "
        "torchxrayvision's are --config.model.input.range='(-1024,1024)', images from 0 to 1 are "
        "--config.model.input.mean='(0,)' --config.model.input.std='(1,)', ImageNet's "
        "mean='(0.485,0.456,0.406)' std='(0.229,0.224,0.225)', Inception's and augreg's "
        "mean='(0.5,)' std='(0.5,)'; or put the config.json or preprocessor_config.json of the "
        "weights beside them, as NAME.json."
    )


def _of_name(network: Network) -> Inputs | None:
    """By the name of the file, or that of the folder of a file named as on hubs."""
    if "op_threshs" in network.tensors:
        return dataclasses.replace(_XRV, source="torchxrayvision's normalisation")
    path = network.path
    name = hub.repository(path) or (path.parent.name if path.name in IN_FOLDERS else path.name)
    name = re.sub(r"(\.(safetensors|bin|pth|pt|tar|ckpt|npz))+$", "", name)
    for pattern, key, source in _TABLE:
        if re.fullmatch(pattern, name, re.IGNORECASE):
            return dataclasses.replace(NAMED[key], source=source)
    return None


def _of_config(path: pathlib.Path) -> Inputs | None:
    """By the config that lies beside a file, as timm, transformers, OpenCLIP and MONAI write it."""
    places = [path.with_suffix(".json"), path.with_name(f"{path.name}.json")]
    if path.name in IN_FOLDERS or hub.repository(path):
        places += [path.with_name(name) for name in SIDECARS]
    if path.parent.name == "models":
        places.append(path.parent.parent / "configs" / "metadata.json")
    for place in places:
        if not place.is_file():
            continue
        try:
            content = json.loads(place.read_text(encoding="utf-8"))
            found = _parse(content if isinstance(content, dict) else {})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"{place} beside the weights was not understood: {error}; correct it, or give "
                "--config.model.input.mean and std and rename it."
            ) from error
        if found:
            return dataclasses.replace(found, source=str(place))
    return None


def _parse(content: Mapping[str, Any]) -> Inputs | None:
    for group in ("pretrained_cfg", "preprocess_cfg"):
        if isinstance(content.get(group), dict):
            return _parse(content[group])
    if "network_data_format" in content:
        image = content["network_data_format"]["inputs"]["image"]
        if not image.get("value_range"):
            return None
        low, high = map(float, image["value_range"])
        return Inputs((0.0,), (1.0,), (low, high), _side(image.get("spatial_shape")))
    mean = content.get("image_mean", content.get("mean"))
    std = content.get("image_std", content.get("std"))
    normalizes = content.get("do_normalize", mean is not None)
    if not normalizes and "do_normalize" not in content:
        return None
    if normalizes and (mean is None or std is None):
        return None
    factor = content.get("rescale_factor", 1 / 255) if content.get("do_rescale", True) else 1.0
    low = -1.0 if content.get("rescale_offset") else 0.0
    high = low + 255 * factor
    size = content.get("crop_size") or content.get("input_size") or content.get("size")
    return Inputs(
        _floats(mean) if normalizes else (0.0,), _floats(std) if normalizes else (1.0,),
        (low, 1.0 if abs(high - 1) < 1e-6 else high), _side(size),
    )


def _floats(value: Any) -> tuple[float, ...]:
    values = tuple(map(float, value)) if isinstance(value, list | tuple) else (float(value),)
    return values[:1] if len(set(values)) == 1 else values


def _side(size: Any) -> int:
    """Pixels a side of sizes as they are written: 224, [3, 224, 224], {"height": 224, ...}."""
    if isinstance(size, dict):
        size = size.get("height", size.get("shortest_edge", 0))
    if isinstance(size, list | tuple):
        size = size[-1] if size else 0
    return size if isinstance(size, int) else 0


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
