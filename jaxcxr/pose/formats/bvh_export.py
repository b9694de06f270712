"""Converts joint positions to BVH with constant bone lengths by inverse kinematics.

Joints have MotionBuilder's names, which `bvh_bodies` and animation programs know. Each rotation
directs one bone. At branches (hip, thorax) every bone has its own joint at the same place, since 17
positions form no rigid pelvis or shoulder girdle; a pose is thus met exactly as far as its bones
have the constant lengths.

The lengths are medians over time. A bone swings by the smallest rotation from its parent's frame.
The twist about a bone is unknown and stays zero, except that the spine turns with the shoulders.
Wrists, ankles and their ends do not rotate.
"""

import dataclasses
import warnings
from collections.abc import Iterator

import numpy as np
from scipy.spatial.transform import Rotation

from jaxcxr.errors import UserError
from jaxcxr.pose.formats import bvh
from jaxcxr.pose.geometry.skeletons import HUMAN36M

CM = 100.0  # file units per metre
_TURNS = ("Zrotation", "Yrotation", "Xrotation")
_BEYOND = 0.05  # metres; length of hands and feet, which have no known point
_TINY = 1e-9
# Radians; nearer to the pole only the sum, or the difference, of the outer angles is known.
_POLE = 1e-6

# name: (parent, joint at its place, joint at which its rotation points a bone, rest direction of
# the bone from its parent). A person at rest faces +z with the arms out; left is +x.
_UP, _DOWN, _LEFT, _RIGHT = (0, 1, 0), (0, -1, 0), (1, 0, 0), (-1, 0, 0)


def _leg(side: str, word: str, out) -> dict:
    short = word[0]
    return {
        f"{short}HipJoint": ("Hips", "hip", f"{side}_hip", None),
        f"{word}UpLeg": (f"{short}HipJoint", f"{side}_hip", f"{side}_knee", out),
        f"{word}Leg": (f"{word}UpLeg", f"{side}_knee", f"{side}_ankle", _DOWN),
        f"{word}Foot": (f"{word}Leg", f"{side}_ankle", None, _DOWN),
    }


def _arm(side: str, word: str, out) -> dict:
    return {
        f"{word}Shoulder": ("Spine", "thorax", f"{side}_shoulder", _UP),
        f"{word}Arm": (f"{word}Shoulder", f"{side}_shoulder", f"{side}_elbow", out),
        f"{word}ForeArm": (f"{word}Arm", f"{side}_elbow", f"{side}_wrist", out),
        f"{word}Hand": (f"{word}ForeArm", f"{side}_wrist", None, out),
    }


_TREE = {
    "Hips": (None, "hip", None, None),
    **_leg("left", "Left", _LEFT),
    **_leg("right", "Right", _RIGHT),
    "LowerBack": ("Hips", "hip", "spine", None),
    "Spine": ("LowerBack", "spine", "thorax", _UP),
    "Neck": ("Spine", "thorax", "neck", _UP),
    "Head": ("Neck", "neck", "head", _UP),
    **_arm("left", "Left", _LEFT),
    **_arm("right", "Right", _RIGHT),
}
# Last joint of a chain: the Human3.6M joint at its end, and its direction at rest.
_ENDS = {
    "Head": ("head", _UP), "LeftFoot": (None, _DOWN), "RightFoot": (None, _DOWN),
    "LeftHand": (None, _LEFT), "RightHand": (None, _RIGHT),
}
_STANDS = {joint: name for name, (_, joint, _, _) in _TREE.items()} | {"head": "Head_End"}


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """A motion and its distance from the fitted positions.

    Attributes:
      motion: centimetres, y up, right-handed; x is the camera's right, z points to the camera.
      residual: float64 `[frames, 17]`, millimetres.
      lengths: the constant lengths of `HUMAN36M.bones`, metres.
    """

    motion: bvh.Motion
    residual: np.ndarray
    lengths: np.ndarray


