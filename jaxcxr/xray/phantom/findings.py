"""Adds the 15 findings to a chest: some deform it, others are drawn into it.

Signs follow the Fleischner Society's glossary of terms for thoracic imaging (Hansell et al.,
Radiology 246, 2008) and, for COVID-19, Wong et al., Radiology 296, 2020.
"""

import dataclasses

import cv2
import numpy as np

from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.xray.phantom import tissues
from jaxcxr.xray.phantom.anatomy import LEFT, RIGHT, Geometry, Scene, pick_sides, soft
from jaxcxr.xray.phantom.population import CHRONIC, Visit

_SHAPE, _PLACE = 20, 40


def _rng(visit: Visit, finding: str, purpose: int) -> np.random.Generator:
    return visit.rng(purpose + FINDINGS.index(finding), chronic=finding in CHRONIC)


def side_of(visit: Visit, finding: str) -> int:
    """Returns the side of a one-sided deformation, always the same for one visit."""
    return RIGHT if _rng(visit, finding, _SHAPE).random() < 0.5 else LEFT


def _lift(severity: float) -> float:
    """Returns how far a collapsed base raises the diaphragm, mm."""
    return 8 + 24 * severity


def deform(geometry: Geometry, visit: Visit) -> Geometry:
    """Applies the findings that change the measures of the healthy chest.

    Cardiomegaly widens the heart to more than half the chest; emphysema inflates and clears the
    lungs, flattens the diaphragm and narrows the heart; atelectasis and fibrosis lose volume;
    edema diverts blood to the upper vessels.
    """
    g, severity = geometry, visit.severity
    if "Emphysema" in severity:
        s = 0.3 + 0.7 * severity["Emphysema"]
        heart = 1 - 0.17 * s
        g = dataclasses.replace(
            g, span=g.span + 20 * s, height=(g.height[0] + 34 * s, g.height[1] + 34 * s),
            sag=g.sag * (1 - 0.75 * s), half_width=g.half_width * (1 + 0.03 * s),
            depth=g.depth * (1 + 0.07 * s),
            density=g.density * (1 - 0.5 * s), rib_tilt=g.rib_tilt * (1 - 0.25 * s),
            vessel=(g.vessel[0] * (1 - 0.45 * s), g.vessel[1] * (1 - 0.4 * s)),
            atrium=g.atrium * heart, ventricle=g.ventricle * heart,
        )
    if "Cardiomegaly" in severity:
        base = 0.60 if g.frontal else 0.54
        heart = (base + 0.16 * severity["Cardiomegaly"]) * 2 * g.half_width
        right = 0.30 + 0.05 * _rng(visit, "Cardiomegaly", _SHAPE).random()
        g = dataclasses.replace(g, atrium=right * heart, ventricle=(1 - right) * heart)
    if "Atelectasis" in severity:
        lost, (right, left) = _lift(severity["Atelectasis"]), g.height
        collapsed = side_of(visit, "Atelectasis")
        g = dataclasses.replace(
            g, height=(right - lost, left) if collapsed == RIGHT else (right, left - lost)
        )
    if "Fibrosis" in severity:
        lost = 4 + 12 * severity["Fibrosis"]
        g = dataclasses.replace(g, height=(g.height[0] - lost, g.height[1] - lost))
    if "Edema" in severity:
        s = severity["Edema"]
        g = dataclasses.replace(g, vessel=(0.8 + 0.8 * s, 1.0 + 0.2 * s))
    return g


