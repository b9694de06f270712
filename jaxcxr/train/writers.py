"""Writes metrics during a run: metrics.jsonl, TensorBoard events, the terminal."""

import contextlib
import datetime
import json
import pathlib
import sys
import time

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from jaxcxr import config
from jaxcxr.train import private_apis


class MetricWriter:
    """Appends metrics to `metrics.jsonl` and to TensorBoard event files; process 0 alone writes.

    Arguments:
      workdir: folder of the run, on this machine.
      first_step: step the run resumes from; lines of later steps, written before an interruption,
        are dropped because those steps are done again. None: nothing is done again.
    """

    def __init__(self, workdir: pathlib.Path, first_step: int | None):
        self._active = jax.process_index() == 0
        if not self._active:
            return
        self._path = workdir / "metrics.jsonl"
        _keep_until(self._path, first_step)
        self._file = self._path.open("a", buffering=1, encoding="utf-8")
        self._events = private_apis.summary_writer()(
            str(workdir / "tensorboard"),
            purge_step=None if first_step is None else first_step + 1,
        )

    def write(self, step: int, kind: str, values: dict) -> None:
        """Writes a line.

        Arguments:
          kind: "train", "validation", "test" or "stage".
          values: numbers or strings by name.
        """
        if not self._active:
            return
        plain = {k: v if isinstance(v, str) else float(v) for k, v in values.items()}
        self._file.write(json.dumps({"step": step, "kind": kind, **plain}) + "\n")
        for name, value in plain.items():
            if not isinstance(value, str):
                self._events.add_scalar(f"{kind}/{name}", value, step)

    def flush(self) -> None:
        """Writes to the files all that is buffered."""
        if self._active:
            self._events.flush()

    def close(self) -> None:
        """Flushes to disk."""
        if self._active:
            self._file.close()
            self._events.close()


def _keep_until(path: pathlib.Path, step: int | None) -> None:
    """Drops lines that will be written again, and a last line that an interruption cut.

    Written again are the steps after `step`, the beginning of a stage at `step`, and the test
    result with which every run and every evaluation ends.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        last = step if record["kind"] != "stage" or step is None else step - 1
        if record["kind"] != "test" and (last is None or record["step"] <= last):
            kept.append(line + "\n")
    partial = path.with_suffix(".partial")
    partial.write_text("".join(kept), encoding="utf-8")
    partial.replace(path)


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
