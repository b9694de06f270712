"""Runs the decoding processes for the server and replaces those that fail or are late."""

import asyncio
import contextlib
import json
import os
import struct
import sys
from typing import Any

import safetensors.numpy

from jaxcxr.deploy.serve.decoding_process import Reply
from jaxcxr.deploy.serve.limits import Problem, unusable
from jaxcxr.errors import RunError

MEMORY = 3 * 2**30  # bytes of address space of a process; 40 million pixels of DICOM take 2.5 GiB
_STARTING = 120.0  # most seconds for a process to load its libraries


class Decoders:
    """A pool of `jaxcxr.deploy.serve.decoding_process`.

    Arguments:
      count: of processes, each decodes one file at a time.
      seconds: that a file may take.
    """

    def __init__(self, count: int, seconds: float):
        self._count, self._seconds = count, seconds
        # None stands for a process that was ended and is to be started again.
        self._idle: asyncio.Queue[asyncio.subprocess.Process | None] = asyncio.Queue()

    async def start(self) -> None:
        """Starts the processes.

        Raises:
          RunError: one does not start.
        """
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
          Problem: 413 or 422, the file cannot be used.
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
            raise Problem(about["status"], "cannot be used", about["error"])
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
