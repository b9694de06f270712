"""Computes plain heads by the fused kernel of cuDNN, which stores no weights, where it can."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from absl import logging

from jaxcxr.models.attention import alignments
from jaxcxr.models.attention.groups import HeadGroup
from jaxcxr.models.attention.spans import Global

_BILINEAR = ("scaled_dot", "dot", "similarity", "general", "biased_general")


def plain(group: HeadGroup) -> bool:
    """Whether heads are a softmax over products of queries and keys, and nothing else."""
    return (
        group.align in _BILINEAR
        and group.norm == "softmax"
        and isinstance(group.span, Global)
        and group.rel_bias == group.mix == "none"
    )


def choose(
    *,
    platform: str,
    capability: float,
    dtype: Any,
    width: int,
    value_width: int,
    queries: int,
    keys: int,
    masked: bool,
    dropout: bool,
) -> tuple[str, str]:
    """Chooses between cuDNN and products of matrices for plain heads.

    The conditions are those of `jax.nn.dot_product_attention(implementation="cudnn")` (jax
    0.10.2). Its "xla" is no faster than `weighing` and has neither chunks nor dropout.

    Arguments:
      platform: "cpu", "cuda", "rocm" or "tpu".
      capability: compute capability of a CUDA device, such as 9.0; else 0.
      dtype: of the computation.
      width, value_width: of a query and of a value.
      queries, keys: numbers of them.
      masked: whether a mask hides keys.
      dropout: whether weights are dropped.

    Returns:
      ("cudnn" or "own", the reason).
    """
    most = 256 if capability >= 9 else 128
    if platform != "cuda":
        return "own", f"cuDNN needs a CUDA device, and the platform is {platform}"
    if capability < 8:
        return "own", f"cuDNN needs compute capability 8.0, and the device has {capability}"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return "own", f"cuDNN computes in bfloat16 and float16, and the dtype is {dtype}"
    if dropout:
        return "own", "dropout on weights is drawn for each, in the same way on every platform"
    if width != value_width:
        return "own", f"cuDNN needs keys and values of one width, not {width} and {value_width}"
    if width % 8 or width > most:
        return "own", f"cuDNN needs a width that is a multiple of 8 up to {most}, not {width}"
    if masked and (queries % 2 or keys % 2):
        return "own", "the gradient with a mask needs even numbers of queries and keys in cuDNN"
    return "cudnn", "all conditions of cuDNN's fused attention hold"


def chosen(
    group: HeadGroup, query: jax.Array, key: jax.Array, value: jax.Array, masked: bool,
    dropout: bool,
) -> bool:
    """Whether `attend` computes the group on the device at hand; says so once for each reason."""
    if not plain(group):
        return False
    device = jax.devices()[0]
    cuda = device.platform == "gpu" and "cuda" in device.client.platform_version
    who, why = choose(
        platform="cuda" if cuda else device.platform,
        capability=float(device.compute_capability) if cuda else 0.0,
        dtype=query.dtype,
        width=query.shape[-1],
        value_width=value.shape[-1],
        queries=query.shape[1],
        keys=key.shape[1],
        masked=masked,
        dropout=dropout,
    )
    _say(who, why)
    return who == "cudnn"


def attend(
    group: HeadGroup,
    params: dict[str, jax.Array],
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    implementation: Literal["xla", "cudnn"] = "cudnn",
) -> jax.Array:
    """Outputs `[batch, queries, heads, width]` of plain heads.

    Arguments:
      group: see `plain`.
      params: of its alignment.
      query: `[batch, queries, heads, width]`.
      key, value: `[batch, keys, heads, width]`.
      mask: bool `[batch or 1, heads or 1, queries or 1, keys]` or None.
      implementation: of `jax.nn.dot_product_attention`.
    """
    query, key = alignments.factors(group.align, params, query, key)
    if mask is not None:
        mask = jnp.broadcast_to(mask, (*mask.shape[:2], query.shape[1], key.shape[1]))
    return jax.nn.dot_product_attention(
        query, key, value, mask=mask, scale=1.0, implementation=implementation
    )


@functools.cache
def _say(who: str, why: str) -> None:
    name = {"cudnn": "the fused kernel of cuDNN", "own": "products of matrices"}[who]
    logging.info("Plain attention heads are computed by %s: %s.", name, why)
