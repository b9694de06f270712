"""Makes records in several processes and keeps them on disk until the shards are written.

Decoding, resizing and equalising a hundred thousand radiographs takes hours. So each chunk of
finished records goes to disk, serialized, under the hash of its items, options and code: an
interrupted preparation finds exactly the chunks that are still right.
"""

import collections
import concurrent.futures
import contextlib
import contextvars
import dataclasses
import functools
import hashlib
import inspect
import itertools
import json
import multiprocessing
import os
import pathlib
import signal
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import cv2
import numpy as np

import jaxcxr
from jaxcxr.data import progress
from jaxcxr.errors import BadRecord, UserError

Records = dict[str, dict[str, Any]]  # of one item, by a key that is unique in the split
Encode = Callable[[Any], Iterable[tuple[str, bytes]]]  # an item's records, serialized
Task = tuple[list, pathlib.Path]  # the items of a chunk and the file for its records
Make = Callable[[Encode, list[Task]], Iterator[tuple[int, dict]]]

_SCALARS = (str, bytes, bool, int, float, os.PathLike, np.generic)
_NAMED = 10  # bad records written out in a message
_PATIENCE = 100  # bad records beyond the allowed number before the work stops
_PACKAGE = pathlib.Path(__file__).parents[1]  # any of its code can shape a record
_notes: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("notes", default=None)
_elsewhere: contextvars.ContextVar[Make | None] = contextvars.ContextVar("elsewhere", default=None)


def directory_of(builder) -> pathlib.Path:
    """Returns the folder for the chunks of a builder, beside the versions of its variant.

    It survives a failed or killed preparation; `prepare` removes it at the end.
    """
    variant = pathlib.Path(builder.data_dir_root, builder.name, builder.builder_config.name)
    return variant / f"staging-{builder.version}"


@contextlib.contextmanager
def made_by(make: Make) -> Iterator[None]:
    """Lets `make` make the chunks inside this context, in place of processes of this machine.

    Arguments:
      make: function of `encode` and the tasks that calls `encode_chunk` for each task, anywhere,
        and yields (number of the task, summary) as they finish.
    """
    token = _elsewhere.set(make)
    try:
        yield
    finally:
        _elsewhere.reset(token)


def note(text: str) -> None:
    """Notes what `encode` recognised in an item; the user reads each text once, with a count."""
    notes = _notes.get()
    if notes is not None:
        notes.append(text)


@dataclasses.dataclass(frozen=True)
class Staged:
    """A finished record: its key and its place in a file."""

    key: str
    path: pathlib.Path
    start: int
    size: int

    def read(self) -> bytes:
        """Reads the serialized record."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)


def spooled(records: Iterable[tuple[str, bytes]], directory: pathlib.Path) -> list[Staged]:
    """Writes records that are quick to make to disk, in this process.

    The caller removes `directory` when all is written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{uuid.uuid4().hex}.records"
    return _staged(path, _write(path, records))


