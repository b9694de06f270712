"""ASF/AMC: hand-computed poses, and CMU's own BVH conversion of the same clip."""

import zipfile

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxcxr.errors import UserError
from jaxcxr.pose.formats import asf_amc
from tests.pose.formats import bvhs

ASF = """# a comment
:version 1.10
:name TEST
:units
  mass 1.0
  length 0.5
  angle deg
:root
   order TX TY TZ RX RY RZ
   axis XYZ
   position 0 0 0
   orientation 0 0 0
:bonedata
  begin
     id 1
     name upper
     direction 1 0 0
     length 2
     axis 0 0 90 XYZ
    dof rx rz
    limits (-90 90)
           (-90 90)
  end
  begin
     id 2
     name lower
     direction 0 1 0
     length 3
     axis 0 0 0 XYZ
  end
:hierarchy
  begin
    root upper
    upper lower
  end
"""
AMC = """#!OML:ASF x
:FULLY-SPECIFIED
:DEGREES
1
root 1 2 3 0 0 0
upper 0 0
2
root 1 2 3 0 0 0
upper 90 0

# a comment between frames
3
upper 0 90
root 1 2 3 0 0 90
"""
UNIT = 0.0254 / 0.5


def _ends(asf=ASF, amc=AMC):
    skeleton = asf_amc.parse_asf(asf, "a.asf")
    return asf_amc.forward_kinematics(skeleton, asf_amc.parse_amc(amc, skeleton, "a.amc"))


def test_poses_computed_by_hand():
    ends = _ends()
    root = np.array([1.0, 2.0, 3.0])
    # Frame 1 is the rest pose. In frame 2 the bone turns by 90 degrees about the x axis of its own
    # frame, which is the world's y: x goes to -z, y stays.
    expected = root + np.array([(2, 0, 0), (0, 0, -2)])
    np.testing.assert_allclose(ends["upper"][:2], UNIT * expected, atol=1e-12)
    hanging = ends["lower"][:2] - ends["upper"][:2]
    np.testing.assert_allclose(hanging, [(0, 3 * UNIT, 0)] * 2, atol=1e-12)
    # In frame 3 root and bone turn by 90 degrees about z each: x goes to -x, y to -y.
    np.testing.assert_allclose(ends["upper"][2], UNIT * (root - (2, 0, 0)), atol=1e-12)
    np.testing.assert_allclose(ends["lower"][2], UNIT * (root - (2, 3, 0)), atol=1e-12)


def test_order_of_rotation_is_z_after_y_after_x():
    amc = "1\nroot 0 0 0 20 30 40\nupper 0 0\n"
    turn = (Rotation.from_rotvec([0, 0, np.radians(40)])
            * Rotation.from_rotvec([0, np.radians(30), 0])
            * Rotation.from_rotvec([np.radians(20), 0, 0]))
    np.testing.assert_allclose(_ends(amc=amc)["upper"][0], UNIT * turn.apply([2, 0, 0]))


@pytest.mark.parametrize(
    ("asf", "amc"),
    [
        (ASF.replace("\n", "\r\n"), AMC.replace("\n", "\r\n")),
        (ASF.replace("    dof rx rz", "    DOF rz rx".lower()),
         AMC.replace("upper 90 0", "upper 0 90").replace("upper 0 90\nroot", "upper 90 0\nroot")),
        (ASF.replace("order TX TY TZ RX RY RZ", "order RX RY RZ TX TY TZ"),
         AMC.replace("1 2 3 0 0 90", "0 0 90 1 2 3").replace("1 2 3 0 0 0", "0 0 0 1 2 3")),
        (ASF, AMC.replace("DEGREES", "RADIANS").replace(" 90", f" {np.pi / 2}")),
        (ASF.replace("angle deg", "angle rad").replace(" 90 XYZ", f" {np.pi / 2} XYZ"), AMC),
    ],
    ids=["crlf", "dof order", "root order", "radians", "radians in the skeleton"],
)
def test_the_same_motion_written_otherwise(asf, amc):
    plain, other = _ends(), _ends(asf, amc)
    for bone, expected in plain.items():
        np.testing.assert_allclose(other[bone], expected, atol=1e-12)


def test_missing_frames_are_filled_in_time():
    skeleton = asf_amc.parse_asf(ASF, "a.asf")
    full = "".join(f"{i}\nroot {i} 0 0 0 0 0\nupper {10 * i} 0\n" for i in range(1, 10))
    gaps = "".join(f"{i}\nroot {i} 0 0 0 0 0\nupper {10 * i} 0\n" for i in (1, 2, 5, 9))
    ends = [
        asf_amc.forward_kinematics(
            skeleton, asf_amc.resample(asf_amc.parse_amc(text, skeleton, "a.amc"), 120.0)
        )
        for text in (full, gaps)
    ]
    assert len(ends[1]["lower"]) == 9
    np.testing.assert_allclose(ends[1]["lower"], ends[0]["lower"], atol=1e-12)


