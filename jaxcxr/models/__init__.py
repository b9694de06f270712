"""The models, made by name: `create("resnet50", classes=15)`."""

import dataclasses
import difflib
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models import (
    densenet,
    pose,
    pose_convolution,
    pose_dual,
    pose_recurrent,
    pose_seq2seq,
    resnet,
    vit,
)

# name -> partial of a Linen module; the partial's keywords replace the module's own defaults.
_MODELS = {
    "resnet18": resnet.resnet18,
    "resnet26": resnet.resnet26,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
    "densenet121": densenet.densenet121,
    "vit_tiny": vit.vit_tiny,
    "vit_small": vit.vit_small,
    "vit_base": vit.vit_base,
    "pose_temporal": functools.partial(pose.PoseTemporal),
    "pose_convolution": functools.partial(pose_convolution.PoseConvolution),
    "pose_frame": functools.partial(pose_convolution.PoseFrame),
    "pose_spatiotemporal": functools.partial(pose.PoseSpatioTemporal),
    "pose_dual_stream": functools.partial(pose_dual.PoseDualStream),
    "pose_recurrent": functools.partial(pose_recurrent.PoseRecurrent),
    "pose_seq2seq": functools.partial(pose_seq2seq.PoseSeq2Seq),
    "pose_encoder_decoder": functools.partial(pose_seq2seq.PoseEncoderDecoder),
}
NAMES = tuple(_MODELS)

# Fields that are not choices of an experiment: Linen's own, what the trainer decides, and `decode`,
# with which `streaming` runs a trained model.
_NOT_OPTIONS = {"parent", "name", "dtype", "axis_name", "decode"}


def _nearest(word: str, allowed: Any) -> str:
    close = difflib.get_close_matches(word, allowed, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _model(name: str) -> functools.partial:
    if name not in _MODELS:
        raise UserError(
            f"no model is called {name!r}.{_nearest(name, NAMES)} Models: {', '.join(NAMES)}."
        )
    return _MODELS[name]


def options(name: str) -> dict[str, Any]:
    """Every option of a model with its default.

    Arguments:
      name: one of `NAMES`.

    Returns:
      Option name -> default; numbers, booleans, strings and tuples only.

    Raises:
      UserError: no such model; the message names the nearest.
    """
    model = _model(name)
    fields = (f for f in dataclasses.fields(model.func) if f.name not in _NOT_OPTIONS)
    return {f.name: model.keywords.get(f.name, f.default) for f in fields}


def create(
    name: str, *, dtype: Any = jnp.float32, axis_name: str | None = None, **options_: Any
) -> nn.Module:
    """Makes a model.

    Arguments:
      name: one of `NAMES`.
      dtype: of the computation; parameters, normalisation, softmax and outputs are float32.
      axis_name: mapped axis of pmap, given only to modules that have BatchNorm.
      **options_: any of `options(name)`.

    Returns:
      A Linen module, called as `module.apply(variables, x, train=bool)`; pose models also take
      `mask`. Its parameters have the top-level groups `backbone` and `head`.

    Raises:
      UserError: unknown model or option; the message names the nearest and what is allowed.
    """
    model, allowed = _model(name), options(name)
    for key in options_:
        if key not in allowed:
            raise UserError(
                f"model {name!r} has no option {key!r}.{_nearest(key, allowed)} "
                f"Options: {', '.join(allowed)}."
            )
    if "axis_name" in {f.name for f in dataclasses.fields(model.func)}:
        options_["axis_name"] = axis_name
    return model(dtype=dtype, **options_)


def parameter_counts(params: Any) -> dict[str, int]:
    """Number of parameters in each top-level group of `params` (arrays or their shapes)."""
    return {
        group: sum(leaf.size for leaf in jax.tree.leaves(tree)) for group, tree in params.items()
    }
