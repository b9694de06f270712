"""Measures one chest in millimetres, and holds the film that it is drawn on.

Coordinates: x from the midline towards the right of the image (the patient's left), y downwards
from the level of the lung apices. Side -1 is the patient's right, +1 the patient's left. Levels
down the lung are given as t = y / span, 0 at the apex and 1 at a healthy right dome.
"""

import dataclasses

import cv2
import numpy as np
from scipy.interpolate import PchipInterpolator

from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.xray.phantom.population import Visit

RIGHT, LEFT = -1, 1

_LEVELS = np.linspace(-0.3, 1.6, 512)


def _profile(levels, values) -> np.ndarray:
    return PchipInterpolator(levels, values)(np.clip(_LEVELS, levels[0], levels[-1]))


# Borders of the lungs as a share of half the inner width of the chest.
_LATERAL = _profile(
    (0.0, 0.012, 0.05, 0.12, 0.25, 0.45, 0.70, 0.92, 1.15),
    (0.34, 0.45, 0.57, 0.70, 0.84, 0.945, 0.99, 1.0, 0.985),
)
_MEDIAL = _profile((0.0, 0.012, 0.06, 0.18, 0.5, 1.2), (0.34, 0.24, 0.155, 0.12, 0.11, 0.12))
# Mediastinum in mm from the midline, and the share of the heart's own radius at each level.
_VESSELS_RIGHT = _profile((-0.1, 0.03, 0.14, 0.27, 0.42, 0.58, 1.1), (36, 30, 26, 27, 27, 22, 20))
_VESSELS_LEFT = _profile(
    (-0.1, 0.03, 0.12, 0.20, 0.26, 0.34, 0.42, 0.52, 1.1), (36, 29, 27, 35, 35, 29, 32, 28, 20)
)
_ATRIUM = _profile((0.36, 0.48, 0.62, 0.76, 0.90, 1.04, 1.2), (0, 0.35, 0.85, 1, 0.93, 0.6, 0.2))
_VENTRICLE = _profile(
    (0.36, 0.46, 0.58, 0.72, 0.86, 0.96, 1.06, 1.2), (0, 0.22, 0.52, 0.82, 0.99, 1, 0.86, 0.4)
)


def _at(profile: np.ndarray, level: np.ndarray) -> np.ndarray:
    return np.interp(level, _LEVELS, profile).astype(np.float32)


def soft(distance: np.ndarray, width: float) -> np.ndarray:
    """Returns a soft step from 0 to 1 that is `width` mm wide and centred on distance 0."""
    return np.clip(distance / width + 0.5, 0, 1)


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Measures one chest on one film, in mm unless stated otherwise.

    Attributes:
      field: side of the square film.
      left_edge, top: x of the film's left edge, y of its upper edge.
      tilt: rotation of the patient on the film, degrees.
      half_width: half the largest inner width of the chest.
      span: height of the rib cage, the unit of the levels t.
      height: apex to dome of the right (index 0) and left (index 1) lung.
      sag: depth of the costophrenic angle below the dome.
      body: half the outer width of the trunk.
      thickness: of the trunk, front to back.
      depth: of the lungs, front to back.
      density: of lung tissue, as a share of water.
      atrium, ventricle: reach of the heart right and left of the midline.
      rib_tilt: drop of a rib from back to front.
      vessel: factor on the calibre of lung vessels in the upper and lower zones.
      frontal: True for AP films.
    """

    field: float
    left_edge: float
    top: float
    tilt: float
    half_width: float
    span: float
    height: tuple[float, float]
    sag: float
    body: float
    thickness: float
    depth: float
    density: float
    atrium: float
    ventricle: float
    rib_tilt: float
    vessel: tuple[float, float]
    frontal: bool

    def ratio(self) -> float:
        """Returns the cardiothoracic ratio: heart width over inner chest width."""
        return (self.atrium + self.ventricle) / (2 * self.half_width)

    def lateral(self, y: np.ndarray) -> np.ndarray:
        """Returns the distance of the outer lung border from the midline at height y."""
        return self.half_width * _at(_LATERAL, y / self.span)

    def medial(self, y: np.ndarray) -> np.ndarray:
        """Returns the distance of the inner lung border from the midline at height y."""
        return self.half_width * _at(_MEDIAL, y / self.span)

    def dome(self, side: int, reach: np.ndarray) -> np.ndarray:
        """Returns the height y of the diaphragm at distance `reach` from the midline."""
        share = reach / self.half_width
        outer = np.clip((share - 0.42) / 0.58, 0, None) ** 2.3
        inner = np.clip((0.42 - share) / 0.42, 0, None) ** 2 * 0.35
        return self.height[(side + 1) // 2] + self.sag * (outer + inner)

    def heart(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns right and left borders (positive distances) of the heart shadow at height y."""
        t = y / self.span
        right = _at(_VESSELS_RIGHT, t) + (self.atrium - 22) * _at(_ATRIUM, t)
        left = _at(_VESSELS_LEFT, t) + (self.ventricle - 21) * _at(_VENTRICLE, t)
        return right, left

    def hilum(self, side: int) -> np.ndarray:
        """Returns the centre (x, y) of the lung root; the left one lies higher."""
        level = 0.44 if side == RIGHT else 0.40
        return np.array([side * (0.20 * self.half_width + 5), level * self.span])


