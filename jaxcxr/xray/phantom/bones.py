"""Draws ribs, clavicles, shoulder blades and spine as thickness of bone in mm."""

import cv2
import numpy as np

from jaxcxr.xray.phantom.anatomy import LEFT, RIGHT, Geometry, Grid
from jaxcxr.xray.phantom.population import Visit

_BACK = np.linspace(0.03, 0.5, 24) * np.pi
# Outline of a shoulder blade, from its inner upper corner.
_BLADE = np.array(
    [(0, 10), (34, -4), (62, -8), (66, 12), (48, 30), (30, 70), (17, 112), (8, 116), (1, 70)]
)
_FRONT = np.linspace(0.5, 0.84, 18) * np.pi


def _band(path: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """Outlines bands of `width` mm along paths `[..., n, 2]` as polygons `[..., 2 n, 2]`."""
    along = np.empty_like(path)
    along[..., 1:-1, :] = path[..., 2:, :] - path[..., :-2, :]
    along[..., 0, :] = path[..., 1, :] - path[..., 0, :]
    along[..., -1, :] = path[..., -1, :] - path[..., -2, :]
    normal = along[..., ::-1] * (-1, 1)
    normal /= np.sqrt((normal**2).sum(-1, keepdims=True)) + 1e-6
    offset = normal * (np.asarray(width) / 2)[..., None]
    return np.concatenate([path + offset, (path - offset)[..., ::-1, :]], -2)


def _rib_paths(geometry: Geometry, sides, starts: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Computes centre lines of ribs: tilted half ellipses from the spine to the front.

    Arguments:
      geometry: the chest.
      sides: side of each rib `[n]`.
      starts: height of each rib at the spine, mm `[n]`.
      angle: positions along the rib `[points]`, from 0 at the spine to pi at the front.

    Returns:
      Points in mm `[n, points, 2]`.
    """
    height = starts[:, None] + geometry.rib_tilt * (1 - np.cos(angle)) / 2
    radius = geometry.lateral(np.maximum(height, 6.0)) + 3
    share = np.clip((np.sin(angle) - 0.09) / 0.91, 0, 1)
    x = 13 + (radius - 13) * share**0.9
    y = height - 6 * np.sin(2 * angle).clip(0)
    return np.stack([np.asarray(sides)[:, None] * x, y], -1)


def ribs(grid: Grid, geometry: Geometry, visit: Visit) -> np.ndarray:
    """Draws ribs with a bright cortex, front parts over back parts, mm of bone `[size, size]`."""
    own = visit.rng(2, chronic=True)
    spacing = geometry.span * own.normal(0.101, 0.003)
    first = -0.075 * geometry.span + own.normal(0, 2)
    wide = own.normal(10.5, 0.8) * (1.0 if visit.sex == "M" else 0.88)
    number = np.arange(10)
    starts = first + spacing * number * (1 + 0.012 * number) + own.normal(0, 1.2, (2, 10))
    sides = np.repeat((RIGHT, LEFT), 10)

    back = _rib_paths(geometry, sides, starts.ravel(), _BACK)
    front = _rib_paths(geometry, np.repeat((RIGHT, LEFT), 8), starts[:, :8].ravel(), _FRONT)
    total = (9.5 / 255) * _hollow(grid, back, wide, None)
    # Towards the breastbone bone gives way to cartilage, which hardly shows.
    cartilage = grid.polygons(_band(front[:, -6:], 1.25 * wide), 60)
    return total + (6.0 / 255) * _hollow(grid, front[:, :-4], 1.25 * wide, cartilage)


def _hollow(grid: Grid, paths: np.ndarray, width: float, into: np.ndarray | None) -> np.ndarray:
    """Draws bands of looser bone between two walls of compact bone, uint8 `[size, size]`."""
    mask = grid.polygons(_band(paths, width), 255, into=into)
    return grid.polygons(_band(paths, width - 3.4), 165, into=mask)


def shoulders(grid: Grid, geometry: Geometry, visit: Visit) -> np.ndarray:
    """Draws clavicles and shoulder blades, mm of bone `[size, size]`.

    On PA films the arms are turned so that the blades clear the lungs; on AP films they lie over
    the upper outer lungs and the clavicles stand higher and flatter.
    """
    own, film = visit.rng(3, chronic=True), visit.rng(3, chronic=False)
    g = geometry
    collar, blade = [], []
    rise = film.normal(10, 4) if g.frontal else film.normal(-8, 5)
    for side in (RIGHT, LEFT):
        shift = film.normal(0, 3)
        s = np.linspace(0, 1, 18)
        x = 11 + shift * side + s * (g.half_width * 0.98)
        medial, outer = 24 - rise, -2 - rise - (4 if g.frontal else 14)
        y = medial + (outer - medial) * s - 7 * np.sin(2 * np.pi * s)
        path = np.stack([side * x, y], -1)
        collar.append(_band(path, 13 - 3.5 * np.sin(np.pi * s)))
        near = g.half_width * (own.normal(0.72, 0.03) if g.frontal else own.normal(1.04, 0.03))
        top = film.normal(6, 4)
        blade.append(_rounded(_BLADE) * (side, 1) + (side * near, top))
    bones = (5.5 / 255) * grid.polygons([_band(p, 3.0) for p in blade])
    plate = cv2.GaussianBlur(grid.polygons(blade), (0, 0), max(3 / grid.pixel, 0.4))
    clavicle = grid.polygons(collar, 255)
    core = [_shrink(c, 0.62) for c in collar]
    clavicle = grid.polygons(core, 185, into=clavicle)
    turn = np.linspace(0, 2 * np.pi, 24)
    ball = 25 * np.stack([np.cos(turn), np.sin(turn)], -1)
    joints = np.array([[[side * (g.half_width + 62), 24]] for side in (RIGHT, LEFT)])
    head = grid.polygons(joints + ball)
    return bones * 0.9 + (5 / 255) * plate + (17 / 255) * clavicle + (12 / 255) * head


def _rounded(shape: np.ndarray) -> np.ndarray:
    """Cuts the corners of a polygon twice (Chaikin 1974) and closes it."""
    for _ in range(2):
        ahead = np.roll(shape, -1, axis=0)
        shape = np.stack([0.75 * shape + 0.25 * ahead, 0.25 * shape + 0.75 * ahead], 1)
        shape = shape.reshape(-1, 2)
    return np.concatenate([shape, shape[:1]])


def _shrink(band: np.ndarray, share: float) -> np.ndarray:
    half = len(band) // 2
    a, b = band[:half], band[half:][::-1]
    middle = (a + b) / 2
    return np.concatenate([middle + share * (a - middle), (middle + share * (b - middle))[::-1]])


def spine(grid: Grid, geometry: Geometry, visit: Visit) -> np.ndarray:
    """Draws vertebral bodies, disc spaces and pedicles, mm of bone `[size, size]`."""
    own = visit.rng(4, chronic=True)
    pitch = geometry.span * 0.1 * own.normal(1.0, 0.02)
    bend = own.normal(0, 3.5) + 0.02 * max(visit.age - 60, 0) * own.normal(0, 6)
    centre = bend * np.sin(np.pi * (grid.y / geometry.span - 0.1))
    half = 15 + 0.014 * grid.y
    across = np.abs(grid.x - centre) / half
    section = np.clip(1 - across**2, 0, 1) ** 0.4
    phase = np.mod(grid.y / pitch + own.uniform(), 1.0)
    body = 1 - 0.45 * np.exp(-(((phase - 0.5) / 0.11) ** 2))
    pedicle = np.exp(-(((across - 0.66) / 0.17) ** 2) - ((phase - 0.12) / 0.16) ** 2)
    spinous = np.exp(-((across / 0.16) ** 2) - ((phase - 0.3) / 0.14) ** 2)
    return (11 * section * body + 5 * pedicle + 4 * spinous).astype(np.float32)
