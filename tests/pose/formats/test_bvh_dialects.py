"""BVH dialects: the same motion under other names, separators, encodings, units and axes."""

import itertools
import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxcxr.data import text_files
from jaxcxr.errors import UserError
from jaxcxr.pose.formats import bvh, bvh_bodies
from tests.pose.formats import bvhs

_ARM = ("Shoulder", "Arm", "ForeArm", "Hand")
_LEG = ("UpLeg", "Leg", "Foot", "ToeBase")


def _tree():
    """A person of 1.7 m in centimetres with toes and the end of the head, left at +x."""
    def leg(word, x):
        return (f"{word}UpLeg", (9 * x, -5, 0), [(f"{word}Leg", (0, -42, 0), [
            (f"{word}Foot", (0, -41, 0), [(f"{word}ToeBase", (0, -6, 14), [])])])])

    def arm(word, x):
        return (f"{word}Shoulder", (4 * x, 10, 0), [(f"{word}Arm", (13 * x, 0, 0), [
            (f"{word}ForeArm", (28 * x, 0, 0), [(f"{word}Hand", (25 * x, 0, 0), [])])])])

    neck = ("Neck", (0, 14, 0), [("Head", (0, 10, 0), [])])
    spine = ("Spine", (0, 12, 0), [("Spine1", (0, 14, 0), [
        ("Spine2", (0, 14, 0), [neck, arm("Left", 1), arm("Right", -1)])])])
    return ("Hips", (0, 92, 0), [leg("Left", 1), leg("Right", -1), spine])


PLAIN = bvhs.text(_tree(), fps=30)
NAMES = ["Hips", "Spine", "Spine1", "Spine2", "Neck", "Head"] + [
    side + part for side in ("Left", "Right") for part in (*_LEG, *_ARM)
]


def joints(text, **reading):
    return bvh_bodies.human36m_joints(
        bvh.parse(text, "a.bvh"), "a.bvh", bvh_bodies.Reading(**reading)
    )[0]


def renamed(new) -> str:
    """The plain file with other names, by a function or by names in the order of `NAMES`."""
    table = {old: new(old) for old in NAMES} if callable(new) else (
        dict(zip(NAMES, new, strict=True)))
    return re.sub(r"(ROOT|JOINT) (\w+)", lambda m: f"{m[1]} {table[m[2]]}", PLAIN)


def sided(trunk, leg, arm, pattern, sides):
    return [*trunk, *(pattern.format(side=side, part=part) for side in sides
                      for part in (*leg, *arm))]


