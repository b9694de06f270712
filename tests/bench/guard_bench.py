"""What the guard of a bundle flags, and what it lets pass.

    python -m tests.bench.guard_bench --model=demo.jaxcxr

Real images of the test split stand against the same images changed (inverted, turned, mirrored,
cut into tiles, blurred, without contrast), and against what is no radiograph: noise, blank images,
stick figures, handwritten digits and cuts of two photographs (scikit-learn's). For each kind the
AUROC of the score, and the share that is flagged at the bundle's threshold. `--others DIR` adds a
folder of images of one's own.
"""

import argparse
import pathlib
from collections.abc import Callable

import cv2
import numpy as np

from jaxcxr.errors import BadRecord, UserError
from jaxcxr.report.result_file import Table
from tests.bench import program

_TILES = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--model", required=True, metavar="BUNDLE", help="of radiographs")
    parser.add_argument("--images", type=int, default=600, metavar="N", help="default: 600")
    parser.add_argument("--others", metavar="DIR", help="images that should be flagged")
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> Table:
    """Measures and prints; a row for each set of images.

    Raises:
      UserError: no bundle of radiographs with a guard, or its data are not prepared.
    """
    from jaxcxr.deploy.bundle.bundled_model import Bundle
    from jaxcxr.report import tables
    from jaxcxr.xray.images.films import Film

    bundle = Bundle.load(args.model)
    if bundle.guard is None:
        raise UserError(f"{args.model} has no guard; it is a bundle of the task {bundle.task!r}.")
    real = test_images(bundle, args.images)
    sets = changed(real, args.seed) | foreign(
        len(real), lambda pixels: bundle.preprocess(Film(pixels)), args.seed
    )
    if args.others:
        sets[pathlib.Path(args.others).name] = _folder(pathlib.Path(args.others), bundle)
    print(bundle.description)
    columns, *found = rows(bundle, real, sets)
    print("\n".join(tables.aligned([columns, *found])))
    return Table(columns, found, f"{bundle.description}.")


def rows(bundle, real: np.ndarray, sets: dict[str, np.ndarray]) -> list[tuple[str, ...]]:
    """A line for each set: AUROC of the score and of its parts against `real`, share flagged.

    Arguments:
      bundle: with a guard.
      real: preprocessed images uint8 `[n, S, S]`, of the test split.
      sets: name -> preprocessed images.
    """
    from sklearn.metrics import roc_auc_score

    from jaxcxr.deploy.bundle.guard import PARTS

    def parts(pixels):
        return bundle.guard.parts(pixels, bundle.outputs(pixels)[1])

    inside = parts(real)
    flagged = (inside.max(1) > bundle.guard.threshold).mean()
    lines = [("images", "n", "AUROC", *PARTS, "flagged"),
             ("test split", f"{len(real):,}", "", "", "", f"{flagged:.3f}")]
    for name, pixels in sets.items():
        outside = parts(pixels)
        labels = np.repeat([0, 1], [len(inside), len(outside)])
        pairs = [(inside.max(1), outside.max(1)), *zip(inside.T, outside.T, strict=True)]
        areas = [f"{roc_auc_score(labels, np.concatenate(pair)):.3f}" for pair in pairs]
        share = (outside.max(1) > bundle.guard.threshold).mean()
        lines.append((name, f"{len(pixels):,}", *areas, f"{share:.3f}"))
    return lines


def test_images(bundle, count: int) -> np.ndarray:
    """Preprocessed images of the test split of a bundle's run, uint8 `[n, S, S]`."""
    from jaxcxr.data import preparation
    from jaxcxr.xray.images import radiographs

    directory = preparation.find_or_generate(bundle.config)
    source = radiographs.Radiographs(directory, "test", bundle.image_size)
    index = np.unique(np.linspace(0, len(source) - 1, min(count, len(source)), dtype=int))
    return source.read(index)["image"][..., 0]


