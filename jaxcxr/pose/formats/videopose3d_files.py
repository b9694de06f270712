"""Reads VideoPose3D's `.npz` files of 2D keypoints, and names takes of Human3.6M as they do."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcxr.data import object_arrays
from jaxcxr.errors import UserError
from jaxcxr.pose.geometry.cameras import HUMAN36M_INTRINSICS

# Human3.6M numbers actions from 2.
_ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases", "Sitting",
    "SittingDown", "Smoking", "Photo", "Waiting", "Walking", "WalkDog", "WalkTogether",
)
_SOURCE = re.compile(r"s_(\d+)_act_(\d+)_subact_(\d+)_ca_(\d+)$")
# Actions that the original files name differently.
_RENAMED = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog"}


@dataclasses.dataclass(frozen=True)
class Keypoints:
    """Content of a 2D file.

    Attributes:
      sequences: subject -> action -> one `[frames, joints, 2]` in pixels per camera.
      layout: name of the joint set, "" if the file has none.
      joints: number of joints.
    """

    sequences: dict[str, dict[str, list[np.ndarray]]]
    layout: str
    joints: int


def action_name(take: str) -> str:
    """Returns the action of a take: "Walking" for "Walking 1", "WalkDog" for "WalkingDog 2"."""
    first = re.split(r"[ _]", take.strip())[0]
    return _RENAMED.get(first, first)


def take_name(stem: str) -> str:
    """Names a take as 2D files do: "WalkDog 1" for `WalkingDog_1` and `WalkingDog 1`."""
    first, *rest = re.split(r"[ _]", stem.strip())
    return " ".join([_RENAMED.get(first, first), *rest])


def parse_source(name: str) -> tuple[str, str, str] | None:
    """Parses MotionBERT's source such as "s_09_act_05_subact_02_ca_01".

    Returns:
      Subject, take and camera, such as ("S9", "Greeting 2", "54138969"); None for other names.
    """
    found = _SOURCE.search(name)
    if not found:
        return None
    subject, act, take, camera = (int(number) for number in found.groups())
    cameras = tuple(HUMAN36M_INTRINSICS)
    if not (2 <= act < 2 + len(_ACTIONS) and 1 <= camera <= len(cameras)):
        return None
    return f"S{subject}", f"{_ACTIONS[act - 2]} {take}", cameras[camera - 1]


def read_keypoints(path: str | pathlib.Path) -> Keypoints:
    """Reads the keypoints of every subject, take and camera in `data_2d_h36m_NAME.npz`."""
    path = pathlib.Path(path).expanduser()
    content = mapping(entry(path, "positions_2d"), path, "positions_2d")
    metadata = object_arrays.read_npz(path).get("metadata", {})
    metadata = metadata if isinstance(metadata, dict) else {}
    sequences: dict[str, dict[str, list[np.ndarray]]] = {}
    joints = 0
    for subject, takes in content.items():
        for take, cameras in mapping(takes, path, subject).items():
            if not isinstance(cameras, list | tuple | np.ndarray):
                raise UserError(f"{path}: {subject}, {take!r} must have one array per camera.")
            arrays = [object_arrays.as_array(view) for view in cameras]
            for view in arrays:
                joints = joints or (view.shape[1] if view.ndim == 3 else 0)
                if view.ndim != 3 or view.shape[1:] != (joints, 2) or view.dtype.kind != "f":
                    raise UserError(
                        f"{path}: {subject}, {take!r}: an array {view.dtype} {view.shape}; "
                        f"expected real numbers [frames, {joints or 'joints'}, 2]."
                    )
            sequences.setdefault(subject, {})[take_name(take)] = arrays
    return Keypoints(sequences, str(metadata.get("layout_name", "")), joints)


def keypoint_path(
    folder: pathlib.Path, stem: str, keypoints: str, besides: str = ""
) -> pathlib.Path:
    """Finds the file `STEM_KEYPOINTS.npz` in a folder."""
    path = folder / f"{stem}_{keypoints}.npz"
    if not path.is_file():
        there = sorted(found.stem[len(stem) + 1 :] for found in folder.glob(f"{stem}_*.npz"))
        raise UserError(f"no {path}; keypoints there: {', '.join(there) or 'none'}{besides}.")
    return path


def views(
    file: Keypoints, path: pathlib.Path, subject: str, take: str, cameras: Sequence[str],
    frames: int,
) -> list[np.ndarray]:
    """Returns a take's keypoints, float32 `[frames, joints, 2]` in pixels, from each camera."""
    found = file.sequences.get(subject, {}).get(take)
    if found is None or len(found) != len(cameras):
        raise UserError(
            f"{path}: {subject}, {take!r} is absent or lacks some of the {len(cameras)} cameras "
            "of the positions; take both files from one preparation."
        )
    for view, camera in zip(found, cameras, strict=True):
        if len(view) < frames:
            raise UserError(
                f"{path}: {subject}, {take!r}, camera {camera}: {len(view)} frames "
                f"of keypoints for {frames} of positions."
            )
    # Videos run a little longer than the motion capture.
    return [view[:frames].astype(np.float32) for view in found]


def entry(path: pathlib.Path, key: str) -> Any:
    """Reads one entry of an `.npz` file."""
    content = object_arrays.read_npz(path)
    if key not in content:
        raise UserError(f"{path} has no {key!r}; it has {', '.join(content) or 'nothing'}.")
    return content[key]


def mapping(value: Any, path: pathlib.Path, name: str) -> Mapping[str, Any]:
    """Checks that a value is a dict with names as keys."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UserError(f"{path}: {name} is a {type(value).__name__}, not a dict with names.")
    return value
