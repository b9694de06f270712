"""SURREAL's `*_info.mat`: SMPL's 24 joints in the world and in the image of one clip.

Blender's camera is the same in every clip but for its place: x of the camera is -z of the world, y
is y, and depth -x, which is a reflection. So people in the images are mirrored, and a joint called
left is on the side that anybody who looks at the image calls right. Here left and right are
exchanged, and the poses in the camera frame are those of people.

Pixels count from 0, are rounded, and may lie outside the image. A frame that was not rendered has
all joints at 0.

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
_TALL = (0.4, 3.5)  # metres from the head to a foot, bodies of all shapes


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
    """A clip.

    Attributes:
      joints: float64 `[frames, 17, 3]` in metres in the camera frame (x right, y down, z forward).
      keypoints: `[frames, 17, 2]`, the file's pixels. projected: exactly where the joints appear.
      there: bool `[frames]`, whether the frame was rendered.
    """

    joints: np.ndarray
    keypoints: np.ndarray
    projected: np.ndarray
    there: np.ndarray


def _exchanged() -> list[int]:
    """SMPL's joints with left and right exchanged."""
    names = joint_sets.JOINT_SETS["smpl24"].joints
    swap = {"left": "right", "right": "left"}
    other = ["_".join([swap.get(name.split("_")[0], name.split("_")[0]), *name.split("_")[1:]])
             for name in names]
    return [names.index(name) for name in other]


def read(path: str | pathlib.Path) -> Clip:
    """One clip.

    Arguments:
      path: `*_info.mat`.

    Raises:
      UserError: absent, damaged, arrays of other shapes, nothing rendered, or joints of which the
        camera does not see the pixels that the file says.
    """
    content = mat_files.read(path, ["joints2D", "joints3D", "camLoc"])
    world = _array(path, content, "joints3D", 3)
    pixels = _array(path, content, "joints2D", 2)
    place = np.asarray(content.get("camLoc", []))
    if place.shape != (3,) or place.dtype.kind not in "fiu" or not np.isfinite(place).all():
        raise UserError(f"{path}: camLoc is not the place of a camera, three numbers.")
    if len(world) != len(pixels):
        raise UserError(f"{path}: joints3D of {len(world)} frames, joints2D of {len(pixels)}.")
    there = (world != 0).any((1, 2))
    if not there.any():
        raise UserError(f"{path}: no frame of it was rendered, all joints are 0.")
    order = _exchanged()
    camera = Camera("camera", LENS, ROTATION, place.astype(np.float64))
    points = camera.to_camera(world)[:, order]
    if not (points[there][..., 2] > 0).all():
        raise UserError(f"{path}: joints behind the camera; camLoc is of another clip.")
    projected = LENS.project(np.where(there[:, None, None], points, 1.0))
    apart = np.median(np.linalg.norm(projected - pixels[:, order], axis=-1)[there])
    if apart > _APART:
        raise UserError(
            f"{path}: its joints appear {apart:.0f} pixels from where joints2D says; the camera is "
            "of another clip."
        )
    convert = joint_sets.to_human36m("smpl24")
    joints, _ = convert(points)
    tall = np.linalg.norm(joints[there, 10] - joints[there][:, [3, 6]].mean(1), axis=-1).max()
    if not _TALL[0] < tall < _TALL[1]:
        raise UserError(f"{path}: head and feet are {tall:.3g} m apart; that is nobody.")
    exact = LENS.project(np.where(there[:, None, None], joints, 1.0))
    return Clip(joints, convert(pixels[:, order])[0], exact, there)


def _array(path, content: dict, name: str, size: int) -> np.ndarray:
    """float64 `[frames, 24, size]` of `[size, 24, frames]`, of which one frame has no axis."""
    values = np.asarray(content.get(name, []))
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[:2] != (size, 24) or values.dtype.kind not in "fiu":
        raise UserError(
            f"{path}: {name} has the shape {list(values.shape)}, not [{size}, 24, frames]."
        )
    if not values.shape[2] or not np.isfinite(values).all():
        raise UserError(f"{path}: {name} has no frame, or numbers that are not finite.")
    return values.transpose(2, 1, 0).astype(np.float64)
