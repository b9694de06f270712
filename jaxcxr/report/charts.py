"""Small charts as SVG, for a page: they stay sharp, and need no picture."""

import html

import numpy as np

from jaxcxr.report.canvas import BLUE, FAINT, GRAY
from jaxcxr.statistics.ranking import Curve

_SIDE, _LEFT, _TOP, _ROOM = 150, 34, 8, 30


def unit_chart(
    title: str, curve: Curve, names: tuple[str, str], *, diagonal: bool = False,
    level: float | None = None,
) -> str:
    """A curve with its band in the unit square.

    Arguments:
      title: above it; also the alternative text, with the axes.
      curve: x and y in 0 to 1.
      names: of the axes.
      diagonal: draws the line of chance from corner to corner.
      level: draws a level line of chance.

    Returns:
      an SVG element.
    """
    width, height = _LEFT + _SIDE + 8, _TOP + _SIDE + _ROOM
    alt = f"{title}: {names[1]} over {names[0]}"
    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="{html.escape(alt)}" font-family="system-ui, sans-serif" font-size="9">',
        f"<title>{html.escape(alt)}</title>",
    ]
    for share in (0, 0.5, 1):
        x, y = _at(share, share)
        parts.append(f'<path d="M{_LEFT} {y:g}H{_LEFT + _SIDE}" stroke="{FAINT}"/>')
        parts.append(f'<text x="{_LEFT - 4}" y="{y + 3:g}" text-anchor="end">{share:g}</text>')
        parts.append(
            f'<text x="{x:g}" y="{_TOP + _SIDE + 11}" text-anchor="middle">{share:g}</text>'
        )
    if diagonal or level is not None:
        left, right = (0.0, 1.0) if diagonal else (level, level)
        parts.append(
            f'<path d="{_path([0, 1], [left, right])}" stroke="{GRAY}" stroke-dasharray="2 3"/>'
        )
    around = np.append(curve.x, curve.x[::-1]), np.append(curve.low, curve.high[::-1])
    parts += [
        f'<path d="{_path(*around)}Z" fill="{BLUE}" fill-opacity="0.2"/>',
        f'<path d="{_path(curve.x, curve.y)}" fill="none" stroke="{BLUE}" stroke-width="1.5"/>',
        f'<text x="{_LEFT + _SIDE / 2}" y="{height - 8}" text-anchor="middle">'
        f"{html.escape(names[0])}</text>",
        f'<text transform="translate(9 {_TOP + _SIDE / 2}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(names[1])}</text>",
        "</svg>",
    ]
    return "".join(parts)


def _at(x: float, y: float) -> tuple[float, float]:
    return _LEFT + x * _SIDE, _TOP + (1 - y) * _SIDE


def _path(x, y) -> str:
    points = [_at(*point) for point in zip(x, y, strict=True)]
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
