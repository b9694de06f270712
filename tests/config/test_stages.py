"""Settings of a stage: what is refused, and how it is said."""

import pytest

from jaxcxr import config as base
from jaxcxr.config.stages import check_stage
from jaxcxr.errors import UserError


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
