"""Fingerprints of radiographs, by which copies are found again without the images.

Both are taken of the pixels as read, before resizing and equalisation.
"""

import hashlib

import cv2
import numpy as np

_SIDE = 32  # pixels a side of what the cosine transform sees
_LOW = 8  # frequencies kept along each axis


def pixel_sha256(image: np.ndarray) -> str:
    """SHA-256 of shape and pixels: equal for the same picture in another file or encoding.

    Arguments:
      image: uint8 `[height, width]`.

    Returns:
      64 hexadecimal digits.
    """
    digest = hashlib.sha256(f"{image.shape[0]}x{image.shape[1]};".encode())
    digest.update(np.ascontiguousarray(image))
    return digest.hexdigest()


def perceptual_hash(image: np.ndarray) -> int:
    """64 bits that hardly change with size, compression, brightness and contrast.

    The signs of the 8 x 8 lowest cosine frequencies of the image at 32 x 32, relative to their
    median, the mean gray left out (the pHash of Zauner, "Implementation and benchmarking of
    perceptual image hash functions", 2010, section 3.2). Two hashes are compared by the number of
    bits in which they differ.

    Arguments:
      image: uint8 `[height, width]`.

    Returns:
      An integer below 2^64, row by row from the lowest frequencies in the most significant bits.
    """
    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:_LOW, :_LOW].ravel()
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
