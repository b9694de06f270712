"""`jaxcxr bench attention` and `bench complexity`: what each kind of attention costs.

    jaxcxr bench attention --sizes 197 1025 --kinds plain fixed "4*fixed(8)+4*global"
    jaxcxr bench complexity --sizes 256 512 1024 --members mha local "longformer(window=32)"

`attention` sets each kind of head group beside plain attention, which is multi-head attention
written out with einsum. Every number is that of a whole layer with its projections; `training` is a
forward and a backward pass, with the gradient by parameters and tokens. FLOPs are those of XLA's
cost analysis, see `plan.measuring`; a kind that computes by chunks of queries counts every chunk.

`complexity` measures FLOPs, time and memory as the tokens grow. The exponent of a quantity is the
slope of its logarithm by the logarithm of n, fitted by least squares to the larger half of the
sizes, and stands beside the one that the member promises. A layer's projections grow with n, so
that exponents above 1 are reached from below, the sooner the narrower the tokens. n log n has an
exponent of 1 + 1 / ln n, about 1.1 here.
"""

import math
import statistics
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxcxr.bench import attention_layers
from jaxcxr.bench.attention_layers import PASSES, Layer, Side, Tokens
from jaxcxr.models.attention import weighing
from jaxcxr.models.attention.geometry import TokenSequence
from jaxcxr.models.attention.groups import HeadGroup
from jaxcxr.models.attention.spans import Fixed
from jaxcxr.plan import measuring
from jaxcxr.report.result_file import Table

# name -> what a config calls it, with {h} heads, {w} the window and {n} tokens
KINDS = {
    "plain": "{h}*global",
    "fixed": "{h}*fixed({w})",
    "local_global": "local_global(window={w})",
    "adaptive": "{h}*adaptive",
    "dynamic": "{h}*dynamic",
    "sparsemax": "{h}*global/sparsemax",
    "entmax15": "{h}*global/entmax15",
    "entmax": "{h}*global/entmax",
    "sigmoid": "{h}*global/sigmoid",
    "quasi": "{h}*global/quasi",
    "dot": "{h}*global/dot",
    "similarity": "{h}*global/similarity",
    "general": "{h}*global/general",
    "biased_general": "{h}*global/biased_general",
    "activated_general": "{h}*global/activated_general",
    "kernel": "{h}*global/kernel/linear",
    "additive": "{h}*global/additive",
    "deep": "{h}*global/deep",
    "location": "{h}*global/location({n})",
    "feature": "{h}*global/feature",
    "static": "{h}*global/static",
    "token": "{h}*global/token",
    "element": "{h}*global/element",
    "talking": "{h}*global/talking",
    "alibi": "{h}*global/alibi",
    "table": "{h}*global/table",
    "thesis_all": "thesis_all",
}
SIZES = (197, 1025, 4097, 81, 243, 1024)

# Windows of the kinds above: patches and frames.
PATCHES, FRAMES = 4, 16

# What the library promises, see `bars`.
BAR_TOKENS, BAR_WINDOW = 4096, 64
LEAST_FASTER, LEAST_FEWER, MOST_OVER_EINSUM, MOST_OVER_FLAX = 8.0, 15.0, 1.05, 1.0


def bench_attention(
    all_tokens: list[Tokens], kinds: list[str], seconds: float, with_bars: bool
) -> Table:
    """Prints a table for each size, and what the library promises.

    Arguments:
      all_tokens: of the layers, one for each table.
      kinds: keys of `KINDS`, or texts of a config.
      with_bars: whether to measure what the library promises, three times as long.

    Returns:
      The rows of all sizes; what the library promises stands in the note.
    """
    note = (f"{jax.devices()[0].device_kind}: ratios to plain attention written out with einsum, "
            "medians of interleaved rounds")
    print(note)
    rows = []
    for tokens in all_tokens:
        print(f"\n{tokens}")
        rows += [(str(tokens), *row) for row in table(kinds, tokens, seconds)]
    if with_bars:
        print()
        note = "; ".join([note, *bars(all_tokens, seconds * 3)])
    costs = [f"{name} {what}" for name in PASSES for what in ("GFLOP", "ratio", "ms", "ratio")]
    return Table(("tokens", "kind", *costs), rows, f"{note}.")


def table(kinds: list[str], tokens: Tokens, seconds: float) -> list[tuple[str, ...]]:
    """Prints FLOPs and time of each kind at one size; returns the rows."""
    head = "".join(f" |{name:>9} GFLOP  ratio        ms  ratio" for name in PASSES)
    print(f"{'kind':<18}{head}")
    plain = attention_layers.by_hand(tokens)
    sides = {name: Side.of(pass_(plain), plain) for name, pass_ in PASSES.items()}
    rows = [_row("einsum", [sides[name].cells(sides[name].alone(seconds)) for name in PASSES])]
    for kind in ("flax", *kinds):
        layer = _layer(kind, tokens)
        cells = []
        for name, pass_ in PASSES.items():
            side = Side.of(pass_(layer), layer)
            cells.append(side.cells(side.beside(sides[name], seconds), sides[name]))
        rows.append(_row(kind, cells))
    return rows


