"""Translates a JAX function into an ONNX graph, equation by equation of its jaxpr.

The function is traced with a symbolic batch, so that the graph accepts any. Equations of constants
are folded (such as weights with BatchNorm scales). Broadcasts are left to ONNX's elementwise
operators where these do the same.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend import core
from onnx import helper, numpy_helper

from jaxcxr.errors import UserError

OPSET = 18
IR_VERSION = 9
_FOLDED = 2**16  # most elements of a broadcast of constants that is folded


@dataclasses.dataclass(eq=False)
class Value:
    """A tensor of the graph, or a constant that may become one.

    Attributes:
      shape: in JAX; dimensions may be symbolic.
      dtype: of NumPy.
      name: in the graph; "" for a constant not used yet.
      constant: the value if known.
      have: shape of the tensor called `name`, which broadcasts to `shape`.
    """

    shape: tuple
    dtype: Any
    name: str = ""
    constant: np.ndarray | None = None
    have: tuple = ()

    @property
    def whole(self) -> bool:
        """Whether the tensor in the graph has the shape it has in JAX."""
        return self.constant is not None or tuple(self.have) == tuple(self.shape)


@dataclasses.dataclass(frozen=True)
class Primitives:
    """Translations of the primitives of JAX, by name.

    A translation takes `(graph, equation, values)` and returns the values of the equation.

    Attributes:
      inlined: of primitives that hold a function or pass their values on.
      operators: of all others, which are folded if their values are constants.
    """

    inlined: Mapping[str, Callable]
    operators: Mapping[str, Callable]


class Graph:
    """Collects nodes and constants, translated by `primitives`."""

    def __init__(self, primitives: Primitives):
        self._primitives = primitives
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._count, self._source, self._batch = 0, "", ""

    def fresh(self) -> str:
        """Makes a new name."""
        self._count += 1
        return f"t{self._count}"

    def node(self, operator: str, *inputs: str, count: int = 1, **attributes: Any) -> Any:
        """Adds a node; returns the name of its output, or the names of its `count` outputs."""
        outputs = [self.fresh() for _ in range(count)]
        self.nodes.append(helper.make_node(operator, list(inputs), outputs, **attributes))
        return outputs[0] if count == 1 else outputs

    def constant(self, array: Any, dtype: Any = None) -> str:
        """Adds a constant and returns its name."""
        array = np.asarray(array, dtype)
        name = self.fresh()
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(
            array.shape), name)
        return name

    def integers(self, values: Sequence[int]) -> str:
        """Adds a constant vector of int64 and returns its name."""
        return self.constant(list(values), np.int64)

    def batch_from(self, name: str) -> None:
        """Takes the size of the batch from the first axis of an input."""
        self._source = name

    def batch(self) -> str:
        """Returns the name of the size of the batch, int64 `[1]`."""
        if not self._batch:
            shape = self.node("Shape", self._source)
            self._batch = self.node("Gather", shape, self.integers([0]), axis=0)
        return self._batch

    def ref(self, value: Value) -> str:
        """Returns the name of a value as it is in the graph, perhaps not yet broadcast."""
        if not value.name:
            value.name = self.constant(value.constant)
        return value.name

    def full(self, value: Value) -> str:
        """Returns the name of a value in its own shape."""
        if value.whole:
            return self.ref(value)
        value.name = self.node("Expand", value.name, self.sizes(value.shape))
        value.have = value.shape
        return value.name

    def sizes(self, shape: Sequence) -> str:
        """Returns the name of a shape, int64 `[rank]`, which may contain the batch."""
        if all(isinstance(size, int) for size in shape):
            return self.integers(shape)
        parts = []
        for size in shape:
            if not isinstance(size, int) and str(size) != "b":
                raise UserError(f"ONNX export: a tensor has {size} elements along an axis")
            parts.append(self.integers([size]) if isinstance(size, int) else self.batch())
        return self.node("Concat", *parts, axis=0)

    def value(self, name: str, var: Any) -> Value:
        """Makes the value of a node from its variable in the jaxpr."""
        return Value(tuple(var.aval.shape), var.aval.dtype, name, None, tuple(var.aval.shape))

    def evaluate(self, jaxpr: Any, consts: Sequence, inputs: Sequence[Value]) -> list[Value]:
        """Adds the equations of an open jaxpr and returns its outputs.

        Raises:
          UserError: a primitive has no translation.
        """
        known = dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: Any) -> Value:
            literal = isinstance(atom, core.Literal)
            return constant(np.asarray(atom.val, atom.aval.dtype)) if literal else known[atom]

        known |= {
            var: value if isinstance(value, Value) else constant(np.asarray(value))
            for var, value in zip(jaxpr.constvars, consts, strict=True)
        }
        for equation in jaxpr.eqns:
            found = self._translated(equation, [read(atom) for atom in equation.invars])
            known |= zip(equation.outvars, found, strict=True)
        return [read(atom) for atom in jaxpr.outvars]

    def _translated(self, equation: Any, values: Sequence[Value]) -> list[Value]:
        name = equation.primitive.name
        if name in self._primitives.inlined:
            return self._primitives.inlined[name](self, equation, values)
        if _foldable(equation, values):
            return _computed(equation, values)
        if name in self._primitives.operators:
            return self._primitives.operators[name](self, equation, values)
        raise UserError(
            f"ONNX export: the model computes {name!r}, which has no translation here; "
            "export stablehlo instead."
        )


def model(
    function: Callable, inputs: Sequence[jax.ShapeDtypeStruct], names: Sequence[str],
    primitives: Primitives,
) -> onnx.ModelProto:
    """Translates a function into a model whose outputs are sorted by name.

    Arguments:
      function: of the inputs, returns a dict of arrays.
      inputs: shapes and dtypes; the first axis of each is the batch, `b`.
      names: of the inputs.
      primitives: translations to use.

    Raises:
      UserError: a computation has no translation.
    """
    traced = jax.jit(function).trace(*inputs)
    closed, tree = traced.jaxpr, traced.out_info
    graph = Graph(primitives)
    given = [
        Value(tuple(s.shape), s.dtype, name, None, tuple(s.shape))
        for name, s in zip(names, inputs, strict=True)
    ]
    graph.batch_from(names[0])
    found = graph.evaluate(closed.jaxpr, closed.consts, given)
    outputs = []
    for name, value in zip(sorted(tree), found, strict=True):
        graph.nodes.append(helper.make_node("Identity", [graph.full(value)], [name]))
        outputs.append(_info(name, value))
    proto = helper.make_graph(
        graph.nodes, "jaxcxr", [_info(v.name, v) for v in given], outputs,
        list(graph.constants.values()),
    )
    return helper.make_model(
        proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )


def constant(array: np.ndarray) -> Value:
    """Makes a known value."""
    return Value(tuple(array.shape), array.dtype, "", array, tuple(array.shape))


def _foldable(equation: Any, values: Sequence[Value]) -> bool:
    static = all(
        isinstance(size, int) for var in equation.outvars for size in var.aval.shape
    )
    if not static or any(value.constant is None for value in values):
        return False
    if equation.primitive.name != "broadcast_in_dim":
        return True
    return max(var.aval.size for var in equation.outvars) <= _FOLDED


def _computed(equation: Any, values: Sequence[Value]) -> list[Value]:
    found = equation.primitive.bind(*(v.constant for v in values), **equation.params)
    found = found if equation.primitive.multiple_results else [found]
    return [constant(np.asarray(value)) for value in found]


def _info(name: str, value: Value) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
    shape = [size if isinstance(size, int) else "batch" for size in value.shape]
    return helper.make_tensor_value_info(name, kind, shape)
