"""Interleaved measurements: sides take turns, and their ratios are taken within a turn.

The speed of a shared machine drifts within seconds. It drifts alike for sides that are measured
right after each other, so that the median of the ratios over many short rounds is steady where
the times themselves are not.
"""

import statistics
import time
from collections.abc import Callable, Mapping

Rounds = list[dict[str, float]]


def interleaved(sides: Mapping[str, Callable[[], float]], rounds: int) -> Rounds:
    """What each side measures, in every round.

    Arguments:
      sides: name -> what measures once and returns the figure; called in the order given.
      rounds: how often.

    Returns:
      One dict of name -> figure for each round.
    """
    return [{name: measure() for name, measure in sides.items()} for _ in range(rounds)]


def within(sides: Mapping[str, Callable[[], float]], seconds: float, least: int = 1) -> Rounds:
    """As many rounds of `interleaved` as begin within so many seconds, and at least `least`."""
    end, found = time.perf_counter() + seconds, []
    while len(found) < least or time.perf_counter() < end:
        found += interleaved(sides, 1)
    return found


def median(rounds: Rounds, name: str) -> float:
    """The median figure of one side."""
    return statistics.median(sides[name] for sides in rounds)


def ratio(rounds: Rounds, name: str, to: str) -> float:
    """The median over the rounds of `name` over `to`."""
    return statistics.median(sides[name] / sides[to] for sides in rounds)
