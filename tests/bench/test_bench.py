"""The benchmarks: that they measure what they say, on toys."""

import cv2
import numpy as np
import pytest

from jaxcxr import __main__ as command
from jaxcxr import main, task
from jaxcxr.bench import input_bench, train_bench
from jaxcxr.commands import bench
from jaxcxr.errors import UserError
from tests import toys
from tests.bench.printed import arguments, number


@pytest.fixture
def pose_run(monkeypatch):
    config = toys.pose_config(log_every=100)
    monkeypatch.setattr(main, "load_config", lambda argv: config)
    monkeypatch.setattr(task, "create", toys.make_pose_task)
    return config


def test_input_prints_both_rates_and_their_ratio(pose_run, capsys):
    bench.run(arguments("input", "--seconds", "0.05"))
    text = capsys.readouterr().out
    ours, bare = number(text, "pipeline"), number(text, "bare loop")
    assert ours > 0
    assert bare > 0
    assert number(text, "ratio") == pytest.approx(ours / bare, rel=0.7)


def test_input_prints_loops_over_the_original_files(tmp_path, monkeypatch, capsys):
    config = toys.xray_config()
    monkeypatch.setattr(main, "load_config", lambda argv: config)
    monkeypatch.setattr(task, "create", toys.make_xray_task)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), noise)
    bench.run(arguments("input", "--seconds", "0.05", "--raw", str(tmp_path)))
    text = capsys.readouterr().out
    for name in ("decode", "PIL"):
        line = next(line for line in text.splitlines() if line.startswith(name))
        ratio = float(line.split("pipeline ")[1].split()[0])
        assert ratio == pytest.approx(number(text, "pipeline") / number(text, name), rel=0.7)
    # From 64 px to 8 px, 8-bit gray to [0, 1].
    read, count = input_bench.originals(str(tmp_path), config)["PIL"]
    assert (read(0).shape, count) == ((8, 8), 1)
    np.testing.assert_allclose(read(0).mean(), noise.mean() / 255, atol=0.01)
    with pytest.raises(UserError, match=r"--raw .*nowhere"):
        bench.run(arguments("input", "--raw", str(tmp_path / "nowhere")))


def test_step_prints_the_overhead_and_the_time_to_the_first_step(pose_run, capsys):
    pose_run.mesh.data = 8
    bench.run(arguments("step", "--seconds", "0.05"))
    text = capsys.readouterr().out
    for side in ("loop", "without reading"):
        ratio = number(text, side) / number(text, "bare step")
        line = next(line for line in text.splitlines() if line.startswith(side))
        overhead = float(line.split("overhead ")[1].split("%")[0])
        assert overhead / 100 + 1 == pytest.approx(ratio, rel=0.7)
    for part in ("import", "data", "init", "compile", "first step"):
        assert f"{part} " in text.splitlines()[-1]


def test_a_held_feed_reads_nothing():
    feed = train_bench._Feed(iter(range(5)))
    assert next(feed) == 0
    with feed.held():
        assert [next(feed), next(feed)] == [0, 0]
    assert next(feed) == 1


def test_an_option_of_another_benchmark_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match="bench complexity has no --raw"):
        bench.run(arguments("complexity", "--raw", str(tmp_path)))


@pytest.mark.parametrize("words", [("--debug", "complexity"), ("complexity", "--debug")])
def test_debug_stands_before_or_after(words):
    with pytest.raises(UserError, match="at least two sizes"):
        command.run(["bench", *words, "--sizes", "64"])


@pytest.mark.parametrize("what", bench.BENCHES)
def test_each_has_a_help_of_its_own(what, capsys):
    with pytest.raises(SystemExit) as end:
        command.run(["bench", what, "--help"])
    assert end.value.code == 0
    assert f"usage: jaxcxr bench {what}" in capsys.readouterr().out
