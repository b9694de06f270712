"""`jaxcxr bench`: the pipeline and the loop beside the least they could cost; what records cost.

    jaxcxr bench input --config=F          examples/s of the pipeline and of a bare loop
    jaxcxr bench step --config=F           time per step of the loop and of the compiled step
    jaxcxr bench encoding --images DIR     bytes and time of a radiograph in each encoding
    jaxcxr bench prepare --raw-images DIR  images/s of a preparation and of a bare loop

Every comparison alternates the two sides within one run, and the median of the ratios is printed,
because the speed of a shared machine drifts.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import itertools
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

ROUNDS = 5
_FINER = 3  # rounds of steps are shorter and more: the speed drifts within seconds
TAKES_CONFIG = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what to measure; `--config=FILE[:ARG]` and its overrides are as for training."""
    parser.add_argument("what", choices=("input", "step", "encoding", "prepare"),
                        help="what to measure")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each round")
    parser.add_argument("--images", metavar="DIR", help="encoding: folder with radiographs")
    parser.add_argument("--raw-images", metavar="DIR", help="prepare: folder with radiographs")
    parser.add_argument("--size", type=int, default=1024,
                        help="encoding, prepare: stored pixels a side")


def run(args: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
      UserError: a mistake in the config, or unprepared data.
    """
    begun = time.perf_counter()
    if args.what == "encoding":
        bench_encoding(args.images, args.size)
        return
    if args.what == "prepare":
        from jaxcxr import bench_prepare

        bench_prepare.bench_prepare(args.raw_images, args.size)
        return
    from jaxcxr import main

    config = main.load_config(args.config)
    if args.what == "input":
        bench_input(config, args.seconds)
    else:
        bench_step(config, args.seconds, begun)


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
    pairs = []
    for _ in range(ROUNDS):
        ours = _rate(lambda: len(next(stream)["index"]), seconds)
        pairs.append((ours, _bare_rate(source, config, seconds)))
    ours, bare = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{config.data.source}: {len(source):,} examples of {bytes_each:,} bytes decoded, "
          f"{config.data.threads} threads")
    print(f"pipeline  {ours:10,.1f} examples/s (median of {ROUNDS} rounds)")
    print(f"bare loop {bare:10,.1f} examples/s")
    print(f"ratio     {ratio:10.2f} (median of the pairs)")


def bench_step(config, seconds: float, begun: float) -> None:
    """Print the loop's time per step beside the bare compiled step, and the time to first step.

    The loop runs twice: on one batch that lies in the host's memory, which shows what logging,
    metrics and the hand-over of data cost, and on the data pipeline. Where the host's cores are the
    device too, as on a CPU, reading and decoding slow the step down however well they overlap.

    Arguments:
      config: the resolved config.
      seconds: time that each side gets in each of `ROUNDS` rounds.
      begun: `time.perf_counter()` before anything heavy was imported.
    """
    import jax

    from jaxcxr.data import pipeline
    from jaxcxr.train import loop, parallel, setup, writers

    seconds_of = {"import": time.perf_counter() - begun}
    stage = config.stages[config.stage_order[0]]
    config.stage_order = config.stage_order[:1]
    stage.duration = "1000000000 steps"  # as long as the benchmark lasts
    run_ = setup.make(config)
    with run_.mesh_context(), tempfile.TemporaryDirectory() as folder:
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

        screen = writers.Screen(quiet=True)
        writer = writers.MetricWriter(pathlib.Path(folder), 0)
        with contextlib.closing(writer), screen.progress(0, run_.total_steps):
            feed = _Feed(data)
            log = loop.StepLog(run_, writer, screen, None)
            steps = loop.steps(run_, state, 0, feed, log)
            own = run_.first_state()  # the loop goes on with its own state

            def looped(count: int):
                return collections.deque(itertools.islice(steps, count), maxlen=1)[0][1]

            def stepped(count: int):
                nonlocal own
                for _ in range(count):
                    own, _ = bare(own, batch)
                return own

            def handed(count: int):
                with feed.held():
                    return looped(count)

            looped(3)  # compiles again and fills the buffers; not counted
            count = max(3, round(3 * seconds / _FINER / _time(looped, 3)))
            sides = {"loop": looped, "without reading": handed, "bare step": stepped}
            rounds = [
                {name: _time(side, count) / count for name, side in sides.items()}
                for _ in range(_FINER * ROUNDS)
            ]
    _print_steps(config, seconds_of, rounds, count)


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


def _print_steps(config, seconds_of, rounds: list[dict[str, float]], count: int) -> None:
    bare = [sides["bare step"] for sides in rounds]
    print(f"{config.model.name}, batch {config.batch_size}, {len(rounds)} rounds of {count} steps")
    for name in rounds[0]:
        times = [sides[name] for sides in rounds]
        middle = statistics.median(times)
        overhead = statistics.median(a / b for a, b in zip(times, bare, strict=True)) - 1
        more = f", overhead {overhead:.1%} (median of the pairs)" if name != "bare step" else ""
        rate = config.batch_size / middle
        print(f"{name:<16}{middle * 1e3:10,.2f} ms a step, {rate:,.1f} examples/s{more}")
    total = sum(seconds_of.values())
    parts = ", ".join(f"{name} {value:.1f} s" for name, value in seconds_of.items())
    print(f"time to first step {total:.1f} s: {parts}")


def bench_encoding(folder: str | None, size: int) -> None:
    """Print what a stored radiograph costs in each encoding, on one core.

    Arguments:
      folder: images, searched recursively; they are resized and histogram-equalised first.
      size: pixels a side as stored.

    Raises:
      UserError: no folder, or no image in it.
    """
    import cv2

    from jaxcxr.data import images
    from jaxcxr.errors import UserError

    paths = sorted(p for p in pathlib.Path(folder or "").rglob("*")
                   if p.suffix.lower() in (".png", ".jpg", ".jpeg")) if folder else []
    if not paths:
        raise UserError(f"bench encoding needs --images DIR with PNG or JPEG files: {folder!r}.")
    cv2.setNumThreads(1)
    pictures = [images.equalize(images.resize(images.read(p), size), "hist") for p in paths]
    print(f"{len(paths)} images, {size} x {size}, best of {ROUNDS} rounds, one core")
    print(f"{'encoding':<10}{'kB':>8}{'encode ms':>11}{'decode/s':>10}{'decode to 224/s':>17}")
    for name in images.ENCODINGS:
        encoded = [images.encode(picture, name) for picture in pictures]
        seconds = [
            min(_seconds(function, items) for _ in range(ROUNDS)) / len(pictures)
            for function, items in (
                (lambda picture: images.encode(picture, name), pictures),  # noqa: B023
                (images.decode, encoded),
                (lambda data: images.decode_resized(data, 224), encoded),
            )
        ]
        size_kb = statistics.mean(map(len, encoded)) / 1e3
        print(f"{name:<10}{size_kb:>8.0f}{seconds[0] * 1e3:>11.1f}{1 / seconds[1]:>10,.0f}"
              f"{1 / seconds[2]:>17,.0f}")


def _seconds(function, items) -> float:
    clock = time.perf_counter()
    for item in items:
        function(item)
    return time.perf_counter() - clock


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
