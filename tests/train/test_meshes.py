"""Every mesh computes what one device does, with the collectives and the memory that it says."""

import contextlib
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr import config as base
from jaxcxr.errors import UserError
from jaxcxr.plan import collectives
from jaxcxr.train import checkpoint, parallel
from jaxcxr.train import state as state_lib
from tests import toys
from tests.train.runs import assert_same
from tests.train.test_step import assert_close, batches_of, make, run_steps

SHAPES = [
    (data, fsdp, 8 // data // fsdp)
    for data, fsdp in itertools.product((1, 2, 4, 8), repeat=2) if data * fsdp <= 8
]
STEPS, DEPTH = 10, 2
UNEQUAL = "2*global/dim(6)+2*fixed(2)/dim(2)"
EQUAL = "2*global+2*adaptive(2,init=0.5,loss=0.1)"


def vit(attention="mha", **changes):
    config = toys.xray_config(stages__all__optimizer__name="sgd")
    base.set_model(
        config, "vit_tiny", dim=16, depth=DEPTH, heads=4, patch=4, mlp_ratio=2.0, head_width=8,
        head_dropout=0.0, attention=attention, **changes,
    )
    return config


def resnet():
    return toys.xray_config(stages__all__optimizer__name="sgd")


def pose():
    config = toys.pose_config(stages__all__optimizer__name="sgd")
    base.set_model(config, "pose_temporal", dim=16, depth=DEPTH, heads=4, drop_path=0.0)
    return config


MODELS = {
    "resnet": resnet, "vit": vit, "flexible": functools.partial(vit, UNEQUAL), "pose": pose,
    "equal": functools.partial(vit, EQUAL), "scanned": functools.partial(vit, UNEQUAL, scan=True),
}


@functools.cache
def curve(name, shape=None, accumulate=1):
    """The losses of ten steps on a mesh, or on one device."""
    config = MODELS[name]()
    task = toys.create(config)
    if shape:
        config.mesh.data, config.mesh.fsdp, config.mesh.tensor = shape
    config.accumulate = accumulate
    _, losses = run_steps(config, task, batches_of(task, config, STEPS), 8 if shape else 1)
    return losses


def check_curve(name, shape):
    expected = curve(name)
    assert expected[-1] < expected[0]
    np.testing.assert_allclose(curve(name, shape), expected, rtol=1e-5)


@pytest.fixture(autouse=True)
def split_small_parameters(monkeypatch):
    monkeypatch.setattr(parallel, "SMALLEST_SPLIT", 16)


@pytest.mark.parametrize("name", ["flexible"])
def test_a_mesh_of_three_axes_has_the_loss_curve_of_one_device(name):
    check_curve(name, (2, 2, 2))


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_every_mesh_of_eight_has_the_loss_curve_of_one_device(name, shape):
    check_curve(name, shape)


@pytest.mark.slow
def test_accumulation_on_a_mesh_has_the_loss_curve_of_one_device():
    np.testing.assert_allclose(curve("vit", (2, 2, 2), 2), curve("vit"), rtol=1e-5)


def programs(config, shape):
    """The collectives of a training step and of a forward pass on a mesh, and the mesh."""
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = shape
    task = toys.create(config)
    run = make(config, task, 8)
    with run.mesh_context():
        state = run.abstract_state(run.stages[0])
        step = run.train_step(run.stages[0])
        split = jax.sharding.NamedSharding(run.mesh, parallel.BATCH)
        batch = {
            key: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=split)
            for key, s in run.example_batch().items()
        }
        forward = run.eval_step.lower(state.params, state.batch_stats, batch).compile()
    found = [collectives.of_program(text.as_text(), run.mesh) for text in (step, forward)]
    return *found, state.params


def numbers(found, kind, axes):
    """How many numbers the collectives of a kind and axes give, scalars left out."""
    shapes = [
        shape for c in found if c.kind == kind and c.axes == axes for shape in c.shapes * c.times
        if not shape.endswith("[]")
    ]
    return sum(int(np.prod([int(d) for d in re.findall(r"\d+", s.partition("[")[2])]))
               for s in shapes)


def sizes(params, axis):
    """Numbers in the parameters that an axis splits, and in the others."""
    leaves = jax.tree.leaves(params)
    split = sum(leaf.size for leaf in leaves if axis in leaf.sharding.spec)
    return split, sum(leaf.size for leaf in leaves) - split


def test_a_data_mesh_reduces_every_gradient_once_and_does_nothing_else():
    step, forward, params = programs(vit(), (8, 1, 1))
    assert forward == []
    assert {(c.kind, c.axes) for c in step} == {("all-reduce", ("data",))}
    arrays = [c for c in step if any(not shape.endswith("[]") for shape in c.shapes)]
    assert len(arrays) == 1, "all gradients in one collective"
    assert numbers(step, "all-reduce", ("data",)) == sum(sizes(params, "fsdp"))


