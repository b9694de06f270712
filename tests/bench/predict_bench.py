"""Files/s of `jaxcxr predict` beside the bare compiled model.

    python -m tests.bench.predict_bench --model=demo.jaxcxr --images 512

Radiographs of the test split are written as PNG files, which the system then holds in memory. Both
sides take turns: the whole way from files to rows in `predictions.csv` and `.jsonl` (reading,
decoding, preprocessing, padding, model, guard, calibration, writing), and the compiled model alone
on the same images, already decoded and in batches.
"""

import argparse
import pathlib
import tempfile
import time

import numpy as np

from jaxcxr.plan import measuring
from jaxcxr.report.result_file import Table
from tests.bench import program


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--model", required=True, metavar="BUNDLE", help="of radiographs")
    parser.add_argument("--images", type=int, default=512, metavar="N", help="default: 512")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="default: 32")
    parser.add_argument("--rounds", type=int, default=9, help="default: 9")


def run(args: argparse.Namespace) -> Table:
    """Measures and prints; a row for each side, their ratio beside the first.

    Raises:
      UserError: no bundle of radiographs, or its data are not prepared.
    """
    import cv2

    from jaxcxr.deploy.bundle.bundled_model import Bundle
    from tests.bench.guard_bench import test_images

    bundle = Bundle.load(args.model)
    pixels = test_images(bundle, args.images)
    pixels = pixels[: len(pixels) // args.batch * args.batch]
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, image in enumerate(pixels):
            paths.append(str(pathlib.Path(folder, f"{number:05d}.png")))
            cv2.imwrite(paths[-1], image)
        found = measure(bundle, paths, pixels, args.batch, args.rounds, pathlib.Path(folder))
    low, high = measuring.interval(found, "predict", "bare")
    note = f"{bundle.description}: {len(pixels)} images, batches of {args.batch}"
    ratio, spread = f"{measuring.ratio(found, 'predict', 'bare'):.3f}", f"{low:.3f} to {high:.3f}"
    rows = [
        ("files to rows", f"{measuring.median(found, 'predict'):,.1f}", f"{ratio} ({spread})"),
        ("bare model", f"{measuring.median(found, 'bare'):,.1f}", ""),
    ]
    print(note)
    for text, rate, _ in rows:
        print(f"{text:14}{rate:>10} images/s (median of {args.rounds})")
    print(f"ratio         {ratio:>10} (median of the pairs, {spread})")
    return Table(("side", "images/s", "of the bare model"), rows, f"{note}.")


def measure(bundle, paths, pixels: np.ndarray, batch: int, rounds: int, out) -> measuring.Rounds:
    """Images/s of both sides in every round, after one that compiles.

    Arguments:
      bundle: of radiographs.
      paths: files of the images.
      pixels: the same images as the model takes them, uint8 `[n, S, S]`, n a multiple of `batch`.
      batch: images at once.
      rounds: how many.
      out: folder for the tables.
    """
    import jax

    from jaxcxr.deploy.predict import xray_files, xray_predictor

    parts = jax.device_put(np.split(pixels, len(pixels) // batch))

    def whole() -> float:
        begun = time.perf_counter()
        with xray_files.Tables(out, bundle.classes, ("csv", "jsonl")) as tables:
            for part in xray_predictor.predicted(bundle, paths, batch):
                for row, _ in part:
                    tables.write(row)
                tables.flush()
        return len(paths) / (time.perf_counter() - begun)

    def bare() -> float:
        begun = time.perf_counter()
        jax.block_until_ready([bundle.forward(part) for part in parts])
        return len(paths) / (time.perf_counter() - begun)

    sides = {"predict": whole, "bare": bare}
    measuring.interleaved(sides, 1)
    return measuring.interleaved(sides, rounds)


if __name__ == "__main__":
    program.main(add_arguments, run, __doc__)
