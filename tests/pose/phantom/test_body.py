"""Forward kinematics of the drawn bodies against anatomy."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.phantom import body


def _pose(**degrees):
    curves = {name: np.array([float(value)]) for name, value in degrees.items()}
    return body.forward_kinematics(body.make_body(1), curves or {"right_knee": np.zeros(1)})[0]


def _at(pose, joint):
    return pose[HUMAN36M.index(joint)]


def test_standing_is_upright_with_left_on_the_left():
    pose = _pose()
    heights = [_at(pose, name)[2] for name in ("left_ankle", "left_knee", "hip", "spine", "head")]
    assert heights == sorted(heights)
    for joint in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist"):
        left, right = _at(pose, f"left_{joint}"), _at(pose, f"right_{joint}")
        assert left == pytest.approx(right * (1, -1, 1))
        assert left[1] > 0  # y points to the left


@pytest.mark.parametrize(
    ("curve", "joint", "axis", "sign"),
    [
        ("hip_flex", "knee", 0, 1),
        ("knee", "ankle", 0, -1),
        ("shoulder_flex", "wrist", 0, 1),
        ("elbow", "wrist", 0, 1),
        ("shoulder_abduct", "elbow", 2, 1),
    ],
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_each_angle_moves_its_limb_the_right_way(side, curve, joint, axis, sign):
    moved = _at(_pose(**{f"{side}_{curve}": 40}), f"{side}_{joint}")
    rest = _at(_pose(), f"{side}_{joint}")
    assert sign * (moved - rest)[axis] > 0.03


@pytest.mark.parametrize(("side", "sign"), [("left", 1), ("right", -1)])
def test_abduction_goes_outward_and_outward_twist_raises_the_forearm(side, sign):
    raised = _pose(**{f"{side}_shoulder_abduct": 90})
    assert sign * (_at(raised, f"{side}_elbow") - _at(raised, f"{side}_shoulder"))[1] > 0.2
    turned = {"shoulder_abduct": 90, "shoulder_twist": 90, "elbow": 90}
    waving = _pose(**{f"{side}_{name}": value for name, value in turned.items()})
    assert (_at(waving, f"{side}_wrist") - _at(waving, f"{side}_elbow"))[2] > 0.2


def test_the_right_angle_chain_agrees_with_composed_rotations():
    # Knee of 30 within a hip of 50: the shin hangs 20 degrees forward of the vertical.
    pose = _pose(left_hip_flex=50, left_knee=30)
    shin = _at(pose, "left_ankle") - _at(pose, "left_knee")
    expected = Rotation.from_euler("y", -20, degrees=True).apply([0, 0, -np.linalg.norm(shin)])
    assert shin == pytest.approx(expected)


def test_angles_stop_at_the_limits():
    assert _pose(left_knee=-50) == pytest.approx(_pose(left_knee=0))
    assert _pose(left_knee=300) == pytest.approx(_pose(left_knee=body.LIMITS["knee"][1]))


def test_bodies_differ_and_repeat():
    statures = {}
    for index in range(1, 30):
        offsets = body.make_body(index).offsets
        assert np.array_equal(offsets, body.make_body(index).offsets)
        statures[index] = offsets[[7, 8, 9, 10], 2].sum() - offsets[[2, 3], 2].sum()
        # Both sides of a person are alike.
        assert offsets[list(HUMAN36M.left)] == pytest.approx(
            offsets[list(HUMAN36M.right)] * (1, -1, 1)
        )
    values = np.array(list(statures.values()))
    assert len(np.unique(values)) == 29
    assert 1.3 < values.min() < values.max() < 2.0