def test_an_fsdp_mesh_gathers_parameters_and_reduces_gradients():
    step, forward, params = programs(vit(), (1, 8, 1))
    split, others = sizes(params, "fsdp")
    assert split > 0.8 * others
    assert {(c.kind, c.axes) for c in forward} == {("all-gather", ("fsdp",))}
    assert numbers(forward, "all-gather", ("fsdp",)) == split
    # The backward pass gathers again, unless the compiler keeps what it has, as on a CPU.
    assert numbers(step, "all-gather", ("fsdp",)) in (split, 2 * split)
    # XLA makes reduce-scatter of it on accelerators; on a CPU the sum is whole, and then cut.
    assert {c.kind for c in step} == {"all-gather", "all-reduce"}
    assert numbers(step, "all-reduce", ("fsdp",)) == split + others


@pytest.mark.parametrize(
    ("attention", "groups"), [pytest.param("mha", 1, marks=pytest.mark.slow), (UNEQUAL, 2)]
)
def test_a_tensor_mesh_reduces_twice_a_block_and_moves_no_activation_else(attention, groups):
    step, forward, _ = programs(vit(attention), (4, 1, 2))
    tokens = "f32[4,5,16]"  # 16 examples on 4 devices, 4 patches and the class token
    reduced = [c for c in forward if tokens in c.shapes]
    assert len(reduced) == 2 * DEPTH
    assert {(c.kind, c.axes, c.times) for c in reduced} == {("all-reduce", ("tensor",), 1)}
    assert sum(len(c.shapes) for c in reduced) == DEPTH * (groups + 1)
    rest = [c for c in forward if c not in reduced]
    assert [(c.kind, c.axes, c.shapes) for c in rest] == [
        ("all-reduce", ("tensor",), ("f32[4,3]",))  # the logits, of the head's hidden units
    ]
    assert {c.axes for c in step if c.kind == "all-reduce"} == {("data",), ("tensor",)}
    assert not [c for c in step if c.kind != "all-reduce"]


def test_heads_that_the_mesh_does_not_divide_are_kept_whole_and_said_in_one_line():
    config = vit()
    config.mesh.tensor = 8
    config.batch_size = 8
    run = make(config, toys.create(config), 8)
    params = jax.eval_shape(run.init_variables)["params"]
    row = run.parameter_rows(params)["whole on each device"]
    assert "\n" not in row
    assert "backbone/blocks_*/attention/key/kernel by tensor 8, " in row
    assert row.endswith("more")
    missed = [
        leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if "attention" in jax.tree_util.keystr(path)
        and "'out']['bias" not in jax.tree_util.keystr(path)
    ]
    share = sum(leaf.size for leaf in missed) / sum(leaf.size for leaf in jax.tree.leaves(params))
    assert row.startswith(f"{share:.1%} of the parameters")
    config.mesh.tensor = 4
    run = make(config, toys.create(config), 8)
    assert "whole on each device" not in run.parameter_rows(params)


def state_bytes(config, fsdp):
    config.mesh.fsdp = fsdp
    config.ema_decay = 0.9
    config.stages.all.optimizer.name = "adamw"
    run = make(config, toys.create(config), 8)
    with run.mesh_context():
        compiled = run.train_step(run.stages[0])
        state = run.abstract_state(run.stages[0])
    batch = sum(s.size * s.dtype.itemsize for s in run.example_batch().values()) // 8
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return compiled.memory_analysis().argument_size_in_bytes - batch, whole


@pytest.mark.slow
def test_memory_of_the_state_falls_as_one_over_fsdp():
    config = vit()
    config.model.options.dim = 64  # in the smallest, what no rule splits weighs too much
    alone, whole = state_bytes(config, 1)
    assert alone == pytest.approx(whole, rel=0.02)
    for fsdp in (2, 8):
        found, _ = state_bytes(config, fsdp)
        assert found == pytest.approx(whole / fsdp, rel=0.1)


def largest_share(tree):
    """The largest part of a tree that lies on one device, as a share of all."""
    held = {}
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            held[shard.device] = held.get(shard.device, 0) + shard.data.nbytes
    return max(held.values()) / sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    "weights", [pytest.param(False, marks=pytest.mark.slow), True], ids=["random", "pretrained"]
)
def test_no_device_ever_holds_the_whole_model(weights, tmp_path, monkeypatch):
    config = vit(scan=True)
    config.model.options.head_width = 0
    config.mesh.fsdp, config.ema_decay = 8, 0.9
    run = make(config, toys.create(config), 8)
    if weights:
        config.model.pretrained = str(timm_file(run.model, tmp_path))
    compiled, placed = [], []
    real, put = jax.jit, jax.device_put

    def jit(function, **options):
        made = real(function, **options)

        def call(*args):
            compiled.append(made.lower(*args).compile().memory_analysis())
            return made(*args)

        return call if "out_shardings" in options else made

    def device_put(x, where=None, **options):
        found = put(x, where, **options)
        placed.append(largest_share(found) if found.size > 100 else 0.0)
        return found

    monkeypatch.setattr(jax, "jit", jit)
    monkeypatch.setattr(jax, "device_put", device_put)
    with run.mesh_context():
        state = run.first_state()
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    assert largest_share(state) < 0.2
    assert compiled
    assert all(c.output_size_in_bytes < 0.6 * whole for c in compiled)
    assert not weights or (placed and max(placed) <= 0.125)


