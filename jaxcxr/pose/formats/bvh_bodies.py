"""Recognises the skeletons of BVH files and computes Human3.6M's 17 joints from them.

One table of names serves all skeletons: a joint is where one of its names stands in the chain of
its limb. Units are recognised by the length of the leg, the axis that points up by the pose at
rest and the poses of the clip. The 17 joints are Human3.6M's in order, not in shape.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping

import numpy as np
from scipy.spatial.transform import Rotation

from jaxcxr.errors import UserError
from jaxcxr.pose.formats import bvh
from jaxcxr.pose.geometry.skeletons import HUMAN36M

# Metres per unit, by its name. No two fit one leg.
UNITS = {"1 m": 1.0, "1 cm": 0.01, "1 mm": 0.001, "1 inch": 0.0254, "CMU's unit": 0.0254 / 0.45}
_LEGS = (0.65, 1.05)  # metres from hip to ankle by which a unit is recognised
_POSSIBLE = (0.4, 1.2)  # metres that a leg may have in a unit that was given
UPS = {"x": (1, 0, 0), "y": (0, 1, 0), "z": (0, 0, 1),
       "-x": (-1, 0, 0), "-y": (0, -1, 0), "-z": (0, 0, -1)}
_STRAIGHT = 0.8  # cosine within which directions agree

# Names without side, prefix, case and separators, of which the first that fits counts. They are
# those of MotionBuilder, Mixamo and LAFAN1 (UpLeg, Leg, Foot, Arm, ForeArm, Hand), cgspeed's CMU
# (FingerBase is the wrist), ASF (femur, ..., lowerneck), Xsens MVN and SMPL (Hip, Knee, Ankle,
# Shoulder, Elbow, Wrist), 3ds Max, Unreal and Rigify (thigh, calf or shin, upper_arm, forearm,
# spine.004 for the neck), Bandai-Namco, Unity and VRM (UpperLeg, LowerLeg, LowerArm), Daz and
# Poser (Shldr; Bend and neckLower since Genesis 3), OptiTrack (UArm, FArm) and MikuMikuDance.
NAMES = {
    "hip": ("upleg", "upperleg", "thigh", "thighbend", "uleg", "hip", "femur", "足", "leg",
            "hipjoint"),
    "knee": ("knee", "shin", "calf", "lowerleg", "lleg", "tibia", "ひざ", "膝", "leg"),
    "ankle": ("ankle", "足首", "foot"),
    "shoulder": ("arm", "uparm", "upperarm", "shldr", "shldrbend", "uarm", "humerus", "腕",
                 "shoulder"),
    "elbow": ("elbow", "forearm", "forearmbend", "lowerarm", "loarm", "farm", "radius", "ひじ",
              "肘"),
    "wrist": ("fingerbase", "wrist", "手首", "hand"),
    "thorax": ("neck", "necklower", "lowerneck", "neck1", "neck01", "首", "spine004"),
    "neck": ("head", "skull", "頭", "spine006"),
}
_CHAINS = (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist"), ("thorax", "neck"))
_TOPS = ("headtopend", "headtop", "headend", "headnub", "topofhead")
_TOES = re.compile(r"toe|ball|つま先")
_SIDES = {"left": "left", "l": "left", "左": "left", "right": "right", "r": "right", "右": "right"}
_PREFIXES = {"mixamorig", "bip", "valve", "biped", "character", "def", "org", "mch", "cc", "base",
             "j", "c", "m", "f", "avg", "b", "jnt", "skel", "bone", "rig"}
_KNOWN = {name for names in NAMES.values() for name in names}
_WORDS = re.compile(r"(?<![A-Za-z])[LR](?=[A-Z])(?![A-Z]+(?![A-Za-z]))|[A-Z]+(?![a-z])|[A-Z]?[a-z]+"
                    r"|\d+|[^\W\d_a-zA-Z]+")

# cgspeed's conversion lost the offsets of these branching joints.
_BRANCHES = ("Neck", "LeftShoulder", "RightShoulder")
_HANDS = (("LeftFingerBase", "LeftHand"), ("RightFingerBase", "RightHand"))
# These skeletons have no top of the head. It is as far above the head's joint as that above the
# neck's, as in `joint_sets` for SMPL: Bandai-Namco's, SMPL's.
_DOUBLED = ({"joint_Root", "UpperLeg_L"}, {"L_Hip", "L_Collar"}, {"left_hip", "left_collar"})


@dataclasses.dataclass(frozen=True)
class Reading:
    """How to read files where they do not tell.

    Attributes:
      unit: metres per unit; 0: recognised.
      up: axis that points up, one of `UPS`; "": recognised.
      head: metres from the joint of the head to its top, for skeletons without one.
      names: name in the file of joints of Human3.6M, such as {"left_hip": "Bone12"}.
    """

    unit: float = 0.0
    up: str = ""
    head: float = 0.0
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)


RECOGNISED = Reading()


def key(name: str, common: int = 0) -> tuple[str, str]:
    """Splits a name into side ("left", "right" or "") and part: ("left", "upleg").

    `common` words at its start are left out.
    """
    words = [word.lower() for word in _WORDS.findall(name)][common:]
    while len(words) > 1 and (words[0] in _PREFIXES or words[0].isdigit()):
        del words[0]
    for place in (0, -1):
        if len(words) > 1 and words[place] in _SIDES:
            return _SIDES[words.pop(place)], "".join(words)
    for place, word in enumerate(words):  # Arm.L.001, upper_arm_l_twist
        if len(words) > 1 and word in _SIDES:
            return _SIDES[words.pop(place)], "".join(words)
    part = "".join(words)
    for start, side in _SIDES.items():
        if part.startswith(start) and part.removeprefix(start) in _KNOWN:
            return side, part.removeprefix(start)
    return "", part


def _keys(motion: bvh.Motion) -> list[tuple[str, str]]:
    """Finds the keys of all joints, without words with which all names begin."""
    named = [j.name for j in motion.joints if j.channels or not j.name.endswith("_End")]
    heads = [_WORDS.findall(name) for name in named]
    common = 0
    while len(heads) > 2 and all(len(h) > common + 1 for h in heads) and (
        len({h[common] for h in heads}) == 1
    ):
        common += 1
    return [key(joint.name, common) for joint in motion.joints]


def without_namespaces(motion: bvh.Motion) -> bvh.Motion:
    """Drops what stands before `:` or `|` in names, unless names would be equal."""
    names = {joint.name: re.split(r"[:|]", joint.name)[-1] or joint.name for joint in motion.joints}
    if len(set(names.values())) < len(names):
        return motion
    return bvh.Motion(
        tuple(dataclasses.replace(joint, name=names[joint.name]) for joint in motion.joints),
        motion.times,
        {names[name]: turn for name, turn in motion.rotations.items()},
        {names[name]: place for name, place in motion.positions.items()},
    )


def joints_of(
    motion: bvh.Motion, name: str, own: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Finds the joints of the body: joint of Human3.6M -> name in the file.

    `own` names some of them; hip, spine and head, which follow from the others, are left out.
    """
    found: dict[str, str] = {}
    keys = _keys(motion)
    present = {joint.name.lower(): joint.name for joint in motion.joints}
    own = {joint: present.get(named.lower(), "") for joint, named in (own or {}).items()}
    for chain, side in itertools.product(_CHAINS, ("left", "right", "")):
        if (side == "") != (chain[0] == "thorax"):
            continue
        wanted = [f"{side}_{part}" if side else part for part in chain]
        choices = [
            [index for index, joint in enumerate(motion.joints) if joint.name == own[joint_name]]
            if joint_name in own else list(_candidates(motion, keys, side, part))
            for joint_name, part in zip(wanted, chain, strict=True)
        ]
        valid = (c for c in itertools.product(*choices) if _descends(motion, c))
        chosen = next(valid, None)
        if chosen is None:
            lacking = [w for w, c in zip(wanted, choices, strict=True) if not c] or wanted
            names = [j.name for j in motion.joints if not j.name.endswith("_End")]
            raise UserError(
                f"{name}: no joint is known as {', '.join(lacking)} among {', '.join(names)}; name "
                f"them, as in --joints={lacking[0]}=NAME."
            )
        found |= dict(zip(wanted, (motion.joints[i].name for i in chosen), strict=True))
    return found


