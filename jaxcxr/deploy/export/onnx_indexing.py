"""Translates slices, gathers and scatters at constant indices into operators of ONNX."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcxr.deploy.export.onnx_graph import Graph, Value
from jaxcxr.errors import UserError


def sliced(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
    """Translates a slice."""
    p, shape = equation.params, values[0].shape
    steps = p["strides"] or [1] * len(shape)
    name = _cut(graph, graph.full(values[0]), shape, p["start_indices"], p["limit_indices"], steps)
    return [graph.value(name, equation.outvars[0])]


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


def gathered(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
    """Translates gathers at constant indices, such as of `x[:, 3]` and `x[:, ::2]`."""
    p, value = equation.params, values[0]
    numbers, where = p["dimension_numbers"], values[1].constant
    if where is None or numbers.operand_batching_dims:
        raise UserError("ONNX export: the model gathers at computed indices.")
    if where.ndim > 1:
        return [graph.value(_grid(graph, value, p, where), equation.outvars[0])]
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
    return [graph.value(name, equation.outvars[0])]


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


def scatter_added(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
    """Translates adding a block at constant indices, such as `x.at[:, 1:].add(y)`."""
    numbers, (whole, index, block) = equation.params["dimension_numbers"], values
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
    return [graph.value(graph.node("Add", graph.full(whole), name), equation.outvars[0])]