def test_resampling_keeps_bone_lengths_and_follows_a_turn():
    skeleton = asf_amc.parse_asf(ASF, "a.asf")
    rate = 3.0  # degrees per frame of 120 per second
    text = "".join(f"{i + 1}\nroot {i} 0 0 0 0 {rate * i}\nupper 0 0\n" for i in range(121))
    motion = asf_amc.resample(asf_amc.parse_amc(text, skeleton, "a.amc"), 50.0)
    ends = asf_amc.forward_kinematics(skeleton, motion)
    assert len(motion.times) == 51
    np.testing.assert_allclose(motion.times, np.arange(51) / 50)
    angle = np.radians(rate * 120 * motion.times)
    arm = ends["upper"] - ends["root"]
    expected = 2 * UNIT * np.stack([np.cos(angle), np.sin(angle), 0 * angle], -1)
    np.testing.assert_allclose(arm, expected, atol=1e-12)
    np.testing.assert_allclose(ends["root"][:, 0], UNIT * 120 * motion.times, atol=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("upper 90 0", "upper 90", r"a\.amc, line 9: expected 2 numbers, found '90'"),
        ("upper 90 0", "upper 90 x", r"a\.amc, line 9: '90 x' should be numbers"),
        ("upper 90 0", "upper nan 0", r"a\.amc, line 9: expected 2 numbers"),
        ("upper 90 0\n", "", r"a\.amc, line 11: frame 2 ends without upper"),
        ("upper 90 0", "tail 90 0", r"a\.amc, line 9: 'tail' is no moving bone"),
        ("upper 90 0", "upper 90 0\nupper 1 1", r"a\.amc, line 10: bone 'upper' comes twice"),
        ("\n3\n", "\n2\n", r"a\.amc, line 12: frame 2 follows frame 2"),
        ("\n3\n", "\n99\n", r"a\.amc, line 12: frame 99 follows frame 2"),
        ("root 1 2 3 0 0 90\n", "", r"a\.amc, line 13: frame 3 ends without root"),
        (AMC, "# nothing\n", r"a\.amc has no frame"),
    ],
)
def test_malformed_motion_names_file_and_line(old, new, message):
    assert old in AMC
    skeleton = asf_amc.parse_asf(ASF, "a.asf")
    with pytest.raises(UserError, match=message):
        asf_amc.parse_amc(AMC.replace(old, new), skeleton, "a.amc")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("length 2", "length two", r"line 18: 'two' should be numbers"),
        ("direction 1 0 0", "direction 1 0", r"line 17: expected 3 numbers"),
        ("direction 1 0 0", "direction 0 0 0", r"line 17: bone 'upper' has no direction"),
        ("     length 2\n", "", r"line 14: bone 'upper' has no length"),
        ("90 XYZ", "90 XYY", r"line 19: .* should end in an order"),
        ("dof rx rz", "dof rx l", r"line 20: only rx, ry and rz"),
        ("upper lower", "upper lower other", r"line 34: bone 'other' has no entry"),
        ("root upper\n    upper lower", "upper lower\n    root upper", r"line 33: parent 'upper'"),
        ("    upper lower\n", "", "without a place in the hierarchy: lower"),
        (":bonedata", ":bones", "has no :bonedata section"),
        (":version 1.10", "1.10", r"line 2: '1.10' stands before"),
    ],
)
def test_malformed_skeleton_names_file_and_line(old, new, message):
    assert old in ASF
    with pytest.raises(UserError, match=r"a\.asf.*" + message):
        asf_amc.parse_asf(ASF.replace(old, new), "a.asf")


@pytest.fixture(scope="module")
def real_clip(shared_data):
    with zipfile.ZipFile(shared_data / "cmu_mocap" / "allasfamc.zip") as archive:
        folder = "all_asfamc/subjects/01"
        skeleton = asf_amc.parse_asf(archive.read(f"{folder}/01.asf").decode(), "01.asf")
        text = archive.read(f"{folder}/01_01.amc").decode()
    return skeleton, asf_amc.parse_amc(text, skeleton, "01_01.amc")


def test_legs_agree_with_the_bvh_conversion(real_clip, shared_data):
    # Its upper body is known to be 117 mm too low; its legs are right.
    ends = asf_amc.forward_kinematics(*real_clip)
    bvh = bvhs.places((shared_data / "cmu_mocap" / "01_01.bvh").read_text())
    pairs = {"lhipjoint": "LeftUpLeg", "lfemur": "LeftLeg", "ltibia": "LeftFoot",
             "rhipjoint": "RightUpLeg", "rfemur": "RightLeg", "rtibia": "RightFoot"}
    for bone, joint in pairs.items():
        theirs = bvh[joint][1:] * 0.0254 / 0.45  # the first frame is an added T-pose
        np.testing.assert_allclose(ends[bone], theirs, atol=1e-3)


def test_real_bones_keep_their_lengths_at_both_rates(real_clip):
    skeleton, motion = real_clip
    assert len(motion.times) == 2751
    slower = asf_amc.resample(motion, 50.0)
    assert len(slower.times) == 1146
    for moved in (motion, slower):
        ends = asf_amc.forward_kinematics(skeleton, moved)
        for bone in skeleton.bones[1:]:
            start = ends[skeleton.names[bone.parent]]
            lengths = np.linalg.norm(ends[bone.name] - start, axis=-1)
            assert np.abs(lengths - bone.length).max() < 1e-6
