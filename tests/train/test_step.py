"""The training step: devices, pmap, accumulation and frozen layers must not change what it does."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr.data import pipeline
from jaxcxr.train import parallel, setup
from jaxcxr.train import state as state_lib
from jaxcxr.train import step as step_lib
from tests import toys


def make(config, task, devices: int):
    """A Setup on the first `devices` devices."""
    axes = (config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    shape = tuple(devices // (axes[1] * axes[2]) if a == -1 else a for a in axes)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]).reshape(shape), parallel.AXES)
    axis = "batch" if config.parallel == "pmap" else None
    return setup.Setup(
        config=config, task=task, model=setup.make_model(config, task, axis), mesh=mesh,
        stages=state_lib.make_stages(config, len(task.source("train"))),
        rules=parallel.DEFAULT_RULES, seconds={},
    )


def batches_of(task, config, count):
    stream = pipeline.train_iterator(task.source("train"), config)
    return [next(stream) for _ in range(count)]


def run_steps(config, task, batches, devices):
    """The state after one step per batch, and the losses."""
    run = make(config, task, devices)
    with run.mesh_context():
        state, losses = run.first_state(), []
        stage = run.stages[0]
        step = run.train_step(stage)
        for batch in batches:
            state, metrics = step(state, parallel.put_batch(run.mesh, batch))
            losses.append(float(metrics["loss"]))
        return jax.device_get(state), losses


def assert_close(left, right, atol):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(a, b, atol=atol, rtol=1e-4)


@pytest.fixture(scope="module")
def one_device():
    # SGD: Adam divides by the root of tiny second moments, which turns rounding into differences.
    config = toys.xray_config(stages__all__optimizer__name="sgd", ema_decay=0.9)
    task = toys.make_xray_task(config)
    batches = batches_of(task, config, 3)
    return config, task, batches, run_steps(config, task, batches, 1)


def test_unknown_labels_are_spread_unevenly(one_device):
    _, _, batches, _ = one_device
    known = (batches[0]["labels"] >= 0).reshape(8, -1).sum(1)
    assert known.min() < known.max()


@pytest.mark.parametrize(
    ("parallel_mode", "fsdp"), [("jit", 1), ("jit", 2), ("pmap", 1)], ids=["data", "fsdp", "pmap"]
)
def test_eight_devices_equal_one(one_device, parallel_mode, fsdp, monkeypatch):
    config, task, batches, (expected, losses) = one_device
    config = config.copy_and_resolve_references()
    config.parallel, config.mesh.fsdp = parallel_mode, fsdp
    monkeypatch.setattr(parallel, "SMALLEST_SPLIT", 16)
    actual, actual_losses = run_steps(config, task, batches, 8)
    np.testing.assert_allclose(actual_losses, losses, rtol=1e-5)
    assert_close(actual.params, expected.params, 2e-5)
    assert_close(actual.batch_stats, expected.batch_stats, 2e-5)
    assert_close(actual.ema, expected.ema, 2e-5)


def test_accumulation_equals_one_batch_without_batch_norm():
    config = toys.pose_config(stages__all__optimizer__name="sgd", loss__velocity=0.5)
    task = toys.make_pose_task(config)
    batches = batches_of(task, config, 2)
    assert not batches[0]["mask"].all(), "some frames must be padding"
    expected, losses = run_steps(config, task, batches, 1)
    config = config.copy_and_resolve_references()
    config.accumulate = 4
    for devices in (1, 4):
        actual, actual_losses = run_steps(config, task, batches, devices)
        np.testing.assert_allclose(actual_losses, losses, rtol=1e-5)
        assert_close(actual.params, expected.params, 1e-6)


HEADS = "1*adaptive(1,init=0.5,loss=0.3)+1*token(0.2)+cost(0.1,0.5)"


def test_losses_of_layers_are_averaged_over_layers_and_added():
    config = toys.pose_config(model__options__heads=2, model__options__attention=HEADS)
    task = toys.make_pose_task(config)
    run = make(config, task, 1)
    with run.mesh_context():
        state = run.first_state()
        _, metrics = run.train_step(run.stages[0])(
            state, parallel.put_batch(run.mesh, batches_of(task, config, 1)[0])
        )
    found = {key: float(value) for key, value in metrics.items() if key.startswith("loss")}
    assert set(found) == {"loss", "loss_position", "loss_span", "loss_gate", "loss_cost"}
    np.testing.assert_allclose(found["loss_span"], 0.3 * 0.5 / 2, rtol=1e-6)
    np.testing.assert_allclose(found["loss_gate"], 0.2 * 0.5 / 2, rtol=1e-6)
    assert 0 < found["loss_cost"] < 0.5 * 0.9
    np.testing.assert_allclose(found["loss"], sum(found.values()) - found["loss"], rtol=1e-6)


def test_losses_of_layers_do_not_depend_on_devices_and_accumulation():
    config = toys.pose_config(
        stages__all__optimizer__name="sgd", model__options__heads=2,
        model__options__attention=HEADS,
    )
    task = toys.make_pose_task(config)
    batches = batches_of(task, config, 2)
    expected, losses = run_steps(config, task, batches, 1)
    for mode, accumulate in (("jit", 4), ("pmap", 1), ("pmap", 2)):
        config = config.copy_and_resolve_references()
        config.parallel, config.accumulate = mode, accumulate
        actual, actual_losses = run_steps(config, task, batches, 4)
        np.testing.assert_allclose(actual_losses, losses, rtol=1e-5)
        assert_close(actual.params, expected.params, 2e-6)


def test_losses_sown_in_layers_are_averaged_by_name():
    sown = {"a": {"span": (1.0,), "gate": (0.5, 0.25)}, "b": {"c": {"span": (3.0,)}}}
    assert step_lib.sown_losses(sown) == {"span": 2.0, "gate": 0.75}
    assert step_lib.sown_losses({}) == {}


def test_frozen_layers_keep_parameters_and_statistics(one_device):
    config, task, batches, _ = one_device
    config = config.copy_and_resolve_references()
    config.stages.all.trainable = (r"^head/", r"^backbone/layer4")
    start, _ = run_steps(config, task, [], 1)
    end, _ = run_steps(config, task, batches, 1)
    moved = {
        "/".join(map(str, path)): not np.array_equal(a, b)
        for part in ("params", "batch_stats")
        for (path, a), b in zip(
            _named(getattr(start, part)), jax.tree.leaves(getattr(end, part)), strict=True
        )
    }
    for name, changed in moved.items():
        trained = name.startswith(("head/", "backbone/layer4"))
        assert changed == trained, name
    assert sum(leaf.size for leaf in jax.tree.leaves(end.opt_state)) < sum(
        leaf.size for leaf in jax.tree.leaves(end.params)
    ) * 2, "the optimiser must hold moments of trained parameters only"


def _named(tree):
    return [
        ([key.key for key in path], leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def test_frozen_batch_norm_normalises_with_running_statistics(one_device):
    config, task, batches, _ = one_device
    config = config.copy_and_resolve_references()
    config.stages.all.trainable = (r"^head/",)
    run = make(config, task, 1)
    variables = jax.jit(run.init_variables)()

    images, _ = task.inputs({"image": jnp.asarray(batches[0]["image"])})

    @jax.jit
    def both(variables, images):
        with step_lib.freeze_batch_norm(run.stages[0]):
            trained = run.model.apply(variables, images, train=True, mutable=["batch_stats"])
        return *trained, run.model.apply(variables, images, train=False)

    frozen, updated, evaluated = both(variables, images)
    np.testing.assert_allclose(frozen, evaluated, rtol=1e-6)
    assert_close(updated["batch_stats"], variables["batch_stats"], 0)


def test_gradients_are_reduced_once_and_nothing_is_gathered(one_device):
    config, task, _, _ = one_device
    run = make(config, task, 8)
    with run.mesh_context():
        text = run.train_step(run.stages[0]).as_text()
    assert "all-gather" not in text
    assert "all-to-all" not in text
    assert "collective-permute" not in text
    params = jax.eval_shape(run.init_variables)["params"]
    largest = max(leaf.size for leaf in jax.tree.leaves(params))
    sizes = reduced_sizes(text)
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert largest in sizes
    # Every gradient once; besides, BatchNorm's statistics (forward and backward) and scalars,
    # which are far smaller than one copy of the parameters.
    assert total <= sum(sizes) < 1.5 * total


def reduced_sizes(hlo: str) -> list[int]:
    """Elements of every array that an all-reduce of the compiled module returns."""
    sizes = []
    for line in hlo.splitlines():
        match = re.search(r"= (.*?) all-reduce(-start)?\(", line)
        if match:
            for shape in re.findall(r"f32\[([\d,]*)\]", match[1]):
                sizes.append(int(np.prod([int(d) for d in shape.split(",") if d] or [1])))
    return sizes


def test_activations_are_split_as_the_mesh_says(one_device):
    config, task, batches, _ = one_device
    run = make(config, task, 8)
    seen = []

    class Spy:
        """The task, noting how the compiler placed the model's outputs."""

        def __getattr__(self, name):
            return getattr(task, name)

        def loss_sums(self, outputs, batch):
            jax.debug.inspect_array_sharding(outputs, callback=seen.append)
            return task.loss_sums(outputs, batch)

    run = dataclasses.replace(run, task=Spy())
    with run.mesh_context():
        step = run.train_step(run.stages[0])
        step(run.first_state(), parallel.put_batch(run.mesh, batches[0]))
    expected = jax.sharding.NamedSharding(run.mesh, parallel.BATCH)
    assert seen
    assert all(s.is_equivalent_to(expected, 2) for s in seen)


def test_fsdp_splits_large_parameters_and_their_moments(monkeypatch):
    monkeypatch.setattr(parallel, "SMALLEST_SPLIT", 16)
    config = toys.xray_config(mesh__fsdp=4)
    run = make(config, toys.make_xray_task(config), 8)
    state = run.abstract_state(run.stages[0])
    for tree in (state.params, state.opt_state):
        split = [leaf for leaf in jax.tree.leaves(tree) if leaf.size >= 1024]
        assert split
        assert all("fsdp" in str(leaf.sharding.spec) for leaf in split)
