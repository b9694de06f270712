"""Training beside torch: its figures, and a peer that is no torch."""

import argparse
import json
import stat
import sys

import jax
import pytest

from jaxcxr.errors import RunError, UserError
from tests import toys
from tests.bench import torch_bench, train_spec
from tests.bench.printed import number, size_of

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


def run(*words):
    parser = argparse.ArgumentParser()
    torch_bench.add_arguments(parser)
    args, args.config = parser.parse_known_args(words)
    torch_bench.run(args)


@pytest.fixture
def peer(tmp_path):
    """What makes a program that answers as torch_peer does, half a second for each step."""

    def make(parameters):
        path = tmp_path / "python"
        path.write_text(PEER.format(python=sys.executable, parameters=parameters))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make


def use_one_device(monkeypatch):
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(jax, "devices", lambda *_: devices)


def test_beside_a_peer_prints_the_ratio_of_the_turns(train_run, peer, capsys, monkeypatch):
    use_one_device(monkeypatch)
    python = peer(size_of(train_run))
    run("--seconds", "0.01", "--peer-python", python)
    text = capsys.readouterr().out
    assert number(text, "torch") == pytest.approx(32, rel=0.01)  # 16 examples in half a second
    ratio, step = number(text, "ratio"), number(text, "step")
    assert ratio == pytest.approx(step / 32, rel=0.7)
    assert "torch 250 ms" in text  # of CPU time
    assert train_run.augment.horizontal_flip == 0


@pytest.mark.parametrize(("parameters", "dim", "error", "words"), [
    (5, 16, RunError, "has 5 parameters"),
    (5, 8, UserError, "no module named torch"),
])
def test_a_peer_that_is_another_or_none(
    train_run, peer, monkeypatch, parameters, dim, error, words
):
    use_one_device(monkeypatch)
    train_run.model.options.dim = dim
    with pytest.raises(error, match=words):
        run("--peer-python", peer(parameters))


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
    torch_bench.without_augmentation(config)
    strengths = config.augment.to_dict()
    assert strengths.pop("fill") == toys.xray_config().augment.fill
    assert strengths.pop("crop_area") == 1
    assert not any(strengths.values())

