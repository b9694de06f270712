"""Renders the radiograph of one visit: anatomy, findings and film."""

import cv2
import numpy as np

from jaxcxr.xray.phantom import anatomy, bones, film, findings, vessels
from jaxcxr.xray.phantom.anatomy import LEFT, Geometry, Grid
from jaxcxr.xray.phantom.population import Visit
from jaxcxr.xray.phantom.scene import Scene

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
    """Computes the optical depth of the chest.

    Arguments:
      visit: the patient and the findings.
      grid: pixels.
      geometry: measures, findings included.

    Returns:
      Optical depth `[size, size]` and the boxes (class index, x, y, width, height) in pixels.
    """
    deep, mask = anatomy.air(grid, geometry)
    heart = anatomy.heart_share(grid, geometry)
    scene = Scene(visit, grid, geometry, deep * (1 - heart), mask)
    findings.draw(scene)

    tissue = geometry.density * (1 - scene.gas)
    texture = 1 - 0.03 * grid.cloud(visit.rng(7, chronic=True), 9, 2)
    lucent = scene.air * (1 - tissue) * scene.clear * texture
    in_lung = np.minimum(scene.air / 30, 1) * scene.clear * scene.markings
    blood = 1.9 * vessels.markings(grid, geometry, visit) + vessels.hila(grid, geometry)
    water = anatomy.trunk(grid, geometry, visit) - lucent
    water += blood * in_lung + scene.extra
    water -= vessels.airways(grid, geometry) + _stomach(grid, geometry, visit)
    bone = bones.ribs(grid, geometry, visit)
    bone += bones.shoulders(grid, geometry, visit)
    bone += bones.spine(grid, geometry, visit)
    inside = np.clip(water / 20, 0, 1)
    brittle = 1 - 0.004 * max(visit.age - 45, 0)
    depth = film.WATER * np.maximum(water, 0) + film.BONE * brittle * bone * inside
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

    Arguments:
      visit: the patient and the findings.
      size: side of the image in pixels.

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
    exposure = film.expose(visit, anatomy.measure(visit))
    image = film.develop(depth, geometry.field / size, exposure, visit.rng(8, chronic=False))
    image = film.annotate(image, exposure)
    boxes = _turned(np.array(drawn, np.float64).reshape(-1, 5), turn, grid.size)
    boxes[:, 1:] /= times
    return image, boxes[boxes[:, 3:].min(1, initial=np.inf) > 0].astype(np.float32)
