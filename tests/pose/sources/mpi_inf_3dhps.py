"""Files in the exact form of P-STMO's and D3DP's of MPI-INF-3DHP, from drawn motion."""

import pathlib

import numpy as np

from jaxcxr.pose.geometry import cameras, joint_sets
from jaxcxr.pose.geometry.cameras import Intrinsics
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.phantom import actions, body
from jaxcxr.pose.sources import virtual

OWN = [HUMAN36M.index(joint) for joint in joint_sets.joint_set("mpi_inf_3dhp").joints]
ROOT = 14
SEQUENCES = (("S1", "Seq1"), ("S1", "Seq2"), ("S8", "Seq1"))


def lens(subject: str) -> Intrinsics:
    if subject in ("TS5", "TS6"):
        return Intrinsics(1100.0, 1100.0, 960.0, 540.0, width=1920, height=1080)
    return Intrinsics(1500.0, 1500.0, 1024.0, 1040.0, width=2048, height=2048)


def scale(subject: str) -> float:
    """How much larger the universal skeleton is than a person."""
    return {"S1": 1.08, "S8": 0.97}.get(subject, 0.9 + 0.03 * int(subject[-1]))


def camera_frame(subject: str, take: str, camera: int, frames: int) -> np.ndarray:
    """Positions `[frames, 17, 3]` in metres in a camera's frame, Human3.6M's order."""
    who = body.make_body(int(subject[-1]) + 10 * subject.startswith("T"))
    rng = np.random.default_rng([len(take), camera])
    world = body.place(who, actions.ACTIONS["walk"](rng, who, np.arange(frames) / 10), 10.0)
    rig = virtual.make_rig("human36m", world, np.random.default_rng(0))
    placed: cameras.Camera = rig[camera]
    return placed.to_camera(world)


def entry(subject: str, take: str, camera: int, frames: int, univ: bool) -> dict:
    joints = camera_frame(subject, take, camera, frames)[:, OWN]
    pixels = lens(subject).project(joints)
    if univ:
        root = joints[:, [ROOT]]
        joints = root + (joints - root) * scale(subject)
    return {"data_3d": joints * 1000, "data_2d": pixels}


def make_train(univ: bool = False, frames: int = 30) -> dict:
    """What `data` of a training file holds."""
    return {
        f"{subject} {take}": [{str(camera): entry(subject, take, camera, frames, univ)
                               for camera in (0, 2)}]
        for subject, take in SEQUENCES
    }


def make_test(univ: bool = False, frames: int = 30) -> dict:
    """What `data` of a test file holds; some frames of TS2 are not valid."""
    found = {}
    for number in range(1, 7):
        subject = f"TS{number}"
        valid = np.ones(frames, np.uint8)
        if number == 2:
            valid[[0, 10, 11]] = 0
        found[subject] = {**entry(subject, "test", 1, frames, univ), "valid": valid}
    return found


def save(path: pathlib.Path, data: dict) -> pathlib.Path:
    np.savez_compressed(path, data=data)
    return path
