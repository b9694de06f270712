"""`jaxcxr bench input`: the input pipeline beside a bare loop over the same records.

    jaxcxr bench input --config=F --seconds 5
    jaxcxr bench input --config=F --raw DIR

With `--raw` also beside loops over the original files: OpenCV that only decodes them, and what a
loader of torchvision and PIL does: open, to gray, `resize` with its antialiased bilinear filter
(which `torchvision.transforms.Resize` calls on a PIL image), to float32 in [0, 1].
"""

import concurrent.futures
import functools
import itertools
import pathlib
import time
from collections.abc import Callable

from jaxcxr.errors import UserError
from jaxcxr.plan import measuring
from jaxcxr.report.result_file import Table

ROUNDS = 5
_ENDINGS = (".png", ".jpg", ".jpeg")


def bench_input(config, seconds: float, others: dict[str, tuple]) -> Table:
    """Prints examples/s of the grain pipeline beside a bare loop over the same source.

    The bare loop reads the same records in the same order and decodes and resizes them on as many
    threads; it neither shuffles, nor batches, nor keeps a position that can be restored.

    Arguments:
      seconds: length of each of the `ROUNDS` rounds a side.
      others: name -> (what reads the example of a number, how many there are).

    Returns:
      The rate of each side, and how many times as many the pipeline reads.
    """
    from jaxcxr import task
    from jaxcxr.data import pipeline

    source = task.create(config).source("train")
    stream = pipeline.train_iterator(source, config)
    first = next(stream)  # starts the threads
    bytes_each = sum(value[0].nbytes for value in first.values())
    found = measuring.interleaved(
        {
            "pipeline": lambda: _rate(stream, config.data.prefetch, seconds),
            "bare": lambda: _bare_rate(source.__getitem__, len(source), config, seconds),
            **{
                name: functools.partial(_bare_rate, read, count, config, seconds)
                for name, (read, count) in others.items()
            },
        },
        ROUNDS,
    )
    ours, bare = (f"{measuring.median(found, name):,.1f}" for name in ("pipeline", "bare"))
    ratio = f"{measuring.ratio(found, 'pipeline', 'bare'):.2f}"
    note = (f"{config.data.source}: {len(source):,} examples of {bytes_each:,} bytes decoded, "
            f"{config.data.threads} threads")
    print(note)
    print(f"pipeline  {ours:>10} examples/s (median of {ROUNDS} rounds)")
    print(f"bare loop {bare:>10} examples/s")
    print(f"ratio     {ratio:>10} (median of the pairs)")
    rows = [("pipeline", ours, ""), ("bare loop", bare, ratio)]
    for name in others:
        rate = f"{measuring.median(found, name):,.1f}"
        ratios = [sides["pipeline"] / sides[name] for sides in found]
        ratio = f"{measuring.ratio(found, 'pipeline', name):.2f}"
        spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name:<10}{rate:>10} examples/s, pipeline {ratio} times as many {spread}")
        rows.append((name, rate, f"{ratio} {spread}"))
    return Table(("side", "examples/s", "pipeline, times as many"), rows, f"{note}.")


def _rate(stream, prefetch: int, seconds: float) -> float:
    """Examples per second of a stream, without what it read ahead while other sides ran."""
    for _ in range(prefetch + 1):
        next(stream)
    clock, count = time.perf_counter(), 0
    while time.perf_counter() - clock < seconds:
        count += len(next(stream)["index"])
    return count / (time.perf_counter() - clock)


def _bare_rate(read: Callable[[int], object], size: int, config, seconds: float) -> float:
    """Examples per second of `read` in random order, on the threads of the pipeline."""
    import numpy as np

    order = itertools.cycle(np.random.default_rng(config.seed).permutation(size))
    threads = max(1, config.data.threads)

    def loop(_thread) -> int:
        end, count = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            read(int(next(order)))
            count += 1
        return count

    clock = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(loop, range(threads)))
    return total / (time.perf_counter() - clock)


def originals(folder: str, config) -> dict[str, tuple[Callable[[int], object], int]]:
    """The loops over original files: name -> (what reads an example, how many there are)."""
    import cv2
    import numpy as np
    from PIL import Image

    from jaxcxr.data import folders

    below = map(pathlib.Path, folders.files_below(folder).paths)
    paths = [path for path in below if path.suffix.lower() in _ENDINGS]
    if not paths:
        raise UserError(f"--raw {folder}: no file there ends in {', '.join(_ENDINGS)}.")
    side = config.data.image_size

    def decoded(index: int) -> np.ndarray:
        pixels = cv2.imdecode(np.fromfile(paths[index], np.uint8), cv2.IMREAD_GRAYSCALE)
        if pixels is None:
            raise UserError(f"--raw {folder}: {paths[index]} cannot be decoded.")
        return pixels

    def by_pil(index: int) -> np.ndarray:
        with Image.open(paths[index]) as image:
            small = image.convert("L").resize((side, side), Image.Resampling.BILINEAR)
        return np.asarray(small, np.float32) / np.float32(255)

    cv2.setNumThreads(1)
    return {"decode": (decoded, len(paths)), "PIL": (by_pil, len(paths))}