def timm_file(model, folder):
    """A weight file with timm's names for a tiny ViT."""
    from safetensors.numpy import save_file

    rng, dim = np.random.default_rng(0), model.dim
    shapes = {
        "cls_token": (1, 1, dim), "pos_embed": (1, 5, dim),
        "patch_embed.proj.weight": (dim, 3, 4, 4), "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,), "norm.bias": (dim,),
    }
    for i in range(model.depth):
        for name, shape in {
            "norm1.weight": (dim,), "norm1.bias": (dim,), "norm2.weight": (dim,),
            "norm2.bias": (dim,), "attn.qkv.weight": (3 * dim, dim), "attn.qkv.bias": (3 * dim,),
            "attn.proj.weight": (dim, dim), "attn.proj.bias": (dim,),
            "mlp.fc1.weight": (2 * dim, dim), "mlp.fc1.bias": (2 * dim,),
            "mlp.fc2.weight": (dim, 2 * dim), "mlp.fc2.bias": (dim,),
        }.items():
            shapes[f"blocks.{i}.{name}"] = shape
    path = folder / "vit.safetensors"
    save_file({k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}, path)
    return path


def test_pretrained_weights_of_a_scanned_model_are_those_of_the_unrolled(tmp_path):
    from jaxcxr.models.sequence import scanned
    from jaxcxr.models.weights import pretrained

    config = vit(scan=True)
    config.model.options.head_width = 0
    run = make(config, toys.create(config), 1)
    variables = jax.eval_shape(run.init_variables)
    variables = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), variables)
    path = timm_file(run.model, tmp_path)
    loaded = pretrained.load(path, variables, "vit_tiny")
    plain, unrolled = scanned.unrolled(run.model, loaded)
    _, empty = scanned.unrolled(run.model, variables)
    assert not plain.scan
    assert_same(jax.device_get(unrolled), jax.device_get(pretrained.load(path, empty, "vit_tiny")))


def test_checkpoints_move_between_any_two_meshes(tmp_path):
    config = vit(UNEQUAL)
    config.ema_decay = 0.9
    config.stages.all.optimizer.name = "adamw"
    task, iterator = toys.create(config), None
    config.batch_size = 8
    shapes = [(2, 2, 2), (1, 8, 1), (1, 1, 1), (4, 1, 2)]
    saved = None
    for step, (before, after) in enumerate(itertools.pairwise(shapes)):
        with contextlib.closing(checkpoint.Checkpoints(tmp_path / str(step), config)) as files:
            run = on_mesh(config, task, before)
            with run.mesh_context():
                state = saved if saved is not None else run.first_state()
                iterator = iterator or batches(task, config)
                files.save(step, state, iterator)
                files.wait()
            run = on_mesh(config, task, after)
            abstract = run.abstract_state(run.stages[0])
            saved = files.restore(step, abstract)
        assert_same(jax.device_get(state), jax.device_get(saved))
        for leaf, shape in zip(jax.tree.leaves(saved), jax.tree.leaves(abstract), strict=True):
            assert leaf.sharding == shape.sharding


def batches(task, config):
    from jaxcxr.data import pipeline

    return pipeline.train_iterator(task.source("train"), config)


def on_mesh(config, task, shape):
    config = config.copy_and_resolve_references()
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = shape
    return make(config, task, int(np.prod(shape)))


@pytest.mark.slow
def test_bfloat16_on_a_mesh_is_as_near_to_float32_as_on_one_device():
    config = vit()
    task = toys.create(config)
    found = batches_of(task, config, 2)
    _, exact = run_steps(config, task, found, 1)
    config.dtype = "bfloat16"
    config.mesh.fsdp = config.mesh.tensor = 2
    state, losses = run_steps(config, task, found, 8)
    np.testing.assert_allclose(losses, exact, rtol=0.02)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype("float32")}


@pytest.mark.slow
def test_steps_are_counted_up_to_the_last_32_bit_number():
    config = vit()
    task = toys.create(config)
    run = make(config, task, 1)
    step = 2**31 - 3
    with run.mesh_context():
        state = run.first_state().replace(step=jnp.int32(step))
        state, metrics = run.train_step(run.stages[0])(
            state, parallel.put_batch(run.mesh, batches_of(task, config, 1)[0])
        )
    assert int(state.step) == step + 1
    assert all(np.isfinite(float(value)) for value in metrics.values())
    config.stages.all.duration = "2147483648 steps"
    with pytest.raises(UserError, match="2,147,483,648 steps together"):
        state_lib.make_stages(config, 40)


@pytest.mark.slow
def test_a_sown_loss_does_not_depend_on_the_mesh():
    config = vit(EQUAL)
    task = toys.create(config)
    found = batches_of(task, config, 2)
    expected, losses = run_steps(config, task, found, 1)
    config.mesh.fsdp = config.mesh.tensor = 2
    actual, others = run_steps(config, task, found, 8)
    np.testing.assert_allclose(others, losses, rtol=1e-5)
    assert_close(actual.params, expected.params, 1e-5)
