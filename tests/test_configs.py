"""Every config file: it is valid, builds at full size, tells its command, and its steps run."""

import ast
import importlib.util
import pathlib
import re

import jax
import numpy as np
import pytest

from jaxcxr import config as base
from jaxcxr import task
from jaxcxr.config import keys
from jaxcxr.data import pipeline
from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.errors import UserError
from jaxcxr.pose.evaluation import pose_metrics
from jaxcxr.train import parallel, setup
from jaxcxr.train import state as state_lib
from jaxcxr.train import step as step_lib
from jaxcxr.xray.evaluation import xray_metrics
from tests import toys

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "configs"
VARIANTS = {
    "demo": ("", "pose", "quick", "pose,quick"),
    "cxr_resnet50": ("", "64px", "quick"),
    "cxr_vit": ("tiny", "small", "base"),
    "cxr15_resnet50": ("", "quick"),
    "cxr15_densenet121": ("",),
    "cxr15_vit_flex": ("", "plain"),
    "cxr15_vit": ("tiny", "small", "base"),
    "pose_temporal": ("", "spatiotemporal", "quick", "spatiotemporal,quick",
                      "human36m,quick"),
    "cxr_union": ("", "quick", "chexpert", "chexpert,quick"),
    "tb_resnet50": ("", "extra", "quick"),
    "own_images": ("", "quick"),
    "cxr_probe": ("", "convnext", "swin", "resnet50", "quick"),
    "cxr_finetune": ("", "dinov2", "swin", "vit", "quick"),
    "study_flex": ("", "cmu_mocap", "chest_phantom", "chestxray14"),
    "study_pose": ("", "clean_27", "noisy_81"),
}
ALL = [(name, variant) for name, variants in VARIANTS.items() for variant in variants]
SHRUNKEN = [("demo", ""), ("demo", "pose"), ("cxr_resnet50", ""), ("cxr_vit", "small"),
            ("cxr15_resnet50", ""), ("cxr15_densenet121", ""), ("cxr15_vit", "small"),
            ("cxr15_vit_flex", ""), ("pose_temporal", "spatiotemporal"), ("tb_resnet50", "extra"),
            ("cxr_union", "")]


def module_of(name):
    spec = importlib.util.spec_from_file_location(f"config_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(name, variant):
    module = module_of(name)
    return module.get_config(variant) if variant else module.get_config()


@pytest.fixture
def make(monkeypatch):
    """`setup.make` on one device over toy data with the real findings, sizes as configured."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), parallel.AXES)
    monkeypatch.setattr(parallel, "make_mesh", lambda config: mesh)
    monkeypatch.setattr(toys, "CLASSES", FINDINGS)
    small = {
        "cxr": lambda config: toys.make_xray_task(config, train=8, test=1),
        "pose": toys.make_pose_task,
    }
    monkeypatch.setattr(task, "create", lambda config: small[config.task](config))
    return setup.make


def test_every_config_is_listed_here():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(VARIANTS)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_docstring_holds_the_command(name):
    text = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text()))
    assert re.search(rf"python -m jaxcxr.main --config=configs/{name}\.py\S* --workdir=\S+", text)
    for variant in filter(None, VARIANTS[name]):
        assert all(word in text for word in variant.split(",")), variant


@pytest.mark.parametrize("name", VARIANTS)
def test_an_unknown_variant_is_refused_with_the_known_ones(name):
    with pytest.raises(UserError) as caught:
        module_of(name).get_config("nonsense")
    words = {word for variant in VARIANTS[name] for word in variant.split(",") if word}
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_it_builds_at_full_size(name, variant, make):
    config = load(name, variant)
    base.validate(config)
    run = make(config)
    with run.mesh_context():
        stage = run.stages[-1]
        state = run.abstract_state(stage)
        tx, schedule = state_lib.optimizer(stage, state.params)
        step = step_lib.make_train_step(config, run.model, run.task, stage, tx, schedule)
        after, metrics = jax.eval_shape(step, state, run.example_batch())
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert metrics["loss"].shape == ()
    if (name, variant) == ("cxr_resnet50", ""):
        # The thesis counts a stem over three channels; grey images take one.
        expected = 24_036_431 - 2 * 7 * 7 * 64
        assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == expected


def shrink(config):
    """The same experiment, small: its stages, optimisers, losses and augmentation stay."""
    config.data.image_size = 32
    config.batch_size = 8
    config.accumulate = 1
    small = {"width": 4, "stages": (1, 1, 1, 1), "dim": 24, "depth": 1, "heads": 6, "patch": 8}
    options = config.model.options
    options.update({key: value for key, value in small.items() if key in options})
    for name in config.stage_order:
        config.stages[name].duration = "1 step"
    return config


@pytest.mark.parametrize(("name", "variant"), SHRUNKEN)
def test_one_shrunken_step_of_its_last_stage_runs(name, variant, make):
    config = shrink(load(name, variant))
    base.validate(config)
    run = make(config)
    with run.mesh_context():
        stage = run.stages[-1]
        state = run.enter_stage(run.first_state(), stage)
        before = jax.device_get(state.params)
        batch = next(pipeline.train_iterator(run.task.source("train"), config))
        state, metrics = run.train_step(stage)(state, parallel.put_batch(run.mesh, batch))
    assert np.isfinite([float(value) for value in metrics.values()]).all()
    moved = [not np.array_equal(a, b) for a, b in
             zip(*map(jax.tree.leaves, (before, state.params)), strict=True)]
    assert any(moved)


def test_monitors_are_metrics_that_runs_log():
    logged = {
        "cxr": {metric.name for metric in xray_metrics.METRICS if metric.logged},
        "pose": {metric.name for metric in pose_metrics.OF_RUNS},
    }
    for name, names in logged.items():
        key = keys.find(keys.of_task(name), "checkpoint.monitor")
        assert set(key.choices) <= names
        assert key.default in key.choices
