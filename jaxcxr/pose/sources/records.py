"""What a camera records of a motion: the arrays of one pose record."""

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import cameras
from jaxcxr.pose.keypoints.detector import Detector

RIGS = ("human36m", "random")


def make_rig(
    name: str, points: np.ndarray, rng: np.random.Generator, count: int = 4
) -> tuple[cameras.Camera, ...]:
    """Cameras that have a whole motion in view.

    Arguments:
      name: "human36m" (four corners of a hall, lightly shifted) or "random".
      points: `[..., 3]` world positions, metres, that must be in view.
      rng: source of randomness.
      count: number of cameras of the random rig.

    Returns:
      The cameras.

    Raises:
      UserError: no such rig.
    """
    flat = points.reshape(-1, 3)
    center = (flat.min(axis=0) + flat.max(axis=0)) / 2
    # 5 % more: the aim of a shifted camera is a little off the centre.
    reach = 1.05 * float(np.linalg.norm(flat - center, axis=-1).max())
    if name == "human36m":
        return cameras.human36m_rig(center, reach, rng)
    if name == "random":
        return cameras.random_rig(rng, count, center, reach)
    raise UserError(f"camera rig is {name!r}; allowed: {', '.join(RIGS)}.")


def capture(
    world: np.ndarray,
    camera: cameras.Camera,
    detector: Detector,
    rng: np.random.Generator,
    fps: float = 50.0,
) -> dict[str, np.ndarray]:
    """The arrays of one record of `pose_set.pose_features`.

    Arguments:
      world: `[frames, joints, 3]` in metres, z up.
      camera: the camera.
      detector: noise and misses; a joint outside the image is missed too.
      rng: source of randomness.
      fps: frames per second.

    Returns:
      `keypoints` (0 where missed), `confidence` (0 missed), `joints`, `image_size`,
      `intrinsics`.
    """
    joints = camera.to_camera(world)
    pixels, seen = camera.see(joints)
    return observed(joints, pixels, seen, camera.intrinsics, detector, rng, fps)


def observed(
    joints: np.ndarray,
    pixels: np.ndarray,
    seen: np.ndarray,
    lens: cameras.Intrinsics,
    detector: Detector,
    rng: np.random.Generator,
    fps: float,
) -> dict[str, np.ndarray]:
    """The arrays of one record from places that are known in the image and before the camera.

    Arguments:
      joints: `[frames, joints, 3]` in metres in the camera frame.
      pixels: `[frames, joints, 2]`.
      seen: bool `[frames, joints]`.
      lens: of the camera.
      detector, rng, fps: as in `capture`.

    Returns:
      As `capture`.
    """
    keypoints, confidence = detector.find(pixels, seen, fps, rng)
    return {
        "keypoints": keypoints.astype(np.float32),
        "confidence": confidence,
        "joints": joints.astype(np.float32),
        "image_size": np.array([lens.width, lens.height], np.int32),
        "intrinsics": lens.vector(),
    }


def records(
    world: np.ndarray,
    rig: str,
    detector: Detector,
    rng: np.random.Generator,
    *,
    name: str,
    subject: str,
    action: str,
    fps: float,
) -> dict[str, dict]:
    """One record of `pose_set.pose_features` for each camera of a rig.

    Arguments:
      world: `[frames, joints, 3]` in metres, z up.
      rig: see `make_rig`.
      detector: noise and misses.
      rng: source of randomness.
      name: of the motion; `sequence_id` is NAME_CAMERA.
      subject: who moves.
      action: what they do.
      fps: frames per second.

    Returns:
      `sequence_id` to record.
    """
    found = {}
    for camera in make_rig(rig, world, rng):
        found[f"{name}_{camera.name}"] = {
            "sequence_id": f"{name}_{camera.name}",
            "subject": subject,
            "action": action,
            "camera": camera.name,
            "fps": fps,
            **capture(world, camera, detector, rng, fps),
        }
    return found
