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
import json
import re
import sys

from jaxcxr.commands import add_json, write_json
from jaxcxr.errors import UserError

TAKES_CONFIG = True
_AXES = ("data", "fsdp", "tensor")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds mesh and device; `--config=FILE[:ARG]` and its overrides are as for training."""
    parser.add_argument("--mesh", default="data:1", metavar="AXIS:N,...",
                        help="sizes of data, fsdp and tensor, such as data:4,fsdp:2")
    parser.add_argument("--device", default="h100", help="a name of the table (default: h100)")
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Compiles, estimates and prints."""
    from jaxcxr.plan import hardware

    shape = parse_mesh(args.mesh)
    device = hardware.named(args.device)

    from jaxcxr import main  # after the mistakes: JAX is slow to import
    from jaxcxr.plan import planning, roofline

    config = main.load_config(args.config)
    planning.check_mesh(config, shape)
    child = [sys.executable, "-m", "jaxcxr.commands.plan", json.dumps(shape), *args.config]
    needs = planning.needs(child, planning.fake_devices(shape))
    print(roofline.to_text(config, shape, device, needs))
    write_json(args, roofline.to_table(config, shape, device, needs))


def parse_mesh(text: str) -> tuple[int, int, int]:
    """Reads the sizes of the axes in `data:4,fsdp:2`; an axis that is not named is 1."""
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
    return sizes["data"], sizes["fsdp"], sizes["tensor"]


def _compile(argv: list[str]) -> None:
    """Measures, in the other process, and prints what it found as one line of JSON."""
    from jaxcxr import main
    from jaxcxr.plan import planning

    try:
        needs = planning.measure(main.load_config(argv[1:]), tuple(json.loads(argv[0])))
    except UserError as error:
        print(f"jaxcxr: {error}", file=sys.stderr)
        sys.exit(2)
    print(planning.to_line(needs))


if __name__ == "__main__":
    _compile(sys.argv[1:])
