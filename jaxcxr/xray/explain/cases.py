"""Chooses the images on which a model is most right and most wrong, and draws its maps on them."""

import dataclasses

import cv2
import numpy as np

from jaxcxr.data.label_tables import NEGATIVE, POSITIVE
from jaxcxr.xray.explain import saliency

_SHOWN = 256  # least pixels per side of the pictures
_STRENGTH = 0.6  # opacity of the color where the map is greatest


@dataclasses.dataclass(frozen=True)
class Case:
    """Pairs an image with a class.

    Attributes:
      index: of the image in its split.
      finding: index of the class.
      label: 1 or 0.
      score: of the model, 0 to 1.
    """

    index: int
    finding: int
    label: int
    score: float


def choose(labels: np.ndarray, scores: np.ndarray, most: int) -> dict[str, list[Case]]:
    """Chooses the surest hits, the clearest misses and the surest false alarms.

    No image appears twice in a group, and no class as long as there are others.

    Arguments:
      labels: integers `[n, classes]` in {1, 0, -1 unknown}.
      scores: `[n, classes]` in 0 to 1.
      most: cases per group.

    Returns:
      "found", "missed" and "false alarms", the clearest first.
    """
    groups = {
        "found": (labels == POSITIVE, -scores), "missed": (labels == POSITIVE, scores),
        "false alarms": (labels == NEGATIVE, -scores),
    }
    return {name: _clearest(labels, scores, *group, most) for name, group in groups.items()}


def _clearest(labels, scores, mask, rank, most: int) -> list[Case]:
    rows, columns = np.nonzero(mask)
    order = np.argsort(rank[rows, columns], kind="stable")
    chosen: list[Case] = []
    images: set[int] = set()
    classes: set[int] = set()
    for fresh in (True, False):  # other classes first
        for i in order:
            row, column = int(rows[i]), int(columns[i])
            if len(chosen) >= most:
                return chosen
            if row in images or (fresh and column in classes):
                continue
            images.add(row)
            classes.add(column)
            chosen.append(
                Case(row, column, int(labels[row, column]), float(scores[row, column]))
            )
    return chosen


def pictures(image: np.ndarray, heat: np.ndarray) -> tuple[bytes, bytes]:
    """Encodes an image, and the image under a map, as PNG.

    Arguments:
      image: uint8 `[H, W]`.
      heat: `[H, W]`; the least value is transparent.
    """
    side = max(_SHOWN, *image.shape)
    image = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
    heat = cv2.resize(heat.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    low, high = float(heat.min()), float(heat.max())
    share = (heat - low) / (high - low) if high > low else np.zeros_like(heat)
    colors = cv2.applyColorMap((255 * share).astype(np.uint8), cv2.COLORMAP_INFERNO)
    gray = np.repeat(image[..., None], 3, 2)
    weight = _STRENGTH * share[..., None]
    mixed = np.round((1 - weight) * gray + weight * colors).astype(np.uint8)
    return _png(image), _png(mixed)


def _png(image: np.ndarray) -> bytes:
    _, content = cv2.imencode(".png", image)
    return content.tobytes()


def method_for(explainer: saliency.Explainer, images: saliency.Images) -> str:
    """Picks the method that a report draws: class-specific and fast."""
    possible = explainer.methods(images)
    for name in ("grad_cam", "attention_gradient"):
        if name in possible:
            return name
    return "integrated_gradients"
