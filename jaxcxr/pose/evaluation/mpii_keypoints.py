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

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.evaluation import keypoint_errors, mpii_results
from jaxcxr.pose.evaluation import mpii_structs as files
from jaxcxr.pose.evaluation.annotated_people import AnnotatedPeople, numbers
from jaxcxr.pose.evaluation.mpii_structs import People
from jaxcxr.pose.formats import mat_files

EXCLUDED = (files.JOINTS.index("hip"), files.JOINTS.index("thorax"))  # of PCKh's mean
SCALE = 200.0  # pixels of a person's height at scale 1
_SHORT = ("rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor", "neck", "head", "rwri",
          "relb", "rsho", "lsho", "lelb", "lwri")


def read(
    labels: str | pathlib.Path,
    predictions: str | pathlib.Path,
    head_boxes: str | None = None,
    origin: int = 1,
    images: frozenset[str] | None = None,
) -> AnnotatedPeople:
    """Labelled people with what is predicted for them.

    Arguments:
      labels, predictions: the files.
      head_boxes: file with the boxes of heads, for labels without.
      origin: number of the first pixel in the predictions, 0 or 1.
      images: names of those to be scored; none: all.

    Raises:
      UserError: a file is in another form or contradicts itself, predictions are of people or
        images that the labels do not have, or of another number than they.
    """
    people = read_labels(labels)
    if head_boxes is not None:
        people = _with_heads(people, pathlib.Path(head_boxes))
    guesses = mpii_results.read(predictions, people)
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
    return AnnotatedPeople(
        "mpii", files.JOINTS, names, guesses[chosen], people.target[chosen],
        people.visible[chosen],
        boxes=None if np.isnan(boxes).all() else boxes,
        heads=None if np.isnan(heads).all() else heads, excluded=EXCLUDED,
        counts={"people": len(names), "people_missed": missed, "images": len(set(names))},
        settings={"origin_of_predictions": origin, "head_factor": keypoint_errors.MPII_HEAD_FACTOR,
                  "excluded_from_pckh": [files.JOINTS[j] for j in EXCLUDED]},
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


def read_labels(path: str | pathlib.Path) -> People:
    """Labelled people of a file of any form.

    Raises:
      UserError: as `read`.
    """
    path = pathlib.Path(path)
    if path.suffix == ".json":
        return _from_json(path)
    content = mat_files.read(path)
    if "RELEASE" in content:
        return _from_release(path, content["RELEASE"])
    if "pos_gt_src" in content:
        return _from_arrays(path, content)
    raise UserError(f"{path}: neither RELEASE nor pos_gt_src in it, which MPII's files have.")


def _from_release(path: pathlib.Path, release: Any) -> People:
    if not hasattr(release, "annolist"):
        raise UserError(f"{path}: RELEASE has no annolist.")
    names, target, visible, heads, boxes = [], [], [], [], []
    for number, entry in enumerate(files.structs(release.annolist)):
        where = f"{path}, image {number + 1}"
        image = getattr(getattr(entry, "image", None), "name", None)
        if not isinstance(image, str):
            raise UserError(f"{where}: without a name.")
        for rectangle, person in enumerate(files.structs(getattr(entry, "annorect", None))):
            points = files.points_of(f"{where}, person {rectangle + 1}", person)
            if points is None:
                continue
            known = np.isfinite(points).all(-1)
            names.append((image, rectangle + 1))
            target.append(np.where(known[:, None], points, 0.0))
            visible.append(known)
            corners = (getattr(person, name, None) for name in ("x1", "y1", "x2", "y2"))
            heads.append(_head(np.array([files.number(corner) for corner in corners])))
            boxes.append(SCALE * files.number(getattr(person, "scale", None)))
    if not names:
        raise UserError(f"{path}: nobody in it has annotated points.")
    if len(set(names)) != len(names):
        raise UserError(f"{path}: an image stands twice in it; remove one.")
    return People(path, tuple(names), np.stack(target), np.stack(visible), np.array(heads),
                  np.array(boxes))


def _head(corners: np.ndarray) -> float:
    """Size of the head, NaN without a box."""
    size = float(keypoint_errors.head_size(corners))
    return size if size > 0 else float("nan")


def _from_arrays(path: pathlib.Path, content: Mapping[str, Any]) -> People:
    shapes = {"pos_gt_src": (len(files.JOINTS), 2), "jnt_missing": (len(files.JOINTS),),
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
    return People(path, (), np.where(visible[..., None], target, 0.0), visible, heads,
                  np.full(len(target), np.nan))


def _from_json(path: pathlib.Path) -> People:
    content = files.read_people(path)
    target, visible, boxes = [], [], []
    for number, entry in enumerate(content):
        where = f"{path}, person {number}"
        shown = numbers(entry.get("joints_vis"), where, "joints_vis", len(files.JOINTS)) > 0
        target.append(files.pairs(entry["joints"], where, shown))
        visible.append(shown)
        scale = entry.get("scale")
        boxes.append(SCALE * (numbers([scale], where, "scale, one number,", 1)[0]
                              if scale is not None else np.nan))
    names = tuple((entry["image"], 0) for entry in content)
    nobody = np.full(len(content), np.nan)
    return People(path, names, np.stack(target), np.stack(visible), nobody, np.array(boxes))


def _with_heads(people: People, path: pathlib.Path) -> People:
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
