"""Meshes, sharding rules, and the compilation of the step.

The mesh has three axes, `(data, fsdp, tensor)`. Batches are split over `data` and `fsdp`;
parameters, their moving average and the optimiser state by ordered regex rules.

Parameters that are split over `fsdp` are gathered where a step uses them, once in the forward and
once more in the backward pass, and their gradients are added up and split again (Rajbhandari et al.
2020, arXiv:1910.02054, stage 3). What is split over `tensor` is computed where it lies (Shoeybi et
al. 2019, arXiv:1909.08053): heads of attention, hidden units of MLPs and of the classifier.
"""

import math
import os
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcxr.errors import UserError
from jaxcxr.models.layers import BATCH_AXES, by_example
from jaxcxr.train.rules import match_rules, paths

AXES = ("data", "fsdp", "tensor")
BATCH = P(BATCH_AXES)

# (regex over the path, what to do): a tuple is a PartitionSpec; "fsdp" splits the largest
# dimension that divides; "replicate" keeps a copy everywhere. First match wins.
DEFAULT_RULES = (
    (r"(query|key|value)/kernel$", ("fsdp", "tensor", None)),
    (r"(query|key|value)/bias$", ("tensor", None)),
    (r"attention/(group_\d+_)?out/kernel$", ("tensor", None, "fsdp")),
    (r"(fc1|head/hidden)/kernel$", ("fsdp", "tensor")),
    (r"(mlp/fc1|head/hidden)/bias$", ("tensor",)),
    (r"(fc2|head/logits)/kernel$", ("tensor", "fsdp")),
    (r".*", "fsdp"),
)

# Below this many elements a parameter is copied: splitting it costs more than it saves.
SMALLEST_SPLIT = 2**14

# Parameters of equal blocks that a model scans over have an axis of the blocks in front.
_STACKED = re.compile(r"(^|/)blocks/")

# Name of gathered parameters, and how many names a message holds.
GATHERED = "gathered"
_NAMED = 3


def make_mesh(config) -> jax.sharding.Mesh:
    """Returns the `(data, fsdp, tensor)` mesh over all devices of all processes.

    Arguments:
      config: `mesh.data` (-1: what is left), `mesh.fsdp`, `mesh.tensor`.
    """
    count = jax.device_count()
    fsdp, tensor = config.mesh.fsdp, config.mesh.tensor
    data = count // (fsdp * tensor) if config.mesh.data == -1 else config.mesh.data
    if data * fsdp * tensor != count or data < 1:
        raise UserError(
            f"config.mesh (data={config.mesh.data}, fsdp={fsdp}, tensor={tensor}) does not "
            f"multiply to the {count} devices; set mesh.data=-1 or other sizes."
        )
    split = data * fsdp * config.accumulate
    if config.batch_size % split:
        nearest = max(split, round(config.batch_size / split) * split)
        raise UserError(
            f"config.batch_size is {config.batch_size}; it must be a multiple of {split} "
            f"(data {data} x fsdp {fsdp} x accumulate {config.accumulate}), e.g. {nearest}."
        )
    return jax.sharding.Mesh(
        arranged(jax.devices(), (data, fsdp, tensor)), AXES, axis_types=(AxisType.Auto,) * 3
    )


def arranged(devices: list, shape: tuple[int, int, int]) -> np.ndarray:
    """Arranges devices as their network asks for: slices (TPU slices, GPU hosts) lie along `data`.

    Raises:
      UserError: TPU slices do not divide `data`; the network between them is for gradients alone.
    """
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    split = "lite" in devices[0].device_kind  # as `jax.make_mesh`: these tori may be cut anywhere
    if slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=split)
    if shape[0] % slices == 0:
        return mesh_utils.create_hybrid_device_mesh(
            (shape[0] // slices, *shape[1:]), (slices, 1, 1), devices,
            allow_split_physical_axes=split,
        )
    if devices[0].platform == "tpu":
        raise UserError(
            f"the devices are {slices} TPU slices and config.mesh.data is {shape[0]}; it must be "
            f"a multiple of {slices}: lower config.mesh.fsdp or config.mesh.tensor."
        )
    return np.array(devices).reshape(shape)


def shardings(mesh, rules, tree):
    """Returns the NamedSharding of every leaf, by the first rule that matches its path.

    A dimension that its axis does not divide stays whole, see `kept_whole`. In a stack of blocks
    that are scanned, the axis of the blocks stays whole and the rules say how each block is split.

    Arguments:
      rules: `((regex, PartitionSpec tuple | "fsdp" | "replicate"), ...)`.
      tree: pytree of shapes.
    """
    specs, _ = _specs(mesh, rules, tree)
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda x: isinstance(x, P)
    )


