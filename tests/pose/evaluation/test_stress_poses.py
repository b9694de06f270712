"""The stress test of poses with lifters whose error is known: by what they see, or when."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr import config as base
from jaxcxr import models
from jaxcxr.data import pipeline
from jaxcxr.errors import UserError
from jaxcxr.pose import task as pose_task
from jaxcxr.pose.evaluation import stress_poses
from jaxcxr.pose.sources import clips
from jaxcxr.pose.sources.virtual import Detector
from jaxcxr.train import step
from tests import toys


def task_of(lengths=(400, 7, 190), target="sequence"):
    made = toys.toy_clips(9, 9, lengths).sequences
    source = clips.Clips(made, 9, 1 if target == "center" else 9, target)
    return types.SimpleNamespace(source=lambda split: source)


def measured(task, predict, *kinds, **options):
    return stress_poses.measure(
        task, "test", predict, kinds or stress_poses.KINDS, resamples=200, say=lambda line: None,
        **options,
    )


def levels(result, kind):
    return {entry["level"]: entry for entry in result["kinds"][kind]["levels"]}


def sees(source):
    """Right where the keypoints are: toys are seen in metres, as they are."""
    read = source.read(np.arange(len(source)))
    middle = slice(4, 5) if source.center else slice(None)
    return {"joints": np.concatenate([read["keypoints"][:, middle, :, :2], read["joints"][..., 2:]],
                                     -1)}


def scaled(source):
    """In units of the sequences' scale, which stitching undoes."""
    return {"joints": source.read(np.arange(len(source)))["joints"]}


def late(source):
    """Off by a millimetre for each frame that came before in the window."""
    read = source.read(np.arange(len(source)))
    place = np.arange(source.frames, dtype=np.float32)[:, None, None] / 1000
    return {"joints": read["joints"] + place * np.float32([0.6, 0, 0.8])}


@pytest.fixture(scope="module")
def seen():
    return measured(task_of(), sees)


def test_every_kind_begins_with_the_untouched_input(seen):
    assert seen["mpjpe"] == pytest.approx(0, abs=1e-9)
    assert list(seen["kinds"]) == list(stress_poses.KINDS)
    for name, kind in seen["kinds"].items():
        first, *others = kind["levels"]
        assert (first["mpjpe"], first["mpjpe_interval"]) == (seen["mpjpe"], seen["mpjpe_interval"])
        assert first["change"] == 0
        assert first["level"] == {"fps": 50, "window": 9}.get(name, 0)
        assert len(others) == (2 if name == "window" else 4)
    assert seen["counts"] == {"sequences": 3, "motions": 3, "frames": 597}


def test_noise_is_as_large_as_it_says(seen):
    """The mean length of a normal error in the plane is sqrt(pi / 2) standard deviations."""
    for kind in ("noise", "drift"):
        for level, entry in levels(seen, kind).items():
            expected = 1000 * level / 500 * np.sqrt(np.pi / 2)
            tolerance = {"noise": 0.02, "drift": 0.06}[kind]
            assert entry["mpjpe"] == pytest.approx(expected, rel=tolerance, abs=1e-9)
            assert entry["change"] == pytest.approx(entry["mpjpe"])


def test_missing_joints_are_as_many_as_it_says():
    """A lifter a metre off at the joints that it does not see, within four standard errors."""

    def predict(source):
        read = source.read(np.arange(len(source)))
        unseen = read["keypoints"][..., 2:] == 0
        return {"joints": read["joints"] + unseen * np.float32([0, 0, 1])}

    found = measured(task_of(), predict, "missing", "hidden")
    # What is hidden stays so for 15 frames on average: so many fewer draws, twice over.
    for kind, draws in (("missing", 597 * 17), ("hidden", 597 * 17 / 30)):
        for level, entry in levels(found, kind).items():
            error = 4000 * np.sqrt(level * (1 - level) / draws)
            assert entry["mpjpe"] == pytest.approx(1000 * level, abs=error + 1e-3)


