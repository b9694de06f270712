"""`jaxcxr study`: a grid of rows x seeds x data sets, resumable, and one table for each data set.

    jaxcxr study --config=configs/study_flex.py --workdir=runs/study

A study file has `get_config(ARG)`, as every config file, which for the name of a data set returns
the config that all rows start from, and `get_study()`, which returns a `Study`. Each run is the
ordinary trainer in a process of its own, so that memory stays flat and a crash costs one run, and
all processes share one cache of compiled programs. A finished run is not done again; an
interrupted one goes on from its last checkpoint; one that fails is reported and the rest goes on.
`--table` prints the table of what is finished at any time.

WORKDIR holds `DATA/ROW/seed_N/`, each an ordinary workdir with `config.json`, besides `log.txt`
(the screen of the run) and `result.json`; and `table_DATA.csv` and `table_DATA.md`.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import fnmatch
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from jaxcxr.errors import RunError, UserError

# No device is touched by the process that starts the others.

Overrides = Mapping[str, Any]
REQUEST, RESULT, LOG = "request.json", "result.json", "log.txt"
_CHILD = (sys.executable, "-m", "jaxcxr.study_run")
_POLL = 0.2  # seconds between two looks at the running processes


@dataclasses.dataclass(frozen=True)
class Study:
    """What is compared.

    Arguments:
      data: names of the data sets, in order; arguments of the file's `get_config`.
      rows: name -> what it changes in the config, as {dotted key: value}, or a function from a
        `Context` to that. A row that depends on others comes after them.
      reference: the row that all are compared with; of several, the one with the best mean of the
        monitored metric on the validation split.
      seeds: of the config.
    """

    data: tuple[str, ...]
    rows: Mapping[str, Overrides | Callable[["Context"], Overrides]]
    reference: str | tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self):
        for name in (*self.data, *self.rows):
            if not name or any(c not in _NAME for c in name):
                raise UserError(
                    f"{name!r} is no name of a row or data set: it names a folder; use letters, "
                    "digits, '.', '_' and '-'."
                )
        for name in self.references:
            if name not in self.rows:
                raise UserError(
                    f"reference {name!r} is no row of the study; rows: {', '.join(self.rows)}."
                )
        if not self.data or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError("a study needs at least one data set and one seed, no seed twice.")

    @property
    def references(self) -> tuple[str, ...]:
        """The rows among which the reference is chosen."""
        one = isinstance(self.reference, str)
        return (self.reference,) if one else tuple(self.reference)


_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


@dataclasses.dataclass(frozen=True, order=True)
class Cell:
    """One run: a row with a seed on a data set."""

    data: str
    row: str
    seed: int

    def __str__(self) -> str:
        return f"{self.data}/{self.row}/seed_{self.seed}"


class Waiting(Exception):
    """A row needs the result of another that is not there; `cell` says which."""

    def __init__(self, cell: Cell):
        super().__init__(str(cell))
        self.cell = cell


@dataclasses.dataclass(frozen=True)
class Context:
    """What a row that is a function may look at.

    Attributes:
      data: name of the data set.
      seed: of the run.
      config: what the row starts from, with the seed set.
    """

    data: str
    seed: int
    config: Any
    root: pathlib.Path

    def finished(self, row: str) -> dict[str, Any]:
        """The result of another row with the same seed on the same data, as in `result.json`.

        Its entry `learned` holds the spans, orders and gates that heads learned: parameter path
        -> list of one number for each head.
        """
        cell = Cell(self.data, row, self.seed)
        result = read_result(self.root / str(cell))
        if result is None:
            raise Waiting(cell)
        return result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--config", dest="file", required=True, metavar="FILE", help="study file")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of all runs")
    parser.add_argument(
        "--only", default="*", metavar="PATTERN",
        help="runs to do, a pattern over DATA/ROW/seed_N, such as 'cmu_mocap/plain-*'",
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (default: 1)")
    parser.add_argument("--table", action="store_true", help="only write and print the table")


def run(args: argparse.Namespace) -> None:
    """Do the runs that are missing, then write and print the tables.

    Raises:
      UserError: a mistake in the options or the study.
      RunError: a run failed; the others were done.
    """
    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}; give at least 1.")
    study, config_of = load(pathlib.Path(args.file))
    root = pathlib.Path(args.workdir).expanduser().absolute()
    if args.table:
        tables(study, config_of, root)
        return
    runner = Runner(study, config_of, root, args.jobs)
    failed = runner.run(args.only)
    if failed is None:
        return
    tables(study, config_of, root)
    if failed:
        raise RunError(f"{len(failed)} of the runs were not done:\n  " + "\n  ".join(
            f"{cell}: {why}" for cell, why in failed.items()))


def load(path: pathlib.Path) -> tuple[Study, Callable[[str], Any]]:
    """The study of a file, and its `get_config`.

    Raises:
      UserError: the file cannot be read or is no study.
    """
    if not path.is_file():
        raise UserError(f"there is no study file {path}.")
    spec = importlib.util.spec_from_file_location(f"study_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError, NameError, AttributeError, TypeError) as error:
        raise UserError(f"cannot read the study file {path}: {error}") from error
    for name in ("get_study", "get_config"):
        if not hasattr(module, name):
            raise UserError(f"{path} is no study file: it has no function {name}().")
    return module.get_study(), module.get_config


@dataclasses.dataclass(frozen=True)
class _Process:
    """A run that is under way: since when, and where its output begins in the log."""

    process: subprocess.Popen
    started: float
    log_from: int


class Runner:
    """Starts a process for each run that is missing, several at a time, in the order of the study.

    Arguments:
      study: the grid.
      config_of: the config of a data set, by name.
      root: workdir of the study.
      jobs: processes at the same time.
      command: a program that takes the workdir of a run and does what `jaxcxr.study_run` does.
    """

    def __init__(self, study, config_of, root, jobs=1, command=_CHILD):
        self._study, self._config_of, self._root = study, config_of, root
        self._jobs, self._command = jobs, command
        self._running: dict[Cell, _Process] = {}
        self._failed: dict[Cell, str] = {}
        self._stop = False

    def run(self, only: str = "*") -> dict[Cell, str] | None:
        """Do what is missing.

        Arguments:
          only: pattern over the names of runs.

        Returns:
          Why, for each run that failed; None when SIGTERM or an interrupt ended the study.
        """
        cells = grid(self._study)
        chosen = [cell for cell in cells if fnmatch.fnmatchcase(str(cell), only)]
        if not chosen:
            raise UserError(
                f"--only={only} matches no run; they are called like {cells[0]}, {cells[-1]}."
            )
        with self._locked() as lock, self._signals():
            waiting, begun = list(chosen), time.monotonic()
            while (waiting or self._running) and not (self._stop and not self._running):
                self._collect(len(chosen), len(waiting), begun)
                if not self._stop:
                    waiting = self._start(waiting, lock)
                if self._running:
                    time.sleep(_POLL)
        if self._stop:
            print("stopped; run the same command again to go on.", flush=True)
            return None
        return self._failed

    def _start(self, waiting: list[Cell], lock) -> list[Cell]:
        """Start what can be started now; returns what still waits."""
        left = []
        for cell in waiting:
            if self._stop or len(self._running) >= self._jobs:
                left.append(cell)
                continue
            try:
                config = resolve(self._study, self._config_of, self._root, cell)
                if not self._done(cell, config):
                    self._launch(cell, config, lock)
            except Waiting as need:
                if need.cell in waiting or need.cell in self._running:
                    left.append(cell)
                else:
                    why = "failed" if need.cell in self._failed else "is not finished"
                    self._fail(cell, f"needs {need.cell}, which {why}")
            except (UserError, KeyError, TypeError, ValueError) as error:
                self._fail(cell, f"{error}")
        return left

    def _done(self, cell: Cell, config) -> bool:
        """Whether the run is finished; refuses a workdir of another config."""
        from jaxcxr import config as config_lib

        folder = self._root / str(cell)
        if (folder / "config.json").exists():
            saved = json.loads((folder / "config.json").read_text())["config"]
            lines = config_lib.difference(config, saved)
            if lines:
                raise UserError(
                    f"its config is not the one it was run with ({'; '.join(lines)}); remove "
                    f"{folder} to run it anew, or give another --workdir"
                )
        return read_result(folder) is not None

    def _launch(self, cell: Cell, config, lock) -> None:
        folder = self._root / str(cell)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REQUEST).write_text(config.to_json_best_effort(), encoding="utf-8")
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(self._root / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        with (folder / LOG).open("ab") as log:
            begin = log.tell()
            # A session of its own: an interrupt at the terminal reaches this process alone, which
            # then asks the others to save and stop. They hold the lock until they end.
            process = subprocess.Popen(
                [*self._command, str(folder)], env={**cache, **os.environ}, stdout=log,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
                pass_fds=(lock.fileno(),),
            )
        self._running[cell] = _Process(process, time.monotonic(), begin)
        if self._stop:  # the signal came between the two lines above
            process.terminate()

    def _collect(self, total: int, waiting: int, begun: float) -> None:
        for cell, one in list(self._running.items()):
            code = one.process.poll()
            if code is None:
                continue
            del self._running[cell]
            folder, now = self._root / str(cell), time.monotonic()
            result = read_result(folder)
            if code == 0 and result is not None:
                left = total - waiting - len(self._running)
                print(f"{left}/{total} {cell}: {_said(result)} in {now - one.started:.0f} s, "
                      f"{(now - begun) / 60:.1f} min in all", flush=True)
            elif not self._stop:
                said = (folder / LOG).read_bytes()[one.log_from :].decode("utf-8", "replace")
                self._fail(cell, f"exit code {code}: {_reason(said)} (see {folder / LOG})")

    def _fail(self, cell: Cell, why: str) -> None:
        self._failed[cell] = why
        print(f"{cell}: {why}", flush=True)

    @contextlib.contextmanager
    def _locked(self):
        """Held by this process and those it starts: two studies never write the same workdir."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            lock = (self._root / "lock").open("w")
        except OSError as error:
            raise UserError(
                f"cannot write {self._root}: {error.strerror}; give another --workdir."
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"another study is running in {self._root}; wait for its end or stop it."
                ) from None
            yield lock

    @contextlib.contextmanager
    def _signals(self):
        """SIGTERM and an interrupt are passed on as SIGTERM, on which a run saves and ends."""

        def stop(*_):
            self._stop = True
            for one in self._running.values():
                one.process.terminate()

        previous = {s: signal.signal(s, stop) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def grid(study: Study) -> list[Cell]:
    """All runs: a data set after the other, all rows of a seed before the next seed."""
    return [
        Cell(data, row, seed) for data in study.data for seed in study.seeds for row in study.rows
    ]


def resolve(study: Study, config_of, root: pathlib.Path, cell: Cell):
    """The validated config of a run.

    Raises:
      Waiting: the row needs a result that is not there.
      UserError: its overrides do not fit the config.
    """
    from jaxcxr import config as config_lib

    config = config_of(cell.data)
    config.seed = cell.seed
    overrides = study.rows[cell.row]
    if callable(overrides):
        overrides = overrides(Context(cell.data, cell.seed, config, root))
    try:
        config.update_from_flattened_dict(dict(overrides))
    except (KeyError, TypeError) as error:
        raise UserError(f"row {cell.row!r} does not fit the config: {error.args[0]}") from error
    config_lib.validate(config)
    return config


def read_result(folder: pathlib.Path) -> dict[str, Any] | None:
    """What a finished run left, None where it is not finished."""
    path = folder / RESULT
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _reason(output: str) -> str:
    """Why a run failed: its message where it has one, else its last line."""
    _, found, message = f"\n{output}".rpartition("\njaxcxr: ")
    if found:
        return " ".join(message.split())
    return next((line.strip() for line in reversed(output.split("\n")) if line.strip()), "silent")


def _said(result: Mapping[str, Any]) -> str:
    name = result["monitor"]
    return (f"{name} {result['test'].get(name, float('nan')):.4g} on the test split, "
            f"{result['validation'].get(name, float('nan')):.4g} on the validation split")


def tables(study: Study, config_of, root: pathlib.Path) -> None:
    """Write and print the table of each data set that has a finished run.

    Raises:
      UserError: no run of the study is finished.
    """
    from jaxcxr.analysis import study_table

    found = False
    for data in study.data:
        results = {
            row: {
                seed: result for seed in study.seeds
                if (result := read_result(root / str(Cell(data, row, seed)))) is not None
            }
            for row in study.rows
        }
        if not any(results.values()):
            continue
        found, higher = True, config_of(data).checkpoint.mode == "max"
        table = study_table.make(data, results, study.references, higher)
        (root / f"table_{data}.csv").write_text(study_table.to_csv(table), encoding="utf-8")
        text = study_table.to_markdown(table)
        (root / f"table_{data}.md").write_text(text, encoding="utf-8")
        print(f"\n{text}", flush=True)
    if not found:
        raise UserError(f"no run of the study is finished in {root}.")
