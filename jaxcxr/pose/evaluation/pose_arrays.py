"""Files of poses from any framework: one array per sequence, or one array with an index.

1. `.npz` of one array `[frames, joints, 3]` per sequence, called "subject/action/camera", such as
   "S9/Directions 1/54138969" or "Validate/S1/Walking 1 chunk0/0".
2. `.npz` with `poses` `[N, joints, 3]` and for each row `subject`, `action` and `camera`, or
   `sequence` (as in 1, or MotionBERT's source such as "s_09_act_05_subact_02_ca_01"); `frame`
   (whole numbers) where frames are missing or out of order; `state`, whose rows "absent" are left
   out.
3. `.npy` `[frames, joints, 3]` of a single sequence, as VideoPose3D exports predictions; which one
   must be said.

Both kinds of `.npz` may say `unit` ("m" or "mm"), `protocol`, `joint_set` (of
`jaxcxr.pose.geometry.joint_sets`; by default the joints are the protocol's) and `fps` (0: several
rates). A joint that is not finite in the labels is missing. Nothing is unpickled.
"""

import dataclasses
import hashlib
import pathlib
import re
import zipfile
import zlib
from typing import BinaryIO

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.formats.videopose3d_files import parse_source

_ABOUT = ("unit", "protocol", "joint_set", "fps")
_INDEX = ("sequence", "subject", "action", "camera", "frame", "state")
# What NumPy and zipfile raise on damaged files, an unknown compression among them.
_DAMAGE = (
    ValueError, EOFError, KeyError, OSError, NotImplementedError, RuntimeError, SyntaxError,
    MemoryError, zipfile.BadZipFile, zlib.error,
)
_ALIASES = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog"}


@dataclasses.dataclass(frozen=True, order=True)
class Key:
    """Which motion, seen by which camera; `action` is the whole name, such as "Walking 1"."""

    subject: str
    action: str
    camera: str

    @property
    def kind(self) -> str:
        """The action without its number."""
        return self.action.split(" ")[0]

    @property
    def motion(self) -> str:
        """The recording, of which a camera shows one view and a chunk one part.

        Some files name an action after its camera too, "03_04_55011271".
        """
        action = self.action.removesuffix(f"_{self.camera}")
        return f"{self.subject}/{re.sub(r' chunk[0-9]+$', '', action)}"

    def __str__(self):
        return f"{self.subject}/{self.action}/{self.camera}"


@dataclasses.dataclass(frozen=True)
class PoseFile:
    """Poses by sequence.

    Attributes:
      fingerprint: the file's name and the SHA-256 of its bytes.
      sequences: frame numbers `[frames]` in order, and poses `[frames, joints, 3]`.
      about: `unit`, `protocol`, `joint_set` and `fps`, as far as the file says them.
      numbered: whether the file numbers its frames; else they count from 0, in order.
    """

    path: pathlib.Path
    fingerprint: dict[str, str]
    sequences: dict[Key, tuple[np.ndarray, np.ndarray]]
    about: dict[str, str]
    numbered: bool = False


def read(path: str | pathlib.Path, sequence: str | None = None) -> PoseFile:
    """Reads a file of one of the three forms; `sequence` names that of a `.npy` file."""
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            fingerprint = {
                "name": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()
            }
            file.seek(0)
            return _read(file, path, fingerprint, sequence)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error


def _read(file: BinaryIO, path: pathlib.Path, fingerprint, sequence: str | None) -> PoseFile:
    try:
        content = np.load(file, allow_pickle=False)
    except _DAMAGE as error:
        raise _unreadable(path, error) from error
    if isinstance(content, np.ndarray):
        if sequence is None:
            raise UserError(
                f"{path}: one array does not say which sequence it is of; add --sequence "
                "subject/action/camera"
            )
        poses = _poses(content, path, sequence)
        key = parse_key(sequence, path)
        return PoseFile(path, fingerprint, {key: (np.arange(len(poses)), poses)}, {})
    about = {name: str(_member(content, name, path)) for name in _ABOUT if name in content}
    if about.get("unit", "mm") not in ("m", "mm"):
        raise UserError(f"{path}: unit is {about['unit']!r}; m and mm are known")
    try:
        float(about.get("fps", 0))
    except ValueError:
        raise UserError(f"{path}: fps is {about['fps']!r}; give frames per second") from None
    sequences = (_read_indexed if "poses" in content else _read_named)(content, path)
    if not sequences:
        raise UserError(f"{path}: no array of poses in it")
    numbered = "poses" in content.files and "frame" in content.files
    return PoseFile(path, fingerprint, sequences, about, numbered)


