"""What holds of every source of poses."""

import sys

import pytest

from jaxcxr.analysis import protocols
from jaxcxr.data import sources

POSES = [name for name in sources.SOURCES if sources.task_of(name) == "pose"]


@pytest.mark.parametrize("name", POSES)
def test_the_rate_of_a_model_trained_on_it_is_known(name):
    module = sys.modules[sources.builder_class(name).__module__]
    assert sources.variant_options(name).get("fps") or 1 <= module.FPS <= 1000


@pytest.mark.parametrize("name", sorted({p.data_set for p in protocols.PROTOCOLS.values()}))
def test_protocols_are_of_sources(name):
    assert name in POSES
