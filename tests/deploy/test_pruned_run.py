"""`jaxcxr prune` from toy runs to smaller ones, and what it refuses."""

import contextlib
import importlib.util

import jax
import numpy as np
import pytest

from jaxcxr import config as base
from jaxcxr.data import pipeline
from jaxcxr.deploy import pruned_run
from jaxcxr.errors import RunError, UserError
from jaxcxr.train import checkpoint, loop, setup, writers
from tests import toys
from tests.train.runs import lines, saved_steps, toy_run

OPEN, CLOSED, HALF = 2.5, -2.5, 0.0


def xray_config():
    config = toys.xray_config(stages__all__duration="2 steps", report__samples=1)
    base.set_model(config, "vit_tiny", dim=16, depth=2, heads=4, patch=2,
                   attention="4*static(0.1)|2*static/fixed(1)+2*token")
    return config


def pose_config():
    """Two stages and a moving average."""
    config = toys.two_stages()
    base.set_model(config, "pose_spatiotemporal", dim=16, depth=2, heads=4, drop_path=0.0,
                   attention="4*static|mha", joint_attention="2*static/adaptive(1)+2*alibi")
    return config


def write_run(workdir, config, learned):
    """A run of one checkpoint at step 1, with noise on the parameters and these gates and spans."""
    rng = np.random.default_rng(0)

    def value(path, leaf):
        names = [key.key for key in path]
        if names[-1] in ("gate", "span"):
            return np.array(learned["/".join(names[1:])], np.float32)
        return np.asarray(leaf) + rng.normal(scale=0.1, size=leaf.shape).astype(np.float32)

    run = setup.make(config)
    with run.mesh_context(), contextlib.closing(
        checkpoint.Checkpoints(workdir, config)
    ) as checkpoints:
        state = run.first_state()
        params = jax.tree_util.tree_map_with_path(value, jax.device_get(state.params))
        params = jax.tree.map(lambda x, s: jax.device_put(x, s.sharding), params, state.params)
        ema = None if state.ema is None else params
        data = pipeline.train_iterator(run.task.source("train"), config)
        checkpoints.save(1, state.replace(step=state.step + 1, params=params, ema=ema), data)
        checkpoints.wait()
    checkpoint.write_config(workdir, config)


def head(dim, width):
    """Parameters of one head, without the bias of the output."""
    return (dim + 1) * 3 * width + dim * width


@pytest.fixture(scope="module")
def xrays(tmp_path_factory):
    """A run of a ViT, one made smaller, and what was measured."""
    folder = tmp_path_factory.mktemp("xrays")
    with toy_run():
        write_run(folder / "run", xray_config(), {
            "blocks_0/attention/group_0/gate": [OPEN, CLOSED, HALF, CLOSED],
            "blocks_1/attention/group_0/gate": [CLOSED, CLOSED],
        })
        result = pruned_run.prune(folder / "run", folder / "new", "3 steps", examples=5, rounds=2)
    return folder / "run", folder / "new", result


def test_a_smaller_vit_computes_the_same(xrays):
    _, _, result = xrays
    assert result.difference <= 1e-6 * max(1, result.largest)
    assert result.largest > 0.1
    assert result.examples == 5
    assert [row[:3] for row in result.layers] == [("blocks_0", 4, 2), ("blocks_1", 4, 2)]
    gone = result.parameters[0] - result.parameters[1]
    # Two heads of each block, and all gates.
    assert gone == 4 * head(16, 4) + 4 + 2
    assert result.flops[1] < 0.95 * result.flops[0]
    text = result.to_text()
    assert "blocks_0  4 -> 2  2*global/dim(4)" in text
    assert f"{result.parameters[1]:,d}" in text


def test_the_smaller_run_is_evaluated_and_trained(xrays):
    run, new, _ = xrays
    screen = writers.Screen(quiet=True)
    with toy_run(figures=True):
        before = loop.evaluate(base.from_saved(checkpoint.load_config(run)), run, screen)
    saved = base.from_saved(checkpoint.load_config(new))
    with toy_run():
        after = loop.evaluate(saved, new, screen)
        assert before == pytest.approx(after, abs=1e-6)
        spec = importlib.util.spec_from_file_location("pruned_config", new / "config.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config()
        assert base.flatten(config) == base.flatten(saved)
        loop.train(config, new, screen)
    assert saved_steps(new)[-1] == 3
    losses = [line["loss"] for line in lines(new, "train")]
    assert len(losses) == 3
    assert np.isfinite(losses).all()
    made = {path.name for path in (run / "report").iterdir()}
    assert {"heads.png", "attention.png"} <= made


def test_a_smaller_pose_model_keeps_both_directions(tmp_path):
    closed = {f"joints_{i}/attention/group_0/gate": [HALF, CLOSED] for i in (0, 1)}
    spans = {f"joints_{i}/attention/group_0/span": [1.0, 0.5] for i in (0, 1)}
    with toy_run():
        write_run(tmp_path / "run", pose_config(), {
            "frames_0/attention/group_0/gate": [CLOSED] * 4, **closed, **spans,
        })
        result = pruned_run.prune(tmp_path / "run", tmp_path / "new", examples=2, rounds=1)
    assert result.difference <= 1e-6 * max(1, result.largest)
    layers = {row[0]: row[1:] for row in result.layers}
    assert layers["frames_0"] == (4, 0, "1*fixed(0)/dim(1)")
    assert layers["joints_1"] == (4, 3, "1*global/dim(4)+2*global/alibi/dim(4)")
    config = base.from_saved(checkpoint.load_config(tmp_path / "new"))
    assert config.model.options.attention == "1*fixed(0)/dim(1)|mha"
    assert config.stage_order == ("second",)
    assert set(config.stages) == {"second"}
    assert config.ema_decay == 0.9


def test_what_cannot_be_pruned_is_said(xrays, tmp_path, monkeypatch):
    run, new, _ = xrays
    with pytest.raises(UserError, match=r"holds no run \(no config.json\)"):
        pruned_run.prune(tmp_path, tmp_path / "new")
    with pytest.raises(UserError, match="exists; give another --out"):
        pruned_run.prune(run, new)
    plain = tmp_path / "plain"
    plain.mkdir()
    checkpoint.write_config(plain, toys.two_stages())
    with pytest.raises(UserError, match="no flexible heads to prune; its attention: mha"):
        pruned_run.prune(plain, tmp_path / "new")
    streams = toys.two_stages()
    base.set_model(streams, "pose_dual_stream", dim=16, depth=1, heads=4, attention="4*static")
    both = tmp_path / "both"
    both.mkdir()
    checkpoint.write_config(both, streams)
    with pytest.raises(UserError, match="several stacks of blocks under one option"):
        pruned_run.prune(both, tmp_path / "new")
    empty = tmp_path / "empty"
    empty.mkdir()
    checkpoint.write_config(empty, xray_config())
    with toy_run(), pytest.raises(UserError, match="holds no checkpoint; train first"):
        pruned_run.prune(empty, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_model_that_computes_something_else_is_not_written(xrays, tmp_path, monkeypatch):
    run, _, _ = xrays
    measure = pruned_run._measure
    monkeypatch.setattr(
        pruned_run, "_measure", lambda *args: {**measure(*args), "difference": 1e-3, "largest": 1.0}
    )
    with toy_run(), pytest.raises(RunError, match=r"differ by 1\.0e-03"):
        pruned_run.prune(run, tmp_path / "new", examples=1, rounds=1)
    assert not (tmp_path / "new").exists()
