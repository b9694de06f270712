"""Draws what attention heads have learned and where they look.

A stack holds the blocks of a model of one direction, in order: block name -> the arrays that its
attention stored in the collection `attention`, see `jaxcxr.models.attention.sown`.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcxr.report.canvas import GRAY, draw_image, new_figure, save, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Stacks = Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]

# Property -> (title, range of the colours; None: up to the greatest value).
_PROPERTIES = {
    "span": ("span ({unit})", 0.0, None),
    "alpha": ("order of entmax, 1 is softmax", 1.0, 2.0),
    "gate": ("gate", 0.0, None),
}
_MISSING = "#F2F2F2"

# Heads in one row of maps; more are not drawn.
MOST_HEADS = 12


def rollout(weights: Sequence[np.ndarray]) -> np.ndarray:
    """Computes attention rollout (Abnar & Zuidema 2020, arXiv:2005.00928, section 3).

    Arguments:
      weights: of the blocks in order, at least one, each `[..., heads, n, n]`, queries before keys.

    Returns:
      `[..., n, n]`: the share of each input token in each output token, if every block passes on
      half of its input unchanged. Rows add up to 1.
    """
    mixed = []
    for block in weights:
        mean = np.asarray(block, np.float64).mean(-3)
        mean = mean / np.maximum(mean.sum(-1, keepdims=True), 1e-12)
        half = (mean + np.eye(mean.shape[-1])) / 2
        mixed.append(half / half.sum(-1, keepdims=True))
    return functools.reduce(lambda total, block: block @ total, mixed)


def patch_maps(weights: np.ndarray, rows: int, columns: int, *, token: bool) -> np.ndarray:
    """Arranges the weights of patches as maps over the image.

    Arguments:
      weights: `[..., n, n]`, queries before keys; the last tokens are the patches in row order.
      rows, columns: of patches.
      token: takes the weights of the first query, else the mean over all queries.

    Returns:
      `[..., rows, columns]`.
    """
    seen = weights[..., 0, :] if token else weights.mean(-2)
    return seen[..., -rows * columns :].reshape(*seen.shape[:-1], rows, columns)


def write(
    looks: Any, figure_of: Callable[[np.ndarray, Stacks], "Figure | None"],
    units: Mapping[str, str], folder: pathlib.Path,
) -> list[str]:
    """Draws `heads.png` and `attention.png`, as far as the model has gates and weights.

    Arguments:
      looks: `jaxcxr.models.sequence.look.Look`; None: the model has no attention.
      figure_of: draws the maps of the examples and stacks; None if the last block has no weights.
      units: stack name -> unit of distances between tokens.
      folder: to write into.

    Returns:
      Lines for the screen that say why there are no maps.
    """
    if looks is None:
        return []
    if any("gate" in block for blocks in looks.stacks.values() for block in blocks.values()):
        shown = {
            name: {key: block for key, block in blocks.items() if "gate" in block}
            for name, blocks in looks.stacks.items()
        }
        save(heads_figure(shown, units), folder / "heads.png")
    if not looks.complete:
        return [f"no maps of attention: its weights are {looks.weights:,} numbers for one example"]
    figure = figure_of(looks.index, looks.stacks)
    if figure is None:
        return ["no maps of attention: the last block of the model has no weights to show"]
    save(figure, folder / "attention.png")
    return []


@styled
def heads_figure(stacks: Stacks, units: Mapping[str, str]) -> "Figure":
    """Draws span, order of entmax and gate of every head, a row of panels for each stack.

    Arguments:
      stacks: stack name -> block name -> `span`, `alpha` and `gate`, each `[heads]`.
      units: stack name -> unit of its spans.

    Raises:
      ValueError: no block.
    """
    if not any(stacks.values()):
        raise ValueError("no block has properties of heads: there is nothing to draw")
    stacks = {name: blocks for name, blocks in stacks.items() if blocks}
    heads = max(len(block["gate"]) for blocks in stacks.values() for block in blocks.values())
    heights = [0.34 * len(blocks) + 1.15 for blocks in stacks.values()]
    width = max(2.6, 0.44 * heads + 1.0)
    figure = new_figure(3 * width + 0.6, sum(heights))
    panels = figure.subplots(
        len(stacks), 3, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for row, (name, blocks) in zip(panels, stacks.items(), strict=True):
        for axes, (key, (title, low, high)) in zip(row, _PROPERTIES.items(), strict=True):
            table = np.full((len(blocks), heads), np.nan)
            for i, block in enumerate(blocks.values()):
                table[i, : len(block[key])] = block[key]
            _draw_table(axes, table, low, high)
            axes.set_title(title.format(unit=units.get(name, "tokens")))
        row[0].set_yticks(range(len(blocks)), list(blocks))
        for axes in row[1:]:
            axes.set_yticks(())
    for axes in panels[-1]:
        axes.set_xlabel("head")
    return figure


def _draw_table(axes: "Axes", table: np.ndarray, low: float, high: float | None) -> None:
    known = table[np.isfinite(table)]
    if high is None:
        high = max(1.0, known.max()) if len(known) else 1.0
    axes.set_facecolor(_MISSING)
    axes.imshow(table, cmap="YlGnBu", vmin=low, vmax=high, aspect="auto")
    for (i, j), value in np.ndenumerate(table):
        if np.isfinite(value):
            dark = value - low > 0.6 * (high - low)
            axes.text(j, i, _short(value), ha="center", va="center", fontsize=8,
                      color="white" if dark else "black")
    axes.set_xticks(range(table.shape[1]))
    axes.grid(False)
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)


def _short(value: float) -> str:
    """Formats a number in at most four characters."""
    if value >= 99.5 or value == round(value):
        return f"{value:.0f}"
    return f"{value:.2f}" if value < 2 else f"{value:.1f}"


@styled
def image_attention_figure(
    images: np.ndarray,
    maps: np.ndarray,
    rolled: np.ndarray | None,
    titles: Sequence[str],
    caption: str,
) -> "Figure":
    """Draws the map of every head over its radiograph, a row for each.

    Arguments:
      images: `[n, H, W]`.
      maps: `[n, heads, rows, columns]`, weights of patches; each has its own colour scale.
      rolled: `[n, rows, columns]`, attention rollout, or None.
      titles: n names.
      caption: of the figure.

    Raises:
      ValueError: no image, or lengths that do not agree.
    """
    if not len(images) == len(maps) == len(titles) or not len(images):
        raise ValueError(
            f"{len(images)} images, {len(maps)} maps and {len(titles)} titles must be equally "
            "many, and at least one"
        )
    shown = min(maps.shape[1], MOST_HEADS)
    columns = 1 + shown + (rolled is not None)
    figure = new_figure(1.45 * columns + 0.2, 1.48 * len(images) + 0.6)
    panels = figure.subplots(len(images), columns, squeeze=False)
    for i, row in enumerate(panels):
        overlays = list(maps[i, :shown]) + ([rolled[i]] if rolled is not None else [])
        draw_image(row[0], images[i])
        row[0].set_ylabel(titles[i], fontsize=8)
        for axes, overlay in zip(row[1:], overlays, strict=True):
            draw_image(axes, images[i])
            height, width = images[i].shape
            axes.imshow(
                overlay, cmap="inferno", alpha=0.6, vmin=0, vmax=overlay.max() or 1.0,
                interpolation="bilinear", extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            )
    names = ["image", *(f"head {head}" for head in range(shown))]
    names += ["rollout"] if rolled is not None else []
    for axes, name in zip(panels[0], names, strict=True):
        axes.set_title(name, fontsize=9)
    figure.suptitle(caption + _left_out(maps.shape[1]), fontsize=10)
    return figure


@styled
def pair_attention_figure(
    maps: Mapping[str, np.ndarray],
    ticks: Mapping[str, Sequence[str]],
    caption: str,
) -> "Figure":
    """Draws the weights of all pairs of query and key, a row of panels for each stack.

    Arguments:
      maps: stack name -> `[heads, n, n]`, queries before keys; each map has its own colour scale,
        from 0 to the value in its title.
      ticks: stack name -> names of its n tokens, which are numbered otherwise.
      caption: of the figure.

    Raises:
      ValueError: no map.
    """
    if not maps:
        raise ValueError("there is no map of weights to draw")
    columns = min(max(len(rows) for rows in maps.values()), MOST_HEADS)
    figure = new_figure(1.75 * columns + 1.1, 2.0 * len(maps) + 0.6)
    panels = figure.subplots(len(maps), columns, squeeze=False)
    for row, (name, weights) in zip(panels, maps.items(), strict=True):
        for head, axes in enumerate(row):
            if head >= len(weights):
                axes.remove()
                continue
            top = float(weights[head].max()) or 1.0
            axes.imshow(weights[head], cmap="magma", vmin=0, vmax=top, interpolation="nearest")
            which = f"head {head}, " if len(weights) > 1 else ""
            axes.set_title(f"{which}up to {top:.2g}", fontsize=8)
            axes.grid(False)
            axes.tick_params(labelsize=7, length=2)
            if name in ticks:
                names = [tick.replace("_", " ") for tick in ticks[name]]
                axes.set_xticks(())
                axes.set_yticks(range(len(names)), names if head == 0 else [], fontsize=5.5)
            elif head:
                axes.set_yticks(())
        row[0].set_ylabel(name, fontsize=9)
    figure.supxlabel("key", fontsize=9, color=GRAY)
    figure.supylabel("query", fontsize=9, color=GRAY)
    most = max(len(rows) for rows in maps.values())
    figure.suptitle(caption + _left_out(most), fontsize=10)
    return figure


def _left_out(heads: int) -> str:
    return f" (heads 0 to {MOST_HEADS - 1} of {heads})" if heads > MOST_HEADS else ""
