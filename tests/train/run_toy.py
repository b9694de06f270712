"""A training run over the toy pose task as a program of its own, to be killed or joined by others.

    python run_toy.py WORKDIR [--task pose] [--devices N] [--slow SECONDS] [--hang BATCH]
                      [--fail BATCH] [--order FILE] [--config.a.b=VALUE ...]

It goes through `jaxcxr.main`, as a user's run does; only the data are toys.
"""

import argparse
import itertools
import json
import os
import pathlib
import sys
import time

import jax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from jaxcxr import main
from jaxcxr import task as tasks
from jaxcxr.train import parallel
from tests import toys


def get_config(task="pose"):
    """Two stages of three steps each, or one of six for X-rays; checkpoints at every step."""
    if task == "pose":
        return toys.two_stages()
    return toys.xray_config(
        stages__all__duration="6 steps", evaluate_every="2 steps", checkpoint__every="1 step"
    )


def slow_down(seconds: float) -> None:
    """Makes every step take a while, so that a signal can arrive between two of them."""
    put = parallel.put_batch

    def slow(mesh, batch):
        time.sleep(seconds)
        return put(mesh, batch)

    parallel.put_batch = slow


def break_at(batch: int, hang: bool) -> None:
    """Makes the source of the training data hang for good, or fail, when a batch is read."""
    create = tasks.create

    def hanging(config):
        task = create(config)
        source = task.source("train")
        read, calls = source.read, itertools.count(1)

        def hang_here(indices):
            while len(indices) > 1 and next(calls) >= batch:  # one example is read for its shapes
                if not hang:
                    raise ValueError("these shards are damaged")
                time.sleep(3600)
            return read(indices)

        source.read = hang_here
        return task

    tasks.create = hanging


def note_order(path: str) -> None:
    """Writes the examples of every training batch as this process's devices get them."""
    put = parallel.put_batch

    def noting(mesh, batch):
        if batch["valid"].all():
            with open(path, "a") as file:
                file.write(json.dumps({name: np.asarray(batch[name]).tolist()
                                       for name in ("position", "index")}) + "\n")
        return put(mesh, batch)

    parallel.put_batch = noting


def run() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir")
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--task", default="pose")
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--hang", type=int)
    parser.add_argument("--fail", type=int)
    parser.add_argument("--order")
    args, rest = parser.parse_known_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", args.devices)
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_disable_most_optimizations", True)
    tasks.create = toys.create
    if args.hang or args.fail:
        break_at(args.hang or args.fail, hang=bool(args.hang))
    if args.order:
        note_order(args.order)
    slow_down(args.slow)
    sys.argv = ["run_toy", f"--config={__file__}:{args.task}", f"--workdir={args.workdir}", *rest]
    main.run()
    if os.environ.get("TOY_MODULES"):
        pathlib.Path(os.environ["TOY_MODULES"]).write_text(json.dumps(sorted(sys.modules)))


if __name__ == "__main__":
    run()
