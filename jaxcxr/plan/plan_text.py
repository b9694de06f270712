"""A plan as text: memory, work and time of a step, and how it scales."""

from typing import Any

from jaxcxr.plan import roofline
from jaxcxr.plan.hardware import Device
from jaxcxr.plan.planning import Needs

_MOST_DEVICES = 1024  # in the table of more data parallel


def to_text(config: Any, shape: tuple[int, int, int], device: Device, needs: Needs) -> str:
    """The plan of a step.

    Arguments:
      config: of the run.
      shape: sizes of data, fsdp and tensor.
      device: on which it is to run.
      needs: what the step needs, as `planning.measure` gives it.
    """
    found = roofline.estimate(needs, device, shape, config.dtype)
    return "\n".join([
        _head(config, shape, device, needs), "",
        *_memory_rows(needs, device), "",
        *_work_rows(needs, found, device, shape), "",
        *_scaling_rows(needs, device, shape, config.dtype),
    ])


def _head(config, shape, device, needs) -> str:
    mesh = " x ".join(f"{axis} {size}" for axis, size in zip(roofline.AXES, shape, strict=True))
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
    sizes = dict(zip(roofline.AXES, shape, strict=True))
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
            f"{part.bytes / 1e6:,.2f} MB", roofline.seconds(part, device, sizes))
        for part in needs.traffic if any(sizes[axis] > 1 for axis in part.axes)
    ]
    names = {"compute": "arithmetic", "memory": "memory", "network": "the network"}
    rows.append(
        f"  {found.hidden * 1e3:,.3f} ms with all communication hidden, {found.added * 1e3:,.3f} "
        f"ms with none; bound by {names[found.bound]}"
    )
    return rows


def _scaling_rows(needs, device, shape, dtype) -> list[str]:
    rows = ["more data parallel, the same share of the batch on each device",
            f"{'devices':>9}{'hidden ms':>12}{'added ms':>12}{'efficiency':>18}  bound by"]
    for other in roofline.scaled(shape, _MOST_DEVICES):
        found = roofline.estimate(needs, device, other, dtype)
        low, high = found.efficiency
        count = other[0] * other[1] * other[2]
        rows.append(f"{count:>9,}{found.hidden * 1e3:>12,.3f}{found.added * 1e3:>12,.3f}"
                    f"{f'{low:.1%} to {high:.1%}':>18}  {found.bound}")
    return rows
