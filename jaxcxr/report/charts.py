"""Small charts as SVG, for a page: they stay sharp, and need no picture."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from jaxcxr.statistics.ranking import Curve

_SIDE, _LEFT, _TOP, _BELOW = 150, 34, 8, 30


@dataclasses.dataclass(frozen=True)
class CurveChart:
    """A curve with its band in the unit square, as `blocks.html` draws it.

    Attributes:
      title: of the chart.
      names: of the axes, x first.
      curve, band, chance: SVG paths; "" for no line of chance.
    """

    title: str
    names: tuple[str, str]
    curve: str
    band: str
    chance: str = ""

    side, left, top = _SIDE, _LEFT, _TOP
    width, height = _LEFT + _SIDE + 8, _TOP + _SIDE + _BELOW
    ticks = tuple((share, _LEFT + share * _SIDE, _TOP + (1 - share) * _SIDE)
                  for share in (0, 0.5, 1))

    @property
    def alt(self) -> str:
        """What the chart shows, in words."""
        return f"{self.title}: {self.names[1]} over {self.names[0]}"


def unit_chart(
    title: str, curve: Curve, names: tuple[str, str], *, diagonal: bool = False,
    level: float | None = None,
) -> CurveChart:
    """Places a curve with its band in the unit square.

    Arguments:
      title: of the chart.
      curve: x and y in 0 to 1.
      names: of the axes, x first.
      diagonal: draws the line of chance from corner to corner.
      level: draws a level line of chance.
    """
    chance = ""
    if diagonal or level is not None:
        chance = _path([0, 1], [0, 1] if diagonal else [level, level])
    around = np.append(curve.x, curve.x[::-1]), np.append(curve.low, curve.high[::-1])
    return CurveChart(title, names, _path(curve.x, curve.y), _path(*around) + "Z", chance)


def _path(x: Iterable[float], y: Iterable[float]) -> str:
    points = ((_LEFT + a * _SIDE, _TOP + (1 - b) * _SIDE) for a, b in zip(x, y, strict=True))
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
