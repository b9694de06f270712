"""Training on cached features is training on the images they come from."""

import jax
import numpy as np
import pytest

from jaxcxr import config as config_lib
from jaxcxr.errors import UserError
from jaxcxr.train import finished, loop, setup, writers
from jaxcxr.train import probe as probe_lib
from tests import toys
from tests.train.runs import saved_state, toy_run


def config(**changes):
    made = toys.xray_config(
        stages__all__trainable=(r"^head/",), model__random_backbone=True, report__samples=1,
        **{"data__cache_features": True, **changes})
    made.augment.update(config_lib.NO_AUGMENTATION)
    return made


class Counting:
    """Counts how often the images of a split are read."""

    def __init__(self, source):
        self.source, self.reads = source, 0

    def __getattr__(self, name):
        return getattr(self.source, name)

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        return self.source[index]

    def read(self, index):
        self.reads += len(index)
        return self.source.read(index)


def test_it_gives_the_head_that_images_give(tmp_path):
    with toy_run(devices=1):
        for name, cached in (("features", True), ("images", False)):
            metrics = loop.train(
                config(data__cache_features=cached), tmp_path / name, writers.Screen(quiet=True))
            assert 0 < metrics["auroc"] < 1
        features, images = (
            saved_state(tmp_path / name, 8, config()).params for name in ("features", "images"))
        start = jax.device_get(setup.make(config()).first_state().params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), features, images)
    jax.tree.map(np.testing.assert_array_equal, features["backbone"], start["backbone"])
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), features["head"], start["head"])
    assert min(jax.tree.leaves(moved)) > 1e-4


def test_each_image_passes_the_backbone_once_and_resuming_reads_the_features(
    tmp_path, monkeypatch
):
    task = toys.make_xray_task(config())
    source = Counting(task.source("train"))
    sources = {"train": source, "validation": task.source("validation"),
               "test": task.source("test")}
    monkeypatch.setattr(task, "source", sources.__getitem__)
    with toy_run(devices=1) as patch:
        patch.setattr("jaxcxr.task.create", lambda config: task)
        loop.train(config(), tmp_path / "run", writers.Screen(quiet=True))
        assert len(source) <= source.reads < len(source) + config().batch_size
        kept = np.load(tmp_path / "run" / "features" / "train.npy")
        assert kept.shape[0] == len(source)
        source.reads = 0
        loop.train(config(), tmp_path / "run", writers.Screen(quiet=True))
        assert source.reads == 0
        with finished.open_best(tmp_path / "run", config=config()) as run:
            again = finished.features(run, source)
    np.testing.assert_allclose(kept, again, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages.all.trainable": (".*",)}, r"stage 'all' trains \d+ of its parameters"),
        ({"augment.rotation": 5.0}, r"images cannot be augmented: set augment\.rotation=0\.0"),
        ({"parallel": "pmap"}, "needs config.parallel='jit'"),
    ],
)
def test_what_features_cannot_serve_is_refused(changes, message):
    made = config()
    made.update_from_flattened_dict(changes)
    with toy_run(devices=1), pytest.raises(UserError, match=message):
        probe_lib.make(setup.make(made))
