"""Metrics of the steps: read one step late, watched, and written once an interval."""

import collections
import contextlib
import math
import time

import jax
import numpy as np

from jaxcxr.errors import RunError
from jaxcxr.train import compilation, hosts, watchdog

# Metrics that end the run once they are not finite. The loss of a step says nothing about the
# parameters after it, which a checkpoint would hold.
WATCHED = {"loss": "loss", "grad_norm": "gradient norm", "param_norm": "parameter norm"}


class StepLog:
    """Metrics of steps, read one step late so that the host never waits for the device."""

    def __init__(self, run, writer, screen, checkpoints):
        self._run, self._writer, self._screen = run, writer, screen
        self._checkpoints = checkpoints
        self._pending = collections.deque()
        self._settled, self._started = 0, False
        self._hosts = hosts.HostTimes() if jax.process_count() > 1 else None
        self.restart()

    def restart(self) -> None:
        """Start the clock of the interval anew, so that evaluations do not count as training."""
        self._begun, self._since = time.perf_counter(), self._settled
        self._wait = self._blocked = 0.0

    def enter(self, step, stage) -> None:
        """Note that a stage begins; its compilation does not count as training."""
        self.flush()
        if step == stage.start:
            self._writer.write(step, "stage", {"name": stage.name})
        self._settled = step
        self.restart()

    @contextlib.contextmanager
    def waiting(self):
        """Counts the time inside as waiting for data."""
        begun = time.perf_counter()
        yield
        self._wait += time.perf_counter() - begun

    def add(self, step, stage, metrics, index) -> None:
        """Queue a step that was just started, and settle the one before it."""
        self._pending.append((step, stage, metrics, index))
        if len(self._pending) > 1:
            self._settle(*self._pending.popleft())

    def flush(self) -> None:
        """Settle every queued step."""
        while self._pending:
            self._settle(*self._pending.popleft())

    def _settle(self, step, stage, metrics, index) -> None:
        begun = time.perf_counter()
        watched = {name: float(jax.device_get(metrics[name])) for name in WATCHED}
        self._blocked += time.perf_counter() - begun
        watchdog.progress(f"step {step}")
        if not all(map(math.isfinite, watched.values())):
            self._checkpoints.wait()
            raise RunError(self._diagnosis(step, watched, index))
        self._settled = step
        if not self._started:
            self._started = True
            self._run.seconds["first step"] = time.perf_counter() - self._begun
            self._screen.print(compilation.first_step(self._run.seconds))
        if step % self._run.config.log_every and step != self._run.total_steps:
            return
        seconds = max(time.perf_counter() - self._begun, 1e-9)
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        rate = (step - self._since) / seconds
        values["examples_per_second"] = rate * self._run.config.batch_size
        values["data_wait"] = min(1.0, self._wait / seconds)
        self._writer.write(step, "train", values)
        self._screen.step(step, {"stage": stage, "steps_per_second": rate, **values})
        if self._hosts:
            self._compare_hosts(step, seconds)
        self.restart()

    def _compare_hosts(self, step, seconds) -> None:
        """Report the processes' times of the interval before, and send those of this one."""
        before = self._hosts.take()
        if before is not None:
            self._writer.write(before[0], "hosts", hosts.record(before[1]))
            line = hosts.describe(*before)
            if line:
                self._screen.print(line)
        count = max(step - self._since, 1)
        own = seconds - self._blocked
        self._hosts.add(step, (seconds / count, own / count, self._wait / count))

    def _diagnosis(self, step, watched, index) -> str:
        good = self._checkpoints.latest_step
        kept = f"the last good checkpoint is step {good}" if good else "no checkpoint was saved yet"
        names = self._run.task.ids("train", np.asarray(index))
        shown = ", ".join(names[:16]) + (", ..." if len(names) > 16 else "")
        values = ", ".join(f"{WATCHED[name]} {value:g}" for name, value in watched.items())
        return (
            f"not finite at step {step}: {values}; {kept}. Batch: {shown}. Look at these examples, "
            "or lower the learning rate or set stages.NAME.optimizer.clip_norm=1.0 in another "
            "--workdir."
        )