def staged_splits(
    splits: Mapping[str, Sequence],
    encode: Callable[[Any], Records],
    serialize: Callable[[dict], bytes],
    *,
    directory: str | os.PathLike,
    workers: int,
    chunk: int = 64,
    label: str = "",
    max_bad: int = 0,
) -> dict[str, list[Staged]]:
    """Makes the records of all splits, with one progress bar and one budget of bad records.

    Arguments:
      splits: for each split its items: dataclasses, tuples, numbers, strings, paths or arrays.
      encode: top-level function (or `functools.partial` of one) from an item to its records.
        It raises `BadRecord` for an item that cannot be used.
      serialize: the bytes of a record, such as `tfds.features.FeaturesDict.serialize_example`.
      directory: folder for the finished chunks; the caller removes it when all is written.
      workers: number of processes; 0 works in this process.
      chunk: items per chunk, the unit of work, of progress and of what a kill loses.
      label: name of the work in the progress bar.
      max_bad: bad items that are tolerated in all splits together.

    Returns:
      The finished records of each split in the order of its items, without the bad ones.

    Raises:
      UserError: more than `max_bad` bad items (named), nothing else than bad items, or a worker
        process was killed.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for left_over in directory.glob("*.part-*"):
        left_over.unlink(missing_ok=True)
    tasks, owner = [], []
    for split, items in splits.items():
        for start in range(0, len(items), chunk):
            part = list(items[start : start + chunk])
            tasks.append((part, directory / f"{_fingerprint(encode, part)}.records"))
            owner.append(split)
    make = functools.partial(_serialized, encode, serialize)
    summaries = _run(make, tasks, workers=workers, label=label, max_bad=max_bad)
    found: dict[str, list[Staged]] = {split: [] for split in splits}
    for split, (_, path), summary in zip(owner, tasks, summaries, strict=True):
        found[split] += _staged(path, summary)
    empty = [split for split, items in splits.items() if len(items) and not found[split]]
    if empty and not any(found.values()):
        raise UserError(f"{label or 'preparation'}: nothing is left, all records are bad.")
    for split in empty:
        progress.say(f"{label}: all {len(splits[split]):,} items of {split} are bad; the data set "
                     f"has no {split} split.")
    return found


def _serialized(encode, serialize, item) -> list[tuple[str, bytes]]:
    return [(key, serialize(record)) for key, record in encode(item).items()]


def _staged(path: pathlib.Path, summary: dict) -> list[Staged]:
    keys, sizes = summary["keys"], summary["sizes"]
    starts = itertools.accumulate(sizes, initial=0)
    return [Staged(key, path, *place) for key, *place in zip(keys, starts, sizes, strict=False)]


def _run(encode, tasks, *, workers, label, max_bad) -> list[dict]:
    """Makes the chunks that are not on disk; returns the summary of each chunk in order."""
    found = {i: summary for i, (_, path) in enumerate(tasks) if (summary := _summary(path))}
    missing = [index for index in range(len(tasks)) if index not in found]
    total = sum(len(part) for part, _ in tasks)
    done = total - sum(len(tasks[index][0]) for index in missing)
    bad: list[str] = []  # a chunk with bad records is always missing
    with progress.Progress(label, total, done) as bar:
        for index, summary in _made(encode, tasks, missing, workers):
            found[index] = summary
            bad += summary["bad"]
            bar.advance(len(tasks[index][0]), bad=len(bad))
            if len(bad) > max_bad + _PATIENCE:
                break
    if len(bad) > max_bad:
        raise UserError(_too_many(label, bad, max_bad))
    if bad:
        progress.say(f"{label}: left out {len(bad)} bad records: {_named(bad)}")
    notes: collections.Counter[str] = collections.Counter()
    for summary in found.values():
        notes.update(summary.get("notes", {}))
    for text, count in notes.most_common(_NAMED):
        progress.say(f"{label}: {count:,} of {total:,}: {text}")
    return [found[index] for index in range(len(tasks))]


def _made(encode, tasks, missing, workers) -> Iterator[tuple[int, dict]]:
    """Yields (index, summary) of each chunk as it is finished."""
    make = _elsewhere.get()
    if make is not None:
        for number, summary in make(encode, [tasks[index] for index in missing]):
            yield missing[number], summary
        return
    if workers == 0:
        for index in missing:
            yield index, encode_chunk(encode, *tasks[index])
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        min(workers, max(1, len(missing))),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(pool.shutdown, cancel_futures=True)
        futures = {pool.submit(encode_chunk, encode, *tasks[i]): i for i in missing}
        try:
            for future in concurrent.futures.as_completed(futures):
                yield futures.pop(future), future.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise UserError(
                "a worker process was killed, probably for want of memory: run the same command "
                f"again with fewer than {workers} workers; what is finished is kept"
            ) from error


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    cv2.setNumThreads(1)  # the processes are the parallelism
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    # A parent killed by SIGKILL cannot stop its pool, whose processes would then wait for ever.
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def encode_chunk(encode: Encode, items: list, path: pathlib.Path) -> dict:
    """Makes one chunk and writes it to disk: the records first, then the summary.

    Two processes may make the same chunk, even at the same time.

    Arguments:
      path: file for the records; that of the summary ends in .json.

    Returns:
      The summary: "keys" and "sizes" of the records in bytes, messages of the "bad" items, and how
      often each of the "notes" was made.
    """
    bad: list[str] = []
    notes: list[str] = []

    def records():
        for item in items:
            try:
                made = encode(item)
            except BadRecord as error:
                bad.append(str(error))
            else:
                yield from made

    token = _notes.set(notes)
    try:
        summary = _write(path, records()) | {"bad": bad, "notes": collections.Counter(notes)}
    finally:
        _notes.reset(token)
    with _replacing(path.with_suffix(".json")) as file:
        file.write(json.dumps(summary).encode())
    return summary


def _write(path: pathlib.Path, records: Iterable[tuple[str, bytes]]) -> dict:
    summary: dict[str, list] = {"keys": [], "sizes": []}
    with _replacing(path) as file:
        for key, content in records:
            file.write(content)
            summary["keys"].append(key)
            summary["sizes"].append(len(content))
    return summary


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Opens a file that replaces `path` when it is complete."""
    part = path.with_name(f"{path.name}.part-{uuid.uuid4().hex}")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)  # a full disk needs the space
        raise


