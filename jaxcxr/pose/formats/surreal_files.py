"""Reads SURREAL's `*_info.mat`: SMPL's 24 joints in the world and in the image of one clip.

Blender's camera has the same rotation in every clip: x of the camera is -z of the world, y is y,
and depth is -x, which is a reflection. People in the images are thus mirrored, and joints named
left appear on the right. Left and right are exchanged here, so poses in the camera frame are real.

Pixels count from 0, are rounded, and may lie outside the image. All joints of a frame that was not
rendered are 0.

Source: Varol et al., "Learning from synthetic humans", 2017; the scripts 3Dto2D and smpl_relations
of the data set's authors.
"""

import dataclasses
import pathlib

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.formats import mat_files
from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.geometry.cameras import Camera, Intrinsics

FPS = 30.0
LENS = Intrinsics(600.0, 600.0, 160.0, 120.0, width=320, height=240)
ROTATION = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
_APART = 2.0  # pixels; rounding gives half of one
_TALL = (0.4, 3.5)  # metres from head to foot, for bodies of all shapes


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
    """A clip.

    Attributes:
      joints: float64 `[frames, 17, 3]` in metres in the camera frame (x right, y down, z forward).
      keypoints: `[frames, 17, 2]`, the file's pixels.
      projected: `[frames, 17, 2]`, pixels of the projected joints.
      there: bool `[frames]`, whether the frame was rendered.
    """

    joints: np.ndarray
    keypoints: np.ndarray
    projected: np.ndarray
    there: np.ndarray


def _exchanged() -> list[int]:
    """Returns the order of SMPL's joints with left and right exchanged."""
    names = joint_sets.JOINT_SETS["smpl24"].joints
    swap = {"left": "right", "right": "left"}
    other = ["_".join([swap.get(name.split("_")[0], name.split("_")[0]), *name.split("_")[1:]])
             for name in names]
    return [names.index(name) for name in other]


def read(path: str | pathlib.Path) -> Clip:
    """Reads one clip from its `*_info.mat`.

    Raises:
      UserError: the file is absent, damaged or malformed, nothing was rendered, or pixels do not
        match the camera.
    """
    content = mat_files.read(path, ["joints2D", "joints3D", "camLoc"])
    world = _array(path, content, "joints3D", 3)
    pixels = _array(path, content, "joints2D", 2)
    place = np.asarray(content.get("camLoc", []))
    if place.shape != (3,) or place.dtype.kind not in "fiu" or not np.isfinite(place).all():
        raise UserError(f"{path}: camLoc must be the camera's position, three numbers.")
    if len(world) != len(pixels):
        raise UserError(f"{path}: joints3D has {len(world)} frames, joints2D {len(pixels)}.")
    there = (world != 0).any((1, 2))
    if not there.any():
        raise UserError(f"{path}: no frame was rendered; all joints are 0.")
    order = _exchanged()
    camera = Camera("camera", LENS, ROTATION, place.astype(np.float64))
    points = camera.to_camera(world)[:, order]
    if not (points[there][..., 2] > 0).all():
        raise UserError(f"{path}: joints behind the camera; camLoc is of another clip.")
    projected = LENS.project(np.where(there[:, None, None], points, 1.0))
    apart = np.median(np.linalg.norm(projected - pixels[:, order], axis=-1)[there])
    if apart > _APART:
        raise UserError(
            f"{path}: projected joints are {apart:.0f} pixels from joints2D; the camera is of "
            "another clip."
        )
    convert = joint_sets.to_human36m("smpl24")
    joints, _ = convert(points)
    tall = np.linalg.norm(joints[there, 10] - joints[there][:, [3, 6]].mean(1), axis=-1).max()
    if not _TALL[0] < tall < _TALL[1]:
        raise UserError(f"{path}: head and feet are {tall:.3g} m apart; nobody has that size.")
    exact = LENS.project(np.where(there[:, None, None], joints, 1.0))
    return Clip(joints, convert(pixels[:, order])[0], exact, there)


def _array(path, content: dict, name: str, size: int) -> np.ndarray:
    """Reads `[size, 24, frames]`, or `[size, 24]` of one frame, as `[frames, 24, size]`."""
    values = np.asarray(content.get(name, []))
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[:2] != (size, 24) or values.dtype.kind not in "fiu":
        raise UserError(
            f"{path}: {name} has the shape {list(values.shape)}, not [{size}, 24, frames]."
        )
    if not values.shape[2] or not np.isfinite(values).all():
        raise UserError(f"{path}: {name} has no frames, or numbers that are not finite.")
    return values.transpose(2, 1, 0).astype(np.float64)
