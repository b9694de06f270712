"""Collectives as read from compiled programs: those of functions whose collectives are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcxr.plan import collectives

MESH = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("data", "fsdp", "tensor"))


def found(function, *specs, shape=(8, 8)):
    args = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(MESH, s))
            for s in specs]
    return collectives.of_program(jax.jit(function).lower(*args).compile().as_text(), MESH)


@pytest.mark.parametrize("axes", [("data",), ("fsdp",), ("tensor",), ("data", "fsdp"),
                                  ("data", "tensor"), ("data", "fsdp", "tensor")], ids=str)
def test_a_contraction_over_split_axes_is_one_all_reduce_over_them(axes):
    one, = found(jnp.matmul, P(None, axes), P(axes, None))
    assert one == collectives.Collective("all-reduce", axes, ("f32[8,8]",), 256, 1)


def test_a_gather_a_permutation_and_a_body_that_runs_often():
    whole = NamedSharding(MESH, P())
    gather, = found(lambda x: jax.lax.with_sharding_constraint(x, whole), P("fsdp"))
    assert (gather.kind, gather.axes, gather.bytes) == ("all-gather", ("fsdp",), 256)

    def shift(x):
        return jax.shard_map(
            lambda x: jax.lax.ppermute(x, "tensor", [(0, 1), (1, 0)]),
            mesh=MESH, in_specs=P("tensor"), out_specs=P("tensor"),
        )(x)

    permute, = found(shift, P("tensor"))
    assert (permute.kind, permute.axes, permute.bytes) == ("collective-permute", ("tensor",), 128)

    def looped(x, y):
        return jax.lax.fori_loop(0, 5, lambda _, c: jnp.tanh(c @ y), x)

    reduced = [c for c in found(looped, P(), P("data", None)) if c.times == 5]
    assert reduced
    assert all("data" in c.axes for c in reduced)


def test_groups_in_every_form_that_xla_writes():
    forms = {
        "replica_groups={{0,2},{1,3},{4,6},{5,7}}, x": ("fsdp",),
        "replica_groups=[4,2]<=[8], x": ("tensor",),
        "replica_groups=[2,4]<=[4,2]T(1,0), x": ("data", "fsdp"),
        "replica_groups=mesh['a'=2,'b'=4], device_ids=([2,2,2]T(1,0,2)) {'a'}, x": ("fsdp",),
        "replica_groups=mesh['a'=4,'b'=2] {'b'}, x": ("tensor",),
        "source_target_pairs={{0,4},{4,0}}, x": ("data",),
    }
    for text, axes in forms.items():
        assert collectives._axes(text, MESH) == axes, text
    with pytest.raises(ValueError, match="cannot be read"):
        collectives._axes("replica_groups=else", MESH)
