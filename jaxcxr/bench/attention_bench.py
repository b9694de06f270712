"""`jaxcxr bench attention`: each kind of head group beside plain attention, in FLOPs and time.

    jaxcxr bench attention
    jaxcxr bench attention --sizes 197 1025 --kinds plain fixed "4*fixed(8)+4*global"

Plain attention, to which the ratios are, is multi-head attention written out with einsum. Every
figure is that of a whole layer with its projections; `training` is a forward and a backward pass,
with the gradient by parameters and tokens. FLOPs are those of XLA's cost analysis, see
`compiled`; a kind that computes by chunks of queries counts every chunk.
"""

import math

import jax
import jax.numpy as jnp

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
      seconds: for the rounds of each kind, size and pass.
      with_bars: whether to measure what the library promises, three times as long.

    Returns:
      The rows of all sizes; what the library promises stands in the note.

    Raises:
      UserError: a kind that does not exist, or one that does not fit the width or the heads.
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
    """Prints FLOPs and time of each kind at one size.

    Arguments:
      kinds: keys of `KINDS`, or texts of a config.
      tokens: of the layers.
      seconds: for the rounds of each kind and pass.

    Returns:
      The kind, and for each pass GFLOP, ms and their ratios.
    """
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

    Figures stand with their 95 % intervals; a bar holds where the whole interval keeps to it, and
    where both sides compile to the same instructions, whatever the clock says.

    Arguments:
      all_tokens: sizes at which the plain layer is compared.
      seconds: for each comparison.

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
    """How much less a fixed window costs than full attention, both without projections.

    Arguments:
      tokens: frames.
      reach: frames seen either way.
      seconds: for each pass.

    Returns:
      Pass -> (rounds of `window` and `full`, times fewer FLOPs).
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
    """Time of the plain layer, `own`, beside those of `einsum` and `flax`.

    Arguments:
      tokens: of the layers.
      seconds: for each pass.

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
