"""A run that stands still ends with the stacks of its threads."""

import time

from jaxcxr.train import watchdog
from tests.train.runs import lines, start


def test_progress_keeps_it_quiet_and_compiling_has_time_of_its_own(monkeypatch):
    barked = []
    monkeypatch.setattr(watchdog._Watchdog, "_bark", lambda self, what, idle: barked.append(what))
    with watchdog.watching("0.4 seconds"):
        for number in range(4):
            watchdog.progress(f"step {number}")
            time.sleep(0.2)
        watchdog.progress("step 4", compiles=True)
        time.sleep(0.8)
        assert barked == []
        watchdog.progress("step 5")
        time.sleep(0.8)
    assert barked
    assert set(barked) == {"step 5"}
    count = len(barked)
    watchdog.progress("nothing watches")
    with watchdog.watching("0"):
        time.sleep(0.3)
    assert len(barked) == count


def test_a_data_source_that_hangs_ends_the_run_with_its_stack(tmp_path, compiled):
    begun = time.monotonic()
    process = start(tmp_path, compiled, "--hang=4", "--config.watchdog=3 seconds",
                    "--config.data.prefetch=1", devices=1)
    try:
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1, output
    assert "no progress for" in output
    assert "the last was step 3" in output
    assert "in hang_here" in output, "the stack of the thread that reads"
    assert "in train_until_done" in output, "and that of the one that waits"
    assert "Start the same command again" in output
    assert [line["step"] for line in lines(tmp_path, "train")][-1] >= 2
    assert time.monotonic() - begun < 100
