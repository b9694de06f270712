"""Plans against XLA's analyses of the whole mesh, and rooflines of known cases."""

import dataclasses

import jax
import pytest

from jaxcxr import config as base
from jaxcxr.errors import UserError
from jaxcxr.plan import hardware, planning, roofline
from jaxcxr.train import parallel
from tests import toys

DEVICE = hardware.Device(
    "one", ("One",), {"float32": 1e12}, 1e9, 1e11, link=1e10, group=8, axes=0, network=1e9
)
TORUS = dataclasses.replace(DEVICE, axes=2)
SIZES = {"data": 1, "fsdp": 1, "tensor": 1}


def vit(**changes):
    config = toys.xray_config(ema_decay=0.9, batch_size=32, data__image_size=32, **changes)
    base.set_model(config, "vit_tiny", dim=64, depth=2, heads=4, patch=8)
    return config


@pytest.mark.parametrize(
    "shape",
    [*(pytest.param(s, marks=pytest.mark.slow) for s in ((8, 1, 1), (4, 2, 1))), (2, 2, 2)],
    ids=str,
)
def test_memory_and_traffic_are_those_of_the_whole_mesh(shape, monkeypatch):
    monkeypatch.setattr(parallel, "SMALLEST_SPLIT", 256)
    config = vit()
    needs = planning.measure(config, shape)
    run = planning._setup(config, shape, config.batch_size, "float32")
    with run.mesh_context():
        stage, state = run.stages[-1], run.abstract_state(run.stages[-1])
        compiled = planning._compiled(run, stage, state)
    sizes = compiled.memory_analysis()
    arguments = needs.state_bytes + needs.batch_bytes
    assert arguments == pytest.approx(sizes.argument_size_in_bytes, rel=0.02)
    whole = parallel.check_memory(config, compiled)
    assert needs.memory == pytest.approx(whole, rel=0.1)
    kinds = {(part.kind, part.axes) for part in needs.traffic}
    assert ("all-reduce", ("data",)) in kinds or shape[1] == 1
    assert (("all-gather", ("fsdp",)) in kinds) == (shape[1] > 1)
    assert (("all-reduce", ("tensor",)) in kinds) == (shape[2] > 1)


def test_flops_of_all_devices_are_those_of_the_whole_batch():
    config = vit()
    alone = planning.measure(config, (1, 1, 1))
    spread = planning.measure(config, (2, 1, 2))
    assert spread.model_flops == pytest.approx(alone.model_flops, rel=0.01)
    assert alone.flops + alone.other_flops == pytest.approx(alone.model_flops)
    # attention, MLPs and the head are split over `tensor`, patches and norms are not
    assert 0.25 < spread.flops / alone.flops < 0.35


@pytest.mark.slow
def test_bfloat16_keeps_less_than_float32_and_more_than_half():
    config = vit(dtype="bfloat16")
    needs = planning.measure(config, (1, 1, 1))
    assert 0.5 < needs.scaled < 0.9
    exact = planning.measure(vit(), (1, 1, 1))
    assert needs.activation_bytes == pytest.approx(needs.scaled * exact.activation_bytes)


def test_a_pose_model_is_planned_without_data():
    needs = planning.measure(toys.pose_config(), (2, 1, 1))
    run = planning._setup(toys.pose_config(), (1, 1, 1), 16, "float32")
    params = jax.eval_shape(run.init_variables)["params"]
    assert needs.parameters == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_a_batch_that_does_not_divide_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"multiple of 64, e.g. --config.batch_size=64"):
        planning.check_mesh(vit(), (64, 1, 1))


@pytest.mark.parametrize(
    ("kind", "axes", "sizes", "device", "expected"),
    [
        # a ring of 4 sends 2 * 3/4 of the array
        ("all-reduce", ("data",), {"data": 4}, DEVICE, 1.5 * 1e9 / 1e10),
        ("all-gather", ("fsdp",), {"fsdp": 4}, DEVICE, 0.75 * 1e9 / 1e10),
        ("all-reduce", ("data",), {"data": 1}, DEVICE, 0.0),
        # 4 groups of 8: within a group by links, an eighth each between them
        ("all-reduce", ("data",), {"data": 32}, DEVICE,
         1.75 * 1e9 / 1e10 + 1.5 * (1e9 / 8) / 1e9),
        # each member of the axis in another group
        ("all-reduce", ("data",), {"data": 2, "tensor": 8}, DEVICE, 1.0 * 1e9 / 1e9),
        ("all-reduce", ("data", "fsdp"), {"data": 2, "fsdp": 4}, DEVICE, 1.75 * 1e9 / 1e10),
        # one mesh axis has all links of a torus, two have half each
        ("all-reduce", ("data",), {"data": 4}, TORUS, 1.5 * 1e9 / 1e10),
        ("all-reduce", ("data",), {"data": 4, "tensor": 2}, TORUS, 1.5 * 1e9 / 0.5e10),
    ],
)
def test_seconds_of_a_collective(kind, axes, sizes, device, expected):
    part = planning.Traffic("", kind, axes, 1e9)
    assert roofline.seconds(part, device, SIZES | sizes) == pytest.approx(expected)


def test_the_bound_is_what_takes_longest():
    needs = planning.Needs(
        1, 4.0, 8.0, 0.0, 100.0, 1.0, flops=2e12, other_flops=0.0, model_flops=2e12,
        moved_bytes=1e11, scaled=1.0,
        traffic=(planning.Traffic("", "all-reduce", ("data",), 1e10),),
    )
    found = roofline.estimate(needs, DEVICE, (2, 1, 1), "float32")
    assert (found.compute, found.memory, found.network) == pytest.approx((2.0, 1.0, 1.0))
    assert (found.bound, found.hidden, found.added) == ("compute", 2.0, pytest.approx(3.0))
    assert found.efficiency == pytest.approx((2 / 3, 1.0))
    alone = roofline.estimate(needs, DEVICE, (1, 1, 1), "float32")
    assert alone.network == 0
    assert roofline.estimate(needs, DEVICE, (64, 1, 1), "float32").bound == "network"
    with pytest.raises(UserError, match="no peak of one at bfloat16 is known; use one of float32"):
        roofline.estimate(needs, DEVICE, (1, 1, 1), "bfloat16")


def test_meshes_grow_by_data():
    assert roofline.scaled((4, 2, 2), 16) == [(1, 2, 2), (2, 2, 2), (4, 2, 2)]
