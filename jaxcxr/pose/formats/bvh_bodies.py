"""Whose skeleton a BVH file holds, and Human3.6M's 17 joints of it.

Known are the names of MotionBuilder (CMU's clips by cgspeed), of Daz, and of the Bandai-Namco
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
    """Names of one kind of skeleton.

    Attributes:
      name: of the kind.
      joints: for the joints that are single points, the first of several names that the file has.
      unit: metres per unit of the files.
    """

    name: str
    joints: dict[str, tuple[str, ...]]
    unit: float


def _sided(left: str, right: str, **parts: str | tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Joints of both sides from names in which `*` stands for the side."""
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

# cgspeed's conversion lost the vector at branching joints: these have none.
_BRANCHES = ("Neck", "LeftShoulder", "RightShoulder")
_HANDS = (("LeftFingerBase", "LeftHand"), ("RightFingerBase", "RightHand"))


def body_of(motion: bvh.Motion, name: str) -> Body:
    """The kind of skeleton, told by the names of its joints.

    Arguments:
      motion: the motion.
      name: of the file, for the message.

    Raises:
      UserError: none that is known; the message names what the nearest lacks.
    """
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
        f"{name}: its joints are named as in none of {', '.join(lacking)}; nearest is {nearest}, "
        f"without {', '.join(lacking[nearest])}."
    )


def has_defect(motion: bvh.Motion) -> bool:
    """Whether a clip is cgspeed's conversion with the lost vectors (117 mm in the upper body)."""
    if not {*_BRANCHES, "Spine1", *(n for pair in _HANDS for n in pair)} <= motion.names:
        return False
    lost = [*_BRANCHES, *(finger for finger, _ in _HANDS)]
    return not any(motion[name].offset.any() for name in lost)


def repair(motion: bvh.Motion) -> bvh.Motion:
    """Gives the branching joints of cgspeed's conversion the vectors that it lost.

    The thorax bone goes on as far as the bone below it, and the wrist half as far as the forearm:
    the clip 01_01 is then within 6 mm of the original ASF and AMC files, before 117 mm.
    """
    offsets = {name: motion["Spine1"].offset for name in _BRANCHES}
    offsets |= {finger: motion[hand].offset / 2 for finger, hand in _HANDS}
    joints = tuple(
        dataclasses.replace(joint, offset=joint.offset + offsets.get(joint.name, 0))
        for joint in motion.joints
    )
    return dataclasses.replace(motion, joints=joints)


def starts_at_rest(motion: bvh.Motion) -> bool:
    """Whether the first frame was put before the motion: nearly all of its angles are 0.

    CMU's clips by cgspeed begin with the pose in which the skeleton was bound.
    """
    if len(motion.times) < 2:
        return False
    still = [turn[0].magnitude() < 1e-6 for turn in motion.rotations.values()]
    moved = [turn[1].magnitude() < 1e-6 for turn in motion.rotations.values()]
    return np.mean(still) >= 0.6 and np.mean(still) - np.mean(moved) >= 0.3


def _with_head_top(motion: bvh.Motion, body: Body) -> bvh.Motion:
    """Adds the top of the head to skeletons that have none.

    Daz: twice as high above the head joint as the eyes. Bandai-Namco, whose end of the head lies
    on the joint itself: as far above it as the joint is above the neck's.
    """
    if body.joints["head"] != ("head_top",):
        return motion
    index = next(i for i, joint in enumerate(motion.joints) if joint.name == body.joints["neck"][0])
    if body.name == "daz":
        eyes = [j.offset for j in motion.joints if j.parent == index and "eye" in j.name.lower()]
        if not eyes:
            raise UserError("a Daz skeleton without eyes: where the head ends cannot be told.")
        top = np.array([0.0, 2 * np.mean(eyes, 0)[1], 0.0])
    else:
        top = motion.joints[index].offset
    joint = bvh.Joint("head_top", index, top, ())
    return dataclasses.replace(motion, joints=(*motion.joints, joint))


def human36m_joints(motion: bvh.Motion, name: str, unit: float = 0.0) -> np.ndarray:
    """The 17 joints.

    Arguments:
      motion: of a known kind of skeleton; cgspeed's defect is repaired here.
      name: of the file, for messages.
      unit: metres per unit of the file; 0: what files of this kind have.

    Returns:
      `[frames, 17, 3]` in metres, z up.

    Raises:
      UserError: an unknown skeleton, or one whose size shows that the unit is another.
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