def _row(kind: str, passes: list[tuple[str, ...]]) -> tuple[str, ...]:
    parts = [f" |{spent:>15}{flops:>7}{time:>10}{ratio:>7}" for spent, flops, time, ratio in passes]
    print(f"{kind:<18}{''.join(parts)}", flush=True)
    return (kind, *(cell for cells in passes for cell in cells))


def _layer(kind: str, tokens: Tokens) -> Layer:
    if kind == "flax":
        return attention_layers.of_flax(tokens)
    window = PATCHES if tokens.side else FRAMES
    text = KINDS.get(kind, kind).format(h=tokens.heads, w=window, n=tokens.count)
    return attention_layers.library(text, tokens)


def bars(all_tokens: list[Tokens], seconds: float) -> list[str]:
    """Prints what the library promises, and whether it holds here.

    Attention with a window of 64 frames either way, without the projections, which no window makes
    cheaper, is at least 8 times as fast as full attention on 4,096 frames, with at least 15 times
    fewer FLOPs; the plain layer is within 5 % of the one written out, and not slower than flax's.
    Ratios stand with their 95 % intervals; a bar holds where the whole interval keeps to it, and
    where both sides compile to the same instructions, whatever the clock says.

    Returns:
      Each promise with number, interval and verdict.
    """
    found = []
    first = all_tokens[0]
    frames = Tokens(BAR_TOKENS, first.dim, first.heads, first.batch)
    for name, (rounds, fewer) in window(frames, BAR_WINDOW, seconds).items():
        what = f"window {BAR_WINDOW} of {BAR_TOKENS} frames, {name}"
        found.append(
            _bar(f"{what}: times fewer FLOPs", fewer, (fewer, fewer), least=LEAST_FEWER)
        )
        found.append(_bar(
            f"{what}: times as fast as full attention", measuring.ratio(rounds, "full", "window"),
            measuring.interval(rounds, "full", "window"), least=LEAST_FASTER,
        ))
    for tokens in all_tokens:
        for name, (rounds, same) in plain(tokens, seconds).items():
            for other, most in (("einsum", MOST_OVER_EINSUM), ("flax", MOST_OVER_FLAX)):
                found.append(_bar(
                    f"plain heads, n = {tokens.count}, {name}: time over that of {other}",
                    measuring.ratio(rounds, "own", other), measuring.interval(rounds, "own", other),
                    most=most, same=other in same,
                ))
    return found


def _bar(what: str, value: float, interval: tuple[float, float], *, least: float = -math.inf,
         most: float = math.inf, same: bool = False) -> str:
    low, high = interval
    bound = f"at least {least:g}" if most == math.inf else f"at most {most:g}"
    if same:
        verdict = "holds: XLA makes the same program of both"
    elif least <= low and high <= most:
        verdict = "holds"
    elif high < least or most < low:
        verdict = "DOES NOT HOLD"
    else:
        verdict = "too close to tell from so many rounds"
    span = f"[{low:.2f}, {high:.2f}]"
    print(f"{what:<68}{value:>7.2f} {span:<15}{bound:<14}{verdict}", flush=True)
    return f"{what} {value:.2f} {span}, {bound}: {verdict}"


