"""Ordered regex rules over parameter paths: the one way to say which parameter gets what.

Sharding, weight decay and learning-rate multipliers all read `((regex, value), ...)` through here.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxcxr.errors import UserError

_SHOWN = 5


def paths(tree: Any) -> tuple[str, ...]:
    """Names of the leaves of a tree.

    Arguments:
      tree: any pytree, for example parameters.

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

    Errors:
      UserError: a leaf that no rule matches (it is named), or an invalid rule.
    """
    compiled = _compile(rules, what)
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


def check_rules(rules: Any, allowed: Callable[[Any], bool], expected: str, what: str) -> None:
    """Checks the form of rules before any parameter exists.

    Arguments:
      rules: the setting to check, `((regex, value), ...)`.
      allowed: tells whether a value is possible.
      expected: the possible values in words, for the message.
      what: name of the setting for the message.

    Errors:
      UserError: not a sequence of pairs, an invalid regex or an impossible value.
    """
    for pattern, value in _compile(rules, what):
        if not allowed(value):
            raise UserError(
                f"{what}: the value of rule {pattern.pattern!r} must be {expected}, got {value!r}"
            )


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _compile(rules: Any, what: str) -> list[tuple[re.Pattern, Any]]:
    form = f'{what}: expected ((regex, value), ...) such as ((".*", 1.0),)'
    if not isinstance(rules, list | tuple):
        raise UserError(f"{form}, got {rules!r}")
    compiled = []
    for rule in rules:
        if not (isinstance(rule, list | tuple) and len(rule) == 2 and isinstance(rule[0], str)):
            raise UserError(f"{form}, got the rule {rule!r}")
        try:
            compiled.append((re.compile(rule[0]), rule[1]))
        except re.error as error:
            raise UserError(f"{what}: {rule[0]!r} is not a valid regex: {error}") from error
    return compiled
