"""Files in the exact form of VideoPose3D's of HumanEva, from drawn motion, for several tests."""

import pathlib

import numpy as np

from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.geometry.cameras import Intrinsics
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.phantom import actions, body
from jaxcxr.pose.sources import humaneva

LENS = Intrinsics(800.0, 810.0, 330.0, 240.0, width=640, height=480)
OWN = [HUMAN36M.index(joint) for joint in joint_sets.joint_set("humaneva15").joints]
CHUNKS = ("Walking 1 chunk0", "Walking 1 chunk1", "Box 1 chunk0", "Gestures 1 chunk0")
# Nose, eyes and ears, then limbs left and right: where drawn people have COCO's points.
_COCO = [9, 10, 10, 10, 10, 11, 14, 12, 15, 13, 16, 4, 1, 5, 2, 6, 3]


def world(subject: str, chunk: str, frames: int) -> np.ndarray:
    """World positions `[frames, 17, 3]`, metres."""
    who = body.make_body(int(subject[-1]))
    rng = np.random.default_rng([CHUNKS.index(chunk), len(subject)])
    action = actions.ACTIONS["wave" if "Box" in chunk else "walk"]
    return body.place(who, action(rng, who, np.arange(frames) / 60), 60.0)


def positions(frames: int = 14, subjects=humaneva.SUBJECTS) -> dict:
    """What `positions_3d` holds."""
    found = {s: {c: world(s, c, frames)[:, OWN].astype(np.float32) for c in CHUNKS}
             for s in subjects}
    return {**found, "Unlabeled/S4": {"Walking 1 chunk0": np.zeros((5, 15, 3), np.float32)}}


def keypoints(frames: int = 14, order=OWN, longer: int = 2) -> dict:
    """What `positions_2d` holds, some frames longer than the positions."""
    found: dict = {}
    for subject in humaneva.SUBJECTS:
        for chunk in CHUNKS:
            joints = world(subject, chunk, frames)[:, order]
            views = [LENS.project(humaneva.to_camera(joints, subject, camera))
                     for camera in humaneva.CAMERAS]
            found.setdefault(subject, {})[chunk] = [
                np.concatenate([v, v[-1:].repeat(longer, 0)]).astype(np.float32) for v in views]
    return found


def coco(frames: int = 14) -> dict:
    """The same in COCO's points."""
    return keypoints(frames, _COCO)


def save(folder: pathlib.Path, positions_3d=None, name: str = "", positions_2d=None, **metadata):
    """Writes one file or both."""
    if positions_3d is not None:
        np.savez_compressed(folder / "data_3d_humaneva15.npz", positions_3d=positions_3d)
    if name:
        np.savez_compressed(
            folder / f"data_2d_humaneva15_{name}.npz", positions_2d=positions_2d,
            metadata=metadata,
        )
