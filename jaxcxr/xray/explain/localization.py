"""Measures how well a saliency map points at the boxes of a finding."""

import numpy as np
from scipy import stats


def box_mask(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Marks the pixels whose centre lies in a box.

    Arguments:
      boxes: `[k, 4]`, x, y, width, height in pixels.
      height, width: of the image, pixels.

    Returns:
      bool `[height, width]`.
    """
    mask = np.zeros((height, width), bool)
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    for left, top, wide, tall in np.asarray(boxes, np.float64).reshape(-1, 4):
        rows, columns = (y >= top) & (y < top + tall), (x >= left) & (x < left + wide)
        mask |= rows[:, None] & columns[None, :]
    return mask


def pointing_game(saliency: np.ndarray, mask: np.ndarray) -> float:
    """Tells whether the greatest value lies in a box (Zhang et al. 2016, arXiv:1608.00507, 4.1).

    There is no tolerance around the box. If several pixels share the greatest value, their share
    in the boxes counts, so a constant map scores the area of the boxes, as chance does.

    Arguments:
      saliency: `[height, width]`.
      mask: bool, from `box_mask`.

    Returns:
      0 to 1.
    """
    return float(mask[saliency == saliency.max()].mean())


def box_iou(saliency: np.ndarray, mask: np.ndarray) -> float:
    """Computes the IoU of the boxes and equally many pixels of the greatest values.

    This needs no threshold. Pixels that tie at the edge count in part.

    Arguments:
      saliency: `[height, width]`.
      mask: bool, from `box_mask`, with at least one True.

    Returns:
      0 to 1.
    """
    size = int(mask.sum())
    edge = np.partition(saliency.ravel(), saliency.size - size)[saliency.size - size]
    above, tied = saliency > edge, saliency == edge
    share = (size - above.sum()) / tied.sum()
    hit = float(mask[above].sum() + share * mask[tied].sum())
    return hit / (2 * size - hit)


def energy_in_boxes(saliency: np.ndarray, mask: np.ndarray) -> float:
    """Computes the share of a map's positive part in the boxes (Wang et al. 2020, 4.3).

    Returns:
      0 to 1; NaN for a map that is nowhere positive.
    """
    positive = np.maximum(saliency, 0)
    total = positive.sum()
    return float(positive[mask].sum() / total) if total > 0 else float("nan")


def rank_correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Correlates two maps by rank (Spearman); NaN if one is constant."""
    left, right = np.ravel(left), np.ravel(right)
    if left.min() == left.max() or right.min() == right.max():
        return float("nan")
    return float(stats.spearmanr(left, right).statistic)
