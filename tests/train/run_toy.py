"""A training run over the toy pose task as a program of its own, to be killed or joined by others.

    python run_toy.py WORKDIR [--devices N] [--slow SECONDS] [--config.a.b=VALUE ...]

It goes through `jaxcxr.main`, as a user's run does; only the data are toys.
"""

import argparse
import json
import os
import pathlib
import sys
import time

import jax

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from jaxcxr import main, tasks
from jaxcxr.train import parallel
from tests import toys


def get_config():
    """Two stages of three steps each; checkpoints at every step."""
    return toys.two_stages()


def slow_down(seconds: float) -> None:
    """Make every step take a while, so that a signal can arrive between two of them."""
    put = parallel.put_batch

    def slow(mesh, batch):
        time.sleep(seconds)
        return put(mesh, batch)

    parallel.put_batch = slow


def run() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir")
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--slow", type=float, default=0.0)
    args, rest = parser.parse_known_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", args.devices)
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_disable_most_optimizations", True)
    tasks.create = toys.create
    slow_down(args.slow)
    sys.argv = ["run_toy", f"--config={__file__}", f"--workdir={args.workdir}", *rest]
    main.run()
    if os.environ.get("TOY_MODULES"):
        pathlib.Path(os.environ["TOY_MODULES"]).write_text(json.dumps(sorted(sys.modules)))


if __name__ == "__main__":
    run()
