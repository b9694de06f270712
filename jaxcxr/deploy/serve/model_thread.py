"""Calls the model in one thread: the queue is bounded, and waiting items form batches."""

import asyncio
import collections
import concurrent.futures
import dataclasses
from collections.abc import Callable
from typing import Any

from jaxcxr.deploy.serve.limits import busy


@dataclasses.dataclass(frozen=True)
class Job:
    """Work for the thread.

    Attributes:
      function: maps a list of items to as many results.
      together: most items of a call.
    """

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
          Problem: 503, the queue is full.
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
