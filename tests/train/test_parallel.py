"""Meshes, sharding rules and memory."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxcxr.errors import UserError
from jaxcxr.train import parallel
from tests import toys
from tests.train.test_step import assert_close, batches_of, run_steps


def test_the_mesh_fills_what_is_left():
    config = toys.pose_config(mesh__fsdp=2, mesh__tensor=2)
    assert dict(parallel.make_mesh(config).shape) == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mesh__data": 3}, "does not multiply to the 8 devices"),
        ({"mesh__fsdp": 16}, "does not multiply to the 8 devices"),
        ({"batch_size": 12}, "must be a multiple of 8 .*, e.g. 16"),
        ({"batch_size": 24, "accumulate": 2}, "must be a multiple of 16"),
    ],
)
def test_an_impossible_mesh_says_what_is_possible(changes, message):
    with pytest.raises(UserError, match=message):
        parallel.make_mesh(toys.pose_config(**changes))


def specs(mesh, rules, tree):
    shapes = jax.tree.map(lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32), tree,
                          is_leaf=lambda x: isinstance(x, tuple))
    return jax.tree.map(lambda s: s.spec, parallel.shardings(mesh, rules, shapes))


def test_rules_are_ordered_and_dimensions_that_do_not_divide_stay_whole():
    mesh = parallel.make_mesh(toys.pose_config(mesh__fsdp=2, mesh__tensor=2))
    tree = {"attention": {"query": {"kernel": (256, 4, 64), "bias": (3, 64)}},
            "other": {"kernel": (128, 512), "scale": (64,)}, "odd": (129, 255)}
    found = specs(mesh, parallel.DEFAULT_RULES, tree)
    assert found["attention"]["query"]["kernel"] == P("fsdp", "tensor", None)
    assert found["attention"]["query"]["bias"] == P()  # 3 heads do not divide by 2
    assert found["other"]["kernel"] == P(None, "fsdp")  # the largest dimension
    assert found["other"]["scale"] == P()  # too small to be worth it
    assert found["odd"] == P()
    own = ((r"other/", "replicate"), *parallel.DEFAULT_RULES)
    assert specs(mesh, own, tree)["other"]["kernel"] == P()


def test_a_parameter_without_a_rule_is_named():
    mesh = parallel.make_mesh(toys.pose_config())
    with pytest.raises(UserError, match="head/kernel"):
        specs(mesh, ((r"backbone", "fsdp"),), {"head": {"kernel": (4, 4)}})


def test_tensor_and_fsdp_parallel_pose_equals_one_device(monkeypatch):
    monkeypatch.setattr(parallel, "SMALLEST_SPLIT", 16)
    config = toys.pose_config(stages__all__optimizer__name="sgd")
    task = toys.make_pose_task(config)
    batches = batches_of(task, config, 2)
    expected, losses = run_steps(config, task, batches, 1)
    config = config.copy_and_resolve_references()
    config.mesh.fsdp = config.mesh.tensor = 2
    actual, actual_losses = run_steps(config, task, batches, 8)
    np.testing.assert_allclose(actual_losses, losses, rtol=1e-5)
    assert_close(actual.params, expected.params, 1e-6)


def test_splitting_a_batch_takes_every_example_once():
    x = jnp.arange(24).reshape(12, 2)
    parts = parallel.split_batch(x, 3, None)
    assert parts.shape == (3, 4, 2)
    assert sorted(np.asarray(parts).reshape(-1)) == list(range(24))


def test_a_step_that_does_not_fit_is_refused_before_it_runs():
    sizes = types.SimpleNamespace(
        argument_size_in_bytes=2**50, temp_size_in_bytes=0, output_size_in_bytes=2**20,
        alias_size_in_bytes=2**20,
    )
    compiled = types.SimpleNamespace(memory_analysis=lambda: sizes)
    with pytest.raises(UserError, match=r"needs 1,048,576.0 GiB .* lower config.batch_size"):
        parallel.check_memory(toys.pose_config(), compiled)
    sizes.argument_size_in_bytes = 2**20
    assert parallel.check_memory(toys.pose_config(), compiled) == 2**20


def test_pmap_refuses_a_mesh_that_splits_parameters():
    config = toys.pose_config(mesh__fsdp=2)
    with pytest.raises(UserError, match="parallel='jit'"):
        parallel.compile_pmap_step(parallel.make_mesh(config), lambda s, b: (s, b))


class Chip:
    """A chip of a fake TPU slice of 4 x 4, or a GPU of a host of 16."""

    def __init__(self, number, platform, kind):
        self.id, self.platform, self.device_kind = number, platform, kind
        self.slice_index, place = divmod(number, 16)
        self.coords, self.core_on_chip = (place % 4, place // 4, 0), 0
        self.process_index = number // 4


def chips(slices, platform="tpu", kind="TPU v5 lite"):
    return [Chip(number, platform, kind) for number in range(16 * slices)]


@pytest.mark.parametrize(("slices", "shape"), [
    (2, (32, 1, 1)), (2, (16, 2, 1)), (2, (2, 16, 1)), (2, (2, 4, 4)), (4, (8, 4, 2)),
])
def test_slices_lie_along_data(slices, shape):
    mesh = parallel.arranged(chips(slices), shape)
    assert mesh.shape == shape
    assert len({chip.id for chip in mesh.flat}) == 16 * slices
    for block in np.split(mesh, slices):
        assert len({chip.slice_index for chip in block.flat}) == 1


def test_tpu_slices_that_do_not_divide_data_are_refused_and_gpu_hosts_are_not():
    with pytest.raises(UserError, match=r"2 TPU slices and config\.mesh\.data is 1"):
        parallel.arranged(chips(2), (1, 32, 1))
    assert parallel.arranged(chips(2, "gpu", "H100"), (1, 32, 1)).shape == (1, 32, 1)


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 1, 8), (1, 8, 1), (4, 1, 2)])
def test_one_process_holds_all_rows(shape):
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(shape), parallel.AXES)
    np.testing.assert_array_equal(parallel.local_rows(mesh, 16), np.arange(16))