def measure(visit: Visit) -> Geometry:
    """Draws the healthy measures of a visit: some fixed for the patient, some new on each film."""
    own, film = visit.rng(0, chronic=True), visit.rng(0, chronic=False)
    male, frontal = visit.sex == "M", visit.view == "AP"
    half_width = (own.normal(144, 6) if male else own.normal(129, 6)) * (1.02 if frontal else 1)
    breath = film.normal(0.92 if frontal else 1.0, 0.035)
    height = (own.normal(240, 11) if male else own.normal(213, 11)) * breath
    stoutness = float(np.clip(own.normal(0, 1) + (visit.age - 45) / 90, -1.6, 2.2))
    thickness = (225 if male else 200) + 20 * stoutness
    share = own.normal(0.435, 0.022) + 0.0004 * (visit.age - 45) + own.normal(0, 0.006)
    share = np.clip(share * (1.10 if frontal else 1), 0.37, 0.485 if not frontal else 0.54)
    heart = share * 2 * half_width
    field = max(film.normal(368, 12), 2 * half_width + 60)
    return Geometry(
        field=field,
        left_edge=-field / 2 + film.normal(0, 6),
        top=-film.uniform(34, 62),
        tilt=film.normal(0, 2.2 if frontal else 1.1),
        half_width=half_width,
        span=height,
        height=(height, height + own.normal(13, 4)),
        sag=own.normal(40, 5),
        body=half_width + 28 + 11 * max(stoutness, -1),
        thickness=thickness,
        depth=thickness * own.normal(0.70, 0.025) - 6 * max(stoutness, 0),
        density=own.normal(0.27, 0.025),
        atrium=heart * own.normal(0.335, 0.02),
        ventricle=heart * 0.665,
        rib_tilt=own.normal(92, 8) * (0.9 if frontal else 1),
        vessel=(0.8, 1.0),
        frontal=frontal,
    )


@dataclasses.dataclass
class Grid:
    """Lays a grid of `size` x `size` pixels over the field of a chest."""

    size: int
    geometry: Geometry

    def __post_init__(self):
        g = self.geometry
        self.pixel = g.field / self.size
        centres = (np.arange(self.size, dtype=np.float32) + 0.5) * np.float32(self.pixel)
        self.x = (centres + np.float32(g.left_edge))[None, :]
        self.y = (centres + np.float32(g.top))[:, None]
        self.middle = int(np.clip(round(-g.left_edge / self.pixel), 1, self.size - 1))

    def columns(self, side: int) -> slice:
        """Returns the columns of the image on one side of the midline."""
        return slice(0, self.middle) if side == RIGHT else slice(self.middle, self.size)

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Converts points `[..., 2]` in mm to OpenCV's fixed-point pixels (4 fractional bits)."""
        origin = (self.geometry.left_edge, self.geometry.top)
        return np.round(((points - origin) / self.pixel - 0.5) * 16).astype(np.int32)

    def polygons(self, shapes, value: int = 255, into: np.ndarray | None = None) -> np.ndarray:
        """Fills polygons (`[n, points, 2]` in mm) with soft edges into a uint8 mask."""
        mask = np.zeros((self.size, self.size), np.uint8) if into is None else into
        for shape in self.to_pixels(np.asarray(shapes)):
            cv2.fillPoly(mask, [shape], value, cv2.LINE_AA, 4)
        return mask

    def lines(self, paths, width: float, value: float, into: np.ndarray) -> np.ndarray:
        """Draws polylines (`[n, points, 2]` in mm) of `width` mm into a uint8 mask.

        Lines finer than a pixel are drawn one pixel wide and fainter in proportion.
        """
        pixels = width / self.pixel
        stroke = max(1, round(pixels))
        shade = round(value * min(1.0, pixels / stroke))
        if shade > 0:
            cv2.polylines(
                into, list(self.to_pixels(paths)), False, shade, stroke, cv2.LINE_AA, 4
            )
        return into

    def cloud(self, rng: np.random.Generator, scale: float, octaves: int = 3) -> np.ndarray:
        """Draws a smooth field of about unit variance; `scale` mm is its coarsest wavelength."""
        total = np.zeros((self.size, self.size), np.float32)
        norm = 0.0
        for octave in range(octaves):
            cells = max(2, round(self.geometry.field / scale * 2**octave))
            noise = rng.standard_normal((cells + 1, cells + 1), np.float32)
            if cells > 2 * self.size:
                continue
            weight = 0.6**octave
            total += weight * cv2.resize(
                noise, (self.size, self.size), interpolation=cv2.INTER_CUBIC
            )
            norm += 0.55 * weight**2
        return total / np.sqrt(max(norm, 1e-6))


