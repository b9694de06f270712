"""Estimates the least time of a step: the slowest of arithmetic, memory and network.

A roofline (Williams et al. 2009, "Roofline", CACM 52(4)) with the network as a third limit.

The network's share is given twice: hidden behind the computation, and added to it. What a machine
does lies between, if its kernels reach their peaks, which small ones do not.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from jaxcxr.errors import UserError
from jaxcxr.plan.hardware import Device
from jaxcxr.plan.planning import Needs, Traffic
from jaxcxr.report.result_file import Table

AXES = ("data", "fsdp", "tensor")
_COLUMNS = ("devices", "hidden ms", "added ms", "efficiency", "bound by")
_MOST_DEVICES = 1024  # in the table of more data parallel


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds of a step.

    Attributes:
      compute: products of matrices at the device's peak.
      memory: bytes at the memory's bandwidth.
      network: collectives, one after another.
    """

    compute: float
    memory: float
    network: float

    @property
    def busy(self) -> float:
        """Seconds of a device that waits for no other."""
        return max(self.compute, self.memory)

    @property
    def hidden(self) -> float:
        """Seconds where all communication is hidden behind the computation."""
        return max(self.busy, self.network)

    @property
    def added(self) -> float:
        """Seconds where no communication is hidden."""
        return self.busy + self.network

    @property
    def bound(self) -> str:
        """The limit that takes longest."""
        parts = dataclasses.asdict(self)
        return max(parts, key=lambda name: parts[name])

    @property
    def efficiency(self) -> tuple[float, float]:
        """Share of the time in which a device computes: nothing hidden, and all hidden."""
        return self.busy / self.added, self.busy / self.hidden


def estimate(
    needs: Needs, device: Device, shape: tuple[int, int, int], dtype: str
) -> Estimate:
    """Computes the seconds of a step on a mesh."""
    if dtype not in device.flops:
        known = ", ".join(device.flops)
        raise UserError(f"no peak of {device.name} at {dtype} is known; use one of {known}.")
    sizes = dict(zip(AXES, shape, strict=True))
    return Estimate(
        needs.flops / device.flops[dtype],
        needs.moved_bytes / device.bandwidth,
        sum(seconds(part, device, sizes) for part in needs.traffic),
    )