_DIALECTS = {
    "mixamo": lambda name: f"mixamorig:{name}",
    "mixamo numbered": lambda name: f"mixamorig9:{name}",
    "mixamo without colon": lambda name: f"mixamorig{name}",
    "nested namespaces": lambda name: f"scene:actor_01:{name}",
    "a person's prefix": lambda name: f"Bob_{name}",
    "character1": lambda name: f"Character1_{name}",
    "spaces": lambda name: "Bip01 " + name.replace("Left", "Left ").replace("Right", "Right "),
    "lower case": str.lower,
    "upper case": str.upper,
    "xsens": sided(
        ("Hips", "Chest", "Chest2", "Chest4", "Neck", "Head"), ("Hip", "Knee", "Ankle", "Toe"),
        ("Collar", "Shoulder", "Elbow", "Wrist"), "{side}{part}", ("Left", "Right")),
    "smpl": sided(
        ("Pelvis", "Spine1", "Spine2", "Spine3", "Neck", "Head"),
        ("Hip", "Knee", "Ankle", "Foot"), ("Collar", "Shoulder", "Elbow", "Wrist"),
        "{side}_{part}", "LR"),
    "smpl of Maya": sided(
        ("m_avg_Pelvis", "m_avg_Spine1", "m_avg_Spine2", "m_avg_Spine3", "m_avg_Neck",
         "m_avg_Head"), ("Hip", "Knee", "Ankle", "Foot"),
        ("Collar", "Shoulder", "Elbow", "Wrist"), "m_avg_{side}_{part}", "LR"),
    "smplx": sided(
        ("pelvis", "spine1", "spine2", "spine3", "neck", "head"),
        ("hip", "knee", "ankle", "foot"), ("collar", "shoulder", "elbow", "wrist"),
        "{side}_{part}", ("left", "right")),
    "biped": sided(
        ("Bip001", "Bip001 Spine", "Bip001 Spine1", "Bip001 Spine2", "Bip001 Neck",
         "Bip001 Head"), ("Thigh", "Calf", "Foot", "Toe0"),
        ("Clavicle", "UpperArm", "Forearm", "Hand"), "Bip001 {side} {part}", "LR"),
    "daz": sided(
        ("hip", "abdomen", "abdomen2", "chest", "neck", "head"),
        ("Thigh", "Shin", "Foot", "Toe"), ("Collar", "Shldr", "ForeArm", "Hand"),
        "{side}{part}", "lr"),
    "daz genesis 8": sided(
        ("hip", "abdomenLower", "abdomenUpper", "chestLower", "neckLower", "head"),
        ("ThighBend", "Shin", "Foot", "Toe"), ("Collar", "ShldrBend", "ForearmBend", "Hand"),
        "{side}{part}", "lr"),
    "rigify": sided(
        ("DEF-spine", "DEF-spine.001", "DEF-spine.002", "DEF-spine.003", "DEF-spine.004",
         "DEF-spine.006"), ("thigh", "shin", "foot", "toe"),
        ("shoulder", "upper_arm", "forearm", "hand"), "DEF-{part}.{side}", "LR"),
    "blender": sided(
        ("hips", "spine", "chest", "upper-chest", "neck", "head"),
        ("thigh", "shin", "foot", "toe"), ("shoulder", "upper_arm", "forearm", "hand"),
        "{part}_{side}", "LR"),
    "unreal": sided(
        ("pelvis", "spine_01", "spine_02", "spine_03", "neck_01", "head"),
        ("thigh", "calf", "foot", "ball"), ("clavicle", "upperarm", "lowerarm", "hand"),
        "{part}_{side}", "lr"),
    "unity": sided(
        ("Hips", "Spine", "Chest", "UpperChest", "Neck", "Head"),
        ("UpperLeg", "LowerLeg", "Foot", "Toes"), ("Shoulder", "UpperArm", "LowerArm", "Hand"),
        "{side}{part}", ("Left", "Right")),
    "vrm": sided(
        ("J_Bip_C_Hips", "J_Bip_C_Spine", "J_Bip_C_Chest", "J_Bip_C_UpperChest",
         "J_Bip_C_Neck", "J_Bip_C_Head"), ("UpperLeg", "LowerLeg", "Foot", "ToeBase"),
        ("Shoulder", "UpperArm", "LowerArm", "Hand"), "J_Bip_{side}_{part}", "LR"),
    "optitrack": sided(
        ("Hip", "Ab", "Chest", "Chest2", "Neck", "Head"), ("Thigh", "Shin", "Foot", "Toe"),
        ("Shoulder", "UArm", "FArm", "Hand"), "{side}{part}", "LR"),
    "kinect": sided(
        ("SpineBase", "SpineMid", "Chest", "SpineShoulder", "Neck", "Head"),
        ("Hip", "Knee", "Ankle", "Foot"), ("Collar", "Shoulder", "Elbow", "Wrist"),
        "{part}{side}", ("Left", "Right")),
    "mikumikudance": sided(
        ("センター", "下半身", "上半身", "上半身2", "首", "頭"), ("足", "ひざ", "足首", "つま先"),
        ("肩", "腕", "ひじ", "手首"), "{side}{part}", "左右"),
}


@pytest.mark.parametrize("dialect", list(_DIALECTS))
def test_names(dialect):
    np.testing.assert_allclose(joints(renamed(_DIALECTS[dialect])), joints(PLAIN), atol=1e-9)


