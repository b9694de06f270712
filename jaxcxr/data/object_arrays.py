"""Reads `.npz` files with object arrays and pickles of arrays without executing anything.

Many motion data sets are published as pickles of dicts of arrays. A pickle is a program; this
reader accepts those that build dicts, lists, tuples, sets, text, numbers and NumPy arrays, and
refuses all others before they run.
"""

import io
import lzma
import pathlib
import pickle
import struct
import zipfile
import zlib
from typing import Any, BinaryIO

import numpy as np

from jaxcxr.errors import UserError

_PLAIN = (str, bytes, bool, int, float, complex, type(None), np.generic)

# Stands in for NumPy's class, which a file could otherwise call.
_ARRAY = object()


class _Refused(pickle.UnpicklingError):
    """The file asks for something that is not data."""


def _empty_array(subtype: Any, shape: Any, dtype: Any) -> np.ndarray:
    """Begins an array as NumPy's pickles do; its content follows as the state."""
    if subtype is not _ARRAY or tuple(shape) != (0,):
        raise _Refused("it makes an array of a kind of its own")
    return np.ndarray(shape, dtype)


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> np.ndarray:
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


def _scalar(dtype: np.dtype, data: Any = None) -> np.generic:
    if not isinstance(data, bytes | str) or dtype.hasobject:
        raise _Refused("it makes a scalar of something that is not a number")
    data = data.encode("latin-1") if isinstance(data, str) else data
    return np.frombuffer(data, dtype, 1)[0]


def _latin(text: Any, encoding: str = "") -> bytes:
    """Encodes text to bytes, as pickles of protocol 2 and below store them."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _Refused("it encodes something other than bytes")
    return text.encode("latin-1")


def _dtype(*arguments: Any) -> np.dtype:
    if not arguments or not isinstance(arguments[0], str):
        raise _Refused("it describes numbers by something that is not their name")
    return np.dtype(*arguments)


# Names in pickles of such data -> their replacements.
_NAMES = {
    ("numpy", "ndarray"): _ARRAY,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _latin,
} | {
    (f"numpy.{core}.{module}", name): function
    for core in ("core", "_core")
    for module, name, function in (
        ("multiarray", "_reconstruct", _empty_array),
        ("multiarray", "scalar", _scalar),
        ("numeric", "_frombuffer", _from_buffer),
    )
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise _Refused(f"it asks for {module}.{name}, which is not data; nothing was run")
        return _NAMES[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("it refers to objects outside the file")


def _load(file: BinaryIO) -> Any:
    content = _Unpickler(file, encoding="latin1").load()
    _check(content)
    return content


def _check(content: Any) -> None:
    """Refuses content other than data, such as the replacement functions themselves."""
    pending, seen = [content], set()
    while pending:
        item = pending.pop()
        if isinstance(item, _PLAIN) or id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            pending += item
        elif isinstance(item, np.ndarray):
            if item.dtype.hasobject:
                pending += item.ravel().tolist()
        else:
            raise _Refused(f"it holds a {type(item).__name__}, which is not data")


def _read_member(file: BinaryIO) -> Any:
    """Reads one array of an `.npz`, or the content of an object array without dimensions."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of the format {version}")
    header = np.lib.format.read_array_header_1_0
    if version == (2, 0):
        header = np.lib.format.read_array_header_2_0
    shape, _, dtype = header(file)
    if not dtype.hasobject:
        raise LookupError
    content = _load(file)
    if isinstance(content, np.ndarray) and content.shape == shape == ():
        return content.item()
    return content


def read_npz(path: str | pathlib.Path) -> dict[str, Any]:
    """Reads every array of an `.npz` file.

    Returns:
      Name -> array, or the content of an object array without dimensions.

    Raises:
      UserError: the file is absent, damaged, or holds anything but data.
    """
    path = _file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                name.removesuffix(".npy"): _member(archive.read(name))
                for name in archive.namelist()
                if name.endswith(".npy")
            }
    except _ERRORS as error:
        raise _unreadable(path, error) from error


def _member(raw: bytes) -> Any:
    try:
        return _read_member(io.BytesIO(raw))
    except LookupError:
        return np.lib.format.read_array(io.BytesIO(raw), allow_pickle=False)


def read_pickle(path: str | pathlib.Path) -> Any:
    """Reads a pickle of dicts, lists, text, numbers and arrays.

    Raises:
      UserError: the file is absent, damaged, or holds anything but data.
    """
    path = _file(path)
    try:
        with path.open("rb") as file:
            return _load(file)
    except _ERRORS as error:
        raise _unreadable(path, error) from error


def as_array(value: Any) -> np.ndarray:
    """Converts a value to an array; ragged values become an empty array of objects."""
    try:
        return np.asarray(value)
    except ValueError:  # rows of several lengths
        return np.empty(0, object)


# Python raises these on damaged pickles and archives, and on unknown compression.
_ERRORS = (
    pickle.UnpicklingError, zipfile.BadZipFile, ValueError, TypeError, AttributeError, EOFError,
    IndexError, KeyError, OverflowError, MemoryError, ImportError, OSError, RuntimeError,
    SystemError, SyntaxError, struct.error, zlib.error, lzma.LZMAError,
)


def _file(path: str | pathlib.Path) -> pathlib.Path:
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"no file at {path}; check the path.")
    return path


def _unreadable(path: pathlib.Path, error: Exception) -> UserError:
    if isinstance(error, _Refused):
        return UserError(f"{path} was not read: {error}. Get the file from another place.")
    return UserError(f"{path} is damaged or of another kind ({error}); download it again.")
