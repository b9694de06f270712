"""Scores explanations: do maps point at the findings, and at what the model uses?

A method that draws the same map with random weights explains the image, not the model (Adebayo et
al. 2018, arXiv:1810.03292), so each method is also run with random weights, where it has to fail.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from scipy import special

from jaxcxr.data.label_tables import POSITIVE
from jaxcxr.statistics import intervals
from jaxcxr.xray.explain import saliency

if TYPE_CHECKING:
    from jaxcxr.xray.images.radiographs import Radiographs  # imports TFDS, which is slow

CENTER, NOISE = "center of the image", "noise"
SHARES = np.linspace(0, 1, 17)  # of the pixels, at which insertion and deletion are evaluated
BATCH = 8
RESAMPLES = 1000
COLUMNS = {
    "pointing": "pointing game", "iou": "IoU", "energy": "in boxes", "deletion": "deletion",
    "insertion": "insertion", "random_pointing": "pointing, random weights",
    "correlation": "correlation with random weights",
}


@dataclasses.dataclass(frozen=True)
class ImageFinding:
    """Locates a finding in an image: their indices, and boxes `[k, 4]` (x, y, width, height)."""

    index: int
    finding: int
    boxes: np.ndarray


# Score -> `[cases]`, NaN where undefined, as without boxes: the functions below; the mean
# probability while the highest-valued pixels turn gray (deletion, low is good) or appear in a
# blurred image (insertion, high is good; Petsiuk, Das and Saenko 2018, arXiv:1806.07421); and the
# maps of random weights, by the pointing game and Spearman's correlation with those of the model.
Scores = dict[str, np.ndarray]


def choose(source: "Radiographs", most: int, seed: int = 0) -> list[ImageFinding]:
    """Chooses positive findings, of all classes in turn; only those with boxes if there are any."""
    rows, random = source.manifest, np.random.default_rng(seed)
    boxed = [
        [i for i in range(len(rows)) if (rows.boxes[i][:, 0] == c).any()]
        for c in range(len(rows.classes))
    ]
    with_boxes = any(boxed)
    pools = boxed if with_boxes else [
        np.flatnonzero(rows.labels[:, c] == POSITIVE) for c in range(len(rows.classes))
    ]
    queues = [list(random.permutation(pool)) for pool in pools]
    chosen: list[tuple[int, int]] = []
    while len(chosen) < most and any(queues):
        chosen += [(int(queue.pop()), c) for c, queue in enumerate(queues) if queue]
    none = np.zeros((0, 4), np.float32)
    return [
        ImageFinding(index, c, _boxes_of(source, index, c) if with_boxes else none)
        for index, c in chosen[:most]
    ]


def _boxes_of(source: "Radiographs", index: int, finding: int) -> np.ndarray:
    boxes = source.boxes(index)
    return boxes[boxes[:, 0] == finding, 1:]


def score(
    explainer: saliency.Explainer,
    random: saliency.Explainer,
    images: np.ndarray,
    cases: Sequence[ImageFinding],
    methods: Sequence[str],
    say: Callable[[str], None] = lambda _: None,
) -> tuple[dict[str, Scores], dict[str, np.ndarray]]:
    """Scores methods, and two baseline maps that ignore the model.

    Arguments:
      explainer, random: of the trained model, and of the same with random weights.
      images: normalised, `[cases, H, W, 1]`.
      cases: the findings.
      methods: some of `explainer.methods`.
      say: called with a line for each method.

    Returns:
      Method -> scores; method -> maps `[cases, H, W]`.
    """
    classes = np.array([case.finding for case in cases])
    masks = [box_mask(case.boxes, *images.shape[1:3]) for case in cases]
    found, drawn = {}, {}
    for method in methods:
        say(f"{method} ...")
        drawn[method] = _maps(explainer, method, images, classes)
        other = _maps(random, method, images, classes)
        found[method] = _scores(explainer, images, classes, masks, drawn[method], other)
    for name, maps in ((CENTER, _center(images)), (NOISE, _noise(images))):
        found[name] = _scores(explainer, images, classes, masks, maps, None)
    return found, drawn


def _scores(explainer, images, classes, masks, maps, other) -> Scores:
    nothing = np.full(len(maps), math.nan)

    def by_box(measure, maps):
        return np.array([
            measure(one, mask) if mask.any() else math.nan
            for one, mask in zip(maps, masks, strict=True)
        ])

    gray = np.broadcast_to(images.mean((1, 2, 3), keepdims=True), images.shape)
    blurred = np.stack([_blurred(image) for image in images])
    return {
        "pointing": by_box(pointing_game, maps),
        "iou": by_box(box_iou, maps),
        "energy": by_box(energy_in_boxes, maps),
        "deletion": area(explainer, gray, images, maps, classes),
        "insertion": area(explainer, images, blurred, maps, classes),
        "random_pointing": nothing if other is None else by_box(pointing_game, other),
        "correlation": nothing if other is None else np.array(
            [rank_correlation(*pair) for pair in zip(maps, other, strict=True)]
        ),
    }


def area(explainer, shown: np.ndarray, rest: np.ndarray, maps, classes) -> np.ndarray:
    """Averages the probability of a class while more and more pixels are shown, greatest first.

    Normalised images `[n, H, W, 1]`: `shown` gives the pixels with the greatest values of `maps`,
    `rest` the others. Returns `[n]`, over `SHARES` of the pixels by the trapezoid rule.
    """
    order = np.argsort(-maps.reshape(len(maps), -1), axis=1, kind="stable")
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(order.shape[1])[None], 1)
    place = place.reshape(maps.shape)[..., None]
    curve = []
    for share in SHARES:
        mixed = np.where(place < round(share * order.shape[1]), shown, rest)
        logits = _batched(explainer.logits, mixed)
        curve.append(special.expit(logits[np.arange(len(classes)), classes]))
    return np.trapezoid(np.stack(curve), SHARES, axis=0)


def _maps(explainer, method, images, classes) -> np.ndarray:
    return _batched(lambda x, c: explainer.maps(method, x, c), images, classes)


def _batched(function, *arrays: np.ndarray) -> np.ndarray:
    """Applies a function to equal batches; the first example of the last one fills it up."""
    return np.concatenate([function(*parts)[:count] for count, parts in _batches(*arrays)])


def _batches(*arrays: np.ndarray) -> Iterator[tuple[int, list[np.ndarray]]]:
    for start in range(0, len(arrays[0]), BATCH):
        parts = [array[start : start + BATCH] for array in arrays]
        count = len(parts[0])
        yield count, [
            np.concatenate([part, np.repeat(part[:1], BATCH - count, 0)]) for part in parts
        ]


def _blurred(image: np.ndarray) -> np.ndarray:
    """Removes structures smaller than about a tenth of the side."""
    return cv2.GaussianBlur(image[..., 0], (0, 0), image.shape[0] / 20)[..., None]


def _center(images: np.ndarray) -> np.ndarray:
    height, width = images.shape[1:3]
    y, x = np.mgrid[:height, :width]
    away = ((y + 0.5) / height - 0.5) ** 2 + ((x + 0.5) / width - 0.5) ** 2
    return np.broadcast_to(-away.astype(np.float32), images.shape[:3])


def _noise(images: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).random(images.shape[:3], np.float32)


def mean_interval(values: np.ndarray, patients: np.ndarray) -> tuple[float, float, float]:
    """Returns mean and 95 % bootstrap interval over patients of known values; NaN without any."""
    known = ~np.isnan(values)
    if not known.any():
        return math.nan, math.nan, math.nan
    groups = intervals.Groups.of(patients[known])
    sums, sizes = groups.sums(values[known]), np.bincount(groups.index)
    drawn = groups.resample(lambda counts: (sums @ counts) / (sizes @ counts), RESAMPLES)
    return sums.sum() / sizes.sum(), *intervals.percentile_interval(drawn)


def summary(found: Mapping[str, Scores], patients: np.ndarray) -> dict[str, dict]:
    """Averages the scores of each method and says whether it beats its own random weights.

    Returns:
      Method -> name of a score -> mean, and `<name>_interval`; `verdict`. None where undefined.
    """
    return {name: _summary(scores, patients) for name, scores in found.items()}


def _summary(scores: Scores, patients: np.ndarray) -> dict:
    entry: dict[str, Any] = {}
    for name, values in (*scores.items(), ("gain", scores["pointing"] - scores["random_pointing"])):
        mean, low, high = mean_interval(values, patients)
        entry[name] = None if math.isnan(mean) else mean
        entry[f"{name}_interval"] = None if math.isnan(low) else (low, high)
    how = "better" if low > 0 else "no better"  # the last is the gain
    entry["verdict"] = "" if math.isnan(mean) else f"points {how} than with random weights"
    return entry


def lines(result: Mapping) -> list[list[str]]:
    """Formats the table of `summary` as lines of cells, the header first."""
    rows = [["method", *COLUMNS.values(), ""]]
    for name, entry in result["methods"].items():
        cells = [cell(entry[key], entry[f"{key}_interval"]) for key in COLUMNS]
        rows.append([name, *cells, entry["verdict"]])
    return rows


def cell(value: float | None, interval: Sequence[float] | None) -> str:
    """Formats a value with its interval; "n/a" where undefined."""
    if value is None:
        return "n/a"
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def heading(result: Mapping) -> str:
    """Describes the explained findings and the values in one line."""
    boxes = f"{result['boxes']} with boxes" if result["boxes"] else "the data has no boxes"
    return (
        f"{result['model']}, step {result['step']}, {result['split']} split: {result['cases']} "
        f"findings of {result['patients']} patients, {boxes}; mean [95 % interval over patients]"
    )


def box_mask(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Marks the pixels `[height, width]` whose centre lies in a box (x, y, width, height)."""
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
    """
    return float(mask[saliency == saliency.max()].mean())


def box_iou(saliency: np.ndarray, mask: np.ndarray) -> float:
    """Computes the IoU of the boxes and equally many pixels of the greatest values.

    This needs no threshold. Pixels that tie at the edge count in part.
    """
    size = int(mask.sum())
    edge = np.partition(saliency.ravel(), saliency.size - size)[saliency.size - size]
    above, tied = saliency > edge, saliency == edge
    share = (size - above.sum()) / tied.sum()
    hit = float(mask[above].sum() + share * mask[tied].sum())
    return hit / (2 * size - hit)


def energy_in_boxes(saliency: np.ndarray, mask: np.ndarray) -> float:
    """Computes the share of a map's positive part in the boxes, or NaN (Wang et al. 2020, 4.3)."""
    positive = np.maximum(saliency, 0)
    total = positive.sum()
    return float(positive[mask].sum() / total) if total > 0 else float("nan")


def rank_correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Correlates two maps by rank (Spearman); NaN if one is constant."""
    from scipy import stats  # lazily: predictions need maps alone

    left, right = np.ravel(left), np.ravel(right)
    if left.min() == left.max() or right.min() == right.max():
        return float("nan")
    return float(stats.spearmanr(left, right).statistic)
