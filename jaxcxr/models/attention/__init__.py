"""Kinds of attention, all called as `(x, memory=None, *, mask, distance, train)`.

A config names one by a kind of `KINDS`, by a preset of flexible heads, `local_global(window=8)`,
or by its groups of heads, `2*global+6*fixed(16)/entmax15`; see `groups.parse_groups`.
"""

import functools
from collections.abc import Callable
from typing import Any

from flax import linen as nn

from jaxcxr.errors import UserError, did_you_mean
from jaxcxr.models.attention.efficient import Fastformer, FNet, Linformer, Performer
from jaxcxr.models.attention.flexible import FlexibleHeadAttention
from jaxcxr.models.attention.groups import Cost, HeadGroup, call, construct, parse_groups
from jaxcxr.models.attention.heads import MultiHeadAttention
from jaxcxr.models.attention.local import LocalBlocks, LocalBlocks2D, Longformer
from jaxcxr.models.attention.presets import PRESETS
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
    """Returns the function that an encoder block calls, with `name=`, to make its attention.

    Arguments:
      kind: a key of `KINDS`, a preset of `PRESETS` with or without options, or head groups as
        `groups.parse_groups` reads them.
      heads, dropout, dtype: as in `MultiHeadAttention`.

    Returns:
      A callable that takes `name` and returns the module.

    Raises:
      UserError: no such kind, and the message names the nearest; options that do not fit; groups
        that do not have `heads` heads.
    """
    if kind in KINDS:
        return functools.partial(KINDS[kind], heads=heads, dropout=dropout, dtype=dtype)
    groups, cost = head_groups(kind, heads)
    return functools.partial(
        FlexibleHeadAttention, groups=groups, cost=cost, dropout=dropout, dtype=dtype
    )


def is_kind(kind: str) -> bool:
    """Whether a kind, with or without options, is one of `KINDS`; others name groups of heads."""
    return kind.partition("(")[0].strip() in KINDS


def head_groups(kind: str, heads: int) -> tuple[tuple[HeadGroup, ...], Cost | None]:
    """The groups of a preset, or those written in `kind`, and their cost; see `factory`."""
    if "*" in kind:
        groups, cost = parse_groups(kind)
        count = sum(group.count for group in groups)
        # Heads that all name their width need not share the model's.
        if count != heads and not all(group.head_dim for group in groups):
            raise UserError(
                f"the attention {kind!r} has {count} heads and the model heads={heads}; "
                "make them equal."
            )
        return groups, cost
    name, options = call(kind)
    if name not in PRESETS:
        known = (*KINDS, *PRESETS)
        raise UserError(
            f"no attention is called {name!r}.{did_you_mean(name, known)} Kinds: "
            f"{', '.join(known)}; or groups of heads, such as 2*global+6*fixed(16)."
        )
    return construct(PRESETS[name], options, kind, heads), None