def changed(real: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Radiographs uint8 `[n, S, S]` as they should not be, by name."""
    rng = np.random.default_rng(seed)
    size = real.shape[1]
    tile = size // _TILES

    def shuffled(image):
        tiles = [image[r : r + tile, c : c + tile] for r in range(0, tile * _TILES, tile)
                 for c in range(0, tile * _TILES, tile)]
        order = rng.permutation(len(tiles)).reshape(_TILES, _TILES)
        return cv2.resize(np.block([[tiles[i] for i in row] for row in order]), (size, size))

    def quarter(image):
        return cv2.resize(image[: size // 2, : size // 2], (size, size))

    def turned(image):
        matrix = cv2.getRotationMatrix2D((size / 2, size / 2), 30, 1)
        return cv2.warpAffine(image, matrix, (size, size))

    changes: dict[str, Callable] = {
        "inverted": lambda image: 255 - image, "turned by 90 degrees": np.rot90,
        "upside down": lambda image: image[::-1], "turned by 30 degrees": turned,
        "mirrored": lambda image: image[:, ::-1], "tiles in disorder": shuffled,
        "one quarter of it": quarter,
        "blurred": lambda image: cv2.GaussianBlur(image, (0, 0), size / 16),
        "a tenth of the contrast": lambda image: (100 + image * 0.1).astype(np.uint8),
    }
    return {
        name: np.stack([np.ascontiguousarray(change(image)) for image in real])
        for name, change in changes.items()
    }


def foreign(count: int, preprocess: Callable, seed: int) -> dict[str, np.ndarray]:
    """What is no radiograph, uint8 `[count, S, S]` after preprocessing, by name."""
    from sklearn import datasets

    rng = np.random.default_rng(seed)
    digits, photographs = datasets.load_digits().images, datasets.load_sample_images().images

    def photograph(i):
        gray = cv2.cvtColor(photographs[i % len(photographs)], cv2.COLOR_RGB2GRAY)
        side = int(rng.integers(120, 400))
        y, x = (int(rng.integers(0, length - side)) for length in gray.shape)
        return gray[y : y + side, x : x + side]

    makers = {
        "noise": lambda i: rng.integers(0, 256, (256, 256), np.uint8),
        "smooth noise": lambda i: cv2.resize(
            rng.integers(0, 256, (8, 8), np.uint8), (256, 256), interpolation=cv2.INTER_CUBIC),
        "blank": lambda i: np.full((256, 256), rng.integers(0, 256), np.uint8),
        "stick figures": lambda i: _stick_figure(rng),
        "digits": lambda i: (digits[i % len(digits)] * (255 / 16)).astype(np.uint8),
        "photographs": photograph,
    }
    return {
        name: np.stack([preprocess(make(i)) for i in range(count)])
        for name, make in makers.items()
    }


def _stick_figure(rng: np.random.Generator) -> np.ndarray:
    """A person of lines, white on black: the skeleton of Human3.6M in a random pose."""
    from jaxcxr.pose.geometry.skeletons import HUMAN36M

    image = np.zeros((256, 256), np.uint8)
    points = np.zeros((len(HUMAN36M.joints), 2))
    for joint, parent in enumerate(HUMAN36M.parents):
        if parent >= 0:
            points[joint] = points[parent] + rng.normal(0, 22, 2)
    points += 128 - points.mean(0)
    for joint, parent in enumerate(HUMAN36M.parents):
        if parent >= 0:
            ends = (tuple(int(v) for v in points[k]) for k in (joint, parent))
            cv2.line(image, *ends, 255, 3, cv2.LINE_AA)
    return image


def _folder(folder: pathlib.Path, bundle) -> np.ndarray:
    from jaxcxr.xray.images import film_files

    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            try:
                found.append(bundle.preprocess(film_files.read(path)))
            except BadRecord as error:
                print(f"left out: {error}")
    if not found:
        raise UserError(f"--others {folder} holds no image.")
    return np.stack(found)


if __name__ == "__main__":
    program.main(add_arguments, run, __doc__)
