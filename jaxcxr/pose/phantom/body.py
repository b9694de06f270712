"""Makes human bodies, computes their forward kinematics, and stands them on the floor.

Body frame: x forward, y to the left, z up, metres. All angles are zero in a person who stands with
straight legs and hanging arms.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation
from scipy.special import logsumexp, softmax

from jaxcxr.pose.geometry.skeletons import HUMAN36M

# Offset of each joint from its parent at rest, metres, for a person of 1.75 m. Lengths are close to
# those of Human3.6M's S1 (thigh 0.44, shin 0.45, upper arm 0.28, forearm 0.25).
_REST = np.array([
    [0.00, 0.00, 0.00],
    [0.00, -0.13, 0.00],
    [0.00, 0.00, -0.44],
    [0.00, 0.00, -0.44],
    [0.00, 0.13, 0.00],
    [0.00, 0.00, -0.44],
    [0.00, 0.00, -0.44],
    [-0.02, 0.00, 0.23],
    [0.01, 0.00, 0.25],
    [0.05, 0.00, 0.11],
    [-0.03, 0.00, 0.11],
    [0.00, 0.15, -0.01],
    [0.00, 0.00, -0.28],
    [0.00, 0.00, -0.25],
    [0.00, -0.15, -0.01],
    [0.00, 0.00, -0.28],
    [0.00, 0.00, -0.25],
])

# Joints with a common scale in each body.
_PARTS = {
    "hips": (1, 4), "legs": (2, 3, 5, 6), "trunk": (7, 8), "neck": (9, 10), "shoulders": (11, 14),
    "arms": (12, 13, 15, 16),
}

# Least and greatest angle of each curve, degrees (American Academy of Orthopaedic Surgeons, 1965,
# rounded); flexion swings a limb forward, abduction outward, twist turns it outward.
LIMITS = {
    "pelvis_pitch": (-20, 60), "pelvis_roll": (-25, 25), "pelvis_twist": (-30, 30),
    "spine_flex": (-25, 75), "spine_side": (-35, 35), "spine_twist": (-45, 45),
    "neck_flex": (-45, 45), "neck_twist": (-70, 70), "hip_flex": (-30, 120),
    "hip_abduct": (-20, 45), "hip_twist": (-40, 45), "knee": (0, 140), "shoulder_flex": (-60, 180),
    "shoulder_abduct": (-20, 170), "shoulder_twist": (-80, 90), "elbow": (0, 145),
}


_SOFTNESS = 0.02  # metres; feet within this height of one another share the weight
_ANKLES = [HUMAN36M.index("right_ankle"), HUMAN36M.index("left_ankle")]

Curves = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Body:
    """One person.

    Attributes:
      name: "S1", "S2", ...
      offsets: each joint from its parent at rest, `[17, 3]` metres.
      ankle: height of the ankle above the floor, metres.
      stoop: standing flexion of the spine, degrees.
      vigour: factor on the size of this person's movements.
    """

    name: str
    offsets: np.ndarray
    ankle: float
    stoop: float
    vigour: float


@dataclasses.dataclass
class Motion:
    """A person's movement before it is placed in the room.

    Attributes:
      angles: curve name -> degrees `[frames]`.
      heading: direction of the body about the vertical, radians `[frames]`.
      lift: height of the lower foot above the floor, metres `[frames]`.
      steadiness: seconds over which the root's speed is smoothed, because a gait carries the body
        from one foot to the other; 0 if the standing foot alone decides.
      load: share of the weight on the right and the left foot `[frames, 2]`; None to infer it from
        their heights.
    """

    angles: Curves
    heading: np.ndarray
    lift: np.ndarray
    steadiness: float = 0.0
    load: np.ndarray | None = None


def make_body(index: int) -> Body:
    """Makes the body of subject S<index>, index >= 1, whatever a data set's seed.

    Stature is 1.55 to 1.95 m (standard deviation 0.09 m); proportions vary by about 4 %.
    """
    rng = np.random.default_rng([0xB0D1, index])
    stature = float(np.clip(rng.normal(1.0, 0.052), 0.885, 1.115))
    offsets = _REST * stature
    for joints in _PARTS.values():
        offsets[list(joints)] *= rng.normal(1.0, 0.04)
    return Body(
        name=f"S{index}",
        offsets=offsets,
        ankle=0.08 * stature,
        stoop=rng.uniform(-2.0, 10.0),
        vigour=rng.uniform(0.85, 1.15),
    )


def forward_kinematics(body: Body, angles: Mapping[str, np.ndarray]) -> np.ndarray:
    """Computes joint positions `[frames, 17, 3]` in the body frame, metres, root at the origin.

    Angles in degrees `[frames]` by the name of their curve are clipped to `LIMITS`; a missing curve
    is zero.
    """
    frames = len(next(iter(angles.values())))
    bones = _bone_rotations(angles, frames)
    # Frame of the bone that ends in each joint; the root has the pelvis's.
    frame: list[np.ndarray] = []
    positions = np.zeros((frames, HUMAN36M.num_joints, 3))
    for joint, parent in enumerate(HUMAN36M.parents):
        if parent < 0:
            frame.append(bones[joint])
            continue
        frame.append(frame[parent] @ bones[joint] if joint in bones else frame[parent])
        positions[:, joint] = positions[:, parent] + frame[joint] @ body.offsets[joint]
    return positions


def _bone_rotations(angles, frames) -> dict[int, np.ndarray]:
    """Computes each joint's bone rotation `[frames, 3, 3]` relative to the parent bone."""
    still = np.zeros(frames)

    def curve(name: str) -> np.ndarray:
        low, high = LIMITS[name.removeprefix("right_").removeprefix("left_")]
        return np.clip(angles.get(name, still), low, high)

    def turn(roll, pitch, yaw) -> np.ndarray:
        # Intrinsic x, y, z: the twist about the limb's own axis comes first.
        stacked = np.stack([roll, pitch, yaw], axis=-1)
        return Rotation.from_euler("XYZ", stacked, degrees=True).as_matrix()

    half_spine = turn(*(curve(f"spine_{way}") / 2 for way in ("side", "flex", "twist")))
    rotations = {
        0: turn(*(curve(f"pelvis_{way}") for way in ("roll", "pitch", "twist"))),
        7: half_spine,
        8: half_spine,
        9: turn(still, curve("neck_flex"), curve("neck_twist")),
    }
    for side, sign, (thigh, shin, arm, forearm) in (
        ("right", -1, (2, 3, 15, 16)),
        ("left", 1, (5, 6, 12, 13)),
    ):
        for bone, name in ((thigh, "hip"), (arm, "shoulder")):
            rotations[bone] = turn(
                sign * curve(f"{side}_{name}_abduct"),
                -curve(f"{side}_{name}_flex"),
                sign * curve(f"{side}_{name}_twist"),
            )
        rotations[shin] = turn(still, curve(f"{side}_knee"), still)
        rotations[forearm] = turn(still, -curve(f"{side}_elbow"), still)
    return rotations


