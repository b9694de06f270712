"""Blocks as one loop: the results of the unrolled model, in every place that knows blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from jaxcxr import config as base
from jaxcxr import models
from jaxcxr.errors import UserError
from jaxcxr.models import layers
from jaxcxr.models.pose import streaming
from jaxcxr.models.sequence import scanned, transformer
from tests import toys
from tests.train import test_step

FLEXIBLE = "1*adaptive(2,init=0.5,loss=0.3)+1*fixed(2)/static(0.1)"
IMAGES = np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype(np.float32)
CLIPS = np.random.default_rng(1).normal(size=(2, 6, 17, 3)).astype(np.float32)
SMALL = {"dim": 8, "depth": 3, "heads": 2}


def make(name, **options):
    more = {"patch": 8, "classes": 3} if name.startswith("vit") else {}
    return models.create(name, **SMALL, **more, **options)


def gradient(model, variables, x):
    def loss(variables):
        y, found = model.apply(
            variables, x, train=True, rngs={"dropout": jax.random.key(1)}, mutable=["losses"]
        )
        sown = [jnp.ravel(leaf) for leaf in jax.tree.leaves(found)]
        return jnp.square(y).mean() + sum(leaf.sum() for leaf in sown)

    value, grads = jax.jit(jax.value_and_grad(loss))(variables)
    return float(value), traverse_util.flatten_dict(grads, sep="/")


@pytest.mark.parametrize(
    ("name", "x", "options"),
    [
        ("vit_tiny", IMAGES, {"attention": FLEXIBLE, "remat": "weight_dots", "scan": True}),
        ("vit_tiny", IMAGES, {"norm": "tfixup", "remat": "full", "scan": True}),
        ("pose_temporal", CLIPS, {"causal": True, "drop_path": 0.0, "scan": True}),
    ],
    ids=["flexible", "tfixup", "pose"],
)
def test_outputs_losses_and_gradients_are_those_of_the_unrolled_model(name, x, options):
    model = make(name, **options)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    plain, unrolled = scanned.unrolled(model, variables)
    assert not plain.scan
    shapes = jax.eval_shape(plain.init, jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, unrolled) == jax.tree.map(lambda s: s.shape, shapes)
    (loss, grads), (expected, wanted) = (
        gradient(m, v, x) for m, v in ((model, variables), (plain, unrolled))
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    found = scanned.unstacked(grads)
    assert found.keys() == wanted.keys()
    for path, value in wanted.items():
        np.testing.assert_allclose(found[path], value, atol=2e-6, rtol=1e-4, err_msg=path)


def test_blocks_begin_with_different_weights():
    params = jax.jit(make("vit_tiny", scan=True).init)(jax.random.key(0), IMAGES)["params"]
    kernels = np.asarray(params["backbone"]["blocks"]["mlp"]["fc1"]["kernel"])
    assert kernels.shape == (3, 8, 32)
    assert len({kernel.tobytes() for kernel in kernels}) == 3


def test_drop_path_drops_whole_branches_at_the_rate_it_is_given():
    drop = transformer.DropPath()
    x, rngs = jnp.ones((4000, 1, 1)), {"dropout": jax.random.key(0)}
    y = drop.apply({}, x, train=True, rate=jnp.float32(0.25), rngs=rngs)
    values, counts = np.unique(np.asarray(y), return_counts=True)
    np.testing.assert_allclose(values, [0, 1 / 0.75], rtol=1e-6)
    assert abs(counts[0] / 4000 - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5


def test_rows_of_a_stack_and_back():
    flat = {"a/blocks/b": np.arange(6).reshape(3, 2), "a/norm/c": np.ones(2)}
    rows = scanned.unstacked(flat)
    assert sorted(rows) == ["a/blocks_0/b", "a/blocks_1/b", "a/blocks_2/b", "a/norm/c"]
    back = scanned.stacked(rows)
    assert back.keys() == flat.keys()
    np.testing.assert_array_equal(back["a/blocks/b"], flat["a/blocks/b"])


@pytest.mark.parametrize("attention", ["mha|longformer(window=2)", "shared"])
def test_blocks_that_differ_are_refused(attention):
    model = make("vit_tiny", scan=True, attention=attention)
    with pytest.raises(UserError, match="scan=True needs blocks that are all equal"):
        jax.eval_shape(model.init, jax.random.key(0), IMAGES)


def test_a_stream_runs_with_the_weights_of_a_scanned_model():
    model = make("pose_temporal", causal=True, scan=True)
    variables = jax.jit(model.init)(jax.random.key(0), CLIPS)
    stream, carry = streaming.start(model, variables, 2, frames=6)
    step = jax.jit(stream.step)
    poses = []
    for frame in CLIPS.swapaxes(0, 1):
        carry, pose = step(carry, frame)
        poses.append(pose)
    np.testing.assert_allclose(
        np.stack(poses, 1), model.apply(variables, CLIPS), atol=1e-5
    )


@pytest.mark.parametrize("key", ["trainable", "optimizer.multiplier_rules"])
def test_a_rule_that_names_a_block_is_refused(key):
    config = toys.xray_config()
    base.set_model(config, "vit_tiny", scan=True)
    rules = (r"blocks_1/",) if key == "trainable" else ((r"blocks_1/", 0.1), (r".*", 1.0))
    config.stages.all.update_from_flattened_dict({key: rules})
    with pytest.raises(UserError, match=rf"{key}.* none has a number; set scan=False"):
        base.validate(config)


def test_policies_keep_what_they_say():
    """Bytes between the passes, counted in what the gradient's function holds."""
    x = jnp.asarray(IMAGES)

    def kept(choice):
        model = make("vit_tiny", remat=choice)
        variables = jax.eval_shape(model.init, jax.random.key(0), x)
        shapes = jax.eval_shape(lambda v: jax.vjp(lambda v: model.apply(v, x), v)[1], variables)
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    sizes = {choice: kept(choice) for choice in layers.REMATS}
    assert sizes["full"] < sizes["weight_dots"] < sizes["dots"] < sizes["none"]
    with pytest.raises(UserError, match="remat='most' is not known; use one of none, full"):
        kept("most")


@pytest.mark.slow
def test_24_blocks_compile_in_a_third_of_the_time(record):
    """The whole training step, its optimiser included."""
    seconds = {}
    for scan in (True, False, True):
        config = toys.xray_config()
        base.set_model(
            config, "vit_tiny", dim=64, depth=24, heads=4, patch=2, scan=scan, drop_path=0.1
        )
        run = test_step.make(config, toys.create(config), 1)
        with run.mesh_context():
            run.train_step(run.stages[0])
        seconds.setdefault(scan, []).append(run.seconds["compile"])
    print(f"\nscan {seconds[True]} s, unrolled {seconds[False]} s")
    columns = ("form of 24 blocks", "compilation of the training step")
    record("scan", ("blocks one by one", f"{seconds[False][0]:.1f} s"),
           ("scan=True, before and after", " and ".join(f"{s:.1f} s" for s in seconds[True])),
           columns=columns)
    assert max(seconds[True]) < seconds[False][0] / 3
