"""The Human3.6M skeleton against facts that hold for any tree of joints."""

import dataclasses

import numpy as np
import pytest

from jaxcxr.errors import UserError
from jaxcxr.pose.geometry.skeletons import HUMAN36M


def test_parents_are_those_of_videopose3d():
    assert HUMAN36M.parents == (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
    assert HUMAN36M.name == "human36m"


def test_swap_exchanges_names_and_keeps_the_tree():
    swap = HUMAN36M.swap
    other = {"left": "right", "right": "left"}
    for joint, name in enumerate(HUMAN36M.joints):
        side, _, rest = name.partition("_")
        expected = f"{other[side]}_{rest}" if side in other else name
        assert HUMAN36M.joints[swap[joint]] == expected
    assert {(swap[a], swap[b]) for a, b in HUMAN36M.bones} == set(HUMAN36M.bones)


def test_hops_are_a_metric_of_the_tree():
    hops = HUMAN36M.hops
    assert np.array_equal(hops, hops.T)
    assert np.array_equal(np.diag(hops), np.zeros(17))
    assert all(hops[a, b] == 1 for a, b in HUMAN36M.bones)
    assert (hops == 1).sum() == 2 * len(HUMAN36M.bones)
    assert (hops <= hops[:, :, None].transpose(0, 2, 1) + hops[None]).all()
    wrists = HUMAN36M.index("left_wrist"), HUMAN36M.index("right_wrist")
    assert hops[wrists] == 6  # elbow, shoulder, thorax, shoulder, elbow, wrist
    assert hops[0, wrists[0]] == 5  # spine, thorax, shoulder, elbow, wrist


def test_bone_lengths_follow_the_positions():
    positions = np.zeros((2, 17, 3))
    positions[1, 3] = (3.0, 4.0, 0.0)
    lengths = HUMAN36M.bone_lengths(positions)
    assert lengths.shape == (2, 16)
    assert lengths[1, HUMAN36M.bones.index((2, 3))] == 5.0
    assert lengths.sum() == 5.0


def test_a_child_before_its_parent_is_refused():
    with pytest.raises(ValueError, match="before its children"):
        dataclasses.replace(HUMAN36M, parents=(-1, 2, 1, *HUMAN36M.parents[3:]))


def test_unknown_joint_is_named():
    with pytest.raises(UserError, match="'nose'"):
        HUMAN36M.index("nose")
