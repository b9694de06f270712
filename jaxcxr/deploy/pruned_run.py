"""Prunes the flexible heads of a run's model and writes the smaller run.

Heads with closed static gates are removed, the other static gates are folded into the output
weights. Learned spans that reach all tokens become global, and those that windows can compute
become `ramped`, which is no longer learned. Heads of equal spans form a group.
"""

import contextlib
import dataclasses
import functools
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcxr import config as config_lib
from jaxcxr import models
from jaxcxr.data import pipeline
from jaxcxr.errors import RunError, UserError
from jaxcxr.models import attention
from jaxcxr.models.attention import of_layers, stacks
from jaxcxr.models.attention import pruning as analysis
from jaxcxr.models.sequence import scanned
from jaxcxr.plan import measuring
from jaxcxr.train import checkpoint, finished, setup
from jaxcxr.train import state as state_lib

WRONG = 1e-4  # difference beyond rounding, relative to outputs of 1

_CONFIG_FILE = '''"""The config of this run, jaxcxr train --config=THIS --workdir=ITS_FOLDER."""

import json
import pathlib

from jaxcxr import config


def get_config():
    path = pathlib.Path(__file__).with_name("config.json")
    return config.from_saved(json.loads(path.read_text())["config"])
'''


@dataclasses.dataclass(frozen=True)
class Result:
    """The effect of pruning; pairs are before and after.

    Attributes:
      layers: (name, heads before, heads after, attention after) of each flexible layer.
      parameters: their number.
      flops: of the compiled forward pass of one example, by XLA's cost analysis.
      seconds: of the forward pass of `examples`, median over rounds in which both take turns.
      ratio: of the times, after over before, median over the rounds.
      difference: largest difference of an output, in float32.
      largest: largest absolute value of an output.
      examples: in a batch.
    """

    layers: tuple[tuple[str, int, int, str], ...]
    parameters: tuple[int, int]
    flops: tuple[float, float]
    seconds: tuple[float, float]
    ratio: float
    difference: float
    largest: float
    examples: int

    def to_text(self) -> str:
        """Formats the result as tables."""
        rows = [("layer", "heads", "attention")]
        rows += [(name, f"{old} -> {new}", text) for name, old, new, text in self.layers]
        widths = [max(len(row[i]) for row in rows) for i in range(2)]
        lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows]
        lines += ["", f"{'':<24}{'before':>14}{'after':>14}{'ratio':>8}"]
        milliseconds = tuple(1e3 * value for value in self.seconds)
        for name, (old, new), form, ratio in (
            ("parameters", self.parameters, ",d", None),
            ("FLOPs an example", self.flops, ",.0f", None),
            (f"ms for {self.examples} examples", milliseconds, ",.2f", self.ratio),
        ):
            ratio = new / old if ratio is None else ratio
            lines.append(f"{name:<24}{old:>14{form}}{new:>14{form}}{ratio:>8.3f}")
        lines.append(f"outputs, up to {self.largest:.3g}, differ by at most {self.difference:.1e}")
        return "\n".join(lines)


