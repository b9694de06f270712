"""Turns attenuation into grey values: Beer-Lambert, scatter, quantum noise, film curve, marker."""

import dataclasses

import cv2
import numpy as np

from jaxcxr.xray.phantom.anatomy import Geometry
from jaxcxr.xray.phantom.population import Visit

# Linear attenuation at an effective energy of about 70 keV, per mm (NIST XCOM, rounded): soft
# tissue, and bone in excess of the soft tissue that it replaces.
WATER = 0.0193
BONE = 0.030

# Photons per square millimetre that reach the detector where nothing is in the way.
_PHOTONS = 6.0e4
_SCATTER_WIDTH = 45.0


@dataclasses.dataclass(frozen=True)
class Exposure:
    """Describes how one film was taken.

    Attributes:
      centre: attenuation shown as middle grey.
      width: change of attenuation over which grey changes e-fold; large means flat contrast.
      scatter: scattered light relative to direct light, for a chest of mean thickness.
      photons: detector dose, photons per mm2 in air.
      blur: focal spot and motion, mm.
      marker: letter on the film.
      border: share of the side that the collimator leaves black.
    """

    centre: float
    width: float
    scatter: float
    photons: float
    blur: float
    marker: str
    border: float


def expose(visit: Visit, geometry: Geometry) -> Exposure:
    """Draws the exposure, set for the healthy chest: findings do not change it."""
    rng = visit.rng(5, chronic=False)
    mean = WATER * (geometry.thickness - 0.52 * geometry.depth)
    return Exposure(
        centre=mean + rng.normal(0.14, 0.10),
        width=rng.uniform(0.44, 0.62) * (1.1 if geometry.frontal else 1.0),
        scatter=rng.uniform(0.25, 0.45) * (1.4 if geometry.frontal else 1.0),
        photons=_PHOTONS * rng.uniform(0.5, 1.6),
        blur=rng.uniform(0.2, 0.5) * (1.7 if geometry.frontal else 1.0),
        marker="R" if rng.random() < 0.2 else "L",
        border=float(rng.choice([0.0, 0.0, 0.0, rng.uniform(0, 0.035)])),
    )


def _scattered(light: np.ndarray, pixel: float) -> np.ndarray:
    """Spreads light over the wide scatter kernel, on a coarse grid because it has no detail."""
    coarse = cv2.resize(light, (32, 32), interpolation=cv2.INTER_AREA)
    sigma = _SCATTER_WIDTH / (pixel * light.shape[0] / 32)
    coarse = cv2.GaussianBlur(coarse, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(coarse, light.shape[::-1], interpolation=cv2.INTER_CUBIC)


def develop(attenuation: np.ndarray, pixel: float, exposure: Exposure, rng) -> np.ndarray:
    """Turns attenuation into an 8-bit radiograph in which dense parts are bright.

    Arguments:
      attenuation: optical depth of the direct beam, float32 `[size, size]`.
      pixel: side of a pixel, mm.
      exposure: from `expose`.
      rng: generator of the quantum noise.

    Returns:
      uint8 `[size, size]`.
    """
    light = np.exp(-attenuation)
    if exposure.blur / pixel > 0.25:
        light = cv2.GaussianBlur(light, (0, 0), exposure.blur / pixel)
    light += exposure.scatter * np.minimum(_scattered(light, pixel), 0.25)
    # Shot noise of a count n, in the Gaussian limit: standard deviation sqrt(n).
    count = exposure.photons * pixel**2
    noise = rng.standard_normal(light.shape, np.float32)
    light += noise * np.sqrt(light / count)
    depth = -np.log(np.maximum(light, 2e-3))
    level = exposure.centre - np.log1p(exposure.scatter) * 0.6
    grey = 255 / (1 + np.exp((level - depth) / exposure.width))
    grey += rng.standard_normal(light.shape, np.float32) * 1.0
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def annotate(image: np.ndarray, exposure: Exposure) -> np.ndarray:
    """Adds the side marker and the collimator's border to the film, in place."""
    size = image.shape[0]
    font, thick = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(size / 200))
    scale = max(1.4 * size / 1024, 0.2)
    (width, height), _ = cv2.getTextSize(exposure.marker, font, scale, thick)
    margin = round(0.04 * size)
    x = size - margin - width if exposure.marker == "L" else margin
    cv2.putText(image, exposure.marker, (x, margin + height), font, scale, 250, thick, cv2.LINE_AA)
    edge = round(exposure.border * size)
    if edge:
        image[:, :edge] = 2
        image[:edge] = 2
    return image
