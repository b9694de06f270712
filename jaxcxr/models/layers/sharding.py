"""Constrains how activations are split over a mesh; does nothing without one."""

from typing import Any

import jax
from jax.sharding import PartitionSpec as P

# Axes of the mesh over which examples are split, see `train.parallel`.
BATCH_AXES = ("data", "fsdp")


def by_example(x: jax.Array) -> jax.Array:
    """Splits `[batch, ...]` by example alone, where a mesh is set that divides the batch.

    Without it XLA would also split features between the layers that the axis `tensor` splits, and
    pay for each LayerNorm with two reductions.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not set(BATCH_AXES) <= set(mesh.axis_names):
        return x
    if x.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
        return x
    return jax.lax.with_sharding_constraint(x, P(BATCH_AXES))


def splits_heads() -> bool:
    """Whether a mesh is set whose axis `tensor` splits the heads of attention."""
    mesh = jax.sharding.get_abstract_mesh()
    return "tensor" in mesh.axis_names and mesh.shape["tensor"] > 1


def by_head(x: jax.Array, axis: int) -> jax.Array:
    """Splits the axis of heads over `tensor`, where that divides it; other axes stay free."""
    if not splits_heads() or x.shape[axis] % jax.sharding.get_abstract_mesh().shape["tensor"]:
        return x
    spec: list[Any] = [P.UNCONSTRAINED] * x.ndim
    spec[axis] = "tensor"
    return jax.lax.with_sharding_constraint(x, P(*spec))
