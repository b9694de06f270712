"""Ordered regex rules over parameter paths: the one way to say which parameter gets what.

Sharding, weight decay and learning-rate multipliers all read `((regex, value), ...)` through here.
"""

from collections.abc import Sequence
from typing import Any

import jax

from jaxcxr.config.keys import compile_rules
from jaxcxr.errors import UserError

_SHOWN = 5


def paths(tree: Any) -> tuple[str, ...]:
    """Names of the leaves of a tree.

    Returns:
      one "/"-joined path per leaf ("head/kernel"), in the order of `jax.tree.leaves`.
    """
    return tuple(_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree))


def match_rules(rules: Sequence[tuple[str, Any]], tree: Any, what: str = "rules") -> Any:
    """Gives every leaf the value of the first rule whose regex is found in its path.

    Arguments:
      rules: `((regex, value), ...)`; `re.search` is used, so anchor with `^` and `$` where needed.
      tree: pytree whose leaves (arrays or abstract shapes) are to be matched.
      what: name of the rules for the error message, such as "optimizer.decay_rules".

    Returns:
      a tree of the structure of `tree` that holds the values. A value that is itself a tuple,
      dict or None becomes part of the tree for `jax.tree` functions; wrap it (for example in a
      `PartitionSpec`) when it must stay whole.
    """
    compiled = compile_rules(rules, what)
    unmatched: list[str] = []

    def value_of(path: tuple, _leaf: Any) -> Any:
        name = _name(path)
        for pattern, value in compiled:
            if pattern.search(name):
                return value
        unmatched.append(name)
        return None

    values = jax.tree_util.tree_map_with_path(value_of, tree)
    if unmatched:
        more = f" and {len(unmatched) - _SHOWN} more" if len(unmatched) > _SHOWN else ""
        raise UserError(
            f"{what}: no rule matches the parameter{'s' if len(unmatched) > 1 else ''} "
            f"{', '.join(unmatched[:_SHOWN])}{more}; "
            'add a rule for it, or close the list with (".*", VALUE)'
        )
    return values


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
