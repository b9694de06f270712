"""Translates the primitives of JAX into operators of ONNX, opset 18."""

import functools
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import helper

from jaxcxr.deploy.export import onnx_indexing
from jaxcxr.deploy.export.onnx_graph import Graph, Primitives, Value, constant
from jaxcxr.errors import UserError


def _elementwise(operator: str, graph: Graph, equation: Any, values: Sequence[Value]) -> list:
    return [_of_elements(graph, equation, values, graph.node(operator, *map(graph.ref, values)))]


def _of_elements(graph: Graph, equation: Any, values: Sequence[Value], name: str) -> Value:
    """Makes the output of an elementwise node, broadcast as far as its inputs are."""
    (var,) = equation.outvars
    shape = tuple(var.aval.shape)
    marks = np.broadcast_shapes(*(_marked(value.have) for value in values))
    have = tuple(1 if mark == 1 else size for mark, size in zip(marks, shape, strict=True))
    return Value(shape, var.aval.dtype, name, None, have)


def _marked(have: tuple) -> tuple[int, ...]:
    """Marks axes still to be broadcast by 1 and others by 2, so that symbolic sizes broadcast."""
    return tuple(1 if isinstance(size, int) and size == 1 else 2 for size in have)


def _by(build: Callable) -> Callable:
    """Translates an elementwise primitive by `build(graph, names, equation)`."""
    def convert(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
        name = build(graph, [graph.ref(value) for value in values], equation)
        return [_of_elements(graph, equation, values, name)]

    return convert


def _one(graph: Graph, equation: Any, like: int = 1) -> str:
    return graph.constant(like, equation.outvars[0].aval.dtype)


def _cast(graph: Graph, names: list[str], equation: Any) -> str:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(equation.outvars[0].aval.dtype))
    return graph.node("Cast", names[0], to=kind)


def _select(graph: Graph, names: list[str], equation: Any) -> str:
    if equation.invars[0].aval.dtype != np.bool_ or len(names) != 3:
        raise UserError("ONNX export: the model selects among more than two cases.")
    return graph.node("Where", names[0], names[2], names[1])