def place(body: Body, motion: Motion, fps: float) -> np.ndarray:
    """Places a motion in the room, its path centred on the vertical axis.

    The root moves so that the standing foot stays in place and the lower foot touches the floor;
    feet at the same height share the weight, which keeps the motion smooth.

    Returns:
      `[frames, 17, 3]` in metres, z up, floor at z = 0.
    """
    local = forward_kinematics(body, motion.angles)
    heading = Rotation.from_euler("z", motion.heading[:, None]).as_matrix()
    turned = np.einsum("tab,tjb->tja", heading, local)
    feet = turned[:, _ANKLES]
    height = feet[:, :, 2]
    lowest = -_SOFTNESS * (logsumexp(-height / _SOFTNESS, axis=1) - np.log(2))
    root = np.zeros((len(local), 3))
    root[:, :2] = _path(feet, height, motion, fps)
    root[:, 2] = body.ankle + motion.lift - lowest
    return turned + root[:, None]


def _path(feet, height, motion, fps) -> np.ndarray:
    """Computes the horizontal path of the root `[frames, 2]`, metres."""
    load = softmax(-height / _SOFTNESS, axis=1) if motion.load is None else motion.load
    load = (load[1:] + load[:-1]) / 2
    step = -np.sum(load[..., None] * np.diff(feet[..., :2], axis=0), axis=1)
    if motion.steadiness:
        step = _steady(step, motion, fps)
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(step, axis=0)])
    return path - (path.min(axis=0) + path.max(axis=0)) / 2


def _steady(step, motion, fps) -> np.ndarray:
    """Smooths steps in the body's frame, where a curved path has a constant mean velocity."""
    middle = (motion.heading[1:] + motion.heading[:-1]) / 2
    turn = Rotation.from_euler("z", middle[:, None]).as_matrix()[:, :2, :2]
    own = np.einsum("tba,tb->ta", turn, step)
    own = gaussian_filter1d(own, motion.steadiness * fps, axis=0)
    return np.einsum("tab,tb->ta", turn, own)
