"""Writes metrics during a run: metrics.jsonl, TensorBoard events, the terminal."""

import contextlib
import datetime
import json
import os
import pathlib
import sys
import time
from typing import TextIO

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from jaxcxr import config
from jaxcxr.train import private_apis


class MetricWriter:
    """Appends metrics to `metrics.jsonl` and to TensorBoard event files; process 0 alone writes.

    Nothing is made before the first line, and no line is ever removed: an evaluation beside a
    running training, or a run that fails, leaves what is there.

    Arguments:
      workdir: folder of the run, on this machine.
      first_step: step the run resumes from; a line of kind "start" tells readers to drop the later
        steps above it, which are done again. None: nothing is done again.
    """

    def __init__(self, workdir: pathlib.Path, first_step: int | None):
        self._active = jax.process_index() == 0
        self._workdir, self._first_step = workdir, first_step
        self._file: TextIO | None = None

    def _open(self) -> TextIO:
        """Opens both files, below a last line that an interruption cut."""
        path, first = self._workdir / "metrics.jsonl", self._first_step
        resumed = path.exists() and path.stat().st_size > 0
        file = path.open("a", buffering=1, encoding="utf-8")
        if resumed and not _ends_line(path):
            file.write("\n")
        if resumed and first is not None:
            file.write(json.dumps({"step": first, "kind": "start"}) + "\n")
        self._events = private_apis.summary_writer()(
            str(self._workdir / "tensorboard"), purge_step=None if first is None else first + 1
        )
        return file

    def write(self, step: int, kind: str, values: dict) -> None:
        """Writes a line.

        Arguments:
          kind: "train", "validation", "test" or "stage".
          values: numbers or strings by name.
        """
        if not self._active:
            return
        self._file = self._file or self._open()
        plain = {k: v if isinstance(v, str) else float(v) for k, v in values.items()}
        self._file.write(json.dumps({"step": step, "kind": kind, **plain}) + "\n")
        for name, value in plain.items():
            if not isinstance(value, str):
                self._events.add_scalar(f"{kind}/{name}", value, step)

    def flush(self) -> None:
        """Writes to the files all that is buffered."""
        if self._file:
            self._events.flush()

    def close(self) -> None:
        """Flushes to disk."""
        if self._file:
            self._file.close()
            self._events.close()


def _ends_line(path: pathlib.Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def append_start(
    folder: pathlib.Path, first_step: int, last_step: int, seconds: float, finished: bool
) -> None:
    """Appends to `run.jsonl` what one start of a run did, its command and its machine.

    A start that was killed or failed leaves no line, which shows as a gap in the steps.

    Arguments:
      folder: of the run, on this machine; process 0 alone writes.
      first_step, last_step: optimiser steps done before and after.
      seconds: from the start to the end, reports included.
      finished: whether the run was evaluated and reported.
    """
    if jax.process_index():
        return
    origin = config.origin()
    record = {
        "from_step": first_step, "to_step": last_step, "seconds": round(seconds, 1),
        "finished": finished, "date": datetime.date.today().isoformat(),
        "processes": jax.process_count(), "command": origin["command"],
        "machine": origin["machine"],
    }
    with (folder / "run.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


class Screen:
    """Shows a run: a progress line in a terminal, one plain line per interval elsewhere."""

    def __init__(self, quiet: bool = False):
        width = None if sys.stdout.isatty() else 120
        self.console = Console(width=width, highlight=False, quiet=quiet or jax.process_index() > 0)
        self._progress: Progress | None = None
        self._first: tuple[float, int] | None = None

    def table(self, title: str, rows: dict[str, str]) -> None:
        """Shows a table of two columns."""
        table = Table(title=title, show_header=False, title_justify="left", title_style="bold")
        table.add_column(no_wrap=True, style="cyan")
        table.add_column(overflow="fold")
        for name, value in rows.items():
            table.add_row(name, value)
        self.console.print(table)

    def print(self, text: str) -> None:
        """Shows plain text, without markup."""
        self.console.print(text, markup=False)

    @contextlib.contextmanager
    def progress(self, step: int, total: int):
        """Opens a context with a progress line from `step` to `total`."""
        self._first = None
        self._total = total
        if not self.console.is_terminal:
            yield
            return
        columns = (TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"), BarColumn(),
                   TextColumn("{task.fields[status]}"))
        with Progress(*columns, console=self.console) as progress:
            self._task = progress.add_task("train", total=total, completed=step, status="")
            self._progress = progress
            try:
                yield
            finally:
                self._progress = None

    def step(self, step: int, status: dict) -> None:
        """Shows the state of the run.

        Arguments:
          status: `stage`, `loss`, `steps_per_second`, `examples_per_second`, `data_wait` (share of
            time, 0 to 1).
        """
        if self._first is None:  # the time before the first call went into compiling
            self._first = (time.monotonic(), step)
            rate = status["steps_per_second"]
        else:
            begun, first = self._first
            rate = (step - first) / (time.monotonic() - begun)
        left = (self._total - step) / rate
        text = (
            f"{status['stage']} | loss {status['loss']:.4g} | "
            f"{status['examples_per_second']:,.1f} examples/s | "
            f"waiting for data {status['data_wait']:.0%} | ETA {_clock(left)}"
        )
        if self._progress:
            self._progress.update(self._task, completed=step, status=text)
        else:
            self.print(f"step {step}/{self._total} | {text}")


def _clock(seconds: float) -> str:
    if not np.isfinite(seconds):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
