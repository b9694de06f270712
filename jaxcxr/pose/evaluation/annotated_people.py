"""Holds annotated people, each with its prediction, for the scores of 2D keypoints."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.evaluation.keypoint_ap import Matched

_SIDES = ("left", "right")
_LIMBS = (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))


@dataclasses.dataclass(frozen=True, eq=False)
class AnnotatedPeople:
    """People that are annotated, each with the prediction that is compared with it.

    Attributes:
      form: "coco" or "mpii".
      joints: their names.
      images: `[people]`, names or numbers.
      prediction: `[people, joints, 2]`, pixels as the labels count them; NaN: not found.
      target: `[people, joints, 2]`.
      visible: bool `[people, joints]`, whether it is annotated.
      boxes: `[people]`, PCK's normaliser in pixels, NaN where unknown; none: of nobody.
      heads: PCKh's likewise. areas: `[people]`, OKS's, square pixels; none: no OKS.
      sigmas: OKS's, `[joints]`.
      excluded: joints that PCKh's mean leaves out.
      matched: detections for average precision; none: the form has none.
      counts: what was read, for the result; settings: how, likewise.
      remarks: what the user should know.
    """

    form: str
    joints: tuple[str, ...]
    images: np.ndarray
    prediction: np.ndarray
    target: np.ndarray
    visible: np.ndarray
    boxes: np.ndarray | None = None
    heads: np.ndarray | None = None
    areas: np.ndarray | None = None
    sigmas: tuple[float, ...] = ()
    excluded: tuple[int, ...] = ()
    matched: Matched | None = None
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def limbs(self) -> dict[str, tuple[int, int]]:
        """Name of each limb of PCP -> its two joints; those of which both are in the set."""
        found = {}
        place = {joint: index for index, joint in enumerate(self.joints)}
        for side in _SIDES:
            for upper, lower in _LIMBS:
                first, last = f"{side}_{upper}", f"{side}_{lower}"
                if first in place and last in place:
                    found[f"{side} {upper}-{lower}"] = (place[first], place[last])
        for name, first, last in (("torso", "hip", "thorax"), ("head", "neck", "head")):
            if first in place and last in place:
                found[name] = (place[first], place[last])
        return found

    @property
    def torso(self) -> tuple[int, int] | None:
        """PDJ's two joints, a shoulder and the hip of the other side."""
        shoulder, hip = "left_shoulder", "right_hip"
        if shoulder not in self.joints or hip not in self.joints:
            return None
        return self.joints.index(shoulder), self.joints.index(hip)


def read_json(path: pathlib.Path) -> Any:
    """The content of a JSON file; NaN and infinity, which JSON has not, are refused.

    Raises:
      UserError: absent, or no JSON.
    """
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
    """A flat list of finite numbers as float64.

    Raises:
      UserError: something else; `where` begins the message.
    """
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
