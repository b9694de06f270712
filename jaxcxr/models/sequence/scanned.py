"""Runs equal blocks as one loop, compiled once, with their parameters stacked.

The parameters of `blocks_0`, `blocks_1` ... lie in one stack, `blocks`, `[depth, ...]`. Weight
files, pruning and plots know blocks by number; `unrolled` gives them the model in that form.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util

from jaxcxr.errors import UserError
from jaxcxr.models.attention import shares
from jaxcxr.models.layers import by_example, rematerialized
from jaxcxr.models.sequence import transformer

_STACK = re.compile(r"(.*/|^)blocks(/.*)")
_ROW = re.compile(r"(.*/|^)blocks_(\d+)(/.*)")


class ScannedBlock(transformer.Block):
    """An `EncoderBlock` as the body of a loop, which counts its drop-path rate; see `run`."""

    train: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, rate: jax.Array | None, mask: jax.Array | None
    ) -> tuple[jax.Array, None]:
        """Encodes `[batch, length, dim]`, dropping branches at `rate`."""
        x = by_example(x)
        attend = self.attention(name="attention")
        y = self._call(attend, self._before(x, "norm1"), mask=mask, distance=None,
                       train=self.train)
        x = self._attended(x, y, "norm1", self.train, rate)
        return self._with_mlp(x, "norm2", self.train, rate), None


def run(
    makers: list[Any], x: jax.Array, mask: jax.Array | None, *, train: bool, drop_path: float,
    remat: str | bool, **options: Any,
) -> jax.Array:
    """Runs a stack of equal blocks, from inside a compact method, as the module `blocks`.

    Arguments:
      makers: of the attention of each block, see `attention.layers`.
      x: `[batch, length, dim]`.
      mask: of the attention, or None.
      train: applies dropout and stochastic depth.
      drop_path: rate of the last block; rises linearly from 0.
      remat: see `layers.rematerialized`.
      **options: arguments of `transformer.Block`.

    Returns:
      `[batch, length, dim]`.
    """
    depth, first = len(makers), makers[0]
    if any(shares(make) or make(parent=None) != first(parent=None) for make in makers):
        raise UserError(
            "scan=True needs blocks that are all equal, but the option attention names kinds that "
            "differ or share weights; name one kind, or set scan=False."
        )
    body = rematerialized(ScannedBlock, remat, prevent_cse=False)
    loop = nn.scan(
        body,
        variable_axes={"params": 0, "losses": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(0, nn.broadcast),
        length=depth,
    )
    rates = None
    if drop_path and train:
        rates = np.array(transformer.drop_path_rates(drop_path, depth), np.float32)
    x, _ = loop(first, train=train, layers=depth, name="blocks", **options)(x, rates, mask)
    return x


def is_stack(name: str) -> bool:
    """Whether a parameter, by its "/"-joined name, is a stack of those of scanned blocks."""
    return _STACK.fullmatch(name) is not None


def unstacked(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves by "/"-joined name, each stack of blocks as the leaves of `blocks_0` and so on.

    Leaves may be arrays or `jax.ShapeDtypeStruct`s; those of other modules are as they are.
    """
    found = {}
    for name, leaf in flat.items():
        match = _STACK.fullmatch(name)
        if not match:
            found[name] = leaf
            continue
        for index in range(leaf.shape[0]):
            found[f"{match[1]}blocks_{index}{match[2]}"] = (
                jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
                if isinstance(leaf, jax.ShapeDtypeStruct) else leaf[index]
            )
    return found


def stacked(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `unstacked` for NumPy arrays."""
    found: dict[str, Any] = {}
    rows: dict[str, dict[int, np.ndarray]] = {}
    for name, leaf in flat.items():
        match = _ROW.fullmatch(name)
        if match:
            rows.setdefault(f"{match[1]}blocks{match[3]}", {})[int(match[2])] = leaf
        else:
            found[name] = leaf
    return found | {
        name: np.stack([parts[index] for index in range(len(parts))])
        for name, parts in rows.items()
    }


def unrolled(model: nn.Module, variables: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """Returns the model and its variables without a loop, its blocks by number."""
    if not getattr(model, "scan", False):
        return model, dict(variables)
    flat = unstacked(traverse_util.flatten_dict(dict(variables), sep="/"))
    empty: dict[str, Any] = {name: {} for name, tree in variables.items() if not tree}
    return model.clone(scan=False), empty | traverse_util.unflatten_dict(flat, sep="/")
