"""Checks the form of ordered regex rules, `((regex, value), ...)`."""

import re
from collections.abc import Callable
from typing import Any

from jaxcxr.errors import UserError


def check_rules(rules: Any, allowed: Callable[[Any], bool], expected: str, what: str) -> None:
    """Checks the form of rules before any parameter exists.

    Arguments:
      rules: the setting to check, `((regex, value), ...)`.
      allowed: tells whether a value is possible.
      expected: the possible values in words, for the message.
      what: name of the setting for the message.

    Raises:
      UserError: not a sequence of pairs, an invalid regex or an impossible value.
    """
    for pattern, value in compile_rules(rules, what):
        if not allowed(value):
            raise UserError(
                f"{what}: the value of rule {pattern.pattern!r} must be {expected}, got {value!r}"
            )


def compile_rules(rules: Any, what: str) -> list[tuple[re.Pattern, Any]]:
    """Compiles the regexes of rules.

    Arguments:
      rules: the setting, `((regex, value), ...)`.
      what: its name for the message.

    Raises:
      UserError: not a sequence of pairs, or an invalid regex.
    """
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
