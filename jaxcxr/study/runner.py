"""Runs a study: a process for each run, and what such a process does.

The study itself touches no device. A run is `python -m jaxcxr.study.runner WORKDIR`: it trains as
WORKDIR's `request.json` says, by the ordinary trainer, and leaves `result.json`, which is there
only when everything is done.
"""

import contextlib
import dataclasses
import fcntl
import fnmatch
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from jaxcxr.errors import RunError, UserError
from jaxcxr.study import grid
from jaxcxr.study.grid import RESULT, Cell, Waiting, out_of_the_race, read_result, resolve

REQUEST, LOG = "request.json", "log.txt"
_CHILD = (sys.executable, "-m", "jaxcxr.study.runner")
_POLL = 0.2  # seconds between two looks at the running processes

# Calls of a forward pass of which the median time is taken.
_CALLS = 20
_LEARNED = re.compile(r"(^|/)group_\d+/(span|alpha|gate)$")


@dataclasses.dataclass(frozen=True)
class _Process:
    """A run that is under way: since when, and where its output begins in the log."""

    process: subprocess.Popen
    started: float
    log_from: int


class Runner:
    """Starts a process for each run that is missing, several at a time, in the order of the study.

    Arguments:
      config_of: the config of a data set, by name.
      jobs: processes at the same time.
      command: a program that takes the workdir of a run and does what `jaxcxr.study.runner` does.
    """

    def __init__(self, study, config_of, root, jobs=1, command=_CHILD):
        self._study, self._config_of, self._root = study, config_of, root
        self._jobs, self._command = jobs, command
        self._running: dict[Cell, _Process] = {}
        self._failed: dict[Cell, str] = {}
        self._stop = False

    def run(self, only: str = "*") -> dict[Cell, str] | None:
        """Does what is missing, of the runs whose names match the pattern `only`.

        Returns:
          Why, for each run that failed; None when SIGTERM or an interrupt ended the study.
        """
        cells = grid.cells(self._study)
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
        """Starts the cells that can be started now; returns those that still wait."""
        left = []
        for cell in waiting:
            if self._stop or len(self._running) >= self._jobs:
                left.append(cell)
                continue
            try:
                if self._left_out(cell):
                    continue
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

    def _left_out(self, cell: Cell) -> bool:
        higher = self._config_of(cell.data).checkpoint.mode == "max"
        return out_of_the_race(self._study, self._root, cell, higher, self._failed)

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
            except OSError as error:  # a file system without locks
                print(f"{self._root} has no locks ({error.strerror}); start no second study there",
                      file=sys.stderr)
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


def train(folder: pathlib.Path) -> None:
    """Trains as `request.json` says and leaves `result.json`: what the process of one run does."""
    from jaxcxr import config as config_lib
    from jaxcxr import task as tasks
    from jaxcxr.pose.evaluation import run_errors
    from jaxcxr.report import curves
    from jaxcxr.train import loop, writers

    config = config_lib.from_saved(json.loads((folder / REQUEST).read_text(encoding="utf-8")))
    opened = tasks.create(config)
    for split in ("validation", "test"):
        if not len(opened.source(split)):
            raise UserError(
                f"{config.data.source} has no {split} split, which a study needs: it chooses "
                "checkpoints on validation and compares runs on test; prepare the data with both."
            )
    metrics = loop.train(config, folder, writers.Screen())
    if not metrics:
        return  # SIGTERM
    records = curves.read_metrics(folder / "metrics.jsonl")
    best = best_checkpoint(folder)
    result = {
        "monitor": config.checkpoint.monitor, "test": metrics, **_history(records, best["step"]),
        **best, "batch_size": config.batch_size,
    }
    if config.task == "pose":
        result["sequences"] = run_errors.sequence_sums(folder)
    partial = folder / f"{RESULT}.partial"
    partial.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(folder / RESULT)


def _history(records: list[dict], step: int) -> dict[str, Any]:
    """Metrics of the validation at `step`, and the pace of training, from metrics.jsonl."""
    skip = ("step", "kind")
    checks = [r for r in records if r["kind"] == "validation" and r["step"] == step]
    training = [r for r in records if r["kind"] == "train"]
    rates = sorted(r["examples_per_second"] for r in training)
    return {
        "validation": {k: v for k, v in checks[-1].items() if k not in skip} if checks else {},
        "steps": training[-1]["step"],
        "examples_per_second": rates[len(rates) // 2],
    }


def best_checkpoint(folder: pathlib.Path) -> dict[str, Any]:
    """What the best checkpoint tells: its step, parameters, costs and what heads learned."""
    import jax
    from flax.traverse_util import flatten_dict

    from jaxcxr.train import finished

    with finished.open_best(folder) as run:
        flat = flatten_dict(jax.device_get(run.variables["params"]), sep="/")
        return {
            "step": run.step,
            "parameters": sum(leaf.size for leaf in flat.values()),
            **forward_cost(run.setup, run.variables),
            "learned": {
                path: leaf.tolist() for path, leaf in sorted(flat.items())
                if _LEARNED.search(path)
            },
        }


def forward_cost(run, variables) -> dict[str, float]:
    """What a forward pass over one example costs.

    Returns:
      `flops`, loops counted as often as they run (see `plan.measuring`), and `milliseconds`, the
      median of some calls on this device.
    """
    import numpy as np

    from jaxcxr.plan import measuring
    from jaxcxr.train import step as step_lib

    example = run.task.source("validation").read(np.array([0]))
    one = {**example, "index": np.zeros(1, np.int32), "position": np.zeros(1, np.uint32),
           "valid": np.ones(1, np.bool_)}
    forward = step_lib.make_eval_step(run.model, run.task)
    args = (variables["params"], variables["batch_stats"], one)
    built = measuring.compile_(forward, *args)
    built.seconds(*args)
    times = [built.seconds(*args) for _ in range(_CALLS)]
    return {"flops": built.flops, "milliseconds": 1e3 * statistics.median(times)}


def main(argv: list[str] | None = None) -> None:
    """The process of one run; a mistake ends it with one line and an exit code as the trainer's."""
    (folder,) = sys.argv[1:] if argv is None else argv
    try:
        train(pathlib.Path(folder))
    except (UserError, RunError) as error:
        print(f"jaxcxr: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)


if __name__ == "__main__":
    main()