def parse_key(name: str, path: pathlib.Path | str) -> Key:
    """Parses a sequence's name, "subject/action/camera" or MotionBERT's source."""
    source = parse_source(name)
    if source:
        return Key(*source)
    parts = name.rsplit("/", 2)
    if len(parts) != 3 or not all(part.strip() for part in parts):
        raise UserError(
            f"{path}: {name!r} is no sequence; sequences are called subject/action/camera, such "
            "as S9/Directions 1/54138969"
        )
    subject, action, camera = parts
    word, space, rest = action.partition(" ")
    return Key(subject, _ALIASES.get(word, word) + space + rest, camera)


def _read_named(content, path) -> dict:
    sequences: dict[Key, tuple] = {}
    for name in content.files:
        if name in _ABOUT:
            continue
        poses = _poses(_member(content, name, path), path, name)
        key = parse_key(name, path)
        if key in sequences:
            raise UserError(f"{path}: two arrays are of the sequence {key}; remove one")
        sequences[key] = (np.arange(len(poses)), poses)
    return sequences


def _read_indexed(content, path) -> dict:
    poses = _poses(_member(content, "poses", path), path, "poses")
    columns = {name: _member(content, name, path) for name in _INDEX if name in content}
    for name, values in columns.items():
        if values.shape != (len(poses),):
            raise UserError(
                f"{path}: {name} has the shape {values.shape}, but there are {len(poses)} poses"
            )
    if "state" in columns:
        there = columns.pop("state") != "absent"
        poses, columns = poses[there], {name: part[there] for name, part in columns.items()}
    if "sequence" in columns:
        names = columns["sequence"].astype(str)
    elif {"subject", "action", "camera"} <= columns.keys():
        parts = [columns[name].astype(str) for name in ("subject", "action", "camera")]
        names = np.array(["/".join(row) for row in zip(*parts, strict=True)])
    else:
        raise UserError(
            f"{path}: poses need subject, action and camera, or sequence, beside them; found "
            f"{', '.join(content.files)}"
        )
    frames = columns.get("frame")
    if frames is not None and frames.dtype.kind not in "iu":
        raise UserError(f"{path}: frame must be whole numbers, not {frames.dtype}")
    sequences: dict[Key, tuple] = {}
    unique, index = np.unique(names, return_inverse=True)
    rows_of = np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1])
    for name, rows in zip(unique, rows_of, strict=True):
        key = parse_key(str(name), path)
        if key in sequences:
            raise UserError(f"{path}: the sequence {key} goes by two names; use one")
        numbers = np.arange(len(rows)) if frames is None else frames[rows].astype(np.int64)
        order = np.argsort(numbers, kind="stable")
        numbers = numbers[order]
        twice = np.flatnonzero(np.diff(numbers) == 0)
        if len(twice):
            raise UserError(f"{path}: sequence {key} has frame {numbers[twice[0]]} twice")
        sequences[key] = (numbers, poses[rows[order]])
    return sequences


def _member(content, name: str, path) -> np.ndarray:
    try:
        return content[name]
    except _DAMAGE as error:
        raise _unreadable(path, error, name) from error


def _unreadable(path, error: Exception, name: str = "") -> UserError:
    where = f"{path}: {name}" if name else f"{path}"
    if "allow_pickle" in str(error) or "pickled" in str(error):
        return UserError(
            f"{where}: not a plain array but Python objects, which could run anything; save one "
            "array per sequence, np.savez(file, **{'S9/Directions/54138969': poses, ...})"
        )
    return UserError(f"{where}: damaged, or no .npz or .npy file ({error})")


def _poses(values: np.ndarray, path, name: str) -> np.ndarray:
    if values.ndim != 3 or values.shape[-1] != 3 or not len(values):
        raise UserError(
            f"{path}: {name} has the shape {values.shape}; poses are [frames, joints, 3], with at "
            "least one frame"
        )
    if values.dtype.kind not in "fiu":
        raise UserError(f"{path}: {name} holds {values.dtype}, not numbers")
    return values
