"""Draws the healthy chest in millimetres: lungs, heart, trunk, vessels, airways and bones."""

import cv2
import numpy as np
from scipy.interpolate import PchipInterpolator

from jaxcxr.xray.phantom.anatomy import LEFT, RIGHT, Geometry, Grid, soft
from jaxcxr.xray.phantom.population import Visit


def air(grid: Grid, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Computes the air in the lungs before the heart displaces some of it.

    Returns:
      Thickness of lung in mm, and the mask of the lungs above the diaphragm, 0..1; both
      `[size, size]`.
    """
    thickness = np.zeros((grid.size, grid.size), np.float32)
    mask = np.zeros_like(thickness)
    y = grid.y
    lateral, medial = geometry.lateral(y), geometry.medial(y)
    crown = np.clip(1 - (1 - np.clip(y / (0.3 * geometry.span), 0, 1)) ** 2, 0, 1) ** 0.7
    edge = max(grid.pixel, 1.2)
    for side in (RIGHT, LEFT):
        cols = grid.columns(side)
        reach = side * grid.x[:, cols]
        inside = soft(lateral - reach, edge) * soft(reach - medial, edge) * (y > 0)
        below = y - geometry.dome(side, reach)
        above = soft(-below, 1.5 * edge)
        # Behind the dome the lung reaches further down: the posterior recess.
        recess = 0.16 * np.exp(-np.clip(below, 0, None) / 18) * (1 - above)
        bulge = np.sqrt(np.clip(1 - (reach / np.maximum(lateral, 1)) ** 2, 0, 1))
        thickness[:, cols] = geometry.depth * crown * bulge * inside * (above + recess)
        mask[:, cols] = inside * above
    return thickness, mask


def heart_share(grid: Grid, geometry: Geometry) -> np.ndarray:
    """Computes the share of lung depth taken by heart and great vessels, 0..1 `[size, size]`."""
    right, left = geometry.heart(grid.y)
    centre, radius = (left - right) / 2, (left + right) / 2
    across = (grid.x - centre) / radius
    level = grid.y / geometry.span
    # Round in section, so that the border is sharp; the great vessels are thinner than the heart.
    bulk = 0.80 + 0.10 * np.clip((level - 0.35) / 0.25, 0, 1)
    section = np.clip(1 - across**2, 0, 1) ** 0.35
    return (bulk * section * soft(radius - np.abs(grid.x - centre), grid.pixel)).astype(np.float32)


def trunk(grid: Grid, geometry: Geometry, visit: Visit) -> np.ndarray:
    """Computes soft tissue front to back in mm, as if the lungs were solid, `[size, size]`."""
    own = visit.rng(1, chronic=True)
    g = geometry
    arms = own.uniform(0, 34) if not g.frontal else own.uniform(-8, 14)
    neck = 0.42 * g.half_width
    outline = PchipInterpolator(
        (-90, -46, -26, 8, 60, 118 + arms, 165 + arms, g.span + 60, g.span + 160),
        (neck, neck + 4, neck + 50, g.half_width + 62, g.half_width + 84, g.half_width + 62,
         g.body + 4, g.body, g.body + 6),
    )
    half = outline(np.clip(grid.y, -90, g.span + 160)).astype(np.float32)
    level = np.clip((grid.y + 90) / 130, 0, 1)
    deep = g.thickness * (0.66 + 0.34 * level) * (1 + 0.08 * soft(grid.y - g.span, 60))
    across = np.clip(1 - np.abs(grid.x / half) ** 6, 0, 1)
    out = deep * across**0.45
    if visit.sex == "F":
        size, low = own.uniform(46, 70), own.uniform(0.78, 0.98)
        for side in (RIGHT, LEFT):
            dx = (grid.x - side * 0.60 * g.half_width) / (size * 1.05)
            dy = (grid.y - low * g.span + 0.72 * size) / size
            # Sharp below, fading above: the crease under the breast.
            dy = np.where(dy < 0, dy * 0.75, dy)
            out = out + 0.45 * size * np.sqrt(np.clip(1 - dx**2 - dy**2, 0, 1))
    return out.astype(np.float32)


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
    """Computes centre lines `[n, points, 2]` of ribs: half ellipses, spine (0) to front (pi)."""
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
