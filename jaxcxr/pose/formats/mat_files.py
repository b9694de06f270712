"""MATLAB files of version 5 to 7, read by SciPy once it is known that they are whole.

SciPy's reader is compiled and trusts what a file says about itself: a damaged one can end the whole
program. The variables of files of version 7 are compressed, each with a checksum, so that damage
is found beforehand. A file that is not compressed is first read by another process.
"""

import pathlib
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import scipy.io

from jaxcxr.errors import UserError

_HEADER = 128
_COMPRESSED = 15
_TRY = (
    "import sys, warnings, scipy.io; warnings.simplefilter('error'); "
    "scipy.io.loadmat(sys.argv[1], struct_as_record=False, squeeze_me=True)"
)
_PATIENCE = 600.0  # seconds; the largest file known takes ten
# What SciPy raises on a file that it does not understand.
_ERRORS = (
    ValueError, TypeError, KeyError, IndexError, EOFError, MemoryError, OverflowError,
    AttributeError, NotImplementedError, RecursionError, RuntimeError, SystemError, Warning,
    OSError, zlib.error, struct.error, scipy.io.matlab.MatReadError,
)


def read(path: str | pathlib.Path, names: Sequence[str] | None = None) -> dict[str, Any]:
    """The variables of a file; structs have their fields as attributes, axes of length 1 are gone.

    Arguments:
      path: the file.
      names: variables to be read; none: all.

    Raises:
      UserError: absent, damaged, or of another version.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"no file at {path}; check the path.")
    try:
        if not _compressed(path.read_bytes()):
            _try_elsewhere(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return scipy.io.loadmat(
                str(path), struct_as_record=False, squeeze_me=True, variable_names=names
            )
    except _ERRORS as error:
        raise UserError(f"{path} is damaged or no MATLAB file ({error}); fetch it anew.") from error


def _compressed(content: bytes) -> bool:
    """Whether all variables are compressed and whole.

    Raises:
      ValueError: it is no such file, or ends too early.
      zlib.error: what is compressed is damaged.
    """
    if content[:10] == b"MATLAB 7.3":
        raise ValueError("version 7.3; save it by MATLAB's save(..., '-v7')")
    if content[:10] != b"MATLAB 5.0" or content[126:128] not in (b"IM", b"MI"):
        raise ValueError("it does not begin as one")
    order = "<" if content[126:128] == b"IM" else ">"
    place, whole = _HEADER, True
    while place < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, place)
        place += 8
        if place + size > len(content):
            raise ValueError("it ends too early")
        if kind == _COMPRESSED:
            zlib.decompress(content[place : place + size])
        whole = whole and kind == _COMPRESSED
        place += size
    return whole


def _try_elsewhere(path: pathlib.Path) -> None:
    """Has another process read the file.

    Raises:
      ValueError: it could not.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRY, str(path)], capture_output=True, timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"reading it took more than {_PATIENCE:.0f} s") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ValueError(said[-1] if said and done.returncode > 0 else "it ends the program")
