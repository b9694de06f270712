"""Adds the 15 findings to a chest: some deform it, others are drawn into it.

Signs follow the Fleischner Society's glossary of terms for thoracic imaging (Hansell et al.,
Radiology 246, 2008) and, for COVID-19, Wong et al., Radiology 296, 2020.
"""

import dataclasses

import cv2
import numpy as np

from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.xray.phantom import airspace, pleura
from jaxcxr.xray.phantom.anatomy import LEFT, RIGHT, Geometry
from jaxcxr.xray.phantom.population import CHRONIC, Visit
from jaxcxr.xray.phantom.scene import Scene

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


DRAW = {
    "Cardiomegaly": _cardiomegaly,
    "Emphysema": _emphysema,
    "Effusion": pleura.effusion,
    "Hernia": _hernia,
    "Infiltration": airspace.infiltration,
    "Mass": _mass,
    "Nodule": _nodule,
    "Atelectasis": _atelectasis,
    "Pneumothorax": pleura.pneumothorax,
    "Pleural_Thickening": pleura.thickening,
    "Pneumonia": airspace.pneumonia,
    "Fibrosis": _fibrosis,
    "Edema": airspace.edema,
    "Consolidation": airspace.consolidation,
    "COVID-19": airspace.covid,
}


def draw(scene: Scene) -> None:
    """Draws every finding of the visit, each from its own random stream."""
    for finding, severity in scene.visit.severity.items():
        DRAW[finding](scene, severity, _rng(scene.visit, finding, _PLACE))
