"""FLOPs as counted, against XLA's cost analysis of the same functions and of whole steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr import config as base
from jaxcxr.plan import flops, measuring
from jaxcxr.train import state as state_lib
from jaxcxr.train import step as step_lib
from tests import toys
from tests.train.test_step import make

SQUARE = jax.ShapeDtypeStruct((64, 64), jnp.float32)
PRODUCT = 2 * 64**3


def test_products_count_two_for_each_pair_and_bodies_as_often_as_they_run():
    def nested(x, y):
        return jax.lax.map(lambda row: jax.lax.fori_loop(0, 5, lambda _, c: c @ y, row),
                           jnp.stack([x] * 3))

    found = flops.count(nested, SQUARE, SQUARE)
    assert found.products == 15 * PRODUCT
    assert found.moved == 15 * 3 * 64 * 64 * 4
    assert flops.count(nested, SQUARE, SQUARE, once=True).products == PRODUCT
    with pytest.raises(ValueError, match="while"):
        flops.count(lambda x: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c @ c, x), SQUARE)


@pytest.mark.parametrize(
    ("size", "kernel", "options"),
    [
        ((8, 9), (3, 5), {"window_strides": (2, 1), "padding": [(1, 1), (2, 2)]}),
        ((8, 8), (3, 3), {"window_strides": (1, 1), "padding": [(2, 2), (1, 0)],
                          "lhs_dilation": (2, 3), "rhs_dilation": (2, 1)}),
        ((6, 6), (1, 1), {"window_strides": (2, 2), "padding": [(0, 0)] * 2,
                          "feature_group_count": 2}),
    ],
    ids=["strided", "dilated", "grouped"],
)
def test_convolutions_and_their_gradients_count_as_xla_counts(size, kernel, options):
    groups = options.get("feature_group_count", 1)
    x = jax.ShapeDtypeStruct((2, *size, 4), jnp.float32)
    w = jax.ShapeDtypeStruct((*kernel, 4 // groups, 6), jnp.float32)

    def convolve(x, w):
        return jax.lax.conv_general_dilated(
            x, w, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
        )

    def pull(x, w):
        y, back = jax.vjp(convolve, x, w)
        return back(y)

    for function in (convolve, pull):
        expected = jax.jit(function).lower(x, w).cost_analysis()["flops"]
        np.testing.assert_allclose(flops.count(function, x, w).products, expected, rtol=1e-6)


def resnet():
    config = toys.xray_config(data__image_size=64)
    base.set_model(config, "resnet50", stages=(1, 1, 1, 1), width=32)
    return config


def vit(**options):
    config = toys.xray_config(data__image_size=64)
    base.set_model(config, "vit_tiny", dim=192, depth=2, heads=3, patch=8, **options)
    return config


def pose():
    config = toys.pose_config(data__frames=27)
    base.set_model(config, "pose_temporal", dim=256, depth=2, heads=8, drop_path=0.0)
    return config


@pytest.mark.parametrize(
    "config",
    [
        resnet(), vit(), vit(attention="1*adaptive(2,init=1,loss=0.1)+2*fixed(3)"),
        vit(scan=True, remat="full"), pose(),
    ],
    ids=["resnet", "vit", "flexible", "scanned", "pose"],
)
def test_a_training_step_has_the_flops_of_xlas_cost_analysis(config):
    task = toys.create(config)
    run = make(config, task, 1)
    with run.mesh_context():
        stage, state = run.stages[0], run.abstract_state(run.stages[0])
        tx, schedule = state_lib.optimizer(stage, state.params)
        step = step_lib.make_train_step(config, run.model, task, stage, tx, schedule)
        expected = measuring.compile_(step, state, run.example_batch()).flops
        found = flops.count(step, state, run.example_batch())
    assert found.total == pytest.approx(expected, rel=0.02)
