"""COCO's keypoints: annotations and results as JSON, read, checked and paired.

Labels are `{"images": [{id}], "annotations": [{image_id, category_id, keypoints, bbox, area,
iscrowd}], "categories": [{id, name, keypoints}]}`; keypoints are x, y and v of each joint, v 0 not
labelled, 1 labelled but hidden, 2 visible. Predictions are `[{image_id, category_id, keypoints,
score}]`, as COCO's server takes them; their third number is not used.

For PCK, PDJ and PCP each annotated person is compared with one detection of its image: those pairs
whose sum of object keypoint similarities is greatest. A person to whom none is left has no joint
right. Crowds and people without a labelled joint do not count.
"""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from jaxcxr.errors import UserError
from jaxcxr.pose.evaluation import keypoint_ap, keypoint_errors
from jaxcxr.pose.evaluation.keypoint_metrics import People
from jaxcxr.pose.geometry import joint_sets

MAX_DETECTIONS = 20


@dataclasses.dataclass(frozen=True)
class Labels:
    """Annotations of the categories that count; `ignored` are the ids of the other categories."""

    path: pathlib.Path
    images: frozenset
    scored: frozenset
    annotations: list[dict]
    categories: tuple
    ignored: frozenset
    joints: tuple[str, ...]


def read(
    labels: str | pathlib.Path,
    predictions: str | pathlib.Path,
    category: str = "",
    sigmas: Sequence[float] = (),
    images: frozenset[str] | None = None,
) -> People:
    """Reads annotated people with the detections of them.

    Arguments:
      category: id or name of the category to score; "": all that have keypoints.
      sigmas: of the joints; empty: COCO's, of its 17 joints.
      images: ids of those to be scored; none: all.
    """
    truth = read_labels(labels, category)
    if images is not None:
        truth = dataclasses.replace(
            truth, scored=frozenset(image for image in truth.images if str(image) in images),
            annotations=[a for a in truth.annotations if str(a["image_id"]) in images],
        )
    sigmas = tuple(sigmas) or keypoint_errors.COCO_SIGMAS
    if len(sigmas) != len(truth.joints):
        raise UserError(
            f"{truth.path}: {len(truth.joints)} joints, but {len(sigmas)} sigmas; give those of "
            "the joints by --sigmas."
        )
    results, ignored = read_results(predictions, truth)
    remarks = [f"{ignored} results are of categories that are not scored: ignored"] if ignored \
        else []
    return _annotated(truth, results, sigmas, remarks)


def _annotated(
    truth: Labels, results: list[dict], sigmas: tuple[float, ...], remarks: list[str]
) -> People:
    counted = [item for item in truth.annotations if _counts(item)]
    if not counted:
        raise UserError(f"{truth.path}: no annotation has a labelled keypoint; nothing to score.")
    pairs = pair(counted, results, sigmas)
    points = np.stack([item["points"] for item in counted])
    found = [np.full((len(sigmas), 2), np.nan) if guess is None else guess["points"][:, :2]
             for guess in pairs]
    boxes = np.stack([item["bbox"] for item in counted])
    annotated = {item["image_id"] for item in counted}
    empty = annotated - {item["image_id"] for item in results}
    if empty:
        remarks = [f"{len(empty)} of {len(annotated)} images with people have no detection: all "
                   "their people are missed", *remarks]
    return People(
        "coco", truth.joints, np.array([str(item["image_id"]) for item in counted]),
        np.stack(found), points[..., :2], points[..., 2] > 0,
        boxes=np.maximum(boxes[:, 2], boxes[:, 3]),
        areas=np.array([item["area"] for item in counted]), sigmas=sigmas,
        matched=keypoint_ap.match(
            truth.annotations, results, sigmas=sigmas, max_detections=MAX_DETECTIONS
        ),
        counts={
            "images": len(truth.scored), "people": len(counted), "detections": len(results),
            "people_missed": sum(found is None for found in pairs),
            "annotations_ignored": len(truth.annotations) - len(counted),
        },
        settings={"categories": list(truth.categories), "sigmas": list(sigmas),
                  "max_detections": MAX_DETECTIONS},
        remarks=tuple(remarks),
    )


def _counts(item: Mapping) -> bool:
    return not item["iscrowd"] and bool((item["points"][:, 2] > 0).any())


