"""Many-to-one and sequence targets, teachers, roots and uncertainty, through the task."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr import config as base
from jaxcxr import models
from jaxcxr.data import pipeline
from jaxcxr.errors import UserError
from jaxcxr.pose import task as pose_task
from jaxcxr.pose.sources import clips
from jaxcxr.train import state, step
from tests import toys

SPLITS = {"train": 0, "validation": 1, "test": 2}


def sequences_of(split, roots=True):
    found = toys.toy_clips(9, 9, seed=SPLITS[split]).sequences
    rng = np.random.default_rng(9)
    if not roots:
        return found
    return [
        dataclasses.replace(
            s, root=rng.normal([0, 0, 4], 0.3, (len(s.joints), 3)).astype(np.float32)
        )
        for s in found
    ]


def make(target, name, roots=True, *, loss=(), **options):
    config = toys.pose_config(data__target=target, **{f"loss__{k}": v for k, v in loss})
    base.set_model(config, name, **options)
    base.validate(config)

    def open_split(split):
        once = 1 if target == "center" else 9
        stride = 3 if split == "train" else once
        return clips.Clips(sequences_of(split, roots), config.data.frames, stride, target)

    return config, pose_task.PoseTask(config, open_split)


def batch_of(task, indices=range(4)):
    found = task.source("train").read(np.array(indices))
    extra = {"valid": np.ones(len(indices), bool), "position": np.arange(len(indices))}
    return {**found, **extra}


def predictions(config, task, variables, split="test"):
    model = models.create(config.model.name, **config.model.options.to_dict())
    evaluate = jax.jit(step.make_eval_step(model, task))
    parts = [
        (evaluate(variables["params"], variables.get("batch_stats", {}), batch), batch["valid"])
        for batch in pipeline.eval_batches(task.source(split), config)
    ]
    return {
        name: np.concatenate([part[name][valid] for part, valid in parts]) for name in parts[0][0]
    }


def variables_of(name, **options):
    model = models.create(name, **options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 9, 17, 3)))
    rng = np.random.default_rng(0)

    def leaf(path, shape):
        values = rng.normal(scale=0.2, size=shape.shape).astype(np.float32)
        return np.abs(values) + 0.5 if path[-1].key == "var" else values

    return jax.tree_util.tree_map_with_path(leaf, shapes)


@pytest.mark.parametrize(("name", "options"), [
    ("pose_frame", {"width": 8}),
    # as wide as the windows: strided convolutions of windows, dilated ones of sequences
    ("pose_convolution", {"channels": 8, "widths": (3, 3)}),
])
def test_both_targets_give_the_same_results(name, options, tmp_path):
    variables, results = variables_of(name, **options), {}
    for target, size in (("sequence", 30), ("center", 9)):
        config, task = make(target, name, **options)
        if target == "sequence":  # windows that hold whole sequences have no ends inside
            config.data.frames = size
            task = pose_task.PoseTask(
                config, lambda split: clips.Clips(sequences_of(split), 30, 30)
            )
        found = predictions(config, task, variables)
        results[target] = (found, task, task.evaluate("test", found))
    (whole, task, expected), (single, task_of_one, result) = results.values()
    assert single["joints"].shape == (56, 1, 17, 3)
    for a, b in zip(
        task_of_one.source("test").stitch(single["joints"]),
        task.source("test").stitch(whole["joints"]), strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert result.metrics == pytest.approx(expected.metrics, rel=1e-4)
    task_of_one.write("test", single, tmp_path)
    rows = (tmp_path / "predictions" / "test.csv").read_text().splitlines()
    assert len(rows) == 1 + 56


def test_only_windows_as_wide_as_the_convolution_are_strided():
    for options, expected in (
        ({"widths": (3, 3)}, True), ({"widths": (3, 1)}, False),
        ({"widths": (3, 3), "causal": True}, False),
    ):
        _, task = make("center", "pose_convolution", **options)
        assert task.inputs(batch_of(task))[1].get("strided", False) == expected
    _, task = make("sequence", "pose_convolution", widths=(3, 3))
    assert "strided" not in task.inputs(batch_of(task))[1]


def test_losses_of_one_frame_are_those_of_the_middle():
    _, task = make("center", "pose_temporal", dim=8, depth=1, heads=2)
    batch = batch_of(task)
    outputs = np.full((4, 9, 17, 3), 7.0, np.float32)
    outputs[:, 4] = batch["joints"][:, 0] + np.float32([0.03, 0, 0.04])
    sums, counts = task.loss_sums(jnp.asarray(outputs), batch), task.divisors(batch)
    assert float(counts["position"]) == 4 * 17
    assert sums["position"] / counts["position"] == pytest.approx(0.05, rel=1e-4)


def test_a_teacher_is_there_in_training_only():
    _, task = make("sequence", "pose_seq2seq", width=8)
    batch = batch_of(task)
    assert set(task.inputs(batch)[1]) == {"mask"}
    np.testing.assert_array_equal(task.inputs(batch, train=True)[1]["joints"], batch["joints"])
    for name, options in (("pose_seq2seq", {"teacher_forcing": False}), ("pose_temporal", {})):
        _, task = make("sequence", name, **options)
        assert set(task.inputs(batch, train=True)[1]) == {"mask"}


def test_the_training_step_has_the_teacher_and_the_evaluation_has_not():
    """The first pose follows none; with a teacher, the later ones follow the true ones."""
    options = {"width": 8, "bidirectional": False, "attention": "none"}
    config, task = make("sequence", "pose_seq2seq", **options)
    model, variables = models.create("pose_seq2seq", **options), variables_of(
        "pose_seq2seq", **options
    )
    batch = batch_of(task)
    loss_of = jax.jit(step.make_loss(model, task, state.make_stages(config, 8)[0], None))
    evaluate = jax.jit(step.make_eval_step(model, task))

    def results(batch):
        loss, _ = loss_of(
            variables["params"], {}, {}, batch, {"position": 1.0}, jax.random.key(0)
        )
        joints = evaluate(variables["params"], {}, batch)["joints"]
        errors = np.linalg.norm(joints - batch["joints"], axis=-1)[batch["mask"]]
        return loss, errors.sum()

    taught, alone = results(batch)
    assert abs(taught - alone) > 1e-3
    # Taught with what it writes itself, the loss of training is that of evaluation: none.
    own = {**batch, "joints": np.asarray(evaluate(variables["params"], {}, batch)["joints"])}
    taught, alone = results(own)
    assert taught == pytest.approx(0, abs=1e-2)
    assert alone == pytest.approx(0, abs=1e-2)


def test_uncertainty_and_roots_are_learned_and_evaluated():
    options = {"width": 8, "uncertainty": True, "trajectory": True}
    config, task = make(
        "sequence", "pose_recurrent", loss=(("likelihood", 0.1), ("root", 0.5)), **options
    )
    assert task.loss_weights == {"position": 1.0, "likelihood": 0.1, "root": 0.5}
    found = predictions(config, task, variables_of("pose_recurrent", **options))
    assert found["sigma"].shape == (4 + 1 + 3, 9, 17)
    source = task.source("test")
    read = source.read(np.arange(len(source)))
    found["joints"] = read["joints"] + np.float32([0.01, 0.02, 0.06])
    found["sigma"] = np.full_like(found["sigma"], 0.02)
    found["root"] = read["root"] + np.float32([0.03, 0, 0.04])
    result = task.evaluate("test", found)
    assert result.metrics["mrpe"] == pytest.approx(50, rel=1e-4)
    # 0.5, 1 and 3 standard deviations; half of all lie within 0.67, and 90 % within 1.64
    expected = {"coverage_50": 1 / 3, "coverage_90": 2 / 3, "coverage_95": 2 / 3}
    assert {name: result.metrics[name] for name in expected} == pytest.approx(expected)
    assert "MRPE 50.0 mm" in result.table
    assert "90% intervals 66.7%" in result.table


def test_roots_are_mirrored_with_their_clips():
    config, task = make("sequence", "pose_temporal")
    config.augment.horizontal_flip = 0.5
    batch = batch_of(task, range(12))
    found = task.augment(jax.random.key(0), batch)
    mirrored = (found["joints"] != batch["joints"]).any((1, 2, 3))
    assert 0 < mirrored.sum() < 12
    sign = np.where(mirrored, -1, 1)[:, None]
    np.testing.assert_array_equal(found["root"][..., 0], batch["root"][..., 0] * sign)
    np.testing.assert_array_equal(found["root"][..., 1:], batch["root"][..., 1:])


def test_data_without_roots_cannot_teach_them():
    _, task = make(
        "sequence", "pose_temporal", roots=False, loss=(("root", 1.0),), trajectory=True
    )
    outputs = {"joints": jnp.zeros((4, 9, 17, 3)), "root": jnp.zeros((4, 9, 3))}
    with pytest.raises(UserError, match="have no root positions"):
        task.loss_sums(outputs, batch_of(task))


@pytest.mark.parametrize(("name", "target", "loss", "options", "message"), [
    ("pose_temporal", "sequence", {"likelihood": 1.0}, {}, "options.uncertainty is False"),
    ("pose_temporal", "sequence", {}, {"uncertainty": True}, "likelihood is 0.0"),
    ("pose_temporal", "sequence", {}, {"trajectory": True}, "loss.root is 0.0"),
    ("pose_frame", "sequence", {"root": 1.0}, {}, "options.trajectory is False"),
    ("pose_temporal", "center", {"velocity": 1.0}, {}, "compares neighbouring frames"),
    ("pose_temporal", "sequence", {"position": 0.0}, {}, "all weights in config.loss are 0"),
    ("pose_temporal", "sequence", {"symmetry": -1.0}, {}, "symmetry is -1.0"),
    ("pose_seq2seq", "center", {}, {}, "teacher_forcing=False"),
])
def test_what_does_not_fit_is_refused(name, target, loss, options, message):
    with pytest.raises(UserError, match=message):
        make(target, name, loss=tuple(loss.items()), **options)
