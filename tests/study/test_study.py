"""`jaxcxr study`: which runs are done, in which order, what stops them, and what one run leaves."""

import argparse
import functools
import json
import os
import pathlib
import signal
import sys
import threading
import time

import jax
import pytest

from jaxcxr import models
from jaxcxr.commands import study
from jaxcxr.errors import RunError, UserError
from jaxcxr.models.attention.head_parts import OPEN_GATE
from jaxcxr.study import Study, grid, runner
from jaxcxr.train import setup
from tests import toys
from tests.train import runs

RATE = "stages.all.learning_rate"
PROGRAM = (sys.executable, str(pathlib.Path(__file__).with_name("study_program.py")))
CONFIG = pathlib.Path(__file__).resolve().parents[2] / "configs" / "study_flex.py"


def half_as_fast(context):
    learned = context.finished("slow")["learned"]
    (spans,) = learned.values()
    return {RATE: spans[0]}


def make(rows=None, data=("a", "b"), seeds=(0, 1), reference="plain", finalists=0):
    rows = rows or {"plain": {RATE: 0.5}, "slow": {RATE: 0.125}, "half": half_as_fast}
    return Study(data, rows, reference, seeds, finalists)


def runner_of(root, what, jobs=1):
    return runner.Runner(what, lambda data: toys.pose_config(), root, jobs, PROGRAM)


def order(root):
    path = root / "order.txt"
    return path.read_text().split() if path.exists() else []


def test_the_grid_is_done_by_data_set_then_seed_then_row_and_only_once(tmp_path, capsys):
    assert runner_of(tmp_path, make()).run() == {}
    expected = [f"{data}/{row}/seed_{seed}" for data in "ab" for seed in (0, 1)
                for row in ("plain", "slow", "half")]
    assert order(tmp_path) == expected
    assert f"12/12 {expected[-1]}: mpjpe 26" in capsys.readouterr().out
    (tmp_path / "a" / "slow" / "seed_1" / "result.json").unlink()
    assert runner_of(tmp_path, make()).run() == {}
    assert order(tmp_path) == [*expected, "a/slow/seed_1"]


def test_a_row_may_be_made_from_the_result_of_another_with_the_same_seed(tmp_path):
    assert runner_of(tmp_path, make(), jobs=3).run("a/*") == {}
    made = json.loads((tmp_path / "a" / "half" / "seed_1" / "request.json").read_text())
    assert (made["stages"]["all"]["learning_rate"], made["seed"]) == (0.25, 1)
    assert order(tmp_path).index("a/half/seed_1") > order(tmp_path).index("a/slow/seed_1")


def test_later_seeds_are_for_the_best_rows_the_reference_and_the_best_other(tmp_path):
    rows = {"plain": {RATE: 0.5}, "slow": {RATE: 0.125}, "mid": {RATE: 0.25}, "fail": {RATE: 13.0},
            "new": {RATE: 0.75}, "newer": {RATE: 0.625}}
    what = make(rows, reference=("plain", "mid", "slow", "fail"), finalists=2)
    failed = runner_of(tmp_path, what, jobs=3).run()
    assert set(failed) == {grid.Cell(data, "fail", 0) for data in "ab"}
    done = order(tmp_path)
    assert sorted(done[:12]) == sorted(f"{data}/{row}/seed_0" for data in "ab" for row in rows)
    later = [f"{data}/{row}/seed_1" for data in "ab" for row in ("mid", "newer", "slow")]
    assert sorted(done[12:]) == later
    what = make(rows, reference=("plain", "newer"), finalists=1)
    cell = grid.Cell("a", "newer", 1)
    assert not grid.out_of_the_race(what, tmp_path, cell, higher=True, failed=failed)
    assert grid.out_of_the_race(what, tmp_path, cell, higher=False, failed=failed)


def test_finalists_need_the_first_seed_of_all_rows(tmp_path):
    failed = runner_of(tmp_path, make(finalists=2)).run("a/slow/*")
    assert failed == {grid.Cell("a", "slow", 1): "needs a/plain/seed_0, which is not finished"}


def test_only_some_runs_and_what_they_lack(tmp_path):
    failed = runner_of(tmp_path, make()).run("a/half/*")
    assert set(failed.values()) == {f"needs a/slow/seed_{s}, which is not finished" for s in (0, 1)}
    assert order(tmp_path) == []
    with pytest.raises(UserError, match=r"--only=c/\* matches no run.*a/plain/seed_0, b/half/see"):
        runner_of(tmp_path, make()).run("c/*")


