"""`jaxcxr bench train`: what it measures, on toys, and a peer that is no torch."""

import json
import stat
import sys

import jax
import pytest

from jaxcxr import bench, main, task
from jaxcxr.bench import train_bench, train_spec
from jaxcxr.errors import RunError, UserError
from jaxcxr.plan import hardware
from jaxcxr.train import compilation, setup
from tests import toys
from tests.bench.test_bench import arguments, figure


@pytest.fixture
def pose_run(monkeypatch):
    config = toys.pose_config(log_every=100, accumulate=1)
    monkeypatch.setattr(main, "load_config", lambda argv: config)
    monkeypatch.setattr(task, "create", toys.make_pose_task)
    monkeypatch.setattr(compilation, "enable_cache", lambda: None)
    monkeypatch.setattr(hardware, "measured_flops", lambda dtype: 1e9)
    return config


PEER = """#!{python}
import json, sys
spec = json.loads(sys.argv[3])
assert sys.argv[1] == "-P" and sys.argv[2].endswith("torch_peer.py")
if spec["dim"] == 8:
    sys.exit("no module named torch")
print(json.dumps({{"parameters": spec["dim"] and {parameters}, "how": "eager", "version": "0"}}))
sys.stdout.flush()
for line in sys.stdin:
    steps = [[0.5, 0.25]] * int(line)
    print(json.dumps({{"steps": steps, "memory": None}}), flush=True)
"""


@pytest.fixture
def peer(tmp_path):
    """What makes a program that answers as torch_peer does, half a second for each step."""

    def make(parameters):
        path = tmp_path / "python"
        path.write_text(PEER.format(python=sys.executable, parameters=parameters))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make


def size_of(config):
    params = jax.eval_shape(setup.make(config).init_variables)["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_prints_rates_use_and_memory(pose_run, capsys):
    bench.run(arguments("train", "--seconds", "0.01"))
    text = capsys.readouterr().out
    assert f"{size_of(pose_run):,} parameters, batch 16" in text
    rate = figure(text, "step")
    milliseconds = float(text.split("step ")[1].split("examples/s, ")[1].split()[0])
    assert rate == pytest.approx(16 / milliseconds * 1e3, rel=0.1)
    assert 0 <= figure(text, "data wait") <= 100
    # At a peak of 1 GFLOP/s the share and the rate are one number.
    share = figure(text, "MFU") / 100
    per_second = float(text.split("GFLOP a step at ")[1].split()[0])
    assert share == pytest.approx(per_second, rel=0.05, abs=0.06)
    assert figure(text, "memory") >= 0


def test_another_model_than_the_configs(pose_run, monkeypatch):
    seen = []
    monkeypatch.setattr(train_bench, "bench_train", lambda config, args: seen.append(config.model))
    bench.run(arguments("train", "--model", "pose_spatiotemporal"))
    assert seen[0].name == "pose_spatiotemporal"
    assert seen[0].options.dim == 128
    with pytest.raises(UserError, match="vit_small"):
        bench.run(arguments("train", "--model", "vit_smal"))


def test_counts_the_products_of_all_passes(pose_run):
    """By hand: each Dense three times, but the embedding, whose input has no gradient, twice."""
    run = setup.make(pose_run)
    batch = run.example_batch()
    tokens, dim, joints = 16 * 9, 16, 17
    dense = 3 * (4 * dim * dim + 2 * dim * 2 * dim + dim * 3 * joints)
    embed = 2 * (3 * joints + 3) * dim
    attention = 3 * 2 * 9 * dim
    expected = 2.0 * tokens * (dense + embed + attention)
    assert train_bench.products_of_step(run, batch) == pytest.approx(expected, rel=1e-3)


def test_beside_a_peer_prints_the_ratio_of_the_turns(pose_run, peer, capsys, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    python = peer(size_of(pose_run))
    bench.run(arguments("train", "--seconds", "0.01", "--peer", "--peer-python", python))
    text = capsys.readouterr().out
    assert figure(text, "torch") == pytest.approx(32, rel=0.01)  # 16 examples in half a second
    ratio, step = figure(text, "ratio"), figure(text, "step")
    assert ratio == pytest.approx(step / 32, rel=0.7)
    assert "torch 250 ms" in text  # of CPU time
    assert pose_run.augment.horizontal_flip == 0


@pytest.mark.parametrize(("parameters", "dim", "error", "words"), [
    (5, 16, RunError, "has 5 parameters"),
    (5, 8, UserError, "no module named torch"),
])
def test_a_peer_that_is_another_or_none(pose_run, peer, monkeypatch, parameters, dim, error, words):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    pose_run.model.options.dim = dim
    with pytest.raises(error, match=words):
        bench.run(arguments("train", "--peer", "--peer-python", peer(parameters)))


@pytest.mark.parametrize(("changes", "words"), [
    ({"model__options__norm": "post"}, "norm='pre', not 'post'"),
    ({"loss__likelihood": 1.0}, "config.loss.likelihood=1.0"),
    ({"loss__joint_weights": "limbs"}, "joint_weights"),
    ({"stages__all__trainable": ("^head/",)}, "trains everything"),
])
def test_what_the_peer_cannot_do_is_said(changes, words):
    with pytest.raises(UserError, match=words):
        train_spec.of(toys.pose_config(**changes), {"joints": 17}, "cpu", "auto")


def test_models_without_a_peer_are_refused():
    config = toys.xray_config()
    with pytest.raises(UserError, match="width=64, not 4"):
        train_spec.of(config, {"classes": 3}, "cpu", "auto")
    config.model.name = "densenet121"
    with pytest.raises(UserError, match="no torch counterpart"):
        train_spec.of(config, {"classes": 3}, "cpu", "auto")


def test_a_specification_is_json():
    spec = train_spec.of(toys.pose_config(), {"joints": 17}, "cpu", "auto")
    assert json.loads(json.dumps(spec)) == spec
    assert (spec["kind"], spec["joint_tokens"], spec["batch"]) == ("pose", False, 16)


def test_without_augmentation_every_strength_is_off():
    config = toys.xray_config(augment__rotation=3.0, augment__crop_area=0.5)
    train_bench.without_augmentation(config)
    strengths = config.augment.to_dict()
    assert strengths.pop("fill") == toys.xray_config().augment.fill
    assert strengths.pop("crop_area") == 1
    assert not any(strengths.values())


def test_waiting_for_data_is_counted(monkeypatch):
    # The loop begins at 0 and ends at 5; it waits from 1 to 1.5 and from 3 to 4.
    clocks = iter([0.0, 1.0, 1.5, 3.0, 4.0, 5.0])
    monkeypatch.setattr(train_bench.time, "perf_counter", lambda: next(clocks))
    feed = train_bench.Timed(iter(range(3)))
    assert feed.during(lambda: next(feed) + next(feed)) == 5.0
    assert feed.share == pytest.approx(0.3)
    feed.begin()
    assert feed.share == 0.0