def prune(
    workdir: pathlib.Path,
    out: pathlib.Path,
    duration: str | None = None,
    round_spans: float = 0.0,
    examples: int = 8,
    rounds: int = 30,
) -> Result:
    """Prunes a run; `out` is written only once the outputs of both models agree.

    Arguments:
      workdir, out: folders of the run and of the one to make.
      duration: of its training; None: that of the last stage.
      round_spans: rounds learned spans to multiples of this; 0 leaves them.
      examples: of the validation split to measure on.
      rounds: of timing.

    Raises:
      UserError: no run, no checkpoint, no flexible heads, or `out` exists.
      RunError: the outputs differ by more than rounding.
    """
    config = finished.load_config(workdir)
    stacks = _stacks(config)
    if not any(blocks.flexible for blocks in stacks):
        kinds = ", ".join(sorted({kind for blocks in stacks for kind in blocks.kinds}))
        raise UserError(
            f"the model {config.model.name!r} of {workdir} has no flexible heads to prune"
            + (f"; its attention: {kinds}." if kinds else ".")
        )
    if out.exists():
        raise UserError(f"{out} exists; give another --out, or remove it.")
    before, saved = _trained(config, workdir)
    trained = saved["params"] if saved["ema"] is None else saved["ema"]
    plans = {
        (blocks.stack.name, layer): analysis.plan(
            groups, cost, _attention(trained, blocks.stack.name, layer),
            before.model.dim, blocks.stack.where, blocks.stack.tokens, round_spans,
        )
        for blocks in stacks for layer, (groups, cost) in blocks.flexible.items()
    }
    after = setup.make(_config(config, stacks, plans, duration))
    params = _apply(plans, saved["params"])
    ema = None if saved["ema"] is None else _apply(plans, saved["ema"])
    new_state = _first_state(after, params, saved["batch_stats"], ema)
    variables = ({"params": trained, "batch_stats": saved["batch_stats"]},
                 jax.device_get(new_state.eval_variables))
    measured = _measure(before, after, variables, examples, rounds)
    heads = tuple(
        (f"{prefix}_{layer}", sum(g.count for g in plan.groups),
         sum(len(part.heads) for part in plan.parts if not part.silent), plan.text)
        for (prefix, layer), plan in plans.items()
    )
    result = Result(heads, **measured)
    if not round_spans and not result.difference <= WRONG * max(1.0, result.largest):
        raise RunError(
            f"the outputs of the smaller model differ by {result.difference:.1e}, which is more "
            "than rounding; nothing was written."
        )
    _write(out, after, new_state)
    return result


@dataclasses.dataclass(frozen=True)
class _Blocks:
    """A stack of encoder blocks: attention of each, and block -> groups of flexible heads, cost."""

    stack: Any
    kinds: tuple[str, ...]
    flexible: dict[int, tuple]


def _stacks(config) -> list[_Blocks]:
    model = models.create(config.model.name, **config.model.options.to_dict())
    data = config.data
    shape = (data.image_size,) * 2 if config.task == "cxr" else (data.frames,)
    found = []
    for stack in stacks(model, shape):
        kinds = of_layers(getattr(model, stack.option), stack.depth)
        flexible = {
            index: attention.head_groups(kind, model.heads)
            for index, kind in enumerate(kinds) if not attention.is_kind(kind)
        }
        found.append(_Blocks(stack, tuple(kinds), flexible))
    options = [blocks.stack.option for blocks in found if blocks.flexible]
    if len(set(options)) < len(options):
        raise UserError(
            f"the model {config.model.name!r} has several stacks of blocks under one option of "
            "attention, and heads that are pruned would differ between them; it cannot be pruned."
        )
    return found


def _trained(config, workdir: pathlib.Path):
    """Loads the run and its best checkpoint; a loop over layers is unrolled."""
    with finished.open_best(workdir, config=config) as run_:
        saved = jax.device_get(run_.saved)
    if not config.model.options.get("scan", False):
        return run_.setup, saved
    config.model.options.scan = False  # pruned layers are no longer equal
    unrolled = {
        name: scanned.unrolled(run_.model, {"params": saved[name]})[1]["params"]
        for name in ("params", "ema") if saved[name] is not None
    }
    return setup.make(config), saved | unrolled


def _attention(params, prefix: str, layer: int) -> dict[str, Any]:
    return params["backbone"][f"{prefix}_{layer}"]["attention"]


def _apply(plans, params):
    """Replaces the parameters of flexible layers."""
    backbone = dict(params["backbone"])
    for (prefix, layer), plan in plans.items():
        name = f"{prefix}_{layer}"
        small = analysis.apply(plan, _attention(params, prefix, layer))
        backbone[name] = {**backbone[name], "attention": small}
    return {**params, "backbone": backbone}