def fit(joints: np.ndarray, fps: float, symmetric: bool = False) -> Fit:
    """Fits a motion with constant bone lengths to joint positions.

    Arguments:
      joints: `[frames, 17, 3]` metres in the camera frame (x right, y down, z forward).
      symmetric: gives left and right bones the same length, the mean of both.
    """
    joints = np.asarray(joints, np.float64)
    if joints.ndim != 3 or joints.shape[1:] != (HUMAN36M.num_joints, 3) or not len(joints):
        raise UserError(
            f"cannot write BVH: positions have the shape {list(joints.shape)}; expected [frames, "
            f"{HUMAN36M.num_joints}, 3] with at least one frame."
        )
    if not np.isfinite(joints).all():
        frame = int(np.argwhere(~np.isfinite(joints))[0][0])
        raise UserError(f"cannot write BVH: a position in frame {frame} is not finite.")
    lengths = _lengths(joints, symmetric)
    motion = _motion(_upright(joints), lengths, fps)
    residual = np.linalg.norm(positions(motion) - joints, axis=-1) * 1000
    return Fit(motion, residual, lengths)


def positions(motion: bvh.Motion) -> np.ndarray:
    """Returns the joints of a fitted motion, `[frames, 17, 3]` metres in the camera frame."""
    places = bvh.forward_kinematics(motion)
    return _upright(np.stack([places[_STANDS[name]] for name in HUMAN36M.joints], 1) / CM)


def _upright(points: np.ndarray) -> np.ndarray:
    """Converts the camera frame to y up and back: half a turn about x."""
    return points * np.array([1.0, -1.0, -1.0])


def _lengths(joints: np.ndarray, symmetric: bool) -> np.ndarray:
    lengths = np.median(HUMAN36M.bone_lengths(joints), axis=0)
    if symmetric:
        other = [HUMAN36M.swap[child] - 1 for _, child in HUMAN36M.bones]
        lengths = (lengths + lengths[other]) / 2
    return lengths


def _motion(joints: np.ndarray, lengths: np.ndarray, fps: float) -> bvh.Motion:
    """Fits the rotations to joints in metres, y up."""
    known = _skeleton(lengths)
    at = {name: joints[:, i] for i, name in enumerate(HUMAN36M.joints)}
    facing = {"Hips": _pelvis(at)}
    rotations = {"Hips": Rotation.from_matrix(facing["Hips"])}
    for joint in known[1:]:
        if not joint.channels:
            continue
        parent = facing[known[joint.parent].name]
        towards = _TREE[joint.name][2]
        local = np.broadcast_to(np.eye(3), parent.shape)
        if towards is not None:
            bone = at[towards] - at[_TREE[joint.name][1]]
            wanted = np.einsum("fji,fj->fi", parent, bone)
            local = swing(_rest(joint.name), wanted)
            if joint.name == "Spine":
                local = local @ _with_shoulders(parent @ local, at)
        facing[joint.name] = parent @ local
        rotations[joint.name] = Rotation.from_matrix(local)
    times = np.arange(len(joints)) / fps
    return bvh.Motion(known, times, rotations, {"Hips": at["hip"] * CM})


def _rest(name: str) -> np.ndarray:
    """Returns the rest direction of the bone that a joint's rotation directs."""
    target = _TREE[name][2]
    if name in ("LHipJoint", "RHipJoint"):
        return np.array(_LEFT if name[0] == "L" else _RIGHT, float)
    if name == "LowerBack":
        return np.array(_UP, float)
    hung = [rest for parent, joint, _, rest in _TREE.values() if parent == name and joint == target]
    return np.array(hung[0] if hung else _ENDS[name][1], float)