def read_labels(path: str | pathlib.Path, category: str = "") -> Labels:
    """Reads and checks annotations; arguments as in `read`."""
    path = pathlib.Path(path)
    content = read_json(path)
    entries, people = (content.get(name) if isinstance(content, dict) else None
                       for name in ("images", "annotations"))
    if not isinstance(entries, list) or not isinstance(people, list):
        raise UserError(f"{path}: no lists images and annotations, which COCO's labels have.")
    images = _ids(path, "image", entries)
    categories = content.get("categories", [{"id": 1, "name": "person"}])
    if not isinstance(categories, list) or not categories:
        raise UserError(f"{path}: categories is no list of categories.")
    known = _ids(path, "category", categories)
    chosen = _chosen(path, categories, category)
    _ids(path, "annotation", [entry for entry in people
                              if not isinstance(entry, dict) or "id" in entry])
    joints = _joints(path, [c for c in categories if c["id"] in chosen], people)
    annotations = []
    for number, entry in enumerate(people):
        where = f"{path}, annotation {number}"
        item = _annotation(where, entry, images, known, len(joints), chosen)
        if item is not None:
            annotations.append(item)
    return Labels(path, images, images, annotations, chosen, known - set(chosen), joints)


def _ids(path, what: str, entries: list) -> frozenset:
    seen: set[int | str] = set()
    for number, entry in enumerate(entries):
        name = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(name, (int, str)) or isinstance(name, bool):
            raise UserError(f"{path}, {what} {number}: without an id, a number or a name.")
        if name in seen:
            raise UserError(f"{path}, {what} {number}: the id {name!r} stands twice; remove one.")
        if seen and type(name) is not type(next(iter(seen))):
            raise UserError(f"{path}, {what} {number}: the id {name!r}, where others are "
                            f"{'names' if type(name) is int else 'numbers'}.")
        seen.add(name)
    return frozenset(seen)


def _chosen(path, categories: list[dict], wanted: str) -> tuple:
    if not wanted:
        with_points = [c["id"] for c in categories if c.get("keypoints")]
        return tuple(with_points or (c["id"] for c in categories))
    found = [c["id"] for c in categories if wanted in (str(c["id"]), c.get("name"))]
    if len(found) != 1:
        names = ", ".join(f"{c['id']} {c.get('name', '')}".strip() for c in categories)
        raise UserError(f"{path}: --category {wanted} is not one of its categories: {names}.")
    return tuple(found)


def _joints(path, categories: list[dict], entries: list) -> tuple[str, ...]:
    lists = [c["keypoints"] for c in categories if c.get("keypoints")]
    named = [isinstance(names, list) and all(isinstance(n, str) for n in names) for names in lists]
    if not all(named) or any(names != lists[0] for names in lists):
        raise UserError(
            f"{path}: its categories name no keypoints, or each others; choose one by --category."
        )
    if lists:
        return tuple(lists[0])
    counts = {len(entry["keypoints"]) // 3 for entry in entries
              if isinstance(entry, dict) and isinstance(entry.get("keypoints"), list)}
    if len(counts) > 1:
        raise UserError(f"{path}: annotations have {min(counts)} and {max(counts)} keypoints.")
    count = counts.pop() if counts else len(keypoint_errors.COCO_SIGMAS)
    coco = joint_sets.JOINT_SETS["coco"].joints
    return coco if count == len(coco) else tuple(f"joint {number}" for number in range(count))


def _annotation(where: str, entry, images, known, joints: int, chosen) -> dict | None:
    """A checked annotation; none if its category does not count."""
    if not isinstance(entry, dict) or "image_id" not in entry:
        raise UserError(f"{where}: no image_id.")
    if not _in(entry["image_id"], images):
        raise UserError(f"{where}: no image has the id {entry['image_id']!r}.")
    category = entry.get("category_id", chosen[0])
    if not _in(category, known):
        raise UserError(f"{where}: no category has the id {category!r}.")
    if category not in chosen:
        return None
    if "keypoints" not in entry:
        raise UserError(f"{where}: no keypoints; give the file person_keypoints_*.json.")
    points = numbers(entry["keypoints"], where, "keypoints", 3 * joints).reshape(-1, 3)
    if not np.isin(points[:, 2], (0, 1, 2)).all():
        raise UserError(f"{where}: v of a keypoint is not 0, 1 or 2.")
    area = float(numbers([entry.get("area")], where, "area, one number,", 1)[0])
    box = numbers(entry.get("bbox"), where, "bbox", 4)
    if area < 0 or (box[2:] < 0).any():
        raise UserError(f"{where}: a negative area or size of its bbox.")
    iscrowd = entry.get("iscrowd", 0)
    if iscrowd not in (0, 1):
        raise UserError(f"{where}: iscrowd is {iscrowd!r}, not 0 or 1.")
    labelled = int((points[:, 2] > 0).sum())
    said = entry.get("num_keypoints", labelled)
    if bool(said) != bool(labelled):
        raise UserError(f"{where}: num_keypoints is {said!r}, but {labelled} have v above 0.")
    return {"image_id": entry["image_id"], "category_id": category, "points": points,
            "keypoints": points, "area": area, "bbox": box, "iscrowd": int(iscrowd)}