def _rows(change) -> str:
    head, rows = PLAIN.split("Frame Time: 0.0333333\n")
    return head + "Frame Time: 0.0333333\n" + "\n".join(map(change, rows.splitlines())) + "\n"


_SPELLINGS = {
    "windows line ends": PLAIN.replace("\n", "\r\n"),
    "old mac line ends": PLAIN.replace("\n", "\r"),
    "tabs": PLAIN.replace(" ", "\t"),
    "blank lines": PLAIN.replace("\n", "\n\n"),
    "lower-case keywords": re.sub(
        r"HIERARCHY|ROOT|JOINT|End Site|MOTION|Frames|Frame Time|OFFSET|CHANNELS|[XYZ][rp]\w+",
        lambda m: m[0].lower(), PLAIN),
    "End site": PLAIN.replace("End Site", "End site"),
    "EndSite": PLAIN.replace("End Site", "EndSite"),
    "named end": PLAIN.replace("End Site", "End Site Tip of it"),
    "no space": PLAIN.replace("Frames: ", "Frames:").replace("Time: ", "Time:"),
    "space before the colon": PLAIN.replace("Frames:", "Frames :").replace("Time:", "Time :"),
    "braces on the line": re.sub(r"\s*\n\s*\{", " {", PLAIN),
    "braces touch": re.sub(r"\s*\n\s*\{", "{", PLAIN),
    "decimal commas": re.sub(r"(\d)\.(\d)", r"\1,\2", PLAIN),
    "separated by commas": _rows(lambda row: row.replace(" ", ", ")),
    "separated by semicolons": _rows(lambda row: row.replace(" ", ";") + ";"),
    "scientific": _rows(lambda row: " ".join(f"{float(v):.8e}" for v in row.split())),
    "broken lines": _rows(lambda row: row.replace(" ", "\n", 40)),
    "a prop": PLAIN.replace("MOTION", "ROOT Prop\n{\nOFFSET 0 0 0\nCHANNELS 0\n}\nMOTION"),
    "a moving prop": _rows(lambda row: row + " 0 0 5").replace(
        "MOTION", "ROOT Prop\n{\nOFFSET 0 0 0\nCHANNELS 3 "
        "Xrotation Yrotation Zrotation\n}\nMOTION"),
}


@pytest.mark.parametrize("spelling", list(_SPELLINGS))
def test_spellings(spelling):
    np.testing.assert_allclose(joints(_SPELLINGS[spelling]), joints(PLAIN), atol=1e-7)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom"])
def test_encodings(tmp_path, encoding):
    text = renamed(_DIALECTS["mikumikudance"])
    path = tmp_path / "歩く.bvh"
    path.write_bytes(
        b"\xff\xfe" + text.encode("utf-16-le") if encoding.endswith("bom")
        else text.encode(encoding)
    )
    np.testing.assert_allclose(joints(text_files.read_text(path)), joints(PLAIN), atol=1e-9)


@pytest.mark.parametrize(("word", "fps"), [
    ("0.0333333", 30), ("0.033333", 30), ("0.0333", 30), (".0333667", 30000 / 1001),
    ("0.033367", 30000 / 1001), ("0.0166833", 60000 / 1001), ("0.041708", 24000 / 1001),
    ("0.00833", 120), ("0.0083333", 120), ("0.02", 50), ("4.166667e-3", 240), ("0.08", 12.5),
    ("0,04", 25), ("0.0142857", 70),
])
def test_frame_rates(word, fps):
    motion = bvh.parse(PLAIN.replace("0.0333333\n", f"{word}\n"), "a.bvh")
    np.testing.assert_allclose(1 / motion.times[1], fps, rtol=1e-12)


def test_a_given_rate_replaces_that_of_the_file():
    motion = bvh.parse(PLAIN.replace("0.0333333\n", "0\n"), "a.bvh", fps=24.0)
    np.testing.assert_allclose(1 / motion.times[1], 24)


