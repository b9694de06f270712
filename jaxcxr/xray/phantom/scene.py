"""Holds the lungs of one film while findings are drawn, and records their boxes."""

import dataclasses

import cv2
import numpy as np

from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.xray.phantom.anatomy import LEFT, RIGHT, Geometry, Grid, soft
from jaxcxr.xray.phantom.population import Visit


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
          centre: (x, y) in mm.
          radii: (across, down) in mm.
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

        Arguments:
          rng: random generator.
          side: which lung.
          levels: range down the lung, 0 apex to 1 dome.
          across: range from the heart's border (0) to the outer wall (1).
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
