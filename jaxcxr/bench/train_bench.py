"""`jaxcxr bench train`: throughput of training, and beside torch.

    jaxcxr bench train --config=F [--model=NAME]
    jaxcxr bench train --config=F --peer [--peer-python=PYTHON]

Prints examples/s of the loop on the data pipeline and of the compiled step on one batch, the spread
of the step's time, the share of the loop in which it waited for data, peak memory, and MFU: the
FLOPs of the products that the model needs (`train.flops`, without what rematerialisation repeats)
over the time of a step and the peak of the devices. The peak is that of `train.hardware`, or where
the table has none, as on a CPU, that of a large matrix product, measured before.

With `--peer` the torch counterpart of the config (torchvision's ResNet, timm's ViT, a pose
transformer of plain modules, see `torch_peer`) takes turns with our step in the same run. It has as
many parameters, does the same update and average, and torch.compile where that is faster. It has no
augmentation, so that our side goes without too. The ratio is ours over torch's, in examples/s.
Where other work shares a CPU, torch's threads wait for each other in busy loops: OMP_WAIT_POLICY=
passive lets them sleep, and the CPU time of both sides is printed.
"""

import argparse
import resource
import statistics
import sys
import time
from typing import Any

from jaxcxr import registry
from jaxcxr.bench import step_bench, train_spec
from jaxcxr.bench.train_peer import Peer
from jaxcxr.errors import RunError, UserError
from jaxcxr.plan import timing

# A round of a side lasts at least so many seconds.
_ROUND = 0.3
TAKES_CONFIG = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the time to spend and the peer; `--config=FILE[:ARG]` is as for training."""
    parser.add_argument("--seconds", type=float, default=30.0, help="time of all rounds together")
    parser.add_argument("--model", metavar="NAME", help="another model than the config's, as it is")
    parser.add_argument("--peer", action="store_true", help="beside torch, in turn")
    parser.add_argument("--peer-python", default=sys.executable, metavar="PYTHON",
                        help="a Python that has torch (default: this one)")
    parser.add_argument("--peer-compile", choices=("auto", "on", "off"), default="auto",
                        help="torch.compile; auto: where it is faster")


def run(args: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
      UserError: a mistake in the config, unprepared data, no torch, or a config that has no torch
        counterpart.
      RunError: the counterpart has other parameters, or ended early.
    """
    from jaxcxr import config as config_lib
    from jaxcxr import main
    from jaxcxr.train import compilation

    compilation.enable_cache()
    if args.peer:
        compilation.share_device()
    config = main.load_config(args.config)
    if args.model:
        config_lib.set_model(config, args.model)
        config_lib.validate(config)
    config.stage_order = config.stage_order[:1]
    config.stages[config.stage_order[0]].duration = "1000000000 steps"  # longer than the benchmark
    if args.peer:
        without_augmentation(config)
    bench_train(config, args)


def without_augmentation(config) -> None:
    """Sets every change of the config's augmentation to none."""
    for name, value in config.augment.items():
        if name != "fill":
            config.augment[name] = type(value)(1 if name == "crop_area" else 0)


def bench_train(config, args: argparse.Namespace) -> None:
    """Measures loop, step and peer in turn, and prints; arguments as `add_arguments` says."""
    import jax

    from jaxcxr.data import pipeline
    from jaxcxr.train import parallel, setup

    run_ = setup.make(config)
    peer = start_peer(run_, args) if args.peer else None
    with run_.mesh_context():
        feed = Timed(pipeline.train_iterator(run_.task.source("train"), config))
        batch = parallel.put_batch(run_.mesh, next(feed))
        bare = run_.train_step(run_.stages[0])
        state, _ = jax.block_until_ready(bare(run_.first_state(), batch))
        _print_head(run_, state)
        own, clocks = Steps(bare, state, batch), {"step": [], "torch": []}
        count = max(1, round(_ROUND / own.run(1)[0][0]))

        def side(name: str, steps) -> float:
            found = steps(count)
            clocks[name] += found
            return statistics.mean(seconds for seconds, _ in found)

        with step_bench.loop_of(run_, run_.first_state(), feed) as looped:
            looped(2)  # fills the buffers; not counted
            feed.begin()
            sides = {
                "loop": lambda: feed.during(lambda: looped(count)) / count,
                "step": lambda: side("step", own.run),
            }
            if peer:
                sides["torch"] = lambda: side("torch", peer.run)
            rounds = timing.within(sides, args.seconds, timing.LEAST_ROUNDS)
    if peer:
        peer.close()
    _print_sides(run_, rounds, clocks, feed.share)
    _print_use(run_, bare, batch, timing.median(rounds, "step"))
    if peer:
        _print_ratio(config, rounds, clocks, peer)


class Steps:
    """Our compiled step, again and again on one batch."""

    def __init__(self, step, state, batch):
        self._step, self._state, self._batch = step, state, batch

    def run(self, count: int) -> list[tuple[float, float]]:
        """Seconds and CPU seconds of each of so many steps."""
        import jax

        found = []
        for _ in range(count):
            clock, used = time.perf_counter(), time.process_time()
            self._state, _ = jax.block_until_ready(self._step(self._state, self._batch))
            found.append((time.perf_counter() - clock, time.process_time() - used))
        return found


class Timed:
    """An iterator, and for how much of the time of a loop that loop waited for it."""

    def __init__(self, data):
        self._data = data
        self.begin()

    def begin(self) -> None:
        """Forgets what was measured."""
        self._waited, self._looped = 0.0, 0.0

    def __next__(self):
        clock = time.perf_counter()
        value = next(self._data)
        self._waited += time.perf_counter() - clock
        return value

    def during(self, loop) -> float:
        """Seconds of `loop()`, until what it returns is computed."""
        import jax

        clock = time.perf_counter()
        jax.block_until_ready(loop())
        seconds = time.perf_counter() - clock
        self._looped += seconds
        return seconds

    @property
    def share(self) -> float:
        """Of the loop's time that it waited, from 0 to 1."""
        return self._waited / self._looped if self._looped else 0.0


