"""`jaxcxr bench step` and `bench train`: what a step of training costs.

    jaxcxr bench step --config=F --seconds 5
    jaxcxr bench train --config=F [--model=NAME]

`step` times the loop beside the bare compiled step, and the time to the first step. `train` prints
examples/s of the loop on the data pipeline and of the compiled step on one batch, the spread of the
step's time, the share of the loop in which it waited for data, peak memory, and MFU: the FLOPs of
the products that the model needs (`plan.flops`, without what rematerialisation repeats) over the
time of a step and the peak of the devices. The peak is that of `plan.hardware`, or where the table
has none, as on a CPU, that of a large matrix product, measured before.

`tests/bench/torch_bench.py` runs it beside torch.
"""

import collections
import contextlib
import functools
import itertools
import pathlib
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxcxr import registry
from jaxcxr.plan import measuring
from jaxcxr.report.result_file import Table

# Rounds are short and many: the speed drifts within seconds. Three make up `--seconds`.
ROUNDS, _IN_SECONDS = 15, 3

# A round of a side lasts at least so many seconds.
_ROUND = 0.3


def bench_step(config, seconds: float, begun: float) -> Table:
    """Prints the loop's time per step beside the bare compiled step, and the time to first step.

    The loop runs twice: on one batch that lies in the host's memory, which shows what logging,
    metrics and the hand-over of data cost, and on the data pipeline. Where the host's cores are the
    device too, as on a CPU, reading and decoding slow the step down however well they overlap.

    Arguments:
      begun: `time.perf_counter()` before anything heavy was imported.

    Returns:
      Time, rate and overhead of each side.
    """
    import jax

    from jaxcxr.data import pipeline
    from jaxcxr.train import parallel, setup

    seconds_of = {"import": time.perf_counter() - begun}
    stage = config.stages[config.stage_order[0]]
    config.stage_order = config.stage_order[:1]
    stage.duration = "1000000000 steps"  # as long as the benchmark lasts
    run_ = setup.make(config)
    with run_.mesh_context():
        data = pipeline.train_iterator(run_.task.source("train"), config)
        clock = time.perf_counter()
        batch = parallel.put_batch(run_.mesh, next(data))
        run_.seconds["data"] += time.perf_counter() - clock
        clock = time.perf_counter()
        state = jax.block_until_ready(run_.first_state())
        run_.seconds["init"] = time.perf_counter() - clock
        bare = run_.train_step(run_.stages[0])
        clock = time.perf_counter()
        state, _ = jax.block_until_ready(bare(state, batch))
        run_.seconds["first step"] = time.perf_counter() - clock
        seconds_of |= run_.seconds

        feed = _Feed(data)
        with loop_of(run_, state, feed) as looped:
            own = run_.first_state()  # the loop goes on with its own state

            def stepped(count: int):
                nonlocal own
                for _ in range(count):
                    own, _ = bare(own, batch)
                return own

            def handed(count: int):
                with feed.held():
                    return looped(count)

            looped(3)  # compiles again and fills the buffers; not counted
            count = max(3, round(3 * seconds / _IN_SECONDS / _time(looped, 3)))
            sides = {
                "loop": lambda: _time(looped, count) / count,
                "without reading": lambda: _time(handed, count) / count,
                "bare step": lambda: _time(stepped, count) / count,
            }
            rounds = measuring.interleaved(sides, ROUNDS)
    return _print_steps(config, seconds_of, rounds, count)


@contextlib.contextmanager
def loop_of(run_, state, feed) -> Iterator[Callable[[int], Any]]:
    """Gives what does so many steps of the training loop, from the donated `state`."""
    from jaxcxr.train import loop, writers

    screen = writers.Screen(quiet=True)
    with tempfile.TemporaryDirectory() as folder:
        writer = writers.MetricWriter(pathlib.Path(folder), 0)
        with contextlib.closing(writer), screen.progress(0, run_.total_steps):
            log = loop.StepLog(run_, writer, screen, None)
            steps = loop.steps(run_, state, 0, feed, log)

            def looped(count: int):
                return collections.deque(itertools.islice(steps, count), maxlen=1)[0][1]

            yield looped


class _Feed:
    """Batches of an iterator, or the last one again and again."""

    def __init__(self, data):
        self._data, self._last, self._held = data, None, False

    def __next__(self):
        if not self._held:
            self._last = next(self._data)
        return self._last

    @contextlib.contextmanager
    def held(self):
        """Context in which nothing is read."""
        self._held = True
        yield
        self._held = False


def _time(side: Callable[[int], Any], count: int) -> float:
    """Time until what `side` returns for `count` steps is computed."""
    import jax

    clock = time.perf_counter()
    jax.block_until_ready(side(count))
    return time.perf_counter() - clock