def _config(config, stacks, plans, duration: str | None):
    new = config.copy_and_resolve_references()
    with new.unlocked():
        for blocks in stacks:
            if blocks.flexible:
                texts = (
                    plans[blocks.stack.name, i].text if i in blocks.flexible else kind
                    for i, kind in enumerate(blocks.kinds)
                )
                new.model.options[blocks.stack.option] = "|".join(texts)
        new.model.pretrained = ""
        last = new.stage_order[-1]
        new.stage_order = (last,)
        for name in [name for name in new.stages if name != last]:
            del new.stages[name]
        if duration is not None:
            new.stages[last].duration = duration
    config_lib.validate(new)
    return new


def _first_state(run_, params, batch_stats, ema):
    """Makes a state at step 0 with these parameters, sharded as in the run."""
    stage = run_.stages[0]
    with run_.mesh_context():
        variables = {"params": params, "batch_stats": batch_stats}
        state = state_lib.create(jax.tree.map(jnp.asarray, variables), stage, ema=False)
        state = state.replace(ema=ema)
        return jax.tree.map(
            lambda leaf, shape: jax.device_put(leaf, shape.sharding),
            state, run_.abstract_state(stage),
        )


def _measure(before, after, variables, examples: int, rounds: int) -> dict[str, Any]:
    """Measures the fields of `Result` other than `layers`."""
    source = before.task.source("validation")
    source = source if len(source) else before.task.source("train")
    count = min(examples, len(source))
    batch = {key: np.asarray(value) for key, value in source.read(np.arange(count)).items()}
    inputs, options = before.task.inputs(batch)
    outputs, compiled, flops = [], [], []
    for run_, own in zip((before, after), variables, strict=True):
        exact = _forward(run_, "float32")
        with jax.default_matmul_precision("highest"):
            outputs.append(np.asarray(jax.jit(exact)(own, inputs, options), np.float64))
        made = jax.jit(_forward(run_, run_.config.dtype)).lower(own, inputs, options).compile()
        compiled.append(made)
        flops.append((made.cost_analysis() or {}).get("flops", float("nan")) / count)
    placed = [jax.device_put((own, inputs, options)) for own in variables]

    def seconds(side: int) -> float:
        begun = time.perf_counter()
        jax.block_until_ready(compiled[side](*placed[side]))
        return time.perf_counter() - begun

    sides = {name: functools.partial(seconds, i) for i, name in enumerate(("before", "after"))}
    measuring.interleaved(sides, 1)
    times = measuring.interleaved(sides, rounds)
    return {
        "parameters": tuple(
            sum(leaf.size for leaf in jax.tree.leaves(own["params"])) for own in variables
        ),
        "flops": tuple(flops),
        "seconds": tuple(measuring.median(times, name) for name in sides),
        "ratio": measuring.ratio(times, "after", "before"),
        "difference": float(np.abs(outputs[0] - outputs[1]).max()),
        "largest": float(np.abs(outputs[0]).max()),
        "examples": count,
    }


def _forward(run_, dtype: str):
    config = run_.config.copy_and_resolve_references()
    config.dtype = dtype
    model = setup.make_model(config, run_.task)

    def forward(variables, inputs, options):
        return model.apply(variables, inputs, train=False, **options)

    return forward


def _write(out: pathlib.Path, run_, state) -> None:
    checkpoint.check_workdir(out, run_.config)
    data = pipeline.train_iterator(run_.task.source("train"), run_.config, run_.task.sampling())
    with contextlib.closing(checkpoint.Checkpoints(out, run_.config)) as checkpoints:
        checkpoints.save(0, state, data)
        checkpoints.wait()
    (out / "config.py").write_text(_CONFIG_FILE, encoding="utf-8")
    # Last: with it the folder is a run.
    checkpoint.write_config(out, run_.config, run_.task.facts())
