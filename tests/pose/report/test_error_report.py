"""The report of pose errors: an error put in one place shows up there, and parts make the whole."""

import csv
import dataclasses
import time

import cv2
import numpy as np
import pytest

from jaxcxr.pose.evaluation import mean_errors, pose_errors
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.report import error_report, pose_figures
from jaxcxr.pose.sources import clips

WRIST = HUMAN36M.joints.index("left_wrist")
ACTIONS = {"walk": (20, 7), "sit": (13,), "run": (40,)}


def sequence(action, number, frames, camera="cam0", fps=10.0):
    rng = np.random.default_rng(number)
    joints = rng.normal(0, 0.3, (frames, 17, 3)).astype(np.float32)
    inputs = np.concatenate([joints[..., :2], np.ones((frames, 17, 1))], -1).astype(np.float32)
    return clips.Sequence(
        f"S1_{action}_{number}_{camera}", "S1", action, camera, inputs, joints - joints[:, :1],
        fps=fps,
    )


def source_of(frames=9, target="sequence"):
    sequences = [
        sequence(action, number, length)
        for action, lengths in ACTIONS.items() for number, length in enumerate(lengths)
    ]
    stride = 1 if target == "center" else frames
    return clips.Clips(sequences, frames, stride, target)


def shifted(source, action, joint, millimetres):
    """The truth, but for one joint of one action."""
    found = []
    for one in source.sequences:
        values = one.joints.copy()
        if one.action == action:
            values[:, joint, 2] += millimetres / 1000
        found.append(values)
    return found


def errors_of(source, predicted):
    return [
        pose_errors.joint_errors(1000 * values, 1000 * one.joints)
        for one, values in zip(source.sequences, predicted, strict=True)
    ]


def write(source, predicted, folder, split="test"):
    errors = error_report.measure(source, predicted)
    error_report.write(errors, HUMAN36M.joints, split, folder)
    pose_figures.write(errors, HUMAN36M, split, folder)


