"""Predictions of MPII's people, put to those that are labelled; the forms: `mpii_keypoints`."""

import collections
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.evaluation import mpii_structs as files
from jaxcxr.pose.evaluation.mpii_structs import People, Person
from jaxcxr.pose.formats import mat_files

_SHAPES = ((len(files.JOINTS), 2), (len(files.JOINTS), 3))


def read(path: str | pathlib.Path, people: People) -> np.ndarray:
    """Predicted points `[people, 16, 2]`, NaN where there are none.

    Raises:
      UserError: as `mpii_keypoints.read`.
    """
    path = pathlib.Path(path)
    if path.suffix == ".json":
        entries = files.read_people(path)
        points = [files.pairs(entry["joints"], f"{path}, person {number}")
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
        return _submitted(path, files.structs(content["pred"]), people)
    raise UserError(f"{path}: neither preds nor pred in it.")


def _npy(path: pathlib.Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError, SyntaxError, TypeError) as error:
        raise UserError(f"{path} is damaged or no .npy file ({error}).") from error


def _in_order(path: pathlib.Path, values: Any, people: People) -> np.ndarray:
    if people.names and people.names[0][1]:
        raise UserError(
            f"{path}: does not say whom its points are of, and {people.path} has no order; give "
            "JSON with image and person, or labels in the order of the predictions."
        )
    values = np.asarray(values)
    values = values[None] if values.shape in _SHAPES else values
    if values.ndim == 3 and values.shape[1] == len(files.JOINTS) and values.shape[2] not in (2, 3):
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
    path: pathlib.Path, found: Sequence[tuple[Person, np.ndarray]], people: People
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
    result = np.full((len(people.target), len(files.JOINTS), 2), np.nan)
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


def _submitted(path: pathlib.Path, entries: list, people: People) -> np.ndarray:
    """Predictions in the form that MPII takes, one entry for each image of the published file."""
    if not people.names or not people.names[0][1]:
        raise UserError(f"{path}: pred goes with the published file of labels.")
    found, labelled = [], set(people.names)
    for number, entry in enumerate(entries):
        image = getattr(getattr(entry, "image", None), "name", None)
        if not isinstance(image, str):
            raise UserError(f"{path}, image {number + 1}: without a name; keep image in pred.")
        for rectangle, person in enumerate(files.structs(getattr(entry, "annorect", None))):
            points = files.points_of(f"{path}, image {number + 1}, person {rectangle + 1}", person)
            if points is not None and (image, rectangle + 1) in labelled:
                found.append(((image, rectangle + 1), points))
    if not found:
        raise UserError(f"{path}: predicts nobody of the {len(labelled):,} that are labelled.")
    return _by_name(path, found, people)
