import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxcxr.config.keys import check_rules
from jaxcxr.errors import UserError
from jaxcxr.train import rules

TREE = {"backbone": {"conv": {"kernel": np.zeros(2)}, "norm": {"scale": 1.0}}, "head": {"bias": 0}}


def test_paths_are_joined_with_slashes_in_leaf_order():
    assert rules.paths(TREE) == ("backbone/conv/kernel", "backbone/norm/scale", "head/bias")


def test_first_match_wins_and_search_is_unanchored():
    values = rules.match_rules((("norm", 1), ("^backbone/", 2), (".*", 3)), TREE)
    backbone = {"conv": {"kernel": 2}, "norm": {"scale": 1}}
    assert values == {"backbone": backbone, "head": {"bias": 3}}


def test_unmatched_parameters_are_named():
    with pytest.raises(UserError, match=r"decay: no rule matches the parameter head/bias; add"):
        rules.match_rules((("backbone", 1),), TREE, "decay")
    with pytest.raises(UserError, match=r"parameters 0, 1, 2, 3, 4 and 3 more"):
        rules.match_rules((), [0] * 8)


def test_partition_specs_stay_whole_and_abstract_trees_match():
    shapes = jax.eval_shape(lambda: jax.tree.map(np.float32, {"a": {"kernel": 1.0}}))
    spec = PartitionSpec("data", None)
    assert rules.match_rules((("kernel", spec),), shapes) == {"a": {"kernel": spec}}


@pytest.mark.parametrize("bad", [(("(", 1),), "kernel", (("a", 1, 2),), ((1, 2),)])
def test_malformed_rules_are_user_errors(bad):
    with pytest.raises(UserError, match="rules"):
        rules.match_rules(bad, TREE)
    with pytest.raises(UserError, match=r"stage\.rules"):
        check_rules(bad, lambda value: True, "anything", "stage.rules")


def test_values_are_checked():
    with pytest.raises(UserError, match=r"w: the value of rule 'a' must be small, got 7"):
        check_rules((("a", 7),), lambda value: value < 3, "small", "w")
