"""Near-duplicate radiographs: a search by perceptual hash, then a comparison of the pixels.

Chest films look alike, so that the hash alone confuses patients. Both thresholds were chosen by
`pytest -n 0 -s -m slow tests/xray/audit/test_duplicates.py` on 1,621 images of ChestX-ray14 (621
patients at 256 x 256, 264 at 64 x 64), where each match of two patients is false:

    bits that differ at most     0      2      4      6      8
    false matches, of 683,679    0      0      4     46    338
    false and confirmed          0      0      0      0      0

None of the 683,679 pairs correlates by more than 0.962; the threshold is 0.98. By the rule of
three, confirmed false matches are at 95% below 4.4e-6 of all pairs, and below 0.9% of what the hash
proposes (none of 338). Of copies of the 621 images, found at 4 bits and confirmed:

    JPEG of quality 50, half or double size, 25% darker or with 20 levels more        100%
    20% more contrast 98.7%, gamma 0.8 or 1.25 97-99%, moved by 1 pixel of 256 97.1%
    moved by 2 pixels of 256 71%, cropped by 1% a side 68%, histogram equalised 59%
    cropped by 2% a side 15%, by 5% none, CLAHE 1%, mirrored none
"""

import concurrent.futures
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np

from jaxcxr.data.cores import usable_cores
from jaxcxr.xray.images import image_files

BITS = 4  # of 64 that may differ
CORRELATION = 0.98
# False matches of two patients per pair of images, by the bits allowed; see above.
FALSE_MATCHES = {4: 5.9e-6, 5: 5.9e-6, 6: 6.7e-5, 7: 6.7e-5, 8: 4.9e-4}
SIDE = 32  # pixels a side of what is compared
LIMIT = 1_000_000  # pairs
_BLOCK = (8, 8192)  # pairs compared at once: they stay in the processor's cache
_PAIRS = 4096  # pairs correlated at once


def near_pairs(
    left: np.ndarray, right: np.ndarray, bits: int = BITS, limit: int = LIMIT
) -> tuple[np.ndarray, bool]:
    """All pairs of hashes that differ in few bits.

    Every pair is looked at, some 6e8 a second on two cores: hashes of radiographs crowd together,
    so that an index by parts of the hash would have few and full buckets.

    Arguments:
      left, right: uint64 `[n]` and `[m]`.
      bits: of 64, that may differ.
      limit: number of pairs at which the search ends.

    Returns:
      int64 `[k, 2]`, indices into left and right, and whether the search ended at the limit.
    """
    found, count = [np.zeros((0, 2), np.int64)], 0
    rows, columns = _BLOCK
    blocks = range(0, len(left), rows)

    def search(start: int) -> np.ndarray:
        pairs = found[:1]
        for column in range(0, len(right), columns):
            part = right[column : column + columns]
            differing = np.bitwise_count(left[start : start + rows, None] ^ part)
            if differing.min() <= bits:
                pairs = [*pairs, np.argwhere(differing <= bits) + np.array((start, column))]
        return np.concatenate(pairs)

    with concurrent.futures.ThreadPoolExecutor(usable_cores()) as pool:
        for pairs in _in_order(pool, search, blocks):
            found.append(pairs)
            count += len(pairs)
            if count >= limit:
                return np.concatenate(found)[:limit], True
    return np.concatenate(found), False


def thumbnails(read: Callable[[int], np.ndarray], rows: Sequence[int]) -> np.ndarray:
    """Small versions of images, by which they are compared.

    Arguments:
      read: row to uint8 `[height, width]`; called from several threads.
      rows: which.

    Returns:
      uint8 `[rows, SIDE, SIDE]`.
    """
    result = np.empty((len(rows), SIDE, SIDE), np.uint8)

    def fill(i: int) -> None:
        result[i] = thumbnail(read(rows[i]))

    with concurrent.futures.ThreadPoolExecutor(usable_cores()) as pool:
        for _ in _in_order(pool, fill, range(len(rows))):
            pass
    return result


def thumbnail(image: np.ndarray) -> np.ndarray:
    """An image uint8 `[height, width]` as uint8 `[SIDE, SIDE]`."""
    return image_files.resize(image, SIDE)


def correlations(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Correlation of the gray values of two images, as they are or equalised: the larger one.

    Equalising finds copies that differ by a curve of gray values, such as data sets stored with
    and without it; without it, copies of nearly empty films are found.

    Arguments:
      left, right: uint8 `[k, SIDE, SIDE]`, compared one to one.

    Returns:
      float32 `[k]` in [-1, 1]; of an image of one gray value, 1 with another such and 0 else.
    """
    result = np.empty(len(left), np.float32)
    for start in range(0, len(left), _PAIRS):
        part = slice(start, start + _PAIRS)
        plain = _correlation(left[part], right[part])
        equal = _correlation(_equalized(left[part]), _equalized(right[part]))
        result[part] = np.maximum(plain, equal)
    return result


def _correlation(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    left, right = _normalized(left), _normalized(right)
    constant = ~left.any(axis=1) & ~right.any(axis=1)
    return np.where(constant, np.float32(1), (left * right).sum(axis=1))


def _normalized(images_: np.ndarray) -> np.ndarray:
    flat = images_.reshape(len(images_), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return flat / np.where(norm > 0, norm, 1)


def _equalized(images_: np.ndarray) -> np.ndarray:
    return np.stack([cv2.equalizeHist(image) for image in images_])


def _in_order(pool, call: Callable, arguments: Sequence) -> Iterator:
    """As `pool.map`, but only a bounded number of calls runs ahead of who takes the results."""
    ahead = 64
    for start in range(0, len(arguments), ahead):
        yield from pool.map(call, arguments[start : start + ahead])
