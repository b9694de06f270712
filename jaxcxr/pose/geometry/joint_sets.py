"""Converts the joint sets of detectors and data sets to Human3.6M's 17 joints.

No two sets mean quite the same points: COCO's hips are marked on the skin, SMPL's are inside a
body model, and Human3.6M's "neck" lies at the nose. A conversion takes the nearest point in a set,
so never compare errors of converted keypoints with those of native ones.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from jaxcxr.errors import UserError, did_you_mean
from jaxcxr.pose.geometry.skeletons import HUMAN36M

_SIDES = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_LIMBS = {f"{side}_{part}": f"{side}_{part}" for side in ("left", "right") for part in _SIDES}
_MIDDLE_OF_HIPS = {"left_hip": 0.5, "right_hip": 0.5}
_MIDDLE_OF_SHOULDERS = {"left_shoulder": 0.5, "right_shoulder": 0.5}
_THORAX = {"thorax": 1.0}

Sources = Mapping[str, str | Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class JointSet:
    """Named points in the order in which files list them.

    Attributes:
      joints: names of the points; points that match a joint of Human3.6M share its name.
      human36m: for each of the 17 joints the corresponding point, or weights of several points.
    """

    name: str
    joints: tuple[str, ...]
    human36m: Sources

    @property
    def matrix(self) -> np.ndarray:
        """Weights float64 `[17, joints]` that combine this set's points to Human3.6M's joints."""
        weights = np.zeros((HUMAN36M.num_joints, len(self.joints)))
        for row, joint in enumerate(HUMAN36M.joints):
            parts = self.human36m[joint]
            parts = {parts: 1.0} if isinstance(parts, str) else parts
            for name, weight in parts.items():
                weights[row, self.joints.index(name)] = weight
        return weights


def _names(text: str) -> tuple[str, ...]:
    sides = {"l_": "left_", "r_": "right_"}
    return tuple(sides.get(word[:2], word[:2]) + word[2:] for word in text.split())


def _between(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    """Weights of the midpoint of two points."""
    names = [*a, *(name for name in b if name not in a)]
    return {name: (a.get(name, 0.0) + b.get(name, 0.0)) / 2 for name in names}


_COCO = _names(
    "nose l_eye r_eye l_ear r_ear l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist "
    "l_hip r_hip l_knee r_knee l_ankle r_ankle"
)
# COCO has neither the top of the head nor the base of the neck; the eyes and the middle of the
# shoulders stand in for them.
_FROM_FACE: Sources = {"neck": "nose", "head": {"left_eye": 0.5, "right_eye": 0.5}}

JOINT_SETS = {
    joint_set.name: joint_set
    for joint_set in (
        JointSet("human36m", HUMAN36M.joints, {name: name for name in HUMAN36M.joints}),
        JointSet("coco", _COCO, {
            **_LIMBS, **_FROM_FACE, "hip": _MIDDLE_OF_HIPS, "thorax": _MIDDLE_OF_SHOULDERS,
            "spine": _between(_MIDDLE_OF_HIPS, _MIDDLE_OF_SHOULDERS),
        }),
        JointSet("mpii", _names(
            "r_ankle r_knee r_hip l_hip l_knee l_ankle hip thorax neck head r_wrist r_elbow "
            "r_shoulder l_shoulder l_elbow l_wrist"
        ), {
            **_LIMBS, "hip": "hip", "thorax": "thorax", "neck": "neck", "head": "head",
            "spine": {"hip": 0.5, "thorax": 0.5},
        }),
        JointSet("openpose25", _names(
            "nose thorax r_shoulder r_elbow r_wrist l_shoulder l_elbow l_wrist hip r_hip r_knee "
            "r_ankle l_hip l_knee l_ankle r_eye l_eye r_ear l_ear l_big_toe l_small_toe l_heel "
            "r_big_toe r_small_toe r_heel"
        ), {
            **_LIMBS, **_FROM_FACE, "hip": "hip", "thorax": "thorax",
            "spine": {"hip": 0.5, "thorax": 0.5},
        }),
        JointSet("halpe26", (*_COCO, *_names(
            "head thorax hip l_big_toe r_big_toe l_small_toe r_small_toe l_heel r_heel"
        )), {
            **_LIMBS, "neck": "nose", "head": "head", "hip": "hip", "thorax": "thorax",
            "spine": {"hip": 0.5, "thorax": 0.5},
        }),
        JointSet("mediapipe33", _names(
            "nose l_eye_inner l_eye l_eye_outer r_eye_inner r_eye r_eye_outer l_ear r_ear l_mouth "
            "r_mouth l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist l_pinky r_pinky l_index "
            "r_index l_thumb r_thumb l_hip r_hip l_knee r_knee l_ankle r_ankle l_heel r_heel "
            "l_foot_index r_foot_index"
        ), {
            **_LIMBS, **_FROM_FACE, "hip": _MIDDLE_OF_HIPS, "thorax": _MIDDLE_OF_SHOULDERS,
            "spine": _between(_MIDDLE_OF_HIPS, _MIDDLE_OF_SHOULDERS),
        }),
        # The head turns at SMPL's joint "skull"; its top is as far above it again.
        JointSet("smpl24", _names(
            "hip l_hip r_hip spine1 l_knee r_knee spine l_ankle r_ankle spine3 l_foot r_foot "
            "thorax l_collar r_collar skull l_shoulder r_shoulder l_elbow r_elbow l_wrist "
            "r_wrist l_hand r_hand"
        ), {
            **_LIMBS, "hip": "hip", "spine": "spine", "thorax": "thorax", "neck": "skull",
            "head": {"skull": 2.0, "thorax": -1.0},
        }),
        JointSet("humaneva15", _names(
            "hip thorax l_shoulder l_elbow l_wrist r_shoulder r_elbow r_wrist l_hip l_knee "
            "l_ankle r_hip r_knee r_ankle head"
        ), {
            **_LIMBS, "hip": "hip", "thorax": "thorax", "head": "head",
            "neck": {"thorax": 0.5, "head": 0.5}, "spine": {"hip": 0.5, "thorax": 0.5},
        }),
        # OpenPose's MPI models. Its "chest" is between shoulders and hips.
        JointSet("openpose15", _names(
            "head thorax r_shoulder r_elbow r_wrist l_shoulder l_elbow l_wrist r_hip r_knee "
            "r_ankle l_hip l_knee l_ankle chest"
        ), {
            **_LIMBS, "hip": _MIDDLE_OF_HIPS, "thorax": "thorax", "head": "head",
            "neck": {"thorax": 0.5, "head": 0.5}, "spine": _between(_MIDDLE_OF_HIPS, _THORAX),
        }),
        # The files name them Hips, Spine, ...; "skull" is their Head, at the place of SMPL's.
        JointSet("totalcapture21", _names(
            "root spine0 spine1 spine2 spine3 thorax skull r_collar r_shoulder r_elbow r_wrist "
            "l_collar l_shoulder l_elbow l_wrist r_hip r_knee r_ankle l_hip l_knee l_ankle"
        ), {
            **_LIMBS, "hip": _MIDDLE_OF_HIPS, "thorax": "thorax", "neck": "skull",
            "head": {"skull": 2.0, "thorax": -1.0}, "spine": _between(_MIDDLE_OF_HIPS, _THORAX),
        }),
        # JTA's "neck" is at the base of the neck, and its "head center" near the nose.
        JointSet("jta22", _names(
            "head head_center thorax r_collar r_shoulder r_elbow r_wrist l_collar l_shoulder "
            "l_elbow l_wrist spine0 spine1 spine2 spine3 spine4 r_hip r_knee r_ankle l_hip l_knee "
            "l_ankle"
        ), {
            **_LIMBS, "hip": _MIDDLE_OF_HIPS, "thorax": "thorax", "neck": "head_center",
            "head": "head", "spine": _between(_MIDDLE_OF_HIPS, _THORAX),
        }),
        # The order of MPI-INF-3DHP's test set.
        JointSet("mpi_inf_3dhp", _names(
            "head thorax r_shoulder r_elbow r_wrist l_shoulder l_elbow l_wrist r_hip r_knee "
            "r_ankle l_hip l_knee l_ankle hip spine neck"
        ), {name: name for name in HUMAN36M.joints}),
    )
}
_ALIASES = {
    "h36m": "human36m", "body_25": "openpose25", "smpl": "smpl24", "halpe": "halpe26",
    "mediapipe": "mediapipe33", "blazepose": "mediapipe33", "coco_wholebody": "coco",
    "wholebody": "coco", "wholebody133": "coco", "coco133": "coco", "halpe136": "halpe26",
}


def joint_set(name: str) -> JointSet:
    """Looks up a joint set by its name or by VideoPose3D's name for it."""
    known = _ALIASES.get(name, name)
    if known not in JOINT_SETS:
        raise UserError(
            f"unknown joint set {name!r}.{did_you_mean(name, JOINT_SETS)} "
            f"Known: {', '.join(JOINT_SETS)}."
        )
    return JOINT_SETS[known]


