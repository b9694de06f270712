"""Computes fingerprints that find copies of radiographs without the images.

Both use the pixels as read, before resizing and equalisation.
"""

import hashlib

import cv2
import numpy as np

_SIDE = 32  # pixels a side of what the cosine transform sees
_LOW = 8  # frequencies kept along each axis


def pixel_sha256(image: np.ndarray) -> str:
    """Hashes shape and pixels: equal for the same picture in another file or lossless encoding.

    Arguments:
      image: uint8 `[height, width]`.

    Returns:
      64 hexadecimal digits.
    """
    digest = hashlib.sha256(f"{image.shape[0]}x{image.shape[1]};".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def perceptual_hash(image: np.ndarray) -> int:
    """Computes 64 bits that hardly change with size, compression, brightness and contrast.

    They are the signs of the 8 x 8 lowest cosine frequencies of the image at 32 x 32, relative to
    their median without the mean gray (the pHash of Zauner, "Implementation and benchmarking of
    perceptual image hash functions", 2010, section 3.2). Hashes of similar images differ in few
    bits.

    Arguments:
      image: uint8 `[height, width]`.

    Returns:
      An integer below 2^64, row by row, the lowest frequencies in the most significant bits.
    """
    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:_LOW, :_LOW].ravel()
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