def kept_whole(mesh, rules, params) -> str:
    """Names the parameters which the mesh should split and does not divide, in one line.

    "" where there are none. The largest come first; names that differ in a number alone are one.
    """
    _, missed = _specs(mesh, rules, params)
    if not missed:
        return ""
    sizes = {path: leaf.size for path, leaf in zip(paths(params), jax.tree.leaves(params),
                                                   strict=True)}
    kinds = list(dict.fromkeys(
        f"{re.sub(r'_[0-9]+', '_*', path)} by {axis} {mesh.shape[axis]}"
        for path, axis in sorted(missed, key=lambda pair: -sizes[pair[0]])
    ))
    more = f" and {len(kinds) - _NAMED} more" if len(kinds) > _NAMED else ""
    share = sum(sizes[path] for path in {path for path, _ in missed}) / sum(sizes.values())
    return f"{share:.1%} of the parameters, not divisible: {', '.join(kinds[:_NAMED])}{more}"


def _specs(mesh, rules, tree) -> tuple[Any, list[tuple[str, str]]]:
    """Returns the PartitionSpecs of a tree, and (path, axis) of what an axis does not divide."""
    # A PartitionSpec is a leaf to jax.tree, a tuple is not.
    actions = match_rules(
        [(regex, P(*a) if isinstance(a, tuple) else a) for regex, a in rules], tree,
        "sharding_rules",
    )
    missed: list[tuple[str, str]] = []

    def spec_of(path: str, action, shape) -> P:
        lead = (None,) if _STACKED.search(path) and shape else ()
        spec, axes = _spec(mesh, action, shape[len(lead):])
        missed.extend((path, axis) for axis in axes)
        return P(*lead, *spec) if any(spec) else P()

    leaves, structure = jax.tree.flatten(tree)
    found = [
        spec_of(path, action, leaf.shape)
        for path, action, leaf in zip(paths(tree), jax.tree.leaves(actions), leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, found), missed


def _spec(mesh, action, shape) -> tuple[P, list[str]]:
    """Returns the PartitionSpec of a shape, and the axes that do not divide it."""
    if action == "replicate" or not shape:
        return P(), []
    if action == "fsdp":
        size = mesh.shape["fsdp"]
        if size == 1 or math.prod(shape) < SMALLEST_SPLIT:
            return P(), []
        divisible = [d for d in range(len(shape)) if shape[d] % size == 0]
        if not divisible:
            return P(), ["fsdp"]
        largest = max(divisible, key=lambda d: shape[d])
        return P(*("fsdp" if d == largest else None for d in range(len(shape)))), []
    if len(action) > len(shape):
        raise UserError(f"config.sharding_rules: {action} has more axes than a shape of {shape}.")
    pairs = list(zip(action, shape, strict=False))
    missed = [axis for axis, dim in pairs if axis and dim % mesh.shape[axis]]
    return P(*(None if axis in missed else axis for axis, _ in pairs)), missed


def gathered(mesh, rules, params):
    """Gathers parameters for a step: whole over `fsdp`, still split over `tensor`.

    The gathered copies have the name `GATHERED`, by which `checkpoint_gathered` drops them between
    the passes. Gradients go the way back: added up, then split. Without these constraints XLA
    carries the split of the parameters over to activations and gathers the batch instead.
    """

    def gather(x, placed):
        if "fsdp" not in placed.spec:
            return x
        whole = P(*(None if axis == "fsdp" else axis for axis in placed.spec))
        x = jax.lax.with_sharding_constraint(x, placed)
        x = jax.lax.with_sharding_constraint(x, NamedSharding(mesh, whole))
        return checkpoint_name(x, GATHERED)

    return jax.tree.map(gather, params, shardings(mesh, rules, params))


def checkpoint_gathered(loss: Callable) -> Callable:
    """Wraps a loss to gather its parameters again in the backward pass."""
    policy = jax.checkpoint_policies.save_anything_except_these_names(GATHERED)
    return jax.checkpoint(loss, policy=policy)


def replicated(mesh) -> NamedSharding:
    """Returns the sharding that copies to every device."""
    return NamedSharding(mesh, P())


def constrain_batch(tree, axis: str | None):
    """Keeps activations split by example, so that no later operation gathers the batch."""
    return tree if axis else jax.tree.map(by_example, tree)


def split_batch(x: jax.Array, count: int, axis: str | None) -> jax.Array:
    """Splits `[batch, ...]` to `[count, batch / count, ...]`, each example on its device.

    Each device holds consecutive examples; slicing with a stride takes an equal share of every
    device's examples for every micro-batch.
    """
    parts = x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1)
    mesh = jax.sharding.get_abstract_mesh()
    if axis or mesh.empty:
        return parts
    return jax.lax.with_sharding_constraint(parts, P(None, *BATCH))


