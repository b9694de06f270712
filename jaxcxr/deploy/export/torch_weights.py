"""Writes the weights of a model in the names and layouts of torchvision or timm.

`load_state_dict(strict=True)` of torchvision's `resnet*` and `densenet121` and of timm's `vit_*`
accepts them, with `num_classes` the number of classes. The first convolution of one channel becomes
three equal thirds, the same function of three identical channels. A head with a hidden layer
becomes `fc.0` and `fc.3` of `nn.Sequential(Linear, ReLU, Dropout, Linear)`.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from jaxcxr import registry
from jaxcxr.deploy.bundle.bundled_model import Bundle, flat_weights
from jaxcxr.errors import UserError
from jaxcxr.models.sequence import scanned
from jaxcxr.models.weights import inputs
from jaxcxr.models.weights.layouts import Layout


def state_dict(
    variables: Mapping[str, Any], model_name: str, hidden_head: bool = False
) -> dict[str, np.ndarray]:
    """Converts weights, their loop over layers unrolled, to the names and layouts of torch.

    Raises:
      UserError: the model has no layout of torch.
      ValueError: the layout has no place for a weight.
    """
    found = {}
    for name, array in _layout(model_name).tensors(flat_weights(variables), hidden_head).items():
        # safetensors ignores strides.
        found[name] = np.ascontiguousarray(array.astype(np.float32))
        if name.endswith("running_mean"):
            found[name.replace("running_mean", "num_batches_tracked")] = np.zeros((), np.int64)
    return found


def write(bundle: Bundle, out: pathlib.Path) -> dict[str, Any]:
    """Writes the weights of a bundle of radiographs and returns facts about the file."""
    name = bundle.model_name
    layout = _layout(name)
    options, standard = bundle.config.model.options, registry.model_options(name)
    for option in layout.fixed:
        if options[option] != standard[option]:
            raise UserError(
                f"{layout.library} has no {name} with {option}={options[option]!r}, only with "
                f"{standard[option]!r}; export onnx or stablehlo instead."
            )
    _, variables = scanned.unrolled(bundle.model, bundle.variables)
    arrays = state_dict(variables, name, bool(options.head_width))
    safetensors.numpy.save_file(arrays, out, {"format": "pt"})
    about = {"library": layout.library, "tensors": len(arrays)}
    return {**about, **_advice(layout, bundle, options)}


def _advice(layout: Layout, bundle: Bundle, options: Any) -> dict[str, str]:
    """Writes Python that makes the model, and its head if that is not the library's."""
    classes = len(bundle.classes)
    facts = {
        **options.to_dict(), "classes": classes,
        "name": dict(layout.names).get(bundle.model_name, bundle.model_name),
        "image_size": bundle.image_size,
    }
    head = (f"nn.Sequential(nn.Linear(features, {options.head_width}), nn.ReLU(), nn.Dropout(), "
            f"nn.Linear({options.head_width}, {classes}))") if options.head_width else ""
    return {"model": layout.constructor.format(**facts), **({"its head": head} if head else {}),
            "its input": inputs.of_config(bundle.config.model.input).describe()}


def _layout(model_name: str) -> Layout:
    """Returns the export layout that the class of the model declares."""
    layout = _exported(model_name)
    if layout is None:
        known = ", ".join(name for name in registry.MODELS if _exported(name))
        raise UserError(
            f"torchvision and timm have no {model_name}; torch-safetensors is for {known}."
        )
    return layout


def _exported(model_name: str) -> Layout | None:
    layouts = getattr(registry.model(model_name).func, "layouts", ())
    return next((layout for layout in layouts if layout.library), None)