def _scaled(factor) -> str:
    """The plain file in another unit: offsets and the root's positions are lengths."""
    def numbers(words):
        return " ".join(f"{float(word) * factor:.9f}" for word in words)

    text = re.sub(r"OFFSET (.*)", lambda m: "OFFSET " + numbers(m[1].split()), PLAIN)
    head, rows = text.split("Frame Time: 0.0333333\n")
    rows = [numbers(row.split()[:3]) + " " + " ".join(row.split()[3:]) for row in rows.splitlines()]
    return head + "Frame Time: 0.0333333\n" + "\n".join(rows) + "\n"


@pytest.mark.parametrize(("unit", "metres"), list(bvh_bodies.UNITS.items()))
def test_units_are_recognised_by_the_legs(unit, metres):
    text = _scaled(0.01 / metres)
    found, remark = bvh_bodies.human36m_joints(bvh.parse(text, "a.bvh"), "a.bvh")
    assert f"a unit is {unit} by" in remark
    np.testing.assert_allclose(found, joints(PLAIN), atol=1e-6)


def test_no_two_units_fit_one_leg():
    units = sorted(bvh_bodies.UNITS.values())
    low, high = bvh_bodies._LEGS
    assert all(two / one > high / low for one, two in itertools.pairwise(units))


def test_a_leg_of_no_known_unit_asks():
    with pytest.raises(UserError, match=r"a leg is 332 units long.*--unit=0\.01"):
        joints(_scaled(4.0))
    np.testing.assert_allclose(joints(_scaled(4.0), unit=0.0025), joints(PLAIN), atol=1e-6)


def _turned(axis: str) -> str:
    """The plain file in other axes, with the axis up; right-handed."""
    images = {"z": ("x", "-z", "y"), "-y": ("x", "-y", "-z"), "x": ("y", "x", "-z"),
              "-z": ("x", "z", "-y"), "-x": ("-y", "-x", "-z")}[axis]
    matrix = np.stack([bvh_bodies.UPS[image] for image in images])  # new coordinates of a vector
    assert np.linalg.det(matrix) == pytest.approx(1)
    motion, lines = bvh.parse(PLAIN, "a.bvh"), PLAIN.splitlines()
    start = lines.index("Frame Time: 0.0333333") + 1
    rows = np.array([line.split() for line in lines[start:]], float)
    rows[:, :3] = rows[:, :3] @ matrix.T
    column = 3
    for joint in motion.joints:
        if joint.name in motion.rotations:
            turn = matrix @ motion.rotations[joint.name].as_matrix() @ matrix.T
            rows[:, column : column + 3] = Rotation.from_matrix(turn).as_euler("ZYX", degrees=True)
            column += 3
    head = re.sub(
        r"OFFSET (.*)", lambda m: "OFFSET " + " ".join(
            f"{v:.6f}" for v in matrix @ np.array(m[1].split(), float)),
        "\n".join(lines[:start]))
    return head + "\n" + "\n".join(" ".join(f"{v:.8f}" for v in row) for row in rows) + "\n"


@pytest.mark.parametrize("axis", ["z", "-y", "x", "-z", "-x"])
def test_the_axis_that_points_up_is_recognised(axis):
    found, remark = bvh_bodies.human36m_joints(bvh.parse(_turned(axis), "a.bvh"), "a.bvh")
    assert f"{axis} is up" in remark
    plain = joints(PLAIN)
    np.testing.assert_allclose(found[..., 2], plain[..., 2], atol=1e-6)
    # The heading is free, the hand of the axes is not.
    def volume(body):
        a, b, c = (body[:, i] - body[:, 0] for i in (4, 8, 13))
        return np.einsum("fi,fi->f", np.cross(a, b), c)

    np.testing.assert_allclose(volume(found), volume(plain), atol=1e-6)


