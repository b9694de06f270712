"""Making records of radiographs beside the least that OpenCV could do.

    python -m tests.bench.prepare_bench --raw-images DIR --size 1024

The bare loop reads as gray, resizes, equalises and encodes as PNG. `builder.encode` does that too
and besides reads 16 bits, palettes, colour and DICOM, takes a truncated file for a bad one, and
hashes the pixels in two ways. Both work on one core; files come from the page cache.
"""

import argparse
import functools
import pathlib
import statistics
import time

import cv2
import numpy as np

from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.errors import UserError
from jaxcxr.report.result_file import Table
from jaxcxr.xray.images import image_files
from jaxcxr.xray.sources import builder
from tests.bench import program

ROUNDS = 5
_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds which images, and their size."""
    parser.add_argument("--raw-images", metavar="DIR", help="folder with radiographs")
    parser.add_argument("--size", type=int, default=1024, help="stored pixels a side")


def run(args: argparse.Namespace) -> Table:
    """Measures and prints; see `bench_prepare`."""
    return bench_prepare(args.raw_images, args.size)


def bench_prepare(folder: str | None, size: int) -> Table:
    """Prints images/s of `builder.encode` in each encoding and of the bare loop, alternating.

    Arguments:
      folder: image files that OpenCV reads, searched recursively.
      size: pixels a side as stored.

    Returns:
      A row for the bare loop and for each encoding.

    Raises:
      UserError: no folder, or no image in it, or an image that cannot be read.
    """
    found = pathlib.Path(folder).rglob("*") if folder else ()
    paths = sorted(path for path in found if path.suffix.lower() in _ENDINGS)
    if not paths:
        raise UserError(
            f"give --raw-images DIR with images ({', '.join(_ENDINGS)}): {folder!r}."
        )
    labels = (0,) * len(FINDINGS)
    items = [
        builder.Item.of(builder.ImageRecord(p.name, p.name, "bench", "train", labels), p)
        for p in paths
    ]
    sides = {
        encoding: functools.partial(builder.encode, size=size, equalize="hist", encoding=encoding)
        for encoding in image_files.ENCODINGS
    }
    cv2.setNumThreads(1)
    rates = _rates(sides, items, size)
    note = f"{len(paths)} images to {size} x {size}, median of {ROUNDS} rounds, one core"
    print(note)
    bare = rates.pop("bare")
    rows = [("bare loop", f"{statistics.median(bare):.1f}", "")]
    print(f"{'bare loop':<10}{rows[0][1]:>8} images/s (OpenCV, png)")
    for encoding, ours in rates.items():
        ratio = f"{statistics.median(a / b for a, b in zip(ours, bare, strict=True)):.2f}"
        rate = f"{statistics.median(ours):.1f}"
        print(f"{encoding:<10}{rate:>8} images/s, ratio to the bare loop {ratio}")
        rows.append((encoding, rate, ratio))
    return Table(("side", "images/s", "ratio to the bare loop"), rows, f"{note}.")


def _rates(sides, items, size: int) -> dict[str, list[float]]:
    """Images per second of each side and of the bare loop, in every round."""
    rates: dict[str, list[float]] = {name: [] for name in ("bare", *sides)}
    work = {"bare": functools.partial(_bare, size=size), **sides}
    for item in items:
        work["bare"](item)  # fills the page cache
    for _ in range(ROUNDS):
        seconds = dict.fromkeys(work, 0.0)
        # Image by image, so that a drift of the machine's speed meets all sides alike.
        for item in items:
            for name, function in work.items():
                clock = time.perf_counter()
                function(item)
                seconds[name] += time.perf_counter() - clock
        for name, spent in seconds.items():
            rates[name].append(len(items) / spent)
    return rates


def _bare(item: builder.Item, *, size: int) -> np.ndarray:
    image = cv2.imread(item.path, cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise UserError(f"{item.path}: not a readable image; take it out of the folder.")
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".png", cv2.equalizeHist(image))[1]


if __name__ == "__main__":
    program.main(add_arguments, run, __doc__)
