"""`jaxcxr stress` on toy runs: the untouched input is the run's own, one compilation serves all."""

import json

import pytest

from jaxcxr import __main__ as command
from jaxcxr.train import checkpoint, setup
from jaxcxr.xray.task import XrayTask
from tests import toys
from tests.train import runs

KINDS = ("noise", "missing", "fps", "window")


@pytest.fixture(scope="module")
def stressed(tmp_path_factory):
    """A run's folder, its metrics, the result of its stress test, and how often was compiled."""
    folder, made = tmp_path_factory.mktemp("run"), []
    config = toys.pose_config(stages__all__duration="2 steps", evaluate_every="2 steps")
    expected = runs.train(folder, config, devices=1)
    make = setup.make
    with runs.toy_run(devices=1) as patch:
        patch.setattr(setup, "make", lambda *args: made.append(make(*args)) or made[-1])
        command.run(["stress", f"--workdir={folder}", "--resamples=100", "--kinds", *KINDS])
    result = json.loads((folder / "report" / "stress.json").read_text())
    return folder, expected, result, made[0].eval_step._cache_size()


def test_the_untouched_input_gives_the_metrics_of_the_run(stressed):
    folder, expected, result, _ = stressed
    assert result["mpjpe"] == expected["mpjpe"]
    (record,) = runs.lines(folder, "test")
    assert (record["step"], record["mpjpe"]) == (result["checkpoint"], result["mpjpe"])
    assert tuple(result["kinds"]) == KINDS
    for kind in result["kinds"].values():
        assert kind["levels"][0]["mpjpe"] == expected["mpjpe"]
        assert all(entry["mpjpe"] != expected["mpjpe"] for entry in kind["levels"][1:])


def test_levels_share_the_compiled_step_and_each_length_has_its_own(stressed):
    lengths = len(stressed[2]["kinds"]["window"]["levels"])
    assert lengths == 3
    assert stressed[3] == lengths


def test_the_same_seed_gives_the_same_result(stressed, capsys):
    folder, _, result, _ = stressed
    written = (folder / "report" / "stress.md").read_text()
    with runs.toy_run(devices=1):
        command.run(["stress", f"--workdir={folder}", "--resamples=100", "--kinds", "missing"])
        again = json.loads((folder / "report" / "stress.json").read_text())
        assert again["kinds"]["missing"] == result["kinds"]["missing"]
        command.run(["stress", f"--workdir={folder}", "--seed=3", "--kinds", "missing"])
    other = json.loads((folder / "report" / "stress.json").read_text())
    assert other["mpjpe"] == result["mpjpe"]
    assert other["kinds"]["missing"]["levels"][1] != again["kinds"]["missing"]["levels"][1]
    printed = capsys.readouterr().out
    hardest = other["kinds"]["missing"]["levels"][-1]
    assert f"missing 0.4: MPJPE {hardest['mpjpe']:.1f} mm" in printed
    assert "untouched" in written
    assert (folder / "report" / "stress.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("words", "message"), [
    (("--kinds", "noise", "rain"), "'rain' is not known; kinds: noise, drift"),
    (("--resamples=0",), "--resamples must be at least 1"),
])
def test_mistakes_are_said_before_anything_is_computed(tmp_path, capsys, words, message):
    checkpoint.write_config(tmp_path, toys.two_stages())
    with pytest.raises(SystemExit) as stopped:
        command.run(["stress", f"--workdir={tmp_path}", *words])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_runs_without_a_test_or_a_checkpoint_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.delattr(XrayTask, "stress_test")
    for name, config, message in (
        ("xray", toys.xray_config(), "a run of the task 'cxr'; there are stress tests of pose"),
        ("empty", toys.two_stages(), "holds no checkpoint; train first"),
        ("nothing", None, "holds no run"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        if config is not None:
            checkpoint.write_config(folder, config)
        with runs.toy_run(devices=1), pytest.raises(SystemExit) as stopped:
            command.run(["stress", f"--workdir={folder}"])
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