def _in(value, known: frozenset) -> bool:
    return type(value) in (int, str) and value in known


def read_results(path: str | pathlib.Path, labels: Labels) -> tuple[list[dict], int]:
    """Reads and checks results, and counts those left out for their category."""
    path = pathlib.Path(path)
    content = read_json(path)
    if not isinstance(content, list):
        raise UserError(f"{path}: no list of results with image_id, keypoints and score.")
    results, ignored = [], 0
    for number, entry in enumerate(content):
        where = f"{path}, result {number}"
        if not isinstance(entry, dict) or not {"image_id", "keypoints", "score"} <= entry.keys():
            raise UserError(f"{where}: a result needs image_id, keypoints and score.")
        if not _in(entry["image_id"], labels.images):
            raise UserError(
                f"{where}: {labels.path} has no image with the id {entry['image_id']!r}; give the "
                "results of the same images."
            )
        category = entry.get("category_id", labels.categories[0])
        if category not in labels.categories:
            if not _in(category, labels.ignored):
                raise UserError(f"{where}: no category has the id {category!r}.")
            ignored += 1
            continue
        if entry["image_id"] not in labels.scored:
            continue
        points = numbers(entry["keypoints"], where, "keypoints", 3 * len(labels.joints))
        score = float(numbers([entry["score"]], where, "score, one number,", 1)[0])
        points = points.reshape(-1, 3)
        results.append({"image_id": entry["image_id"], "category_id": category, "score": score,
                        "points": points, "keypoints": points})
    return results, ignored


def pair(
    annotations: Sequence[Mapping], results: Sequence[Mapping], sigmas: Sequence[float]
) -> list[Mapping | None]:
    """Pairs each annotation with its detection, see the module; None where none is left."""
    by_image: dict = collections.defaultdict(lambda: ([], []))
    for number, item in enumerate(annotations):
        by_image[item["image_id"], item["category_id"]][0].append(number)
    for item in results:
        by_image[item["image_id"], item["category_id"]][1].append(item)
    found: list[Mapping | None] = [None] * len(annotations)
    for chosen, guesses in by_image.values():
        guesses = sorted(guesses, key=lambda guess: -guess["score"])[:MAX_DETECTIONS]
        if not chosen or not guesses:
            continue
        truth = np.stack([annotations[number]["points"] for number in chosen])[:, None]
        points = np.stack([guess["points"] for guess in guesses])[None, :, :, :2]
        truth, points = np.broadcast_arrays(truth, np.pad(points, ((0, 0),) * 3 + ((0, 1),)))
        areas = np.array([annotations[number]["area"] for number in chosen])[:, None]
        similar = keypoint_errors.oks(
            points[..., :2], truth[..., :2], np.broadcast_to(areas, truth.shape[:2]),
            truth[..., 2] > 0, sigmas=sigmas,
        )
        for row, column in zip(*linear_sum_assignment(similar, maximize=True), strict=True):
            found[chosen[row]] = guesses[column]
    return found


def read_json(path: pathlib.Path) -> Any:
    """Reads a JSON file; refuses NaN and infinity, which JSON does not have."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON file ({error}); write it anew.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def numbers(values: Any, where: str, what: str, count: int | None = None) -> np.ndarray:
    """Converts a flat list of finite numbers to float64, or refuses it."""
    flat = isinstance(values, Sequence) and not isinstance(values, str)
    if flat and all(type(value) in (int, float) for value in values):
        try:
            found = np.array(values, np.float64)
        except OverflowError:
            found = np.array([np.inf])
        if np.isfinite(found).all() and count in (None, len(found)):
            return found
    wanted = "finite numbers" if count is None else f"{count} finite numbers"
    raise UserError(f"{where}: {what} must be a list of {wanted}.")
