"""Holds the resources that requests share: limits, decoding processes, the thread of the model."""

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import struct
import sys
from collections.abc import Callable
from typing import Annotated, Any

import pydantic
import safetensors.numpy
from fastapi import Request

from jaxcxr.data.staging import usable_cores
from jaxcxr.deploy.serve.decoding_process import Reply
from jaxcxr.deploy.serve.limits import Gate, Limits, Refusal, busy, read_body, unusable
from jaxcxr.errors import RunError

MEMORY = 3 * 2**30  # bytes of address space of a process; 40 million pixels of DICOM take 2.5 GiB
_STARTING = 120.0  # most seconds for a process to load its libraries


class Decoders:
    """A pool of `count` processes of `decoding_process`; a file may take `seconds`."""

    def __init__(self, count: int, seconds: float):
        self._count, self._seconds = count, seconds
        # None stands for a process that was ended and is to be started again.
        self._idle: asyncio.Queue[asyncio.subprocess.Process | None] = asyncio.Queue()

    async def start(self) -> None:
        """Starts the processes; a RunError if one does not start."""
        for process in await asyncio.gather(*(_launched() for _ in range(self._count))):
            self._idle.put_nowait(process)

    async def stop(self) -> None:
        """Ends the processes, which must be idle."""
        while not self._idle.empty():
            if process := self._idle.get_nowait():
                await _end(process)

    async def decode(self, content: bytes, **options: Any) -> Reply:
        """Decodes a file into text and arrays, as `decoding_process` answers.

        Raises:
          Refusal: 413 or 422, the file cannot be used.
        """
        try:
            about, arrays = await self._answered(content, options)
        except TimeoutError:
            raise unusable(
                f"decoding took longer than {self._seconds:g} s; save the file in another form."
            ) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise unusable("the file made the decoder fail; save it in another form.") from None
        if "error" in about:
            raise Refusal(about["status"], "cannot be used", about["error"])
        return about, arrays

    async def _answered(self, content: bytes, options: dict[str, Any]) -> Reply:
        process = await self._idle.get()
        try:
            if process is None or process.returncode is not None:
                process = await _launched()
            async with asyncio.timeout(self._seconds):
                return await _asked(process, content, options)
        except BaseException:
            if process is not None:
                await _end(process)
            process = None
            raise
        finally:
            self._idle.put_nowait(process)


async def _launched() -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "jaxcxr.deploy.serve.decoding_process", str(MEMORY),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        # BLAS threads would fill the address space without use.
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        start_new_session=True,  # Ctrl+C reaches the server alone
    )
    try:
        async with asyncio.timeout(_STARTING):
            await _answer(process)
    except (TimeoutError, asyncio.IncompleteReadError) as error:
        await _end(process)
        raise RunError("`python -m jaxcxr.deploy.serve.decoding_process` does not start") from error
    return process


async def _asked(process, content: bytes, options: dict[str, Any]) -> Reply:
    head = json.dumps({**options, "bytes": len(content)})
    process.stdin.write(f"{head}\n".encode())
    process.stdin.write(content)
    await process.stdin.drain()
    return await _answer(process)


async def _answer(process) -> Reply:
    (length,) = struct.unpack("<Q", await process.stdout.readexactly(8))
    arrays = safetensors.numpy.load(await process.stdout.readexactly(length))
    return json.loads(arrays.pop("json").tobytes()), arrays


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kills a process and waits for it."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


@dataclasses.dataclass(frozen=True)
class Job:
    """Work for the thread: maps a list of at most `together` items to as many results."""

    function: Callable[[list], list]
    together: int = 1


class Worker:
    """A thread with a queue of at most `waiting` items."""

    def __init__(self, waiting: int):
        self._most = waiting
        self._waiting: collections.deque = collections.deque()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "model")
        self._task: asyncio.Task | None = None

    async def call(self, job: Job, item: Any) -> Any:
        """Computes the result of an item.

        Raises:
          Refusal: 503, the queue is full.
          Exception: raised by the function, for all items of its batch.
        """
        if len(self._waiting) >= self._most:
            raise busy(f"{len(self._waiting)} requests wait for the model; try again.")
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((job, item, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await future

    async def run(self, function: Callable[[], None]) -> None:
        """Runs a function in the thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def close(self) -> None:
        """Waits for the running call."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _work(self) -> None:
        while batch := self._batch():
            job, items, futures = batch
            loop = asyncio.get_running_loop()
            try:
                results = await loop.run_in_executor(self._thread, job.function, items)
            except Exception as error:
                # Futures of requests that timed out are done already.
                for future in futures:
                    if not future.done():
                        future.set_exception(error)
                continue
            for future, result in zip(futures, results, strict=True):
                if not future.done():
                    future.set_result(result)

    def _batch(self) -> tuple[Job, list, list] | None:
        """Takes the longest waiting item and others of the same job."""
        left = [entry for entry in self._waiting if not entry[2].done()]
        if not left:
            self._waiting.clear()
            return None
        job = left[0][0]
        taken = [entry for entry in left if entry[0] is job][: job.together]
        chosen = {id(entry) for entry in taken}
        self._waiting = collections.deque(entry for entry in left if id(entry) not in chosen)
        _, items, futures = zip(*taken, strict=True)
        return job, list(items), list(futures)


NOTICE = "For research only; not a medical device. No number is a clinical claim."
_DECODING = 2 / 3  # of the time of a request
_MOST_DECODERS = 4

Probability = Annotated[float, pydantic.Field(ge=0, le=1)]


class Problem(pydantic.BaseModel):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str = pydantic.Field(description="the kind of error")
    status: int = pydantic.Field(description="as of HTTP")
    detail: str = pydantic.Field(description="what is wrong and what to do")


_WRONG = {
    413: "the file, or the size it declares, is beyond the limit",
    415: "the type of the file is not supported",
    422: "the file or a parameter cannot be used",
    503: "busy; try again after the seconds of Retry-After",
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
    }
    for status, text in _WRONG.items()
}
RESPONSES[503]["headers"] = {
    "Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}
}


class ServerResources:
    """Holds the resources that requests share; none is in use yet."""

    def __init__(self, limits: Limits):
        self.limits, self.gate, self.worker = limits, Gate(limits), Worker(limits.waiting)
        count = min(_MOST_DECODERS, usable_cores())
        self.decoders = Decoders(count, limits.seconds * _DECODING)

    async def body(self, request: Request) -> bytes:
        """Reads the body of a request, see `read_body`."""
        return await read_body(request, self.limits.upload)

    async def decoded(self, content: bytes, **options: Any) -> Reply:
        """Decodes a file within the limits, see `decoding_process`."""
        limits = {"pixels": self.limits.pixels, "frames": self.limits.frames}
        return await self.decoders.decode(content, **limits, **options)


def body_of(description: str, *media_types: str) -> dict[str, Any]:
    """Describes a file as the body, in terms of OpenAPI."""
    schema = {"type": "string", "format": "binary"}
    return {"requestBody": {
        "required": True, "description": description,
        "content": {name: {"schema": schema} for name in media_types},
    }}
