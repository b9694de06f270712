"""BVH: a second reading of the same files, resampling, writing, and damage."""

import numpy as np
import pytest

from jaxcxr.errors import UserError
from jaxcxr.pose.formats import bvh, bvh_bodies, bvh_export
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.sources import cmu_mocap
from tests.pose.formats import bvhs
from tests.pose.sources import fuzz


@pytest.mark.parametrize("kind", list(bvhs.BODIES))
@pytest.mark.parametrize("order", ["ZYX", "ZXY", "XYZ"])
def test_joints_are_where_a_second_reading_sees_them(kind, order):
    text = bvhs.text(bvhs.BODIES[kind](), order=order)
    found = bvh.forward_kinematics(bvh.parse(text, "a.bvh"))
    expected = bvhs.places(text)
    assert found.keys() == expected.keys()
    for name, place in expected.items():
        np.testing.assert_allclose(found[name], place, atol=1e-9)


def test_blanks_tabs_and_line_ends_do_not_matter():
    text = bvhs.text(bvhs.daz())
    other = text.replace("\n", " \t\r\n\r\n").replace("OFFSET", "\tOFFSET  ")
    one, two = (bvh.forward_kinematics(bvh.parse(t, "a.bvh")) for t in (text, other))
    for name, place in one.items():
        np.testing.assert_array_equal(place, two[name])


def test_writing_and_reading_back(tmp_path):
    motion = bvh.parse(bvhs.text(bvhs.bandai()), "a.bvh")
    text = bvh_export.to_text(motion)
    again = bvh.parse(text, "b.bvh")
    assert again.names == motion.names
    np.testing.assert_allclose(again.times, motion.times, atol=1e-6)
    one, two = bvh.forward_kinematics(motion), bvhs.places(text)
    for name, place in one.items():
        np.testing.assert_allclose(two[name], place, atol=1e-4)


def test_resampling_keeps_bones_and_meets_the_frames_that_stay():
    motion = bvh.parse(bvhs.text(bvhs.daz(), frames=121), "a.bvh")
    slower = bvh.resample(motion, 60.0)
    assert len(slower.times) == 61
    one, two = bvh.forward_kinematics(motion), bvh.forward_kinematics(slower)
    for name in ("lHand", "head", "rFoot"):
        np.testing.assert_allclose(two[name], one[name][::2], atol=1e-3)
    other = bvh.resample(motion, 50.0)
    joints, _ = bvh_bodies.human36m_joints(other, "a.bvh")
    upper_arms = HUMAN36M.bone_lengths(joints)[:, [HUMAN36M.bones.index((11, 12))]]
    assert np.ptp(upper_arms) < 1e-6


@pytest.mark.parametrize(("kind", "unit", "thigh"), [
    ("motionbuilder", 0.0254 / 0.45, 7), ("daz", 0.01, 40), ("bandai", 0.01, 40),
])
def test_seventeen_joints_of_each_kind(kind, unit, thigh):
    motion = bvh.parse(bvhs.text(bvhs.BODIES[kind]()), "a.bvh")
    joints, remark = bvh_bodies.human36m_joints(motion, "a.bvh")
    assert {"motionbuilder": "CMU's unit"}.get(kind, "1 cm") in remark
    assert "y is up" in remark
    assert joints.shape == (30, 17, 3)
    lengths = HUMAN36M.bone_lengths(joints)
    np.testing.assert_allclose(lengths[:, HUMAN36M.bones.index((1, 2))], thigh * unit, atol=1e-6)
    up = joints[:, HUMAN36M.index("head"), 2] - joints[:, HUMAN36M.index("left_ankle"), 2]
    assert np.all(up > 0.9)
    # The skeletons face +y of the file's z axis: left is at +x.
    assert np.all(joints[:, HUMAN36M.index("left_hip"), 0]
                  > joints[:, HUMAN36M.index("right_hip"), 0])
    above = joints[:, HUMAN36M.index("head")] - joints[:, HUMAN36M.index("neck")]
    assert np.all(np.linalg.norm(above, axis=-1) > 0.05)


def test_lost_vectors_are_seen_and_restored_only_where_they_were_lost():
    lost = bvh.parse(bvhs.text(bvhs.motionbuilder()), "a.bvh")
    assert bvh_bodies.has_defect(lost)
    whole = bvh_bodies.repair(lost)
    assert not bvh_bodies.has_defect(whole)
    for name in ("Neck", "LeftShoulder", "RightShoulder"):
        np.testing.assert_array_equal(whole[name].offset, lost["Spine1"].offset)
    assert not bvh_bodies.has_defect(bvh.parse(bvhs.text(bvhs.daz()), "a.bvh"))
    np.testing.assert_array_equal(
        bvh_bodies.human36m_joints(whole, "a")[0], bvh_bodies.human36m_joints(lost, "a")[0]
    )


def test_a_frame_at_rest_before_the_motion_is_seen():
    for kind in bvhs.BODIES.values():
        assert bvh_bodies.starts_at_rest(bvh.parse(bvhs.text(kind(), rest=True), "a"))
        assert not bvh_bodies.starts_at_rest(bvh.parse(bvhs.text(kind()), "a"))
        still = bvhs.text(kind(), rest=True).rsplit("\n", 30)[0]
        still = still.replace("Frames: 30", "Frames: 1")
        assert not bvh_bodies.starts_at_rest(bvh.parse(still, "a"))


