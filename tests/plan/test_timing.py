"""Interleaved rounds: whose turn it is, and intervals that cover what they say."""

import math

import numpy as np
import pytest

from jaxcxr.plan import timing


def test_sides_take_turns_and_every_other_round_goes_backwards():
    called = []
    sides = {name: lambda name=name: called.append(name) or 1.0 for name in "abc"}
    assert len(timing.within(sides, 0, least=3)) == 3
    assert "".join(called) == "abccbaabc"


def test_a_ratio_is_taken_within_a_round():
    rounds = [{"a": 2.0, "b": 1.0}, {"a": 40.0, "b": 20.0}, {"a": 6.0, "b": 1.0}]
    assert timing.ratio(rounds, "a", "b") == 2
    assert timing.median(rounds, "a") == 6


@pytest.mark.parametrize("count", [6, 9, 40])
def test_the_interval_covers_the_median_at_least_95_times_in_100(count):
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        rounds = [{"a": a, "b": 1.0} for a in rng.exponential(size=count)]
        low, high = timing.interval(rounds, "a", "b")
        hits += low <= math.log(2) <= high
    assert 0.94 < hits / 2000 < 0.995


def test_too_few_rounds_say_nothing():
    assert timing.interval([{"a": 1.0, "b": 1.0}] * 5, "a", "b") == (0, math.inf)
