"""Parses durations in steps, epochs or examples, and spans of time."""

import re

from jaxcxr.errors import UserError

_DURATION = re.compile(r"^\s*(\d+\.?\d*(?:e\d+)?)\s*(steps?|epochs?|examples?)\s*$")
_SPAN = re.compile(r"^\s*(\d+\.?\d*)\s*(second|minute|hour)s?\s*$")
_UNITS = {"second": 1, "minute": 60, "hour": 3600}


def steps(duration: str, data_size: int, batch_size: int) -> int:
    """Converts a duration such as "3 epochs" to optimiser steps, at least 1.

    Arguments:
      duration: a number and "steps", "epochs" or "examples".
      data_size: examples in the training split.

    Raises:
      UserError: not a duration.
    """
    return max(1, round(_exact_steps(duration, data_size, batch_size)))


def due(step: int, every: str, data_size: int, batch_size: int) -> bool:
    """Tells whether an action repeated once per duration `every` is due after step `step`.

    The fourth "5 epochs" ends exactly with "20 epochs", also where an epoch is not a whole number
    of steps.

    Arguments:
      step: optimiser steps done, from 1.
      every, data_size, batch_size: see `steps`.
    """
    exact = max(1.0, _exact_steps(every, data_size, batch_size))
    return round(step / exact) > 0 and step == round(round(step / exact) * exact)


def _exact_steps(duration: str, data_size: int, batch_size: int) -> float:
    match = _DURATION.match(str(duration))
    if not match or float(match[1]) <= 0:
        raise UserError(
            f"{duration!r} is not a duration; write a positive number and a unit, such as "
            "'300 steps', '5 epochs' or '1e6 examples'."
        )
    number, unit = float(match[1]), match[2].rstrip("s")
    if unit == "step":
        return number
    examples = number * data_size if unit == "epoch" else number
    return examples / batch_size


def seconds(span: str, where: str = "config.watchdog") -> float:
    """Converts a span of time such as "30 minutes" to seconds; "0" is 0.

    Arguments:
      span: a number and "seconds", "minutes" or "hours".
      where: the key, for the message.

    Raises:
      UserError: not a span of time.
    """
    if str(span).strip() == "0":
        return 0.0
    match = _SPAN.match(str(span))
    if not match:
        raise UserError(
            f"{where} is {span!r}; write a number and a unit, such as '30 minutes' or "
            "'90 seconds', or '0' for none."
        )
    return float(match[1]) * _UNITS[match[2]]
