"""Walking people for files of 3D data sets, and the points of a joint set."""

import numpy as np

from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.phantom import body
from jaxcxr.pose.phantom.actions import ACTIONS

# Near joints for points that Human3.6M has not; feet point forward, two decimetres.
_NEAR = {"skull": "neck", "head_center": "neck", "root": "hip", "left_foot": "left_ankle",
         "right_foot": "right_ankle", "left_hand": "left_wrist", "right_hand": "right_wrist",
         "left_collar": "thorax", "right_collar": "thorax"}
# Joints that a conversion from each set gives back as they were.
KEPT = [i for i, name in enumerate(HUMAN36M.joints) if name not in ("spine", "head", "hip")]


def walk(frames: int = 20, seed: int = 0, fps: float = 50.0) -> np.ndarray:
    """World positions `[frames, 17, 3]` of a person, metres, z up."""
    who = body.make_body(seed + 1)
    rng = np.random.default_rng(seed)
    return body.place(who, ACTIONS["walk"](rng, who, np.arange(frames) / fps), fps)


def points(name: str, joints: np.ndarray) -> np.ndarray:
    """Points of a set `[..., points, 3]` on a body `[..., 17, 3]`, z up."""
    names = joint_sets.joint_set(name).joints
    at = {joint: joints[..., i, :] for i, joint in enumerate(HUMAN36M.joints)}
    forward = np.cross(at["left_hip"] - at["right_hip"], (0.0, 0.0, 1.0))
    found = []
    for point in names:
        place = at.get(_NEAR.get(point, point), (at["hip"] + at["thorax"]) / 2)
        found.append(place + forward if point.endswith("_foot") else place)
    return np.stack(found, axis=-2)