def _candidates(motion: bvh.Motion, keys, side: str, part: str) -> Iterator[int]:
    """Yields the joints with a name of the part: by the order of `NAMES`, deforming bones first."""
    for alias in NAMES[part]:
        same = [i for i, found in enumerate(keys) if found == (side, alias)]
        yield from sorted(same, key=lambda i: not motion.joints[i].name.startswith("DEF"))


def _descends(motion: bvh.Motion, chain: tuple[int, ...]) -> bool:
    for above, below in itertools.pairwise(chain):
        while below > above:
            below = motion.joints[below].parent
        if below != above:
            return False
    return len(set(chain)) == len(chain)


def has_defect(motion: bvh.Motion) -> bool:
    """Recognises cgspeed's conversion, whose lost offsets displace the upper body by 117 mm."""
    if not {*_BRANCHES, "Spine1", *(n for pair in _HANDS for n in pair)} <= motion.names:
        return False
    lost = [*_BRANCHES, *(finger for finger, _ in _HANDS)]
    return not any(motion[name].offset.any() for name in lost)


def repair(motion: bvh.Motion) -> bvh.Motion:
    """Restores the offsets that cgspeed's conversion lost at branching joints.

    The thorax bone gets the length of the bone below it, and the wrist half that of the forearm.
    Clip 01_01 is then within 6 mm of the original ASF and AMC files instead of 117 mm.
    """
    offsets = {name: motion["Spine1"].offset for name in _BRANCHES}
    offsets |= {finger: motion[hand].offset / 2 for finger, hand in _HANDS}
    joints = tuple(
        dataclasses.replace(joint, offset=joint.offset + offsets.get(joint.name, 0))
        for joint in motion.joints
    )
    return dataclasses.replace(motion, joints=joints)


