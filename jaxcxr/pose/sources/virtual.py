"""Options common to the sources whose detectors, or also cameras, are simulated."""

import dataclasses

import tensorflow_datasets as tfds

from jaxcxr.errors import UserError
from jaxcxr.pose.keypoints import frame_rates
from jaxcxr.pose.keypoints.detector import Detector
from jaxcxr.pose.sources import records

FPS = 50.0  # Human3.6M's
_DETECTOR = tuple(field.name for field in dataclasses.fields(Detector))


@dataclasses.dataclass(eq=False)
class DetectedConfig(tfds.core.BuilderConfig):
    """Detector.

    Attributes:
      noise: standard deviation of the keypoints, pixels.
      dropout: probability that a joint is missed in a frame.
      drift: standard deviation, in pixels, of an error of the keypoints that changes slowly.
      outliers: probability that a joint is found far from where it is.
      occlusion: share of the time that a joint is hidden.
      swap: share of the time that both arms, or both legs, are taken for each other.
      seed: of the noise and the misses.
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
    """Cameras, detector and frame rate.

    Attributes:
      rig: "human36m" (four corners of a hall, moved outwards until the clip is in view) or
        "random" (anywhere around).
      seed: of the cameras, the noise and the misses.
      fps: frames per second of the prepared sequences, whatever the files have.
    """

    rig: str = "human36m"
    fps: float = FPS

    def __post_init__(self):
        super().__post_init__()
        if self.rig not in records.RIGS:
            raise UserError(f"rig is {self.rig!r}; allowed: {', '.join(records.RIGS)}.")
        self.fps = frame_rates.check("virtual cameras", self.fps)
        self.rate = frame_rates.label(self.fps, FPS)
