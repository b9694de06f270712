"""Costly records, made by several processes and kept on disk until the data set is written.

TFDS writes a data set in one go and starts from nothing after an interruption. Decoding, resizing
and equalising a hundred thousand radiographs takes hours, so each chunk of finished records is put
on disk first (msgpack, never pickle) under a name that is the hash of what went into it: a chunk
is found again only by the same records made with the same options.
"""

import concurrent.futures
import contextlib
import contextvars
import dataclasses
import functools
import hashlib
import inspect
import json
import multiprocessing
import os
import pathlib
import signal
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import flax.serialization
import numpy as np

import jaxcxr
from jaxcxr.data import progress
from jaxcxr.errors import BadRecord, UserError

Record = tuple[str, dict[str, Any]]
Encode = Callable[[Any], Record]
Task = tuple[list, pathlib.Path]  # the items of a chunk and the file for its records
Make = Callable[[Encode, list[Task]], Iterator[tuple[int, dict]]]

_SCALARS = (str, bytes, bool, int, float, os.PathLike, np.generic)
_NAMED = 10  # bad records written out in a message
_PATIENCE = 100  # bad records beyond the allowed number after which going on tells nothing new
_PACKAGE = pathlib.Path(__file__).parents[1]  # all code that can have a part in a record
_elsewhere: contextvars.ContextVar[Make | None] = contextvars.ContextVar("elsewhere", default=None)


def directory_of(builder) -> pathlib.Path:
    """Folder for the staged chunks of one builder, beside the versions of its variant.

    It survives a failed or killed `download_and_prepare`; `prepare` removes it at the end.
    """
    variant = pathlib.Path(builder.data_dir_root, builder.name, builder.builder_config.name)
    return variant / f"staging-{builder.version}"


@contextlib.contextmanager
def made_by(make: Make) -> Iterator[None]:
    """Lets `make` make the chunks of this context, in place of processes on this machine.

    Arguments:
      make: from `encode` and the tasks to (number of the task, summary), as they get finished; it
        has `encode_chunk` called for each task, wherever it likes.
    """
    token = _elsewhere.set(make)
    try:
        yield
    finally:
        _elsewhere.reset(token)


@dataclasses.dataclass(frozen=True)
class Staged:
    """Finished records of one split, read back from disk in order at every iteration.

    Attributes:
      label: what the progress bar calls the reading, which goes into TFDS's shuffling.
      chunks: (file, number of records in it) for each chunk, in order.
    """

    label: str
    chunks: tuple[tuple[pathlib.Path, int], ...]

    def __len__(self) -> int:
        return sum(records for _, records in self.chunks)

    def __iter__(self) -> Iterator[Record]:
        with progress.Progress(self.label, len(self), brief=True) as bar:
            for path, records in self.chunks:
                yield from ((key, record) for key, record in _read(path))
                bar.advance(records)


def staged(
    items: Sequence,
    encode: Encode,
    *,
    directory: str | os.PathLike,
    workers: int,
    chunk: int = 64,
    label: str = "",
    max_bad: int = 0,
) -> Iterator[Record]:
    """Records of one split, made on first use: `staged_splits` with a single split.

    Arguments, errors: as for `staged_splits`.

    Returns:
      Iterator of (key, record) in the order of `items`, without the bad ones.
    """
    options = {"workers": workers, "chunk": chunk, "label": label, "max_bad": max_bad}
    yield from staged_splits({"": items}, encode, directory=directory, **options)[""]