def test_a_failing_run_is_reported_with_its_message_and_the_rest_goes_on(tmp_path, capsys):
    rows = {"plain": {RATE: 0.5}, "slow": {RATE: 13.0}, "half": half_as_fast, "last": {RATE: 0.1}}
    failed = runner_of(tmp_path, make(rows, data=("a",), seeds=(0,))).run()
    slow, half = grid.Cell("a", "slow", 0), grid.Cell("a", "half", 0)
    assert failed[slow].startswith(
        "exit code 1: not finite at step 3: lower the learning rate (see "
    )
    assert failed[half] == "needs a/slow/seed_0, which failed"
    assert order(tmp_path) == ["a/plain/seed_0", "a/slow/seed_0", "a/last/seed_0"]
    assert f"{slow}: exit code 1" in capsys.readouterr().out


def test_overrides_that_do_not_fit_fail_alone(tmp_path):
    rows = {"plain": {}, "typo": {"stages.all.learning_rat": 1.0}, "type": {"batch_size": "many"},
            "value": {"batch_size": -1}}
    failed = runner_of(tmp_path, make(rows, data=("a",), seeds=(0,))).run()
    assert sorted(cell.row for cell in failed) == ["type", "typo", "value"]
    assert "learning_rat" in failed[grid.Cell("a", "typo", 0)]
    assert "batch_size is -1" in failed[grid.Cell("a", "value", 0)]
    assert order(tmp_path) == ["a/plain/seed_0"]


def test_a_row_whose_config_changed_is_refused(tmp_path):
    assert runner_of(tmp_path, make({"plain": {RATE: 0.5}}, ("a",), (0,))).run() == {}
    failed = runner_of(tmp_path, make({"plain": {RATE: 0.25}}, ("a",), (0,))).run()
    (why,) = failed.values()
    assert "stages.all.learning_rate: 0.5 -> 0.25" in why
    assert f"remove {tmp_path / 'a/plain/seed_0'} to run it anew" in why
    assert len(order(tmp_path)) == 1


def test_sigterm_is_passed_on_and_the_next_study_goes_on(tmp_path, capsys):
    what = make({"plain": {RATE: 7.0}, "next": {RATE: 0.5}}, ("a",), (0,))
    ready = tmp_path / "a" / "plain" / "seed_0" / "ready"

    def when_ready():
        end = time.monotonic() + 30
        while not ready.exists() and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=when_ready)
    sender.start()
    begun = time.monotonic()
    assert runner_of(tmp_path, what).run() is None
    sender.join()
    assert time.monotonic() - begun < 30  # the program would wait for 60 s
    assert order(tmp_path) == ["a/plain/seed_0"]
    assert capsys.readouterr().out.endswith("run the same command again to go on.\n")
    assert runner_of(tmp_path, what).run("a/next/*") == {}


def test_a_workdir_serves_one_study_at_a_time(tmp_path):
    first = runner_of(tmp_path, make())
    with first._locked(), pytest.raises(UserError, match="another study is running in"):
        runner_of(tmp_path, make()).run()
    assert order(tmp_path) == []


@pytest.mark.parametrize(("changes", "message"), [
    ({"rows": {"a b": {}}}, "'a b' is no name"),
    ({"reference": "other"}, "reference 'other' is no row"),
    ({"seeds": (0, 0)}, "no seed twice"),
    ({"finalists": -1}, "-1 finalists"),
])
def test_a_study_is_checked(changes, message):
    with pytest.raises(UserError, match=message):
        make(**changes)


STUDY_FILE = """
from jaxcxr.study import Study
from tests import toys

def get_config(arg=""):
    return toys.pose_config()

def get_study():
    return Study(("a",), {"plain": {}, "fast": {"stages.all.learning_rate": RATE}}, "plain", (0, 1))
"""


def command(*words):
    parser = argparse.ArgumentParser()
    study.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_CHILD", PROGRAM)
    monkeypatch.setattr(runner.Runner.__init__, "__defaults__", (1, PROGRAM))
    path = tmp_path / "file.py"
    path.write_text(STUDY_FILE.replace("RATE", "0.5"))
    return path


