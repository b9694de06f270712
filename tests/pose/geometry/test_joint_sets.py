"""Joint sets: every conversion on a body whose points are known."""

import numpy as np
import pytest

from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.phantom import body
from jaxcxr.pose.phantom.actions import ACTIONS

NAMES = sorted(joint_sets.JOINT_SETS)


@pytest.fixture(scope="module")
def walk():
    """A walking person, `[frames, 17, 3]`, metres."""
    rng = np.random.default_rng(0)
    who = body.make_body(1)
    return body.place(who, ACTIONS["walk"](rng, who, np.arange(40) / 50), 50.0)


def points_of(known: joint_sets.JointSet, joints: np.ndarray) -> np.ndarray:
    """The set's points that are joints of Human3.6M; the others from joints near them."""
    near = {"nose": "neck", "skull": "neck", "head_center": "neck", "left_eye": "head",
            "right_eye": "head"}
    found = np.zeros((*joints.shape[:-2], len(known.joints), joints.shape[-1]))
    for index, name in enumerate(known.joints):
        name = near.get(name, name)
        if name in HUMAN36M.joints:
            found[..., index, :] = joints[..., HUMAN36M.index(name), :]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_round_trip_of_the_joints_that_a_set_has(walk, name):
    known = joint_sets.joint_set(name)
    found, seen = joint_sets.to_human36m(name)(points_of(known, walk))
    assert found.shape == walk.shape
    assert np.all(seen == 1)
    for row, joint in enumerate(HUMAN36M.joints):
        parts = known.human36m[joint]
        if isinstance(parts, str):
            np.testing.assert_allclose(found[:, row], walk[:, row], atol=1e-12, err_msg=joint)


def test_middles(walk):
    for name in ("coco", "mpii", "openpose25", "halpe26"):
        known = joint_sets.joint_set(name)
        found, _ = joint_sets.to_human36m(name)(points_of(known, walk))
        hip, thorax, spine = (found[:, HUMAN36M.index(n)] for n in ("hip", "thorax", "spine"))
        np.testing.assert_allclose(spine, (hip + thorax) / 2, atol=1e-12)
    coco, _ = joint_sets.to_human36m("coco")(points_of(joint_sets.joint_set("coco"), walk))
    shoulders = [walk[:, HUMAN36M.index(f"{side}_shoulder")] for side in ("left", "right")]
    np.testing.assert_allclose(coco[:, HUMAN36M.index("thorax")], sum(shoulders) / 2, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_those_of_points_so_that_moving_the_body_moves_the_joints(name):
    matrix = joint_sets.joint_set(name).matrix
    np.testing.assert_allclose(matrix.sum(1), 1)


@pytest.mark.parametrize("name", NAMES)
def test_left_and_right_are_never_mixed_up(name):
    known = joint_sets.joint_set(name)
    for row, joint in enumerate(HUMAN36M.joints):
        for column in np.flatnonzero(known.matrix[row]):
            for side in ("left_", "right_"):
                if joint.startswith(side):
                    assert known.joints[column].startswith(side)


def test_orders_of_the_published_formats():
    # Source: the symmetry lists of VideoPose3D's files and the data sets' own documentation.
    coco, mpii = joint_sets.joint_set("coco").joints, joint_sets.joint_set("mpii").joints
    assert all(coco[i].startswith("left") for i in range(1, 16, 2))
    assert all(coco[i].startswith("right") for i in range(2, 17, 2))
    assert all(mpii[i].startswith("left") for i in (3, 4, 5, 13, 14, 15))
    assert all(mpii[i].startswith("right") for i in (0, 1, 2, 10, 11, 12))
    jta = joint_sets.joint_set("jta22").joints
    assert [jta[i] for i in (0, 2, 4, 9, 16, 21)] == [
        "head", "thorax", "right_shoulder", "left_elbow", "right_hip", "left_ankle"]
    mpi = joint_sets.joint_set("openpose15").joints
    assert [mpi[i] for i in (0, 1, 2, 7, 8, 13)] == [
        "head", "thorax", "right_shoulder", "left_wrist", "right_hip", "left_ankle"]
    sizes = {"coco": 17, "mpii": 16, "openpose25": 25, "halpe26": 26, "smpl24": 24,
             "humaneva15": 15, "mpi_inf_3dhp": 17, "human36m": 17, "openpose15": 15,
             "totalcapture21": 21, "jta22": 22, "mediapipe33": 33}
    assert {name: len(joint_sets.joint_set(name).joints) for name in NAMES} == sizes
    assert all(len(set(joint_sets.joint_set(name).joints)) == sizes[name] for name in NAMES)


def test_unseen_points_make_unseen_joints():
    points = np.ones((1, 17, 2), np.float32)
    confidence = np.full((1, 17), 0.9, np.float32)
    confidence[0, 11] = 0  # left hip
    confidence[0, 6] = 0.4  # right shoulder
    points[0, 11] = np.nan
    found, seen = joint_sets.to_human36m("coco")(points, confidence)
    assert np.isfinite(found).all()
    for joint in ("hip", "spine", "left_hip"):
        assert seen[0, HUMAN36M.index(joint)] == 0
        assert np.all(found[0, HUMAN36M.index(joint)] == 0)
    assert seen[0, HUMAN36M.index("thorax")] == np.float32(0.4)
    assert seen[0, HUMAN36M.index("left_knee")] == np.float32(0.9)


def test_mistakes():
    with pytest.raises(UserError, match="Did you mean 'coco'"):
        joint_sets.to_human36m("cocoo")
    with pytest.raises(UserError, match="has 16 joints"):
        joint_sets.to_human36m("mpii")(np.zeros((2, 17, 2)))
