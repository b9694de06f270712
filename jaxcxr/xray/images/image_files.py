"""Resizes and equalises radiographs, encodes and decodes those of prepared records."""

import io

import cv2
import numpy as np
import zstandard

from jaxcxr.errors import BadRecord, UserError

EQUALIZE = ("hist", "clahe", "none")
ENCODINGS = ("png", "zstd", "raw", "jpeg")

_NPY_MAGIC = b"\x93NUMPY"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_JPEG_QUALITY = 95


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes to a square, averaging over areas when the image gets smaller.

    An image more than twice too large is first halved, which is exact and has a fast path.

    Arguments:
      image: uint8 or float32 `[height, width]`; stretched if it is not square.
      size: side in pixels.

    Returns:
      `[size, size]` of the same type; the same array if it already has this size.
    """
    height, width = image.shape
    while min(height, width) > 2 * size and height % 2 == 0 and width % 2 == 0:
        height, width = height // 2, width // 2
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if (height, width) == (size, size):
        return image
    smaller = size <= height and size <= width
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=interpolation)


def equalize(image: np.ndarray, method: str, shown: np.ndarray | None = None) -> np.ndarray:
    """Spreads the gray values; apply it after resizing, at the stored size.

    Arguments:
      image: uint8 `[height, width]`, or float32 from 0 to 255.
      method: "hist" (global histogram equalisation, as in the thesis; of 65,536 grays if they are
        float), "clahe" (contrast-limited adaptive, 8 x 8 tiles, limit 2; Zuiderveld 1994) or
        "none".
      shown: bool `[height, width]`, the pixels that count; the others become black. None: all.

    Returns:
      uint8 `[height, width]`.

    Raises:
      UserError: unknown method.
    """
    if method not in EQUALIZE:
        raise UserError(f"equalize={method!r} is not one of {', '.join(EQUALIZE)}")
    if method == "hist" and (shown is not None or image.dtype != np.uint8):
        return _equalized(image, shown)
    image = rounded(image)
    if shown is None:
        return _spread(image, method)
    # Tiles are laid over the film alone, as if it were not padded.
    rows, columns = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
    film = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    result = np.zeros_like(image)
    result[film] = _spread(np.ascontiguousarray(image[film]), method)
    return np.where(shown, result, 0).astype(np.uint8)


def rounded(image: np.ndarray) -> np.ndarray:
    """Rounds float32 from 0 to 255 to uint8; uint8 is returned as it is."""
    return image if image.dtype == np.uint8 else np.rint(image).astype(np.uint8)


def levels(image: np.ndarray) -> np.ndarray:
    """Spreads grays, uint8 or float32 from 0 to 255, over the 65,536 levels of uint16."""
    return np.rint(image.astype(np.float32) * 257).astype(np.uint16)


def _spread(image: np.ndarray, method: str) -> np.ndarray:
    if method == "hist":
        return cv2.equalizeHist(image)
    if method == "clahe":
        return cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(image)
    return image


def _equalized(image: np.ndarray, shown: np.ndarray | None) -> np.ndarray:
    """Does what cv2.equalizeHist does, with more grays than 256 and without padding."""
    grays = levels(image)
    counts = np.bincount((grays if shown is None else grays[shown]).ravel(), minlength=2**16)
    darkest = int(np.flatnonzero(counts)[0])
    others = int(counts.sum() - counts[darkest])
    if not others:
        return rounded(image)
    counts[darkest] = 0
    table = np.rint(np.cumsum(counts) * (255.0 / others)).astype(np.uint8)
    return table[grays] if shown is None else np.where(shown, table[grays], 0).astype(np.uint8)


def encode(image: np.ndarray, encoding: str) -> bytes:
    """Encodes a radiograph; `decode` recognises the result by its first bytes.

    Arguments:
      image: uint8 `[height, width]`.
      encoding: "png" (lossless, opens anywhere), "zstd" (lossless, as small as PNG but faster:
        second differences along both axes, as NPY, in one Zstandard frame), "raw" (NPY,
        uncompressed) or "jpeg" (lossy, quality 95).

    Raises:
      UserError: unknown encoding.
    """
    if encoding == "raw":
        return _npy(image)
    if encoding == "zstd":
        return zstandard.compress(_npy(_differences(image)), level=1)
    if encoding == "png":
        return cv2.imencode(".png", image)[1].tobytes()
    if encoding == "jpeg":
        return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
    raise UserError(f"encoding={encoding!r} is not one of {', '.join(ENCODINGS)}")


def decode(content: bytes) -> np.ndarray:
    """Decodes the bytes of a prepared record to uint8 `[height, width]`.

    Arguments:
      content: from `encode`, or any 8-bit file that OpenCV reads.

    Raises:
      BadRecord: the bytes are not an image.
    """
    try:
        if content.startswith(_NPY_MAGIC):
            return _from_npy(content)
        if content.startswith(_ZSTD_MAGIC):
            return _sums(_from_npy(zstandard.decompress(content)))
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    except (cv2.error, zstandard.ZstdError, ValueError) as error:
        raise BadRecord(f"a record of {len(content)} bytes is broken: {error}") from error
    if image is None:
        raise BadRecord(
            f"a record of {len(content)} bytes is not an image; prepare the data set again"
        )
    return image


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def _from_npy(content: bytes) -> np.ndarray:
    # As np.load, but without copying the pixels.
    stream = io.BytesIO(content)
    np.lib.format.read_magic(stream)
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype != np.uint8 or len(shape) != 2:
        raise ValueError(f"{dtype} {shape} instead of a uint8 image")
    return np.frombuffer(content, np.uint8, offset=stream.tell()).reshape(shape)


def _differences(image: np.ndarray) -> np.ndarray:
    """Computes x[i, j] - x[i-1, j] - x[i, j-1] + x[i-1, j-1] modulo 256, zero outside."""
    padded = np.pad(image, ((1, 0), (1, 0)))
    return np.diff(np.diff(padded, axis=0), axis=1)


def _sums(differences: np.ndarray) -> np.ndarray:
    # The integral image undoes the differences; its int32 overflow is harmless modulo 256.
    return cv2.integral(differences)[1:, 1:].astype(np.uint8)
