"""Parts of MPII's files: structs of MATLAB, points of a person, lists of people in JSON."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.evaluation.annotated_people import read_json
from jaxcxr.pose.geometry import joint_sets

Person = tuple[str, int]  # image, and number of the rectangle from 1; 0: unknown

JOINTS = joint_sets.JOINT_SETS["mpii"].joints


@dataclasses.dataclass(frozen=True, eq=False)
class People:
    """Labelled people.

    Attributes:
      path: the file.
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


def structs(value: Any) -> list:
    """A struct, or an array of them, as a list."""
    if isinstance(value, np.ndarray):
        return [item for item in value.ravel() if hasattr(item, "_fieldnames")]
    return [value] if hasattr(value, "_fieldnames") else []


def number(value: Any) -> float:
    """A number, NaN where the field is empty."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def points_of(where: str, person: Any) -> np.ndarray | None:
    """Points `[16, 2]` of a person, NaN where not annotated; none without any."""
    found = structs(getattr(getattr(person, "annopoints", None), "point", None))
    if not found:
        return None
    points = np.full((len(JOINTS), 2), np.nan)
    seen = set()
    for point in found:
        joint, x, y = (number(getattr(point, name, None)) for name in ("id", "x", "y"))
        if joint not in range(len(JOINTS)) or not np.isfinite((x, y)).all():
            raise UserError(f"{where}: a point without id (0 to 15), x and y.")
        if joint in seen:
            raise UserError(f"{where}: point {int(joint)} stands twice.")
        seen.add(joint)
        points[int(joint)] = x, y
    return points


def read_people(path: pathlib.Path) -> list[dict]:
    """People of a JSON file, each with `image` and `joints`.

    Raises:
      UserError: it is in another form.
    """
    content = read_json(path)
    if not isinstance(content, list) or not content:
        raise UserError(f"{path}: no list of people with image and joints; or it is empty.")
    for number, entry in enumerate(content):
        if (not isinstance(entry, dict) or not isinstance(entry.get("image"), str)
                or "joints" not in entry):
            raise UserError(f"{path}, person {number}: without image, a name, and joints.")
    return content


def pairs(values: Any, where: str, wanted: np.ndarray | None = None) -> np.ndarray:
    """Points `[16, 2]`; what is not finite is refused where `wanted`, and else NaN."""
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
