"""Finds the process that holds up the others, from times gathered on the devices."""

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

# Times of one process: a step, the part in which it did not wait for the devices, and the part of
# that in which it waited for data; all in seconds per step.
TIMES = ("step_seconds", "own_seconds", "data_wait_seconds")

# A process is slow when its own time exceeds the others' median by this factor, and a step by this
# share: a host that needs 2 ms instead of 1 holds nobody up.
FACTOR, SHARE = 1.5, 0.1


class HostTimes:
    """Gathers without waiting: the times of an interval are read after the next one."""

    def __init__(self) -> None:
        mesh = jax.make_mesh((jax.device_count(),), ("device",), axis_types=(AxisType.Auto,))
        self._split = NamedSharding(mesh, P("device"))
        self._first = {device.process_index: i for i, device in
                       reversed(list(enumerate(mesh.devices.flat)))}
        self._whole = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, P()))
        self._pending: tuple[int, jax.Array] | None = None

    def add(self, step: int, times: tuple[float, float, float]) -> None:
        """Send this process's `TIMES` of the interval that ends with a step; all call it alike."""
        local = np.tile(np.array(times, np.float32), (jax.local_device_count(), 1))
        sent = jax.make_array_from_process_local_data(self._split, local)
        self._pending = (step, self._whole(sent))

    def take(self) -> tuple[int, np.ndarray] | None:
        """Step and times `[processes, 3]` sent before; None where none were."""
        pending, self._pending = self._pending, None
        if pending is None:
            return None
        step, gathered = pending
        rows = np.asarray(gathered)
        return step, rows[[self._first[process] for process in sorted(self._first)]]


def slowest(times: np.ndarray) -> int | None:
    """Number of the process that holds up the others; None where none does.

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
    """The line that names a slow process; None where none is."""
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
    """The times by name and process, for metrics.jsonl."""
    return {
        f"{name}/{process}": float(times[process, column])
        for column, name in enumerate(TIMES) for process in range(len(times))
    }