def _cardiomegaly(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    right, left = scene.geometry.heart(scene.grid.y)
    t = scene.grid.y / scene.geometry.span
    inside = (scene.grid.x > -right) & (scene.grid.x < left) & (t > 0.40)
    above = np.where(scene.grid.x > 0, scene.geometry.dome(LEFT, scene.grid.x),
                     scene.geometry.dome(RIGHT, -scene.grid.x))
    scene.box("Cardiomegaly", (inside & (scene.grid.y < above)).astype(np.float32))


def _emphysema(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    scene.box("Emphysema", scene.lung, 0.5)
    # Bullae: rounded spaces with hair-thin walls, in the upper zones.
    for _ in range(rng.integers(0, 4)):
        side = RIGHT if rng.random() < 0.5 else LEFT
        centre = scene.place(rng, side, (0.06, 0.4), (0.3, 0.95))
        radius = rng.uniform(9, 24) * (0.5 + 0.5 * severity)
        body = scene.blob(centre, (radius, radius * 1.15), rng, rough=0.0, edge=0.12)
        scene.gas = np.maximum(scene.gas, 0.8 * body)
        scene.markings *= 1 - 0.9 * body
        scene.extra += 5.0 * body * (1 - body) * 4 * scene.lung


def _hernia(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    g = scene.geometry
    radius = 22 + 26 * severity
    centre = (rng.uniform(-8, 26), g.height[1] - radius * rng.uniform(0.45, 0.75))
    sac = scene.blob(centre, (radius * 1.12, radius), rng, rough=0.0, edge=0.10)
    dome = np.where(scene.grid.x > 0, g.dome(LEFT, scene.grid.x), g.dome(RIGHT, -scene.grid.x))
    sac = sac * (scene.grid.y < dome + 12)
    scene.fill((0.45 + 0.3 * severity) * sac)
    scene.extra += (2 + 6 * severity) * sac
    # Gas above fluid inside the sac: dark above, cut off by a level line.
    bubble = scene.blob(centre, (radius * 0.95, radius * 0.84), rng, rough=0.0, edge=0.14)
    level = centre[1] + radius * rng.uniform(-0.25, 0.15)
    scene.extra -= (18 + 44 * severity) * bubble * (scene.grid.y < level)
    scene.box("Hernia", sac)


def _round(scene: Scene, finding: str, diameter: float, rng, rough: float) -> None:
    """Draws a ball of soft tissue in the lung; it adds its chord in mm of water."""
    side = RIGHT if rng.random() < 0.55 else LEFT
    outer = 0.92 - 0.35 * min(diameter / 80, 1)
    centre = scene.place(rng, side, (0.12, 0.78), (0.15, outer))
    radius = diameter / 2
    dx, dy = (scene.grid.x - centre[0]) / radius, (scene.grid.y - centre[1]) / radius
    square = dx**2 + dy**2
    if rough:
        bearing = np.arctan2(dy, dx)
        waves = zip((2, 3, 5), rng.normal(0, 0.5, 3), rng.uniform(0, 2 * np.pi, 3), strict=True)
        lobes = sum(size * np.cos(k * bearing + phase) for k, size, phase in waves)
        square = square * (1 + rough * (1 / 3 + np.clip(lobes, -0.6, 0.6) * 0.6))
    chord = diameter * np.sqrt(np.clip(1 - square, 0, 1))
    # Small nodules are only visible when they hold calcium.
    chord *= 1.2 + 1.3 * max(0.0, 1 - diameter / 34)
    air = np.maximum(scene.air, 25)
    scene.fill(np.clip(chord / air, 0, 0.95))
    # Tissue denser than solid lung.
    scene.extra += np.clip(chord - 0.95 * air, 0, None)
    scene.box(finding, chord * scene.lung, 0.1)


def _mass(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    _round(scene, "Mass", 34 + 46 * severity, rng, rough=0.5)


def _nodule(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    for _ in range(1 + rng.binomial(3, 0.15 + 0.35 * severity)):
        _round(scene, "Nodule", 14 + 14 * severity * rng.uniform(0.7, 1), rng, rough=0.0)


def _atelectasis(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    side = side_of(scene.visit, "Atelectasis")
    g = scene.geometry
    drawn = np.zeros_like(scene.air)
    floor = g.height[(side + 1) // 2]
    for n in range(1 + rng.binomial(2, 0.35 + 0.5 * severity)):
        slope = rng.normal(-0.12, 0.22)
        middle = g.half_width * rng.uniform(0.45, 0.68)
        half = rng.uniform(24, 34) + 16 * severity
        height = floor - rng.uniform(10, 24) - 17 * n
        along = scene.reach(side) - middle
        off = scene.grid.y - (height + slope * along + 0.0016 * along**2)
        thick = rng.uniform(2.2, 3.6) + 3.4 * severity
        plate = np.exp(-((off / thick) ** 2)) * np.clip((half - np.abs(along)) / 8, 0, 1)
        drawn = np.maximum(drawn, plate * scene.lung)
    # Crowded lung under the plates.
    under = scene.half(side) * np.clip(1 - (floor + 4 - scene.grid.y) / (26 + 30 * severity), 0, 1)
    haze = (0.15 + 0.25 * severity) * np.clip(under, 0, 1) * scene.lung
    scene.fill(np.maximum((0.34 + 0.26 * severity) * drawn, haze))
    reach = scene.reach(side)
    sunk = scene.grid.y - g.dome(side, reach)
    raised = (sunk > 0) & (sunk < _lift(severity))
    raised &= (reach > g.medial(scene.grid.y)) & (reach < 0.9 * g.lateral(scene.grid.y))
    scene.box_sides("Atelectasis", np.maximum(drawn * (scene.air > 10), raised), (side,), 0.3)


def _fibrosis(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    grid, g = scene.grid, scene.geometry
    # Ridges of a random field make a net; finer, closed meshes at the base are honeycombs.
    net = np.exp(-((grid.cloud(rng, 17, 2) / 0.30) ** 2))
    comb = np.exp(-((grid.cloud(rng, 8, 1) / 0.35) ** 2))
    level = grid.y / g.span
    low = np.clip((level - 0.62 + 0.30 * severity) / 0.35, 0, 1)
    outer = np.clip((np.abs(grid.x) / np.maximum(g.lateral(grid.y), 1) - 0.30) / 0.5, 0, 1)
    where = low * (0.35 + 0.65 * outer) * scene.lung
    strength = 0.5 + 0.5 * severity
    scene.fill(strength * where * (0.10 + 0.34 * net + 0.30 * comb * low * severity))
    scene.extra += 7 * strength * where * net
    scene.box_sides("Fibrosis", cv2.blur(where, (5, 5)), (RIGHT, LEFT), 0.35)


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
    bronchi = tissues.bronchogram(scene.grid, scene.geometry, side, rng, heading)
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


DRAW = {
    "Cardiomegaly": _cardiomegaly,
    "Emphysema": _emphysema,
    "Effusion": effusion,
    "Hernia": _hernia,
    "Infiltration": infiltration,
    "Mass": _mass,
    "Nodule": _nodule,
    "Atelectasis": _atelectasis,
    "Pneumothorax": pneumothorax,
    "Pleural_Thickening": thickening,
    "Pneumonia": pneumonia,
    "Fibrosis": _fibrosis,
    "Edema": edema,
    "Consolidation": consolidation,
    "COVID-19": covid,
}


def draw(scene: Scene) -> None:
    """Draws every finding of the visit, each from its own random stream."""
    for finding, severity in scene.visit.severity.items():
        DRAW[finding](scene, severity, _rng(scene.visit, finding, _PLACE))
