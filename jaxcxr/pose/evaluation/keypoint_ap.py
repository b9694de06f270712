"""Average precision and recall of keypoint detections, as COCO's evaluation counts them."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jaxcxr.pose.evaluation.keypoint_errors import COCO_SIGMAS
from jaxcxr.report.tables import Metric
from jaxcxr.statistics.intervals import Groups

THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10))
AREAS = {"all": (0.0, 1e10), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ApMetric(Metric):
    """AP or AR (`kind`) over people of a size in `AREAS` and some of the `THRESHOLDS`."""

    kind: str
    area: str = "all"
    thresholds: tuple[int, ...] = tuple(range(len(THRESHOLDS)))


METRICS = tuple(
    ApMetric(name=kind + end, title=kind + end, kind=kind, undefined="nobody counts", **which)
    for kind in ("AP", "AR")
    for end, which in (("", {}), ("50", {"thresholds": (0,)}), ("75", {"thresholds": (5,)}),
                       ("m", {"area": "medium"}), ("l", {"area": "large"}))
)


@dataclasses.dataclass(frozen=True)
class _Matches:
    """Detections of one image, best first; `matched`, `ignored`: `[thresholds, detections]`."""

    scores: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    annotations: int


@dataclasses.dataclass(frozen=True, eq=False)
class _RankedDetections:
    """Detections of all images for one category and size of people, best first.

    Attributes:
      image: `[D]`, number of the image of each.
      true, false: bool `[thresholds, D]`; neither: the detection does not count.
      annotations: `[images]`, how many count.
    """

    image: np.ndarray
    true: np.ndarray
    false: np.ndarray
    annotations: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Matched:
    """Detections matched to annotations, from which every resample of images is counted.

    Attributes:
      images: their ids.
      tables: size in `AREAS` -> a table for each category.
    """

    images: tuple
    tables: Mapping[str, Sequence[_RankedDetections]]


def keypoint_average_precision(
    annotations: Iterable[Mapping],
    results: Iterable[Mapping],
    *,
    sigmas: Sequence[float] = COCO_SIGMAS,
    max_detections: int = 20,
) -> dict[str, float]:
    """Computes AP and AR over object keypoint similarities of 0.50, 0.55, ... 0.95.

    Annotations of a crowd, without a labelled keypoint, or of another size are ignored: a detection
    that matches one counts neither way. Nor does one that matches nothing and is itself of another
    size. As in COCO's evaluation a field `ignore` of an annotation has no effect.

    Arguments:
      annotations: as in COCO's JSON: `image_id`, `keypoints` (x, y, v of every joint), `bbox`
        (x, y, width, height), `area`; `num_keypoints` (else counted), `category_id` (else 1),
        `iscrowd` (else 0).
      results: as in COCO's results: `image_id`, `keypoints`, `score`; `category_id` (else 1).
      sigmas: of the joints.
      max_detections: of an image; those with the highest scores count.

    Returns:
      `AP, AP50, AP75, APm, APl, AR, AR50, AR75, ARm, ARl`, in the order of COCO's own list; NaN
      (COCO: -1) where no annotation counts.

    Source: Lin et al., "Microsoft COCO", 2014, and https://cocodataset.org/#keypoints-eval.
    """
    matched = match(annotations, results, sigmas=sigmas, max_detections=max_detections)
    return summary(matched)


def match(
    annotations: Iterable[Mapping],
    results: Iterable[Mapping],
    *,
    sigmas: Sequence[float] = COCO_SIGMAS,
    max_detections: int = 20,
) -> Matched:
    """Matches detections to annotations; arguments and errors: `keypoint_average_precision`."""
    truth, guesses = _grouped(annotations, sigmas), _grouped(results, sigmas)
    categories = sorted({category for category, _ in truth})
    images = tuple(sorted({image for _, image in (*truth, *guesses)}))
    tables = {
        area: [_table(truth, guesses, c, images, limits, sigmas, max_detections)
               for c in categories]
        for area, limits in AREAS.items()
    }
    return Matched(images, tables)


def summary(matched: Matched, counts: np.ndarray | None = None) -> dict[str, float]:
    """Computes the ten metrics of `keypoint_average_precision`.

    `counts` `[images]` tells how often each image counts; None: once.
    """
    counts = np.ones(len(matched.images)) if counts is None else counts
    values = {}
    for area, tables in matched.tables.items():
        parts = [part for part in (_curve(table, counts) for table in tables) if part is not None]
        values["AP", area], values["AR", area] = (np.array([p[i] for p in parts]) for i in (0, 1))
    return {m.name: _mean(values[m.kind, m.area], list(m.thresholds)) for m in METRICS}


def bootstrap(matched: Matched, resamples: int = 1000, seed: int = 0) -> dict[str, np.ndarray]:
    """Computes the ten metrics of resamples of whole images, drawn with replacement.

    Returns:
      Name in `METRICS` -> `[resamples]`; NaN where fewer than two images have annotations or
      detections.
    """
    def statistic(counts: np.ndarray) -> np.ndarray:
        return np.array([list(summary(matched, column).values()) for column in counts.T]).T

    images = Groups(np.arange(len(matched.images)), len(matched.images))
    drawn = images.resample(statistic, resamples, seed)
    return {metric.name: values for metric, values in zip(METRICS, drawn, strict=True)}


def _mean(values: np.ndarray, place) -> float:
    """Mean over categories, thresholds and recalls; NaN without a category that counts."""
    return float(np.mean(values[:, place])) if len(values) else math.nan


def _grouped(items: Iterable[Mapping], sigmas) -> dict[tuple, list[dict]]:
    """Items by category and image, with their keypoints as an array `[joints, 3]`."""
    groups = defaultdict(list)
    for item in items:
        keypoints = np.asarray(item["keypoints"], np.float64)
        if keypoints.size != 3 * len(sigmas):
            raise ValueError(
                f"image {item['image_id']}: {keypoints.size} numbers of keypoints, but "
                f"{len(sigmas)} joints need {3 * len(sigmas)}"
            )
        key = (item.get("category_id", 1), item["image_id"])
        groups[key].append({**item, "points": keypoints.reshape(-1, 3)})
    return groups


def _table(truth, guesses, category, images, limits, sigmas, max_detections) -> _RankedDetections:
    parts = [
        _match(truth.get((category, image), []), guesses.get((category, image), []), limits,
               sigmas, max_detections)
        for image in images
    ]
    order = np.argsort(-np.concatenate([part.scores for part in parts]), kind="stable")
    matched = np.concatenate([part.matched for part in parts], axis=1)[:, order]
    ignored = np.concatenate([part.ignored for part in parts], axis=1)[:, order]
    image = np.repeat(np.arange(len(images)), [len(part.scores) for part in parts])[order]
    annotations = np.array([part.annotations for part in parts], np.float64)
    return _RankedDetections(image, matched & ~ignored, ~matched & ~ignored, annotations)


def _curve(table: _RankedDetections, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Precision `[thresholds, recalls]` and recall `[thresholds]`, none if nothing counts."""
    positives = counts @ table.annotations
    if not positives:
        return None
    weight = counts[table.image]
    true = np.cumsum(table.true * weight, axis=1)
    false = np.cumsum(table.false * weight, axis=1)
    recall = true / positives
    precision = true / (false + true + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # Beyond the greatest recall the precision is 0.
    envelope = np.concatenate([envelope, np.zeros((len(envelope), 1))], axis=1)
    curve = np.array([
        line[np.searchsorted(reached, _RECALLS, side="left")]
        for line, reached in zip(envelope, recall, strict=True)
    ])
    return curve, recall[:, -1] if recall.shape[1] else np.zeros(len(THRESHOLDS))


def _match(truth, guesses, limits, sigmas, max_detections) -> _Matches:
    """Greedy matching in one image: the best detection first takes the best annotation left."""
    ignore = np.array([_ignored(item, limits) for item in truth], bool)
    order = np.argsort(ignore, kind="stable")
    truth, ignore = [truth[i] for i in order], ignore[order]
    scores = np.array([guess["score"] for guess in guesses], np.float64)
    best = np.argsort(-scores, kind="stable")[:max_detections]
    guesses, scores = [guesses[i] for i in best], scores[best]
    similarity = _similarity(truth, guesses, sigmas)
    crowd = [bool(item.get("iscrowd", 0)) for item in truth]
    outside = np.array([not limits[0] <= _extent(g) <= limits[1] for g in guesses], bool)
    matched = np.zeros((len(THRESHOLDS), len(guesses)), bool)
    ignored = np.zeros_like(matched)
    for t, threshold in enumerate(THRESHOLDS):
        taken = np.zeros(len(truth), bool)
        for d in range(len(guesses)):
            found = _best(similarity[:, d], min(threshold, 1 - 1e-10), taken, crowd, ignore)
            if found is not None:
                taken[found], matched[t, d], ignored[t, d] = True, True, ignore[found]
        ignored[t] |= ~matched[t] & outside
    return _Matches(scores, matched, ignored, int((~ignore).sum()))


def _best(similarity, least, taken, crowd, ignore) -> int | None:
    """The annotation that a detection takes: a counting one if any is similar enough."""
    found = None
    for g in range(len(similarity)):
        if taken[g] and not crowd[g]:
            continue
        if found is not None and not ignore[found] and ignore[g]:
            break
        if similarity[g] >= least:
            found, least = g, similarity[g]
    return found


def _ignored(item: Mapping, limits) -> bool:
    labelled = item.get("num_keypoints", int((item["points"][:, 2] > 0).sum()))
    marked = item.get("iscrowd", 0) or not labelled
    return bool(marked) or not limits[0] <= item["area"] <= limits[1]


def _extent(guess: Mapping) -> float:
    """Area of the box around all keypoints of a detection."""
    return float(np.prod(np.ptp(guess["points"][:, :2], axis=0)))


def _similarity(truth, guesses, sigmas) -> np.ndarray:
    """Object keypoint similarities `[annotations, detections]`.

    An annotation without keypoints is compared by its box, doubled about its centre: a detection
    inside it is similar to it.
    """
    result = np.zeros((len(truth), len(guesses)))
    if not result.size:
        return result
    points = np.stack([guess["points"][:, :2] for guess in guesses])
    variances = (2 * np.asarray(sigmas)) ** 2
    for g, item in enumerate(truth):
        visible = item["points"][:, 2] > 0
        if visible.any():
            offset = points - item["points"][:, :2]
        else:
            corner, size = np.split(np.asarray(item["bbox"], np.float64), 2)
            low, high = corner - size, corner + 2 * size
            offset = np.maximum(0, low - points) + np.maximum(0, points - high)
            visible = ~visible
        squares = (offset**2).sum(axis=-1)
        error = squares / variances / (item["area"] + np.spacing(1)) / 2
        result[g] = np.exp(-error[:, visible]).mean(axis=1)
    return result