def test_an_error_shows_up_in_its_cell_of_every_table(tmp_path):
    source = source_of()
    predicted = shifted(source, "sit", WRIST, 85.0)
    write(source, predicted, tmp_path)
    with (tmp_path / "errors.csv").open(newline="") as file:
        rows = {row["action"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["run", "sit", "walk", "all frames"]
    for name, row in rows.items():
        for joint in HUMAN36M.joints:
            expected = {"sit": 85.0, "all frames": 85.0 * 13 / 80}.get(name, 0.0)
            expected = expected if joint == "left_wrist" else 0.0
            assert float(row[f"{joint}_mm"]) == pytest.approx(expected, abs=1e-3)
    assert float(rows["sit"]["mpjpe_mm"]) == pytest.approx(5.0, abs=1e-3)
    text = (tmp_path / "errors.md").read_text()
    assert "MPJPE 0.8 mm over 80 frames of 4 sequences" in text
    assert "mean of the actions' means is 1.7 mm" in text
    assert "| left wrist | 0.0 | 85.0 | 0.0 | 13.8 |" in text
    assert "| S1_sit_0_cam0 | sit | 13 | 5.0 |" in text
    assert "Largest for sit (5 mm)" in text
    for name in ("actions", "time", "worst"):
        assert f"| errors_{name}.png | " in text
        assert cv2.imread(str(tmp_path / f"errors_{name}.png")) is not None


def test_the_map_shows_the_numbers_of_the_table():
    source = source_of()
    rows = error_report.by_action(
        errors_of(source, shifted(source, "sit", WRIST, 85.0)), [s.action for s in source.sequences]
    )
    axes = pose_figures.actions_figure(rows, HUMAN36M.joints).axes[0]
    values = np.asarray(axes.images[0].get_array().filled(np.nan))
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["run (40)", "sit (13)", "walk (27)", "all frames (80)"]
    column, row = axes.get_xticks()[ticks.index("left wrist")], axes.get_yticks()[1]
    assert values[row, column] == pytest.approx(85.0, abs=1e-3)
    assert (values[row] > 1e-3).sum() == 2
    texts = {tuple(map(int, text.get_position())): text.get_text() for text in axes.texts}
    assert texts[column, row] == "85.0"
    assert len(texts) == np.isfinite(values).sum() == 4 * 18


def test_actions_and_joints_recombine_to_the_whole():
    source, rng = source_of(), np.random.default_rng(1)
    predicted = [one.joints + rng.normal(0, 0.1, one.joints.shape) for one in source.sequences]
    *actions, every = error_report.by_action(
        errors_of(source, predicted), [one.action for one in source.sequences]
    )
    both = [np.concatenate(x) for x in (predicted, [one.joints for one in source.sequences])]
    whole = mean_errors.mpjpe(*(1000 * x for x in both))
    weights = [row.frames for row in actions]
    assert sum(weights) == every.frames == 80
    assert sum(row.sequences for row in actions) == every.sequences == 4
    assert np.average([row.mean for row in actions], weights=weights) == pytest.approx(whole)
    assert every.mean == pytest.approx(whole)
    np.testing.assert_allclose(
        np.average([row.joints for row in actions], axis=0, weights=weights), every.joints
    )


def test_errors_are_put_where_they_were_in_time():
    """A frame's error is its number in the sequence, and that of the sequence times a hundred."""
    lengths, rates = (20, 7, 13, 40, 40), (10.0, 10.0, 10.0, 10.0, 20.0)
    errors = [100.0 * i + np.arange(n) for i, n in enumerate(lengths)]
    found = error_report.over_time(errors, rates, 9)
    place = np.concatenate([np.arange(n) % 9 for n in lengths])
    expected = np.array([
        np.quantile(np.concatenate(errors)[place == p], error_report.QUANTILES) for p in range(9)
    ])
    np.testing.assert_allclose(found.window, expected.T)
    assert found.bin == pytest.approx(0.1)
    assert found.sequences.shape == (5, 40)
    for row, e in zip(found.sequences[:4], errors, strict=False):
        np.testing.assert_allclose(row[: len(e)], e)
        assert np.isnan(row[len(e) :]).all()
    # Twice the frames in a bin, for two seconds.
    np.testing.assert_allclose(found.sequences[4, :20], 400.5 + 2 * np.arange(20))
    # Four sequences run until 1.3 s, three of them longer.
    np.testing.assert_array_equal(np.isfinite(found.quantiles).all(0), np.arange(40) < 13)
    np.testing.assert_allclose(found.quantiles[2, 10], np.median([10, 210, 310, 420.5]))
    np.testing.assert_allclose(found.means, [e.mean() for e in errors])
    assert error_report.over_time(errors, rates, None).window is None


def test_the_worst_takes_come_first_each_by_its_worst_camera():
    truth = [sequence("walk", n, 12, camera) for n in range(3) for camera in ("a", "b")]
    sizes = [10, 30, 50, 40, 20, 5]
    predicted = [1000 * one.joints for one in truth]
    for values, size in zip(predicted, sizes, strict=True):
        values[..., 0] += size
        values[7, :, 0] += 100
    errors = [np.linalg.norm(p - 1000 * s.joints, axis=-1)
              for p, s in zip(predicted, truth, strict=True)]
    found = error_report.worst(truth, predicted, errors)
    assert [one.sequence.sequence_id for one in found] == [
        "S1_walk_1_a", "S1_walk_0_b", "S1_walk_2_a"
    ]
    assert [one.mean for one in found] == pytest.approx([size + 100 / 12 for size in (50, 30, 20)])
    assert {one.frame for one in found} == {7}


def test_the_worst_frame_is_drawn_as_it_is():
    one = sequence("walk", 0, 12)
    inputs = one.inputs.copy()
    inputs[7, WRIST] = 0
    predicted = 1000 * one.joints
    predicted[7, WRIST] += (0, 0, 300)
    errors = np.linalg.norm(predicted - 1000 * one.joints, axis=-1)
    unseen = dataclasses.replace(one, inputs=inputs)
    worst = error_report.WorstSequence(unseen, predicted, errors)
    figure = pose_figures.worst_figure([worst], HUMAN36M, 12.0)
    given, front, side, over = figure.axes
    assert given.get_title() == "2D input, 1 of 17 joints not seen"
    assert len(given.lines[-1].get_xdata()) == 16
    top, bottom = given.get_ylim()
    assert top > bottom  # images grow downwards
    for axes, across in ((front, 0), (side, 2)):
        truth, guess = axes.lines[16], axes.lines[33]
        np.testing.assert_allclose(truth.get_xdata(), 1000 * one.joints[7, :, across], rtol=1e-5)
        np.testing.assert_allclose(guess.get_ydata(), -predicted[7, :, 1])
        np.testing.assert_allclose(guess.get_xdata(), predicted[7, :, across])
    assert front.get_xlabel() == "right (mm)"
    assert "away" in side.get_xlabel()
    assert over.lines[1].get_xdata() == pytest.approx(0.7)
    assert figure.subfigs[0].get_suptitle().startswith("1. S1_walk_0_cam0 (walk): 1 mm. Shown: "
                                                       "frame 7 at 0.70 s, 18 mm")


def test_single_lifted_frames_have_no_place_in_a_window(tmp_path):
    source = source_of(target="center")
    write(source, shifted(source, "run", 3, 10), tmp_path, "validation")
    text = (tmp_path / "errors.md").read_text()
    assert "# Errors on the validation split" in text
    assert "a window of its own" in text
    assert (tmp_path / "errors_time.png").exists()


@pytest.mark.slow
def test_the_size_of_human36m_takes_seconds(tmp_path):
    sequences = [sequence(f"action {n % 15}", n, 2400) for n in range(236)]
    source, rng = clips.Clips(sequences, 243, 243), np.random.default_rng(0)
    predicted = [
        one.joints + rng.normal(0, 0.05, one.joints.shape).astype(np.float32)
        for one in source.sequences
    ]
    begun = time.process_time()
    write(source, predicted, tmp_path)
    assert time.process_time() - begun < 30
