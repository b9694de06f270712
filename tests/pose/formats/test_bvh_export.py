"""Positions to BVH and back: exact with constant bones, residuals otherwise; continuous angles."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxcxr.errors import UserError
from jaxcxr.pose.formats import bvh, bvh_bodies, bvh_export
from jaxcxr.pose.formats.bvh_export import continuous_angles
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.phantom import actions, body
from tests.pose.formats import bvhs

FPS = 50.0
T = np.linspace(0, 1, 400)[:, None]


def moving(action=actions.walk, seconds=3, seed=0):
    """Positions of a person seen by a camera: x right, y down, z forward; and its skeleton."""
    who = body.make_body(1)
    t = np.arange(int(seconds * FPS)) / FPS
    world = body.place(who, action(np.random.default_rng(seed), who, t), FPS)
    return np.stack([world[..., 0], -world[..., 2], world[..., 1]], -1), who


def written(fit, tmp_path):
    """The motion as it is read from its file."""
    path = tmp_path / "a.bvh"
    path.write_text(bvh_export.to_text(fit.motion))
    return bvh.parse(path.read_text(), path.name)


@pytest.mark.parametrize("action", [actions.walk, actions.squat, actions.wave, actions.turn])
def test_a_phantom_is_read_back_to_a_tenth_of_a_millimetre(tmp_path, action):
    joints, who = moving(action)
    fit = bvh_export.fit(joints, FPS)
    assert fit.residual.max() < 0.01
    np.testing.assert_allclose(fit.lengths, np.linalg.norm(who.offsets[1:], axis=-1), atol=1e-9)
    motion = written(fit, tmp_path)
    np.testing.assert_allclose(motion.times, np.arange(len(joints)) / FPS, atol=1e-6)
    assert np.abs(bvh_export.positions(motion) - joints).max() < 1e-4


def test_another_reading_of_the_file_agrees(tmp_path):
    joints, _ = moving(seconds=0.5)
    places = bvhs.places(bvh_export.to_text(bvh_export.fit(joints, FPS).motion))
    for name, of in (("LeftHand", "left_wrist"), ("RightFoot", "right_ankle"),
                     ("Head_End", "head"), ("Neck", "thorax")):
        expected = joints[:, HUMAN36M.index(of)] * [100, -100, -100]
        np.testing.assert_allclose(places[name], expected, atol=0.02)


def test_the_reader_of_bvh_bodies_knows_the_skeleton(tmp_path):
    joints, _ = moving(seconds=0.5)
    motion = written(bvh_export.fit(joints, FPS), tmp_path)
    assert not bvh_bodies.has_defect(motion)
    found, _ = bvh_bodies.human36m_joints(motion, "a.bvh")
    measured = [i for i, name in enumerate(HUMAN36M.joints) if name not in ("hip", "spine")]
    back = np.stack([found[..., 0], -found[..., 2], found[..., 1]], -1)
    np.testing.assert_allclose(back[:, measured], joints[:, measured], atol=1e-4)


def test_any_pose_whatever_with_constant_bones_is_met(tmp_path):
    rng = np.random.default_rng(1)
    joints = np.zeros((40, 17, 3))
    lengths = rng.uniform(0.1, 0.5, 16)
    for child, parent in enumerate(HUMAN36M.parents):
        if parent >= 0:
            way = rng.normal(size=(40, 3))
            way /= np.linalg.norm(way, axis=-1, keepdims=True)
            joints[:, child] = joints[:, parent] + lengths[child - 1] * way
    joints += rng.normal(size=(40, 1, 3))
    fit = bvh_export.fit(joints, FPS)
    assert fit.residual.max() < 1e-6
    assert np.abs(bvh_export.positions(written(fit, tmp_path)) - joints).max() < 1e-4


def test_bones_that_change_leave_a_residual():
    joints, _ = moving(seconds=0.5)
    wrist, elbow = HUMAN36M.index("left_wrist"), HUMAN36M.index("left_elbow")
    bone = joints[3, wrist] - joints[3, elbow]
    joints[3, wrist] += 0.02 * bone / np.linalg.norm(bone)
    fit = bvh_export.fit(joints, FPS)
    assert fit.residual[3, wrist] == pytest.approx(20, abs=0.01)
    fit.residual[3, wrist] = 0
    assert fit.residual.max() < 0.01


def test_symmetric_bones():
    joints, _ = moving(seconds=0.5)
    knee, ankle = HUMAN36M.index("left_knee"), HUMAN36M.index("left_ankle")
    joints[:, ankle] += 0.1 * (joints[:, ankle] - joints[:, knee])
    fit = bvh_export.fit(joints, FPS, symmetric=True)
    left, right = ([i - 1 for i in side] for side in (HUMAN36M.left, HUMAN36M.right))
    np.testing.assert_allclose(fit.lengths[left], fit.lengths[right])
    shin = np.linalg.norm(joints[0, ankle] - joints[0, knee])
    assert fit.residual[:, ankle].mean() == pytest.approx(1000 * shin * (1 - 1.05 / 1.1), rel=1e-3)


def test_swings_are_the_smallest_rotations():
    rng = np.random.default_rng(2)
    rest = np.array([0.0, -1.0, 0.0])
    wanted = rng.normal(size=(50, 3))
    turn = bvh_export.swing(rest, wanted)
    unit = wanted / np.linalg.norm(wanted, axis=-1, keepdims=True)
    np.testing.assert_allclose(turn @ rest, unit, atol=1e-12)
    np.testing.assert_allclose(Rotation.from_matrix(turn).magnitude(), np.arccos(unit @ rest))
    special = bvh_export.swing(rest, np.array([[0, 2.0, 0], [0, -3.0, 0], [0, 0, 0]]))
    np.testing.assert_allclose(special @ rest, [[0, 1, 0], rest, rest], atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(special), 1)


def test_a_person_at_rest_has_no_rotation_and_the_spine_turns_with_the_shoulders():
    joints = bvh_export.positions(bvh_export.fit(moving(seconds=0.1)[0], FPS).motion)
    rest = bvh_export.fit(joints, FPS).motion
    still = bvh.Motion(
        rest.joints, rest.times[:1],
        {name: Rotation.identity(1) for name in rest.rotations}, {"Hips": np.zeros((1, 3))},
    )
    again = bvh_export.fit(bvh_export.positions(still), FPS).motion
    assert max(turn.magnitude().max() for turn in again.rotations.values()) < 1e-6
    turned = dict(still.rotations) | {"Spine": Rotation.from_euler("y", [[40]], degrees=True)}
    bent = bvh.Motion(still.joints, still.times, turned, still.positions)
    found = bvh_export.fit(bvh_export.positions(bent), FPS).motion.rotations
    assert np.degrees(found["Spine"].magnitude()) == pytest.approx(40)
    assert max(found[name].magnitude().max() for name in ("LeftShoulder", "LowerBack")) < 1e-6


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_collapsed_poses_are_no_crash(value, tmp_path):
    fit = bvh_export.fit(np.full((3, 17, 3), value), FPS)
    assert fit.residual.max() < 1e-6
    assert len(written(fit, tmp_path).times) == 3


@pytest.mark.parametrize(("joints", "message"), [
    (np.zeros((0, 17, 3)), "at least one frame"), (np.zeros((2, 16, 3)), r"\[2, 16, 3\]"),
    (np.full((2, 17, 3), np.nan), "frame 0 is not finite"),
])
def test_what_is_no_motion(joints, message):
    with pytest.raises(UserError, match=message):
        bvh_export.fit(joints, FPS)


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
        angles = continuous_angles(rotations, order)
        assert_same(angles, rotations, order)
        # The angles that made the rotations, but for another triple and whole turns at the start.
        step = np.abs(np.diff(angles, axis=0)).max()
        assert step == pytest.approx(np.abs(np.diff(true, axis=0)).max(), abs=1e-4)


def test_scipys_own_angles_jump_there():
    true = np.array([[0.0, 400.0, 0.0]]) * T
    rotations = Rotation.from_euler("ZYX", true, degrees=True)
    assert np.abs(np.diff(rotations.as_euler("ZYX", degrees=True), axis=0)).max() > 170
    np.testing.assert_allclose(continuous_angles(rotations, "ZYX"), true, atol=1e-6)


@pytest.mark.parametrize("pole", [90.0, -90.0])
@pytest.mark.parametrize("order", ["ZYX", "XZY"])
def test_at_the_pole_the_outer_angles_share_what_changes(order, pole):
    first = np.interp(T[:, 0], [0, 1], [-100, 200])
    true = np.column_stack([first, np.full(400, pole), np.full(400, 30.0)])
    rotations = Rotation.from_euler(order, true, degrees=True)
    angles = continuous_angles(rotations, order)
    assert_same(angles, rotations, order)
    assert np.abs(np.diff(angles, axis=0)).max() < 0.5  # half of 300 / 399 degrees
    # Through the pole, and staying there for a while in the middle.
    middle = np.clip(np.interp(T[:, 0], [0, 0.4, 0.6, 1], [0, pole, pole, 0]), -90, 90)
    true = np.column_stack([20 + 10 * T[:, 0], middle, np.full(400, 30.0)])
    rotations = Rotation.from_euler(order, true, degrees=True)
    angles = continuous_angles(rotations, order)
    assert_same(angles, rotations, order)
    # Back from the pole the other triple may be the near one, by the half of what was shared.
    assert np.abs(np.diff(angles, axis=0)).max() < 15


def test_one_frame_and_no_rotation():
    np.testing.assert_array_equal(continuous_angles(Rotation.identity(1), "ZYX"), [[0, 0, 0]])
    np.testing.assert_allclose(continuous_angles(Rotation.identity(7), "ZYX"), np.zeros((7, 3)))
    lock = Rotation.from_euler("ZYX", [[10, 90, 20]] * 3, degrees=True)
    assert_same(continuous_angles(lock, "ZYX"), lock, "ZYX")


def test_a_person_who_turns_round_and_round_is_written_without_jumps(tmp_path):
    who = body.make_body(1)
    t = np.arange(300) / 50.0
    world = body.place(who, actions.walk(np.random.default_rng(0), who, t), 50.0)
    turn = Rotation.from_euler("z", np.linspace(0, 4 * np.pi, 300)[:, None]).as_matrix()
    world = np.einsum("fab,fjb->fja", turn.reshape(-1, 3, 3), world)
    joints = np.stack([world[..., 0], -world[..., 2], world[..., 1]], -1)
    fit = bvh_export.fit(joints, 50.0)
    text = bvh_export.to_text(fit.motion)
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
            assert_same(continuous_angles(rotations, order), rotations, order)
    exact = bvh.forward_kinematics(fit.motion)
    assert max(np.abs(places[name] - exact[name]).max() for name in places) < 1e-3