def _print_steps(config, seconds_of, rounds: measuring.Rounds, count: int) -> Table:
    head = f"{config.model.name}, batch {config.batch_size}, {len(rounds)} rounds of {count} steps"
    print(head)
    rows = []
    for name in rounds[0]:
        middle = measuring.median(rounds, name)
        time_, rate = f"{middle * 1e3:,.2f}", f"{config.batch_size / middle:,.1f}"
        overhead = f"{measuring.ratio(rounds, name, 'bare step') - 1:.1%}"
        overhead = "" if name == "bare step" else overhead
        more = f", overhead {overhead} (median of the pairs)" if overhead else ""
        print(f"{name:<16}{time_:>10} ms a step, {rate} examples/s{more}")
        rows.append((name, time_, rate, overhead))
    total = f"{sum(seconds_of.values()):.1f} s"
    parts = ", ".join(f"{name} {value:.1f} s" for name, value in seconds_of.items())
    first = f"time to first step {total}: {parts}"
    print(first)
    columns = ("side", "ms a step", "examples/s", "overhead")
    return Table(columns, rows, f"{head}; {first}.")


# Does so many steps; seconds and CPU seconds of each.
Side = Callable[[int], list[tuple[float, float]]]


def open_run(config):
    """The `train.setup.Setup` of a config's first stage, longer than any benchmark."""
    from jaxcxr.train import setup

    config.stage_order = config.stage_order[:1]
    config.stages[config.stage_order[0]].duration = "1000000000 steps"
    return setup.make(config)


def bench_train(
    run_, seconds: float, others: Mapping[str, Side] | None = None
) -> tuple[measuring.Rounds, dict[str, list[tuple[float, float]]], Table]:
    """Measures loop, step and others in turn, and prints.

    Returns:
      seconds of a step of each side in each round; seconds and CPU seconds of each step of the
      compiled step ("step") and of the others; what was printed.
    """
    import jax

    from jaxcxr.data import pipeline
    from jaxcxr.train import parallel

    with run_.mesh_context():
        feed = Timed(pipeline.train_iterator(run_.task.source("train"), run_.config))
        batch = parallel.put_batch(run_.mesh, next(feed))
        bare = run_.train_step(run_.stages[0])
        state, _ = jax.block_until_ready(bare(run_.first_state(), batch))
        note = _print_head(run_, state)
        own = Steps(bare, state, batch)
        runs: dict[str, Side] = {"step": own.run, **(others or {})}
        clocks: dict[str, list] = {name: [] for name in runs}
        count = max(1, round(_ROUND / own.run(1)[0][0]))

        def side(name: str) -> float:
            found = runs[name](count)
            clocks[name] += found
            return statistics.mean(seconds for seconds, _ in found)

        with loop_of(run_, run_.first_state(), feed) as looped:
            looped(2)  # fills the buffers; not counted
            feed.begin()
            sides: dict[str, Callable[[], float]] = {
                "loop": lambda: feed.during(lambda: looped(count)) / count,
                **{name: functools.partial(side, name) for name in runs},
            }
            rounds = measuring.within(sides, seconds, measuring.LEAST_ROUNDS)
    rows = _print_sides(run_, rounds, clocks)
    wait = f"data wait {feed.share:.1%} of the loop"
    print(wait)
    use = _print_use(run_, bare, batch, measuring.median(rounds, "step"))
    columns = ("side", "examples/s", "ms a step", "5 %", "95 %")
    return rounds, clocks, Table(columns, rows, f"{note}; {wait}; {use}.")


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


def _print_head(run_, state) -> str:
    import jax

    config, count = run_.config, sum(leaf.size for leaf in jax.tree.leaves(state.params))
    kind = jax.devices()[0].device_kind
    head = (f"{config.model.name}, {count:,} parameters, batch {config.batch_size}, "
            f"{config.dtype}, {jax.device_count()} x {kind}")
    print(head)
    return head


def _print_sides(run_, rounds: measuring.Rounds, clocks: dict[str, list]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name in rounds[0]:
        middle = measuring.median(rounds, name)
        rate, time_ = f"{run_.config.batch_size / middle:,.1f}", f"{middle * 1e3:,.1f}"
        low = high = spread = ""
        if clocks.get(name):
            tenths = _tenths([seconds for seconds, _ in clocks[name]])
            low, high = (f"{value * 1e3:,.1f}" for value in tenths)
            spread = f", nine tenths of {len(clocks[name])} steps from {low} to {high}"
        print(f"{name:<7}{rate:>10} examples/s, {time_} ms a step{spread}")
        rows.append((name, rate, time_, low, high))
    return rows


def _tenths(values: list[float]) -> tuple[float, float]:
    """The 5 % and the 95 % quantile."""
    import numpy as np

    low, high = np.quantile(values, (0.05, 0.95))
    return float(low), float(high)


def _print_use(run_, bare, batch, seconds: float) -> str:
    """Prints and returns MFU and memory."""
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
    mfu = f"MFU {flops / seconds / peak:.1%} of {peak / 1e9:,.1f} GFLOP/s ({whence})"
    print(f"{mfu}: {flops / 1e9:,.4g} GFLOP a step at {flops / seconds / 1e9:,.4g} GFLOP/s")
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        memory = f"memory {stats['peak_bytes_in_use'] / 2**20:,.0f} MiB at most on the device"
        print(memory)
        return f"{mfu}; {memory}"
    sizes = bare.memory_analysis() if hasattr(bare, "memory_analysis") else None
    step = (sizes.argument_size_in_bytes + sizes.temp_size_in_bytes) / 2**20 if sizes else 0.0
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    memory = f"memory {step:,.0f} MiB for the compiled step, {whole:,.0f} MiB at most in the "
    memory += "process"
    print(memory)
    return f"{mfu}; {memory}"


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
