"""Reads, resizes, equalises, encodes and decodes radiographs as uint8 `[height, width]`."""

import contextlib
import io
import os
import pathlib

import cv2
import numpy as np
import zstandard

from jaxcxr.errors import BadRecord, UserError

EQUALIZE = ("hist", "clahe", "none")
ENCODINGS = ("png", "zstd", "raw", "jpeg")

_NPY_MAGIC = b"\x93NUMPY"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_JPEG_QUALITY = 95


def read(path: str | os.PathLike) -> np.ndarray:
    """Reads a radiograph of any common format as grayscale.

    Arguments:
      path: PNG, JPEG, TIFF, BMP, WebP ... of 8 or 16 bits, gray, palette or color, with or without
        transparency; or DICOM, shown as a viewer would. The content tells the format; only a DICOM
        without preamble needs the ending .dcm or .dicom.

    Returns:
      uint8 `[height, width]`. 16-bit values are scaled by the bits in use (the fewest that hold the
      brightest pixel), so that 12-bit images are not nearly black. Transparency and EXIF
      orientation are ignored.

    Raises:
      BadRecord: the file is absent, empty, truncated or not an image.
    """
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise BadRecord(f"{path}: {error.strerror or error}") from error
    if is_dicom(path, content):
        from jaxcxr.xray.images import dicom  # lazily: pydicom is slow to import and seldom needed

        return dicom.read(path).pixels
    try:
        return decode_any(content)
    except BadRecord as error:
        raise BadRecord(f"{path}: {error}") from None


def is_dicom(path: str | os.PathLike, content: bytes) -> bool:
    """Tells whether a file is DICOM by its preamble or, without one, by its ending."""
    return content[128:132] == b"DICM" or os.fspath(path).lower().endswith((".dcm", ".dicom"))


def decode_any(content: bytes) -> np.ndarray:
    """Decodes the content of an image file that is not DICOM, as `read` does.

    Raises:
      BadRecord: the content is empty, truncated or not an image.
    """
    if not content:
        raise BadRecord("the file is empty")
    if _is_cut(content):
        raise BadRecord("the file is truncated")
    with _quiet():
        try:
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise BadRecord(f"not a readable image ({error.err})") from error
    if image is None:
        raise BadRecord("not a readable image")
    return _gray8(image)


@contextlib.contextmanager
def _quiet():
    """Silences OpenCV's log, which does not name the broken file; our error does."""
    log = cv2.utils.logging
    level = log.getLogLevel()
    log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(level)


def _is_cut(content: bytes) -> bool:
    # OpenCV before 5 silently returns the upper part of a cut file, and the rest black.
    if content.startswith(b"\x89PNG"):
        return b"IEND" not in content[-64:]
    return content.startswith(b"\xff\xd8") and b"\xff\xd9" not in content[-65536:]


def _gray8(image: np.ndarray) -> np.ndarray:
    if image.dtype not in (np.uint8, np.uint16):
        raise BadRecord(f"pixels of type {image.dtype}; expected 8 or 16 bits without sign")
    if image.ndim == 3:
        code = {1: None, 3: cv2.COLOR_BGR2GRAY, 4: cv2.COLOR_BGRA2GRAY}[image.shape[2]]
        image = image[..., 0] if code is None else cv2.cvtColor(image, code)
    if image.dtype == np.uint16:
        top = 2 ** max(8, int(image.max()).bit_length()) - 1
        image = np.round(image * (255.0 / top)).astype(np.uint8)
    return image


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes to a square, averaging over areas when the image gets smaller.

    An image more than twice too large is first halved, which is exact and has a fast path.

    Arguments:
      image: uint8 `[height, width]`; stretched if it is not square.
      size: side in pixels.

    Returns:
      uint8 `[size, size]`; the same array if it already has this size.
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


def equalize(image: np.ndarray, method: str) -> np.ndarray:
    """Spreads the gray values; apply it after resizing, at the stored size.

    Arguments:
      image: uint8 `[height, width]`.
      method: "hist" (global histogram equalisation, as in the thesis), "clahe" (contrast-limited
        adaptive, 8 x 8 tiles, limit 2; Zuiderveld 1994) or "none".

    Returns:
      uint8 `[height, width]`.

    Raises:
      UserError: unknown method.
    """
    if method == "hist":
        return cv2.equalizeHist(image)
    if method == "clahe":
        return cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(image)
    if method == "none":
        return image
    raise UserError(f"equalize={method!r} is not one of {', '.join(EQUALIZE)}")


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
