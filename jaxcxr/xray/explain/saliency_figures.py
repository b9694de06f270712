"""The figure of explanations: radiographs, their boxes and the maps of each method."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxcxr.report.canvas import SKY, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def saliency_figure(
    images: np.ndarray,
    maps: Mapping[str, np.ndarray],
    boxes: Sequence[np.ndarray],
    titles: Sequence[str],
) -> "Figure":
    """A row for each image: the image with its boxes, then each method over it.

    Arguments:
      images: `[n, H, W]`.
      maps: method -> `[n, H, W]`; each map has its own scale of colours, from its least value.
      boxes: of each image `[k, 4]`, x, y, width, height in pixels.
      titles: of each row.

    Returns:
      the figure.

    Raises:
      ValueError: no image.
    """
    if not len(images):
        raise ValueError("there is no image to explain")
    columns = 1 + len(maps)
    figure = new_figure(1.9 * columns + 0.4, 1.95 * len(images) + 0.3)
    panels = figure.subplots(len(images), columns, squeeze=False)
    for i, row in enumerate(panels):
        _draw(row[0], images[i], boxes[i])
        row[0].set_ylabel(titles[i], fontsize=8)
        for axes, one in zip(row[1:], maps.values(), strict=True):
            _draw(axes, images[i], boxes[i])
            low, high = float(one[i].min()), float(one[i].max())
            axes.imshow(one[i], cmap="inferno", alpha=0.55, vmin=low, vmax=high or 1.0)
    for axes, name in zip(panels[0], ["image", *maps], strict=True):
        axes.set_title(name.replace("_", " "), fontsize=9)
    return figure


def _draw(axes: "Axes", image: np.ndarray, boxes: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    axes.imshow(image, cmap="gray", interpolation="nearest" if len(image) < 128 else "antialiased")
    for x, y, width, height in boxes:
        axes.add_patch(
            Rectangle((x - 0.5, y - 0.5), width, height, fill=False, edgecolor=SKY, linewidth=1.5)
        )
    axes.set(xticks=(), yticks=())
    axes.grid(False)
    axes.spines[:].set_visible(False)
