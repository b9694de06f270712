"""Config: durations, what is refused and how it is said, and the way through config.json."""


import json
import subprocess
import sys

import pytest

from jaxcxr import config as base
from jaxcxr import registry
from jaxcxr.config import keys
from jaxcxr.config.checks import check_stage
from jaxcxr.errors import UserError
from jaxcxr.models import layers
from jaxcxr.pose import losses
from jaxcxr.pose.sources import clips
from jaxcxr.statistics import reliability
from jaxcxr.xray import losses as xray_losses
from jaxcxr.xray.evaluation import calibration
from tests import toys


@pytest.mark.parametrize(("duration", "expected"), [
    ("300 steps", 300), ("1 step", 1), ("3 epochs", 30), ("1 epoch", 10), ("0.5 epochs", 5),
    ("1e3 examples", 100), ("1.5e3 examples", 150), ("1 example", 1), (" 2 epochs ", 20),
])
def test_steps_of_a_duration(duration, expected):
    assert base.steps(duration, data_size=100, batch_size=10) == expected


@pytest.mark.parametrize("duration", [
    "", "many", "3", "0 steps", "-1 epochs", "3 minutes", "1.2.3 epochs", ". steps", "epochs", 3,
    None,
])
def test_what_is_no_duration_is_refused_with_an_example(duration):
    with pytest.raises(UserError, match="'300 steps', '5 epochs' or '1e6 examples'"):
        base.steps(duration, 100, 10)


@pytest.mark.parametrize(("batch", "size"), [(16, 100), (16, 96), (7, 100), (32, 31), (3, 1000)])
def test_what_is_due_each_epoch_is_due_at_the_end(batch, size):
    total = base.steps("12 epochs", size, batch)
    due = [step for step in range(1, total + 1) if base.due(step, "4 epochs", size, batch)]
    assert len(due) == min(3, total)
    assert due[-1] == total
    every = [step for step in range(1, 13) if base.due(step, "3 steps", size, batch)]
    assert every == [3, 6, 9, 12]


def test_spans_of_time():
    assert base.seconds("30 minutes") == 1800
    assert base.seconds("1.5 hours") == 5400
    assert base.seconds("90 second") == 90
    assert base.seconds("0") == 0
    for wrong in ("soon", "30", "-1 minutes", "30 epochs"):
        with pytest.raises(UserError, match="such as '30 minutes'"):
            base.seconds(wrong)


CASES = {
    "batch_size=0": ({"batch_size": 0}, ["batch_size is 0", "at least 1"]),
    "batch_size=true": ({"batch_size": True}, ["batch_size", "type int"]),
    "seed": ({"seed": -1}, ["config.seed is -1", "at least 0"]),
    "dtype": ({"dtype": "float16"}, ["dtype", "'float32', 'bfloat16'"]),
    "parallel": ({"parallel": "xmap"}, ["parallel", "'jit', 'pmap'", "'pmap'?"]),
    "mesh.data": ({"mesh.data": 0}, ["mesh.data is 0", "-1 (all)"]),
    "mesh.fsdp": ({"mesh.fsdp": 0}, ["mesh.fsdp", "at least 1"]),
    "accumulate": ({"accumulate": 3}, ["batch_size (16)", "multiple", "accumulate (3)"]),
    "ema": ({"ema_decay": 1.0}, ["ema_decay", "at most 0.9999999"]),
    "nan": ({"ema_decay": float("nan")}, ["ema_decay is nan", "at least 0"]),
    "image size": ({"data.image_size": 4}, ["image_size is 4", "at least 8"]),
    "stage order": ({"stage_order": ("al",)}, ["names 'al'", "'all'"]),
    "no stage": ({"stage_order": ()}, ["stage_order is empty", "add_stage"]),
    "stage twice": ({"stage_order": ("all", "all")}, ["twice"]),
    "duration": ({"stages.all.duration": "8 stpes"}, ["'8 stpes'", "'300 steps'"]),
    "evaluate": ({"evaluate_every": "0 epochs"}, ["'0 epochs'", "positive"]),
    "trainable": ({"stages.all.trainable": ("head(",)}, ["stages.all.trainable", "'head('"]),
    "optimizer": ({"stages.all.optimizer.name": "adm"}, ["optimizer.name", "'radam', 'adamw'"]),
    "learning rate": ({"stages.all.learning_rate": 0.0}, ["learning_rate", "above 0"]),
    "b2": ({"stages.all.optimizer.b2": 1.0}, ["optimizer.b2", "below 1"]),
    "warm-up": ({"stages.all.warmup.name": "linear"}, ["warmup.steps", "above 0"]),
    "decay": ({"stages.all.decay.name": "cosin"}, ["decay.name", "cosine"]),
    "augment": ({"augment.contrast": 1.5}, ["augment.contrast", "at most 1"]),
    "flip": ({"augment.horizontal_flip": -0.1}, ["horizontal_flip", "at least 0"]),
    "loss": ({"loss.cxr": "bcee"}, ["loss.cxr", "'bce'"]),
    "target": ({"data.target": "centre"}, ["data.target", "'sequence', 'center'"]),
    "class weights": ({"loss.class_weights": "chexnt"}, ["loss.class_weights", "'chexnet'?"]),
    "beta": ({"loss.effective_beta": 1.0}, ["loss.effective_beta is 1.0", "at most 0.9999999"]),
    "monitor": ({"checkpoint.monitor": "aurocs"}, ["checkpoint.monitor", "'auroc'"]),
    "mode": ({"checkpoint.mode": "maximum"}, ["checkpoint.mode", "'max', 'min'"]),
    "keep": ({"checkpoint.keep": 0}, ["checkpoint.keep", "at least 1"]),
    "model": ({"model.name": "resnet5"}, ["'resnet5'", "'resnet50'"]),
    "other task's model": ({"model.name": "pose_temporal"}, ["does not serve", "resnet50"]),
    "other model's options": ({"model.name": "vit_tiny"}, ["no option", "set_model"]),
    "source": ({"data.source": "chest_fantom"}, ["'chest_fantom'", "'chest_phantom'"]),
    "other task's source": ({"data.source": "cmu_mocap"}, ["'pose'", "config.task is 'cxr'"]),
    "task": ({"task": "ct"}, ["config.task is 'ct'", "cxr, pose"]),
    "sharding": ({"sharding_rules": ((".*", "fdsp"),)}, ["sharding_rules", "'replicate'"]),
    "sharding regex": ({"sharding_rules": (("(", "fsdp"),)}, ["sharding_rules", "regex"]),
    "samples": ({"report.samples": 0}, ["report.samples", "at least 1"]),
    "calibration": ({"calibration.method": "plat"}, ["calibration.method", "'platt'?"]),
    "threshold": ({"calibration.threshold": "f2"}, ["calibration.threshold", "'youden'"]),
    "level": ({"calibration.target": 1.0}, ["calibration.target is 1.0", "at most 0.999"]),
}


