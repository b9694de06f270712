"""One run at a time trains in a workdir, and the next hears who does."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest
from etils import epath

from jaxcxr.errors import UserError
from jaxcxr.train import lease


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, seconds in (("RENEWED", 0.05), ("STALE", 0.6), ("_SETTLED", 0.1)):
        monkeypatch.setattr(lease, name, seconds)


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path)


def holder(folder, **changes):
    """A lease of another process."""
    with lease.held(folder):
        found = json.loads((folder / "lease.json").read_text())
    (folder / "lease.json").write_text(json.dumps({**found, "id": "other", **changes}))


def test_the_second_hears_who_holds_it_and_the_file_goes_at_the_end(folder):
    with lease.held(folder), pytest.raises(UserError, match=f"process {os.getpid()} on "):
        lease._wait_until_free(folder / "lease.json")
    assert list(folder.iterdir()) == []


def test_a_dead_process_of_this_machine_is_taken_over_at_once(folder):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    holder(folder, pid=dead.pid, begun="1")
    begun = time.monotonic()
    with lease.held(folder):
        assert time.monotonic() - begun < 0.5
    holder(folder, begun="1")  # the number of a dead process given to another one, here ours
    with lease.held(folder):
        pass


def test_a_silent_host_is_taken_over_once_it_was_watched(folder, capsys):
    holder(folder, machine="other", host="node7", pid=12)
    begun = time.monotonic()
    with lease.held(folder):
        assert time.monotonic() - begun >= 0.6
    assert "process 12 on node7" in capsys.readouterr().err


def test_another_host_that_goes_on_is_left_alone(folder):
    holder(folder, machine="other", host="node7", beat=3)
    path = folder / "lease.json"
    timer = threading.Timer(0.3, lambda: path.write_text(path.read_text().replace("3}", "4}")))
    timer.start()
    with pytest.raises(UserError, match="on node7 trains there"), lease.held(folder):
        pass
    timer.join()


def test_of_two_that_start_at_once_one_goes_on(folder):
    won, refused = [], []
    barrier = threading.Barrier(4)

    def start():
        barrier.wait()
        try:
            with lease.held(folder):
                won.append(1)
                time.sleep(0.5)
        except UserError:
            refused.append(1)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 3)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"host": "a"}'])
def test_a_cut_lease_is_none(folder, text):
    (folder / "lease.json").write_text(text)
    with lease.held(folder):
        assert json.loads((folder / "lease.json").read_text())["pid"] == os.getpid()
