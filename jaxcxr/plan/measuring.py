"""Measures FLOPs, memory and time of compiled functions, and times several in turn.

FLOPs are those of XLA's cost analysis. It counts the body of a loop once, however often it runs;
here the bodies of the loops that JAX writes (`lax.scan`, and with it `lax.map` and `fori_loop`)
are compiled by themselves too, and count as often as they run. FLOPs are additions,
multiplications and comparisons; XLA counts exp, log and tanh apart, and they are not in them.

The speed of a shared machine drifts within seconds. It drifts alike for sides that are measured
right after each other, so that the median of the ratios over many short rounds is steady where
the times themselves are not.
"""

import dataclasses
import math
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax.extend import core
from scipy.stats import binom

from jaxcxr.train import private_apis

# The least from whose smallest and largest one can tell a median with 95 % confidence.
LEAST_ROUNDS = 6

Rounds = list[dict[Any, float]]  # side -> what it measured, a dict for each round


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled function and what it costs.

    Arguments:
      call: the function.
      flops: of one call.
      memory: bytes that a call needs beside its arguments and results.
      program: its instructions, the same for functions that XLA makes the same of.
    """

    call: Callable[..., Any]
    flops: float
    memory: int
    program: str = ""

    def seconds(self, *args: Any, count: int = 1) -> float:
        """Returns the time of a call, the mean of `count` that follow each other."""
        clock = time.perf_counter()
        for _ in range(count):
            found = jax.block_until_ready(self.call(*args))
            del found  # so that two results never lie in memory at once
        return (time.perf_counter() - clock) / count


def compile_(function: Callable[..., Any], *args: Any) -> Compiled:
    """Compiles `function` for arguments, arrays or `jax.ShapeDtypeStruct`s, without calling it.

    Raises:
      ValueError: it contains a loop of unknown length.
    """
    traced = jax.jit(function).trace(*args)
    built = traced.lower().compile()
    used = private_apis.used_equations(traced.jaxpr)
    return Compiled(
        built,
        _counted_once(built) + _in_loops(used),
        built.memory_analysis().temp_size_in_bytes,
        instructions(built.as_text()),
    )


def instructions(text: str) -> str:
    """Returns the instructions of a compiled module without the names that functions gave them."""
    lines = [line for line in text.splitlines() if re.match(r"ENTRY|%|\}|\s+(ROOT )?%", line)]
    plain = re.sub(r", metadata=\{[^}]*\}", "", "\n".join(lines))
    numbers: dict[str, str] = {}

    def number(match: re.Match) -> str:
        return numbers.setdefault(match[0], f"%{len(numbers)}")

    plain = re.sub(r"%[\w.-]+", number, plain)
    # In the heads of computations the arguments' names stand once more, without the sign.
    return re.sub(r"^((?:ENTRY )?%\d+) \(.*\) -> .*$", r"\1", plain, flags=re.MULTILINE)


def _counted_once(built: Any) -> float:
    return built.cost_analysis().get("flops", 0.0)


def _in_loops(jaxpr: core.Jaxpr) -> float:
    """Returns FLOPs of loops beyond those of each body once."""
    total = 0.0
    for equation in _equations(jaxpr):
        if equation.primitive.name == "while":
            raise ValueError("a while loop: how often it runs is not known")
        if equation.primitive.name != "scan":
            continue
        body = equation.params["jaxpr"]
        args = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in body.in_avals]
        once = _counted_once(jax.jit(core.jaxpr_as_fun(body)).lower(*args).compile())
        whole = once + _in_loops(body.jaxpr)
        total += equation.params["length"] * whole - once
    return total


def _equations(jaxpr: core.Jaxpr) -> Iterator[Any]:
    """Equations of a function and of those it calls, without the bodies of loops."""
    for equation in jaxpr.eqns:
        yield equation
        if equation.primitive.name in ("scan", "while"):
            continue
        for inner in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr),
        ):
            if isinstance(inner, core.ClosedJaxpr):
                yield from _equations(inner.jaxpr)
            elif isinstance(inner, core.Jaxpr):
                yield from _equations(inner)


def interleaved(sides: Mapping[Any, Callable[[], float]], rounds: int) -> Rounds:
    """Lets the sides measure in turn.

    Arguments:
      sides: name -> what measures once and returns a number; called in the order given.
    """
    return [{name: measure() for name, measure in sides.items()} for _ in range(rounds)]


def within(sides: Mapping[Any, Callable[[], float]], seconds: float, least: int = 1) -> Rounds:
    """Runs the rounds that begin within so many seconds, and at least `least`.

    Every other round goes backwards, so that no side always comes after the same one.
    """
    end, order = time.perf_counter() + seconds, list(sides.items())
    found: Rounds = []
    while len(found) < least or time.perf_counter() < end:
        found += interleaved(dict(order), 1)
        order.reverse()
    return found


def median(rounds: Rounds, name: Any) -> float:
    """Returns the median of one side."""
    return statistics.median(sides[name] for sides in rounds)


def ratio(rounds: Rounds, name: Any, to: Any) -> float:
    """Returns the median over the rounds of `name` over `to`."""
    return statistics.median(sides[name] / sides[to] for sides in rounds)


def interval(rounds: Rounds, name: Any, to: Any) -> tuple[float, float]:
    """Computes the 95 % interval of `ratio`, by order statistics: without a distribution.

    Fewer than `LEAST_ROUNDS` rounds say nothing: (0, inf).
    """
    if len(rounds) < LEAST_ROUNDS:
        return 0.0, math.inf
    ratios = sorted(sides[name] / sides[to] for sides in rounds)
    # How many of n ratios are below the true median is binomial with p = 1/2.
    outside = int(binom.ppf(0.025, len(ratios), 0.5))
    return ratios[outside - 1], ratios[-outside]
