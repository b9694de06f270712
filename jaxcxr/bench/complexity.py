"""`jaxcxr bench complexity`: FLOPs, time and memory of the attention family as the tokens grow.

    jaxcxr bench complexity
    jaxcxr bench complexity --sizes 256 512 1024 --members mha local "longformer(window=32)"

The exponent of a quantity is the slope of its logarithm by the logarithm of n, fitted by least
squares to the larger half of the sizes, and stands beside the one that the member promises. A
layer's projections grow with n, so that exponents above 1 are reached from below, the sooner the
narrower the tokens. n log n has an exponent of 1 + 1 / ln n, about 1.1 here.
"""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxcxr.bench import attention_layers
from jaxcxr.bench.attention_layers import PASSES, Layer, Side, Tokens
from jaxcxr.plan import measuring
from jaxcxr.report.result_file import Table


class Promise(NamedTuple):
    """What a member of the family costs.

    Arguments:
      work: exponent of n in FLOPs and time; `LOG` for n log n.
      memory: exponent of n in what a layer needs beside its arguments and results.
    """

    work: float
    memory: float


LOG = 1.1

# what a config calls it, with {h} heads -> promise. The flexible heads compute more pairs than
# `weighing.MANY_PAIRS` by chunks of queries, so that n^2 work needs memory proportional to n.
MEMBERS = {
    "mha": Promise(2, 2),
    "shared": Promise(2, 2),
    "transformer_xl": Promise(2, 2),
    "strided": Promise(1.5, 1.5),
    "fixed": Promise(1.5, 1.5),
    "local": Promise(1, 1),
    "local_2d": Promise(1, 1),
    "longformer": Promise(1, 1),
    "reformer": Promise(LOG, 1),
    "linformer": Promise(1, 1),
    "performer": Promise(1, 1),
    "fnet": Promise(LOG, 1),
    "fastformer": Promise(1, 1),
    "plain": Promise(2, 1),
    "adaptive_span": Promise(2, 1),
    "{h}*fixed(32)": Promise(1, 1),
}
SIZES = (256, 512, 1024, 2048, 4096, 8192)


def bench_complexity(
    all_tokens: Sequence[Tokens], members: Sequence[str], pass_: str, seconds: float,
    most_memory: float,
) -> Table:
    """Prints FLOPs, time and memory of each member at each size, and their exponents.

    Arguments:
      all_tokens: of the layers, two sizes at least, ascending.
      members: what a config's `attention` may be.
      pass_: a key of `attention_layers.PASSES`.
      seconds: of the rounds of each member; 0 for no times.
      most_memory: bytes; what needs more is compiled, but not run.

    Returns:
      Up to three rows for each member: GFLOP, ms and MB at each size, and the exponents.

    Raises:
      UserError: a kind that does not exist.
    """
    sizes = [tokens.count for tokens in all_tokens]
    first = all_tokens[0]
    note = (f"{jax.devices()[0].device_kind}, {pass_}, width {first.dim}, {first.heads} heads; "
            f"exponents fitted to n = {', '.join(map(str, upper(sizes)))}")
    columns = ("member", "n", *(f"{n:,}" for n in sizes), "fitted", "promised")
    print(note)
    _print(columns)
    rows = []
    for kind in members:
        built = {tokens.count: compiled_of(kind, tokens, pass_) for tokens in all_tokens}
        work, memory = MEMBERS.get(kind, (None, None))
        flops = {n: found.flops / 1e9 for n, (found, _) in built.items()}
        name = kind.format(h=first.heads)
        rows.append(_row(name, "GFLOP", sizes, flops, exponent(flops), work))
        if seconds:
            sides = {n: Side(found, layer.values()) for n, (found, layer) in built.items()
                     if found.memory <= most_memory}
            if len(sides) > 1:
                rows.append(_row("", "ms", sizes, *times(sides, seconds), work))
        bytes_ = {n: found.memory / 1e6 for n, (found, _) in built.items()}
        rows.append(_row("", "MB", sizes, bytes_, exponent(bytes_), memory))
    return Table(columns, rows, f"{note}.")


def _row(
    kind: str, unit: str, sizes: list[int], values: dict[int, float], slope: float, promised
) -> tuple[str, ...]:
    cells = (f"{values[n]:,.2f}" if n in values else "" for n in sizes)
    wanted = "" if promised is None else "1 (log)" if promised == LOG else f"{promised:g}"
    row = (kind, unit, *cells, f"{slope:.2f}", wanted)
    _print(row)
    return row


def _print(row: Sequence[str]) -> None:
    kind, unit, *cells, slope, wanted = row
    numbers = "".join(f"{cell:>10}" for cell in cells)
    print(f"{kind:<18}{unit:<7}{numbers}{slope:>9}{wanted:>10}", flush=True)


def compiled_of(kind: str, tokens: Tokens, pass_: str) -> tuple[measuring.Compiled, Layer]:
    """A layer compiled, and the layer.

    Arguments:
      kind: what a config calls it.
      tokens: of the layer; `local_2d` has them in a grid twice as wide as high, or a square.
      pass_: a key of `attention_layers.PASSES`.
    """
    layout = {}
    if kind.startswith("local_2d"):
        rows = 2 ** int(math.log2(tokens.count) / 2)
        layout = {"grid": (rows, tokens.count // rows), "global_tokens": 0}
    layer = attention_layers.library(kind.format(h=tokens.heads), tokens, **layout)
    return measuring.compile_(PASSES[pass_](layer), *layer.shapes), layer


def upper(sizes: Sequence[int]) -> list[int]:
    """The larger half of the sizes, and at least two."""
    return sorted(sizes)[-max(2, -(-len(sizes) // 2)):]


def exponent(values: dict[int, float]) -> float:
    """Slope of log value by log n, fitted to the larger half of the sizes."""
    sizes = upper(list(values))
    return float(np.polyfit(np.log(sizes), np.log([values[n] for n in sizes]), 1)[0])


def times(sides: dict[int, Side], seconds: float) -> tuple[dict[int, float], float]:
    """Milliseconds at each size, and their exponent.

    The sizes take turns. The exponent is the median of those of the turns.

    Arguments:
      sides: size -> what to measure.
      seconds: for all turns; there are at least three.
    """
    rounds = measuring.within({n: side.measure for n, side in sides.items()}, seconds, least=3)
    slope = statistics.median(exponent(turn) for turn in rounds)
    return {n: measuring.median(rounds, n) * 1e3 for n in sides}, slope