def starts_at_rest(motion: bvh.Motion) -> bool:
    """Tells whether the first frame is an added rest pose, with nearly all angles 0.

    CMU's clips by cgspeed begin with the binding pose of the skeleton.
    """
    if len(motion.times) < 2:
        return False
    still = [turn[0].magnitude() < 1e-6 for turn in motion.rotations.values()]
    moved = [turn[1].magnitude() < 1e-6 for turn in motion.rotations.values()]
    return np.mean(still) >= 0.6 and np.mean(still) - np.mean(moved) >= 0.3


def _head_top(motion: bvh.Motion, joints: dict[str, str], name: str, length: float) -> np.ndarray:
    """Returns the offset of the top of the head from the head's joint; its length 0: unknown."""
    index = next(i for i, joint in enumerate(motion.joints) if joint.name == joints["neck"])
    head = motion.joints[index]
    children = [joint for joint in motion.joints if joint.parent == index]
    keys = dict(zip((joint.name for joint in motion.joints), _keys(motion), strict=True))
    for joint in children:
        top = keys[joint.name][1] in _TOPS or joint.name == f"{head.name}_End"
        if top and joint.offset.any():
            return joint.offset
    if length:
        return length * head.offset / max(float(np.linalg.norm(head.offset)), 1e-9)
    eyes = [joint.offset for joint in children if "eye" in joint.name.lower()]
    if eyes:
        # Daz's are half-way up the head.
        axis = int(np.argmax(np.abs(head.offset)))
        return np.where(np.arange(3) == axis, 2 * np.mean(eyes, 0), 0.0)
    if any(names <= motion.names for names in _DOUBLED):
        return head.offset
    raise UserError(
        f"{name}, line {head.line}: the joint {head.name!r} has no end, so that the top of the "
        "head is unknown; give its distance from the joint in metres, as in --head=0.18."
    )


def human36m_joints(
    motion: bvh.Motion, name: str, reading: Reading = RECOGNISED
) -> tuple[np.ndarray, str]:
    """Computes the 17 joints `[frames, 17, 3]`, metres, z up, repairing cgspeed's defect.

    Returns:
      The joints, and a remark that says which unit and axis were recognised.
    """
    motion = without_namespaces(motion)
    _one_person(motion, name, reading)
    motion = repair(motion) if has_defect(motion) else motion
    names = joints_of(motion, name, reading.names)
    found, rest = (_placed(m, names, np.zeros(3)) for m in (motion, _at_rest(motion)))
    leg = float(np.median(HUMAN36M.bone_lengths(found)[:, [1, 2, 4, 5]].sum(1)) / 2)
    unit, unit_name = _unit(leg, name, reading.unit)
    top = _head_top(motion, names, name, reading.head / unit)
    found = _placed(motion, names, top) * unit
    up = reading.up or _up(found, rest, name)
    _check_mirror(found, motion, names, name)
    found = found @ _turn(up).T
    moves = any(np.ptp(place, axis=0).any() for place in motion.positions.values())
    still = "" if moves or len(found) == 1 else ", the body stays in place"
    by = "as given" if reading.unit else "by the length of the legs"
    return found, f"a unit is {unit_name} {by}, {up} is up{still}"


def _one_person(motion: bvh.Motion, name: str, reading: Reading) -> None:
    """Refuses files with two people."""
    roots = [i for i, joint in enumerate(motion.joints) if joint.parent < 0]
    people = []
    for start, end in itertools.pairwise([*roots, len(motion.joints)]):
        part = tuple(
            dataclasses.replace(joint, parent=max(joint.parent - start, -1))
            for joint in motion.joints[start:end]
        )
        try:
            joints_of(dataclasses.replace(motion, joints=part), name, reading.names)
        except UserError:
            continue
        people.append(motion.joints[start].name)
    if len(people) > 1:
        raise UserError(
            f"{name}: it holds {len(people)} people ({', '.join(people)}); export each to a file "
            "of its own."
        )


