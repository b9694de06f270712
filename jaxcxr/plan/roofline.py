"""Estimates the least time of a step: the slowest of arithmetic, memory and network.

A roofline (Williams et al. 2009, "Roofline", CACM 52(4)) with the network as a third limit.

The network's share is given twice: hidden behind the computation, and added to it. What a machine
does lies between, if its kernels reach their peaks, which small ones do not.
"""

import dataclasses
import math
from collections.abc import Mapping

from jaxcxr.errors import UserError
from jaxcxr.plan.hardware import Device
from jaxcxr.plan.planning import Needs, Traffic

AXES = ("data", "fsdp", "tensor")


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
    """Seconds of a step on a mesh.

    Arguments:
      needs: of one device.
      device: of the mesh.
      shape: sizes of data, fsdp and tensor.
      dtype: of the computation.

    Raises:
      UserError: the device's peak at that dtype is not known.
    """
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
    """Seconds of a collective, by rings within a group of devices and between groups.

    Neighbours in the mesh are neighbours in the machine, the axis `tensor` first, then `fsdp`. Of
    the links of a torus a mesh axis has its share; a switch gives each all. Between groups goes,
    through the network of each device, what the devices of a group have reduced or must gather.

    Arguments:
      part: the collective.
      device: of the machine.
      sizes: of the mesh's axes.
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
    """Bytes that a device of a ring sends, over those of the whole array."""
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