def _summary(path: pathlib.Path) -> dict | None:
    """Returns the summary of a chunk that can be used again, else None."""
    summary = read_summary(path)
    # Bad items are tried again: the user may have mended their files.
    return summary if summary and not summary["bad"] else None


def read_summary(path: pathlib.Path) -> dict | None:
    """Reads the summary that `encode_chunk` wrote for `path`; None unless the chunk is whole."""
    try:
        summary = json.loads(path.with_suffix(".json").read_bytes())
        return summary if path.stat().st_size == sum(summary["sizes"]) else None
    except (FileNotFoundError, ValueError):
        return None


def _fingerprint(encode: Callable, items: Iterable) -> str:
    digest = hashlib.sha256(jaxcxr.__version__.encode() + _code(_PACKAGE))
    for part in (encode, *items):
        _update(digest, part)
    return digest.hexdigest()[:32]


def _update(digest, value) -> None:
    """Feeds a value to a digest; equal values give equal bytes in every process."""
    if isinstance(value, functools.partial):
        _update(digest, ("partial", value.func, value.args, value.keywords))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        _update(digest, (type(value).__qualname__, fields))
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    elif isinstance(value, Mapping):
        _update(digest, tuple(value.items()))
    elif isinstance(value, (tuple, list)):
        digest.update(f"({len(value)}".encode())
        for part in value:
            _update(digest, part)
    elif inspect.isfunction(value):
        digest.update(f"{value.__module__}.{value.__qualname__};".encode() + _source(value))
    elif value is None or isinstance(value, _SCALARS):
        digest.update(f"{type(value).__name__}:{value!r};".encode())
    else:
        raise TypeError(f"an item to be staged holds a {type(value)}; give plain data")


@functools.cache
def _code(package: pathlib.Path) -> bytes:
    """Hashes a package's sources: changed code must not reuse old records."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        _update(digest, (str(path.relative_to(package)), path.read_bytes()))
    return digest.digest()


@functools.cache
def _source(function) -> bytes:
    """Reads the source of a function's module, which can lie outside the package."""
    return pathlib.Path(inspect.getfile(function)).read_bytes()


def _named(bad: Sequence[str]) -> str:
    more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    return "; ".join(sorted(bad)[:_NAMED]) + more


def _too_many(label: str, bad: Sequence[str], max_bad: int) -> str:
    return (
        f"{label or 'preparation'}: {len(bad)} bad records, more than max_bad={max_bad} allows: "
        f"{_named(bad)}. Mend the files, or allow as many with --max-bad; run the same command "
        "again to go on, what is finished is kept."
    )


def usable_cores() -> int:
    """Counts the cores that this process may use: on Linux those it is bound to."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
