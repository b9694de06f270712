"""Runs by several real processes on this machine, of both tasks: what one process does.

    pytest -n 0 -m slow tests/train/test_many_processes.py
"""

import functools
import json
import pathlib
import signal
import time

import numpy as np
import pytest

from jaxcxr.errors import UNFINISHED
from tests.train.runs import lines, saved_steps, start, wait_for
from tests.train.test_two_processes import free_address

pytestmark = pytest.mark.slow

TASKS = ("pose", "cxr")
STARTED = []
DEVICES = 4  # of all processes together, so that every run has the same mesh


@pytest.fixture(autouse=True)
def none_left():
    """A test that fails leaves no process."""
    yield
    while STARTED:
        STARTED.pop().kill()


def start_one(*arguments, **variables):
    """`start`, and remember to end it."""
    STARTED.append(start(*arguments, **variables))
    return STARTED[-1]


def start_all(count, workdir, compiled, *more, order=None):
    """The processes of one run; each notes the batches that it reads in a file of its own."""
    address = free_address()
    return [
        start_one(
            workdir, compiled, *more, *([f"--order={order}.{index}"] if order else []),
            devices=DEVICES // count, JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES=str(count), JAX_PROCESS_ID=str(index),
        )
        for index in range(count)
    ]


def ends(processes, seconds=900):
    """Exit codes and outputs of all; none is left running."""
    try:
        outputs = [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], outputs


def run_all(count, workdir, compiled, *more, **options):
    codes, outputs = ends(start_all(count, workdir, compiled, *more, **options))
    assert codes == [0] * count, "\n".join(outputs)
    return outputs


def batches(order, count):
    """What all processes read: [(position, index), ...] of every global batch."""
    read = [
        list(map(json.loads, pathlib.Path(f"{order}.{index}").read_text().splitlines()))
        for index in range(count)
    ]
    assert len({len(part) for part in read}) == 1
    whole = []
    for parts in zip(*read, strict=True):
        pairs = [pair for part in parts
                 for pair in zip(part["position"], part["index"], strict=True)]
        whole.append(sorted(pairs))
    return whole


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, compiled):
    """(task, count) -> workdir, batches and outputs of an uninterrupted run; each is done once."""

    @functools.cache
    def run(task, count):
        folder = tmp_path_factory.mktemp(f"{task}{count}")
        outputs = run_all(
            count, folder / "run", compiled, f"--task={task}", order=folder / "order"
        )
        return folder / "run", batches(folder / "order", count), outputs

    return run


