"""MPII's keypoints: labels and predictions in each form in which they go around.

Labels:
  - `mpii_human_pose_v1_u12_1.mat`, as published: people by image, with boxes of their heads;
  - `.mat` with `pos_gt_src`, `jnt_missing` and `headboxes_src`, the validation set of the
    evaluation of many repositories;
  - JSON of HRNet, `[{image, joints, joints_vis, center, scale}]`. It has no boxes of heads, which
    PCKh is measured by; `--head-boxes` names the file above that has them, in the same order.

Predictions:
  - JSON, `[{image, joints, person}]`, joints 16 pairs x, y; `person` is the number of the
    rectangle in the published file, from 1, and may be absent where the image has one;
  - `.mat` with `preds`, or `.npy`: `[people, 16, 2 or 3]` in the order of the labels;
  - `.mat` with `pred`, as MPII takes it: one entry for each image of the published file.

A point that is not finite was not found and counts as wrong. Points count from 1, in labels and in
predictions; `--origin 0` says that those of the predictions count from 0. The head's size is 0.6
times the diagonal of its box. A joint counts that is annotated, hidden or not.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.evaluation import keypoint_errors
from jaxcxr.pose.evaluation.coco_keypoints import numbers, read_json
from jaxcxr.pose.evaluation.keypoint_metrics import People
from jaxcxr.pose.formats import mat_files
from jaxcxr.pose.geometry import joint_sets

Person = tuple[str, int]  # image, and number of the rectangle from 1; 0: unknown

JOINTS = joint_sets.JOINT_SETS["mpii"].joints
_SHAPES = ((len(JOINTS), 2), (len(JOINTS), 3))
EXCLUDED = (JOINTS.index("hip"), JOINTS.index("thorax"))  # of PCKh's mean
SCALE = 200.0  # pixels of a person's height at scale 1
_SHORT = ("rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor", "neck", "head", "rwri",
          "relb", "rsho", "lsho", "lelb", "lwri")


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """Labelled people of a file.

    Attributes:
      names: image and rectangle of each; empty: the file names none.
      target: `[people, 16, 2]`, counted from 1. visible: bool `[people, 16]`, annotated.
      heads: `[people]`, size of the head in pixels, NaN unknown. boxes: height of the person.
    """

    path: pathlib.Path
    names: tuple[Person, ...]
    target: np.ndarray
    visible: np.ndarray
    heads: np.ndarray
    boxes: np.ndarray


def read(
    labels: str | pathlib.Path,
    predictions: str | pathlib.Path,
    head_boxes: str | None = None,
    origin: int = 1,
    images: frozenset[str] | None = None,
) -> People:
    """Reads labelled people with their predictions.

    Arguments:
      head_boxes: file with the boxes of heads, for labels without.
      origin: number of the first pixel in the predictions, 0 or 1.
      images: names of those to be scored; none: all.
    """
    people = read_labels(labels)
    if head_boxes is not None:
        people = _with_heads(people, pathlib.Path(head_boxes))
    guesses = read_predictions(predictions, people)
    guesses = guesses + (1 - origin)
    chosen = np.ones(len(people.target), bool)
    if images is not None:
        if not people.names:
            raise UserError(f"{people.path}: names no images, so that a list of them is no use.")
        chosen = np.array([image in images for image, _ in people.names])
        if not chosen.any():
            raise UserError(f"{people.path}: none of its images is in the list.")
    missed = int(np.isnan(guesses[chosen]).all((1, 2)).sum())
    names = [image for image, _ in people.names] or np.arange(len(people.target))
    names = np.asarray(names).astype(str)[chosen]
    heads, boxes = people.heads[chosen], people.boxes[chosen]
    return People(
        "mpii", JOINTS, names, guesses[chosen], people.target[chosen],
        people.visible[chosen],
        boxes=None if np.isnan(boxes).all() else boxes,
        heads=None if np.isnan(heads).all() else heads, excluded=EXCLUDED,
        counts={"people": len(names), "people_missed": missed, "images": len(set(names))},
        settings={"origin_of_predictions": origin, "head_factor": keypoint_errors.MPII_HEAD_FACTOR,
                  "excluded_from_pckh": [JOINTS[j] for j in EXCLUDED]},
        remarks=tuple(_remarks(heads, missed, bool(people.names))),
    )


def _remarks(heads: np.ndarray, missed: int, named: bool) -> Iterator[str]:
    if missed:
        yield f"{missed:,} of {len(heads):,} people are not predicted: missed"
    lacking = int(np.isnan(heads).sum())
    if lacking:
        yield (f"{lacking:,} people have no box of the head and do not count in PCKh"
               + ("; give --head-boxes FILE" if lacking == len(heads) else ""))
    if not named:
        yield ("The labels name no images: each person counts as one, and the intervals are too "
               "narrow if some share an image.")


def read_labels(path: str | pathlib.Path) -> Labels:
    """Reads the labelled people of a file of any form."""
    path = pathlib.Path(path)
    if path.suffix == ".json":
        return _from_json(path)
    content = mat_files.read(path)
    if "RELEASE" in content:
        return _from_release(path, content["RELEASE"])
    if "pos_gt_src" in content:
        return _from_arrays(path, content)
    raise UserError(f"{path}: neither RELEASE nor pos_gt_src in it, which MPII's files have.")


def _from_release(path: pathlib.Path, release: Any) -> Labels:
    if not hasattr(release, "annolist"):
        raise UserError(f"{path}: RELEASE has no annolist.")
    names, target, visible, heads, boxes = [], [], [], [], []
    for number, entry in enumerate(_structs(release.annolist)):
        where = f"{path}, image {number + 1}"
        image = getattr(getattr(entry, "image", None), "name", None)
        if not isinstance(image, str):
            raise UserError(f"{where}: without a name.")
        for rectangle, person in enumerate(_structs(getattr(entry, "annorect", None))):
            points = _points_of(f"{where}, person {rectangle + 1}", person)
            if points is None:
                continue
            known = np.isfinite(points).all(-1)
            names.append((image, rectangle + 1))
            target.append(np.where(known[:, None], points, 0.0))
            visible.append(known)
            corners = (getattr(person, name, None) for name in ("x1", "y1", "x2", "y2"))
            heads.append(_head(np.array([_number(corner) for corner in corners])))
            boxes.append(SCALE * _number(getattr(person, "scale", None)))
    if not names:
        raise UserError(f"{path}: nobody in it has annotated points.")
    if len(set(names)) != len(names):
        raise UserError(f"{path}: an image stands twice in it; remove one.")
    return Labels(path, tuple(names), np.stack(target), np.stack(visible), np.array(heads),
                  np.array(boxes))


def _head(corners: np.ndarray) -> float:
    """Size of the head, NaN without a box."""
    size = float(keypoint_errors.head_size(corners))
    return size if size > 0 else float("nan")


def _from_arrays(path: pathlib.Path, content: Mapping[str, Any]) -> Labels:
    shapes = {"pos_gt_src": (len(JOINTS), 2), "jnt_missing": (len(JOINTS),),
              "headboxes_src": (2, 2)}
    arrays = {}
    for name, shape in shapes.items():
        values = np.asarray(content.get(name, []))
        values = values[..., None] if values.shape == shape else values  # one person, squeezed
        if values.shape[:-1] != shape or values.dtype.kind not in "fiub" or not values.shape[-1]:
            raise UserError(
                f"{path}: {name} has the shape {list(values.shape)}, not "
                f"{[*shape, 'people']} of numbers."
            )
        arrays[name] = np.moveaxis(values.astype(np.float64), -1, 0)
    target, missing, boxes = arrays.values()
    if not len(target) == len(missing) == len(boxes):
        raise UserError(f"{path}: its arrays are of {len(target)}, {len(missing)} and "
                        f"{len(boxes)} people.")
    said = tuple(str(name) for name in np.ravel(content.get("dataset_joints", _SHORT)))
    if said != _SHORT:
        raise UserError(f"{path}: its joints are {', '.join(said)}; {', '.join(_SHORT)} are read.")
    visible = missing == 0
    if not np.isfinite(target[visible]).all():
        raise UserError(f"{path}: a point that is not missing is not finite.")
    heads = np.array([_head(box.ravel()) for box in boxes])
    return Labels(path, (), np.where(visible[..., None], target, 0.0), visible, heads,
                  np.full(len(target), np.nan))


def _from_json(path: pathlib.Path) -> Labels:
    content = _read_people(path)
    target, visible, boxes = [], [], []
    for number, entry in enumerate(content):
        where = f"{path}, person {number}"
        shown = numbers(entry.get("joints_vis"), where, "joints_vis", len(JOINTS)) > 0
        target.append(_pairs(entry["joints"], where, shown))
        visible.append(shown)
        scale = entry.get("scale")
        boxes.append(SCALE * (numbers([scale], where, "scale, one number,", 1)[0]
                              if scale is not None else np.nan))
    names = tuple((entry["image"], 0) for entry in content)
    nobody = np.full(len(content), np.nan)
    return Labels(path, names, np.stack(target), np.stack(visible), nobody, np.array(boxes))


def _with_heads(people: Labels, path: pathlib.Path) -> Labels:
    """The people with the sizes of their heads from another file."""
    other = read_labels(path)
    if len(other.target) != len(people.target):
        raise UserError(
            f"{path}: boxes of {len(other.target):,} heads, but {people.path} has "
            f"{len(people.target):,} people; give the file of the same people."
        )
    both = people.visible & other.visible
    apart = np.linalg.norm(people.target - other.target, axis=-1)[both]
    if len(apart) and not np.median(apart) <= 2:
        raise UserError(
            f"{path}: its people are not in the order of {people.path}; points differ by "
            f"{np.median(apart):.0f} pixels."
        )
    return dataclasses.replace(people, heads=other.heads)


def read_predictions(path: str | pathlib.Path, people: Labels) -> np.ndarray:
    """Reads predicted points `[people, 16, 2]`, NaN where there are none."""
    path = pathlib.Path(path)
    if path.suffix == ".json":
        entries = _read_people(path)
        points = [_pairs(entry["joints"], f"{path}, person {number}")
                  for number, entry in enumerate(entries)]
        numbered = [_rectangle(entry, f"{path}, person {number}")
                    for number, entry in enumerate(entries)]
        return _by_name(path, list(zip(numbered, points, strict=True)), people)
    if path.suffix == ".npy":
        return _in_order(path, _npy(path), people)
    content = mat_files.read(path)
    if "preds" in content:
        return _in_order(path, content["preds"], people)
    if "pred" in content:
        return _submitted(path, _structs(content["pred"]), people)
    raise UserError(f"{path}: neither preds nor pred in it.")


def _npy(path: pathlib.Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError, SyntaxError, TypeError) as error:
        raise UserError(f"{path} is damaged or no .npy file ({error}).") from error


def _in_order(path: pathlib.Path, values: Any, people: Labels) -> np.ndarray:
    if people.names and people.names[0][1]:
        raise UserError(
            f"{path}: does not say whom its points are of, and {people.path} has no order; give "
            "JSON with image and person, or labels in the order of the predictions."
        )
    values = np.asarray(values)
    values = values[None] if values.shape in _SHAPES else values
    if values.ndim == 3 and values.shape[1] == len(JOINTS) and values.shape[2] not in (2, 3):
        values = values.transpose(2, 1, 0)  # [2, 16, people]
    fits = values.ndim == 3 and values.shape[1:] in _SHAPES
    if not fits or values.dtype.kind not in "fiu":
        raise UserError(
            f"{path}: predictions {values.dtype} {list(values.shape)} are not [people, 16, 2]."
        )
    if len(values) != len(people.target):
        raise UserError(
            f"{path}: {len(values):,} people, but {people.path} has {len(people.target):,}."
        )
    points = values[..., :2].astype(np.float64)
    return np.where(np.isfinite(points).all(-1, keepdims=True), points, np.nan)


def _rectangle(entry: Mapping, where: str) -> Person:
    number = entry.get("person", 0)
    if type(number) is not int or number < 0:
        raise UserError(f"{where}: person is {number!r}; it is a number from 1.")
    return entry["image"], number


def _by_name(
    path: pathlib.Path, found: Sequence[tuple[Person, np.ndarray]], people: Labels
) -> np.ndarray:
    """Predictions put to the labelled people by image and rectangle, or in order."""
    images = [image for image, _ in people.names]
    if [name[0] for name, _ in found] == images and not any(name[1] for name, _ in found):
        return np.stack([points for _, points in found])
    if not images:
        raise UserError(f"{path}: names images, but {people.path} does not; give an array.")
    many = collections.Counter(images)
    alone = {image: i for i, image in enumerate(images) if many[image] == 1}
    place = {name: i for i, name in enumerate(people.names) if name[1]}
    result = np.full((len(people.target), len(JOINTS), 2), np.nan)
    taken = set()
    for name, points in found:
        index = place.get(name) if name[1] else alone.get(name[0])
        if index is None:
            said = f"person {name[1]} of {name[0]}" if name[1] else name[0]
            hint = "; say person" if many[name[0]] > 1 and not name[1] else ""
            raise UserError(f"{path}: {said} is not one labelled person of {people.path}{hint}.")
        if index in taken:
            raise UserError(f"{path}: {name[0]}, person {name[1] or 1}, is predicted twice.")
        taken.add(index)
        result[index] = points
    return result


def _submitted(path: pathlib.Path, entries: list, people: Labels) -> np.ndarray:
    """Predictions in the form that MPII takes, one entry for each image of the published file."""
    if not people.names or not people.names[0][1]:
        raise UserError(f"{path}: pred goes with the published file of labels.")
    found, labelled = [], set(people.names)
    for number, entry in enumerate(entries):
        image = getattr(getattr(entry, "image", None), "name", None)
        if not isinstance(image, str):
            raise UserError(f"{path}, image {number + 1}: without a name; keep image in pred.")
        for rectangle, person in enumerate(_structs(getattr(entry, "annorect", None))):
            points = _points_of(f"{path}, image {number + 1}, person {rectangle + 1}", person)
            if points is not None and (image, rectangle + 1) in labelled:
                found.append(((image, rectangle + 1), points))
    if not found:
        raise UserError(f"{path}: predicts nobody of the {len(labelled):,} that are labelled.")
    return _by_name(path, found, people)


def _structs(value: Any) -> list:
    """A struct, or an array of them, as a list."""
    if isinstance(value, np.ndarray):
        return [item for item in value.ravel() if hasattr(item, "_fieldnames")]
    return [value] if hasattr(value, "_fieldnames") else []


def _number(value: Any) -> float:
    """A number, NaN where the field is empty."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _points_of(where: str, person: Any) -> np.ndarray | None:
    """Points `[16, 2]` of a person, NaN where not annotated; none without any."""
    found = _structs(getattr(getattr(person, "annopoints", None), "point", None))
    if not found:
        return None
    points = np.full((len(JOINTS), 2), np.nan)
    seen = set()
    for point in found:
        joint, x, y = (_number(getattr(point, name, None)) for name in ("id", "x", "y"))
        if joint not in range(len(JOINTS)) or not np.isfinite((x, y)).all():
            raise UserError(f"{where}: a point without id (0 to 15), x and y.")
        if joint in seen:
            raise UserError(f"{where}: point {int(joint)} stands twice.")
        seen.add(joint)
        points[int(joint)] = x, y
    return points


def _read_people(path: pathlib.Path) -> list[dict]:
    """People of a JSON file, each with `image` and `joints`."""
    content = read_json(path)
    if not isinstance(content, list) or not content:
        raise UserError(f"{path}: no list of people with image and joints; or it is empty.")
    for number, entry in enumerate(content):
        if (not isinstance(entry, dict) or not isinstance(entry.get("image"), str)
                or "joints" not in entry):
            raise UserError(f"{path}, person {number}: without image, a name, and joints.")
    return content


def _pairs(values: Any, where: str, wanted: np.ndarray | None = None) -> np.ndarray:
    """Converts to points `[16, 2]`; refuses one that is not finite where `wanted`, else NaN."""
    try:
        points = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where}: joints are no list of pairs of numbers.") from error
    if points.shape not in ((len(JOINTS), 2), (len(JOINTS), 3)):
        raise UserError(
            f"{where}: joints have the shape {list(points.shape)}; give {len(JOINTS)} pairs."
        )
    points = points[:, :2]
    known = np.asarray(np.isfinite(points).all(-1))
    if wanted is not None and not known[wanted].all():
        raise UserError(f"{where}: a joint that is annotated is not finite.")
    return np.where(known[:, None], points, 0.0 if wanted is not None else np.nan)