def seconds(part: Traffic, device: Device, sizes: Mapping[str, int]) -> float:
    """Computes the seconds of a collective, by rings within and between groups of devices.

    Neighbours in the mesh are neighbours in the machine, the axis `tensor` first, then `fsdp`. Of
    the links of a torus a mesh axis has its share; a switch gives each all. Between groups goes,
    through the network of each device, what the devices of a group have reduced or must gather.
    """
    # Devices from one member of the axes to the next, in the order of the mesh.
    stride = math.prod(sizes[axis] for axis in AXES[AXES.index(part.axes[-1]) + 1:])
    members = math.prod(sizes[axis] for axis in part.axes)
    inside = max(1, min(members, device.group // stride))
    outside = math.ceil(members / inside)
    link = device.link
    if device.axes:
        used = sum(size > 1 for size in sizes.values())
        link *= max(1, device.axes // max(1, used)) / device.axes
    time = _share(part.kind, inside) * part.bytes / link
    return time + _share(part.kind, outside) * part.bytes / inside / device.network


def _share(kind: str, members: int) -> float:
    """Computes the bytes that a device of a ring sends, over those of the whole array."""
    if members == 1:
        return 0.0
    if kind == "collective-permute":
        return 1.0
    return (2.0 if kind == "all-reduce" else 1.0) * (members - 1) / members


def scaled(shape: tuple[int, int, int], most: int) -> list[tuple[int, int, int]]:
    """Meshes of the same fsdp and tensor with 1, 2, 4 ... times the data, up to `most` devices."""
    _, fsdp, tensor = shape
    counts = (2**k for k in range(most.bit_length()))
    return [(count, fsdp, tensor) for count in counts if count * fsdp * tensor <= most]


def to_text(config: Any, shape: tuple[int, int, int], device: Device, needs: Needs) -> str:
    """Formats the plan of a step.

    Arguments:
      shape: sizes of data, fsdp and tensor.
      needs: as `planning.measure` gives them.
    """
    found = estimate(needs, device, shape, config.dtype)
    return "\n".join([
        _head(config, shape, device, needs), "",
        *_memory_rows(needs, device), "",
        *_work_rows(needs, found, device, shape), "",
        *_scaling_rows(needs, device, shape, config.dtype),
    ])


def _head(config, shape, device, needs) -> str:
    mesh = " x ".join(f"{axis} {size}" for axis, size in zip(AXES, shape, strict=True))
    count = shape[0] * shape[1] * shape[2]
    share = config.batch_size / shape[0] / shape[1]
    return (
        f"{config.model.name}, {config.dtype}, batch {config.batch_size} ({share:g} a part) on "
        f"{count} x {device.name}: {mesh}\n{needs.parameters:,} parameters"
    )


def _memory_rows(needs, device) -> list[str]:
    parts = {
        "parameters": needs.parameter_bytes,
        "optimiser": needs.optimizer_bytes,
        "moving average": needs.average_bytes,
        "batch": needs.batch_bytes,
        "activations and gradients": needs.activation_bytes,
        "together": needs.memory,
    }
    rows = [f"{'memory of a device':<34}{'GB':>10}"]
    rows += [f"  {name:<32}{size / 1e9:>10.3f}" for name, size in parts.items()]
    share = needs.memory / device.memory
    fits = f"{share:.1%} of the {device.memory / 1e9:.0f} GB of a {device.name}"
    advice = "" if share <= 1 else (
        "; it does not fit: raise config.accumulate or mesh.fsdp, or set model.options.remat=full"
    )
    return [*rows, f"  {fits}{advice}"]


def _work_rows(needs, found, device, shape) -> list[str]:
    sizes = dict(zip(AXES, shape, strict=True))
    rows = [f"{'a step':<60}{'amount':>16}{'at best':>14}"]

    def row(name: str, amount: str, seconds: float | None) -> str:
        time = "" if seconds is None else f"{seconds * 1e3:,.3f} ms"
        return f"  {name:<58}{amount:>16}{time:>14}"

    rows.append(row("FLOP, all devices", f"{needs.model_flops / 1e9:,.1f} G", None))
    rows.append(row("products of matrices, a device", f"{needs.flops / 1e9:,.1f} G",
                    found.compute))
    rows.append(row("bytes of memory, a device", f"{needs.moved_bytes / 1e9:,.3f} GB",
                    found.memory))
    rows += [
        row(f"{part.kind} over {' and '.join(a for a in part.axes if sizes[a] > 1)}: {part.what}",
            f"{part.bytes / 1e6:,.2f} MB", seconds(part, device, sizes))
        for part in needs.traffic if any(sizes[axis] > 1 for axis in part.axes)
    ]
    names = {"compute": "arithmetic", "memory": "memory", "network": "the network"}
    rows.append(
        f"  {found.hidden * 1e3:,.3f} ms with all communication hidden, {found.added * 1e3:,.3f} "
        f"ms with none; bound by {names[found.bound]}"
    )
    return rows


def _scaling_rows(needs, device, shape, dtype) -> list[str]:
    rows = ["more data parallel, the same share of the batch on each device"]
    for cells in (_COLUMNS, *_scaling(needs, device, shape, dtype)):
        count, hidden, added, efficiency, bound = cells
        rows.append(f"{count:>9}{hidden:>12}{added:>12}{efficiency:>18}  {bound}")
    return rows


def _scaling(needs, device, shape, dtype) -> Iterator[tuple[str, ...]]:
    for other in scaled(shape, _MOST_DEVICES):
        found = estimate(needs, device, other, dtype)
        low, high = found.efficiency
        yield (f"{math.prod(other):,}", f"{found.hidden * 1e3:,.3f}", f"{found.added * 1e3:,.3f}",
               f"{low:.1%} to {high:.1%}", found.bound)


def to_table(config: Any, shape: tuple[int, int, int], device: Device, needs: Needs) -> Table:
    """Returns how the step scales, and its single numbers; arguments as of `to_text`."""
    found = estimate(needs, device, shape, config.dtype)
    return Table(
        _COLUMNS, list(_scaling(needs, device, shape, config.dtype)),
        _head(config, shape, device, needs).replace("\n", ", "),
        {
            "memory": f"{needs.memory / 1e9:.1f} of {device.memory / 1e9:.0f} GB",
            "flops": f"{needs.model_flops / 1e12:,.1f} T",
            "milliseconds": f"{found.hidden * 1e3:.1f} to {found.added * 1e3:.1f}",
            "bound": found.bound,
        },
    )
