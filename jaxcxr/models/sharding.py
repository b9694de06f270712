"""How activations lie on the devices of a mesh; without a mesh, nothing."""

import jax
from jax.sharding import PartitionSpec as P

# Axes of the mesh over which examples are split, see `train.parallel`.
BATCH_AXES = ("data", "fsdp")


def by_example(x: jax.Array) -> jax.Array:
    """Splits `[batch, ...]` by example alone, where a mesh is set that divides the batch.

    XLA chooses for itself what no constraint says; between the layers that a mesh's axis `tensor`
    splits it would split features too, and pay for each LayerNorm with two reductions.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not set(BATCH_AXES) <= set(mesh.axis_names):
        return x
    if x.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
        return x
    return jax.lax.with_sharding_constraint(x, P(BATCH_AXES))
