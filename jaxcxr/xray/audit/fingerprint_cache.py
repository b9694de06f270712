"""Takes fingerprints of image files, and keeps them in the user's cache folder.

An interrupted audit goes on where it stopped, and the next one reads only files that changed.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from jaxcxr.data import progress
from jaxcxr.errors import BadRecord
from jaxcxr.xray.audit import duplicates
from jaxcxr.xray.images import film_files, fingerprint

_AT_ONCE = 256  # files between two writes
_CODE = (pathlib.Path(film_files.__file__).parent, pathlib.Path(duplicates.__file__))
_TABLE = """CREATE TABLE IF NOT EXISTS fingerprints (
    path TEXT, bytes INTEGER, changed INTEGER, sha256 TEXT, phash TEXT, small BLOB, height INTEGER,
    width INTEGER, patient TEXT, sex TEXT, age INTEGER, view TEXT, error TEXT, PRIMARY KEY (path)
)"""


@dataclasses.dataclass(frozen=True)
class Seen:
    """Holds what a file shows, or why it cannot be read.

    Attributes:
      sha256, phash: of the film, see `fingerprint`.
      small: the film as `duplicates.thumbnail` shrinks it, its bytes.
      height, width: pixels.
      patient, sex, age, view: of a DICOM header.
      error: why the file is no film; "" if it is one.
    """

    sha256: str = ""
    phash: int = 0
    small: bytes = b""
    height: int = 0
    width: int = 0
    patient: str = ""
    sex: str = ""
    age: int = -1
    view: str = ""
    error: str = ""


def of_files(paths: Sequence[pathlib.Path], label: str) -> list[Seen]:
    """Reads films, or takes what the cache has of files of the same size and time.

    Arguments:
      paths: files.
      label: names the work while it goes on.
    """
    keys = [(os.path.abspath(path), *_state(path)) for path in paths]
    with _database() as database:
        found = _cached(database, keys)
        todo = [key for key in dict.fromkeys(keys) if key not in found]
        if todo:
            found |= _read(database, todo, label, len(set(keys)))
    return [found[key] for key in keys]


def _read(database, todo: Sequence[tuple], label: str, total: int) -> dict[tuple, Seen]:
    """Reads files that the cache has not, and adds them to it."""
    found: dict[tuple, Seen] = {}
    with progress.Progress(label, total, total - len(todo), brief=True) as bar:
        for start in range(0, len(todo), _AT_ONCE):
            part = todo[start : start + _AT_ONCE]
            seen = duplicates.in_threads(_look, [pathlib.Path(key[0]) for key in part])
            fresh = dict(zip(part, seen, strict=True))
            _keep(database, fresh)
            found |= fresh
            bar.advance(len(part))
    return found


def _look(path: pathlib.Path) -> Seen:
    try:
        film, header = film_files.read_described(path)
    except BadRecord as error:
        return Seen(error=str(error).removeprefix(f"{path}: "))
    pixels = film.gray8
    told: dict[str, Any] = {} if header is None else {
        "patient": header.patient_id, "sex": header.sex, "age": header.age, "view": header.view
    }
    return Seen(
        sha256=fingerprint.pixel_sha256(pixels), phash=fingerprint.perceptual_hash(pixels),
        small=duplicates.thumbnail(pixels).tobytes(), height=pixels.shape[0],
        width=pixels.shape[1], **told,
    )


def _state(path: pathlib.Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except OSError:
        return 0, 0
    return state.st_size, state.st_mtime_ns


@functools.cache
def _version() -> str:
    """Names the code that reads films: another one may see other pixels."""
    files = [*sorted(_CODE[0].glob("*.py")), _CODE[1]]
    digest = hashlib.sha256(f"{cv2.__version__} {np.__version__}".encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _database() -> Iterator[sqlite3.Connection | None]:
    """Opens the cache; None, after a line that says so, if it cannot be written."""
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path("~/.cache").expanduser()
    path = pathlib.Path(root) / "jaxcxr" / "fingerprints" / f"{_version()}.sqlite"
    database = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(path, timeout=60)
        database.execute(_TABLE)
        database.commit()
    except (OSError, sqlite3.Error) as error:
        progress.say(f"fingerprints are not kept for the next audit: {path}: {error}")
        if database is not None:
            database.close()
            database = None
    with contextlib.closing(database) if database else contextlib.nullcontext():
        yield database


def _cached(database, keys: Sequence[tuple[str, int, int]]) -> dict[tuple, Seen]:
    if database is None:
        return {}
    names = ", ".join(field.name for field in dataclasses.fields(Seen))
    found = {}
    try:
        for key in keys:
            row = database.execute(
                f"SELECT {names} FROM fingerprints WHERE path=? AND bytes=? AND changed=?", key
            ).fetchone()
            if row:
                seen = Seen(*row)
                found[key] = dataclasses.replace(seen, phash=int(seen.phash))
    except sqlite3.Error as error:
        progress.say(f"the cache of fingerprints cannot be read and is not used: {error}")
    return found


def _keep(database, fresh: dict[tuple, Seen]) -> None:
    """Adds to the cache what was read; files that could not be read may be there next time."""
    if database is None:
        return
    rows = [
        (*key, *(str(value) if name == "phash" else value for name, value in vars(seen).items()))
        for key, seen in fresh.items() if not seen.error
    ]
    names = ["path", "bytes", "changed", *(field.name for field in dataclasses.fields(Seen))]
    marks = ", ".join("?" * len(names))
    with contextlib.suppress(sqlite3.Error), database:  # a full disk costs the cache, no audit
        database.executemany(
            f"INSERT OR REPLACE INTO fingerprints ({', '.join(names)}) VALUES ({marks})", rows
        )
