"""Draws the findings of the pleural space: fluid, air and scar."""

import cv2
import numpy as np

from jaxcxr.xray.phantom.anatomy import soft
from jaxcxr.xray.phantom.scene import Scene, pick_sides


def effusion(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    """Draws fluid that blunts the costophrenic angle and climbs the outer wall in a meniscus."""
    g, grid = scene.geometry, scene.grid
    sides = pick_sides(rng, 0.3)
    drawn = np.zeros_like(scene.air)
    for n, side in enumerate(sides):
        amount = severity * (1.0 if n == 0 else rng.uniform(0.3, 0.9))
        depth = 24 + 110 * amount**1.4
        share = np.clip(scene.reach(side) / g.half_width, 0, 1.1)
        corner = g.height[(side + 1) // 2] + g.sag
        level = corner - depth * 0.80 - (10 + 0.30 * depth) * share**4
        fluid = soft(grid.y - level, 9) * scene.half(side)
        drawn = np.maximum(drawn, fluid)
        if g.frontal:
            # Lying patients: fluid layers behind the lung and veils its lower half.
            veil = np.clip(grid.y / g.span - 0.35, 0, 1) * (0.15 + 0.35 * amount)
            scene.fill(veil * scene.half(side))
    scene.fill(0.93 * drawn)
    scene.box_sides("Effusion", drawn * np.minimum(scene.air, 40), sides, 0.25)


def pneumothorax(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    """Draws air at the apex: a hair-thin pleural line, no vessels beyond it, collapsed lung."""
    g, grid = scene.geometry, scene.grid
    (side,) = pick_sides(rng, 0.0)
    gap = 14 + 44 * severity
    end = (0.45 + 0.55 * severity) * g.span
    shrink = np.clip(1 - grid.y / end, 0, 1) ** 0.75
    border = g.lateral(grid.y - 0.75 * gap) - 0.55 * gap * shrink
    border = np.where(grid.y < 0.75 * gap, -1e3, border)
    lung = soft(border - scene.reach(side), max(grid.pixel, 1.0)) * np.ones_like(scene.air)
    beyond = (1 - lung) * scene.half(side) * (grid.y < end) * (scene.lung > 0.05)
    # The line: the lung's border, of constant total weight whatever the pixel size.
    width = max(3 * grid.pixel, 2.0)
    kernel = np.ones((3, 3), np.uint8)
    line = cv2.morphologyEx(lung.astype(np.float32), cv2.MORPH_GRADIENT, kernel)
    line *= scene.half(side) * (grid.y < end) * scene.lung
    scene.extra += (34 / width) * line
    scene.gas = np.maximum(scene.gas, beyond)
    scene.clear = 1 - (1 - scene.clear) * (1 - beyond)
    scene.markings *= 1 - beyond
    scene.fill(0.16 * severity * lung * scene.half(side) * scene.lung)
    scene.box("Pneumothorax", np.maximum(beyond, line), 0.4)


def thickening(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    """Draws scarred pleura: a dense, uneven band along the outer wall, or a cap at the apex."""
    g, grid = scene.geometry, scene.grid
    sides = pick_sides(rng, 0.3)
    drawn = np.zeros_like(scene.air)
    for side in sides:
        deep = (8 + 11 * severity) * (1 + 0.25 * grid.cloud(rng, 60, 2)[:, :1])
        if rng.random() < 0.35:
            # The cap is measured downwards, the band inwards.
            edge = g.lateral(grid.y - 1.3 * deep) - 0.4 * deep
            edge = np.where(grid.y < 1.3 * deep, 0, edge)
            reach = np.clip((0.26 - grid.y / g.span) / 0.1, 0, 1)
        else:
            edge = g.lateral(grid.y) - deep
            top, bottom = rng.uniform(0.15, 0.4), rng.uniform(0.8, 1.25)
            level = grid.y / g.span
            reach = np.clip((level - top) / 0.1, 0, 1) * np.clip((bottom - level) / 0.1, 0, 1)
        inside = scene.reach(side) < g.lateral(grid.y)
        band = soft(scene.reach(side) - edge, 2.5) * reach * inside * scene.half(side)
        drawn = np.maximum(drawn, band * (scene.air > 0.5))
    scene.fill(0.7 * drawn)
    scene.extra += (16 + 16 * severity) * drawn
    scene.box_sides("Pleural_Thickening", drawn, sides, 0.3)
