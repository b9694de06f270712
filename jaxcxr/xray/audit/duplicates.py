"""Finds near-duplicate radiographs by perceptual hash and confirms them by their pixels.

Chest films look alike, so the hash alone confuses patients. The default thresholds confirm no pair
of two patients among 683,679 pairs of ChestX-ray14; docs/data-sets.md has the measurement.
"""

import concurrent.futures
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np

from jaxcxr.data.staging import usable_cores
from jaxcxr.xray.images import image_files

BITS = 4  # of 64 that may differ
CORRELATION = 0.98
# Pairs of two patients that the hash matches, as a share of all pairs, by the bits allowed.
FALSE_MATCHES = {4: 5.9e-6, 5: 5.9e-6, 6: 6.7e-5, 7: 6.7e-5, 8: 4.9e-4}
SIDE = 32  # pixels per side of the images compared
LIMIT = 1_000_000  # pairs
_BLOCK = (8, 8192)  # pairs compared at once: they stay in the processor's cache
_PAIRS = 4096  # pairs correlated at once


def near_pairs(
    left: np.ndarray, right: np.ndarray, bits: int = BITS, limit: int = LIMIT
) -> tuple[np.ndarray, bool]:
    """Finds all pairs of hashes uint64 `[n]` and `[m]` that differ in few of 64 bits.

    Compares every pair: hashes of radiographs crowd together, so an index by parts of the hash
    would have few, full buckets.

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
    """Shrinks images to uint8 `[rows, SIDE, SIDE]`; `read` is called from several threads."""
    result = np.empty((len(rows), SIDE, SIDE), np.uint8)

    def fill(i: int) -> None:
        result[i] = thumbnail(read(rows[i]))

    with concurrent.futures.ThreadPoolExecutor(usable_cores()) as pool:
        for _ in _in_order(pool, fill, range(len(rows))):
            pass
    return result


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Shrinks an image uint8 `[height, width]` to uint8 `[SIDE, SIDE]`."""
    return image_files.resize(image, SIDE)


def correlations(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Correlates the gray values of image pairs, plain and equalised, and takes the larger value.

    Equalising finds copies that differ by a gray curve, for example of data sets stored with and
    without equalisation; the plain values find copies of nearly empty films.

    Arguments:
      left, right: uint8 `[k, SIDE, SIDE]`, compared one to one.

    Returns:
      float32 `[k]` in [-1, 1]; 1 for two constant images, 0 if only one is constant.
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


def _normalized(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return flat / np.where(norm > 0, norm, 1)


def _equalized(images: np.ndarray) -> np.ndarray:
    return np.stack([cv2.equalizeHist(image) for image in images])


def in_threads(call: Callable, arguments: Sequence) -> list:
    """Maps over all cores; the calls should spend their time outside of Python."""
    with concurrent.futures.ThreadPoolExecutor(usable_cores()) as pool:
        return list(_in_order(pool, call, arguments))


def _in_order(pool, call: Callable, arguments: Sequence) -> Iterator:
    """Maps like `pool.map`, but runs only a bounded number of calls ahead of the consumer."""
    ahead = 64
    for start in range(0, len(arguments), ahead):
        yield from pool.map(call, arguments[start : start + ahead])