def assert_alike(workdir, expected):
    """Losses, norms and metrics of two runs; sums over processes are in another order."""
    for kind in ("train", "validation", "test"):
        ours, theirs = lines(workdir, kind), lines(expected, kind)
        assert [line["step"] for line in ours] == [line["step"] for line in theirs]
        for left, right in zip(ours, theirs, strict=True):
            assert left.pop("kind") == right.pop("kind")
            assert left == pytest.approx(right, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("count", [2, 4])
def test_processes_give_the_losses_and_the_order_of_one(uninterrupted, task, count):
    expected, order, _ = uninterrupted(task, 1)
    workdir, seen, outputs = uninterrupted(task, count)
    assert_alike(workdir, expected)
    assert seen == order, "bit for bit, whatever the process count"
    assert f"{count} processes" in outputs[0]
    assert all("checkpoint of step" not in output for output in outputs[1:])
    times = lines(workdir, "hosts")
    assert times, "times of every process"
    for process in range(count):
        assert times[0][f"step_seconds/{process}"] > 0


@pytest.mark.parametrize("task", TASKS)
def test_a_run_goes_on_with_other_process_counts(uninterrupted, tmp_path, compiled, task):
    expected, order, _ = uninterrupted(task, 1)
    workdir, seen = tmp_path / "run", []
    # SIGTERM goes to one process, another one each time; all save the same step. Processes that
    # agree on one take seconds, and the run has 6 steps.
    for number, (count, told) in enumerate([(2, 1), (4, 2)]):
        noted = tmp_path / f"order{number}"
        done = saved_steps(workdir)[-1] if workdir.exists() else 0
        processes = start_all(count, workdir, compiled, f"--task={task}", "--slow=3", order=noted)
        wait_for(processes[0], workdir / "checkpoints" / str(done + 1), 600)
        processes[told].send_signal(signal.SIGTERM)
        codes, outputs = ends(processes)
        assert codes == [UNFINISHED] * count, "\n".join(outputs)
        assert "stopped by SIGTERM after saving" in outputs[0]
        newest = saved_steps(workdir)[-1]
        assert done < newest < 6
        seen += training(batches(noted, count))[: newest - done]
    run_all(1, workdir, compiled, f"--task={task}", order=tmp_path / "last")
    seen += training(batches(tmp_path / "last", 1))[: 6 - newest]
    assert seen == training(order)[:6]
    assert_alike(workdir, expected)


def training(whole):
    """The training batches: those of an evaluation are in the order of the source."""
    return [pairs for pairs in whole if [index for _, index in pairs] != [p for p, _ in pairs]]


@pytest.fixture(scope="module")
def ended():
    """Seconds after which the other process ended, of all tests so far."""
    return []


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_and_the_restarted_run_is_the_same(
    uninterrupted, tmp_path, compiled, record, ended, task, victim
):
    expected, _, _ = uninterrupted(task, 2)
    workdir = tmp_path / "run"
    processes = start_all(2, workdir, compiled, f"--task={task}", "--slow=1")
    wait_for(processes[0], workdir / "checkpoints" / "2", 600)
    processes[victim].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    code, said = processes[1 - victim].wait(60), processes[1 - victim].stdout.read()
    seconds = time.monotonic() - killed
    processes[1 - victim].stdout.close()
    ends([processes[victim]])
    print(f"\n{task}: process {victim} killed, the other ended after {seconds:.1f} s, code {code}")
    ended.append(seconds)
    record("many_processes", ends=f"{min(ended):.1f} to {max(ended):.1f} s")
    assert code not in (0, 2), said
    assert seconds < 20
    assert f"process {victim} on " in said
    assert "ended without a word" in said
    assert "Start the same command again" in said
    assert max(saved_steps(workdir)) < 6
    run_all(2, workdir, compiled, f"--task={task}")
    for kind in ("train", "validation", "test"):
        assert lines(workdir, kind) == lines(expected, kind), "bit for bit the uninterrupted run"


def test_a_process_that_fails_alone_ends_the_others_with_its_words(tmp_path, compiled):
    address = free_address()
    processes = [
        start_one(tmp_path, compiled, *(["--fail=4"] if index == 1 else []), devices=1,
                  JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES="2", JAX_PROCESS_ID=str(index))
        for index in range(2)
    ]
    codes, outputs = ends(processes)
    assert codes == [1, 1], "\n".join(outputs)
    assert "ValueError: these shards are damaged" in outputs[1]
    assert "has failed: these shards are damaged; process 0 stops too" in outputs[0]


def test_a_missing_process_is_named(tmp_path, compiled):
    address = free_address()
    processes = [
        start_one(tmp_path, compiled, "--start_timeout=3", devices=1,
                  JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES="4", JAX_PROCESS_ID=str(index))
        for index in (0, 2)
    ]
    codes, outputs = ends(processes)
    assert codes == [1, 1]
    for output in outputs:
        assert "processes 1, 3 are missing: 2 of 4 processes came within 3 s" in output
        assert "Traceback" not in output


def test_a_slow_process_is_named(tmp_path, compiled):
    address = free_address()
    processes = [
        start_one(tmp_path, compiled, *(["--slow=0.5"] if index == 1 else []), devices=1,
                  JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES="2", JAX_PROCESS_ID=str(index))
        for index in range(2)
    ]
    codes, outputs = ends(processes)
    assert codes == [0, 0], "\n".join(outputs)
    named = [line for line in outputs[0].splitlines() if "is slow" in line]
    assert named
    assert all("process 1 is slow" in line for line in named), named
    own = np.array([[line[f"own_seconds/{p}"] for p in range(2)]
                    for line in lines(tmp_path, "hosts")])
    assert (own[:, 1] > 0.4).any()



@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("mesh", [(1, 4), (2, 2), (4, 1), (1, 2)])
@pytest.mark.parametrize("count", [2, 4])
def test_any_mesh_trains_as_one_process(uninterrupted, tmp_path, compiled, task, mesh, count):
    run_all(count, tmp_path / "run", compiled, f"--task={task}",
            f"--config.mesh.fsdp={mesh[0]}", f"--config.mesh.tensor={mesh[1]}")
    assert_alike(tmp_path / "run", uninterrupted(task, 1)[0])
