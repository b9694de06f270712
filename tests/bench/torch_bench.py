"""Training beside torch: the ratio of both throughputs, ours over torch's.

    python -m tests.bench.torch_bench --config=F [--model=NAME] [--peer-python=PYTHON]

The torch counterpart of the config (torchvision's ResNet, timm's ViT, a pose transformer of plain
modules, see `torch_peer`) takes turns with our step in the same run. It has as many parameters,
does the same update and average, and torch.compile where that is faster. It has no augmentation,
so that our side goes without too. Where other work shares a CPU, torch's threads wait for each
other in busy loops: OMP_WAIT_POLICY=passive lets them sleep, and the CPU time of both sides is
printed.
"""

import argparse
import dataclasses
import statistics
import sys

from jaxcxr.bench import train_bench
from jaxcxr.errors import RunError, UserError
from jaxcxr.plan import measuring
from jaxcxr.report.result_file import Table
from tests.bench import program, train_spec
from tests.bench.train_peer import Peer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options; `--config=FILE[:ARG]` and its overrides are as for training."""
    parser.add_argument("--seconds", type=float, default=30.0, help="time of all rounds together")
    parser.add_argument("--model", metavar="NAME", help="another model than the config's, as it is")
    parser.add_argument("--peer-python", default=sys.executable, metavar="PYTHON",
                        help="a Python that has torch (default: this one)")
    parser.add_argument("--peer-compile", choices=("auto", "on", "off"), default="auto",
                        help="torch.compile; auto: where it is faster")


def run(args: argparse.Namespace) -> Table:
    """Measures and prints; a row for each side, their ratio in the note.

    Raises:
      UserError: a mistake in the config, unprepared data, no torch, or a config that has no torch
        counterpart.
      RunError: the counterpart has other parameters, or ended early.
    """
    from jaxcxr import config as config_lib
    from jaxcxr import main
    from jaxcxr.train import runtime

    runtime.enable_cache()
    runtime.share_device()
    config = main.load_config(args.config)
    if args.model:
        config_lib.set_model(config, args.model)
        config_lib.validate(config)
    without_augmentation(config)
    run_ = train_bench.open_run(config)
    peer = start_peer(run_, args.peer_python, args.peer_compile)
    rounds, clocks, table = train_bench.bench_train(run_, args.seconds, {"torch": peer.run})
    peer.close()
    ratio = _print_ratio(rounds, clocks, peer)
    return dataclasses.replace(table, note=f"{ratio} {table.note}")


def without_augmentation(config) -> None:
    """Sets every change of the config's augmentation to none."""
    for name, value in config.augment.items():
        if name != "fill":
            config.augment[name] = type(value)(1 if name == "crop_area" else 0)


def start_peer(run_, python: str, compile_: str) -> Peer:
    """The torch counterpart of a run, built.

    Raises:
      UserError: there is none for this config or device, or no torch.
      RunError: it has not as many parameters.
    """
    import jax

    backend = jax.default_backend()
    if backend not in ("cpu", "gpu") or jax.device_count() > 1:
        raise UserError(
            f"the comparison is on one CPU or GPU, not on {jax.device_count()} {backend} devices."
        )
    params = jax.eval_shape(run_.init_variables)["params"]
    ours = sum(leaf.size for leaf in jax.tree.leaves(params))
    facts = run_.task.model_options() or {"joints": run_.task.source("train")[0]["joints"].shape[1]}
    device = "cuda" if backend == "gpu" else "cpu"
    peer = Peer(python, train_spec.of(run_.config, facts, device, compile_))
    if peer.parameters != ours:
        peer.close()
        raise RunError(
            f"the torch counterpart has {peer.parameters:,} parameters and the model {ours:,}."
        )
    return peer


def _print_ratio(rounds: measuring.Rounds, clocks: dict[str, list], peer: Peer) -> str:
    ratio = measuring.ratio(rounds, "torch", "step")
    low, high = measuring.interval(rounds, "torch", "step")
    print(f"torch {peer.version}, {peer.how}, {peer.parameters:,} parameters, no augmentation "
          f"on either side" + (f", {peer.memory / 2**20:,.0f} MiB at most" if peer.memory else ""))
    text = (f"ratio {ratio:.2f} times torch's examples/s (median of {len(rounds)} rounds, 95% "
            f"interval {low:.2f} to {high:.2f})")
    print(text)
    ours, theirs = (statistics.median(cpu for _, cpu in clocks[n]) for n in ("step", "torch"))
    if peer.device == "cpu":
        used = (f"CPU time a step: {ours * 1e3:,.0f} ms, torch {theirs * 1e3:,.0f} ms, "
                f"{theirs / ours:.2f} times")
        print(f"{used}; other work on the machine changes it least")
        text = f"{text}; {used}"
    return f"{text}."


if __name__ == "__main__":
    program.main(add_arguments, run, __doc__)
