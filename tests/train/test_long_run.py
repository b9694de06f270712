"""A run of many steps ends as it began: with the same memory, and with nothing left behind."""

import collections
import contextlib
import json
import pathlib
import re
import threading
import time

import numpy as np
import pytest

from tests.train.runs import saved_steps, start

STEPS, WARM_UP = 20_000, 5_000
MOST_SLOPE = 1e6  # bytes a thousand steps

Look = collections.namedtuple("Look", "step memory files threads children")


def children_of(pid):
    """The processes that a process started and theirs."""
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *children_of(child)]
    return found


def memory_of(pid):
    """Bytes that belong to a process alone, in memory or swapped out."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return sum(int(fields[key].split()[0]) * 1024 for key in ("RssAnon", "RssShmem", "VmSwap"))


def shared_by(pid):
    """Files in shared memory that a process has mapped."""
    text = pathlib.Path(f"/proc/{pid}/maps").read_text()
    return set(re.findall(r"/dev/shm/\S+", text))


def look(pid, step):
    """What the process and its children hold: a `Look`, their ids, and shared memory by name."""
    children = children_of(pid)
    shared = set().union(*(shared_by(p) for p in [pid, *children]))
    seen = Look(
        step, sum(memory_of(p) for p in [pid, *children]),
        len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir())),
        len(list(pathlib.Path(f"/proc/{pid}/task").iterdir())), len(children),
    )
    return seen, children, shared


def last_step(metrics):
    """Step of the last whole record of metrics.jsonl."""
    if not metrics.exists():
        return 0
    with metrics.open("rb") as file:
        file.seek(max(0, metrics.stat().st_size - 4096))
        whole = [line for line in file.read().split(b"\n")[1:-1] if line.startswith(b"{")]
    return json.loads(whole[-1]).get("step", 0) if whole else 0


@pytest.mark.slow
def test_memory_is_flat_and_nothing_is_left(tmp_path, compiled, record):
    process = start(
        tmp_path / "run", compiled, f"--config.stages.second.duration={STEPS - 3} steps",
        "--config.evaluate_every=1000 steps", "--config.checkpoint.every=1000 steps",
        "--config.checkpoint.keep=2", "--config.log_every=100", devices=1,
        TMPDIR=str(tmp_path), OMP_NUM_THREADS="1",
    )
    said = []
    reader = threading.Thread(target=lambda: said.append(process.stdout.read()))
    reader.start()  # a full pipe would stop the run
    looks, children, shared = [], set(), set()
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, KeyError):  # it has ended
            seen, ids, names = look(process.pid, last_step(tmp_path / "run" / "metrics.jsonl"))
            looks.append(seen)
            children |= set(ids)
            shared |= names
        time.sleep(0.5)
    reader.join()
    process.stdout.close()
    assert process.returncode == 0, said[0]
    assert max(saved_steps(tmp_path / "run")) == STEPS
    warm = [seen for seen in looks if WARM_UP <= seen.step < STEPS]
    assert len(warm) > 30
    steps = np.array([seen.step for seen in warm]) / 1000
    slope, _ = np.polyfit(steps, [seen.memory for seen in warm], 1)
    print(f"\n{len(warm)} looks, {warm[0].memory / 1e6:.1f} to {warm[-1].memory / 1e6:.1f} MB, "
          f"slope {slope / 1e6:+.3f} MB a thousand steps; "
          f"files {warm[0].files} to {warm[-1].files}, "
          f"threads {warm[0].threads} to {warm[-1].threads}, children {warm[-1].children}")
    record("long_run", growth=f"{slope / 1e6:.2f} MB", before=f"{warm[0].memory / 1e6:.0f}",
           after=f"{warm[-1].memory / 1e6:.0f}")
    assert slope < MOST_SLOPE
    tenth = max(1, len(warm) // 10)
    for kind in ("files", "threads", "children"):
        counts = [getattr(seen, kind) for seen in warm]
        assert np.median(counts[-tenth:]) <= np.median(counts[:tenth]) + 1, kind
    assert not [pid for pid in children if pathlib.Path(f"/proc/{pid}").exists()]
    assert not [name for name in shared if pathlib.Path(name).exists()]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
