"""Runs of a few steps on generated data, for tests of the commands that read a run."""

import pathlib

import jax
import numpy as np
import pytest

from jaxcxr import config as base
from jaxcxr.data import preparation
from jaxcxr.report import canvas
from jaxcxr.train import loop, parallel, writers
from jaxcxr.xray.report import xray_figures
from jaxcxr.xray.task import XrayTask
from tests import toys


def make_xray_run(root: pathlib.Path) -> pathlib.Path:
    """Sixty chest phantoms in `root/data` and a run of four steps on them, its folder."""
    preparation.prepare("chest_phantom", root / "data", size=32, images=60, workers=0)
    config = toys.xray_config(stages__all__duration="4 steps", report__samples=1)
    base.set_source(config, "chest_phantom", size=32, images=60)
    base.set_model(config, "resnet18", stages=(1, 1), width=8, stem="small")
    config.data.dir = str(root / "data")
    config.data.image_size = 32
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), parallel.AXES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "make_mesh", lambda config: mesh)
        for name in ("roc_figure", "samples_figure"):
            patch.setattr(xray_figures, name, lambda *args: canvas.new_figure(1, 1))
        patch.setattr(XrayTask, "page", lambda *args: None)
        loop.train(config, root / "run", writers.Screen(quiet=True))
    return root / "run"
