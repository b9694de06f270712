"""What tests of figures ask of a PNG file."""

import struct

import cv2
import numpy as np

from jaxcxr.report import canvas


def png_size(path):
    """(width, height) from the PNG's header, after decoding the whole file once."""
    assert cv2.imread(str(path)) is not None
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def saved_size(figure, path):
    """Saves a figure, and checks that the file has its size and that nothing else is left."""
    canvas.save(figure, path)
    width, height = np.rint(figure.get_size_inches() * canvas.DPI).astype(int)
    assert png_size(path) == (width, height)
    assert not list(path.parent.glob("*.partial"))
    return width, height
