"""Renders the radiograph of one visit: anatomy and findings, then the film.

The film's model: Beer-Lambert, scatter, quantum noise, film curve, marker.
"""

import dataclasses

import cv2
import numpy as np

from jaxcxr.xray.phantom import anatomy, findings, tissues
from jaxcxr.xray.phantom.anatomy import LEFT, Geometry, Grid, Scene
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
    """Turns attenuation into an 8-bit radiograph `[size, size]` in which dense parts are bright.

    Arguments:
      attenuation: optical depth of the direct beam, float32 `[size, size]`.
      pixel: side of a pixel, mm.
      exposure: from `expose`.
      rng: generator of the quantum noise.
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


# Films up to this size are computed at twice their resolution, for smooth edges.
_SUPERSAMPLED = 128


def geometry_of(visit: Visit) -> Geometry:
    """Returns the measures of a visit's chest, findings included."""
    return findings.deform(anatomy.measure(visit), visit)


def _stomach(grid: Grid, geometry: Geometry, visit: Visit) -> np.ndarray:
    """Draws the gastric bubble and its fluid level under the left dome, mm `[size, size]`."""
    rng = visit.rng(6, chronic=False)
    width, tall = rng.uniform(20, 38), rng.uniform(10, 24)
    x = geometry.half_width * rng.uniform(0.34, 0.52)
    top = float(geometry.dome(LEFT, np.array([x]))[0]) + rng.uniform(5, 9)
    dx, dy = (grid.x - x) / width, (grid.y - top - tall) / tall
    bubble = np.sqrt(np.clip(1 - dx**2 - dy**2, 0, 1)) * (dy < rng.uniform(0.0, 0.7))
    return rng.uniform(15, 55) * bubble


def attenuation(visit: Visit, grid: Grid, geometry: Geometry) -> tuple[np.ndarray, list]:
    """Computes the optical depth of the chest `[size, size]`.

    Returns:
      Optical depth and the boxes (class index, x, y, width, height) in pixels.
    """
    deep, mask = tissues.air(grid, geometry)
    heart = tissues.heart_share(grid, geometry)
    scene = Scene(visit, grid, geometry, deep * (1 - heart), mask)
    findings.draw(scene)

    tissue = geometry.density * (1 - scene.gas)
    texture = 1 - 0.03 * grid.cloud(visit.rng(7, chronic=True), 9, 2)
    lucent = scene.air * (1 - tissue) * scene.clear * texture
    in_lung = np.minimum(scene.air / 30, 1) * scene.clear * scene.markings
    blood = 1.9 * tissues.markings(grid, geometry, visit) + tissues.hila(grid, geometry)
    water = tissues.trunk(grid, geometry, visit) - lucent
    water += blood * in_lung + scene.extra
    water -= tissues.airways(grid, geometry) + _stomach(grid, geometry, visit)
    bone = tissues.ribs(grid, geometry, visit)
    bone += tissues.shoulders(grid, geometry, visit)
    bone += tissues.spine(grid, geometry, visit)
    inside = np.clip(water / 20, 0, 1)
    brittle = 1 - 0.004 * max(visit.age - 45, 0)
    depth = WATER * np.maximum(water, 0) + BONE * brittle * bone * inside
    return depth.astype(np.float32), scene.boxes


def _turned(boxes: np.ndarray, turn: np.ndarray, size: int) -> np.ndarray:
    """Encloses boxes turned with the film in upright boxes, clipped to the film."""
    x, y, w, h = boxes[:, 1:].T
    corners = np.stack([np.stack([x, y], -1), np.stack([x + w, y], -1),
                        np.stack([x, y + h], -1), np.stack([x + w, y + h], -1)], 1)
    # The average of inner and outer hull: a small turn must not swell a long box.
    corners = corners @ turn[:, :2].T + turn[:, 2]
    ordered = np.sort(corners, axis=1)
    low, high = ordered[:, :2].mean(1), ordered[:, 2:].mean(1)
    low, high = np.clip(low, 0, size), np.clip(high, 0, size)
    return np.concatenate([boxes[:, :1], low, high - low], 1)


def render(visit: Visit, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws one chest radiograph.

    Returns:
      uint8 image `[size, size]`, dense parts bright, and float32 boxes `[n, 5]` as (class index,
      x, y, width, height) in its pixels, one or more for each finding present.
    """
    geometry = geometry_of(visit)
    times = 2 if size <= _SUPERSAMPLED else 1
    grid = Grid(size * times, geometry)
    depth, drawn = attenuation(visit, grid, geometry)
    middle = (grid.size - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), geometry.tilt, 1.0)
    depth = cv2.warpAffine(
        depth, turn, (grid.size, grid.size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    if times > 1:
        depth = cv2.resize(depth, (size, size), interpolation=cv2.INTER_AREA)
    exposure = expose(visit, anatomy.measure(visit))
    image = develop(depth, geometry.field / size, exposure, visit.rng(8, chronic=False))
    image = annotate(image, exposure)
    boxes = _turned(np.array(drawn, np.float64).reshape(-1, 5), turn, grid.size)
    boxes[:, 1:] /= times
    return image, boxes[boxes[:, 3:].min(1, initial=np.inf) > 0].astype(np.float32)
