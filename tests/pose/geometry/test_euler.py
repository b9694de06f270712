"""Continuous Euler angles: the same rotations, without jumps."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxcxr.pose.formats import bvh, bvh_export
from jaxcxr.pose.geometry import euler
from jaxcxr.pose.phantom import actions, body
from tests.pose.formats import bvhs

T = np.linspace(0, 1, 400)[:, None]


def assert_same(angles, rotations, order):
    back = Rotation.from_euler(order, angles, degrees=True)
    assert (back * rotations.inv()).magnitude().max() < 1e-6


@pytest.mark.parametrize("order", ["ZYX", "XYZ", "ZXY", "YZX", "ZXZ"])
def test_smooth_angles_come_back_without_jumps(order):
    rng = np.random.default_rng(0)
    for _ in range(5):
        # Up to three turns of each axis, through both poles.
        true = rng.uniform(-540, 540, (1, 3)) * T + rng.uniform(-60, 60, (1, 3))
        rotations = Rotation.from_euler(order, true, degrees=True)
        angles = euler.continuous(rotations, order)
        assert_same(angles, rotations, order)
        # The angles that made the rotations, but for another triple and whole turns at the start.
        step = np.abs(np.diff(angles, axis=0)).max()
        assert step == pytest.approx(np.abs(np.diff(true, axis=0)).max(), abs=1e-4)


def test_scipys_own_angles_jump_there():
    true = np.array([[0.0, 400.0, 0.0]]) * T
    rotations = Rotation.from_euler("ZYX", true, degrees=True)
    assert np.abs(np.diff(rotations.as_euler("ZYX", degrees=True), axis=0)).max() > 170
    np.testing.assert_allclose(euler.continuous(rotations, "ZYX"), true, atol=1e-6)


@pytest.mark.parametrize("pole", [90.0, -90.0])
@pytest.mark.parametrize("order", ["ZYX", "XZY"])
def test_at_the_pole_the_outer_angles_share_what_changes(order, pole):
    first = np.interp(T[:, 0], [0, 1], [-100, 200])
    true = np.column_stack([first, np.full(400, pole), np.full(400, 30.0)])
    rotations = Rotation.from_euler(order, true, degrees=True)
    angles = euler.continuous(rotations, order)
    assert_same(angles, rotations, order)
    assert np.abs(np.diff(angles, axis=0)).max() < 0.5  # half of 300 / 399 degrees
    # Through the pole, and staying there for a while in the middle.
    middle = np.clip(np.interp(T[:, 0], [0, 0.4, 0.6, 1], [0, pole, pole, 0]), -90, 90)
    true = np.column_stack([20 + 10 * T[:, 0], middle, np.full(400, 30.0)])
    rotations = Rotation.from_euler(order, true, degrees=True)
    angles = euler.continuous(rotations, order)
    assert_same(angles, rotations, order)
    # Back from the pole the other triple may be the near one, by the half of what was shared.
    assert np.abs(np.diff(angles, axis=0)).max() < 15


def test_one_frame_and_no_rotation():
    np.testing.assert_array_equal(euler.continuous(Rotation.identity(1), "ZYX"), [[0, 0, 0]])
    np.testing.assert_allclose(euler.continuous(Rotation.identity(7), "ZYX"), np.zeros((7, 3)))
    lock = Rotation.from_euler("ZYX", [[10, 90, 20]] * 3, degrees=True)
    assert_same(euler.continuous(lock, "ZYX"), lock, "ZYX")


def test_a_person_who_turns_round_and_round_is_written_without_jumps(tmp_path):
    who = body.make_body(1)
    t = np.arange(300) / 50.0
    world = body.place(who, actions.walk(np.random.default_rng(0), who, t), 50.0)
    turn = Rotation.from_euler("z", np.linspace(0, 4 * np.pi, 300)[:, None]).as_matrix()
    world = np.einsum("fab,fjb->fja", turn.reshape(-1, 3, 3), world)
    joints = np.stack([world[..., 0], -world[..., 2], world[..., 1]], -1)
    fit = bvh_export.fit(joints, 50.0)
    text = bvh.to_text(fit.motion)
    rows = np.array([line.split() for line in text.split("Frame Time:")[1].splitlines()[1:]], float)
    turns = np.delete(rows, [0, 1, 2], axis=1)
    hips = fit.motion.rotations["Hips"].as_euler("ZYX", degrees=True)
    assert np.abs(np.diff(hips, axis=0)).max() > 300
    # The heading is the middle angle and passes by the pole, where the outer ones are fast.
    assert np.abs(np.diff(turns, axis=0)).max() < 100
    assert np.ptp(rows[:, 3:6], axis=0).max() > 600
    assert np.abs(bvh_export.positions(bvh.parse(text, "a")) - joints).max() < 1e-5
    # The same joints as with SciPy's own angles, read by another reading of the file.
    places = bvhs.places(text)
    for joint in fit.motion.joints:
        if joint.channels:
            order = "".join(channel[0] for channel in joint.channels[-3:])
            rotations = fit.motion.rotations[joint.name]
            assert_same(euler.continuous(rotations, order), rotations, order)
    exact = bvh.forward_kinematics(fit.motion)
    assert max(np.abs(places[name] - exact[name]).max() for name in places) < 1e-3
