"""The learning rate falls from layer to layer, from the head to the image."""

import jax
import pytest
from flax import traverse_util

from jaxcxr import config as config_lib
from jaxcxr import models, registry
from jaxcxr.errors import UserError
from jaxcxr.train import rules
from tests.models.test_create import SMALL, example

VISION = [name for name, model in registry.MODELS.items() if model.task == "cxr"]


def factors(name, decay, **options):
    """The multiplier of each parameter by its path."""
    config = config_lib.default("cxr")
    config_lib.set_model(config, name, **{**SMALL[name], **options})
    model = models.create(name, **config.model.options.to_dict())
    params = jax.eval_shape(model.init, jax.random.key(0), example(name))["params"]
    found = rules.match_rules(
        config_lib.layer_decay(config, decay), params, "optimizer.multiplier_rules")
    return traverse_util.flatten_dict(found, sep="/"), model.depths()


@pytest.mark.parametrize("name", VISION)
def test_every_layer_of_every_backbone_has_a_rate_of_its_own(name):
    found, layers = factors(name, 0.5, **({"scan": False} if "dinov2" in name else {}))
    head = {value for path, value in found.items() if path.startswith("head/")}
    assert head == {1.0}
    backbone = {value for path, value in found.items() if path.startswith("backbone/")}
    last = {1.0} & backbone  # a norm after the last layer
    assert backbone - last == {0.5 ** (i + 1) for i in range(len(layers))}
    stems = ("conv1", "conv0", "patch_embed", "stem_conv")
    (first,) = (found[path] for s in stems if (path := f"backbone/{s}/kernel") in found)
    assert first == 0.5 ** len(layers)


def test_a_vit_by_its_blocks():
    found, layers = factors("vit_tiny", 0.9, depth=3)
    assert len(layers) == 4
    block = {path.split("/")[1]: value for path, value in found.items()}
    assert (block["blocks_2"], block["blocks_0"]) == (0.9, 0.9**3)
    assert (block["patch_embed"], block["norm"]) == (0.9**4, 1.0)


def test_what_has_no_layers_is_refused():
    config = config_lib.default("pose")
    with pytest.raises(UserError, match="does not say in which order its layers are"):
        config_lib.layer_decay(config, 0.5)
    config = config_lib.default("cxr")
    config_lib.set_model(config, "vit_tiny", scan=True)
    with pytest.raises(UserError, match="set scan=False"):
        config_lib.layer_decay(config, 0.5)
