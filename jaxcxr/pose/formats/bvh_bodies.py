"""Recognises the skeletons of BVH files and computes Human3.6M's 17 joints from them.

It knows the joint names of MotionBuilder (CMU's clips by cgspeed), Daz and the Bandai-Namco
research data set. The 17 joints are Human3.6M's in order, not in shape.
"""

import dataclasses

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.formats import bvh
from jaxcxr.pose.geometry.skeletons import HUMAN36M

_CMU_UNIT = 0.0254 / 0.45  # metres


@dataclasses.dataclass(frozen=True)
class Body:
    """Joint names of one kind of skeleton, of which the first present counts; metres per unit."""

    name: str
    joints: dict[str, tuple[str, ...]]
    unit: float


def _sided(left: str, right: str, **parts: str | tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Expands names with `*` for the side to the joints of both sides."""
    found = {}
    for part, names in parts.items():
        names = (names,) if isinstance(names, str) else names
        for side, word in (("left", left), ("right", right)):
            found[f"{side}_{part}"] = tuple(name.replace("*", word) for name in names)
    return found


BODIES = (
    Body("motionbuilder", {
        "thorax": ("Neck",), "neck": ("Head",), "head": ("Head_End",),
        **_sided("Left", "Right", hip="*UpLeg", knee="*Leg", ankle="*Foot", shoulder="*Arm",
                 elbow="*ForeArm", wrist=("*FingerBase", "*Hand")),
    }, _CMU_UNIT),
    Body("daz", {
        "thorax": ("neck",), "neck": ("head",), "head": ("head_top",),
        **_sided("l", "r", hip="*Thigh", knee="*Shin", ankle="*Foot", shoulder="*Shldr",
                 elbow="*ForeArm", wrist="*Hand"),
    }, 0.01),
    Body("bandai", {
        "thorax": ("Neck",), "neck": ("Head",), "head": ("head_top",),
        **_sided("L", "R", hip="UpperLeg_*", knee="LowerLeg_*", ankle="Foot_*",
                 shoulder="UpperArm_*", elbow="LowerArm_*", wrist="Hand_*"),
    }, 0.01),
)

# cgspeed's conversion lost the offsets of these branching joints.
_BRANCHES = ("Neck", "LeftShoulder", "RightShoulder")
_HANDS = (("LeftFingerBase", "LeftHand"), ("RightFingerBase", "RightHand"))


def body_of(motion: bvh.Motion, name: str) -> Body:
    """Recognises the kind of skeleton by the names of its joints."""
    lacking = {}
    for body in BODIES:
        lacking[body.name] = [
            names[0] for names in body.joints.values()
            if not motion.names & set(names) and names[0] != "head_top"
        ]
        if not lacking[body.name]:
            return body
    nearest = min(lacking, key=lambda kind: len(lacking[kind]))
    raise UserError(
        f"{name}: unknown skeleton; known are {', '.join(lacking)}. The nearest is {nearest}, "
        f"without {', '.join(lacking[nearest])}."
    )


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


def _with_head_top(motion: bvh.Motion, body: Body) -> bvh.Motion:
    """Adds the top of the head to skeletons without one.

    In Daz's skeletons it is twice as high above the head joint as the eyes. In Bandai-Namco's,
    whose head ends at the joint itself, it is as far above it as the joint is above the neck.
    """
    if body.joints["head"] != ("head_top",):
        return motion
    index = next(i for i, joint in enumerate(motion.joints) if joint.name == body.joints["neck"][0])
    if body.name == "daz":
        eyes = [j.offset for j in motion.joints if j.parent == index and "eye" in j.name.lower()]
        if not eyes:
            raise UserError("a Daz skeleton needs eyes to locate the top of the head.")
        top = np.array([0.0, 2 * np.mean(eyes, 0)[1], 0.0])
    else:
        top = motion.joints[index].offset
    joint = bvh.Joint("head_top", index, top, ())
    return dataclasses.replace(motion, joints=(*motion.joints, joint))


def human36m_joints(motion: bvh.Motion, name: str, unit: float = 0.0) -> np.ndarray:
    """Computes the 17 joints `[frames, 17, 3]`, metres, z up, repairing cgspeed's defect.

    A unit of 0 metres stands for that of the kind of skeleton.
    """
    body = body_of(motion, name)
    motion = repair(motion) if has_defect(motion) else motion
    motion = _with_head_top(motion, body)
    places = bvh.forward_kinematics(motion)
    joints = {
        joint: places[next(n for n in names if n in places)] for joint, names in body.joints.items()
    }
    joints["hip"] = (joints["left_hip"] + joints["right_hip"]) / 2
    joints["spine"] = (joints["hip"] + joints["thorax"]) / 2
    found = np.stack([joints[joint] for joint in HUMAN36M.joints], axis=1) * (unit or body.unit)
    leg = HUMAN36M.bone_lengths(found[:1])[0][[1, 2]].sum()
    if not 0.4 < leg < 1.2:
        raise UserError(
            f"{name}: a leg is {leg:.3g} m long with {unit or body.unit:g} m per unit; give the "
            "unit of the file."
        )
    # y up to z up: a quarter turn about x.
    return np.stack([found[..., 0], -found[..., 2], found[..., 1]], axis=-1)
