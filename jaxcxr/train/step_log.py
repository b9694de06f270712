"""Reads metrics of steps one step late, watches them, and writes them once an interval.

Of several processes it finds the one that holds up the others, from times gathered on the devices.
"""

import collections
import contextlib
import math
import time

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcxr.errors import RunError
from jaxcxr.train import runtime, watchdog

# Metrics that end the run once they are not finite. The loss of a step says nothing about the
# parameters after it, which a checkpoint would hold.
WATCHED = {"loss": "loss", "grad_norm": "gradient norm", "param_norm": "parameter norm"}

# Times of one process: a step, the part in which it did not wait for the devices, and the part of
# that in which it waited for data; all in seconds per step.
TIMES = ("step_seconds", "own_seconds", "data_wait_seconds")

# A process is slow when its own time exceeds the others' median by this factor, and a step by this
# share: a host that needs 2 ms instead of 1 holds nobody up.
FACTOR, SHARE = 1.5, 0.1


class StepLog:
    """Metrics of steps, read one step late so that the host never waits for the device."""

    def __init__(self, run, writer, screen, checkpoints):
        self._run, self._writer, self._screen = run, writer, screen
        self._checkpoints = checkpoints
        self._pending = collections.deque()
        self._settled, self._started = 0, False
        self._hosts = HostTimes() if jax.process_count() > 1 else None
        self.restart()

    def restart(self) -> None:
        """Starts the clock of the interval anew, so that evaluations do not count as training."""
        self._begun, self._since = time.perf_counter(), self._settled
        self._wait = self._blocked = 0.0

    def enter(self, step, stage) -> None:
        """Notes that a stage begins; its compilation does not count as training."""
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
        """Queues a step that was just started, and settles the one before it."""
        self._pending.append((step, stage, metrics, index))
        if len(self._pending) > 1:
            self._settle(*self._pending.popleft())

    def flush(self) -> None:
        """Settles every queued step."""
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
            self._screen.print(runtime.first_step(self._run.seconds))
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
        """Reports the processes' times of the interval before, and sends those of this one."""
        before = self._hosts.take()
        if before is not None:
            self._writer.write(before[0], "hosts", record(before[1]))
            line = describe(*before)
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


class HostTimes:
    """Gathers without waiting: the times of an interval are read after the next one."""

    def __init__(self) -> None:
        mesh = jax.sharding.Mesh(np.array(jax.devices()), ("device",))
        self._split = NamedSharding(mesh, P("device"))
        self._first = {device.process_index: i for i, device in
                       reversed(list(enumerate(mesh.devices.flat)))}
        self._whole = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, P()))
        self._pending: tuple[int, jax.Array] | None = None

    def add(self, step: int, times: tuple[float, float, float]) -> None:
        """Sends this process's `TIMES` of the interval that ends with a step; all call it alike."""
        local = np.tile(np.array(times, np.float32), (jax.local_device_count(), 1))
        sent = jax.make_array_from_process_local_data(self._split, local)
        self._pending = (step, self._whole(sent))

    def take(self) -> tuple[int, np.ndarray] | None:
        """Returns the step and times `[processes, 3]` sent before; None where none were."""
        pending, self._pending = self._pending, None
        if pending is None:
            return None
        step, gathered = pending
        rows = np.asarray(gathered)
        return step, rows[[self._first[process] for process in sorted(self._first)]]


def slowest(times: np.ndarray) -> int | None:
    """Returns the number of the process that holds up the others; None where none does.

    Arguments:
      times: `[processes, 3]`, seconds per step, see `TIMES`.
    """
    own = times[:, 1]
    worst = int(np.argmax(own))
    others = float(np.median(np.delete(own, worst)))
    excess = own[worst] - others
    slow = own[worst] > FACTOR * others and excess > SHARE * np.median(times[:, 0])
    return worst if slow else None


def describe(step: int, times: np.ndarray) -> str | None:
    """Returns the line that names a slow process; None where none is."""
    worst = slowest(times)
    if worst is None:
        return None
    _, own, wait = times[worst]
    others = float(np.median(np.delete(times[:, 1], worst)))
    return (
        f"step {step}: process {worst} is slow: {own:.3f} s of its own per step, of which "
        f"{wait:.3f} s waiting for data; the others {others:.3f} s"
    )


def record(times: np.ndarray) -> dict[str, float]:
    """Returns the times by name and process, for metrics.jsonl."""
    return {
        f"{name}/{process}": float(times[process, column])
        for column, name in enumerate(TIMES) for process in range(len(times))
    }