def window(
    tokens: Tokens, reach: int, seconds: float
) -> dict[str, tuple[measuring.Rounds, float]]:
    """How much less a window of `reach` frames either way costs than full attention, without
    projections: pass -> (rounds of `window` and `full`, times fewer FLOPs).
    """
    shape = (tokens.batch, tokens.count, tokens.heads, tokens.dim // tokens.heads)
    shapes = jax.ShapeDtypeStruct((3, *shape), jnp.float32)
    rule = weighing.Rule(HeadGroup(tokens.heads, span=Fixed(reach)), TokenSequence())
    tiles = weighing.tiling(rule, tokens.count)
    assert tiles is not None, "a span shorter than the tokens is tiled"
    places = (TokenSequence().places(tokens.count),) * 2

    def near(_, qkv: jax.Array) -> jax.Array:
        query, key, value = qkv
        return weighing.by_windows(rule, {}, query, key, value, places, tiles=tiles)

    def full(_, qkv: jax.Array) -> jax.Array:
        return attention_layers.attend(*qkv)

    found = {}
    for name, pass_ in PASSES.items():
        sides = {
            key: Side.of(pass_(Layer(function, {}, shapes)), Layer(function, {}, shapes))
            for key, function in (("window", near), ("full", full))
        }
        measures = {key: side.measure for key, side in sides.items()}
        rounds = measuring.within(measures, seconds, measuring.LEAST_ROUNDS)
        found[name] = (rounds, sides["full"].built.flops / sides["window"].built.flops)
    return found


def plain(tokens: Tokens, seconds: float) -> dict[str, tuple[measuring.Rounds, set[str]]]:
    """Times the plain layer, `own`, beside those of `einsum` and `flax`.

    Returns:
      Pass -> (rounds, the sides that compile to the same instructions as `own`).
    """
    layers = {
        "own": _layer("plain", tokens),
        "einsum": attention_layers.by_hand(tokens),
        "flax": attention_layers.of_flax(tokens),
    }
    found = {}
    for name, pass_ in PASSES.items():
        sides = {key: Side.of(pass_(layer), layer) for key, layer in layers.items()}
        measures = {key: side.measure for key, side in sides.items()}
        rounds = measuring.within(measures, seconds, measuring.LEAST_ROUNDS)
        program = sides["own"].built.program
        found[name] = rounds, {key for key, side in sides.items() if side.built.program == program}
    return found


LOG = 1.1

# what a config calls it, with {h} heads -> promised exponents of n: of FLOPs and time (`LOG` for
# n log n), and of what a layer needs beside its arguments and results. Flexible heads compute more
# pairs than `weighing.MANY_PAIRS` by chunks of queries: n^2 work with memory proportional to n.
MEMBERS = {
    "mha": (2, 2),
    "shared": (2, 2),
    "transformer_xl": (2, 2),
    "strided": (1.5, 1.5),
    "fixed": (1.5, 1.5),
    "local": (1, 1),
    "local_2d": (1, 1),
    "longformer": (1, 1),
    "reformer": (LOG, 1),
    "linformer": (1, 1),
    "performer": (1, 1),
    "fnet": (LOG, 1),
    "fastformer": (1, 1),
    "plain": (2, 1),
    "adaptive_span": (2, 1),
    "{h}*fixed(32)": (1, 1),
}
GROWING = (256, 512, 1024, 2048, 4096, 8192)


def bench_complexity(
    all_tokens: Sequence[Tokens], members: Sequence[str], pass_: str, seconds: float,
    most_memory: float,
) -> Table:
    """Prints FLOPs, time and memory of each member at each size, and their exponents.

    Arguments:
      seconds: of the rounds of each member; 0 for no times.
      most_memory: bytes; what needs more is compiled, but not run.

    Returns:
      Up to three rows for each member: GFLOP, ms and MB at each size, and the exponents.
    """
    sizes = [tokens.count for tokens in all_tokens]
    first = all_tokens[0]
    note = (f"{jax.devices()[0].device_kind}, {pass_}, width {first.dim}, {first.heads} heads; "
            f"exponents fitted to n = {', '.join(map(str, upper(sizes)))}")
    columns = ("member", "n", *(f"{n:,}" for n in sizes), "fitted", "promised")
    print(note)
    _print_growth(columns)
    rows = []
    for kind in members:
        built = {tokens.count: compiled_of(kind, tokens, pass_) for tokens in all_tokens}
        work, memory = MEMBERS.get(kind, (None, None))
        flops = {n: found.flops / 1e9 for n, (found, _) in built.items()}
        name = kind.format(h=first.heads)
        rows.append(_growth_row(name, "GFLOP", sizes, flops, exponent(flops), work))
        if seconds:
            sides = {n: Side(found, layer.values()) for n, (found, layer) in built.items()
                     if found.memory <= most_memory}
            if len(sides) > 1:
                rows.append(_growth_row("", "ms", sizes, *times(sides, seconds), work))
        bytes_ = {n: found.memory / 1e6 for n, (found, _) in built.items()}
        rows.append(_growth_row("", "MB", sizes, bytes_, exponent(bytes_), memory))
    return Table(columns, rows, f"{note}.")


def _growth_row(
    kind: str, unit: str, sizes: list[int], values: dict[int, float], slope: float, promised
) -> tuple[str, ...]:
    cells = (f"{values[n]:,.2f}" if n in values else "" for n in sizes)
    wanted = "" if promised is None else "1 (log)" if promised == LOG else f"{promised:g}"
    row = (kind, unit, *cells, f"{slope:.2f}", wanted)
    _print_growth(row)
    return row


def _print_growth(row: Sequence[str]) -> None:
    kind, unit, *cells, slope, wanted = row
    numbers = "".join(f"{cell:>10}" for cell in cells)
    print(f"{kind:<18}{unit:<7}{numbers}{slope:>9}{wanted:>10}", flush=True)


def compiled_of(kind: str, tokens: Tokens, pass_: str) -> tuple[measuring.Compiled, Layer]:
    """Compiles a layer; `local_2d` has its tokens in a grid twice as wide as high, or a square."""
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
    """Milliseconds at each size, and their exponent, the median of those of the turns."""
    rounds = measuring.within({n: side.measure for n, side in sides.items()}, seconds, least=3)
    slope = statistics.median(exponent(turn) for turn in rounds)
    return {n: measuring.median(rounds, n) * 1e3 for n in sides}, slope
