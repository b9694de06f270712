"""A toy run whose training is measured."""

import pytest

from jaxcxr import main, task
from jaxcxr.plan import hardware
from jaxcxr.train import runtime
from tests import toys


@pytest.fixture
def train_run(monkeypatch):
    config = toys.pose_config(log_every=100, accumulate=1)
    monkeypatch.setattr(main, "load_config", lambda argv: config)
    monkeypatch.setattr(task, "create", toys.make_pose_task)
    monkeypatch.setattr(runtime, "enable_cache", lambda: None)
    monkeypatch.setattr(hardware, "measured_flops", lambda dtype: 1e9)
    return config
