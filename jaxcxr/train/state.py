"""The train state, and the stages that decide which of its parameters are trained."""

import dataclasses
import re
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from jaxcxr import config as config_lib
from jaxcxr.errors import UserError
from jaxcxr.train import optim


class TrainState(flax.struct.PyTreeNode):
    """Everything a training step reads and writes.

    Attributes:
      step: int32 scalar, optimiser steps done since the start of the run.
      params: all parameters, float32.
      batch_stats: running statistics of BatchNorm, {} without it.
      opt_state: optimiser state over the parameters that the current stage trains.
      ema: exponential moving average of `params`, or None where none is kept.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any

    @property
    def eval_params(self):
        """The parameters to evaluate with: their moving average where one is kept."""
        return self.params if self.ema is None else self.ema

    @property
    def eval_variables(self) -> dict:
        """Variables of the model to evaluate with."""
        return {"params": self.eval_params, "batch_stats": self.batch_stats}

    @property
    def model_item(self) -> dict:
        """Returns the model's item of a checkpoint, which has no optimiser."""
        return {"params": self.params, "batch_stats": self.batch_stats, "ema": self.ema}


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a run: steps `[start, end)` train what `trainable` matches.

    Attributes:
      name: as in the config.
      start: first step.
      end: first step that is no longer in the stage.
      trainable: regular expressions over parameter paths such as "backbone/layer4_0/conv1/kernel".
      settings: the stage's ConfigDict (learning rate, optimiser, warm-up, decay).
    """

    name: str
    start: int
    end: int
    trainable: tuple[str, ...]
    settings: Any

    def trains(self, path: str) -> bool:
        """Tells whether the parameter (or module) at `path` is trained."""
        return any(re.search(pattern, path) for pattern in self.trainable)


def make_stages(config, data_size: int) -> tuple[Stage, ...]:
    """Returns the run's stages with their step ranges, in order.

    Arguments:
      config: the resolved config.
      data_size: examples in the training split, for durations in epochs.
    """
    stages, start = [], 0
    for name in config.stage_order:
        settings = config.stages[name]
        end = start + config_lib.steps(settings.duration, data_size, config.batch_size)
        stages.append(Stage(name, start, end, tuple(settings.trainable), settings))
        start = end
    if start >= 2**31:
        raise UserError(
            f"the stages are {start:,} steps together; the count of steps is a 32-bit number: "
            "make them shorter, or batch_size larger."
        )
    return tuple(stages)


def stage_at(stages: tuple[Stage, ...], step: int) -> Stage:
    """Finds the stage of the step after `step` finished ones; at the end, the last.

    A state saved exactly on a boundary therefore already carries the next stage's optimiser.
    """
    for stage in stages:
        if step < stage.end:
            return stage
    return stages[-1]


def split(params, stage: Stage):
    """Splits parameters into (trained, frozen) nested dicts, by the stage's rules."""
    flat = traverse_util.flatten_dict(params, sep="/")
    trained = {path: leaf for path, leaf in flat.items() if stage.trains(path)}
    frozen = {path: leaf for path, leaf in flat.items() if path not in trained}
    if not trained:
        groups = sorted({"/".join(path.split("/")[:2]) for path in flat})
        raise UserError(
            f"stage {stage.name!r} trains no parameter: {stage.trainable} match none of "
            f"{', '.join(groups)}."
        )
    return (traverse_util.unflatten_dict(trained, sep="/"),
            traverse_util.unflatten_dict(frozen, sep="/"))


def merge(trained, frozen):
    """Merges what `split` has split."""
    flat = traverse_util.flatten_dict(trained, sep="/")
    flat.update(traverse_util.flatten_dict(frozen, sep="/"))
    return traverse_util.unflatten_dict(flat, sep="/")


def optimizer(stage: Stage, params) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Builds the stage's optimiser over what it trains, and its learning-rate schedule."""
    return optim.make_optimizer(stage.settings, split(params, stage)[0], stage.end - stage.start)


def create(variables, stage: Stage, ema: bool) -> TrainState:
    """Makes the state at step 0 from a model's initial variables; traceable, to run in shards."""
    params = variables["params"]
    tx, _ = optimizer(stage, params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=tx.init(split(params, stage)[0]),
        ema=jax.tree.map(jnp.copy, params) if ema else None,
    )


def enter_stage(state: TrainState, stage: Stage) -> TrainState:
    """Returns the same state with a fresh optimiser for the next stage."""
    tx, _ = optimizer(stage, state.params)
    return state.replace(opt_state=tx.init(split(state.params, stage)[0]))
