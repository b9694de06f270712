"""The pose task: losses by hand, padding, stitched sequences, evaluation beside the baselines."""

import csv
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr.pose import task as pose_task
from jaxcxr.pose.evaluation import mean_errors, pose_arrays
from jaxcxr.pose.geometry import skeletons
from jaxcxr.pose.sources import clips
from tests import toys


def task_of(**changes):
    return toys.make_pose_task(toys.pose_config(**changes))


def batch_of(task, split="train", indices=range(8)):
    source = task.source(split)
    examples = [source[i] for i in indices]
    batch = {key: np.stack([example[key] for example in examples]) for key in examples[0]}
    return {**batch, "valid": np.ones(len(examples), bool)}


@pytest.fixture(scope="module")
def task():
    return task_of(loss__velocity=0.5)


@pytest.fixture(scope="module")
def batch(task):
    found = batch_of(task, indices=range(4, 12))
    assert not found["mask"].all()
    return found


def test_position_loss_is_the_mean_joint_error_over_real_frames(task, batch):
    outputs = batch["joints"] + np.random.default_rng(0).normal(0, 0.1, batch["joints"].shape)
    sums, counts = task.loss_sums(jnp.float32(outputs), batch), task.divisors(batch)
    expected = mean_errors.mpjpe(outputs, batch["joints"], batch["mask"])
    assert sums["position"] / counts["position"] == pytest.approx(expected, rel=1e-5)


def test_velocity_loss_sees_motion_and_not_place(task, batch):
    speed = np.array([0.3, 0.0, -0.4], np.float32)
    frames = np.arange(9, dtype=np.float32)[None, :, None, None]
    moved = {0.0: batch["joints"] + 7.0, 0.5: batch["joints"] + speed * frames}
    for expected, outputs in moved.items():
        sums, counts = task.loss_sums(jnp.float32(outputs), batch), task.divisors(batch)
        assert sums["velocity"] / counts["velocity"] == pytest.approx(expected, abs=1e-5)
    pairs = (batch["mask"][:, 1:] & batch["mask"][:, :-1]).sum()
    assert float(counts["velocity"]) == pairs * 17


def test_padding_frames_and_examples_change_nothing(task, batch):
    outputs = np.random.default_rng(0).normal(0, 1, batch["joints"].shape).astype(np.float32)
    padded = {**batch, "valid": np.arange(8) < 5}
    expected = task.loss_sums(jnp.asarray(outputs), padded)
    spoiled = np.where((batch["mask"] & padded["valid"][:, None])[..., None, None], outputs, 1e9)
    actual = task.loss_sums(jnp.float32(spoiled), padded)
    for name in expected:
        assert actual[name] == expected[name]
    slope = jax.grad(lambda x: sum(task.loss_sums(x, padded).values()))(jnp.asarray(outputs))
    assert (np.asarray(slope)[5:] == 0).all()
    assert (np.asarray(slope)[~batch["mask"]] == 0).all()
    assert float(task.divisors(padded)["position"]) == batch["mask"][:5].sum() * 17


def test_a_perfect_prediction_has_a_finite_gradient(task, batch):
    slope = jax.grad(lambda x: sum(task.loss_sums(x, batch).values()))(jnp.asarray(batch["joints"]))
    assert np.isfinite(slope).all()


def test_limb_weights_keep_the_mean_and_raise_the_ends():
    plain, limbs = task_of(), task_of(loss__joint_weights="limbs")
    joints = skeletons.HUMAN36M.joints
    batch = batch_of(plain)
    ratios = {}
    for j, name in enumerate(joints):
        outputs = batch["joints"].copy()
        outputs[:, :, j] += 0.1
        sums = [t.loss_sums(jnp.asarray(outputs), batch)["position"] for t in (limbs, plain)]
        ratios[name] = float(sums[0] / sums[1])
    assert np.mean(list(ratios.values())) == pytest.approx(1.0, rel=1e-3)
    base = min(ratios.values())
    for name, ratio in ratios.items():
        part = next((part for part in pose_task.LIMB_WEIGHTS if part.lower() in name.lower()), None)
        expected = pose_task.LIMB_WEIGHTS.get(part, 1.0)
        assert ratio / base == pytest.approx(expected, rel=1e-2), name


@pytest.fixture
def predictions(task):
    """Every window of the test split, predicted as the truth and one centimetre to the right."""
    batch = batch_of(task, "test", range(len(task.source("test"))))
    return {"joints": batch["joints"] + np.float32([0.01, 0, 0])}


