"""Writes the weights of a model in the names and layouts of another library.

What `torch.load_state_dict(strict=True)` takes: torchvision's `resnet*` and `densenet121`, timm's
`vit_*` with `num_classes` as many as the classes. The first convolution of one channel becomes
three equal thirds, which on three identical channels is the same function. A head with a hidden
layer becomes `fc.0` and `fc.3`, those of `nn.Sequential(Linear, ReLU, Dropout, Linear)`.
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
from jaxcxr.models.weights.layouts import Layout


def state_dict(
    variables: Mapping[str, Any], model_name: str, hidden_head: bool = False
) -> dict[str, np.ndarray]:
    """Converts weights to torch's names and layouts.

    Arguments:
      variables: of the model, blocks by number.
      model_name: of `registry.MODELS`.
      hidden_head: whether the head has a hidden layer.

    Returns:
      name -> float32 array; `num_batches_tracked` is 0.

    Raises:
      UserError: the model has no layout of torch.
      ValueError: a weight has no place there.
    """
    found = {}
    for name, array in _layout(model_name).tensors(flat_weights(variables), hidden_head).items():
        # safetensors writes memory as it lies.
        found[name] = np.ascontiguousarray(array.astype(np.float32))
        if name.endswith("running_mean"):
            found[name.replace("running_mean", "num_batches_tracked")] = np.zeros((), np.int64)
    return found


def write(bundle: Bundle, out: pathlib.Path) -> dict[str, Any]:
    """Writes the weights of a bundle.

    Arguments:
      bundle: of radiographs.
      out: the file.

    Returns:
      facts about the file.

    Raises:
      UserError: no library has the model.
    """
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
    """Python that makes the model there, and its head where that is not the library's."""
    classes = len(bundle.classes)
    facts = {
        **options.to_dict(), "name": bundle.model_name, "classes": classes,
        "image_size": bundle.image_size,
    }
    head = (f"nn.Sequential(nn.Linear(features, {options.head_width}), nn.ReLU(), nn.Dropout(), "
            f"nn.Linear({options.head_width}, {classes}))") if options.head_width else ""
    return {"model": layout.constructor.format(**facts), **({"its head": head} if head else {})}


def _layout(model_name: str) -> Layout:
    """The layout for export that the model's class declares."""
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