@pytest.mark.parametrize(("changes", "parts"), CASES.values(), ids=CASES)
def test_an_impossible_value_is_refused_with_what_is_allowed(changes, parts):
    config = toys.xray_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError) as caught:
        base.validate(config)
    for part in parts:
        assert part in str(caught.value)


def test_unknown_keys_and_groups_that_are_no_groups_are_refused():
    config = toys.xray_config().unlock()
    config.data.thread = 3
    with pytest.raises(UserError, match=r"config.data.thread is no key. Did you mean 'threads'"):
        base.validate(config)
    config = toys.xray_config().unlock()
    del config["mesh"]
    config.mesh = 8
    with pytest.raises(UserError, match=r"config.mesh is 8; it must be a group"):
        base.validate(config)


def test_a_missing_key_is_named():
    config = toys.xray_config().unlock()
    del config.data["threads"]
    with pytest.raises(UserError, match=r"config.data.threads is missing"):
        base.validate(config)


def test_helpers_name_the_nearest():
    config = base.default("cxr")
    with pytest.raises(UserError, match=r"'widht'.*'width'"):
        base.set_model(config, "resnet18", widht=3)
    with pytest.raises(UserError, match=r"'imags'.*'images'"):
        base.set_source(config, "chest_phantom", imags=3)
    with pytest.raises(UserError, match="cxr, pose"):
        base.default("ct")


@pytest.mark.parametrize("make", [toys.xray_config, toys.two_stages])
def test_the_saved_config_is_the_config(make):
    config = make()
    saved = json.loads(json.dumps(json.loads(config.to_json_best_effort())))
    again = base.from_saved(saved)
    assert again == config
    base.validate(again)
    assert base.difference(config, saved) == []


def test_difference_shows_what_makes_another_experiment():
    saved = json.loads(toys.two_stages().to_json_best_effort())
    other = toys.two_stages(
        seed=3, stages__second__optimizer__name="sgd", mesh__fsdp=2, parallel="pmap", log_every=7,
        data__threads=9, data__dir="x", checkpoint__keep=5, report__samples=3,
    )
    assert base.difference(other, saved) == [
        "seed: 0 -> 3", "stages.second.optimizer.name: 'adamw' -> 'sgd'",
    ]


def test_a_run_from_before_a_key_existed_goes_on():
    saved = json.loads(toys.two_stages().to_json_best_effort())
    del saved["data"]["target"]
    assert base.difference(toys.two_stages(), saved) == []
    assert base.difference(toys.two_stages(data__target="center"), saved) == [
        "data.target: 'sequence' -> 'center'"
    ]


def test_provenance_names_what_computes():
    found = base.provenance()
    assert found["packages"]["jax"][0].isdigit()
    assert set(found) == {"python", "packages", "git"}


def test_the_git_commit_is_that_of_our_own_checkout_or_none(tmp_path, monkeypatch):
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    for folder, own in (("venv/lib/jaxcxr/config", False), ("jaxcxr/config", True)):
        monkeypatch.setattr(base.saved, "__file__", str(tmp_path / folder / "saved.py"))
        (tmp_path / folder).mkdir(parents=True)
        found = base.provenance()["git"]
        assert len(found.removesuffix("-dirty")) == 40 if own else found == "not a git checkout"


