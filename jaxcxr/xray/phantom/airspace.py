"""Draws the findings that fill the air spaces of the lung."""

import numpy as np

from jaxcxr.xray.phantom import vessels
from jaxcxr.xray.phantom.anatomy import LEFT, RIGHT, soft
from jaxcxr.xray.phantom.scene import Scene, pick_sides


def infiltration(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    """Draws ill-defined patches of half density, scattered through one or both lungs."""
    sides = pick_sides(rng, 0.45)
    drawn = np.zeros_like(scene.air)
    for side in sides:
        for _ in range(2 + rng.binomial(2, 0.4)):
            centre = scene.place(rng, side, (0.25, 0.92), (0.1, 0.75))
            radius = rng.uniform(17, 28) + 12 * severity
            patch = scene.blob(centre, (radius, radius), rng, rough=0.35, edge=1.3)
            drawn = np.maximum(drawn, patch * rng.uniform(0.7, 1.0))
    grain = np.clip(0.78 + 0.30 * scene.grid.cloud(rng, 22, 3), 0.2, 1.3)
    share = (0.30 + 0.28 * severity) * drawn * grain
    scene.fill(share)
    scene.box_sides("Infiltration", drawn * scene.lung, sides, 0.4)


def consolidation(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    """Draws one dense, even opacity with a cloudy border that hides the vessels within."""
    (side,) = pick_sides(rng, 0.0)
    centre = scene.place(rng, side, (0.35, 0.85), (0.2, 0.7))
    radius = 32 + 24 * severity
    body = scene.blob(
        centre, (radius * rng.uniform(0.85, 1.2), radius), rng, rough=0.22, edge=0.45
    )
    scene.fill((0.62 + 0.3 * severity) * body)
    scene.box_sides("Consolidation", body * scene.lung, (side,), 0.4)


def _lobe(scene: Scene, side: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Returns a lobe or segment bounded by its fissure, and the heading of its bronchi."""
    g, grid = scene.geometry, scene.grid
    level = grid.y / g.span
    reach = scene.reach(side)
    share = reach / np.maximum(g.lateral(grid.y), 1)
    slope = rng.normal(0, 0.10)
    fissure = 0.50 + rng.normal(0, 0.03) + slope * (share - 0.5)
    kind = rng.choice(3, p=(0.35, 0.25, 0.40))
    if kind == 0:  # upper lobe: sharp below, fading towards the apex
        lobe = soft(fissure - level, 0.03) * np.clip((level - 0.02) / 0.26, 0, 1)
        return lobe * np.clip((share - 0.15) / 0.2, 0, 1), -0.65
    if kind == 1:  # middle lobe or lingula: sharp above, against the heart, fading outwards
        lobe = soft(level - fissure - 0.04, 0.03) * np.clip((0.98 - level) / 0.15, 0, 1)
        return lobe * np.clip((0.85 - share) / 0.3, 0, 1), 0.45
    top = 0.62 - 0.12 * share
    lobe = np.clip((level - top) / 0.14, 0, 1) * np.clip((share - 0.12) / 0.12, 0, 1)
    return lobe * np.ones_like(scene.air), 0.85


def pneumonia(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    """Fills a lobe or segment up to its fissure, with air bronchograms running through it."""
    (side,) = pick_sides(rng, 0.0)
    lobe, heading = _lobe(scene, side, rng)
    lobe = np.clip(lobe * scene.half(side), 0, 1)
    patchy = np.clip(0.80 + 0.22 * scene.grid.cloud(rng, 30, 3), 0.3, 1.1)
    bronchi = vessels.bronchogram(scene.grid, scene.geometry, side, rng, heading)
    share = (0.45 + 0.35 * severity) * lobe * patchy * (1 - 0.55 * bronchi)
    scene.fill(share)
    scene.markings *= 1 - 0.6 * lobe
    scene.box_sides("Pneumonia", lobe * scene.lung * (scene.air > 15), (side,), 0.4)


def edema(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    """Draws bat-wing haze around both hila and Kerley B lines at the outer bases."""
    g, grid = scene.geometry, scene.grid
    drawn = np.zeros_like(scene.air)
    septa = np.zeros((grid.size, grid.size), np.uint8)
    for side in (RIGHT, LEFT):
        x, y = g.hilum(side)
        dx = (scene.reach(side) - abs(x) - 14) / (34 + 14 * severity)
        dy = (grid.y - y - 14) / (52 + 16 * severity)
        drawn = np.maximum(drawn, np.exp(-(dx**2) - dy**2) * scene.half(side))
        level = rng.uniform(0.70, 0.98, 9) * g.span
        outer = g.lateral(level) - 1.5
        inner = outer - rng.uniform(9, 15, 9)
        ends = np.stack([np.stack([side * outer, level], -1),
                         np.stack([side * inner, level + rng.normal(0, 1.2, 9)], -1)], 1)
        grid.lines(ends, 1.3, 220, septa)
    grain = np.clip(0.9 + 0.18 * grid.cloud(rng, 26, 3), 0.4, 1.3)
    scene.fill((0.20 + 0.45 * severity) * drawn * grain)
    # Fluid in the tissue veils the rest of the lung a little.
    scene.fill((0.02 + 0.09 * severity) * scene.lung)
    scene.extra += (9 / 220) * septa * scene.lung
    scene.box_sides("Edema", drawn * scene.lung, (RIGHT, LEFT), 0.35)


def covid(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    """Draws ground-glass patches under the pleura of both lungs, mostly in the lower zones."""
    g = scene.geometry
    drawn = np.zeros_like(scene.air)
    for side in (RIGHT, LEFT):
        for _ in range(2 + rng.binomial(2, 0.25 + 0.5 * severity)):
            y = rng.triangular(0.35, 0.80, 0.98) * g.span
            radius = rng.uniform(18, 26) + 10 * severity
            x = side * (float(g.lateral(np.array([y]))[0]) - 0.55 * radius)
            patch = scene.blob((x, y), (radius, radius * 1.25), rng, rough=0.25, edge=0.8)
            drawn = np.maximum(drawn, patch * rng.uniform(0.75, 1.0))
    grain = np.clip(0.9 + 0.12 * scene.grid.cloud(rng, 14, 2), 0.5, 1.2)
    scene.fill((0.30 + 0.28 * severity) * drawn * grain)
    scene.box_sides("COVID-19", drawn * scene.lung, (RIGHT, LEFT), 0.4)
