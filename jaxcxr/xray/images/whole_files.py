"""Checks that image files are whole, and reads what decides how their pixels are shown.

OpenCV, which decodes, fills what it cannot read with gray. So Pillow checks TIFF files, and
simplejpeg, which knows the warnings of libjpeg-turbo, JPEG files.
"""

import contextlib
import dataclasses
import io
import struct
import warnings
import zlib
from collections.abc import Iterator

import simplejpeg
from PIL import Image

from jaxcxr.errors import BadRecord

_PNG, _JPEG = b"\x89PNG", b"\xff\xd8"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# How chunks of a PNG begin that may hold an orientation: name and keyword.
_DESCRIBING = (b"eXIf", *(
    name + keyword for name in (b"zTXt", b"iTXt", b"tEXt")
    for keyword in (b"Raw profile type ", b"XML:com.adobe.xmp")
))
# Tags of TIFF and EXIF.
_SUBFILE, _BITS, _PHOTOMETRIC, _ORIENTATION = 0x00FE, 0x0102, 0x0106, 0x0112
_COMPRESSION, _DEFLATE = 0x0103, (8, 32946)
_PARTS = ((0x0111, 0x0117), (0x0144, 0x0145))  # offsets and byte counts of strips and of tiles
_REDUCED = 1  # bit of `_SUBFILE`: a smaller copy of another page


@dataclasses.dataclass(frozen=True)
class Meaning:
    """Says how pixels are shown beside their values.

    Attributes:
      orientation: of the Exif standard, 1 to 8, if the decoder does not see to it.
      white_is_zero: the least value is white, if the decoder does not see to it.
    """

    orientation: int = 1
    white_is_zero: bool = False


def check(content: bytes) -> Meaning:
    """Checks a PNG, JPEG or TIFF file; other formats are their decoder's to check.

    What follows the end of a whole image is ignored.

    Raises:
      BadRecord: the file is truncated or damaged, or has several pages.
    """
    if content.startswith(_PNG):
        return _checked_png(content)
    if content.startswith(_JPEG):
        check_jpeg(content)
        return Meaning(_orientation(content))
    if content.startswith(_TIFF):
        return _checked_tiff(content)
    return Meaning(_orientation(content))


def check_jpeg(content: bytes) -> None:
    """Checks a JPEG; where libjpeg would only warn, the file is damaged.

    Raises:
      BadRecord: the file is truncated, or its middle is destroyed.
    """
    try:
        simplejpeg.decode_jpeg(content, colorspace="GRAY", min_factor=8, strict=True)
    except ValueError as error:
        cut = "Premature end of JPEG file" in str(error)
        raise BadRecord(
            "the file is truncated" if cut else f"the file is damaged ({error})"
        ) from error


def _checked_png(content: bytes) -> Meaning:
    place, described = 8, False  # behind the signature
    while place + 12 <= len(content):
        length, name = struct.unpack(">I4s", content[place : place + 8])
        described |= content.startswith(_DESCRIBING, place + 4)
        begin, place = place + 4, place + 12 + length
        critical = name[:1].isupper()  # others are of no matter to the pixels
        if critical and place <= len(content):
            (stated,) = struct.unpack(">I", content[place - 4 : place])
            if zlib.crc32(content[begin : place - 4]) != stated:
                part = name.decode("ascii", "replace")
                raise BadRecord(f"the file is damaged (wrong checksum of {part})")
        if name == b"IEND":
            # Pillow decodes the image to find a description behind it.
            return Meaning(_orientation(content) if described else 1)
    raise BadRecord("the file is truncated")


def _checked_tiff(content: bytes) -> Meaning:
    try:
        with _opened(content) as picture:
            pages = 0
            for page in range(picture.n_frames):
                picture.seek(page)
                pages += not picture.tag_v2.get(_SUBFILE, 0) & _REDUCED
            picture.seek(0)
            picture.load()
            _check_deflated(content, picture.tag_v2)
            deep = max(picture.tag_v2.get(_BITS, (1,))) > 8
            white_is_zero = picture.tag_v2.get(_PHOTOMETRIC) == 0
    except MemoryError:
        raise
    except Exception as error:  # parsers of broken bytes raise anything
        raise BadRecord(f"the file is damaged or no TIFF that can be read ({error})") from error
    if pages > 1:
        raise BadRecord(f"{pages} pages; a radiograph has one")
    # OpenCV turns TIFF files, and inverts those of 8 bits.
    return Meaning(white_is_zero=white_is_zero and deep)


def _check_deflated(content: bytes, tags) -> None:
    """Checks the sums at the end of deflated parts, which libtiff does not always reach."""
    if tags.get(_COMPRESSION) not in _DEFLATE:
        return
    for offsets, counts in _PARTS:
        for offset, count in zip(tags.get(offsets, ()), tags.get(counts, ()), strict=True):
            zlib.decompress(content[offset : offset + count])


def _orientation(content: bytes) -> int:
    """Reads the EXIF orientation; 1, upright, if there is none or it cannot be read."""
    try:
        with _opened(content) as picture:
            return int(picture.getexif().get(_ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # a broken description is no reason to reject a film
        return 1


@contextlib.contextmanager
def _opened(content: bytes) -> Iterator:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large images and of broken descriptions
        with Image.open(io.BytesIO(content)) as picture:
            yield picture
