"""Writes and reads the file of a bundle: a zip of named files with their SHA-256, without code.

All members are stored, not compressed, so that reading never takes more memory than the file has
bytes. `bundle.json` names the format, its version, and the size and hash of every other member.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

from jaxcxr.errors import UserError

FORMAT, VERSION = "jaxcxr bundle", 1
FACTS = "bundle.json"
# Most bytes of a member; JSON takes many times more in memory than on disk.
LIMITS = {
    FACTS: 2**22,
    "config.json": 2**22,
    "calibration.json": 2**24,
    "metrics.json": 2**24,
    "guard.safetensors": 2**28,
    "weights.safetensors": 2**34,
    "LICENSE.txt": 2**20,
}
_DATE = (1980, 1, 1, 0, 0, 0)  # so that equal contents give equal files


@dataclasses.dataclass(frozen=True)
class Archive:
    """The contents of a bundle's file.

    Attributes:
      facts: of `bundle.json`.
      files: name -> bytes of the other members, their hashes checked.
      digest: SHA-256 of `bundle.json`, which identifies the whole bundle.
    """

    facts: Mapping[str, Any]
    files: Mapping[str, bytes]
    digest: str

    def json(self, name: str) -> Any:
        """Parses a member; a UserError where it is absent or not JSON."""
        if name not in self.files:
            raise UserError(f"the bundle has no {name}; make it again by `jaxcxr bundle`")
        return _json(self.files[name], name)


def write(path: pathlib.Path, facts: Mapping[str, Any], files: Mapping[str, bytes]) -> str:
    """Writes a bundle, whole or not at all, and returns its digest.

    Arguments:
      path: file to write.
      facts: of `bundle.json`, JSON types only; format, version and hashes are added.
      files: name, one of `LIMITS`, -> bytes.

    Raises:
      UserError: a member is too large, or the file cannot be written.
    """
    for name, content in files.items():
        if len(content) > LIMITS[name]:
            raise UserError(f"{name} would have {len(content):,} bytes; at most {LIMITS[name]:,}")
    hashes = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in files.items()
    }
    record = {"format": FORMAT, "version": VERSION, **facts, "files": hashes}
    text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False, sort_keys=True)
    head = f"{text}\n".encode()
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as file:
            for name, content in {FACTS: head, **files}.items():
                file.writestr(zipfile.ZipInfo(name, _DATE), content)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(
            f"{path} cannot be written ({error.strerror}); give another --out"
        ) from error
    return hashlib.sha256(head).hexdigest()


def read(path: pathlib.Path) -> Archive:
    """Reads a bundle and checks all that can be checked without its model.

    Raises:
      UserError: the file is no bundle, of another version, damaged, or larger than allowed.
    """
    try:
        with zipfile.ZipFile(path) as file:
            files = _members(file, path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise UserError(f"{path} is no bundle, or damaged ({error})") from error
    head = files.pop(FACTS)
    facts = _json(head, f"{path}: {FACTS}")
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise UserError(f"{path} is no bundle; `jaxcxr bundle` writes one")
    if facts.get("version") != VERSION:
        raise UserError(
            f"{path} is of version {facts.get('version')!r} of the format, but this jaxcxr reads "
            f"{VERSION}; use the jaxcxr that wrote it, or make the bundle again"
        )
    _check_hashes(path, facts.get("files"), files)
    return Archive(facts, files, hashlib.sha256(head).hexdigest())


def _members(file: zipfile.ZipFile, path: pathlib.Path) -> dict[str, bytes]:
    """Reads every member, once names, sizes and forms of storage are found valid."""
    entries = file.infolist()
    names = [entry.filename for entry in entries]
    if FACTS not in names:
        raise UserError(f"{path} is no bundle (it holds no {FACTS}); `jaxcxr bundle` writes one")
    for entry in entries:
        if entry.filename not in LIMITS or names.count(entry.filename) > 1:
            raise UserError(f"{path} is no bundle: {entry.filename[:80]!r} does not belong there")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise UserError(f"{path} is no bundle: {entry.filename} is compressed")
        if entry.file_size > LIMITS[entry.filename]:
            raise UserError(
                f"{path}: {entry.filename} has {entry.file_size:,} bytes; at most "
                f"{LIMITS[entry.filename]:,} are read"
            )
    if sum(entry.file_size for entry in entries) > os.path.getsize(path):
        raise UserError(f"{path} is damaged: its parts are larger than the file")
    return {entry.filename: file.read(entry) for entry in entries}


def _check_hashes(path: pathlib.Path, listed: Any, files: Mapping[str, bytes]) -> None:
    if not isinstance(listed, dict) or listed.keys() != files.keys():
        raise UserError(f"{path} is damaged: {FACTS} lists other files than there are")
    for name, content in files.items():
        entry = listed[name]
        found = hashlib.sha256(content).hexdigest()
        if not isinstance(entry, dict) or entry.get("sha256") != found:
            raise UserError(f"{path} is damaged: the SHA-256 of {name} is not the one in {FACTS}")


def _json(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({error})") from error
