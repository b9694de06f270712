"""Makes the attention of each layer of an encoder from the option of a config."""

import ast
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from flax import linen as nn

from jaxcxr.errors import UserError, did_you_mean
from jaxcxr.models.attention import factory, is_kind
from jaxcxr.models.attention.shared import SharedAttention

# Set by the model, and so no choice of a layer.
_NOT_OPTIONS = {"heads", "dropout", "dtype", "parent", "name", "leads"}


def parse(kind: str) -> tuple[str, dict[str, Any]]:
    """Splits `longformer(window=32)` into the name and its options.

    Raises:
      UserError: it is neither a name nor a name with options whose values are literals.
    """
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
    """The kind of each layer; arguments as in `layers`.

    Raises:
      UserError: more kinds than layers.
    """
    names = tuple(kinds.split("|")) if isinstance(kinds, str) else tuple(kinds)
    if not 0 < len(names) <= depth:
        raise UserError(
            f"{len(names)} kinds of attention for {depth} layers; name at least one and at most "
            "one for each layer."
        )
    return [names[index % len(names)].strip() for index in range(depth)]


def shares(make: Callable[..., nn.Module]) -> bool:
    """Whether what `layers` returned makes attention that shares its weights."""
    while isinstance(make, partial):
        make = make.func
    return make is SharedAttention


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