def staged_splits(
    splits: Mapping[str, Sequence],
    encode: Encode,
    *,
    directory: str | os.PathLike,
    workers: int,
    chunk: int = 64,
    label: str = "",
    max_bad: int = 0,
) -> dict[str, Staged]:
    """Makes the records of all splits now, with one progress bar and one budget of bad records.

    Arguments:
      splits: for each split its items: dataclasses, tuples, numbers, strings, paths or arrays.
      encode: top-level function (or `functools.partial` of one) from an item to (key, record);
        a record is a dict of bytes, str, numbers and NumPy arrays. Raises `BadRecord` for
        an item that cannot be used.
      directory: folder for the finished chunks; the caller removes it when all is written.
      workers: number of processes; 0 works in this process.
      chunk: items per chunk, the unit of progress, of work handed out and of what a kill loses.
      label: what the progress bar calls the work.
      max_bad: how many bad items are tolerated, over all splits together.

    Returns:
      The finished records of each split, without the bad ones.

    Raises:
      UserError: more than `max_bad` bad items (named), or a worker process was killed.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for left_over in directory.glob("*.part-*"):
        left_over.unlink(missing_ok=True)
    tasks, owner = [], []
    for split, items in splits.items():
        for start in range(0, len(items), chunk):
            part = list(items[start : start + chunk])
            tasks.append((part, directory / f"{_fingerprint(encode, part)}.msgpack"))
            owner.append(split)
    summaries = _run(encode, tasks, workers=workers, label=label, max_bad=max_bad)
    chunks: dict[str, list] = {split: [] for split in splits}
    for split, (_, path), summary in zip(owner, tasks, summaries, strict=True):
        chunks[split].append((path, summary["records"]))
    return {
        split: Staged(f"{label}, shuffling {split}".rstrip(" ,"), tuple(parts))
        for split, parts in chunks.items()
    }


def _run(encode, tasks, *, workers, label, max_bad) -> list[dict]:
    """Makes what is not on disk yet; returns each chunk's summary in order."""
    summaries = [_summary(path) for _, path in tasks]
    missing = [index for index, summary in enumerate(summaries) if summary is None]
    total = sum(len(part) for part, _ in tasks)
    done = total - sum(len(tasks[index][0]) for index in missing)
    bad = [line for summary in summaries if summary for line in summary["bad"]]
    with progress.Progress(label, total, done) as bar:
        for index, summary in _made(encode, tasks, missing, workers):
            summaries[index] = summary
            bad += summary["bad"]
            bar.advance(len(tasks[index][0]), bad=len(bad))
            if len(bad) > max_bad + _PATIENCE:
                break
    if len(bad) > max_bad:
        raise UserError(_too_many(label, bad, max_bad))
    if bad:
        progress.say(f"{label}: left out {len(bad)} bad records: {_named(bad)}")
    return summaries


def _made(encode, tasks, missing, workers) -> Iterator[tuple[int, dict]]:
    """Chunks as they get finished, as (index, summary)."""
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
    multiprocessing.parent_process().join()
    os._exit(1)


def encode_chunk(encode: Encode, items: list, path: pathlib.Path) -> dict:
    """Makes one chunk and puts it on disk: the records first, then the summary that vouches.

    Whoever makes the same chunk a second time, even at the same time, does no harm.

    Arguments:
      encode, items: as for `staged_splits`.
      path: file for the records; that of the summary ends in .json.

    Returns:
      The summary: number of "records", messages of the "bad" ones, "bytes" of the file.
    """
    records, bad = [], []
    for item in items:
        try:
            key, record = encode(item)
        except BadRecord as error:
            bad.append(str(error))
        else:
            records.append([key, record])
    content = flax.serialization.msgpack_serialize({"records": records})
    summary = {"records": len(records), "bad": bad, "bytes": len(content)}
    _write(path, content)
    _write(path.with_suffix(".json"), json.dumps(summary).encode())
    return summary


def _write(path: pathlib.Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.part-{uuid.uuid4().hex}")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)  # a full disk needs the space
        raise


def _summary(path: pathlib.Path) -> dict | None:
    """Summary of a chunk that can be used again, else None."""
    summary = read_summary(path)
    # What was bad is tried again: the user may have mended the file since.
    return summary if summary and not summary["bad"] else None


def read_summary(path: pathlib.Path) -> dict | None:
    """Summary of the chunk at `path`, as `encode_chunk` returned it; None unless it is whole."""
    try:
        summary = json.loads(path.with_suffix(".json").read_bytes())
        return summary if path.stat().st_size == summary["bytes"] else None
    except (FileNotFoundError, ValueError):
        return None


def _read(path: pathlib.Path) -> list:
    return flax.serialization.msgpack_restore(path.read_bytes())["records"]


def _fingerprint(encode: Encode, items: Iterable) -> str:
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
    """Digest of a package's sources: changed code must not reuse the old code's records."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        _update(digest, (str(path.relative_to(package)), path.read_bytes()))
    return digest.digest()


@functools.cache
def _source(function) -> bytes:
    """Text of the function's own module, which can lie outside the package."""
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
