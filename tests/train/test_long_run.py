"""A run of many steps ends as it began: with the same memory, and with nothing left behind."""

import collections
import json
import os
import pathlib
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


def look(pid, step):
    """Resident bytes of the process and its children, its open files and threads; None: ended."""
    try:
        children = children_of(pid)
        pages = sum(
            int(pathlib.Path(f"/proc/{p}/statm").read_text().split()[1]) for p in [pid, *children]
        )
        files = len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))
        threads = len(list(pathlib.Path(f"/proc/{pid}/task").iterdir()))
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Look(step, pages * os.sysconf("SC_PAGE_SIZE"), files, threads, len(children))


def last_step(metrics):
    """Step of the last whole record of metrics.jsonl."""
    if not metrics.exists():
        return 0
    with metrics.open("rb") as file:
        file.seek(max(0, metrics.stat().st_size - 4096))
        whole = [line for line in file.read().split(b"\n")[1:-1] if line.startswith(b"{")]
    return json.loads(whole[-1]).get("step", 0) if whole else 0


def shared_memory():
    """What lies in shared memory and belongs to this user."""
    return {p.name for p in pathlib.Path("/dev/shm").iterdir() if p.owner() == whoami()}


def whoami():
    return pathlib.Path(f"/proc/{os.getpid()}").owner()


@pytest.mark.slow
def test_memory_is_flat_and_nothing_is_left(tmp_path, compiled):
    before = shared_memory()
    process = start(
        tmp_path / "run", compiled, f"--config.stages.second.duration={STEPS - 3} steps",
        "--config.evaluate_every=1000 steps", "--config.checkpoint.every=1000 steps",
        "--config.checkpoint.keep=2", "--config.log_every=100", devices=1,
        TMPDIR=str(tmp_path), OMP_NUM_THREADS="1",
    )
    looks, children = [], set()
    while process.poll() is None:
        now = look(process.pid, last_step(tmp_path / "run" / "metrics.jsonl"))
        if now is None:
            break
        children |= set(children_of_or_none(process.pid))
        looks.append(now)
        time.sleep(1.0)
    text = process.communicate()[0]
    assert process.returncode == 0, text
    assert max(saved_steps(tmp_path / "run")) == STEPS
    warm = [seen for seen in looks if WARM_UP <= seen.step < STEPS]
    assert len(warm) > 30
    steps = np.array([seen.step for seen in warm]) / 1000
    slope, _ = np.polyfit(steps, [seen.memory for seen in warm], 1)
    print(f"\n{len(warm)} looks, {warm[0].memory / 1e6:.0f} to {warm[-1].memory / 1e6:.0f} MB, "
          f"slope {slope / 1e6:+.3f} MB a thousand steps; "
          f"files {warm[0].files} to {warm[-1].files}, "
          f"threads {warm[0].threads} to {warm[-1].threads}")
    assert slope < MOST_SLOPE
    tenth = max(1, len(warm) // 10)
    for kind in ("files", "threads", "children"):
        counts = [getattr(seen, kind) for seen in warm]
        assert np.median(counts[-tenth:]) <= np.median(counts[:tenth]) + 1, kind
    assert not [pid for pid in children if pathlib.Path(f"/proc/{pid}").exists()]
    assert shared_memory() <= before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def children_of_or_none(pid):
    try:
        return children_of(pid)
    except (FileNotFoundError, ProcessLookupError):
        return []