def test_the_command_writes_the_table_and_prints_it(file, tmp_path, capsys):
    words = (f"--config={file}", f"--workdir={tmp_path / 'w'}")
    with pytest.raises(UserError, match="no run of the study is finished"):
        study.run(command(*words, "--table"))
    study.run(command(*words, "--jobs=2"))
    text = "\n\n".join((tmp_path / "w" / name).read_text() for name in ("table_a.md", "poses.md"))
    assert capsys.readouterr().out.endswith(f"\n{text}\n")
    assert "| fast | 2 | 50.50 [44.15, 56.85] | +49.90 [+49.90, +49.90] |" in text
    assert "| a | fast | 9 | 2 | 50.5 [50.5, 50.5] |" in text
    assert (tmp_path / "w" / "table_a.csv").read_text().count("\n") == 3
    assert (tmp_path / "w" / "poses.csv").read_text().count("\n") == 3
    study.run(command(*words, "--table", f"--json={tmp_path / 'a.json'}"))
    assert capsys.readouterr().out == f"\n{text}\n"
    found = json.loads((tmp_path / "a.json").read_text())
    assert [f"| {' | '.join(row[1:])} |" in text for row in found["rows"]] == [True, True]
    assert {row[0] for row in found["rows"]} == {"a"}


def test_the_command_ends_with_what_was_not_done(file, tmp_path):
    file.write_text(STUDY_FILE.replace("RATE", "13.0"))
    with pytest.raises(RunError, match=r"2 of the runs were not done:\n  a/fast/seed_0: exit code"):
        study.run(command(f"--config={file}", f"--workdir={tmp_path / 'w'}"))
    assert "Not finished: fast." in (tmp_path / "w" / "table_a.md").read_text()


@pytest.mark.parametrize(("text", "message"), [
    (None, "there is no study file"),
    ("x = 1", "no function get_study"),
    ("import nothing_like_it", "cannot read the study file .*nothing_like_it"),
])
def test_a_file_that_is_no_study_is_refused(text, message, tmp_path):
    path = tmp_path / "study.py"
    if text:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        grid.load(path)


