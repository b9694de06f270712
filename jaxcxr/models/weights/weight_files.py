"""Reads weight files of other frameworks into NumPy without executing anything they contain."""

import collections
import io
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from jaxcxr.errors import UserError

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
# Where training scripts put the state dict inside their checkpoint.
_WRAPPERS = ("state_dict", "model", "model_state_dict")


class _Storage:
    """A run of numbers, announced by the pickle and filled from the rest of the file."""

    def __init__(self, key: str, dtype: Any, length: int):
        self.key, self.dtype, self.length = key, np.dtype(dtype), length
        self.values: np.ndarray | None = None

    def fill(self, raw: bytes) -> None:
        if len(raw) != self.length * self.dtype.itemsize:
            raise pickle.UnpicklingError(f"storage {self.key} is cut short")
        self.values = np.frombuffer(raw, self.dtype.newbyteorder("<")).astype(self.dtype)


class _Tensor:
    """A strided view of a storage."""

    def __init__(self, storage: _Storage, offset: int, size: tuple, stride: tuple):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def array(self) -> np.ndarray:
        """The view copied to a contiguous array; never reads outside the storage."""
        values = self.storage.values
        if values is None:
            raise pickle.UnpicklingError(f"storage {self.storage.key} is missing")
        numbers = (self.offset, *self.size, *self.stride)
        if not all(isinstance(n, int) and n >= 0 for n in numbers):
            raise pickle.UnpicklingError("a tensor has a negative size, stride or offset")
        if len(self.size) != len(self.stride):
            raise pickle.UnpicklingError("a tensor has sizes and strides of different length")
        count = int(np.prod(self.size, dtype=object))
        reach = sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if count > self.storage.length or (count and self.offset + reach >= self.storage.length):
            raise pickle.UnpicklingError("a tensor reaches outside its storage")
        if not count:
            return np.zeros(self.size, values.dtype)
        strides = [step * values.itemsize for step in self.stride]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.size, strides)
        return np.array(view)


class _Unpickler(pickle.Unpickler):
    """Knows the names that a state dict of tensors needs, and no other."""

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}
        # Made anew for each file: a pickle can set attributes on what it is handed.
        self._names = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, size, stride, *_: (
                _Tensor(storage, offset, size, stride)
            ),
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        }

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return name
        if (module, name) in self._names:
            return self._names[module, name]
        raise pickle.UnpicklingError(
            f"it asks for {module}.{name}, which is not part of a tensor file; nothing was run"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise pickle.UnpicklingError("it refers to something other than a tensor storage")
        kind, key, length = pid[1], str(pid[2]), pid[4]
        if any(part is not None for part in pid[5:]):
            raise pickle.UnpicklingError("it uses storage views of torch < 0.4")
        if kind not in _DTYPES or not isinstance(length, int) or length < 0:
            raise pickle.UnpicklingError(f"storage {key} has an unknown type or length")
        return self.storages.setdefault(key, _Storage(key, _DTYPES[kind], length))


def _load_zip(file: BinaryIO) -> Any:
    """Content of a torch >= 1.6 file: a zip of `data.pkl` and one member for each storage."""
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        # torch never compresses; a compressed member could be a zip bomb.
        if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
            raise pickle.UnpicklingError("the archive is compressed, which torch never does")
        pickles = [name for name in members if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise pickle.UnpicklingError("the archive has no data.pkl")
        root = pickles[0].removesuffix("data.pkl")
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
        raise pickle.UnpicklingError("it is not a torch file")
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


def _tensors(content: Any) -> dict[str, np.ndarray]:
    """The named tensors of a checkpoint, looked for in its usual places."""
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise pickle.UnpicklingError("it does not hold a dict of tensors")
    return {str(k): v.array() for k, v in content.items() if isinstance(v, _Tensor)}


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        load = _load_zip if zipfile.is_zipfile(file) else _load_legacy
        file.seek(0)
        content = load(file)
    arrays = _tensors(content)
    return {key.removeprefix("module."): value for key, value in arrays.items()}


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


_READERS: dict[str, Callable[[pathlib.Path], dict[str, np.ndarray]]] = {
    ".safetensors": load_file,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".bin": _read_torch,
    ".npz": _read_npz,
}


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Reads every tensor of a weight file.

    Pickles (`.pth`, `.pt`, `.bin`) are interpreted with an allow-list of names and run no code.

    Arguments:
      path: a `.safetensors`, `.pth`, `.pt`, `.bin` or `.npz` file.

    Returns:
      Tensor name -> array in the dtype of the file.

    Raises:
      UserError: absent, of another kind, damaged, or asking for code to be run.
    """
    path = pathlib.Path(path)
    if path.suffix not in _READERS:
        raise UserError(
            f"{path}: weights are read from {', '.join(_READERS)}, not from {path.suffix!r} files."
        )
    if not path.is_file():
        raise UserError(f"no weight file at {path}; check the path.")
    try:
        return _READERS[path.suffix](path)
    except (
        pickle.UnpicklingError, zipfile.BadZipFile, SafetensorError, struct.error,
        EOFError, ValueError, TypeError, AttributeError, KeyError, IndexError,
        OverflowError, MemoryError,
    ) as error:
        raise UserError(
            f"{path} was not read: {error}. Where you trust the file, save its tensors as "
            ".safetensors and give that."
        ) from error
