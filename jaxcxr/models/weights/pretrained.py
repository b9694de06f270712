"""Loads the weights of other libraries into our models."""

import dataclasses
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxcxr.errors import UserError
from jaxcxr.models.sequence import scanned
from jaxcxr.models.weights import networks
from jaxcxr.models.weights.layouts import Layout, Read

# What flexible heads learn beside the projections of plain heads; no file has it.
_OWN = re.compile(r"/attention/group_\d+(_(gate|span|query_norm|key_norm))?/")
_PROJECTION = re.compile(r"(.*/attention)/(query|key|value|out)/(kernel|bias)")


def resample_positions(
    table: np.ndarray,
    grid: tuple[int, int],
    *,
    prefix: int,
    method: str = "cubic",
    antialias: bool = True,
) -> np.ndarray:
    """Resizes learned positions to another patch grid, as timm's `resample_abs_pos_embed`.

    Arguments:
      table: `[1, prefix + n * n, dim]`, of a square grid.
      grid: (rows, columns) wanted.
      prefix: leading rows that belong to no patch (class token) and stay as they are.
      method: "cubic" or "linear".
      antialias: widens the kernel where the grid shrinks.

    Returns:
      float32 `[1, prefix + rows * columns, dim]`.

    Raises:
      ValueError: the table does not come from a square grid.
    """
    table = np.asarray(table, np.float32)
    count, dim = table.shape[1] - prefix, table.shape[2]
    side = math.isqrt(count)
    if side * side != count:
        raise ValueError(f"{count} positions are not a square grid")
    if (side, side) == tuple(grid):
        return table
    patches = table[0, prefix:].reshape(side, side, dim)
    resized = jax.image.resize(jnp.asarray(patches), (*grid, dim), method, antialias=antialias)
    return np.concatenate([table[:, :prefix], np.asarray(resized).reshape(1, -1, dim)], axis=1)


def _fit_positions(
    table: np.ndarray, length: int, prefixes: tuple[int, int], grid: Any, layout: Layout
) -> np.ndarray:
    """Positions of the file for a model with `length` rows; prefixes are (file's, model's)."""
    in_file, in_model = prefixes
    rows = table.shape[1]
    if in_file and math.isqrt(rows) ** 2 == rows:  # the file's class token has no position
        table = np.concatenate([np.zeros_like(table[:, :1]), table], axis=1)
    if grid is None:
        side = math.isqrt(length - in_model)
        if side * side != length - in_model:
            raise ValueError("the model's grid is not square: give grid=(rows, columns)")
        grid = (side, side)
    table = resample_positions(
        table, grid, prefix=in_file, method=layout.method, antialias=layout.antialias
    )
    return table[:, in_file - in_model :] if in_file >= in_model else table


def _filled(target: str, wanted: Mapping[str, Any]) -> list[str]:
    """Names of the model that a tensor fills: itself, or the projections of groups of heads."""
    match = _PROJECTION.fullmatch(target)
    if target in wanted or not match:
        return [target] if target in wanted else []
    layer, role, leaf = match.groups()
    names: list[str] = []
    while (name := f"{layer}/group_{len(names)}_{role}/{leaf}") in wanted:
        names.append(name)
    return names


def _by_groups(
    array: np.ndarray, read: Read, target: str, shapes: list[tuple[int, ...]]
) -> list[np.ndarray]:
    """Cuts a projection of equal heads into those of groups whose heads differ in size.

    Raises:
      ValueError: the heads of the groups are not as wide together as those of the file.
    """
    if len(shapes) == 1:
        return [read(array, shapes[0])]
    # Kernels are [in, heads, width] but for the output's, [heads, width, out].
    into = target.endswith("/kernel") and "/out/" not in target
    widths = [math.prod(s[1:] if into else s[:2]) for s in shapes]
    flat = (shapes[0][0], sum(widths)) if into else (sum(widths), *shapes[0][2:])
    try:
        whole = read(array, flat).reshape(flat)
    except ValueError:
        raise ValueError(f"the groups of heads are {sum(widths)} wide together") from None
    pieces = np.split(whole, np.cumsum(widths)[:-1], axis=int(into))
    return [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]


@dataclasses.dataclass
class _Problems:
    """What does not fit, collected so that the user reads it once."""

    missing: list[str] = dataclasses.field(default_factory=list)
    extra: list[str] = dataclasses.field(default_factory=list)
    misshaped: list[str] = dataclasses.field(default_factory=list)

    def check(self, path: Any, model_name: str) -> None:
        """Raises one UserError that names everything found (the first ten of each kind)."""
        parts = [
            f"{len(keys)} {kind}: {', '.join(keys[:10])}{', ...' if len(keys) > 10 else ''}"
            for kind, keys in (
                ("missing from the file", self.missing),
                ("unknown to the model", self.extra),
                ("of another shape", self.misshaped),
            )
            if keys
        ]
        if parts:
            raise UserError(
                f"the weights in {path} do not fit model {model_name!r}; {'; '.join(parts)}. "
                "Give the file of this architecture or change the model's options."
            )


