"""Reads torch's files: their pickles build tensors, and nothing that a file names is called.

The unpickler knows how torch builds tensors. Every other name in a file becomes an inert class: its
objects keep the state that they are given and do nothing. So a training checkpoint with arguments,
optimiser and loggers is read, as is a whole pickled module, without code of its own.
"""

import collections
import io
import pickle
import struct
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

_DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# First pickle of files that torch wrote before 1.6, and with the zip format switched off.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# Modules no checkpoint has a use for: a file that names them was made to attack, and is refused
# although nothing of it would run.
_ATTACKS = frozenset((
    "os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "importlib", "runpy", "ctypes",
    "webbrowser", "pty", "pickle", "marshal", "code", "signal", "multiprocessing",
))
_BUILTINS = frozenset((
    "set", "frozenset", "list", "dict", "tuple", "int", "float", "complex", "bool", "str", "bytes",
    "bytearray", "slice", "range", "object",
))


class _Built:
    """What torch's functions build; a pickle may not change it afterwards."""

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a tensor that was built")


class _Storage(_Built):
    """A run of numbers, announced by the pickle and filled from the rest of the file."""

    def __init__(self, key: str, dtype: Any, length: int):
        self.key, self.dtype, self.length = key, np.dtype(dtype), length
        self.values: np.ndarray | None = None

    def fill(self, raw: bytes) -> None:
        if len(raw) != self.length * self.dtype.itemsize:
            raise pickle.UnpicklingError(f"storage {self.key} is cut short")
        self.values = np.frombuffer(raw, self.dtype.newbyteorder("<")).astype(self.dtype)


class _Tensor(_Built):
    """A strided view of a storage."""

    def __init__(self, storage: _Storage, offset: int, size: tuple, stride: tuple):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def array(self) -> np.ndarray:
        """The view copied to a contiguous array; never reads outside the storage."""
        values = getattr(self.storage, "values", None)
        if values is None:
            raise pickle.UnpicklingError("a tensor has no storage of a known type")
        numbers = (self.offset, *self.size, *self.stride)
        if not all(isinstance(n, int) and n >= 0 for n in numbers):
            raise pickle.UnpicklingError("a tensor has a negative size, stride or offset")
        if len(self.size) != len(self.stride):
            raise pickle.UnpicklingError("a tensor has sizes and strides of different length")
        count = int(np.prod(self.size, dtype=object))
        reach = sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if count > len(values) or (count and self.offset + reach >= len(values)):
            raise pickle.UnpicklingError("a tensor reaches outside its storage")
        if not count:
            return np.zeros(self.size, values.dtype)
        strides = [step * values.itemsize for step in self.stride]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.size, strides)
        return np.array(view)


class _Inert:
    """Stands for an object of a class that is not loaded; keeps its state, does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> "_Inert":
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any):
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """What a subclass of dict would take; a checkpoint's settings are not read."""

    def append(self, value: Any) -> None:
        """What a subclass of list would take."""

    def extend(self, values: Any) -> None:
        """What a subclass of list would take."""

    add = append


class _Unpickler(pickle.Unpickler):
    """Knows how torch builds tensors; all other names become inert classes."""

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}
        # Made anew for each file: a pickle can set attributes on what it is handed.
        self._names: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor"): lambda storage, offset, size, stride: (
                _Tensor(storage, offset, size, stride)
            ),
            ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, size, stride, *_: (
                _Tensor(storage, offset, size, stride)
            ),
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            ("torch._utils", "_rebuild_parameter_with_state"): lambda tensor, *_: tensor,
            # A subclass of Tensor: (function, class, arguments, state).
            ("torch._tensor", "_rebuild_from_type_v2"): lambda build, _, args, __: (
                build(*args) if callable(build) else None
            ),
        }

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return name
        if (module, name) in self._names:
            return self._names[module, name]
        plain = module in ("builtins", "__builtin__")
        if module.partition(".")[0] in _ATTACKS or (plain and name not in _BUILTINS):
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is not part of a tensor file; nothing was run"
            )
        inert = type(name.rpartition(".")[2], (_Inert,), {"__module__": module})
        return self._names.setdefault((module, name), inert)

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and pid[:1] == ("module",) and len(pid) > 1:
            return pid[1]  # a class; old files keep its source beside it
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise pickle.UnpicklingError("it refers to something other than a tensor storage")
        kind, key, length = pid[1], str(pid[2]), pid[4]
        if any(part is not None for part in pid[5:]):
            raise pickle.UnpicklingError("it uses storage views of torch < 0.4")
        if not isinstance(kind, str) or kind not in _DTYPES:
            raise pickle.UnpicklingError(f"storage {key} has an unknown type")
        if not isinstance(length, int) or length < 0:
            raise pickle.UnpicklingError(f"storage {key} has an unknown length")
        return self.storages.setdefault(key, _Storage(key, _DTYPES[kind], length))


