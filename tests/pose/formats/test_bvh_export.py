"""Positions to BVH and back: exact with constant bones, residuals otherwise."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxcxr.errors import UserError
from jaxcxr.pose.formats import bvh, bvh_bodies, bvh_export
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.phantom import actions, body
from tests.pose.formats import bvhs

FPS = 50.0


def moving(action=actions.walk, seconds=3, seed=0):
    """Positions of a person seen by a camera: x right, y down, z forward; and its skeleton."""
    who = body.make_body(1)
    t = np.arange(int(seconds * FPS)) / FPS
    world = body.place(who, action(np.random.default_rng(seed), who, t), FPS)
    return np.stack([world[..., 0], -world[..., 2], world[..., 1]], -1), who


def written(fit, tmp_path):
    """The motion as it is read from its file."""
    path = tmp_path / "a.bvh"
    path.write_text(bvh.to_text(fit.motion))
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
    places = bvhs.places(bvh.to_text(bvh_export.fit(joints, FPS).motion))
    for name, of in (("LeftHand", "left_wrist"), ("RightFoot", "right_ankle"),
                     ("Head_End", "head"), ("Neck", "thorax")):
        expected = joints[:, HUMAN36M.index(of)] * [100, -100, -100]
        np.testing.assert_allclose(places[name], expected, atol=0.02)


def test_the_reader_of_bvh_bodies_knows_the_skeleton(tmp_path):
    joints, _ = moving(seconds=0.5)
    motion = written(bvh_export.fit(joints, FPS), tmp_path)
    assert not bvh_bodies.has_defect(motion)
    found = bvh_bodies.human36m_joints(motion, "a.bvh", unit=0.01)
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