def done_run(folder, config, **how):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / runner.REQUEST).write_text(config.to_json_best_effort())
    with runs.toy_run(devices=1, **how):
        runner.train(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with learned spans and gates, of the trainer, interrupted once: (config, folder)."""
    config = toys.pose_config()
    config.model.options.attention = "1*adaptive(ramp=2,init=0.5)+1*static(0.1)"
    config.ema_decay = 0.5
    folder = tmp_path_factory.mktemp("run")
    done_run(folder, config, stop_at=3)
    assert grid.read_result(folder) is None
    assert runs.saved_steps(folder)[-1] == 3
    done_run(folder, config)
    return config, folder


def test_a_run_leaves_its_result(finished):
    config, folder = finished
    result = grid.read_result(folder)
    (test,) = runs.lines(folder, "test")
    checks = {line["step"]: line for line in runs.lines(folder, "validation")}
    assert result["monitor"] == "mpjpe"
    assert result["step"] == test["step"]
    assert result["test"]["mpjpe"] == test["mpjpe"]
    assert result["validation"]["mpjpe"] == checks[result["step"]]["mpjpe"]
    assert result["validation"]["mpjpe"] == min(line["mpjpe"] for line in checks.values())
    assert (result["steps"], result["batch_size"]) == (8, 16)
    sums, counts = zip(*(one["mpjpe"] for one in result["sequences"].values()), strict=True)
    assert sum(sums) / sum(counts) == pytest.approx(test["mpjpe"], rel=1e-5)
    params = runs.saved_state(folder, result["step"], config).ema
    assert result["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(params))
    span, gate = result["learned"].values()
    layer = params["backbone"]["blocks_0"]["attention"]
    assert list(result["learned"]) == [
        f"backbone/blocks_0/attention/group_{name}" for name in ("0/span", "1/gate")
    ]
    assert span == layer["group_0"]["span"].tolist() != [0.5]
    assert gate == layer["group_1"]["gate"].tolist() != [OPEN_GATE]


def test_flops_are_those_of_the_matrix_products_and_little_more():
    config = toys.pose_config(model__options__dim=128)
    with runs.toy_run(devices=1):
        run = setup.make(config)
        with run.mesh_context():
            state = run.first_state()
            cost = runner.forward_cost(run, state.eval_variables)
    frames = config.data.frames
    kernels = sum(
        leaf.size for path, leaf in jax.tree.leaves_with_path(state.params)
        if "kernel" in str(path[-1])
    )
    products = 2 * frames * kernels + 4 * frames**2 * 128
    assert products <= cost["flops"] < 1.1 * products
    assert 0 < cost["milliseconds"] < 1e4


def test_a_mistake_ends_the_process_of_a_run_with_one_line(tmp_path, capsys):
    config = toys.pose_config()
    (tmp_path / runner.REQUEST).write_text(config.to_json_best_effort())
    (tmp_path / "config.json").write_text(json.dumps({"config": {"seed": 3}}))
    with runs.toy_run(devices=1), pytest.raises(SystemExit) as caught:
        runner.main([str(tmp_path)])
    assert caught.value.code == 2
    assert "jaxcxr: " in capsys.readouterr().err


def learned_before(self, row):
    """Stands in for what the other rows learned, in as many layers as the model has."""
    layers = range(self.config.model.options.depth)
    return {"learned": {
        "adaptive": {f"blocks_{i}/span": [0.0, 0.1, 0.5, 0.2 * i] for i in layers},
        "gates": {f"blocks_{i}/gate": [3.0, -3.0, 1.0, -2.3 - i] for i in layers},
    }[row]}


@pytest.mark.parametrize(("data", "shape"), [
    ("cmu_mocap", (1, 27, 17, 3)), ("chest_phantom", (1, 64, 64, 1)),
])
def test_rows_of_the_study_of_heads_have_equal_parameters(data, shape, monkeypatch, tmp_path):
    """What a row needs besides is taken from its MLPs."""
    monkeypatch.setattr(grid.Context, "finished", learned_before)
    what, config_of = grid.load(CONFIG)
    sizes = {}
    for row in ("plain-4", "table", "dynamic", "gates", "random-pruned"):
        config = grid.resolve(what, config_of, tmp_path, grid.Cell(data, row, 1))
        assert config.seed == 1
        model = models.create(config.model.name, **config.model.options.to_dict())
        init = functools.partial(model.init, train=False)
        shapes = jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct(shape, "float32"))
        sizes[row] = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert sizes.pop("random-pruned") < 0.99 * sizes["plain-4"]
    assert all(abs(size / sizes["plain-4"] - 1) < 1e-3 for size in sizes.values()), sizes


def test_rows_made_from_learned_spans_and_gates(monkeypatch, tmp_path):
    monkeypatch.setattr(grid.Context, "finished", learned_before)
    what, config_of = grid.load(CONFIG)
    cell = {row: grid.Cell("cmu_mocap", row, 0) for row in what.rows}
    kinds = {
        row: grid.resolve(what, config_of, tmp_path, cell[row]).model.options.attention
        for row in ("learned", "permuted", "uniform", "random-pruned")
    }
    # windows of 26 u + 2 frames: 2, 4.6, 15 and 2, 7.2, 12.4; their mean is 7.3
    assert kinds["learned"] == ("2*fixed(2)+1*fixed(5)+1*fixed(15)|"
                                "1*fixed(2)+1*fixed(5)+1*fixed(7)+1*fixed(15)|"
                                "1*fixed(2)+1*fixed(5)+1*fixed(12)+1*fixed(15)")
    assert kinds["uniform"] == "|".join(["4*fixed(7)"] * 3)
    assert kinds["permuted"] != kinds["learned"]
    assert windows(kinds["permuted"]) == windows(kinds["learned"])
    # three gates at -3 and those at -3.3 and -4.3 are below -log 11, closed
    narrow = [term for term in kinds["random-pruned"].replace("|", "+").split("+")
              if term.endswith("dim(1)")]
    assert sum(int(term[0]) for term in narrow) == 5


def windows(kind):
    found = []
    for term in kind.replace("|", "+").split("+"):
        count, window = term.rstrip(")").split("*fixed(")
        found += [int(window)] * int(count)
    return sorted(found)


def test_rows_of_the_study_of_lifters_lift_as_many_frames_a_step(tmp_path):
    what, config_of = grid.load(CONFIG.with_name("study_pose.py"))
    for data, length in (("clean_27", 27), ("noisy_81", 81)):
        for row in what.rows:
            config = grid.resolve(what, config_of, tmp_path, grid.Cell(data, row, 0))
            centered = config.data.target == "center"
            assert config.batch_size * (1 if centered else length) == 648, row
            assert centered == row.endswith("-center")
            if config.model.name == "pose_convolution":
                model = models.create(config.model.name, **config.model.options.to_dict())
                assert model.receptive_field == length
    assert "dual" in what.references
    assert not {"dual-flexible", "temporal-windows"} & set(what.references)