def test_fewer_frames_lose_none(seen):
    for kind in ("fps", "window"):
        assert max(e["mpjpe"] for e in seen["kinds"][kind]["levels"]) == pytest.approx(0, abs=1e-9)
    lengths = np.array([400, 7, 190])
    found = measured(task_of(), late, "fps", "window")
    for level, entry in levels(found, "window").items():
        places = np.concatenate([np.arange(n) % int(level) for n in lengths])
        assert entry["mpjpe"] == pytest.approx(places.mean(), rel=1e-4, abs=1e-9)
    assert list(levels(found, "fps")) == [50, 25, 16.67, 10, 5]
    for stride, entry in zip((1, 2, 3, 5, 10), found["kinds"]["fps"]["levels"], strict=True):
        places = np.concatenate([np.arange(n) // stride % 9 for n in lengths])
        assert entry["mpjpe"] == pytest.approx(places.mean(), rel=1e-4)
        assert entry["change"] == pytest.approx(entry["mpjpe"] - found["mpjpe"])


def test_single_lifted_frames_are_stressed_alike():
    found = measured(task_of((40, 7), "center"), sees, "noise", "fps")
    assert levels(found, "noise")[10.0]["mpjpe"] == pytest.approx(25.1, rel=0.1)
    assert max(e["mpjpe"] for e in found["kinds"]["fps"]["levels"]) == pytest.approx(0, abs=1e-9)


def test_units_of_each_frame_go_with_the_frame():
    rng, made = np.random.default_rng(0), toys.toy_clips(9, 9, (31, 7)).sequences
    made = [
        dataclasses.replace(one, scale=rng.uniform(0.5, 2, len(one.joints)).astype(np.float32))
        for one in made
    ]
    task = types.SimpleNamespace(source=lambda split: clips.Clips(made, 9, 9))
    found = measured(task, scaled)
    errors = [e["mpjpe"] for kind in found["kinds"].values() for e in kind["levels"]]
    assert max(errors) == pytest.approx(0, abs=1e-3)


def test_strides_put_every_frame_back():
    sequences = [
        dataclasses.replace(one, root=np.zeros((len(one.joints), 3), np.float32))
        for one in toys.toy_clips(9, 9, (31, 2, 10)).sequences
    ]
    parts, whole = stress_poses.every(sequences, 4)
    assert [len(part.joints) for part in parts] == [8, 8, 8, 7, 1, 1, 3, 3, 2, 2]
    assert [part.sequence_id for part in parts] == sorted(part.sequence_id for part in parts)
    assert {part.fps for part in parts} == {12.5}
    np.testing.assert_array_equal(parts[1].inputs, sequences[0].inputs[1::4])
    assert len(parts[3].root) == 7
    for back, one in zip(whole([part.joints for part in parts]), sequences, strict=True):
        np.testing.assert_array_equal(back, one.joints)


def test_a_perfect_detector_changes_no_bit_and_confidence_stays():
    one = toys.toy_clips(9, 9, (300,)).sequences[0]
    inputs = one.inputs.copy()
    inputs[..., 2] = np.random.default_rng(1).uniform(0.2, 1, inputs.shape[:2])
    inputs[5:9, 3] = 0
    one = dataclasses.replace(one, inputs=inputs)
    rng = np.random.default_rng
    same = stress_poses.seen_by(one, Detector(), rng(0)).inputs
    assert same.dtype == np.float32
    np.testing.assert_array_equal(same, inputs)
    for detector in (Detector(noise=5), Detector(drift=5)):
        moved = stress_poses.seen_by(one, detector, rng(0)).inputs
        np.testing.assert_array_equal(moved[..., 2], inputs[..., 2])
        assert (moved[5:9, 3] == 0).all()
        assert np.mean(moved[..., 0] != inputs[..., 0]) > 0.98
    few, many = (stress_poses.seen_by(one, Detector(dropout=p), rng(0)).inputs for p in (0.1, 0.4))
    assert (many[few[..., 2] == 0] == 0).all()  # the same draws: what little misses, much misses
    kept = many[..., 2] > 0
    np.testing.assert_array_equal(many[kept], inputs[kept])


def test_a_change_that_all_motions_share_has_a_narrow_interval():
    sizes = {"s0": 10.0, "s1": 90.0, "s2": 40.0}

    def predict(source):
        read = source.read(np.arange(len(source)))
        names = [source.sequences[which].sequence_id for which, _ in source.windows]
        off = np.array([sizes[name] for name in names]) + 5.0 * (9 - source.frames)
        joints = read["joints"].astype(np.float64)
        joints[..., 0] += off[:, None, None] / 1000
        return {"joints": joints}

    found = measured(task_of((30, 30, 30)), predict, "window")
    for level, entry in levels(found, "window").items():
        low, high = entry["mpjpe_interval"]
        assert high - low > 20
        assert low < entry["mpjpe"] < high
        shift = 5.0 * (9 - level)
        assert [entry["change"], *entry["change_interval"]] == pytest.approx([shift] * 3, abs=1e-4)
    alone = measured(task_of((30,)), sees, "noise")
    assert alone["mpjpe_interval"] is None
    assert "[" not in "".join(stress_poses.to_text(alone).splitlines()[2:])


def test_a_length_that_a_model_cannot_take_is_left_out():
    """Strided convolutions lift windows as long as their receptive field, and no others."""
    config = toys.pose_config(data__target="center")
    base.set_model(config, "pose_convolution", channels=4, widths=(3, 3))
    made = toys.toy_clips(9, 9, (11, 4)).sequences
    task = pose_task.PoseTask(config, lambda split: clips.Clips(made, 9, 1, "center"))
    model = models.create("pose_convolution", channels=4, widths=(3, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 9, 17, 3)))
    variables = jax.tree.map(lambda s: jnp.full(s.shape, 0.1, s.dtype), shapes)
    evaluate = jax.jit(step.make_eval_step(model, task))

    def predict(source):
        parts = [
            np.asarray(evaluate(variables["params"], variables["batch_stats"], batch)["joints"])[
                batch["valid"]
            ]
            for batch in pipeline.eval_batches(source, config)
        ]
        return {"joints": np.concatenate(parts)}

    found = measured(task, predict, "window", "fps")
    assert [line.split(":")[0] for line in found["left_out"]] == ["window 3", "window 1"]
    assert "lifts windows of 9 frames, not 3" in found["left_out"][0]
    assert list(levels(found, "window")) == [9]
    assert len(levels(found, "fps")) == 5
    text = stress_poses.to_markdown(found)
    assert "## Left out\n\n- window 3: a strided convolution" in text
    assert stress_poses.figure(found) is not None


def test_other_mistakes_are_not_swallowed():
    calls = []

    def predict(source):
        calls.append(source)
        if len(calls) > 1:
            raise UserError("something else")
        return sees(source)

    with pytest.raises(UserError, match="something else"):
        measured(task_of((30,)), predict, "noise")


def test_the_figure_shows_the_table(seen):
    panels = [axes for axes in stress_poses.figure(seen).axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == [
        kind["title"] for kind in seen["kinds"].values()
    ]
    for axes, kind in zip(panels, seen["kinds"].values(), strict=True):
        curve = axes.containers[0].lines[0]
        np.testing.assert_allclose(curve.get_xdata(), [e["level"] for e in kind["levels"]])
        np.testing.assert_allclose(curve.get_ydata(), [e["mpjpe"] for e in kind["levels"]])
        assert kind["unit"] in axes.get_xlabel()
    text = stress_poses.to_markdown(seen)
    entry = levels(seen, "missing")[0.1]
    low, high = entry["mpjpe_interval"]
    assert f"| 0.1 | {entry['mpjpe']:.1f} [{low:.1f}, {high:.1f}] | +" in text
    assert "| stress.png | MPJPE in mm" in text
    left, right = panels[4].get_xlim()
    assert left > right  # fewer frames are harder, and harder is to the right