def _same(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
    return list(values)


def _inlined(key: str) -> Callable:
    def convert(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
        inner = equation.params[key]
        consts = getattr(inner, "consts", ())
        return graph.evaluate(getattr(inner, "jaxpr", inner), consts, values)

    return convert


def _scan(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
    """Unrolls a loop."""
    p, body = equation.params, equation.params["jaxpr"]
    # A loop takes constants, a carry and rows, and returns a carry and rows. Rows are counted by
    # their additional axis outside: JAX's own counts change names between versions.
    carry = len(equation.outvars) - _rows(equation.outvars, body.jaxpr.outvars)
    first = len(values) - _rows(equation.invars, body.jaxpr.invars)
    fixed, carried, rows = values[: first - carry], values[first - carry : first], values[first:]
    steps = range(p["length"])
    kept: list[list[Value]] = []
    for step in reversed(steps) if p["reverse"] else steps:
        parts = [_row(graph, value, step) for value in rows]
        found = graph.evaluate(body.jaxpr, body.consts, [*fixed, *carried, *parts])
        carried = found[:carry]
        kept.append(found[carry:])
    if p["reverse"]:
        kept.reverse()
    stacked = []
    for var, column in zip(equation.outvars[carry:], zip(*kept, strict=True), strict=True):
        names = [graph.node("Unsqueeze", graph.full(v), graph.integers([0])) for v in column]
        stacked.append(graph.value(graph.node("Concat", *names, axis=0), var))
    return [*carried, *stacked]


def _rows(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    """Counts the variables of a loop that have one more axis than those of its body."""
    return sum(
        len(one.aval.shape) > len(other.aval.shape)
        for one, other in zip(outside, inside, strict=True)
    )


def _row(graph: Graph, value: Value, index: int) -> Value:
    """Takes row `index` of a value that a loop scans."""
    if value.constant is not None:
        return constant(value.constant[index])
    name = graph.node("Gather", graph.full(value), graph.constant(index, np.int64), axis=0)
    shape = tuple(value.shape[1:])
    return Value(shape, value.dtype, name, None, shape)


def _broadcast(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
    shape, places = equation.params["shape"], equation.params["broadcast_dimensions"]
    value = values[0]
    added = [axis for axis in range(len(shape)) if axis not in places]
    have = [1] * len(shape)
    for size, place in zip(value.have, places, strict=True):
        have[place] = size
    if value.constant is not None:
        name = graph.constant(value.constant.reshape(have))
    else:
        name = graph.ref(value)
        name = graph.node("Unsqueeze", name, graph.integers(added)) if added else name
    return [Value(tuple(shape), value.dtype, name, None, tuple(have))]


def _reshape(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
    (var,) = equation.outvars
    if equation.params.get("dimensions") is not None:
        raise UserError("ONNX export: the model reshapes in another order than row-major.")
    sizes = [size if isinstance(size, int) else -1 for size in var.aval.shape]
    if sizes.count(-1) > 1:
        raise UserError("ONNX export: the model spreads the batch over several axes.")
    name = graph.node("Reshape", graph.full(values[0]), graph.integers(sizes))
    return [graph.value(name, var)]


def _squeeze(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
    axes = graph.integers(equation.params["dimensions"])
    return [graph.value(graph.node("Squeeze", graph.full(values[0]), axes), equation.outvars[0])]


def _transpose(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
    order = list(equation.params["permutation"])
    name = graph.node("Transpose", graph.full(values[0]), perm=order)
    return [graph.value(name, equation.outvars[0])]


def _reduced(operator: str) -> Callable:
    def convert(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
        axes = graph.integers(equation.params["axes"])
        name = graph.node(operator, graph.full(values[0]), axes, keepdims=0)
        return [graph.value(name, equation.outvars[0])]

    return convert


def _concatenate(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
    names = [graph.full(value) for value in values]
    name = graph.node("Concat", *names, axis=equation.params["dimension"])
    return [graph.value(name, equation.outvars[0])]


def _split(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
    sizes, axis = equation.params["sizes"], equation.params["axis"]
    names = graph.node("Split", graph.full(values[0]), graph.integers(sizes), axis=axis,
                       count=len(sizes))
    return [graph.value(n, v) for n, v in zip(np.atleast_1d(names).tolist(), equation.outvars,
                                              strict=True)]


def _reverse(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
    axes = equation.params["dimensions"]
    numbers = [-1] * len(axes), [np.iinfo(np.int64).min] * len(axes), axes, [-1] * len(axes)
    name = graph.node("Slice", graph.full(values[0]), *map(graph.integers, numbers))
    return [graph.value(name, equation.outvars[0])]


def _pad(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
    low, high, inner = zip(*equation.params["padding_config"], strict=True)
    if any(inner):
        raise UserError("ONNX export: the model pads between elements.")
    name = graph.node("Pad", graph.full(values[0]), graph.integers([*low, *high]),
                      graph.full(values[1]))
    return [graph.value(name, equation.outvars[0])]


def _cumulative(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
    name = graph.node("CumSum", graph.full(values[0]),
                      graph.constant(equation.params["axis"], np.int64),
                      reverse=int(equation.params["reverse"]))
    return [graph.value(name, equation.outvars[0])]


def _argmax(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
    (axis,) = equation.params["axes"]
    name = graph.node("ArgMax", graph.full(values[0]), axis=axis, keepdims=0)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(equation.outvars[0].aval.dtype))
    return [graph.value(graph.node("Cast", name, to=kind), equation.outvars[0])]


def _dot(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
    (left, right), (left_batch, right_batch) = equation.params["dimension_numbers"]
    ranks = [len(value.shape) for value in values]
    names = [graph.full(value) for value in values]
    if not left_batch and ranks[1] == 2 and right == (0,) and left == (ranks[0] - 1,):
        return [graph.value(graph.node("MatMul", *names), equation.outvars[0])]
    letters = iter(string.ascii_lowercase)
    a = [next(letters) for _ in range(ranks[0])]
    b = [next(letters) for _ in range(ranks[1])]
    for i, j in [*zip(left, right, strict=True), *zip(left_batch, right_batch, strict=True)]:
        b[j] = a[i]
    out = [a[i] for i in left_batch]
    out += [x for i, x in enumerate(a) if i not in (*left, *left_batch)]
    out += [x for j, x in enumerate(b) if j not in (*right, *right_batch)]
    rule = f"{''.join(a)},{''.join(b)}->{''.join(out)}"
    return [graph.value(graph.node("Einsum", *names, equation=rule), equation.outvars[0])]


def _convolution(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
    p = equation.params
    if p["batch_group_count"] != 1 or any(size != 1 for size in p["lhs_dilation"]):
        raise UserError("ONNX export: the model has a transposed convolution.")
    spec = p["dimension_numbers"]
    image = _ordered(graph, values[0], spec.lhs_spec)
    kernel = _ordered(graph, values[1], spec.rhs_spec)
    name = graph.node(
        "Conv", image, kernel, strides=list(p["window_strides"]),
        pads=[side[0] for side in p["padding"]] + [side[1] for side in p["padding"]],
        dilations=list(p["rhs_dilation"]), group=p["feature_group_count"],
    )
    back = [int(axis) for axis in np.argsort(spec.out_spec)]
    return [graph.value(graph.node("Transpose", name, perm=back), equation.outvars[0])]


def _ordered(graph: Graph, value: Value, order: Sequence[int]) -> str:
    if value.constant is not None:
        return graph.constant(value.constant.transpose(order))
    return graph.node("Transpose", graph.full(value), perm=list(order))


def _pooled(operator: str) -> Callable:
    """Translates pooling over the middle axes of `[batch, ..., channels]`."""
    def convert(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
        p, rank = equation.params, len(values[0].shape)
        window, steps, sides = p["window_dimensions"], p["window_strides"], p["padding"]
        outer = (0, rank - 1)
        plain = all(size == 1 for each in (p["base_dilation"], p["window_dilation"])
                    for size in each)
        if not plain or any(window[a] != 1 or tuple(sides[a]) != (0, 0) for a in outer):
            raise UserError("ONNX export: the model pools over the batch or the channels.")
        inner = range(1, rank - 1)
        image = graph.node("Transpose", graph.full(values[0]), perm=[0, rank - 1, *inner])
        options: dict[str, Any] = {
            "kernel_shape": [window[a] for a in inner], "strides": [steps[a] for a in inner],
            "pads": [sides[a][0] for a in inner] + [sides[a][1] for a in inner],
        }
        if operator == "AveragePool":
            name = graph.node(operator, image, count_include_pad=1, **options)
            size = graph.constant(np.prod(window), equation.outvars[0].aval.dtype)
            name = graph.node("Mul", name, size)
        else:
            name = graph.node(operator, image, **options)
        name = graph.node("Transpose", name, perm=[0, *range(2, rank), 1])
        return [graph.value(name, equation.outvars[0])]

    return convert


_INLINED: dict[str, Callable] = {
    "jit": _inlined("jaxpr"), "pjit": _inlined("jaxpr"), "closed_call": _inlined("call_jaxpr"),
    "remat2": _inlined("jaxpr"), "checkpoint": _inlined("jaxpr"),
    "custom_jvp_call": _inlined("call_jaxpr"), "custom_vjp_call": _inlined("call_jaxpr"),
    "scan": _scan, "stop_gradient": _same, "optimization_barrier": _same, "copy": _same,
    "copy_p": _same,
}
_PLAIN = {
    "add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max",
    "min": "Min", "pow": "Pow", "exp": "Exp", "log": "Log", "tanh": "Tanh",
    "logistic": "Sigmoid", "sqrt": "Sqrt", "abs": "Abs", "neg": "Neg", "sign": "Sign",
    "erf": "Erf", "floor": "Floor", "ceil": "Ceil", "sin": "Sin", "cos": "Cos", "eq": "Equal",
    "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual", "and": "And",
    "or": "Or", "not": "Not",
}
_OPERATORS: dict[str, Callable] = {
    **{name: functools.partial(_elementwise, operator) for name, operator in _PLAIN.items()},
    "ne": _by(lambda g, names, e: g.node("Not", g.node("Equal", *names))),
    "rsqrt": _by(lambda g, names, e: g.node("Reciprocal", g.node("Sqrt", *names))),
    "square": _by(lambda g, names, e: g.node("Mul", names[0], names[0])),
    "integer_pow": _by(lambda g, names, e: g.node("Pow", names[0], _one(g, e, e.params["y"]))),
    "expm1": _by(lambda g, names, e: g.node("Sub", g.node("Exp", *names), _one(g, e))),
    "log1p": _by(lambda g, names, e: g.node("Log", g.node("Add", *names, _one(g, e)))),
    "clamp": _by(lambda g, names, e: g.node("Min", g.node("Max", names[1], names[0]), names[2])),
    "convert_element_type": _by(_cast),
    "select_n": _by(_select),
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "split": _split,
    "slice": onnx_indexing.sliced,
    "rev": _reverse,
    "gather": onnx_indexing.gathered,
    "scatter-add": onnx_indexing.scatter_added,
    "pad": _pad,
    "cumsum": _cumulative,
    "argmax": _argmax,
    "reduce_sum": _reduced("ReduceSum"),
    "reduce_max": _reduced("ReduceMax"),
    "reduce_min": _reduced("ReduceMin"),
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "reduce_window_max": _pooled("MaxPool"),
    "reduce_window_sum": _pooled("AveragePool"),
}
PRIMITIVES = Primitives(_INLINED, _OPERATORS)
