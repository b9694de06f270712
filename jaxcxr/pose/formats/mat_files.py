"""Reads MATLAB files of versions 5 to 7 through SciPy without crashing on damaged ones.

SciPy's compiled reader trusts a file's own sizes, so a damaged file can kill the program. Variables
of version 7 are compressed with a checksum that reveals damage beforehand; files without
compression are first read in another process.
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
_PATIENCE = 600.0  # seconds; the largest known file takes ten
# SciPy raises these on malformed files.
_ERRORS = (
    ValueError, TypeError, KeyError, IndexError, EOFError, MemoryError, OverflowError,
    AttributeError, NotImplementedError, RecursionError, RuntimeError, SystemError, Warning,
    OSError, zlib.error, struct.error, scipy.io.matlab.MatReadError,
)


def read(path: str | pathlib.Path, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Reads a file's variables, or some of them by name.

    Structs have their fields as attributes; axes of length 1 are squeezed.
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
        raise UserError(
            f"{path} is damaged or no MATLAB file ({error}); download it again."
        ) from error


def _compressed(content: bytes) -> bool:
    """Tells whether all variables are compressed, and checks those that are."""
    if content[:10] == b"MATLAB 7.3":
        raise ValueError("version 7.3; save it with MATLAB's save(..., '-v7')")
    if content[:10] != b"MATLAB 5.0" or content[126:128] not in (b"IM", b"MI"):
        raise ValueError("it lacks MATLAB's header")
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
    """Reads the file in another process."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRY, str(path)], capture_output=True, timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"reading it took more than {_PATIENCE:.0f} s") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ValueError(said[-1] if said and done.returncode > 0 else "it crashes the reader")
