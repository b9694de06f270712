"""Bytes and time of a radiograph in each encoding of the records.

    python -m tests.bench.encoding --images DIR --size 1024
"""

import argparse
import pathlib
import statistics
import time

import cv2

from jaxcxr.errors import UserError
from jaxcxr.report.result_file import Table
from jaxcxr.xray.images import film_files, image_files
from tests.bench import program

ROUNDS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds which images, and their size."""
    parser.add_argument("--images", metavar="DIR", help="folder with radiographs")
    parser.add_argument("--size", type=int, default=1024, help="stored pixels a side")


def run(args: argparse.Namespace) -> Table:
    """Measures and prints; see `bench_encoding`."""
    return bench_encoding(args.images, args.size)


def bench_encoding(folder: str | None, size: int) -> Table:
    """Prints what a stored radiograph costs in each encoding, on one core.

    Arguments:
      folder: images, searched recursively; they are resized and histogram-equalised first.
      size: pixels a side as stored.

    Returns:
      A row for each encoding.

    Raises:
      UserError: no folder, or no image in it.
    """
    paths = sorted(p for p in pathlib.Path(folder or "").rglob("*")
                   if p.suffix.lower() in (".png", ".jpg", ".jpeg")) if folder else []
    if not paths:
        raise UserError(f"give --images DIR with PNG or JPEG files: {folder!r}.")
    cv2.setNumThreads(1)
    resized = (image_files.resize(film_files.read(path).gray8, size) for path in paths)
    pictures = [image_files.equalize(picture, "hist") for picture in resized]
    note = f"{len(paths)} images, {size} x {size}, best of {ROUNDS} rounds, one core"
    columns = ("encoding", "kB", "encode ms", "decode/s", "decode to 224/s")
    print(note)
    print("{:<10}{:>8}{:>11}{:>10}{:>17}".format(*columns))
    rows = []
    for name in image_files.ENCODINGS:
        encoded = [image_files.encode(picture, name) for picture in pictures]
        seconds = [
            min(_seconds(function, items) for _ in range(ROUNDS)) / len(pictures)
            for function, items in (
                (lambda picture: image_files.encode(picture, name), pictures),  # noqa: B023
                (image_files.decode, encoded),
                (lambda data: image_files.resize(image_files.decode(data), 224), encoded),
            )
        ]
        size_kb = statistics.mean(map(len, encoded)) / 1e3
        rows.append((name, f"{size_kb:.0f}", f"{seconds[0] * 1e3:.1f}", f"{1 / seconds[1]:,.0f}",
                     f"{1 / seconds[2]:,.0f}"))
        print("{:<10}{:>8}{:>11}{:>10}{:>17}".format(*rows[-1]))
    return Table(columns, rows, f"{note}.")


def _seconds(function, items) -> float:
    clock = time.perf_counter()
    for item in items:
        function(item)
    return time.perf_counter() - clock


if __name__ == "__main__":
    program.main(add_arguments, run, __doc__)