def _load_zip(file: BinaryIO) -> Any:
    """Content of a torch >= 1.6 file: a zip of `data.pkl` and one member for each storage."""
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise pickle.UnpicklingError("the archive has no data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        # torch never compresses these; a compressed member could be a zip bomb.
        ours = (i for name, i in members.items()
                if name == pickles[0] or name.startswith(f"{root}data/"))
        if any(info.compress_type != zipfile.ZIP_STORED for info in ours):
            raise pickle.UnpicklingError("the archive is compressed, which torch never does")
        if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
            raise pickle.UnpicklingError("it was written on a big-endian machine")
        unpickler = _Unpickler(io.BytesIO(archive.read(pickles[0])))
        content = unpickler.load()
        for key, storage in unpickler.storages.items():
            if f"{root}data/{key}" not in members:
                raise pickle.UnpicklingError(f"storage {key} is absent")
            storage.fill(archive.read(f"{root}data/{key}"))
    return content


def _load_legacy(file: BinaryIO) -> Any:
    """Content of an older torch file: five pickles, then the storages in the order of the last."""
    if _Unpickler(file).load() != _LEGACY_MAGIC:
        raise pickle.UnpicklingError("it is a pickle, but no torch file")
    _Unpickler(file).load()  # protocol version
    system = _Unpickler(file).load()
    if not isinstance(system, dict) or not system.get("little_endian", False):
        raise pickle.UnpicklingError("it was written on a big-endian machine")
    unpickler = _Unpickler(file)
    content = unpickler.load()
    for key in _Unpickler(file).load():
        storage = unpickler.storages.get(key)
        if storage is None:
            raise pickle.UnpicklingError(f"storage {key!r} belongs to no tensor")
        (length,) = struct.unpack("<q", file.read(8))
        if length != storage.length:
            raise pickle.UnpicklingError(f"storage {key} has another length than announced")
        storage.fill(file.read(length * storage.dtype.itemsize))
    return content


def _entries(node: Any) -> Iterator[tuple[str, Any]]:
    """Named parts of a dict, or of an object as its class would name them in a state dict."""
    if isinstance(node, _Inert):
        state = node.state[0] if isinstance(node.state, tuple) and node.state else node.state
        if not isinstance(state, dict):
            return
        groups = [state.get(name) for name in ("_parameters", "_buffers", "_modules")]
        node = {} if any(isinstance(group, dict) for group in groups) else state
        for group in groups:
            node = node | group if isinstance(group, dict) else node
    if isinstance(node, dict):
        yield from ((key, value) for key, value in node.items() if isinstance(key, str))


def _tensors(content: Any) -> dict[str, _Tensor]:
    """Tensors by the names on the way to them, joined by dots."""
    found: dict[str, _Tensor] = {}
    seen: set[int] = set()  # of the way here: a pickle can contain itself

    def visit(node: Any, name: str) -> None:
        if isinstance(node, _Tensor):
            found[name] = node
        elif id(node) not in seen and len(seen) < 200:
            seen.add(id(node))
            for key, value in _entries(node):
                visit(value, f"{name}.{key}" if name else key)
            seen.discard(id(node))

    visit(content, "")
    return found


def read(file: BinaryIO) -> dict[str, np.ndarray]:
    """Reads the tensors of a torch file, of either format.

    Keys of dicts on the way to a tensor are part of its name ("state_dict.module.conv1.weight").
    States of optimisers, which are numbered, are left out.

    Raises:
      ValueError: it holds no tensors, or is damaged.
    """
    try:
        return _read(file)
    except pickle.UnpicklingError as error:
        raise ValueError(str(error)) from error


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    load = _load_zip if zipfile.is_zipfile(file) else _load_legacy
    file.seek(0)
    content = load(file)
    tensors = _tensors(content)
    if not tensors:
        kind = content if isinstance(content, type) else type(content)
        raise pickle.UnpicklingError(
            f"it holds no named tensors but {kind.__module__}.{kind.__qualname__}, which is not "
            "part of a tensor file; nothing was run"
        )
    return {name: tensor.array() for name, tensor in tensors.items()}
