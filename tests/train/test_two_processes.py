"""Two real processes on this machine, two devices each, give what one process gives."""

import shutil
import signal
import socket

import pytest

from jaxcxr.errors import UNFINISHED
from tests.train.runs import (
    lines,
    saved_steps,
    start,
    train,
    wait_for,
)


def free_address():
    """An address on which process 0 can listen."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def start_pair(workdir, compiled, *more, devices=2):
    """Both processes of one run."""
    address = free_address()
    return [
        start(workdir, compiled, *more, devices=devices, JAX_COORDINATOR_ADDRESS=address,
              JAX_NUM_PROCESSES="2", JAX_PROCESS_ID=str(index))
        for index in range(2)
    ]


def finish(processes, code=0):
    """Outputs of both, which must end with that code; neither is left running."""
    try:
        outputs = [process.communicate(timeout=150)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == code, output
    return outputs


@pytest.fixture(scope="module")
def pair(tmp_path_factory, compiled):
    """Workdir and outputs of a run by two processes, stopped by SIGTERM and gone on with."""
    workdir = tmp_path_factory.mktemp("pair")
    processes = start_pair(workdir, compiled, "--slow=0.3")
    wait_for(processes[0], workdir / "checkpoints" / "2")
    processes[1].send_signal(signal.SIGTERM)
    stopped = finish(processes, UNFINISHED)
    newest = saved_steps(workdir)[-1]
    return workdir, newest, stopped, finish(start_pair(workdir, compiled))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Workdir and metrics of the same run by this process."""
    workdir = tmp_path_factory.mktemp("alone")
    return workdir, train(workdir)


def test_a_sigterm_to_one_process_stops_both_after_saving(pair):
    _, newest, stopped, _ = pair
    assert 2 <= newest < 6
    assert "stopped by SIGTERM after saving" in stopped[0]


def test_losses_and_metrics_are_those_of_one_process(pair, alone):
    for kind in ("train", "validation", "test"):
        for left, right in zip(lines(pair[0], kind), lines(alone[0], kind), strict=True):
            assert left.pop("kind") == right.pop("kind")
            assert left == pytest.approx(right, rel=1e-5)


def test_only_the_first_process_writes_and_speaks(pair):
    workdir, _, _, outputs = pair
    assert "test, checkpoint of step" in outputs[0]
    assert "checkpoint of step" not in outputs[1]
    events = list((workdir / "tensorboard").iterdir())
    assert len(events) == 2, "one file for each of the two starts"


def test_one_process_goes_on_where_two_stopped(pair, alone, tmp_path):
    shutil.copytree(pair[0], tmp_path, dirs_exist_ok=True)
    for step in (5, 6):
        shutil.rmtree(tmp_path / "checkpoints" / str(step))
    assert train(tmp_path) == pytest.approx(alone[1], rel=1e-5)
    ours, expected = (lines(folder, "train") for folder in (tmp_path, alone[0]))
    assert [line["step"] for line in ours] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in ours] == pytest.approx(
        [line["loss"] for line in expected], rel=1e-5
    )


def test_a_mesh_whose_tensor_axis_spans_both_processes_trains_alike(alone, tmp_path, compiled):
    """Two devices, one a process, as Slurm starts them on GPUs."""
    finish(start_pair(tmp_path, compiled, "--config.mesh.tensor=2", devices=1))
    for kind in ("train", "validation", "test"):
        for left, right in zip(lines(tmp_path, kind), lines(alone[0], kind), strict=True):
            assert left.pop("kind") == right.pop("kind")
            assert left == pytest.approx(right, rel=1e-4, abs=1e-6)
