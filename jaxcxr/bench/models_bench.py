"""`jaxcxr bench models`: a config's transformer with each kind of attention, in one table.

    jaxcxr bench models --config=configs/cxr15_vit_flex.py --config.dtype=float32
    jaxcxr bench models --config=F --attention "2*global+4*fixed(8)" --attention mha --measure

FLOPs are counted by XLA, loops as often as they run; see `plan.measuring`. A layer is a whole block
with its MLP, the mean over the depth. Memory is what XLA's plan for this device needs for the
gradient of a batch of one beside parameters and gradients; nothing of that is run. Times are those
of one layer at the length of the model, forward and forward with backward, the kinds in turn.
On a CPU give `--config.dtype=float32`: XLA computes bfloat16 there in float32, with copies.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxcxr import models
from jaxcxr.bench.attention_layers import PASSES, Layer
from jaxcxr.errors import UserError
from jaxcxr.models.attention import layers, shares, stacks
from jaxcxr.models.sequence import transformer
from jaxcxr.plan import measuring
from jaxcxr.report.result_file import Table

PLAIN = "mha"
KINDS = (
    "local_global(window=8)", "adaptive_span(ramp=4)", "dynamic_span(ramp=4)", "local(block=128)",
    "longformer(window=256)", "strided", "fixed", "reformer", "linformer(rank=256)", "performer",
    "fnet", "fastformer", "transformer_xl", "shared",
)
OF_IMAGES = ("local_2d(block=8,before=8,after=8)",)


@dataclasses.dataclass(frozen=True)
class ModelCost:
    """What a model with one kind of attention costs.

    Arguments:
      parameters: of the model.
      flops: of the model for one example, forward.
      layer_flops: of a block, the mean over the depth.
      memory: bytes for the gradient of one example, beside parameters and gradients.
    """

    parameters: int
    flops: float
    layer_flops: float
    memory: float


def bench_models(config, attention: list[str] | None, rounds: int) -> Table:
    """Prints what the model of a config costs with each kind of attention.

    Arguments:
      attention: what a config's `attention` may be; None: the config's own and all that fit.
      rounds: in which one layer of each kind is timed; 0: none is.

    Returns:
      A row for each kind.
    """
    subject = Subject(config)
    kinds = [PLAIN, *(attention or [subject.own, *KINDS, *subject.more])]
    kinds = list(dict.fromkeys(kinds))
    for kind in kinds:
        subject.blocks(kind)  # a mistake is told before anything is compiled
    note = (f"{jax.devices()[0].device_kind}: {config.model.name}, {subject.tokens:,} tokens, "
            f"{jnp.dtype(config.dtype).name}, remat={subject.model(PLAIN).remat}")
    print(note)
    widths = (max(map(len, kinds)) + 1, 12, 9, 10, 13, 10, 13)
    columns = ["attention", "parameters", "GFLOP", "of plain", "GFLOP/layer", "of plain",
               "gradient MB"]
    _print(columns, widths)
    costs: dict[str, ModelCost] = {}
    rows: list[tuple[str, ...]] = []
    for kind in kinds:
        cost = costs[kind] = subject.row(kind)
        plain = costs[PLAIN]
        rows.append((
            kind, f"{cost.parameters:,}", f"{cost.flops / 1e9:.1f}",
            f"{cost.flops / plain.flops:.1%}", f"{cost.layer_flops / 1e9:.2f}",
            f"{cost.layer_flops / plain.layer_flops:.1%}", f"{cost.memory / 1e6:,.0f}",
        ))
        _print(rows[-1], widths)
    if rounds:
        columns += [text for name in PASSES for text in (f"{name} ms", "of plain")]
        times = _print_times(subject, kinds, widths[0], rounds)
        rows = [(*row, *cells) for row, cells in zip(rows, times, strict=True)]
    return Table(columns, rows, f"{note}.")


def _print(cells: Sequence[str], widths: Sequence[int]) -> None:
    numbers = zip(cells[1:], widths[1:], strict=True)
    text = "".join(f"{cell:>{width}}" for cell, width in numbers)
    print(f"{cells[0]:<{widths[0]}}{text}", flush=True)


class Subject:
    """The model of a config, whose attention is exchanged.

    Arguments:
      more: kinds that fit it beside `KINDS`.
      tokens: length of the sequences in its blocks.
    """

    def __init__(self, config):
        self.name, self.dtype = config.model.name, jnp.dtype(config.dtype)
        self.options = dict(config.model.options)
        size = config.data.get("image_size", 0)
        shape = (size, size, 1) if size else (config.data.frames, 17, 3)
        self.input = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        declared = stacks(models.create(self.name, **self.options), shape)
        if len(declared) != 1:
            raise UserError(
                "bench models takes a config of a model with one stack of encoder blocks, such as "
                f"a ViT or pose_temporal, not {self.name!r}."
            )
        self.tokens, self.layout = declared[0].tokens, dict(declared[0].layout)
        self.more = OF_IMAGES if "grid" in self.layout else ()
        own = self.options["attention"]
        self.own = own if isinstance(own, str) else "|".join(own)

    def model(self, kind: str):
        """The model with that attention."""
        return models.create(self.name, dtype=self.dtype, **self.options | {"attention": kind})

    def blocks(self, kind: str) -> dict[Any, tuple[Callable[..., Any], int]]:
        """The different attentions of the model: module -> (what makes it, how many blocks)."""
        model = self.model(kind)
        makers = layers(kind, model.depth, heads=model.heads, dropout=0.0, dtype=self.dtype,
                        **self.layout)
        found: dict[Any, tuple[Callable[..., Any], int]] = {}
        for make in makers:
            module = make(parent=None)
            found[module] = (make, found.get(module, (make, 0))[1] + 1)
        return found

    def layers(self, kind: str) -> list[tuple[Layer, int]]:
        """The different blocks of the model, and how many there are of each."""
        return [(self._layer(self.model(kind), make), count)
                for make, count in self.blocks(kind).values()]

    def _layer(self, model, make: Callable[..., Any]) -> Layer:
        norm = getattr(model, "norm", "pre")
        block = transformer.encoder_block(False)(
            make, model.mlp_ratio, dtype=self.dtype, norm=norm, layers=model.depth, parent=None
        )
        follows = shares(make) and not make(parent=None).leads

        def weights():
            shape = (1, model.heads, self.tokens, self.tokens)
            return (jnp.full(shape, 1 / self.tokens, jnp.float32),) if follows else ()

        def call(variables, x):
            return block.apply(variables, x, None, None, False, *weights())

        tokens = jax.ShapeDtypeStruct((1, self.tokens, model.dim), self.dtype)
        shapes = jax.eval_shape(
            lambda key, x: block.init(key, x, None, None, False, *weights()),
            jax.random.key(0), tokens,
        )
        return Layer(call, shapes, tokens)

    def row(self, kind: str) -> ModelCost:
        """Compiles the model and its layers, without running them."""
        model = self.model(kind)
        variables = jax.eval_shape(model.init, jax.random.key(0), self.input)
        forward = measuring.compile_(lambda v, x: model.apply(v, x), variables, self.input)

        def loss(variables, x, key):
            out, _ = model.apply(variables, x, train=True, rngs={"dropout": key},
                                 mutable=["losses"])
            return jnp.square(out).mean()

        key = jax.eval_shape(lambda: jax.random.key(0))
        gradient = jax.jit(jax.grad(loss)).lower(variables, self.input, key).compile()
        sizes = gradient.memory_analysis()
        flops = sum(count * measuring.compile_(layer.function, *layer.shapes).flops
                    for layer, count in self.layers(kind))
        return ModelCost(
            sum(leaf.size for leaf in jax.tree.leaves(variables)),
            forward.flops,
            flops / model.depth,
            sizes.temp_size_in_bytes if sizes else math.nan,
        )


def _print_times(subject: Subject, kinds: list[str], width: int, rounds: int) -> list[list[str]]:
    """Prints and returns the time of a layer of each kind, forward and with the backward pass."""
    sides: dict[str, Callable[[], float]] = {}
    for kind in kinds:
        for name, make in PASSES.items():
            sides[f"{kind} {name}"] = _Timer(subject.layers(kind), make).measure
    measuring.interleaved(sides, 1)  # the first call is slower
    measured = measuring.interleaved(sides, rounds)
    heading = "".join(f"{name + ' ms':>15}{'of plain':>10}" for name in PASSES)
    print(f"\n{'one layer':<{width}}{heading}   median of {rounds} rounds")
    rows = []
    for kind in kinds:
        cells = []
        for name in PASSES:
            ratio = measuring.ratio(measured, f"{kind} {name}", f"{PLAIN} {name}")
            cells += [f"{measuring.median(measured, f'{kind} {name}') * 1e3:,.1f}", f"{ratio:.2f}"]
        _print([kind, *cells], [width, *(15, 10) * len(PASSES)])
        rows.append(cells)
    return rows


class _Timer:
    """Seconds of a layer, the mean over the blocks of the model."""

    def __init__(self, blocks: list[tuple[Layer, int]], make: Callable[[Layer], Any]):
        self._blocks = [(measuring.compile_(make(layer), *layer.shapes), layer.values(), count)
                        for layer, count in blocks]

    def measure(self) -> float:
        """Runs every block once."""
        total = sum(count for *_, count in self._blocks)
        return sum(b.seconds(*values) * count for b, values, count in self._blocks) / total
