"""Turns motion into records as seen by virtual cameras and a simulated detector.

Sources share these options and functions if their cameras or keypoints are simulated.
"""

import dataclasses
import hashlib

import numpy as np
import tensorflow_datasets as tfds

from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import cameras
from jaxcxr.pose.keypoints import frame_rates
from jaxcxr.pose.keypoints.detector import Detector

FPS = 50.0  # Human3.6M's
RIGS = ("human36m", "random")
_DETECTOR = tuple(field.name for field in dataclasses.fields(Detector))


@dataclasses.dataclass(eq=False)
class DetectedConfig(tfds.core.BuilderConfig):
    """Options of the simulated detector, see `detector.Detector`.

    Attributes:
      noise: standard deviation of the keypoints, pixels.
      dropout: probability that a joint is missed in a frame.
      drift: standard deviation, in pixels, of a slowly changing error.
      outliers: probability that a joint is found far from its place.
      occlusion: share of the time that a joint is hidden.
      swap: share of the time that left and right arms, or legs, are swapped.
      seed: seed of the noise and the misses.
    """

    noise: float = 0.0
    dropout: float = 0.0
    drift: float = 0.0
    outliers: float = 0.0
    occlusion: float = 0.0
    swap: float = 0.0
    seed: int = 0

    def __post_init__(self):
        self.detector = Detector(**{name: getattr(self, name) for name in _DETECTOR})


@dataclasses.dataclass(eq=False)
class VirtualConfig(DetectedConfig):
    """Options of virtual cameras, detector and frame rate.

    Attributes:
      rig: "human36m" (four corners of a hall, moved outwards until the clip is in view) or
        "random" (anywhere around).
      seed: seed of the cameras, the noise and the misses.
      fps: frames per second of the prepared sequences.
    """

    rig: str = "human36m"
    fps: float = FPS

    def __post_init__(self):
        super().__post_init__()
        if self.rig not in RIGS:
            raise UserError(f"rig is {self.rig!r}; allowed: {', '.join(RIGS)}.")
        self.fps = frame_rates.check("virtual cameras", self.fps)
        self.rate = frame_rates.label(self.fps, FPS)


def generator(seed: int, name: str) -> np.random.Generator:
    """Returns a source of randomness that depends on a seed and a name alone."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


def runs(chosen: np.ndarray) -> np.ndarray:
    """Finds the runs of True in bool `[frames]`: rows of start and end, the end exclusive."""
    return np.flatnonzero(np.diff(np.r_[False, chosen, False])).reshape(-1, 2)


def make_rig(
    name: str, points: np.ndarray, rng: np.random.Generator, count: int = 4
) -> tuple[cameras.Camera, ...]:
    """Places cameras with a whole motion in view.

    Arguments:
      name: one of `RIGS`.
      points: `[..., 3]` world positions in metres that must be in view.
      rng: source of randomness.
      count: number of cameras of the random rig.

    Raises:
      UserError: no such rig.
    """
    flat = points.reshape(-1, 3)
    center = (flat.min(axis=0) + flat.max(axis=0)) / 2
    # Shifted cameras aim slightly off the centre: 5 % more.
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
    """Records a motion with one camera.

    Arguments:
      world: `[frames, joints, 3]` in metres, z up.
      camera: the camera.
      detector: noise and misses; joints outside the image are missed too.
      rng: source of randomness.
      fps: frames per second.

    Returns:
      `keypoints` and `confidence` (0 where missed), `joints`, `image_size` and `intrinsics` as in
      `pose_set.pose_features`.
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
    """Records joints whose pixels are known, see `capture`.

    Arguments:
      joints: `[frames, joints, 3]` in metres in the camera frame.
      pixels: `[frames, joints, 2]`.
      seen: bool `[frames, joints]`.
      lens, detector, rng, fps: as in `capture`.
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
    """Makes one record of `pose_set.pose_features` per camera of a rig, see `make_rig`.

    Arguments:
      world: `[frames, joints, 3]` in metres, z up.
      rig, detector, rng, fps: as in `make_rig` and `capture`.
      name, subject, action: of the motion.

    Returns:
      `sequence_id`, NAME_CAMERA -> record.
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
