"""`jaxcxr plan`: what a config's training step needs on a mesh, and how long it takes at best.

    jaxcxr plan --config=F --mesh=data:4,fsdp:2 --device=h100

The step of the last stage is compiled for fake CPU devices, in a process of its own, and never
run; no data set and no accelerator is needed. Parameters and optimiser are exact; activations are
what XLA's plan for a CPU holds beside them, in float32, scaled by what JAX keeps for the backward
pass in the config's dtype. Fused kernels of an accelerator need less. FLOPs are counted as traced,
bytes are those of products and reductions, see `jaxcxr/plan/flops.py`. The time is a roofline at
the peaks of `jaxcxr/plan/hardware.py`, without the latency of a kernel or a collective: what to
expect at best, and which limit to work on, not a promise.
"""

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys

from jaxcxr.errors import RunError, UserError

TAKES_CONFIG = True
MOST_DEVICES = 1024
_AXES = ("data", "fsdp", "tensor")
_RESULT = "plan: "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds mesh and device; `--config=FILE[:ARG]` and its overrides are as for training."""
    parser.add_argument("--mesh", default="data:1", metavar="AXIS:N,...",
                        help="sizes of data, fsdp and tensor, such as data:4,fsdp:2")
    parser.add_argument("--device", default="h100", help="a name of the table (default: h100)")


def run(args: argparse.Namespace) -> None:
    """Compile, estimate and print.

    Raises:
      UserError: a mistake in the mesh, the device or the config.
      RunError: the process that compiles failed.
    """
    from jaxcxr.plan import hardware

    shape = parse_mesh(args.mesh)
    device = hardware.named(args.device)
    print(report(args.config, shape, device))


def parse_mesh(text: str) -> tuple[int, int, int]:
    """Sizes of the axes in `data:4,fsdp:2`; an axis that is not named is 1.

    Raises:
      UserError: another form, or an axis that there is not.
    """
    sizes = dict.fromkeys(_AXES, 1)
    named = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\w+):(\d+)\s*", part)
        if not match or match[1] not in sizes or match[1] in named or int(match[2]) < 1:
            raise UserError(
                f"--mesh={text} cannot be read at {part!r}; write each of data, fsdp and tensor at "
                "most once, with a size of at least 1, such as data:4,fsdp:2."
            )
        named.add(match[1])
        sizes[match[1]] = int(match[2])
    return tuple(sizes.values())


def report(flags: list[str], shape: tuple[int, int, int], device) -> str:
    """The plan as text.

    Arguments:
      flags: `--config=FILE` and its overrides.
      shape: sizes of data, fsdp and tensor.
      device: of `train.hardware`.

    Raises:
      UserError, RunError: as `run`.
    """
    from jaxcxr import main
    from jaxcxr.plan import planning, roofline

    config = main.load_config(flags)
    planning.check_mesh(config, shape)
    needs = _measured(flags, shape, planning.fake_devices(shape))
    found = roofline.estimate(needs, device, shape, config.dtype)
    return "\n".join([
        _head(config, shape, device, needs), "",
        *_memory_rows(needs, device, config), "",
        *_work_rows(needs, found, device, shape, roofline), "",
        *_scaling_rows(needs, device, shape, config.dtype, roofline),
    ])


def _measured(flags: list[str], shape, devices: int):
    """`planning.measure` in a process that has so many fake devices."""
    from jaxcxr.plan import planning

    forced = f"--xla_force_host_platform_device_count={devices}"
    env = {
        **os.environ, "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {forced}".strip(),
    }
    done = subprocess.run(
        [sys.executable, "-m", "jaxcxr.commands.plan", json.dumps(shape), *flags],
        env=env, capture_output=True, text=True, check=False,
    )
    if done.returncode == 2:
        raise UserError(done.stderr.strip().splitlines()[-1].removeprefix("jaxcxr: "))
    lines = [line for line in done.stdout.splitlines() if line.startswith(_RESULT)]
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RunError(
            f"the process that compiles the step ended with code {done.returncode}: {last}"
        )
    values = json.loads(lines[-1].removeprefix(_RESULT))
    values["traffic"] = tuple(
        planning.Traffic(**{**part, "axes": tuple(part["axes"])}) for part in values["traffic"]
    )
    return planning.Needs(**values)


def _head(config, shape, device, needs) -> str:
    mesh = " x ".join(f"{axis} {size}" for axis, size in zip(_AXES, shape, strict=True))
    count = shape[0] * shape[1] * shape[2]
    share = config.batch_size / shape[0] / shape[1]
    return (
        f"{config.model.name}, {config.dtype}, batch {config.batch_size} ({share:g} a part) on "
        f"{count} x {device.name}: {mesh}\n{needs.parameters:,} parameters"
    )


def _memory_rows(needs, device, config) -> list[str]:
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


def _work_rows(needs, found, device, shape, roofline) -> list[str]:
    sizes = dict(zip(_AXES, shape, strict=True))
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


def _scaling_rows(needs, device, shape, dtype, roofline) -> list[str]:
    rows = ["more data parallel, the same share of the batch on each device",
            f"{'devices':>9}{'hidden ms':>12}{'added ms':>12}{'efficiency':>18}  bound by"]
    for other in roofline.scaled(shape, MOST_DEVICES):
        found = roofline.estimate(needs, device, other, dtype)
        low, high = found.efficiency
        count = other[0] * other[1] * other[2]
        rows.append(f"{count:>9,}{found.hidden * 1e3:>12,.3f}{found.added * 1e3:>12,.3f}"
                    f"{f'{low:.1%} to {high:.1%}':>18}  {found.bound}")
    return rows


def _compile(argv: list[str]) -> None:
    """The other process: measures, and prints what it found as one line of JSON."""
    from jaxcxr import main
    from jaxcxr.plan import planning

    try:
        needs = planning.measure(main.load_config(argv[1:]), tuple(json.loads(argv[0])))
    except UserError as error:
        print(f"jaxcxr: {error}", file=sys.stderr)
        sys.exit(2)
    print(_RESULT + json.dumps(dataclasses.asdict(needs)))


if __name__ == "__main__":
    _compile(sys.argv[1:])
