"""Finds what a training step needs on a mesh by compiling it for fake devices.

The step is traced and compiled and never run. It needs no data: shapes come from the config, the
findings from the source's declaration. The program of a device is the same for every size of the
axis `data` above 1 as long as its share of the batch is, so that it is compiled for two.
"""

import dataclasses
import json
import math
import os
import subprocess
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcxr import registry
from jaxcxr.errors import RunError, UserError
from jaxcxr.plan import collectives, flops
from jaxcxr.train import parallel, setup
from jaxcxr.train import state as state_lib
from jaxcxr.train import step as step_lib

# Size of the axis `data` that is compiled.
_DATA = 2
_RESULT = "plan: "  # begins the line by which another process tells what it measured


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one purpose in a step.

    Attributes:
      what: in words.
      kind: of `collectives.KINDS`.
      axes: of the mesh.
      bytes: of the whole arrays, on each device, in a step.
    """

    what: str
    kind: str
    axes: tuple[str, ...]
    bytes: float


@dataclasses.dataclass(frozen=True)
class Needs:
    """Memory, FLOPs and traffic of a step; of one device, where nothing else is said.

    Attributes:
      parameters: numbers in the model.
      parameter_bytes: float32.
      optimizer_bytes: of the optimiser's state in the last stage.
      average_bytes: of the moving average of the parameters.
      activation_bytes: what the compiled step needs beside its arguments and results.
      batch_bytes: of its share of a batch.
      flops: products of matrices and convolutions of a step.
      other_flops: of everything else.
      model_flops: of all devices together, by the count of `plan.flops`.
      moved_bytes: read and written in a step, see `plan.flops`.
      traffic: collectives, those over `data` also where the mesh has no such axis.
      scaled: factor from the float32 program's activations to those of the config's dtype.
    """

    parameters: int
    parameter_bytes: float
    optimizer_bytes: float
    average_bytes: float
    activation_bytes: float
    batch_bytes: float
    flops: float
    other_flops: float
    model_flops: float
    moved_bytes: float
    traffic: tuple[Traffic, ...]
    scaled: float

    @property
    def state_bytes(self) -> float:
        """Parameters, optimiser state and moving average."""
        return self.parameter_bytes + self.optimizer_bytes + self.average_bytes

    @property
    def memory(self) -> float:
        """All bytes of a device."""
        return self.state_bytes + self.activation_bytes + self.batch_bytes


def check_mesh(config, shape: tuple[int, int, int]) -> None:
    """Refuses a batch that the mesh does not divide."""
    parts = shape[0] * shape[1] * config.accumulate
    if config.batch_size % parts:
        nearest = max(parts, round(config.batch_size / parts) * parts)
        raise UserError(
            f"config.batch_size is {config.batch_size}; on this mesh it must be a multiple of "
            f"{parts}, e.g. --config.batch_size={nearest}."
        )


def fake_devices(shape: tuple[int, int, int]) -> int:
    """Counts the devices that `measure` needs."""
    return _DATA * shape[1] * shape[2]


def measure(config, shape: tuple[int, int, int]) -> Needs:
    """Traces and compiles the step of the last stage.

    Arguments:
      config: the resolved config; its own mesh does not matter.
      shape: sizes of the axes data, fsdp and tensor; `fake_devices` devices are there.
    """
    check_mesh(config, shape)
    data, fsdp, tensor = shape
    share = config.batch_size // (data * fsdp)
    program = _setup(config, (_DATA, fsdp, tensor), share * _DATA * fsdp, "float32")
    stage = program.stages[-1]
    with program.mesh_context():
        state = program.abstract_state(stage)
        compiled = _compiled(program, stage, state)
    sizes = compiled.memory_analysis()
    counted, ratio = _counted(config, share, compiled, tensor)
    scaled = 1.0
    if config.dtype != "float32":
        kept = [_kept(_setup(config, (1, 1, 1), share, dtype)) for dtype in (config.dtype,
                                                                             "float32")]
        scaled = kept[0] / kept[1]
    trained, _ = state_lib.split(state.params, stage)
    return Needs(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        parameter_bytes=_on_device(state.params) + _on_device(state.batch_stats),
        optimizer_bytes=_on_device(state.opt_state),
        average_bytes=_on_device(state.ema),
        activation_bytes=sizes.temp_size_in_bytes * scaled,
        batch_bytes=share * sum(
            math.prod(s.shape[1:]) * s.dtype.itemsize for s in program.example_batch().values()
        ),
        flops=counted.products * ratio,
        other_flops=counted.other * ratio,
        model_flops=counted.total * data * fsdp,
        moved_bytes=counted.moved * ratio + 2 * _on_device(state) + 2 * _on_device(trained),
        traffic=_traffic(program, config, state, trained, compiled),
        scaled=scaled,
    )


def _setup(config, shape, batch: int, dtype: str) -> setup.Setup:
    config = config.copy_and_resolve_references()
    config.batch_size, config.dtype, config.parallel = batch, dtype, "jit"
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = shape
    task = registry.task(config.task).without_data(config)
    devices = np.array(jax.devices()[: math.prod(shape)]).reshape(shape)
    run = setup.Setup(
        config=config, task=task, model=setup.make_model(config, task),
        mesh=jax.sharding.Mesh(devices, parallel.AXES),
        stages=state_lib.make_stages(config, 1),
        rules=(*config.sharding_rules, *parallel.DEFAULT_RULES), seconds={},
    )
    run.check_stages()
    return run


def _step(run: setup.Setup, stage):
    tx, schedule = state_lib.optimizer(stage, jax.eval_shape(run.init_variables)["params"])
    return step_lib.make_train_step(
        run.config, run.model, run.task, stage, tx, schedule, gather=run.gather
    )


def _compiled(run: setup.Setup, stage, state) -> Any:
    placed = jax.tree.map(lambda leaf: leaf.sharding, state)
    jitted = parallel.compile_step(run.config, run.mesh, _step(run, stage), placed)
    # What LLVM makes of the program is of no interest, and takes most of the time.
    options: Any = {"xla_backend_optimization_level": 0}
    return jitted.lower(state, run.example_batch()).compile(options)


def _counted(config, share: int, compiled, tensor: int) -> tuple[flops.Flops, float]:
    """Counts the FLOPs of a part of the batch, and the share that a device of `tensor` does."""
    alone = _setup(config, (1, 1, 1), share, config.dtype)
    stage = alone.stages[-1]
    with alone.mesh_context():
        step, state = _step(alone, stage), alone.abstract_state(stage)
        counted = flops.count(step, state, alone.example_batch())
        if tensor == 1:
            return counted, 1.0
        once = flops.count(step, state, alone.example_batch(), once=True)
    return counted, min(1.0, compiled.cost_analysis()["flops"] / once.total)


def _kept(run: setup.Setup) -> int:
    """Returns the bytes that JAX keeps of a part of the batch for the backward pass."""
    stage = run.stages[-1]
    loss_of = step_lib.make_loss(run.model, run.task, stage, None)

    def residuals(variables, batch):
        trained, frozen = state_lib.split(variables["params"], stage)
        divisors = {name: jnp.ones(()) for name in run.task.loss_weights}
        key = jax.random.key(0)

        def loss(trained):
            stats = variables.get("batch_stats", {})
            return loss_of(trained, frozen, stats, batch, divisors, key)[0]

        return jax.vjp(loss, trained)[1]

    shapes = jax.eval_shape(residuals, jax.eval_shape(run.init_variables), run.example_batch())
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def _on_device(tree) -> float:
    """Returns the bytes of an abstract tree on one device."""
    return float(sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    ))


def _traffic(run, config, state, trained, compiled) -> tuple[Traffic, ...]:
    """Collectives of a step, those of parameters and gradients as accelerators do them."""
    split, rest = _by_fsdp(trained)
    gathered, _ = _by_fsdp(state.params)
    times, fsdp = config.accumulate, run.mesh.shape["fsdp"]
    found = [
        Traffic("parameters, forward and backward", "all-gather", ("fsdp",), 2 * times * gathered),
        Traffic("gradients", "reduce-scatter", ("fsdp",), times * split),
        Traffic("gradients", "all-reduce", ("data",), times * split / fsdp),
        Traffic("gradients", "all-reduce", ("data", "fsdp"), times * rest),
    ]
    half = 0.5 if config.dtype == "bfloat16" else 1.0
    others = 0.0
    for c in collectives.of_program(compiled.as_text(), run.mesh):
        if "tensor" in c.axes:
            found.append(Traffic("activations", c.kind, c.axes, half * c.bytes * c.times))
        elif c.kind == "all-reduce":
            others += c.bytes * c.times
    others = max(0.0, others - times * (split + rest))
    found.append(Traffic("statistics and sums", "all-reduce", ("data", "fsdp"), others))
    merged: dict[tuple[str, str, tuple[str, ...]], float] = {}
    for part in found:
        axes = tuple(a for a in part.axes if run.mesh.shape[a] > 1)
        if axes and part.bytes:
            key = (part.what, part.kind, axes)
            merged[key] = merged.get(key, 0.0) + part.bytes
    return tuple(Traffic(*key, size) for key, size in merged.items())


def _by_fsdp(params) -> tuple[float, float]:
    """Returns the bytes of gathered parameters that `fsdp` splits, and of others, on a device."""
    split = rest = 0.0
    for leaf in jax.tree.leaves(params):
        bytes_ = math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        if "fsdp" in leaf.sharding.spec:
            split += bytes_ * leaf.sharding.mesh.shape["fsdp"]
        else:
            rest += bytes_
    return split, rest


def to_line(needs: Needs) -> str:
    """Writes the line by which the process tells what it measured."""
    return _RESULT + json.dumps(dataclasses.asdict(needs))


def needs(program: Sequence[str], devices: int) -> Needs:
    """Runs a program that measures.

    Arguments:
      program: command line of a program that prints `to_line`.
    """
    forced = f"--xla_force_host_platform_device_count={devices}"
    env = {
        **os.environ, "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {forced}".strip(),
    }
    done = subprocess.run(program, env=env, capture_output=True, text=True, check=False)
    if done.returncode == 2:
        raise UserError(done.stderr.strip().splitlines()[-1].removeprefix("jaxcxr: "))
    lines = [line for line in done.stdout.splitlines() if line.startswith(_RESULT)]
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RunError(
            f"the process that compiles the step ended with code {done.returncode}: {last}"
        )
    values = json.loads(lines[-1].removeprefix(_RESULT))
    values["traffic"] = tuple(
        Traffic(**{**part, "axes": tuple(part["axes"])}) for part in values["traffic"]
    )
    return Needs(**values)
