"""Ends a run that stands still, and says where: every thread's stack and the last step.

A process has one watchdog. The loop reports progress by `progress`, which does nothing without a
watchdog.
"""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

from jaxcxr import config

# Compiling says nothing while it goes on, and takes minutes for a large model.
COMPILING = 3600.0

_active: "_Watchdog | None" = None


def progress(what: str, compiles: bool = False) -> None:
    """Says that the run goes on.

    Arguments:
      what: what was done last, e.g. "step 12".
      compiles: whether what follows compiles, which may take `COMPILING` seconds.
    """
    if _active is not None:
        _active.progress(what, compiles)


@contextlib.contextmanager
def watching(span: str) -> Iterator[None]:
    """Opens a context that ends the process with code 1 after that time without progress.

    Arguments:
      span: see `seconds`; "0": nothing is watched.
    """
    global _active
    limit = config.seconds(span)
    if not limit:
        yield
        return
    _active = _Watchdog(limit)
    try:
        yield
    finally:
        _active.stop()
        _active = None


class _Watchdog:
    """A thread that looks at the clock."""

    def __init__(self, limit: float):
        self._limit, self._poll = limit, min(limit / 4, 5.0)
        self._stopped = threading.Event()
        self.progress("the start", compiles=True)
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")
        self._thread.start()

    def progress(self, what: str, compiles: bool) -> None:
        limit = max(self._limit, COMPILING) if compiles else self._limit
        self._state = (what, time.monotonic(), limit)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while not self._stopped.wait(self._poll):
            what, since, limit = self._state
            idle = time.monotonic() - since
            if idle > limit:
                self._bark(what, idle)
            # C code that hangs with the interpreter's lock in its hand stops this thread too.
            faulthandler.dump_traceback_later(
                limit - idle + 3 * self._poll + 5, exit=True, file=_stderr()
            )

    def _bark(self, what: str, idle: float) -> None:
        print(f"jaxcxr: no progress for {idle:.0f} s; the last was {what}. All threads:",
              file=_stderr(), flush=True)
        faulthandler.dump_traceback(file=_stderr(), all_threads=True)
        print("jaxcxr: stopped because nothing went on (config.watchdog). Start the same command "
              "again to go on from the last checkpoint.", file=_stderr(), flush=True)
        os._exit(1)


def _stderr() -> TextIO:
    """Returns the stream that the process started with; file descriptor 2 where it has none."""
    return sys.__stderr__ or open(2, "w", closefd=False)