def local_rows(mesh, size: int) -> np.ndarray:
    """Returns the rows of a global batch that the devices of this process hold, ascending.

    Processes whose devices differ along `tensor` alone hold the same rows.
    """
    places = NamedSharding(mesh, BATCH).addressable_devices_indices_map((size,))
    return np.unique(np.concatenate([np.arange(size)[index] for index in places.values()]))


def put_batch(mesh, batch: dict) -> dict:
    """Makes global arrays of `local_rows`; the only place where data enters the devices."""
    sharding = NamedSharding(mesh, BATCH)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)  # half the host time of what follows
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    held = len(local_rows(mesh, parts))

    def put(value: np.ndarray) -> jax.Array:
        size = len(value) * parts // held
        rows = local_rows(mesh, size)

        def part(index):
            return value[np.searchsorted(rows, np.arange(size)[index[0]])]

        return jax.make_array_from_callback((size, *value.shape[1:]), sharding, part)

    return {name: put(value) for name, value in batch.items()}


def gather(tree):
    """Returns host copies of global arrays, whole on every process."""
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, jax.device_get(tree))
    return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree, tiled=True))


def compile_step(config, mesh, step: Callable, state_shardings) -> jax.stages.Wrapped:
    """Compiles the jit form of the step: `(state, batch) -> (state, metrics)`, state donated."""
    return jax.jit(
        step,
        in_shardings=(state_shardings, NamedSharding(mesh, BATCH)),
        out_shardings=(state_shardings, replicated(mesh)),
        donate_argnums=0,
    )


def check_memory(config, compiled) -> int:
    """Returns the bytes that the compiled step needs on each device."""
    sizes = compiled.memory_analysis()
    needed = sizes.argument_size_in_bytes + sizes.temp_size_in_bytes + sizes.output_size_in_bytes
    needed -= sizes.alias_size_in_bytes  # the donated state is argument and output at once
    available = _device_memory()
    if needed > available:
        raise UserError(
            f"a step with config.batch_size={config.batch_size} needs {needed / 2**30:,.1f} GiB on "
            f"each device, which has {available / 2**30:,.1f}; lower config.batch_size, raise "
            "config.accumulate, or use more devices."
        )
    return needed


def _device_memory() -> int:
    """Returns the bytes of memory of one device; on CPU the host's, shared by its devices."""
    device = jax.local_devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()


def compile_pmap_step(mesh, step: Callable) -> Callable:
    """Compiles the pmap form of the step made with `axis="batch"`, for one host and a data mesh.

    Takes and returns the same global arrays as the jit form: state replicated, batch split.
    """
    if jax.process_count() > 1 or mesh.shape["fsdp"] > 1 or mesh.shape["tensor"] > 1:
        raise UserError(
            "config.parallel='pmap' serves one process with mesh.fsdp=mesh.tensor=1; "
            "use parallel='jit'."
        )
    devices = list(mesh.devices.flat)
    mapped = jax.pmap(
        step, axis_name="batch", in_axes=(None, 0), out_axes=(None, None), devices=devices
    )

    def run(state, batch):
        stacked = jax.tree.map(
            lambda x: np.asarray(x).reshape(len(devices), -1, *x.shape[1:]), batch
        )
        return mapped(state, stacked)

    return run
