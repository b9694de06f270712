"""Turns motion into records as seen by virtual cameras and a simulated keypoint detector."""

import dataclasses
import hashlib

import numpy as np
import tensorflow_datasets as tfds
from scipy.signal import lfilter

from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import cameras
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.keypoints import frame_rates
from jaxcxr.pose.sources import pose_set

FPS = 50.0  # Human3.6M's
RIGS = ("human36m", "random")
# Seconds that an error or an occlusion lasts: several frames.
_DRIFT_SECONDS, _BURST_SECONDS = 0.2, 0.3
_OUTLIER_PIXELS = 50.0
# Joints that swap sides together.
_LIMBS = (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist"))


@dataclasses.dataclass(frozen=True)
class Detector:
    """A simulated keypoint detector.

    Attributes:
      noise: standard deviation of each coordinate in pixels, new in each frame.
      dropout: probability that a joint is missed in a frame.
      drift: standard deviation in pixels of an error that changes slowly (0.2 s).
      outliers: probability that a joint is found 50 pixels or more from its place.
      occlusion: share of the time that a joint is hidden, for 0.3 s on average.
      swap: share of the time that left and right arms, or legs, are swapped.
    """

    noise: float = 0.0
    dropout: float = 0.0
    drift: float = 0.0
    outliers: float = 0.0
    occlusion: float = 0.0
    swap: float = 0.0

    def __post_init__(self):
        for name in ("noise", "drift"):
            value = getattr(self, name)
            if not value >= 0:
                raise UserError(f"{name} is {value} pixels; it must not be negative.")
        for name in ("dropout", "outliers", "occlusion", "swap"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise UserError(f"{name} is {value}; it must be at least 0 and below 1.")

    @property
    def label(self) -> str:
        """Short text that identifies the detector."""
        more = "".join(
            f"_{short}{getattr(self, name):g}"
            for name, short in (
                ("drift", "drift"), ("outliers", "out"), ("occlusion", "occ"), ("swap", "swap"),
            )
            if getattr(self, name)
        )
        return f"noise{self.noise:g}_drop{self.dropout:g}{more}"

    def find(
        self, pixels: np.ndarray, seen: np.ndarray, fps: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Detects keypoints with simulated errors.

        Arguments:
          pixels: true places `[frames, joints, 2]`; 17 joints if `swap` is above 0.
          seen: bool `[frames, joints]`, whether they are in the image.

        Returns:
          Places `[frames, joints, 2]`, 0 where missed, and confidence float32 `[frames, joints]`:
          0 where missed, else 1; with drift or outliers it falls with the error.
        """
        shape = seen.shape
        found = pixels + self.noise * rng.standard_normal(pixels.shape)
        seen = seen & (rng.random(shape) >= self.dropout)
        if self.drift:
            found = found + self.drift * _slow(pixels.shape, fps, rng)
        if self.outliers:
            far = rng.random(shape) < self.outliers
            angle = rng.uniform(0, 2 * np.pi, shape)
            size = _OUTLIER_PIXELS * (1 + rng.exponential(1.0, shape))
            jump = np.stack([np.cos(angle), np.sin(angle)], -1) * size[..., None]
            found = found + np.where(far[..., None], jump, 0)
        if self.occlusion:
            seen = seen & ~_bursts(shape, self.occlusion, fps, rng)
        confidence = seen.astype(np.float32)
        if self.drift or self.outliers:
            scale = 10.0 + 2 * (self.noise + self.drift)
            error = np.linalg.norm(found - pixels, axis=-1)
            confidence *= np.exp(-0.5 * (error / scale) ** 2).clip(0.05).astype(np.float32)
        if self.swap:
            found, confidence = _swapped(found, confidence, self.swap, fps, rng)
        return np.where(confidence[..., None] > 0, found, 0.0), confidence


_ERRORS = tuple(field.name for field in dataclasses.fields(Detector))


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
        self.detector = Detector(**{name: getattr(self, name) for name in _ERRORS})


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
    """Places the cameras of one of `RIGS` with all world positions `[..., 3]`, metres, in view."""
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
    """Records a motion `[frames, joints, 3]`, metres, z up, with one camera.

    Joints outside the image are missed like those that the detector misses.

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
    """Records joints in the camera frame, metres, whose pixels are known; see `capture`."""
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
    """Makes a record per camera of a rig, by its `sequence_id` NAME_CAMERA; see `capture`."""
    return dict(
        pose_set.record(f"{name}_{camera.name}", subject, action, camera.name,
                        capture(world, camera, detector, rng, fps), fps)
        for camera in make_rig(rig, world, rng)
    )


def _slow(shape: tuple[int, ...], fps: float, rng: np.random.Generator) -> np.ndarray:
    """Draws noise of variance 1, correlated over 0.2 s along the first axis (first-order AR)."""
    keep = np.exp(-1 / (_DRIFT_SECONDS * fps))
    steps = rng.standard_normal(shape)
    steps[1:] *= np.sqrt(1 - keep**2)
    return lfilter([1.0], [1.0, -keep], steps, axis=0)


def _bursts(
    shape: tuple[int, ...], share: float, fps: float, rng: np.random.Generator
) -> np.ndarray:
    """Draws bools, True for `share` of the frames in runs of 0.3 s on average (two-state chain)."""
    leave = min(1.0, 1 / (_BURST_SECONDS * fps))
    enter = min(1.0, leave * share / (1 - share))
    draws = rng.random(shape)
    hidden = np.zeros(shape, bool)
    hidden[0] = draws[0] < share
    for frame in range(1, shape[0]):
        before = hidden[frame - 1]
        hidden[frame] = np.where(before, draws[frame] >= leave, draws[frame] < enter)
    return hidden


def _swapped(found, confidence, share, fps, rng) -> tuple[np.ndarray, np.ndarray]:
    found, confidence = found.copy(), confidence.copy()
    for parts in _LIMBS:
        when = np.flatnonzero(_bursts((len(found),), share, fps, rng))
        left, right = ([HUMAN36M.index(f"{side}_{part}") for part in parts]
                       for side in ("left", "right"))
        for array in (found, confidence):
            array[np.ix_(when, np.array(left + right))] = (
                array[np.ix_(when, np.array(right + left))]
            )
    return found, confidence