def start_peer(run_, args: argparse.Namespace) -> Peer:
    """The torch counterpart of a run, built.

    Raises:
      UserError: there is none for this config or device, or no torch.
      RunError: it has not as many parameters.
    """
    import jax

    backend = jax.default_backend()
    if backend not in ("cpu", "gpu") or jax.device_count() > 1:
        raise UserError(
            f"--peer compares on one CPU or GPU, not on {jax.device_count()} {backend} devices."
        )
    params = jax.eval_shape(run_.init_variables)["params"]
    ours = sum(leaf.size for leaf in jax.tree.leaves(params))
    facts = run_.task.model_options() or {"joints": run_.task.source("train")[0]["joints"].shape[1]}
    device = "cuda" if backend == "gpu" else "cpu"
    peer = Peer(args.peer_python, train_spec.of(run_.config, facts, device, args.peer_compile))
    if peer.parameters != ours:
        peer.close()
        raise RunError(
            f"the torch counterpart has {peer.parameters:,} parameters and the model {ours:,}."
        )
    return peer


def _print_head(run_, state) -> None:
    import jax

    config, count = run_.config, sum(leaf.size for leaf in jax.tree.leaves(state.params))
    kind = jax.devices()[0].device_kind
    print(f"{config.model.name}, {count:,} parameters, batch {config.batch_size}, {config.dtype}, "
          f"{jax.device_count()} x {kind}")


def _print_sides(run_, rounds: timing.Rounds, clocks: dict[str, list], waited: float) -> None:
    for name in rounds[0]:
        middle = timing.median(rounds, name)
        spread = ""
        if clocks.get(name):
            low, high = _tenths([seconds for seconds, _ in clocks[name]])
            spread = f", nine tenths of {len(clocks[name])} steps from {low * 1e3:,.1f} to "
            spread += f"{high * 1e3:,.1f}"
        rate = run_.config.batch_size / middle
        print(f"{name:<7}{rate:10,.1f} examples/s, {middle * 1e3:,.1f} ms a step{spread}")
    print(f"data wait {waited:.1%} of the loop")


def _tenths(values: list[float]) -> tuple[float, float]:
    """The 5 % and the 95 % quantile."""
    import numpy as np

    low, high = np.quantile(values, (0.05, 0.95))
    return float(low), float(high)


def _print_use(run_, bare, batch, seconds: float) -> None:
    """MFU and memory."""
    import jax

    from jaxcxr.plan import hardware

    kind, dtype = jax.devices()[0].device_kind, run_.config.dtype
    device = hardware.of_kind(kind)
    if device is not None:
        peak, whence = device.flops[dtype] * jax.device_count(), f"{device.name}'s datasheet"
    else:
        # Devices that are parts of one CPU share what it can do.
        peak, whence = hardware.measured_flops(dtype), "measured on a product of 2048 x 2048"
    flops = products_of_step(run_, batch)
    print(f"MFU {flops / seconds / peak:.1%} of {peak / 1e9:,.1f} GFLOP/s ({whence}): "
          f"{flops / 1e9:,.4g} GFLOP a step at {flops / seconds / 1e9:,.4g} GFLOP/s")
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        print(f"memory {stats['peak_bytes_in_use'] / 2**20:,.0f} MiB at most on the device")
        return
    sizes = bare.memory_analysis() if hasattr(bare, "memory_analysis") else None
    step = (sizes.argument_size_in_bytes + sizes.temp_size_in_bytes) / 2**20 if sizes else 0.0
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"memory {step:,.0f} MiB for the compiled step, {whole:,.0f} MiB at most in the process")


def products_of_step(run_, batch: Any) -> float:
    """FLOPs of the products and convolutions of a training step, nothing computed twice."""
    import jax

    from jaxcxr.plan import flops
    from jaxcxr.train import setup
    from jaxcxr.train import state as state_lib
    from jaxcxr.train import step as step_lib

    config, stage = run_.config.copy_and_resolve_references(), run_.stages[0]
    if "remat" in config.model.options:
        config.model.options.remat = registry.model_options(config.model.name)["remat"]
    model = setup.make_model(config, run_.task)

    def shapes(tree):
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)

    abstract = shapes(run_.abstract_state(stage))
    tx, schedule = state_lib.optimizer(stage, abstract.params)
    step = step_lib.make_train_step(config, model, run_.task, stage, tx, schedule)
    return flops.count(step, abstract, shapes(batch)).products


def _print_ratio(config, rounds: timing.Rounds, clocks: dict[str, list], peer: Peer) -> None:
    ratio = timing.ratio(rounds, "torch", "step")
    low, high = timing.interval(rounds, "torch", "step")
    print(f"torch {peer.version}, {peer.how}, {peer.parameters:,} parameters, no augmentation "
          f"on either side" + (f", {peer.memory / 2**20:,.0f} MiB at most" if peer.memory else ""))
    print(f"ratio {ratio:.2f} times torch's examples/s (median of {len(rounds)} rounds, 95% "
          f"interval {low:.2f} to {high:.2f})")
    ours, theirs = (statistics.median(cpu for _, cpu in clocks[n]) for n in ("step", "torch"))
    if peer.device == "cpu":
        print(f"CPU time a step: {ours * 1e3:,.0f} ms, torch {theirs * 1e3:,.0f} ms, "
              f"{theirs / ours:.2f} times; other work on the machine changes it least")
