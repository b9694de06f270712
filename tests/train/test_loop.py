"""The loop: an interrupted run gives what the uninterrupted one gives, and says what it does."""

import json
import random
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from jaxcxr.data import pipeline
from jaxcxr.errors import UNFINISHED, RunError, UserError
from jaxcxr.train import checkpoint, loop, parallel, setup, writers
from jaxcxr.train import state as state_lib
from tests import toys
from tests.train.runs import (
    assert_same,
    lines,
    saved_state,
    saved_steps,
    start,
    toy_run,
    train,
    wait_for,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run: its workdir, what happened in order, and the states given to save."""
    workdir = tmp_path_factory.mktemp("whole")
    events, states = [], {}

    class Spy(checkpoint.Checkpoints):
        def save(self, step, state, data, metrics=None):
            states[step] = jax.tree.map(lambda x: np.array(x, copy=True), state)
            events.append(f"save {step}")
            super().save(step, state, data, metrics)

    def iterator(*args):
        stream = pipeline_iterator(*args)

        class Noted(type(stream)):
            def __next__(self):
                events.append("next")
                return super().__next__()

        stream.__class__ = Noted
        return stream

    pipeline_iterator = pipeline.train_iterator
    with toy_run() as patch:
        patch.setattr(checkpoint, "Checkpoints", Spy)
        patch.setattr(pipeline, "train_iterator", iterator)
        metrics = loop.train(
            toys.two_stages(checkpoint__keep=10), workdir, writers.Screen(quiet=True)
        )
    return workdir, metrics, events, states


def test_every_step_is_saved_before_the_next_batch_is_taken(whole):
    _, _, events, _ = whole
    assert events == [event for step in range(1, 7) for event in ("next", f"save {step}")]


def test_a_checkpoint_holds_the_state_at_the_time_of_saving(whole):
    # The arrays are donated to the next step while Orbax still writes them.
    workdir, _, _, states = whole
    assert saved_steps(workdir) == list(range(1, 7))
    for step in (1, 3, 5, 6):
        assert_same(saved_state(workdir, step), states[step])
    assert not np.array_equal(
        jax.tree.leaves(states[5].params)[0], jax.tree.leaves(states[6].params)[0]
    )


def test_every_step_and_stage_is_logged_once(whole):
    workdir, _, _, _ = whole
    assert [record["step"] for record in lines(workdir, "train")] == [1, 2, 3, 4, 5, 6]
    assert [record["step"] for record in lines(workdir, "validation")] == [2, 4, 6]
    stages = [(record["step"], record["name"]) for record in lines(workdir, "stage")]
    assert stages == [(0, "all"), (3, "second")]
    assert len(lines(workdir, "test")) == 1


def test_the_stage_decides_what_is_trained(whole):
    _, _, _, states = whole
    trees = [states[step].params["backbone"] for step in (1, 3, 4)]
    assert_same(trees[0], trees[1])
    assert any(not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, trees[1:]),
                                                         strict=True))


@pytest.mark.parametrize(
    "stop_at", [2, 3, 7], ids=["in a stage", "on the boundary", "in the final evaluation"]
)
def test_a_resumed_run_is_the_uninterrupted_one(whole, tmp_path, stop_at):
    workdir, metrics, _, states = whole
    assert train(tmp_path, stop_at=stop_at) is None
    assert not (tmp_path / "done").exists()
    assert saved_steps(tmp_path)[-1] == min(stop_at, 6)
    assert train(tmp_path) == metrics
    assert_same(saved_state(tmp_path, 6), states[6])
    assert lines(tmp_path) == lines(workdir)


def test_a_checkpoint_opens_on_other_devices(whole, tmp_path):
    workdir, metrics, _, _ = whole
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    for step in (3, 4, 5, 6):
        shutil.rmtree(tmp_path / "checkpoints" / str(step))
    for devices, begin, stop in ((1, 2, 3), (8, 3, None)):
        before, begun = saved_state(tmp_path, begin), []
        with toy_run(devices=devices, stop_at=stop) as patch:
            patch.setattr(loop, "describe", noting(begun))
            result = loop.train(toys.two_stages(), tmp_path, writers.Screen(quiet=True))
        (step, state, used), = begun
        assert step == begin
        assert used == {devices}
        assert_same(state, before)
    assert result == pytest.approx(metrics, rel=1e-4)


def noting(begun):
    """`describe` that notes the step, state and number of devices with which a run begins."""

    def describe(run, state, step, workdir):
        devices = {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state)}
        begun.append((step, jax.device_get(state), devices))
        return {}

    return describe


@pytest.mark.slow
def test_pmap_trains_saves_and_resumes_alike(whole, tmp_path):
    _, metrics, _, states = whole
    config = toys.two_stages(parallel="pmap")
    train(tmp_path, config, stop_at=4)
    assert train(tmp_path, config) == pytest.approx(metrics, rel=1e-4)
    state = saved_state(tmp_path, 6)
    for a, b in zip(*map(jax.tree.leaves, (state.params, states[6].params)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_finished_workdir_only_evaluates(whole):
    workdir, metrics, _, _ = whole
    before = lines(workdir)
    with toy_run() as patch:
        patch.setattr(setup.Setup, "train_step", lambda *args: pytest.fail("trained again"))
        screen = writers.Screen(quiet=True)
        assert loop.train(toys.two_stages(), workdir, screen) == metrics
        assert loop.evaluate(toys.two_stages(), workdir, screen) == metrics
    assert lines(workdir) == before


def test_the_best_and_the_newest_checkpoints_are_kept_and_the_best_is_tested(whole, tmp_path):
    errors = {record["step"]: record["mpjpe"] for record in lines(whole[0], "validation")}
    mode = "min" if errors[2] < errors[6] else "max"  # so that the last is not the best
    best = (min if mode == "min" else max)(errors, key=errors.get)
    config = toys.two_stages(checkpoint__keep=1, checkpoint__mode=mode)
    train(tmp_path, config, stop_at=5)
    assert saved_steps(tmp_path) == [best, 5]
    metrics = train(tmp_path, config)
    assert saved_steps(tmp_path) == [best, 6]
    tested, = lines(tmp_path, "test")
    assert tested["step"] == best
    with toy_run():
        run = setup.make(config)
        with run.mesh_context():
            variables = saved_state(tmp_path, best, config).eval_variables
            predictions = loop.predict_split(run, variables, "test")
            again = run.task.evaluate("test", predictions).metrics
    assert again == pytest.approx(metrics, rel=1e-6)


def test_the_workdir_of_another_config_is_refused_with_the_difference(whole):
    workdir, _, _, _ = whole
    other = toys.two_stages(seed=1, stages__second__learning_rate=0.5)
    with pytest.raises(UserError) as caught:
        train(workdir, other)
    message = str(caught.value)
    assert "seed: 0 -> 1" in message
    assert "stages.second.learning_rate: 0.001 -> 0.5" in message
    assert message.count("->") == 2


def test_how_fast_and_where_a_run_computes_may_change(whole):
    workdir, _, _, _ = whole
    config = toys.two_stages(
        log_every=3, mesh__fsdp=2, data__threads=1, data__dir="/elsewhere", report__samples=1
    )
    checkpoint.check_workdir(workdir, config)


def test_a_workdir_whose_run_never_began_takes_any_config(tmp_path):
    with toy_run(), pytest.raises(UserError, match="multiple of"):
        loop.train(toys.two_stages(batch_size=12), tmp_path, writers.Screen(quiet=True))
    checkpoint.check_workdir(tmp_path, toys.two_stages())


def poisoned(first_position):
    """`put_batch` that spoils the training batch which begins at a position of the stream."""
    put = parallel.put_batch

    def spoil(mesh, batch):
        if batch["position"].min() == first_position:
            batch = {**batch, "joints": np.full_like(batch["joints"], np.nan)}
        return put(mesh, batch)

    return spoil


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    config = toys.two_stages()
    with toy_run() as patch:
        patch.setattr(parallel, "put_batch", poisoned(3 * config.batch_size))
        with pytest.raises(RunError) as caught:
            loop.train(config, tmp_path, writers.Screen(quiet=True))
    message = str(caught.value)
    assert "step 4" in message
    assert "loss nan" in message
    assert "last good checkpoint is step 3" in message
    task = toys.make_pose_task(config)
    stream = pipeline.train_iterator(task.source("train"), config)
    indices = [next(stream)["index"] for _ in range(4)][-1]
    assert ", ".join(task.ids("train", indices)) in message
    assert saved_steps(tmp_path)[-1] == 3
    for step in saved_steps(tmp_path):
        for leaf in jax.tree.leaves(saved_state(tmp_path, step)):
            assert np.isfinite(leaf).all()


def test_parameters_that_are_not_finite_are_never_saved(tmp_path):
    # The loss of the first step is finite: it was computed before the update.
    config = toys.two_stages(stages__all__learning_rate=1e38)
    with toy_run(), pytest.raises(RunError, match=r"step 1.*parameter norm inf.*no checkpoint"):
        loop.train(config, tmp_path, writers.Screen(quiet=True))
    assert saved_steps(tmp_path) == []


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 5), (1, 21), (8, 16), (8, 24)])
def test_metrics_depend_on_neither_batch_size_nor_devices(devices, batch_size):
    config = toys.xray_config(batch_size=batch_size)
    with toy_run(devices=devices):
        run = setup.make(config)
        state = setup_state(run)
        with run.mesh_context():
            actual = loop.predict_split(run, state.eval_variables, "test")
    size = len(run.task.source("test"))
    assert size % batch_size or batch_size == 21
    outputs = run.model.apply(
        {"params": state.eval_params, "batch_stats": state.batch_stats},
        run.task.inputs({"image": run.task.source("test").images})[0], train=False,
    )
    expected = run.task.predict(outputs, {})
    np.testing.assert_allclose(actual["scores"], expected["scores"], atol=1e-6)
    scalars = run.task.evaluate("test", jax.device_get(expected)).metrics
    assert run.task.evaluate("test", actual).metrics == pytest.approx(scalars, abs=1e-6)


def setup_state(run):
    """Some state, the same for every mesh, its moving average unlike its parameters."""
    variables = jax.jit(run.init_variables)()
    return state_lib.create(jax.device_get(variables), run.stages[0], ema=True)


def kill_at_random(workdir, compiled, rng, step):
    """SIGKILL at a random moment after the checkpoint of `step` was begun."""
    process = start(workdir, compiled, "--slow=0.2")
    wait_for(process, workdir / "checkpoints" / str(step))
    time.sleep(rng.uniform(0, 0.4))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_killed_and_terminated_run_ends_as_the_uninterrupted_one(whole, tmp_path, compiled):
    workdir, _, _, states = whole
    kill_at_random(tmp_path, compiled, random.Random(0), step=1)
    process = start(tmp_path, compiled, "--slow=1.0")
    wait_for(process, tmp_path / "checkpoints" / "4")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == UNFINISHED, output
    assert "stopped by SIGTERM after saving; run the same command again" in output
    assert saved_steps(tmp_path)[-1] in (4, 5)
    listed = tmp_path / "modules.json"
    process = start(tmp_path, compiled, TOY_MODULES=str(listed))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert_same(saved_state(tmp_path, 6), states[6])
    assert lines(tmp_path) == lines(workdir)
    # The killed start has left no line; the others say what they did, for how long and where.
    stopped, ended = map(json.loads, (tmp_path / "run.jsonl").read_text().splitlines())
    assert stopped["to_step"] == ended["from_step"] in (4, 5)
    assert stopped["from_step"] > 0
    assert (ended["to_step"], stopped["finished"], ended["finished"]) == (6, False, True)
    assert 0 < ended["seconds"] < 120
    assert ended["machine"].endswith(stopped["machine"])
    assert "run_toy" in ended["command"]
    modules = json.loads(listed.read_text())
    assert {"jaxcxr.train.loop", "tensorboardX"} <= set(modules)
    assert {"tensorflow", "torch"}.isdisjoint(modules)
    made = {path.name for path in (tmp_path / "report").iterdir()}
    assert made == {
        "attention.png", "curves.png", "skeletons_test.png", "joint_errors_test.png",
        "errors.csv", "errors.md", "errors_actions.png", "errors_time.png", "errors_worst.png",
        "index.html",
    }
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "MPJPE, mm [95 % interval over motions]" in page


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_run_killed_at_random_again_and_again(whole, tmp_path, compiled, seed):
    workdir, _, _, states = whole
    rng = random.Random(seed)
    for _ in range(3):
        newest = max(saved_steps(tmp_path), default=0) if any(tmp_path.iterdir()) else 0
        kill_at_random(tmp_path, compiled, rng, step=min(newest + 1, 6))
    process = start(tmp_path, compiled)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert_same(saved_state(tmp_path, 6), states[6])
    assert lines(tmp_path) == lines(workdir)