def test_the_repaired_conversion_is_within_six_millimetres_of_the_original(shared_data):
    text = (shared_data / "cmu_mocap" / "01_01.bvh").read_text()
    motion = bvh.parse(text, "01_01.bvh")
    assert bvh_bodies.starts_at_rest(motion)
    assert bvh_bodies.has_defect(motion)
    motion = bvh.without_first_frame(motion)
    clips = cmu_mocap.find_clips(shared_data / "cmu_mocap")
    original = cmu_mocap.load_clip(next(c for c in clips if c.name == "01_01"), fps=120.0)

    def residual(joints):
        return np.linalg.norm(joints - original, axis=-1).max()

    assert residual(bvh_bodies.human36m_joints(motion, "01_01.bvh")[0]) < 0.006
    as_it_is = bvh.forward_kinematics(motion)["Neck"] * 0.0254 / 0.45
    thorax = original[:, HUMAN36M.index("thorax")]
    lost = np.linalg.norm(np.stack([as_it_is[:, 0], -as_it_is[:, 2], as_it_is[:, 1]], -1) - thorax,
                          axis=-1)
    assert 0.10 < lost.mean() < 0.13


TEXT = bvhs.text(bvhs.daz(), frames=3)


@pytest.mark.parametrize(("old", "new", "message"), [
    ("HIERARCHY", "HIERARCHIE", "expected HIERARCHY, found 'HIERARCHIE'"),
    ("JOINT chest", "JOINT abdomen", "'abdomen' comes twice"),
    ("OFFSET 0.00000 20.00000", "OFFSET 0.00000 tall", "expected a number, found 'tall'"),
    ("OFFSET 0.00000 20.00000", "OFFSET 0.00000 nan", "expected a number, found 'nan'"),
    ("CHANNELS 6", "CHANNELS 9", "'hip' has 9 channels"),
    ("Xposition Yposition", "Xposition Xposition", "the same channel twice"),
    ("Zrotation", "Wrotation", "expected xposition or"),
    ("Frames: 3", "Frames: 4", "3 frames, where the file announces 4"),
    ("Frames: 3", "Frames: 0", "announces 0 frames"),
    ("Frame Time: 0.0083333", "Frame Time: -1", "lasts -1 s"),
    ("Frame Time: 0.0083333", "Frame Time: 0", "lasts 0 s; give the frames per second"),
    ("MOTION", "", "expected MOTION"),
])
def test_malformed_files_name_file_and_line(old, new, message):
    assert old in TEXT
    with pytest.raises(UserError, match=r"a\.bvh, line \d+: .*" + message):
        bvh.parse(TEXT.replace(old, new, 1), "a.bvh")


def test_truncated_files_name_file_and_line():
    for part in (0.1, 0.3, 0.6, 0.9, 0.98):
        with pytest.raises(UserError, match=r"a\.bvh, line \d+"):
            bvh.parse(TEXT[: int(part * len(TEXT))], "a.bvh")


def test_damaged_files(tmp_path):
    path = tmp_path / "a.bvh"

    def read(content):
        path.write_bytes(content)
        bvh.parse(path.read_text(encoding="latin-1"), path.name)

    fuzz.assert_only_user_errors(read, TEXT.encode(), "a.bvh")


def test_joints_within_joints_without_end_are_no_crash():
    chain = "".join(f"JOINT j{i}\n{{\nOFFSET 0 0 0\nCHANNELS 0\n" for i in range(3000))
    with pytest.raises(UserError, match="too deep"):
        bvh.parse(f"HIERARCHY\nROOT r\n{{\nOFFSET 0 0 0\nCHANNELS 0\n{chain}", "a.bvh")


def test_unknown_skeletons_and_units_are_sentences():
    motion = bvh.parse(TEXT.replace("rShin", "rMiddle"), "a.bvh")
    with pytest.raises(UserError, match=r"no joint is known as right_knee among hip, .*rMiddle"):
        bvh_bodies.human36m_joints(motion, "a.bvh")
    named = bvh_bodies.Reading(names={"right_knee": "RMIDDLE"})
    np.testing.assert_array_equal(
        bvh_bodies.human36m_joints(motion, "a.bvh", named)[0],
        bvh_bodies.human36m_joints(bvh.parse(TEXT, "a.bvh"), "a.bvh")[0],
    )
    motion = bvh.parse(TEXT, "a.bvh")
    with pytest.raises(UserError, match="a leg is 80 m long with 1 m per unit"):
        bvh_bodies.human36m_joints(motion, "a.bvh", bvh_bodies.Reading(unit=1.0))
    headless = bvh.parse(TEXT.replace("Eye", "Ear"), "a.bvh")
    with pytest.raises(UserError, match=r"line \d+: the joint 'head' has no end.*--head=0.18"):
        bvh_bodies.human36m_joints(headless, "a.bvh")
    joints, _ = bvh_bodies.human36m_joints(headless, "a.bvh", bvh_bodies.Reading(head=0.2))
    bone = HUMAN36M.bones.index((HUMAN36M.index("neck"), HUMAN36M.index("head")))
    np.testing.assert_allclose(HUMAN36M.bone_lengths(joints)[:, bone], 0.2, atol=1e-9)
