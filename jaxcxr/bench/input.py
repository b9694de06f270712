"""`jaxcxr bench input`: the input pipeline beside a bare loop over the same records.

    jaxcxr bench input --config=F --seconds 5
"""

import argparse
import concurrent.futures
import itertools
import time

from jaxcxr.bench import timing

ROUNDS = 5
TAKES_CONFIG = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the length of a round; `--config=FILE[:ARG]` and its overrides are as for training."""
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each round")


def run(args: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
      UserError: a mistake in the config, or unprepared data.
    """
    from jaxcxr import main

    bench_input(main.load_config(args.config), args.seconds)


def bench_input(config, seconds: float) -> None:
    """Print examples/s of the grain pipeline beside a bare loop over the same source.

    The bare loop reads the same records in the same order and decodes and resizes them on as many
    threads; it neither shuffles, nor batches, nor keeps a position that can be restored.

    Arguments:
      config: the resolved config.
      seconds: length of each of the `ROUNDS` rounds a side.
    """
    from jaxcxr import tasks
    from jaxcxr.data import pipeline

    source = tasks.create(config).source("train")
    stream = pipeline.train_iterator(source, config)
    first = next(stream)  # starts the threads
    bytes_each = sum(value[0].nbytes for value in first.values())
    found = timing.interleaved(
        {
            "pipeline": lambda: _rate(lambda: len(next(stream)["index"]), seconds),
            "bare": lambda: _bare_rate(source, config, seconds),
        },
        ROUNDS,
    )
    ours, bare = timing.median(found, "pipeline"), timing.median(found, "bare")
    ratio = timing.ratio(found, "pipeline", "bare")
    print(f"{config.data.source}: {len(source):,} examples of {bytes_each:,} bytes decoded, "
          f"{config.data.threads} threads")
    print(f"pipeline  {ours:10,.1f} examples/s (median of {ROUNDS} rounds)")
    print(f"bare loop {bare:10,.1f} examples/s")
    print(f"ratio     {ratio:10.2f} (median of the pairs)")


def _rate(take, seconds: float) -> float:
    """Examples per second of calling `take`, which returns how many it took."""
    clock, count = time.perf_counter(), 0
    while time.perf_counter() - clock < seconds:
        count += take()
    return count / (time.perf_counter() - clock)


def _bare_rate(source, config, seconds: float) -> float:
    import numpy as np

    order = itertools.cycle(np.random.default_rng(config.seed).permutation(len(source)))
    threads = max(1, config.data.threads)

    def read(_thread) -> int:
        end, count = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            source[int(next(order))]
            count += 1
        return count

    clock = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(read, range(threads)))
    return total / (time.perf_counter() - clock)