def test_evaluation_counts_every_frame_once_beside_both_baselines(task, predictions):
    result = task.evaluate("test", predictions)
    assert result.metrics["mpjpe"] == pytest.approx(10.0, rel=1e-4)
    assert result.metrics["p_mpjpe"] == pytest.approx(0.0, abs=1e-3)
    assert {"mean_pose/mpjpe", "ridge/mpjpe", "mean_pose/p_mpjpe"} <= set(result.metrics)
    assert all(name in result.table for name in ("model", "mean_pose", "ridge", "walk"))
    train = np.concatenate([s.joints for s in task.source("train").sequences])
    test = np.concatenate([s.joints for s in task.source("test").sequences])
    expected = np.linalg.norm(test - train.mean(0), axis=-1).mean() * 1000
    assert result.metrics["mean_pose/mpjpe"] == pytest.approx(expected, rel=1e-5)


def test_predictions_hold_every_frame_in_millimetres(task, predictions, tmp_path):
    task.write("test", predictions, tmp_path)
    with (tmp_path / "predictions" / "test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    sequences = task.source("test").sequences
    assert [(row["sequence_id"], int(row["frame"])) for row in rows] == [
        (s.sequence_id, frame) for s in sequences for frame in range(len(s.joints))
    ]
    assert len({row["id"] for row in rows}) == len(rows)
    row, name = rows[-1], skeletons.HUMAN36M.joints[3]
    truth = sequences[-1].joints[-1, 3] * 1000
    np.testing.assert_allclose([float(row[f"true_{name}_{a}"]) for a in "xyz"], truth, atol=0.051)
    np.testing.assert_allclose(
        [float(row[f"predicted_{name}_{a}"]) for a in "xyz"], truth + np.eye(3)[0] * 10, atol=0.051
    )
    found, expected = (pose_arrays.read(tmp_path / "predictions" / name).sequences
                       for name in ("test.npz", "test_labels.npz"))
    assert found.keys() == expected.keys()
    assert len(found) == len(sequences)
    for key, (_, values) in expected.items():
        error = np.linalg.norm(found[key][1] - values, axis=-1)
        np.testing.assert_allclose(error, 0.01, atol=1e-5)
    for figure in ("skeletons_test", "joint_errors_test"):
        assert (tmp_path / "report" / f"{figure}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("name", "subject", "camera", "key"), [
    ("S9_Walking_1_54138969", "S9", "54138969", "S9/Walking 1/54138969"),
    ("03_02_random0", "03", "random0", "03/02/random0"),
    ("clip", "A", "cam", "A/clip/cam"),
])
def test_predictions_are_named_as_protocols_name_them(name, subject, camera, key):
    empty = np.zeros((1, 17, 3), np.float32)
    sequence = clips.Sequence(name, subject, "Walking", camera, empty, empty)
    assert pose_task._key(sequence) == key


def test_windows_are_named_by_sequence_and_first_frame(task):
    names = task.ids("train", [0, 1])
    assert names == ["s0@0", "s0@3"]
    assert "S0, S1, S2" in task.describe()["train"]
    assert "56 frames" in task.describe()["test"]


def test_limb_names_exist_in_the_skeleton():
    for part in pose_task.LIMB_WEIGHTS:
        named = [name for name in skeletons.HUMAN36M.joints if part.lower() in name.lower()]
        assert len(named) == 2, part


def test_velocities_of_sequences_of_several_rates_are_each_by_its_own(tmp_path):
    def open_split(split):
        source = toys.toy_clips(9, 9, seed=len(split))
        rates = [dataclasses.replace(s, fps=f) for s, f in
                 zip(source.sequences, (25.0, 50.0, 100.0), strict=True)]
        return clips.Clips(rates, 9, 9)

    task = pose_task.PoseTask(toys.pose_config(), open_split)
    source = task.source("test")
    truth = source.read(np.arange(len(source)))["joints"]
    guess = truth + np.random.default_rng(0).normal(0, 0.02, truth.shape).astype(np.float32)
    errors = [np.linalg.norm(np.diff(g - s.joints, axis=0), axis=-1) * 1000 * s.fps
              for g, s in zip(source.stitch(guess), source.sequences, strict=True)]
    found = task.evaluate("test", {"joints": guess}).metrics["mpjve_per_second"]
    assert found == pytest.approx(np.concatenate(errors).mean(), rel=1e-5)
    task.write("test", {"joints": guess}, tmp_path)
    for name in ("test", "test_labels"):
        about = pose_arrays.read(tmp_path / "predictions" / f"{name}.npz").about
        assert about == {"unit": "m", "joint_set": "human36m", "fps": "0.0"}