Convert = Callable[..., tuple[np.ndarray, np.ndarray]]


def to_human36m(name: str) -> Convert:
    """Returns a converter from a joint set, see `joint_set`, to Human3.6M's 17 joints.

    Returns:
      A function of points `[..., joints, 2 or 3]` and optionally their confidence `[..., joints]`.
      It returns points `[..., 17, 2 or 3]` in the same unit and confidence `[..., 17]`: the lowest
      of the points that form a joint; a joint of confidence 0 is zero. It raises a UserError if
      the number of points is not the set's.
    """
    known = joint_set(name)
    matrix = known.matrix
    used = matrix != 0

    def convert(
        points: np.ndarray, confidence: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        if points.ndim < 2 or points.shape[-2] != len(known.joints):
            raise UserError(
                f"points {points.shape} are not of the joint set {known.name!r}, which has "
                f"{len(known.joints)} joints."
            )
        seen = np.ones(points.shape[:-1], points.dtype) if confidence is None else confidence
        # A point that was not seen may hold anything, NaN too.
        there = np.where((seen > 0)[..., None], points, 0)
        certain = np.where(used, seen[..., None, :], np.inf).min(-1).astype(points.dtype)
        joints = np.einsum("kj,...jd->...kd", matrix.astype(points.dtype), there)
        return np.where((certain > 0)[..., None], joints, 0), certain

    return convert
