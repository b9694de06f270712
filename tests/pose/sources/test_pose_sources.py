"""What holds of every source of poses."""

import sys

import pytest

from jaxcxr import registry
from jaxcxr.pose.evaluation import protocols

POSES = [name for name in registry.SOURCES if registry.source(name).task == "pose"]


@pytest.mark.parametrize("name", POSES)
def test_the_rate_of_a_model_trained_on_it_is_known(name):
    module = sys.modules[registry.builder_class(name).__module__]
    assert registry.source_options(name).get("fps") or 1 <= module.FPS <= 1000


@pytest.mark.parametrize("name", sorted({p.data_set for p in protocols.PROTOCOLS.values()}))
def test_protocols_are_of_sources(name):
    assert name in POSES