@dataclasses.dataclass
class Scene:
    """Holds a chest that is being drawn.

    Attributes:
      visit: the patient and the findings.
      grid: pixels.
      geometry: measures, already deformed by findings.
      air: lung in front of and behind the heart, mm `[size, size]`.
      lung: mask of the lungs above the diaphragm, 0..1 `[size, size]`.
      clear: share of the lung that no finding has filled yet `[size, size]`.
      gas: share of the lung space without any tissue `[size, size]`.
      extra: water added, mm `[size, size]`.
      markings: factor on the lung vessels `[size, size]`.
      boxes: (class index, x, y, width, height) in grid pixels.
    """

    visit: Visit
    grid: Grid
    geometry: Geometry
    air: np.ndarray
    lung: np.ndarray
    clear: np.ndarray = dataclasses.field(init=False)
    gas: np.ndarray = dataclasses.field(init=False)
    extra: np.ndarray = dataclasses.field(init=False)
    markings: np.ndarray = dataclasses.field(init=False)
    boxes: list[tuple[float, ...]] = dataclasses.field(default_factory=list, init=False)

    def __post_init__(self):
        self.clear, self.markings = np.ones_like(self.air), np.ones_like(self.air)
        self.gas, self.extra = np.zeros_like(self.air), np.zeros_like(self.air)

    def reach(self, side: int) -> np.ndarray:
        """Returns the distance from the midline, positive on `side`, `[1, size]`."""
        return side * self.grid.x

    def half(self, side: int) -> np.ndarray:
        """Returns a mask of one side of the midline, 0..1 `[1, size]`."""
        return soft(self.reach(side), self.grid.pixel)

    def fill(self, share: np.ndarray) -> None:
        """Fills a share 0..1 `[size, size]` of the still clear lung with water."""
        self.clear *= 1 - np.clip(share, 0, 1)

    def box(self, finding: str, where: np.ndarray, threshold: float = 0.35) -> None:
        """Records the rectangle around `where` above `threshold` of its peak, `[size, size]`."""
        peak = float(where.max())
        if peak <= 1e-6:
            return
        x, y, width, height = cv2.boundingRect((where > threshold * peak).astype(np.uint8))
        self.boxes.append((FINDINGS.index(finding), x, y, width, height))

    def box_sides(self, finding: str, where: np.ndarray, sides, threshold: float = 0.35) -> None:
        """Records one rectangle for each of `sides`."""
        for side in sides:
            part = np.zeros_like(where)
            columns = self.grid.columns(side)
            part[:, columns] = where[:, columns]
            self.box(finding, part, threshold)

    def blob(self, centre, radii, rng, *, rough: float, edge: float) -> np.ndarray:
        """Draws a rounded patch, 0..1 `[size, size]`.

        Arguments:
          centre, radii: (x, y) and (across, down) in mm.
          rng: generator of the outline.
          rough: irregularity, 0 for an ellipse.
          edge: width of the border as a share of the radius; 1 and more is ill-defined.
        """
        dx = (self.grid.x - centre[0]) / radii[0]
        dy = (self.grid.y - centre[1]) / radii[1]
        distance = 1 - np.sqrt(dx**2 + dy**2)
        if rough:
            distance = distance + rough * self.grid.cloud(rng, 1.3 * max(radii))
        share = np.clip(distance / edge + 0.5, 0, 1)
        return share * share * (3 - 2 * share)

    def place(self, rng, side: int, levels: tuple[float, float], across: tuple[float, float]):
        """Draws a point (x, y) in mm in the lung beside the heart.

        Its ranges: `levels` from apex (0) to dome (1), `across` from the heart (0) to the wall (1).
        """
        y = rng.uniform(*levels) * self.geometry.span
        right, left = self.geometry.heart(np.array([y]))
        inner = float((left if side == LEFT else right)[0])
        outer = float(self.geometry.lateral(np.array([y]))[0])
        return side * (inner + rng.uniform(*across) * max(outer - inner, 15.0)), y


def pick_sides(rng: np.random.Generator, both: float) -> tuple[int, ...]:
    """Picks one side at random, or both with probability `both`."""
    first = RIGHT if rng.random() < 0.55 else LEFT
    return (first, -first) if rng.random() < both else (first,)
