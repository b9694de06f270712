"""Draws branching trees in the lung: bright vessels, and dark bronchi in solid lung."""

import numpy as np

from jaxcxr.xray.phantom.anatomy import LEFT, RIGHT, Geometry, Grid
from jaxcxr.xray.phantom.population import Visit

# Value of one mm of vessel in the uint8 masks that the lines are drawn into.
_SHADE = 28.0


def tree(
    rng: np.random.Generator,
    root: np.ndarray,
    headings: np.ndarray,
    *,
    length: float,
    width: float,
    levels: int,
) -> list[tuple[np.ndarray, float]]:
    """Grows a binary tree level by level.

    Arguments:
      rng: random generator.
      root: point (x, y) in mm where all branches start.
      headings: directions of the first branches `[n]`, radians.
      length: of the first branches, mm; each level has 0.8 of the length before.
      width: of the first branches, mm; each level has 0.7 of the width before.
      levels: number of levels.

    Returns:
      For each level its branches `[n, 4, 2]` in mm and their width.
    """
    start = np.repeat(np.asarray(root, np.float64)[None], len(headings), 0)
    start = start + rng.normal(0, 1, start.shape) * (4, 9)
    heading = np.asarray(headings, np.float64)
    grown = []
    for _ in range(levels):
        bend = rng.normal(0, 0.24, heading.shape)
        steps = heading[:, None] + bend[:, None] * np.array([-1.0, 0.3, 1.2])
        stride = length / 3 * rng.uniform(0.7, 1.25, heading.shape)[:, None]
        path = np.stack([np.cos(steps), np.sin(steps)], -1) * stride[..., None]
        points = np.concatenate([start[:, None], start[:, None] + np.cumsum(path, 1)], 1)
        grown.append((points, width))
        fork = rng.uniform(0.2, 0.52, heading.shape)
        lean = rng.uniform(0.5, 1.2, heading.shape)
        ahead = steps[:, -1]
        heading = np.concatenate([ahead + fork * lean, ahead - fork * (2 - lean) / 1.3])
        start = np.concatenate([points[:, -1]] * 2)
        length, width = length * 0.8, width * 0.70
    return grown


def _headings(side: int, rng: np.random.Generator, count: int) -> np.ndarray:
    """Fans directions out into one lung, from steeply up to steeply down."""
    fan = np.linspace(-1.30, 1.52, count) + rng.normal(0, 0.07, count)
    return fan if side == LEFT else np.pi - fan


def markings(grid: Grid, geometry: Geometry, visit: Visit) -> np.ndarray:
    """Draws lung vessels, mm of water `[size, size]`; the caller masks them to the lungs."""
    mask = np.zeros((grid.size, grid.size), np.uint8)
    levels = 7 if grid.pixel < 1.5 else 5
    for side in (RIGHT, LEFT):
        rng = visit.rng(10 + side, chronic=True)
        root = geometry.hilum(side)
        branches = tree(
            rng, root, _headings(side, rng, 13), length=46 * geometry.span / 230, width=6.0,
            levels=levels,
        )
        for points, width in branches[::-1]:
            low = points[:, 1:, 1].mean(1) > root[1]
            for zone, group in ((0, points[~low]), (1, points[low])):
                if len(group):
                    calibre = width * geometry.vessel[zone]
                    grid.lines(group, calibre, min(_SHADE * calibre, 255), mask)
    return mask * np.float32(1 / _SHADE)


def hila(grid: Grid, geometry: Geometry) -> np.ndarray:
    """Draws the bulk of the lung roots, mm of water `[size, size]`."""
    out = np.zeros((grid.size, grid.size), np.float32)
    for side in (RIGHT, LEFT):
        x, y = geometry.hilum(side)
        cols = grid.columns(side)
        dx = (grid.x[:, cols] - x + side * 6) / 15
        dy = (grid.y - y - 8) / 27
        out[:, cols] = 28 * np.exp(-(dx**2) - dy**2)
    return out


def airways(grid: Grid, geometry: Geometry) -> np.ndarray:
    """Draws trachea and main bronchi, mm of air `[size, size]`."""
    carina = 0.34 * geometry.span
    mask = np.zeros((grid.size, grid.size), np.uint8)
    trachea = np.array([[[0.0, -90.0], [-1.0, 0.0], [-3.0, carina * 0.7], [-1.0, carina]]])
    right = np.array([[[-1.0, carina], [-26.0, carina + 28.0]]])
    left = np.array([[[-1.0, carina], [36.0, carina + 24.0]]])
    grid.lines(right, 12, 150, mask)
    grid.lines(left, 10.5, 130, mask)
    grid.lines(trachea, 16, 200, mask)
    return mask * np.float32(14 / 200)


def bronchogram(grid: Grid, geometry: Geometry, side: int, rng: np.random.Generator,
                heading: float) -> np.ndarray:
    """Draws air-filled bronchi running into solid lung, 0..1 `[size, size]`."""
    mask = np.zeros((grid.size, grid.size), np.uint8)
    fan = heading + np.linspace(-0.45, 0.45, 4)
    fan = fan if side == LEFT else np.pi - fan
    branches = tree(rng, geometry.hilum(side), fan, length=44, width=3.6, levels=4)
    for points, width in branches[::-1]:
        grid.lines(points, width, 255, mask)
    return mask * np.float32(1 / 255)
