"""Translates the primitives of JAX into operators of ONNX, opset 18."""

import functools
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import helper

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


def _named(build: Callable) -> Callable:
    """Translates a primitive of one output by `build(graph, parameters, values)`, its name."""
    def convert(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
        return [graph.value(build(graph, equation.params, values), equation.outvars[0])]

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


def _reduced(operator: str) -> Callable:
    return _named(lambda g, p, v: g.node(
        operator, g.full(v[0]), g.integers(p["axes"]), keepdims=0
    ))


def _split(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
    sizes, axis = equation.params["sizes"], equation.params["axis"]
    names = graph.node("Split", graph.full(values[0]), graph.integers(sizes), axis=axis,
                       count=len(sizes))
    return [graph.value(n, v) for n, v in zip(np.atleast_1d(names).tolist(), equation.outvars,
                                              strict=True)]


def _pad(graph: Graph, p: Any, values: Sequence[Value]) -> str:
    low, high, inner = zip(*p["padding_config"], strict=True)
    if any(inner):
        raise UserError("ONNX export: the model pads between elements.")
    padding = graph.integers([*low, *high])
    return graph.node("Pad", graph.full(values[0]), padding, graph.full(values[1]))


def _reverse(graph: Graph, p: Any, values: Sequence[Value]) -> str:
    axes = p["dimensions"]
    numbers = [-1] * len(axes), [np.iinfo(np.int64).min] * len(axes), axes, [-1] * len(axes)
    return graph.node("Slice", graph.full(values[0]), *map(graph.integers, numbers))


def _argmax(graph: Graph, p: Any, values: Sequence[Value]) -> str:
    (axis,) = p["axes"]
    name = graph.node("ArgMax", graph.full(values[0]), axis=axis, keepdims=0)
    return graph.node("Cast", name, to=helper.np_dtype_to_tensor_dtype(np.dtype(p["index_dtype"])))


def _dot(graph: Graph, p: Any, values: Sequence[Value]) -> str:
    (left, right), (left_batch, right_batch) = p["dimension_numbers"]
    ranks = [len(value.shape) for value in values]
    names = [graph.full(value) for value in values]
    if not left_batch and ranks[1] == 2 and right == (0,) and left == (ranks[0] - 1,):
        return graph.node("MatMul", *names)
    letters = iter(string.ascii_lowercase)
    a, b = ([next(letters) for _ in range(rank)] for rank in ranks)
    for i, j in [*zip(left, right, strict=True), *zip(left_batch, right_batch, strict=True)]:
        b[j] = a[i]
    out = [a[i] for i in left_batch]
    out += [x for i, x in enumerate(a) if i not in (*left, *left_batch)]
    out += [x for j, x in enumerate(b) if j not in (*right, *right_batch)]
    rule = f"{''.join(a)},{''.join(b)}->{''.join(out)}"
    return graph.node("Einsum", *names, equation=rule)


def _convolution(graph: Graph, p: Any, values: Sequence[Value]) -> str:
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
    return graph.node("Transpose", name, perm=back)


def _ordered(graph: Graph, value: Value, order: Sequence[int]) -> str:
    if value.constant is not None:
        return graph.constant(value.constant.transpose(order))
    return graph.node("Transpose", graph.full(value), perm=list(order))


def _pooled(operator: str, graph: Graph, p: Any, values: Sequence[Value]) -> str:
    """Translates pooling over the middle axes of `[batch, ..., channels]`."""
    rank = len(values[0].shape)
    window, steps, sides = p["window_dimensions"], p["window_strides"], p["padding"]
    plain = all(size == 1 for each in (p["base_dilation"], p["window_dilation"]) for size in each)
    if not plain or any(window[a] != 1 or tuple(sides[a]) != (0, 0) for a in (0, rank - 1)):
        raise UserError("ONNX export: the model pools over the batch or the channels.")
    inner = range(1, rank - 1)
    name = graph.node("Transpose", graph.full(values[0]), perm=[0, rank - 1, *inner])
    options: dict[str, Any] = {
        "kernel_shape": [window[a] for a in inner], "strides": [steps[a] for a in inner],
        "pads": [sides[a][0] for a in inner] + [sides[a][1] for a in inner],
    }
    if operator == "AveragePool":
        name = graph.node(operator, name, count_include_pad=1, **options)
        name = graph.node("Mul", name, graph.constant(np.prod(window), values[0].dtype))
    else:
        name = graph.node(operator, name, **options)
    return graph.node("Transpose", name, perm=[0, *range(2, rank), 1])


def _slice(graph: Graph, p: Any, values: Sequence[Value]) -> str:
    shape = values[0].shape
    steps = p["strides"] or [1] * len(shape)
    return _cut(graph, graph.full(values[0]), shape, p["start_indices"], p["limit_indices"], steps)


def _cut(graph: Graph, name: str, shape, starts, ends, steps) -> str:
    """Slices along the axes that become shorter."""
    axes = [
        axis for axis, size in enumerate(shape)
        if not (str(ends[axis]) == str(size) and str(starts[axis]) == "0" and steps[axis] == 1)
    ]
    if not axes:
        return name
    numbers = [[each[axis] for axis in axes] for each in (starts, ends)]
    if not all(isinstance(number, int | np.integer) for each in numbers for number in each):
        raise UserError("ONNX export: the model slices the batch.")
    return graph.node("Slice", name, *map(graph.integers, numbers), graph.integers(axes),
                      graph.integers([steps[axis] for axis in axes]))


def _gather(graph: Graph, p: Any, values: Sequence[Value]) -> str:
    """Translates gathers at constant indices, such as of `x[:, 3]` and `x[:, ::2]`."""
    value, numbers, where = values[0], p["dimension_numbers"], values[1].constant
    if where is None or numbers.operand_batching_dims:
        raise UserError("ONNX export: the model gathers at computed indices.")
    if where.ndim > 1:
        return _grid(graph, value, p, where)
    starts = [0] * len(value.shape)
    for axis, place in zip(numbers.start_index_map, where.tolist(), strict=True):
        starts[axis] = min(max(int(place), 0), value.shape[axis] - p["slice_sizes"][axis])
    ends = [
        start + size if isinstance(size, int) else size
        for start, size in zip(starts, p["slice_sizes"], strict=True)
    ]
    name = _cut(graph, graph.full(value), value.shape, starts, ends, [1] * len(starts))
    if numbers.collapsed_slice_dims:
        name = graph.node("Squeeze", name, graph.integers(numbers.collapsed_slice_dims))
    return name


def _grid(graph: Graph, value: Value, p: Any, where: np.ndarray) -> str:
    """Picks rows of several axes, each by its own list: `x[:, 1::2, ::2]`."""
    numbers, sizes = p["dimension_numbers"], p["slice_sizes"]
    axes, grid = numbers.start_index_map, where.shape[:-1]
    kept = [axis for axis in range(len(value.shape)) if axis not in axes]
    whole = all(str(sizes[axis]) == str(value.shape[axis]) for axis in kept)
    if set(numbers.collapsed_slice_dims) != set(axes) or len(grid) != len(axes) or not whole:
        raise UserError("ONNX export: the model gathers blocks at several places.")
    name, free, source = graph.full(value), list(range(len(grid))), {}
    varying = {
        axis: [j for j in free if np.ptp(where[..., d], axis=j).any()]
        for d, axis in enumerate(axes)
    }
    # Axes whose indices vary take their axis of the grid first; the others may take any.
    for d, axis in sorted(enumerate(axes), key=lambda pair: not varying[pair[1]]):
        place = (varying[axis] or free)[0]
        if len(varying[axis]) > 1 or place not in free:
            raise UserError("ONNX export: the model gathers along diagonals.")
        free.remove(place)
        source[place] = axis
        first = tuple(slice(None) if j == place else 0 for j in range(len(grid)))
        index = np.clip(where[first][..., d], 0, value.shape[axis] - 1)
        name = graph.node("Gather", name, graph.constant(index, np.int64), axis=axis)
    rank, picked, rest = len(value.shape), iter(range(len(grid))), iter(kept)
    order = [next(rest) if i in numbers.offset_dims else source[next(picked)] for i in range(rank)]
    return graph.node("Transpose", name, perm=order)


def _scatter_add(graph: Graph, p: Any, values: Sequence[Value]) -> str:
    """Translates adding a block at constant indices, such as `x.at[:, 1:].add(y)`."""
    numbers, (whole, index, block) = p["dimension_numbers"], values
    rank, where = len(whole.shape), index.constant
    if where is None or where.ndim != 1 or numbers.update_window_dims != tuple(range(rank)):
        raise UserError("ONNX export: the model adds at computed indices.")
    low = [0] * rank
    for axis, place in zip(numbers.scatter_dims_to_operand_dims, where.tolist(), strict=True):
        low[axis] = int(place)
    high = [
        0 if str(size) == str(part) else size - part - start
        for size, part, start in zip(whole.shape, block.shape, low, strict=True)
    ]
    name = graph.node("Pad", graph.full(block), graph.integers([*low, *high]))
    return graph.node("Add", graph.full(whole), name)


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
    "squeeze": _named(lambda g, p, v: g.node(
        "Squeeze", g.full(v[0]), g.integers(p["dimensions"]))),
    "transpose": _named(lambda g, p, v: g.node(
        "Transpose", g.full(v[0]), perm=list(p["permutation"]))),
    "concatenate": _named(lambda g, p, v: g.node("Concat", *map(g.full, v), axis=p["dimension"])),
    "split": _split,
    "slice": _named(_slice),
    "rev": _named(_reverse),
    "gather": _named(_gather),
    "scatter-add": _named(_scatter_add),
    "pad": _named(_pad),
    "cumsum": _named(lambda g, p, v: g.node(
        "CumSum", g.full(v[0]), g.constant(p["axis"], np.int64), reverse=int(p["reverse"]))),
    "argmax": _named(_argmax),
    "reduce_sum": _reduced("ReduceSum"),
    "reduce_max": _reduced("ReduceMax"),
    "reduce_min": _reduced("ReduceMin"),
    "dot_general": _named(_dot),
    "conv_general_dilated": _named(_convolution),
    "reduce_window_max": _named(functools.partial(_pooled, "MaxPool")),
    "reduce_window_sum": _named(functools.partial(_pooled, "AveragePool")),
}
PRIMITIVES = Primitives(_INLINED, _OPERATORS)
