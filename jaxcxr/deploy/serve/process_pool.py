"""The processes that decode, seen from the server: one that fails or is late is replaced."""

import asyncio
import contextlib
import json
import os
import struct
import sys
from typing import Any

import numpy as np
import safetensors.numpy

from jaxcxr.deploy.serve.limits import Problem, unusable
from jaxcxr.errors import RunError

MEMORY = 3 * 2**30  # bytes of address space of one; 2.5 for 40 million pixels of DICOM
_STARTING = 120.0  # seconds that one may take to load its libraries


class Decoders:
    """Processes of `jaxcxr.deploy.serve.decoding_process`.

    Arguments:
      count: of them, which is how many files are decoded at once.
      seconds: that a file may take.
    """

    def __init__(self, count: int, seconds: float):
        self._count, self._seconds = count, seconds
        self._idle: asyncio.Queue = asyncio.Queue()

    async def start(self) -> None:
        """Starts them.

        Raises:
          RunError: they do not start.
        """
        for process in await asyncio.gather(*(_launched() for _ in range(self._count))):
            self._idle.put_nowait(process)

    async def stop(self) -> None:
        """Ends them; none may be at work."""
        while not self._idle.empty():
            await _end(self._idle.get_nowait())

    async def decode(
        self, content: bytes, **options: Any
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What a process makes of a file: text and arrays, see `jaxcxr.deploy.serve.decoding_process`.

        Raises:
          Problem: 413 or 422, the file cannot be used.
        """
        process = await self._idle.get()
        try:
            if process is None or process.returncode is not None:
                process = await _launched()
            async with asyncio.timeout(self._seconds):
                about, arrays = await _asked(process, content, options)
        except TimeoutError:
            process = await _end(process)
            raise unusable(
                f"decoding took longer than {self._seconds:g} s; save the file in another form."
            ) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            process = await _end(process)
            raise unusable("the file made the decoder fail; save it in another form.") from None
        except BaseException:
            process = await _end(process)
            raise
        finally:
            self._idle.put_nowait(process)
        if "error" in about:
            raise Problem(about["status"], "cannot be used", about["error"])
        return about, arrays


async def _launched() -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "jaxcxr.deploy.serve.decoding_process", str(MEMORY),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        # Threads of BLAS would fill the address space and have nothing to do.
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        start_new_session=True,  # Ctrl+C is for the server, which ends it
    )
    try:
        async with asyncio.timeout(_STARTING):
            await _answer(process)
    except (TimeoutError, asyncio.IncompleteReadError) as error:
        await _end(process)
        raise RunError("`python -m jaxcxr.deploy.serve.decoding_process` does not start") from error
    return process


async def _asked(process, content: bytes, options: dict[str, Any]):
    head = json.dumps({**options, "bytes": len(content)})
    process.stdin.write(f"{head}\n".encode())
    process.stdin.write(content)
    await process.stdin.drain()
    return await _answer(process)


async def _answer(process) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    (length,) = struct.unpack("<Q", await process.stdout.readexactly(8))
    arrays = safetensors.numpy.load(await process.stdout.readexactly(length))
    return json.loads(arrays.pop("json").tobytes()), arrays


async def _end(process: asyncio.subprocess.Process | None) -> None:
    """Kills a process and waits for it; the None that stands in its place starts another."""
    if process is not None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