def _convert(
    arrays: Mapping[str, np.ndarray],
    wanted: Mapping[str, Any],
    layout: Layout,
    skip_head: bool,
    grid: tuple[int, int] | None,
) -> tuple[dict[str, np.ndarray], _Problems]:
    """Arrays of the file by the model's names, and what did not fit."""
    routes = {key: layout.leaves(key) for key in arrays}
    known = {target for route in routes.values() for target, _ in route or ()}
    prefixes = (int(layout.class_token in known), int(layout.class_token in wanted))
    found: dict[str, Any] = {}
    problems = _Problems()
    values: Sequence[np.ndarray | None]
    for key, route in routes.items():
        if route is None:
            if not (skip_head and layout.head and key.startswith(f"{layout.head}.")):
                problems.extra.append(key)
            continue
        for target, read in route:
            if skip_head and target.startswith("params/head/"):
                continue
            if target == layout.class_token and target not in wanted:
                continue  # a model that pools by the mean has no class token
            names = _filled(target, wanted)
            if not names:
                problems.extra.append(key)
                break
            array = np.asarray(arrays[key], np.float32)
            shapes = [tuple(wanted[name].shape) for name in names]
            try:
                if target == layout.positions:
                    array = _fit_positions(array, shapes[0][1], prefixes, grid, layout)
                values, reason = _by_groups(array, read, target, shapes), ""
            except ValueError as error:
                values, reason = [None] * len(names), f" ({error})"
            found |= dict(zip(names, values, strict=True))
            if any(v is None or v.shape != s for v, s in zip(values, shapes, strict=True)):
                problems.misshaped.append(
                    f"{key} {arrays[key].shape} for {', '.join(names)} "
                    f"{', '.join(map(str, shapes))}{reason}"
                )
    problems.missing = [
        name
        for name in wanted
        if name not in found
        and not (skip_head and name.startswith("params/head/"))
        and not _OWN.search(name)
    ]
    return found, problems


def _place(value: np.ndarray, like: Any) -> Any:
    """The value with the dtype of the leaf it replaces, on the devices of that leaf."""
    value = value.astype(like.dtype)
    return jax.device_put(value, like.sharding) if isinstance(like, jax.Array) else value


def load(
    path: str | pathlib.Path,
    variables: Mapping[str, Any],
    model_name: str,
    *,
    part: str = "",
    skip_head: bool = True,
    grid: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Replaces the variables of a model by those of the network in a file.

    The network has one of the `layouts` that the model's class declares, see
    `networks.open_file`. Positions are resampled to the model's grid; the first convolution is
    summed over RGB for one-channel images, which is exact for three identical channels under one
    normalisation.

    Flexible heads take the projections of plain heads in order; where their sizes differ, the
    kernels are cut into slices in order, which must be as wide together. What only flexible heads
    have (spans, gates, orders, biases ...) keeps its value in `variables`.

    Arguments:
      path: as in `weight_files.read`, or a name as in `hub.local`; no pickled code is run.
      variables: `params` and, with BatchNorm, `batch_stats`, from `module.init` (with
        `skip_head=False` shapes are enough).
      model_name: name given to `models.create`.
      part: of the file, where it holds several networks.
      skip_head: keeps the head of `variables` and ignores that of the file. Otherwise the model
        needs `head_width=0` and the classes of the file.
      grid: (rows, columns) of the model's patches where the images are not square.

    Returns:
      A tree like `variables`; each leaf has the dtype and the sharding of the one it replaces.

    Raises:
      UserError: the file cannot be read, or keys are missing, unknown or of another shape; all
        are named in one message.
    """
    network = networks.open_file(path, model_name, part)
    return fill(network, variables, model_name, skip_head=skip_head, grid=grid)


def fill(
    network: networks.Network,
    variables: Mapping[str, Any],
    model_name: str,
    *,
    skip_head: bool = True,
    grid: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Replaces the variables of a model by those of a network; see `load`."""
    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    shapes = {
        k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in flat.items()
        if k.startswith(("params/", "batch_stats/"))
    }
    wanted = scanned.unstacked(shapes)
    found, problems = _convert(network.tensors, wanted, network.layout, skip_head, grid)
    problems.check(network.path, model_name)
    found = found if wanted.keys() == shapes.keys() else scanned.stacked(found)
    loaded = {k: _place(found[k], v) if k in found else v for k, v in flat.items()}
    return traverse_util.unflatten_dict(loaded, sep="/")