def test_every_default_is_allowed():
    for task in registry.TASKS:
        for key in keys.of_task(task):
            key.check(task if key.name == "task" else key.default, key.name)
    for key in keys.STAGE_KEYS:
        key.check(key.default, key.name)


def test_choices_are_those_that_the_rooms_offer():
    offered = {
        "data.target": clips.TARGETS, "data.sampling": xray_losses.SAMPLING,
        "loss.class_weights": xray_losses.CLASS_WEIGHTS,
        "calibration.method": tuple(calibration.METHODS),
        "calibration.threshold": reliability.THRESHOLD_RULES, "task": tuple(registry.TASKS),
    }
    assert {name: keys.find(keys.KEYS, name).choices for name in offered} == offered
    terms = [k.name for k in keys.of_task("pose") if k.name.startswith("loss.") and not k.choices]
    assert terms == [f"loss.{name}" for name in losses.TERMS]
    for kept in (*layers.REMATS, True, False):
        config = toys.xray_config()
        base.set_model(config, "vit_tiny", remat=kept)
        base.validate(config)
    base.set_model(config, "vit_tiny", remat="most")
    with pytest.raises(UserError, match=r"model.options.remat is 'most'; allowed: 'none', 'full'"):
        base.validate(config)


def test_a_config_and_its_checks_load_no_jax():
    code = ("import sys; from jaxcxr import config; config.default('cxr'); "
            "assert 'jax' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [("rotation", -1.0), ("crop_area", 0.0), ("crop_area", 1.5), ("horizontal_flip", 2.0),
     ("contrast", 1.1), ("gamma", float("nan"))],
)
def test_impossible_augmentation_is_refused(key, value):
    config = toys.xray_config()
    base.validate(config)
    with config.unlocked(), config.ignore_type():
        config.augment[key] = value
    with pytest.raises(UserError, match=rf"config\.augment\.{key} is "):
        base.validate(config)


@pytest.mark.parametrize(("name", "value"), [
    ("augment.scale", True), ("augment.scale", "big"), ("batch_size", 1.5), ("task", None),
])
def test_a_value_of_another_type_is_refused(name, value):
    key = keys.find(keys.KEYS, name)
    with pytest.raises(UserError, match=f"config.{name} is {value!r}; it must be of type"):
        key.check(value, f"config.{name}")


def test_default_stage_is_valid():
    check_stage(base.default_stage(), "stage")


IMPOSSIBLE = [
    ("learning_rate", 0.0, r"stages\.head\.learning_rate is 0.0; allowed: above 0"),
    ("learning_rate", float("nan"), "learning_rate is nan"),
    ("optimizer.name", "rdam", r"allowed: 'radam', 'adamw', 'adam', 'sgd'"),
    ("optimizer.b2", 1.0, r"optimizer\.b2 is 1.0; allowed: above 0 and below 1"),
    ("optimizer.clip_norm", -1.0, r"clip_norm is -1.0; allowed: at least 0"),
    ("optimizer.decay_rules", (("a", -1.0),), r"decay_rules: the value of rule 'a'"),
    ("optimizer.multiplier_rules", (("(", 1.0),), r"multiplier_rules: .* not a valid regex"),
    ("warmup.name", "linaer", r"warmup\.name is 'linaer'; allowed: 'none', 'linear'"),
    ("warmup.name", "linear", r"warmup\.steps is 0; it must be above 0 with the linear"),
    ("decay.name", "step", r"decay\.boundaries is \(\); give one or more fractions"),
    ("decay.name", "exponential", r"decay\.end_factor is 0.0; it must be above 0"),
    ("decay.end_factor", 2.0, r"decay\.end_factor is 2.0; allowed: at least 0 and at most 1"),
]


@pytest.mark.parametrize(("key", "value", "message"), IMPOSSIBLE)
def test_impossible_values_are_user_errors(key, value, message):
    settings = base.default_stage()
    settings.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        check_stage(settings, "stages.head")


def test_combinations_that_cannot_be():
    settings = base.default_stage()
    settings.optimizer.name = "sgd"
    settings.warmup.name = "untuned_linear"
    with pytest.raises(UserError, match="sgd has no b2"):
        check_stage(settings, "stage")
    settings = base.default_stage()
    settings.warmup.update(name="noam", steps=10)
    with pytest.raises(UserError, match=r"warmup\.dim is 0; .* must be the width"):
        check_stage(settings, "stage")
    settings.warmup.dim = 8
    check_stage(settings, "stage")
    settings.decay.name = "cosine"
    with pytest.raises(UserError, match="decays by itself"):
        check_stage(settings, "stage")
    settings = base.default_stage()
    del settings.warmup["steps"]
    with pytest.raises(UserError, match=r"stage\.warmup\.steps is missing"):
        check_stage(settings, "stage")
