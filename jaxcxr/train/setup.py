"""Builds what the loop runs from a config: task, model, mesh, stages, compiled steps."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcxr import models
from jaxcxr import task as tasks
from jaxcxr.errors import UserError
from jaxcxr.models.weights import pretrained
from jaxcxr.train import parallel
from jaxcxr.train import state as state_lib
from jaxcxr.train import step as step_lib


@dataclasses.dataclass
class Setup:
    """All parts of a run that do not change while it runs.

    Attributes:
      config: the resolved config.
      task: see `jaxcxr.task.Task`.
      model: Linen module.
      mesh: `(data, fsdp, tensor)`.
      stages: in order.
      rules: sharding rules.
      seconds: time spent by phase ("data", "init", "compile", ...).
    """

    config: Any
    task: Any
    model: Any
    mesh: jax.sharding.Mesh
    stages: tuple[state_lib.Stage, ...]
    rules: tuple
    seconds: dict[str, float]

    def mesh_context(self):
        """Opens the context of the compiled steps; pmap brings a mesh of its own."""
        if self.config.parallel == "pmap":
            return contextlib.nullcontext()
        return jax.set_mesh(self.mesh)

    @property
    def total_steps(self) -> int:
        """Steps of all stages together."""
        return self.stages[-1].end

    @functools.cached_property
    def local_rows(self) -> np.ndarray:
        """Rows of a global batch that this process reads."""
        return parallel.local_rows(self.mesh, self.config.batch_size)

    def example_batch(self) -> dict:
        """Returns shapes of a global batch, as ShapeDtypeStructs without shardings."""
        example = self.task.source("train")[0]
        size = self.config.batch_size
        shapes = {k: jax.ShapeDtypeStruct((size, *v.shape), v.dtype) for k, v in example.items()}
        return shapes | {
            "index": jax.ShapeDtypeStruct((size,), jnp.int32),
            "position": jax.ShapeDtypeStruct((size,), jnp.uint32),
            "valid": jax.ShapeDtypeStruct((size,), jnp.bool_),
        }

    def init_variables(self):
        """Returns the model's random initial variables; traceable."""
        one = jax.tree.map(lambda s: jnp.zeros((1, *s.shape[1:]), s.dtype), self.example_batch())
        inputs, options = self.task.inputs(one)
        key = jax.random.key(self.config.seed)
        return self.model.init(key, inputs, train=False, **options)

    def abstract_state(self, stage: state_lib.Stage):
        """Returns shapes and shardings of the state during a stage."""
        ema = self.config.ema_decay > 0
        shapes = jax.eval_shape(lambda: state_lib.create(self.init_variables(), stage, ema))
        placed = parallel.shardings(self.mesh, self.rules, shapes)
        return jax.tree.map(
            lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p), shapes, placed
        )

    def abstract_model(self) -> dict:
        """Returns shapes and shardings of a checkpoint's model item."""
        shapes = jax.eval_shape(self.init_variables)
        model = {
            "params": shapes["params"], "batch_stats": shapes.get("batch_stats", {}),
            "ema": shapes["params"] if self.config.ema_decay > 0 else None,
        }
        placed = parallel.shardings(self.mesh, self.rules, model)
        return jax.tree.map(
            lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p), model, placed
        )

    @functools.cached_property
    def parameter_shapes(self):
        """Shapes of the model's parameters."""
        return jax.eval_shape(self.init_variables)["params"]

    def check_stages(self) -> None:
        """Finds mistakes in all stages before the first one has trained for days."""
        params = self.parameter_shapes
        for stage in self.stages:
            state_lib.optimizer(stage, params)
        parallel.shardings(self.mesh, self.rules, params)

    def state_shardings(self, stage: state_lib.Stage):
        """Shardings of the state during a stage."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state(stage))

    def first_state(self):
        """Makes the state at step 0, directly in its shards, pretrained where asked for."""
        ema = self.config.ema_decay > 0
        stage = self.stages[0]
        placed = self.state_shardings(stage)
        if not self.config.model.pretrained:
            make = jax.jit(
                lambda: state_lib.create(self.init_variables(), stage, ema),
                out_shardings=placed, compiler_options=_compile_once(),
            )
            return make()
        shapes = jax.eval_shape(self.init_variables)
        make = jax.jit(
            self.init_variables, compiler_options=_compile_once(),
            out_shardings=parallel.shardings(self.mesh, self.rules, shapes),
        )
        # Each device gets its part of the file alone, from the host.
        variables = pretrained.load(
            self.config.model.pretrained, make(), self.config.model.name,
            part=self.config.model.pretrained_part,
        )
        make = jax.jit(
            lambda v: state_lib.create(v, stage, ema), out_shardings=placed, donate_argnums=0
        )
        return make(variables)

    def enter_stage(self, state, stage: state_lib.Stage):
        """Returns the state with the next stage's fresh optimiser."""
        enter = jax.jit(
            functools.partial(state_lib.enter_stage, stage=stage),
            out_shardings=self.state_shardings(stage),
        )
        return enter(state)

    def parameter_rows(self, params) -> dict[str, str]:
        """Counts parameters by group, their sum, and those that no mesh splits, for the screen."""
        counts = models.parameter_counts(params)
        rows = {f"parameters, {group}": f"{count:,}" for group, count in counts.items()}
        total = sum(leaf.size for leaf in jax.tree.leaves(params))
        rows["parameters, all"] = f"{total:,}"
        whole = parallel.kept_whole(self.mesh, self.rules, params)
        return rows | ({"whole on each device": whole} if whole else {})

    @property
    def gather(self) -> Callable | None:
        """Gathers sharded parameters for a step; None where none are sharded."""
        if self.mesh.shape["fsdp"] == 1:
            return None
        return functools.partial(parallel.gathered, self.mesh, self.rules)

    def train_step(self, stage: state_lib.Stage) -> Callable:
        """Returns the compiled `(state, batch) -> (state, metrics)` of a stage."""
        begun = time.perf_counter()
        abstract = self.abstract_state(stage)
        tx, schedule = state_lib.optimizer(stage, abstract.params)
        pmap = self.config.parallel == "pmap"
        step = step_lib.make_train_step(
            self.config, self.model, self.task, stage, tx, schedule,
            axis="batch" if pmap else None, gather=self.gather,
        )
        if pmap:
            return parallel.compile_pmap_step(self.mesh, step)
        placed = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        jitted = parallel.compile_step(self.config, self.mesh, step, placed)
        lowered = jitted.lower(abstract, self.example_batch())
        compiled = lowered.compile(_keep_barriers())
        parallel.check_memory(self.config, compiled)
        self.seconds["compile"] = self.seconds.get("compile", 0.0) + time.perf_counter() - begun
        return compiled

    @functools.cached_property
    def eval_step(self) -> Callable:
        """The compiled `(params, batch_stats, batch) -> predictions`."""
        model = self.model
        if self.config.parallel == "pmap":
            model = make_model(self.config, self.task, axis_name=None)
        return jax.jit(step_lib.make_eval_step(model, self.task, self.gather))


