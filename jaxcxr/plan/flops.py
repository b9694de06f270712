"""Counts the FLOPs and bytes of a traced function, without compiling it.

Products of matrices and convolutions are counted exactly, as 2 for each pair that is multiplied and
added; of a convolution the pairs whose input is padding, or lies between the strides of a
transposed one, are left out, as XLA's cost analysis leaves them out. Other operations count 1 for
each number that they give, reductions 1 for each that they take, exp, log and their like 0, and
erfc (of GELU) what its polynomials cost, which stand in XLA's program.
The body of a loop counts as often as it runs.

Bytes are those that operands and results of products, and operands of reductions, have in memory;
what lies between them is taken to be fused with them, as XLA does on accelerators.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend import core

_ELEMENTWISE = frozenset((
    "add", "sub", "mul", "div", "rem", "max", "min", "neg", "abs", "sign", "floor", "ceil", "round",
    "square", "integer_pow", "select_n", "clamp", "eq", "ne", "lt", "le", "gt", "ge", "and", "or",
    "xor", "not", "is_finite", "add_any", "convert_element_type", "shift_left",
    "shift_right_logical", "shift_right_arithmetic",
))
_REDUCTIONS = frozenset((
    "reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "argmax",
    "argmin",
))
# Operations that JAX 0.10 lowers these to, in float32.
_LOWERED = {"erfc": 62.0}


@dataclasses.dataclass(frozen=True)
class Flops:
    """FLOPs of a call.

    Attributes:
      products: of products of matrices and convolutions, the FLOPs that peaks are stated for.
      other: of everything else.
      moved: bytes read and written.
    """

    products: float = 0.0
    other: float = 0.0
    moved: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return self.products + self.other

    def __add__(self, more: "Flops") -> "Flops":
        return Flops(
            self.products + more.products, self.other + more.other, self.moved + more.moved
        )

    def __mul__(self, times: int) -> "Flops":
        return Flops(self.products * times, self.other * times, self.moved * times)


def count(function: Callable[..., Any], *args: Any, once: bool = False) -> Flops:
    """Counts the FLOPs of `function(*args)`; for several devices, those of all together.

    Arguments:
      function: any that JAX can trace.
      *args: arrays or `jax.ShapeDtypeStruct`s.
      once: count the body of a loop once, as XLA's cost analysis does.

    Raises:
      ValueError: it contains a loop of unknown length.
    """
    return of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr, once)


def of_jaxpr(jaxpr: core.Jaxpr, once: bool = False) -> Flops:
    """Computes FLOPs of a traced function, see `count`."""
    return sum((_of_equation(equation, once) for equation in jaxpr.eqns), Flops())


def _of_equation(equation: Any, once: bool) -> Flops:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        width = math.prod(shape[axis] for axis in contracted)
        pairs = width * math.prod(equation.outvars[0].aval.shape)
        return Flops(2.0 * pairs, moved=_bytes(equation.invars + equation.outvars))
    if name == "conv_general_dilated":
        moved = _bytes(equation.invars + equation.outvars)
        return Flops(2.0 * _pairs(equation), moved=moved)
    if name == "while":
        raise ValueError("a while loop: how often it runs is not known")
    if name == "scan":
        return of_jaxpr(params["jaxpr"].jaxpr, once) * (1 if once else params["length"])
    if name == "cond":
        branches = [of_jaxpr(branch.jaxpr, once) for branch in params["branches"]]
        return max(branches, key=lambda found: found.total)
    inner = [of_jaxpr(jaxpr, once) for jaxpr in _inner(params)]
    if inner:
        return sum(inner, Flops())
    if name in _ELEMENTWISE or name in _LOWERED:
        numbers = sum(math.prod(v.aval.shape) for v in equation.outvars)
        return Flops(other=numbers * _LOWERED.get(name, 1.0))
    if name in _REDUCTIONS:
        taken = float(math.prod(equation.invars[0].aval.shape))
        return Flops(other=taken, moved=_bytes(equation.invars))
    return Flops()


def _bytes(variables: Any) -> float:
    return float(sum(math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in variables))


def _inner(params: Any) -> Iterator[core.Jaxpr]:
    """Functions that an equation calls; of a custom rule the function, not its rules."""
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        found = params.get(key)
        if isinstance(found, core.ClosedJaxpr):
            yield found.jaxpr
        elif isinstance(found, core.Jaxpr):
            yield found


def _pairs(equation: Any) -> float:
    """Pairs of inputs and weights that a convolution multiplies."""
    left, right = (v.aval.shape for v in equation.invars)
    out, params = equation.outvars[0].aval.shape, equation.params
    numbers = params["dimension_numbers"]
    batch, features, *places = numbers.lhs_spec
    positions = 1.0
    for axis, (low, _) in enumerate(params["padding"]):
        positions *= _positions(
            left[places[axis]], right[numbers.rhs_spec[2 + axis]], out[numbers.out_spec[2 + axis]],
            low, params["window_strides"][axis], params["lhs_dilation"][axis],
            params["rhs_dilation"][axis],
        )
    return (
        positions
        * (left[features] // params["feature_group_count"])
        * (left[batch] // params["batch_group_count"])
        * out[numbers.out_spec[1]]
    )


def _positions(size, kernel, outputs, low, stride, dilation, kernel_dilation) -> int:
    """Pairs of an output and a weight, along one axis, whose input is neither padding nor a gap."""
    places = (
        np.arange(outputs)[:, None] * stride - low + np.arange(kernel)[None] * kernel_dilation
    )
    inside = (places >= 0) & (places <= (size - 1) * dilation) & (places % dilation == 0)
    return int(inside.sum())
