"""What all figures share: the palette, the style and the way to a PNG file."""

import functools
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar
if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito's palette, told apart with any form of colour blindness.
BLUE, ORANGE, GREEN, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7"
GRAY, LIGHT, FAINT = "#595959", "#E8B48F", "#D9D9D9"

DPI = 120

_STYLE = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#EBEBEB",
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
}


_Arguments = ParamSpec("_Arguments")
_Drawn = TypeVar("_Drawn")


def styled(draw: Callable[_Arguments, _Drawn]) -> Callable[_Arguments, _Drawn]:
    """Makes a function draw in the house style; matplotlib's settings return to what they were."""

    @functools.wraps(draw)
    def wrapped(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Drawn:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return wrapped


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure.

    Arguments:
      width: inches.
      height: inches.

    Returns:
      figure with an Agg canvas and constrained layout, unknown to pyplot.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: "Figure", out: pathlib.Path | str) -> pathlib.Path:
    """Writes a figure as PNG, whole or not at all.

    Arguments:
      figure: figure of `new_figure`.
      out: file to write; its folder is made.

    Returns:
      `out`.
    """
    out = pathlib.Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    figure.savefig(partial, format="png", facecolor="white")
    partial.replace(out)
    return out
