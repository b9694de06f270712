"""Reads radiographs from files of any common format; every command reads them here."""

import contextlib
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

import cv2
import numpy as np

from jaxcxr.errors import BadRecord
from jaxcxr.xray.images import films, whole_files
from jaxcxr.xray.images.films import Film

if TYPE_CHECKING:
    from jaxcxr.xray.images.dicom import Header

ENDINGS = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".tif", ".tiff", ".bmp", ".webp")
_LEAST_USED = 0.25  # share of the bits in use; with less, black is not 0 (signed with an offset)
_HEAD = 132  # bytes up to the end of DICOM's magic word
# How files of PNG, JPEG, TIFF, BMP and WebP begin; DICOM without preamble begins with 2 or 8.
_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM", b"RIFF")


def read(path: str | os.PathLike) -> Film:
    """Reads a radiograph of any common format.

    Arguments:
      path: PNG, JPEG, TIFF, BMP, WebP ... of 8 or 16 bits, gray, palette or color, with or without
        transparency; or DICOM, shown as a viewer would. The content tells the format; only a DICOM
        without preamble needs the ending .dcm or .dicom.

    Returns:
      The film, upright by its EXIF orientation. 16-bit values are scaled by the bits in use (the
      fewest that hold the brightest pixel that is no outlier), so that 12-bit images are not
      nearly black; or by their own range if it is less than a quarter of that. Where the image is
      wholly transparent, there is no film; other transparency is ignored.

    Raises:
      BadRecord: the file is absent, empty, truncated, damaged, not an image, or too small or too
        long to be a radiograph.
    """
    return read_described(path)[0]


def read_described(path: str | os.PathLike) -> tuple[Film, "Header | None"]:
    """Reads a radiograph as `read`, and the header if the file is DICOM."""
    content = _content(path)
    try:
        return decode(content, as_dicom=is_dicom(path, content))
    except BadRecord as error:
        raise BadRecord(f"{path}: {error}") from error.__cause__


def is_dicom(path: str | os.PathLike, content: bytes) -> bool:
    """Tells whether a file is DICOM by its preamble or, without one, by its ending.

    A picture of another format stays one under the name of a DICOM file.
    """
    named = os.fspath(path).lower().endswith((".dcm", ".dicom"))
    return content[128:132] == b"DICM" or (named and not content.startswith(_PICTURES))


def is_film(path: str | os.PathLike) -> bool:
    """Tells whether a file is meant to be an image: by its ending, or DICOM by its content."""
    ending = os.path.splitext(path)[1].lower()
    if ending in ENDINGS:
        return True
    try:
        with open(path, "rb") as file:
            return is_dicom(path, file.read(_HEAD))
    except OSError:
        # DICOM files are often named by their identifier, whose last part is no ending. Reading
        # such a file will tell why it cannot be opened.
        return not ending or ending[1:].isdigit()


def decode(content: bytes, *, as_dicom: bool = False) -> tuple[Film, "Header | None"]:
    """Decodes the content of a file as `read_described` does.

    Raises:
      BadRecord: see `read`.
    """
    if not content:
        raise BadRecord("the file is empty")
    header = None
    if as_dicom:
        from jaxcxr.xray.images import dicom  # lazily: pydicom is slow to import and seldom needed

        found = dicom.decode(content)
        film, header = found.film, found.header
    else:
        film = _picture(content)
    height, width = film.shape
    if min(height, width) < films.LEAST_SIDE:
        raise BadRecord(
            f"{width} x {height} pixels; a radiograph has at least {films.LEAST_SIDE} a side"
        )
    if max(height, width) > films.LARGEST_ASPECT * min(height, width):
        raise BadRecord(
            f"{width} x {height} pixels: a strip; the longer side of a radiograph is at most "
            f"{films.LARGEST_ASPECT:g} times the other"
        )
    return film, header


def _content(path: str | os.PathLike) -> bytes:
    try:
        mode = os.stat(path).st_mode
        # Opening a FIFO waits for a writer, for ever if there is none.
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise BadRecord(f"{path}: a pipe, socket or device, not a file")
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise BadRecord(f"{path}: {error.strerror or error}") from error


def _picture(content: bytes) -> Film:
    """Decodes a file that is not DICOM."""
    meaning = whole_files.check(content)
    with _quiet():
        try:
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise BadRecord(f"not a readable image ({error.err})") from error
    if image is None:
        raise BadRecord("not a readable image")
    return _gray(image, meaning.white_is_zero).turned(meaning.orientation)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences OpenCV's log, which does not name the broken file; our error does."""
    log = cv2.utils.logging
    level = log.getLogLevel()
    log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(level)


def _gray(image: np.ndarray, inverted: bool) -> Film:
    if image.dtype not in (np.uint8, np.uint16):
        raise BadRecord(f"pixels of type {image.dtype}; expected 8 or 16 bits without sign")
    shown = None
    if image.ndim == 3:
        channels = image.shape[2]
        if channels in (2, 4):
            shown = image[..., -1] > 0
        code = {3: cv2.COLOR_BGR2GRAY, 4: cv2.COLOR_BGRA2GRAY}.get(channels)
        image = image[..., 0] if code is None else cv2.cvtColor(image, code)
    if image.dtype == np.uint8:
        return Film.padded(image, shown)
    values = image.astype(np.float64)
    counted = shown if shown is not None and shown.any() else np.ones(image.shape, bool)
    low, high = films.usual_range(values, counted)
    top = 2 ** max(8, int(high).bit_length()) - 1
    if low < high < low + _LEAST_USED * top:
        return Film.scaled(values, low, high, shown=shown, inverted=inverted)
    return Film.scaled(values, 0, top, shown=shown, inverted=inverted)
