"""Times several sides in turn, so that their ratios hold on a shared machine.

The speed of a shared machine drifts within seconds. It drifts alike for sides that are measured
right after each other, so that the median of the ratios over many short rounds is steady where
the times themselves are not.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from scipy.stats import binom

# The least from whose smallest and largest one can tell a median with 95 % confidence.
LEAST_ROUNDS = 6

Rounds = list[dict[Any, float]]  # side -> what it measured, a dict for each round


def interleaved(sides: Mapping[Any, Callable[[], float]], rounds: int) -> Rounds:
    """Lets the sides measure in turn.

    Arguments:
      sides: name -> what measures once and returns the figure; called in the order given.
      rounds: how often.

    Returns:
      One dict of name -> figure for each round.
    """
    return [{name: measure() for name, measure in sides.items()} for _ in range(rounds)]


def within(sides: Mapping[Any, Callable[[], float]], seconds: float, least: int = 1) -> Rounds:
    """As many rounds as begin within so many seconds, and at least `least`.

    Every other round goes backwards, so that no side always comes after the same one.
    """
    end, order = time.perf_counter() + seconds, list(sides.items())
    found: Rounds = []
    while len(found) < least or time.perf_counter() < end:
        found += interleaved(dict(order), 1)
        order.reverse()
    return found


def median(rounds: Rounds, name: Any) -> float:
    """The median of one side."""
    return statistics.median(sides[name] for sides in rounds)


def ratio(rounds: Rounds, name: Any, to: Any) -> float:
    """The median over the rounds of `name` over `to`."""
    return statistics.median(sides[name] / sides[to] for sides in rounds)


def interval(rounds: Rounds, name: Any, to: Any) -> tuple[float, float]:
    """95 % interval of `ratio`, by order statistics: no distribution of the times is assumed.

    Fewer than `LEAST_ROUNDS` rounds say nothing: (0, inf).
    """
    if len(rounds) < LEAST_ROUNDS:
        return 0.0, math.inf
    ratios = sorted(sides[name] / sides[to] for sides in rounds)
    # How many of n ratios are below the true median is binomial with p = 1/2.
    outside = int(binom.ppf(0.025, len(ratios), 0.5))
    return ratios[outside - 1], ratios[-outside]