def _compile_once() -> dict | None:
    """Returns compiler options for a function that runs once.

    On CPU, LLVM spends ten times as long on the random numbers of an initialisation as they save.
    """
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None


def _keep_barriers() -> dict | None:
    """Returns compiler options of a training step; see `jaxcxr.models.layers`.

    The pass that is left out removes optimization barriers, before fusion on CPU.
    """
    on_cpu = jax.default_backend() == "cpu"
    return {"xla_disable_hlo_passes": "cse_barrier_expander"} if on_cpu else None


def make_model(config, task, axis_name: str | None = None):
    """Returns the config's model, with what the data decides (classes, joints) filled in."""
    options = {**config.model.options.to_dict(), **task.model_options()}
    return models.create(
        config.model.name, dtype=jnp.dtype(config.dtype), axis_name=axis_name, **options
    )


def make(config, task=None) -> Setup:
    """Builds everything but the state; the order is: data, mesh, model, stages.

    Arguments:
      task: by default that of the config, with its prepared data opened.
    """
    begun = time.perf_counter()
    task = task or tasks.create(config)
    if not len(task.source("train")):
        raise UserError("the train split is empty; prepare more data.")
    stages = state_lib.make_stages(config, len(task.source("train")))
    seconds = {"data": time.perf_counter() - begun}
    mesh = parallel.make_mesh(config)
    axis = "batch" if config.parallel == "pmap" else None
    run = Setup(
        config=config,
        task=task,
        model=make_model(config, task, axis),
        mesh=mesh,
        stages=stages,
        rules=(*config.sharding_rules, *parallel.DEFAULT_RULES),
        seconds=seconds,
    )
    run.check_stages()
    return run
