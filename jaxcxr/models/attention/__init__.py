"""Attention modules, all called as `(x, memory=None, *, mask, distance, train)`."""

import difflib
import functools
from collections.abc import Callable
from typing import Any

from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention.efficient import Fastformer, FNet, Linformer, Performer
from jaxcxr.models.attention.heads import MultiHeadAttention
from jaxcxr.models.attention.local import LocalBlocks, LocalBlocks2D, Longformer
from jaxcxr.models.attention.reformer import LSH
from jaxcxr.models.attention.shared import SharedAttention
from jaxcxr.models.attention.sparse import Fixed, Strided
from jaxcxr.models.attention.transformer_xl import TransformerXL

# name in a config -> what makes the module from `heads`, `dropout`, `dtype`
KINDS: dict[str, Callable[..., nn.Module]] = {
    "mha": MultiHeadAttention,
    "local": LocalBlocks,
    "local_2d": LocalBlocks2D,
    "longformer": Longformer,
    "linformer": Linformer,
    "performer": Performer,
    "fnet": FNet,
    "fastformer": Fastformer,
    "strided": Strided,
    "fixed": Fixed,
    "reformer": LSH,
    "transformer_xl": TransformerXL,
    "shared": SharedAttention,
}


def factory(kind: str, *, heads: int, dropout: float, dtype: Any) -> Callable[..., nn.Module]:
    """What an encoder block calls, with `name=`, to make its attention.

    Arguments:
      kind: a key of `KINDS`.
      heads: number of heads.
      dropout: rate on the attention weights.
      dtype: of the computation.

    Returns:
      A callable that takes `name` and returns the module.

    Raises:
      UserError: no such kind; the message names the nearest.
    """
    if kind not in KINDS:
        close = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UserError(f"no attention is called {kind!r}.{hint} Kinds: {', '.join(KINDS)}.")
    return functools.partial(KINDS[kind], heads=heads, dropout=dropout, dtype=dtype)
