"""Attention layers to measure: those of the library, flax's, and one written out by hand.

A layer is a function of parameters and tokens. Time and FLOPs do not depend on the values, which
are drawn without initialising the modules, as that would compile once more.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcxr.models.attention import layers
from jaxcxr.plan import measuring

# A measurement is at least so long, and as many calls as that takes.
_SHORTEST = 0.01

Function = Callable[[Any, jax.Array], Any]


@dataclasses.dataclass(frozen=True)
class Tokens:
    """How many tokens there are, how wide they are, and where they stand.

    Arguments:
      count: a class token and a square of patches where `count` - 1 is a square, else frames.
      dim: width of the tokens.
      heads: of the layer.
      batch: sequences.
    """

    count: int
    dim: int
    heads: int
    batch: int = 1

    @property
    def side(self) -> int:
        """Patches a side, 0 for frames."""
        side = math.isqrt(self.count - 1)
        return side if side > 0 and side**2 == self.count - 1 else 0

    @property
    def layout(self) -> dict[str, Any]:
        """Where they stand, for `attention.layers`."""
        return {"grid": (self.side, self.side), "global_tokens": 1} if self.side else {}

    @property
    def shape(self) -> jax.ShapeDtypeStruct:
        """Of the input of a layer."""
        return jax.ShapeDtypeStruct((self.batch, self.count, self.dim), jnp.float32)

    def __str__(self) -> str:
        where = f"a class token and {self.side} x {self.side} patches" if self.side else "frames"
        return (f"n = {self.count}: {where}, width {self.dim}, {self.heads} heads, "
                f"batch {self.batch}")


@dataclasses.dataclass(frozen=True)
class Layer:
    """A function of parameters and tokens, and their shapes."""

    function: Function
    params: Any
    tokens: jax.ShapeDtypeStruct

    @property
    def shapes(self) -> tuple[Any, Any]:
        """Of the arguments."""
        return self.params, self.tokens

    def values(self) -> tuple[Any, Any]:
        """Arguments, drawn at random."""
        return jax.tree.map(_draw, self.shapes)


class Side:
    """A compiled function with its arguments, one of those that are compared."""

    def __init__(self, built: measuring.Compiled, args: tuple):
        self.built, self._args = built, args
        built.seconds(*args)  # touches all memory for the first time
        self._count = max(1, round(_SHORTEST / built.seconds(*args)))

    @classmethod
    def of(cls, function: Callable, layer: Layer) -> "Side":
        """Compiles a function of a layer's arguments."""
        return cls(measuring.compile_(function, *layer.shapes), layer.values())

    def measure(self) -> float:
        """Seconds of a call."""
        return self.built.seconds(*self._args, count=self._count)

    def alone(self, seconds: float) -> measuring.Rounds:
        """Rounds of this side."""
        return measuring.within({"own": self.measure}, seconds)

    def beside(self, plain: "Side", seconds: float) -> measuring.Rounds:
        """Rounds of this side and of `plain` in turn."""
        return measuring.within({"plain": plain.measure, "own": self.measure}, seconds)

    def cells(self, rounds: measuring.Rounds, plain: "Side | None" = None) -> tuple[str, ...]:
        """Formats GFLOP, their ratio, ms and their ratio."""
        spent, time = self.built.flops, measuring.median(rounds, "own")
        flops = spent / plain.built.flops if plain else 1.0
        ratio = measuring.ratio(rounds, "own", "plain") if plain else 1.0
        return f"{spent / 1e9:,.3f}", f"{flops:.2f}", f"{time * 1e3:,.2f}", f"{ratio:.2f}"


def library(kind: str, tokens: Tokens, **layout: Any) -> Layer:
    """A layer of `models.attention`, by what a config calls it; `layout` adds to the tokens'."""
    layout = tokens.layout | layout
    module = layers(
        kind, 1, heads=tokens.heads, dropout=0.0, dtype=jnp.float32, **layout
    )[0](parent=None)
    return _of_module(module, tokens)


def of_flax(tokens: Tokens) -> Layer:
    """`flax.linen.MultiHeadDotProductAttention`."""
    return _of_module(nn.MultiHeadDotProductAttention(num_heads=tokens.heads), tokens)


def by_hand(tokens: Tokens) -> Layer:
    """Multi-head attention, written out with einsum."""
    width = tokens.dim // tokens.heads
    inner, outer = (tokens.dim, tokens.heads, width), (tokens.heads, width, tokens.dim)
    shapes = {
        name: (jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(bias, jnp.float32))
        for name, shape, bias in (
            ("query", inner, inner[1:]), ("key", inner, inner[1:]), ("value", inner, inner[1:]),
            ("out", outer, outer[-1:]),
        )
    }
    return Layer(_by_hand, shapes, tokens.shape)


def forward(layer: Layer) -> Function:
    """The layer."""
    return layer.function


def training(layer: Layer) -> Function:
    """The layer and its gradient by parameters and tokens."""

    def function(params: Any, x: jax.Array) -> Any:
        y, back = jax.vjp(layer.function, params, x)
        return y, back(y)

    return function


PASSES = {"forward": forward, "training": training}


def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Softmax attention `[batch, n, heads, width]`, written out with einsum."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", query * query.shape[-1] ** -0.5, key)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), value)


def _by_hand(params: Any, x: jax.Array) -> jax.Array:
    query, key, value = (
        jnp.einsum("bnd,dhk->bnhk", x, kernel) + bias
        for kernel, bias in (params[name] for name in ("query", "key", "value"))
    )
    kernel, bias = params["out"]
    return jnp.einsum("bnhk,hkd->bnd", attend(query, key, value), kernel) + bias


def _of_module(module: nn.Module, tokens: Tokens) -> Layer:
    params = jax.eval_shape(module.init, jax.random.key(0), tokens.shape).get("params", {})

    def function(params: Any, x: jax.Array) -> jax.Array:
        found = module.apply({"params": params}, x)
        return found[0] if isinstance(found, tuple) else found  # shared attention: and weights

    return Layer(function, params, tokens.shape)


def _draw(shape: jax.ShapeDtypeStruct) -> jax.Array:
    rng = np.random.default_rng(math.prod(shape.shape))
    return jnp.asarray(rng.normal(size=shape.shape, scale=0.05), shape.dtype)