def _at_rest(motion: bvh.Motion) -> bvh.Motion:
    turns = {name: Rotation.identity(1) for name in motion.rotations}
    return bvh.Motion(motion.joints, np.zeros(1), turns, {})


def _placed(motion: bvh.Motion, names: dict[str, str], top: np.ndarray) -> np.ndarray:
    """Computes the 17 joints in the file's unit and axes; `top` is the offset of the head's top."""
    index = next(i for i, joint in enumerate(motion.joints) if joint.name == names["neck"])
    mark = bvh.Joint("", index, top, ())
    places = bvh.forward_kinematics(
        dataclasses.replace(motion, joints=(*motion.joints, mark))
    )
    joints = {joint: places[named] for joint, named in names.items()} | {"head": places[""]}
    joints["hip"] = (joints["left_hip"] + joints["right_hip"]) / 2
    joints["spine"] = (joints["hip"] + joints["thorax"]) / 2
    return np.stack([joints[joint] for joint in HUMAN36M.joints], axis=1)


def _unit(leg: float, name: str, given: float) -> tuple[float, str]:
    """Returns metres per unit, as given or by the length of a leg in the file's unit."""
    if given:
        if not _POSSIBLE[0] < leg * given < _POSSIBLE[1]:
            raise UserError(f"{name}: a leg is {leg * given:.3g} m long with {given:g} m per unit; "
                            "give the unit of the file, as in --unit=0.01.")
        return given, f"{given:g} m"
    for unit_name, unit in UNITS.items():
        if _LEGS[0] <= leg * unit <= _LEGS[1]:
            return unit, unit_name
    raise UserError(
        f"{name}: a leg is {leg:.4g} units long, by which the unit is not recognised; give metres "
        "per unit, as in --unit=0.01 for centimetres."
    )


def _upright(poses: np.ndarray) -> np.ndarray:
    """Finds the direction from feet to neck `[n, 3]` of the straight ones of poses."""
    def unit(vectors):
        return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)

    at = HUMAN36M.index
    ankles = (poses[:, at("left_ankle")] + poses[:, at("right_ankle")]) / 2
    trunk = unit(poses[:, at("thorax")] - poses[:, at("hip")])
    legs = unit(poses[:, at("hip")] - ankles)
    return unit(trunk + legs)[(trunk * legs).sum(-1) > _STRAIGHT]


def _up(poses: np.ndarray, rest: np.ndarray, name: str) -> str:
    """Recognises the axis that points up by the straight poses of the clip and the one at rest."""
    seen = []
    for upright in (_upright(rest), _upright(poses)):
        mean = upright.mean(0) if len(upright) else np.zeros(3)
        seen += [axis for axis, vector in UPS.items() if mean @ np.array(vector) > _STRAIGHT]
    if len(set(seen)) != 1:
        why = f"{seen[0]} at rest and {seen[1]} in the clip" if seen else "no axis"
        raise UserError(
            f"{name}: the body stands along {why}; give the axis that points up, as in --up=y."
        )
    return seen[0]


def _turn(up: str) -> np.ndarray:
    """Returns the rotation `[3, 3]` that takes an axis to z; y up is turned about x."""
    z = np.array(UPS[up], float)
    x = np.array([0.0, 1.0, 0.0]) if abs(z[0]) else np.array([1.0, 0.0, 0.0])
    return np.stack([x, np.cross(z, x), z])


def _check_mirror(poses: np.ndarray, motion: bvh.Motion, names, name: str) -> None:
    """Refuses a body whose toes point backwards: left and right are exchanged."""
    keys, places = _keys(motion), None
    at = HUMAN36M.index
    left = poses[:, at("left_hip")] - poses[:, at("right_hip")]
    ahead = np.cross(left, poses[:, at("thorax")] - poses[:, at("hip")])
    agree = []
    for side in ("left", "right"):
        ankle = names[f"{side}_ankle"]
        toe = next((j.name for j, (of, part) in zip(motion.joints, keys, strict=True)
                    if of == side and _TOES.search(part) and j.parent >= 0
                    and motion.joints[j.parent].name == ankle), None)
        if toe is None:
            return
        places = places or bvh.forward_kinematics(motion)
        foot = places[toe] - places[ankle]
        lengths = np.linalg.norm(foot, axis=-1) * np.linalg.norm(ahead, axis=-1)
        agree.append(np.median((foot * ahead).sum(-1) / np.maximum(lengths, 1e-9)))
    if max(agree) < -0.3:
        raise UserError(
            f"{name}: the toes point backwards, so that left and right, or the hand of the axes, "
            "are exchanged; export it again with right-handed axes."
        )
