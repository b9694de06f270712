"""Reads weight files of other frameworks into NumPy without executing anything they contain."""

import pathlib
import struct
import zipfile
from typing import BinaryIO

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from jaxcxr.errors import UserError
from jaxcxr.models.weights import torch_files

# What a folder of a hub holds its weights in, the best first.
IN_FOLDERS = (
    "model.safetensors", "pytorch_model.safetensors", "open_clip_model.safetensors",
    "pytorch_model.bin", "model.pt", "model.pth",
)
ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".tar", ".npz")
# Files beside them that say which input the weights expect, the best first.
SIDECARS = ("preprocessor_config.json", "open_clip_config.json", "config.json")
# First bytes of files that people take for weights, and what to do with them.
_OTHERS = (
    (b"\x89HDF\r\n\x1a\n", "it is an HDF5 file, as Keras writes; save its weights as .npz with the "
     "names of one of the layouts"),
    (b"version https://git-lfs", "it is a pointer of Git LFS, not the file itself; run `git lfs "
     "pull` where it comes from"),
    (b"\x1f\x8b", "it is compressed by gzip; unpack it and give the file inside"),
    (b"BZh", "it is compressed by bzip2; unpack it and give the file inside"),
    (b"\xfd7zXZ", "it is compressed by xz; unpack it and give the file inside"),
    (b"<", "it is a web page; the download was probably of a page of its own"),
    (b"GGUF", "it is a GGUF file of a language model"),
)
_SAFETENSORS_HEADER = 100_000_000  # the greatest that the format allows


def locate(path: str | pathlib.Path) -> pathlib.Path:
    """Returns the weight file at a path: itself, or the one in a folder as hubs lay them out.

    Raises:
      UserError: there is none, or a folder has several.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        named = [path / name for name in IN_FOLDERS if (path / name).is_file()]
        found = named[:1] or [p for p in sorted(path.iterdir()) if p.name.endswith(ENDINGS)]
        if len(found) != 1:
            what = "no weight file" if not found else f"{len(found)} weight files"
            raise UserError(f"{path} is a folder with {what}; give the path of one file.")
        return found[0]
    if not path.is_file():
        raise UserError(f"no weight file at {path}; check the path.")
    return path


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Reads every tensor of a weight file, recognised by its content whatever its name.

    Pickles of torch build tensors and run no code, see `torch_files`.

    Arguments:
      path: a file of safetensors, torch or NumPy (.npz), or a folder with one.

    Returns:
      Tensor name -> array in the dtype of the file. In a torch file, keys of dicts around the
      state dict are part of the names.

    Raises:
      UserError: absent, of another kind, damaged, or without tensors.
    """
    path = locate(path)
    try:
        with path.open("rb") as file:
            return _read(file, path)
    except (
        zipfile.BadZipFile, SafetensorError, struct.error, RecursionError,
        EOFError, ValueError, TypeError, AttributeError, KeyError, IndexError, ImportError,
        OverflowError, MemoryError, OSError, NotImplementedError,
    ) as error:
        raise UserError(
            f"{path} was not read: {error}. Where you trust the file, save its tensors as "
            ".safetensors and give that."
        ) from error


def _read(file: BinaryIO, path: pathlib.Path) -> dict[str, np.ndarray]:
    start = file.read(512)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            npz = any(name.endswith(".npy") for name in archive.namelist())
        file.seek(0)
        return _read_npz(file) if npz else torch_files.read(file)
    file.seek(0)
    (header,) = struct.unpack("<Q", start[:8].ljust(8, b"\0"))
    if header <= _SAFETENSORS_HEADER and start[8:9] == b"{":
        return safetensors.numpy.load_file(path)
    if start[:1] == b"\x80":
        return torch_files.read(file)
    for magic, reason in _OTHERS:
        if start.lstrip().startswith(magic):
            raise ValueError(reason)
    if start[257:262] == b"ustar":
        raise ValueError("it is a tar archive; unpack it and give the file inside")
    if start[:4] == b"PK\x03\x04":
        raise ValueError("it is cut short: a zip archive without its end")
    raise ValueError("it is no file of safetensors, torch or NumPy (.npz)")


def _read_npz(file: BinaryIO) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as archive:
        return dict(archive)
