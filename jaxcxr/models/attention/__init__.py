"""Kinds of attention, all called as `(x, memory=None, *, mask, distance, train)`.

A config names one by a kind of `KINDS`, by a preset of flexible heads, `local_global(window=8)`,
or by its groups of heads, `2*global+6*fixed(16)/entmax15`; see `groups.parse_groups`.
"""

import ast
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flax import linen as nn

from jaxcxr.errors import UserError, did_you_mean
from jaxcxr.models.attention.efficient import Fastformer, FNet, Linformer, Performer
from jaxcxr.models.attention.flexible import FlexibleHeadAttention
from jaxcxr.models.attention.geometry import Geometry, of_layout
from jaxcxr.models.attention.groups import PRESETS, Cost, HeadGroup, call, construct, parse_groups
from jaxcxr.models.attention.heads import MultiHeadAttention
from jaxcxr.models.attention.local import LocalBlocks, LocalBlocks2D, Longformer
from jaxcxr.models.attention.shared import SharedAttention
from jaxcxr.models.attention.sparse import LSH, Fixed, Strided
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

    Returns:
      A callable that takes `name` and returns the module.
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


# Set by the model, and so no choice of a layer.
_NOT_OPTIONS = {"heads", "dropout", "dtype", "parent", "name", "leads"}


def parse(kind: str) -> tuple[str, dict[str, Any]]:
    """Splits `longformer(window=32)` into the name and its options."""
    message = f"attention {kind!r} is neither a name nor like 'longformer(window=32)'."
    try:
        tree = ast.parse(kind.strip(), mode="eval").body
        if isinstance(tree, ast.Name):
            return tree.id, {}
        if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name) or tree.args:
            raise UserError(message)
        given = {item.arg: ast.literal_eval(item.value) for item in tree.keywords}
    except (SyntaxError, ValueError) as error:
        raise UserError(message) from error
    options = {name: value for name, value in given.items() if name is not None}
    if len(options) < len(given):
        raise UserError(message)
    return tree.func.id, options


def _layer(
    kind: str, layout: dict[str, Any], heads: int, dropout: float, dtype: Any
) -> Callable[..., nn.Module]:
    # Presets and groups of heads have a notation of their own, which the factory reads.
    name, options = parse(kind) if is_kind(kind) else (kind.strip(), {})
    make = factory(name, heads=heads, dropout=dropout, dtype=dtype)
    known = [key for key in inspect.signature(make).parameters if key not in _NOT_OPTIONS]
    for key in options:
        if key not in known:
            raise UserError(
                f"attention {name!r} has no option {key!r}.{did_you_mean(key, known)} "
                f"Options: {', '.join(known) or 'none'}."
            )
    own = {key: value for key, value in layout.items() if key in known} | options
    return partial(make, **own) if own else make


def layers(
    kinds: str | tuple[str, ...],
    depth: int,
    *,
    heads: int,
    dropout: float,
    dtype: Any,
    **layout: Any,
) -> list[Callable[..., nn.Module]]:
    """Returns the functions that make the attention of each layer.

    Arguments:
      kinds: one kind for all layers, or several that the layers take in turn, as a tuple or
        separated by `|`. A kind is a key of `KINDS`, with options in parentheses where wanted,
        `"longformer(window=32, dilation=2)|mha"`, or whatever else `factory` takes.
      depth: number of layers.
      heads, dropout, dtype: as in `MultiHeadAttention`.
      **layout: facts about the tokens (`grid`, `global_tokens`), given to the kinds that have
        such an option.

    Returns:
      `depth` callables that take `name` and return the module.

    Raises:
      UserError: more kinds than layers, or a kind or an option that does not exist.
    """
    names = of_layers(kinds, depth)
    made = {kind: _layer(kind, layout, heads, dropout, dtype) for kind in names}
    return _grouped([made[kind] for kind in names])


def of_layers(kinds: str | tuple[str, ...], depth: int) -> list[str]:
    """The kind of each layer; arguments as in `layers`."""
    names = tuple(kinds.split("|")) if isinstance(kinds, str) else tuple(kinds)
    if not 0 < len(names) <= depth:
        raise UserError(
            f"{len(names)} kinds of attention for {depth} layers; name at least one and at most "
            "one for each layer."
        )
    return [names[index % len(names)].strip() for index in range(depth)]


def class_of(make: Callable[..., nn.Module]) -> Any:
    """The class of attention that a function of `layers` makes."""
    while isinstance(make, partial):
        make = make.func
    return make


def shares(make: Callable[..., nn.Module]) -> bool:
    """Whether what `layers` returned makes attention that shares its weights."""
    return class_of(make) is SharedAttention


def _grouped(makers: list[Callable[..., nn.Module]]) -> list[Callable[..., nn.Module]]:
    """Lets the layers after the first of each group of shared attention follow it."""
    found, place, size = [], 0, 0
    for make in makers:
        if not shares(make):
            found.append(make)
            place = size = 0
            continue
        own = make(parent=None).size
        if own < 1:
            raise UserError(f"shared attention of size={own}; a group has at least 1 layer.")
        # Neighbouring layers of one size are groups of that many; another size begins a new group.
        place = place if own == size else 0
        found.append(partial(make, leads=place == 0))
        place, size = (place + 1) % own, own
    return found


@dataclasses.dataclass(frozen=True)
class Stack:
    """Encoder blocks of a model that take their attention from one option.

    A model declares its stacks by a method `stacks(shape)`, `shape` being that of an input without
    the batch. Their parameters are at `backbone/NAME_0/attention`, `backbone/NAME_1/attention` ...

    Attributes:
      name: of the blocks, without their numbers.
      option: of the model, which names their kinds of attention.
      depth: number of blocks.
      tokens: number of tokens.
      layout: facts about the tokens, as `attention.layers` takes them.
    """

    name: str
    option: str
    depth: int
    tokens: int
    layout: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def blocks(self) -> list[str]:
        """Names of the blocks."""
        return [f"{self.name}_{index}" for index in range(self.depth)]

    @property
    def where(self) -> Geometry:
        """Where the tokens stand."""
        return of_layout(**self.layout)


def stacks(model: Any, shape: tuple[int, ...]) -> tuple[Stack, ...]:
    """The stacks that a model declares for inputs of this shape; none by default."""
    return model.stacks(shape) if hasattr(model, "stacks") else ()
