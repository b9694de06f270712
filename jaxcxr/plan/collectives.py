"""Lists the collectives of a compiled program: kind, axes of the mesh, bytes."""

import collections
import dataclasses
import math
import re

import numpy as np

from jaxcxr.plan import measuring

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_HEAD = re.compile(r"(?:ENTRY )?(%\d+)$")
_ARRAY = re.compile(r"([a-z]+)(\d+)[a-z0-9]*\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|branch_computations)=\{?(%\d+(?:, ?%\d+)*)")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One kind of collective in a program.

    Attributes:
      kind: of `KINDS`.
      axes: of the mesh, those that it goes over.
      shapes: of the arrays that it gives each device, such as ("f32[4,8]",); several that the
        compiler joined are one collective.
      bytes: of these arrays.
      times: in one call of the program; more than 1 inside a loop.
    """

    kind: str
    axes: tuple[str, ...]
    shapes: tuple[str, ...]
    bytes: int
    times: int


def of_program(text: str, mesh) -> list[Collective]:
    """Lists the collectives of a compiled program in order.

    Arguments:
      text: of the module, from `Compiled.as_text()`.
      mesh: that the program was compiled for.

    Raises:
      ValueError: a collective in a loop of unknown length.
    """
    bodies = _computations(measuring.instructions(text))
    times = _times(bodies)
    found = []
    for name, lines in bodies.items():
        for line in lines:
            match = re.search(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(", line)
            if not match:
                continue
            if math.isnan(times[name]):
                raise ValueError("a collective in a loop of unknown length")
            shapes = tuple(shape[0] for shape in _shapes(match[1]))
            size = sum(width for _, width in _shapes(match[1]))
            found.append(
                Collective(match[2], _axes(line, mesh), shapes, size, int(times[name]))
            )
    return found


def _computations(text: str) -> dict[str, list[str]]:
    """Lines of each computation; the entry is the last."""
    bodies: dict[str, list[str]] = {}
    current = ""
    for line in text.splitlines():
        head = _HEAD.match(line.strip())
        if head and not line.startswith(" "):
            current = head[1]
            bodies[current] = []
        elif current and "=" in line:
            bodies[current].append(line)
    return bodies


def _times(bodies: dict[str, list[str]]) -> dict[str, float]:
    """Returns how often each computation runs; NaN in a loop of unknown length."""
    times: dict[str, float] = collections.defaultdict(float)
    times[next(reversed(bodies))] = 1.0
    # A computation stands before those that call it.
    for name in reversed(bodies):
        for line in bodies[name]:
            for group in _CALLED.findall(line):
                count = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
                inside = float(count[1]) if count else 1.0
                if " while(" in line and not count:
                    inside = math.nan
                for called in re.findall(r"%\d+", group):
                    times[called] += times[name] * inside
    return times


def _shapes(text: str) -> list[tuple[str, int]]:
    """Returns (shape, bytes) of each array of an HLO type."""
    found = []
    for kind, bits, dims in _ARRAY.findall(text):
        numbers = math.prod(int(d) for d in dims.split(",") if d)
        found.append((f"{kind}{bits}[{dims}]", numbers * int(bits) // 8))
    return found


def _axes(line: str, mesh) -> tuple[str, ...]:
    """Returns the axes of the mesh along which the devices of a group differ."""
    groups = _groups(line)
    places = {int(i): place for i, place in enumerate(np.ndindex(*mesh.devices.shape))}
    names = [
        name for axis, name in enumerate(mesh.axis_names)
        if any(len({places[int(i)][axis] for i in group}) > 1 for group in groups)
    ]
    return tuple(names)


def _groups(line: str) -> list[list[int]]:
    """Reads groups of devices, by position in the mesh, in each of the forms that XLA writes."""
    named = re.search(
        r"replica_groups=mesh\[(.*?)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? "
        r"\{('[^}]*')\}", line,
    )
    if named:
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        order = _iota(named[2] or str(math.prod(sizes.values())), named[3])
        order = order.reshape(tuple(sizes.values()))
        inside = [list(sizes).index(name) for name in re.findall(r"'(\w+)'", named[4])]
        order = np.moveaxis(order, inside, range(-len(inside), 0))
        return order.reshape(-1, math.prod(order.shape[-len(inside):])).tolist()
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
    if iota:
        return _iota(iota[3], iota[4]).reshape(int(iota[1]), int(iota[2])).tolist()
    listed = re.search(r"(?:replica_groups|source_target_pairs)=\{(\{.*?\})\}", line)
    if not listed:
        raise ValueError(f"a collective whose groups cannot be read: {line.strip()[:200]}")
    return [[int(i) for i in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", listed[1])]


def _iota(dims: str, transposed: str | None) -> np.ndarray:
    shape = [int(d) for d in dims.split(",")]
    order = np.arange(math.prod(shape)).reshape(shape)
    return order.transpose([int(d) for d in transposed.split(",")]) if transposed else order