def _skeleton(lengths: np.ndarray) -> tuple[bvh.Joint, ...]:
    """Builds the joints with offsets in centimetres, in the order of a BVH file."""
    into = {HUMAN36M.joints[child]: lengths[child - 1] for _, child in HUMAN36M.bones}
    joints: list[bvh.Joint] = []
    index: dict[str, int] = {}

    def add(name: str) -> None:
        parent, stands, _, rest = _TREE[name]
        offset = np.zeros(3) if rest is None else np.array(rest, float) * into[stands] * CM
        index[name] = len(joints)
        channels = _TURNS if parent else (*bvh.POSITIONS, *_TURNS)
        joints.append(bvh.Joint(name, index.get(parent, -1), offset, channels))
        for child in (n for n, (above, *_) in _TREE.items() if above == name):
            add(child)
        if name in _ENDS:
            end, direction = _ENDS[name]
            length = into[end] if end else _BEYOND
            offset = np.array(direction, float) * length * CM
            joints.append(bvh.Joint(f"{name}_End", index[name], offset, ()))

    add("Hips")
    return tuple(joints)


def swing(rest: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Computes the smallest rotations `[frames, 3, 3]` from a unit vector to `[frames, 3]` others.

    Opposite directions give half a turn about an axis perpendicular to `rest`; zero the identity.
    """
    length = np.linalg.norm(wanted, axis=-1, keepdims=True)
    unit = np.where(length > _TINY, wanted / np.maximum(length, _TINY), rest)
    axis, cosine = np.cross(rest, unit), unit @ rest
    sine = np.linalg.norm(axis, axis=-1)
    across = np.cross(rest, np.eye(3)[np.argmin(np.abs(rest))])
    straight = sine[:, None] < _TINY
    across = across / np.linalg.norm(across)
    axis = np.where(straight, across, axis / np.maximum(sine, _TINY)[:, None])
    return Rotation.from_rotvec(axis * np.arctan2(sine, cosine)[:, None]).as_matrix()


def _pelvis(at: dict[str, np.ndarray]) -> np.ndarray:
    """Computes the pelvis frames `[frames, 3, 3]`: x along the hips, y nearest to the spine."""
    x = at["left_hip"] - at["right_hip"]
    y = at["thorax"] - at["hip"]
    turn = np.empty((len(x), 3, 3))
    last = np.eye(3)
    for frame, (across, up) in enumerate(zip(x, y, strict=True)):
        forward = np.cross(across, up)
        if np.linalg.norm(forward) > _TINY * max(1.0, float(np.linalg.norm(across))):
            forward = forward / np.linalg.norm(forward)
            side = across / np.linalg.norm(across)
            last = np.stack([side, np.cross(forward, side), forward], axis=-1)
        turn[frame] = last
    return turn


def _with_shoulders(spine: np.ndarray, at: dict[str, np.ndarray]) -> np.ndarray:
    """Computes rotations about the spine `[frames, 3, 3]` that align its x with the shoulders."""
    across = at["left_shoulder"] - at["right_shoulder"]
    own = np.einsum("fji,fj->fi", spine, across)
    angle = np.where(np.hypot(own[:, 0], own[:, 2]) > _TINY, np.arctan2(-own[:, 2], own[:, 0]), 0.0)
    return Rotation.from_euler("y", angle[:, None]).as_matrix().reshape(-1, 3, 3)


def to_text(motion: bvh.Motion) -> str:
    """Writes an evenly sampled motion as the text of a BVH file with continuous angles."""
    lines = ["HIERARCHY", *_hierarchy(motion, 0, ""), "MOTION", f"Frames: {len(motion.times)}"]
    seconds = motion.times[1] - motion.times[0] if len(motion.times) > 1 else 1 / 30
    lines.append(f"Frame Time: {seconds:.9g}")
    columns = []
    for joint in motion.joints:
        turns = [channel for channel in joint.channels if channel in bvh.ROTATIONS]
        angles = {}
        if turns:
            order = "".join(channel[0] for channel in turns)
            found = continuous_angles(motion.rotations[joint.name], order)
            angles = dict(zip(turns, found.T, strict=True))
        for channel in joint.channels:
            if channel in bvh.POSITIONS:
                place = motion.positions[joint.name]
                columns.append(place[:, bvh.POSITIONS.index(channel)])
            else:
                columns.append(angles[channel])
    lines += [" ".join(f"{value:.6f}" for value in row) for row in np.stack(columns, -1)]
    return "\n".join(lines) + "\n"


def _hierarchy(motion: bvh.Motion, index: int, indent: str) -> Iterator[str]:
    joint = motion.joints[index]
    offset = " ".join(f"{value:.6f}" for value in joint.offset)
    end = joint.parent >= 0 and not joint.channels
    kind = "End Site" if end else f"{'JOINT' if joint.parent >= 0 else 'ROOT'} {joint.name}"
    yield from (f"{indent}{kind}", f"{indent}{{", f"{indent}\tOFFSET {offset}")
    if not end:
        yield f"{indent}\tCHANNELS {len(joint.channels)} {' '.join(joint.channels)}"
    for child, other in enumerate(motion.joints):
        if other.parent == index:
            yield from _hierarchy(motion, child, indent + "\t")
    yield f"{indent}}}"


def continuous_angles(rotations: Rotation, order: str) -> np.ndarray:
    """Computes Euler angles without jumps, for animation programs that interpolate.

    A rotation has two triples of angles, (a, b, c) and (a + 180, 180 - b, c + 180), or -b if the
    outer axes are equal, plus any whole turns. Each frame takes the triple nearest to the previous
    frame's. In gimbal lock both outer angles share the change.

    `order` lists the axes in the order of matrix multiplication, such as "ZYX".

    Returns:
      float64 `[frames, 3]` in degrees; the first frame is SciPy's.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Gimbal lock")
        angles = np.atleast_2d(rotations.as_euler(order))
    same = order[0] == order[2]
    outer = np.abs(np.sin(angles[:, 1]) if same else np.cos(angles[:, 1]))
    free = np.flatnonzero(outer > _POLE)
    found = angles.copy()
    if len(free):
        found[free] = np.unwrap(_nearest(angles[free], same), axis=0)
        for frame in range(free[0] - 1, -1, -1):
            found[frame] = _at_pole(angles[frame], found[frame + 1], order)
    for frame in range(free[0] + 1 if len(free) else 1, len(angles)):
        if outer[frame] <= _POLE:
            found[frame] = _at_pole(angles[frame], found[frame - 1], order)
        else:
            # The frames before may have come to this side by other whole turns.
            found[frame] += 2 * np.pi * np.round((found[frame - 1] - found[frame]) / (2 * np.pi))
    return np.degrees(found)


def _wrapped(angles: np.ndarray) -> np.ndarray:
    """Wraps angles to [-pi, pi)."""
    return (angles + np.pi) % (2 * np.pi) - np.pi


def _nearest(angles: np.ndarray, same: bool) -> np.ndarray:
    """Chooses in each frame the triple nearer to the one chosen before."""
    other = angles + np.pi
    other[:, 1] = -angles[:, 1] if same else np.pi - angles[:, 1]
    stays = (_wrapped(np.diff(angles, axis=0)) ** 2).sum(1)
    changes = (_wrapped(other[1:] - angles[:-1]) ** 2).sum(1)
    # From one kind to the other it is as far as back: the choice changes wherever that is nearer.
    flipped = np.concatenate([[False], np.cumsum(changes < stays) % 2 == 1])
    return np.where(flipped[:, None], other, angles)


def _at_pole(angles: np.ndarray, near: np.ndarray, order: str) -> np.ndarray:
    """Returns the triple of a rotation at the pole nearest to another triple, radians."""
    first, middle, last = angles
    # One of the two signs leaves the rotation unchanged; try both.
    turned = [Rotation.from_euler(order, (first + sign, middle, last + 1.0)) for sign in (1, -1)]
    back = Rotation.from_euler(order, angles).inv()
    sign = (1, -1)[int(np.argmin([(back * rotation).magnitude() for rotation in turned]))]
    off = _wrapped(first - sign * last - (near[0] - sign * near[2]))
    middle = near[1] + _wrapped(middle - near[1])
    return np.array([near[0] + off / 2, middle, near[2] - sign * off / 2])
