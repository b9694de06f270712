"""Makes figures in one style and writes them as PNG."""

import functools
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

# Palette of Okabe & Ito, safe for any form of colour blindness.
BLUE, ORANGE, GREEN, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7"
GRAY, LIGHT, FAINT = "#595959", "#E8B48F", "#D9D9D9"

DPI = 120

_STYLE: "dict[RcKeyType, Any]" = {
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
    """Decorates a function that draws a figure; matplotlib's settings change only within it."""

    @functools.wraps(draw)
    def wrapped(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Drawn:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return wrapped


def new_figure(width: float, height: float) -> "Figure":
    """Makes an empty figure with constrained layout, unknown to pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_image(axes: "Axes", image: "np.ndarray") -> None:
    """Draws a gray image `[H, W]` without axes."""
    axes.imshow(image, cmap="gray", interpolation="nearest" if len(image) < 128 else "antialiased")
    axes.set(xticks=(), yticks=())
    axes.grid(False)
    axes.spines[:].set_visible(False)


def save(figure: "Figure", out: pathlib.Path | str) -> pathlib.Path:
    """Writes a figure as PNG, whole or not at all, and makes its folder; returns `out`."""
    out = pathlib.Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    figure.savefig(partial, format="png", facecolor="white")
    partial.replace(out)
    return out
