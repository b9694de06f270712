"""`jaxcxr bench step`: the training loop beside the bare compiled step, and time to first step.

    jaxcxr bench step --config=F --seconds 5
"""

import collections
import contextlib
import itertools
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from jaxcxr.plan import measuring
from jaxcxr.report.result_file import Table

# Rounds are short and many: the speed drifts within seconds. Three make up `--seconds`.
ROUNDS, _IN_SECONDS = 15, 3


def bench_step(config, seconds: float, begun: float) -> Table:
    """Prints the loop's time per step beside the bare compiled step, and the time to first step.

    The loop runs twice: on one batch that lies in the host's memory, which shows what logging,
    metrics and the hand-over of data cost, and on the data pipeline. Where the host's cores are the
    device too, as on a CPU, reading and decoding slow the step down however well they overlap.

    Arguments:
      config: the resolved config.
      seconds: time that each side gets in three of the `ROUNDS` rounds.
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
    """Gives what does so many steps of the training loop and returns its state.

    Arguments:
      run_: the `train.setup.Setup`, its mesh entered.
      state: where the loop begins; it is donated.
      feed: iterator over batches.
    """
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