def test_a_person_who_lies_asks_for_the_axis():
    motion = bvh.parse(PLAIN, "a.bvh")
    down = Rotation.from_euler("X", 90, degrees=True)
    lying = bvh.Motion(motion.joints, motion.times, motion.rotations | {
        "Hips": down * motion.rotations["Hips"]}, motion.positions)
    with pytest.raises(UserError, match=r"along y at rest and z in the clip; .*--up=y"):
        bvh_bodies.human36m_joints(lying, "a.bvh")
    found, _ = bvh_bodies.human36m_joints(lying, "a.bvh", bvh_bodies.Reading(up="y"))
    assert np.ptp(found[..., 2], axis=1).max() < 0.8


def test_mirrored_axes_are_refused():
    mirrored = re.sub(
        r"OFFSET (\S+) (\S+) (\S+)", lambda m: f"OFFSET {m[1]} {m[2]} {-float(m[3])}", PLAIN)
    with pytest.raises(UserError, match="toes point backwards"):
        joints(mirrored)


def test_two_people_in_one_file_are_refused():
    second = re.sub(r"(ROOT|JOINT) ", r"\1 B:", PLAIN[PLAIN.index("ROOT"): PLAIN.index("MOTION")])
    text = _rows(lambda row: f"{row} {row}").replace("MOTION", second + "MOTION")
    text = text.replace("ROOT Hips", "ROOT A:Hips")
    with pytest.raises(UserError, match=r"2 people \(A:Hips, B:Hips\); export each"):
        joints(text)


@pytest.mark.parametrize(("old", "new", "message"), [
    (r"ROOT Hips", "ROOT", "a joint has no name"),
    (r"\n.*\n\Z", "\n", "29 frames, where the file announces 30"),
    (r"Frame Time.*(.|\n)*", "Frame Time: 0.03\n", "0 frames, where the file announces 30"),
    (r"MOTION(.|\n)*", "MOTION\n", "ends too early"),
    (r"MOTION(.|\n)*", "", "ends too early"),
    (r"\d\.\d+\n\Z", "1.#QNAN\n", r"RightHand Xrotation is '.*1\.#QNAN', no finite number"),
    (r"\d\.\d+\n\Z", "nan\n", "RightHand Xrotation is '.*nan', no finite number"),
    (r"Frame Time: 0.0333333", "Frame Time: 33.3", "a frame lasts 33.3 s; give the frames"),
    (r"MOTION", "ROOT Prop\n{\nOFFSET 0 0 0\nCHANNELS 1 Xrotation\n}\nMOTION",
     "expected 70 numbers for all joints below Hips, Prop, found 69"),
    (r"JOINT Head", "JOINT Neck", "'Neck' comes twice"),
])
def test_damage_names_the_line_and_the_reason(old, new, message):
    text, count = re.subn(old, new, PLAIN, count=1)
    assert count
    with pytest.raises(UserError, match=r"a\.bvh, line \d+: .*" + message):
        bvh.parse(text, "a.bvh")


def test_shared_dialects(shared_cases):
    folder = shared_cases / "pose" / "11_bvh"
    plain = joints((folder / "plain.bvh").read_text())
    refused = {
        "fewer_frames_than_said": "line 194: 60 frames, where the file announces 61",
        "nan_value": "line 194: RightHand Yrotation is 'nan'",
        "no_head_end_site": "line 71: the joint 'Head' has no end",
        "two_roots": "line 144: expected 72 numbers for all joints below Hips, Prop, found 69",
    }
    for path in sorted(folder.glob("*.bvh")):
        text = text_files.read_text(path)
        if path.stem in refused:
            with pytest.raises(UserError, match=refused[path.stem]):
                joints(text)
            continue
        motion = bvh.resample(bvh.parse(text, path.name), 30.0)
        found, _ = bvh_bodies.human36m_joints(motion, path.name)
        expected = plain[: len(found)]
        if path.stem == "root_3_channels":  # the file has no places of the root
            found, expected = found - found[:, :1], expected - expected[:, :1]
        np.testing.assert_allclose(found, expected, atol=1e-3, err_msg=path.name)
