"""The files in which Human3.6M goes around: 3D positions in three forms, 2D keypoints in one.

Positions: VideoPose3D's `data_3d_h36m.npz`, the data set's own CDF files, or the h5 files of
Martinez et al. 2017. Keypoints: VideoPose3D's `data_2d_h36m_*.npz`.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcxr.data import object_arrays
from jaxcxr.errors import UserError

ALL_JOINTS = 32
# The joints that VideoPose3D keeps: the others are ends of feet and hands, and copies.
KEPT = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)

# Names that differ between the original files and all that came after.
_RENAMED = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog"}
# The video of this one is damaged, so that no 2D file has it.
_LEFT_OUT = ("S11", "Directions")

Positions = dict[str, dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Keypoints:
    """A 2D file.

    Attributes:
      sequences: subject -> action -> one `[frames, joints, 2]` in pixels for each camera.
      layout: name of the joint set, "" where the file does not say.
      joints: how many.
    """

    sequences: dict[str, dict[str, list[np.ndarray]]]
    layout: str
    joints: int


def action_name(take: str) -> str:
    """The action of a take: "Walking 1" and "WalkingDog 2" are "Walking" and "WalkDog"."""
    first = re.split(r"[ _]", take.strip())[0]
    return _RENAMED.get(first, first)


def _take_name(stem: str) -> str:
    """The name that 2D files use: `WalkingDog_1`, `WalkingDog 1` are "WalkDog 1"."""
    first, *rest = re.split(r"[ _]", stem.strip())
    return " ".join([_RENAMED.get(first, first), *rest])


def read_positions(raw: str | pathlib.Path) -> Positions:
    """World positions of every subject and take; S11's "Directions" is left out.

    Arguments:
      raw: `data_3d_h36m.npz`, or a folder that holds it, or CDF files
        `S1/MyPoseFeatures/D3_Positions/*.cdf`, or h5 files `S1/MyPoses/3D_positions/*.h5`.

    Returns:
      subject -> take -> float32 `[frames, 17, 3]` in metres, z up.

    Raises:
      UserError: nothing there, a damaged file, or arrays of another shape.
    """
    raw = pathlib.Path(raw).expanduser()
    if raw.is_dir() and (raw / "data_3d_h36m.npz").is_file():
        raw = raw / "data_3d_h36m.npz"
    if raw.is_file():
        found = _from_npz(raw)
    else:
        found = _from_folder(raw)
    found.get(_LEFT_OUT[0], {}).pop(_LEFT_OUT[1], None)
    return found


def _from_npz(path: pathlib.Path) -> Positions:
    content = entry(path, "positions_3d")
    found: Positions = {}
    for subject, takes in mapping(content, path, "positions_3d").items():
        for take, values in mapping(takes, path, subject).items():
            where = f"{path}: {subject}, {take!r}"
            kept = _kept(object_arrays.as_array(values), where, 1.0)
            found.setdefault(subject, {})[_take_name(take)] = kept
    return found


def _from_folder(raw: pathlib.Path) -> Positions:
    found: Positions = {}
    for suffix, read in (("cdf", _read_cdf), ("h5", _read_h5)):
        for path in sorted(raw.rglob(f"*.{suffix}")):
            subject = next((p for p in reversed(path.parts) if re.fullmatch(r"S\d+", p)), "")
            folder = path.parent.name.lower()
            if subject and folder in ("d3_positions", "3d_positions"):
                kept = _kept(_opened(read, path), str(path), 1000.0)
                found.setdefault(subject, {})[_take_name(path.stem)] = kept
        if found:
            return found
    raise UserError(
        f"no Human3.6M positions in {raw}; give data_3d_h36m.npz, or the folder with "
        "S1/MyPoseFeatures/D3_Positions/*.cdf or S1/MyPoses/3D_positions/*.h5."
    )


def _opened(read: Callable[[pathlib.Path], np.ndarray], path: pathlib.Path) -> np.ndarray:
    try:
        return read(path)
    except ImportError as error:
        raise UserError(
            f"{path} needs {error.name}; run: pip install 'jaxcxr[human36m]'"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError) as error:
        raise UserError(f"{path} is damaged or no such file ({error}); fetch it anew.") from error


def _read_cdf(path: pathlib.Path) -> np.ndarray:
    import cdflib

    return np.asarray(cdflib.CDF(str(path)).varget("Pose")).reshape(-1, ALL_JOINTS, 3)


def _read_h5(path: pathlib.Path) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
        return np.asarray(file["3D_positions"]).reshape(ALL_JOINTS, 3, -1).transpose(2, 0, 1)


def _kept(values: np.ndarray, where: str, units_per_metre: float) -> np.ndarray:
    """The 17 joints in metres."""
    shaped = values.ndim == 3 and values.shape[1:] in ((ALL_JOINTS, 3), (len(KEPT), 3))
    if not shaped or values.dtype.kind != "f":
        raise UserError(
            f"{where}: an array {values.dtype} {values.shape}; expected real numbers "
            f"[frames, {ALL_JOINTS}, 3]."
        )
    if not len(values) or not np.isfinite(values).all():
        raise UserError(f"{where}: no frames, or positions that are not finite; fetch it anew.")
    values = values[:, KEPT] if values.shape[1] == ALL_JOINTS else values
    positions = (values / units_per_metre).astype(np.float32)
    stature = np.linalg.norm(positions[:, 10] - positions[:, 3], axis=-1).max()
    if not 0.5 < stature < 3:
        raise UserError(
            f"{where}: head and foot are {stature:.3g} m apart; the file is not in the unit "
            f"of its kind ({'metres' if units_per_metre == 1 else 'millimetres'})."
        )
    return positions


def read_keypoints(path: str | pathlib.Path) -> Keypoints:
    """2D keypoints of every subject, take and camera.

    Arguments:
      path: `data_2d_h36m_NAME.npz`.

    Raises:
      UserError: absent, damaged, or of another form.
    """
    path = pathlib.Path(path).expanduser()
    content = mapping(entry(path, "positions_2d"), path, "positions_2d")
    metadata = object_arrays.read_npz(path).get("metadata", {})
    metadata = metadata if isinstance(metadata, dict) else {}
    sequences: dict[str, dict[str, list[np.ndarray]]] = {}
    joints = 0
    for subject, takes in content.items():
        for take, cameras in mapping(takes, path, subject).items():
            if not isinstance(cameras, list | tuple | np.ndarray):
                raise UserError(f"{path}: {subject}, {take!r} is not one array for each camera.")
            arrays = [object_arrays.as_array(view) for view in cameras]
            for view in arrays:
                joints = joints or (view.shape[1] if view.ndim == 3 else 0)
                if view.ndim != 3 or view.shape[1:] != (joints, 2) or view.dtype.kind != "f":
                    raise UserError(
                        f"{path}: {subject}, {take!r}: an array {view.dtype} {view.shape}; "
                        f"expected real numbers [frames, {joints or 'joints'}, 2]."
                    )
            sequences.setdefault(subject, {})[_take_name(take)] = arrays
    return Keypoints(sequences, str(metadata.get("layout_name", "")), joints)


def keypoint_path(
    folder: pathlib.Path, stem: str, keypoints: str, besides: str = ""
) -> pathlib.Path:
    """The file `STEM_KEYPOINTS.npz` in a folder.

    Raises:
      UserError: it is not there; the message lists those that are, and what `besides` says.
    """
    path = folder / f"{stem}_{keypoints}.npz"
    if not path.is_file():
        there = sorted(found.stem[len(stem) + 1 :] for found in folder.glob(f"{stem}_*.npz"))
        raise UserError(f"no {path}; keypoints there: {', '.join(there) or 'none'}{besides}.")
    return path


def views(
    file: Keypoints, path: pathlib.Path, subject: str, take: str, cameras: Sequence[str],
    frames: int,
) -> list[np.ndarray]:
    """A take as each camera sees it, cut to the length of its positions.

    Arguments:
      file: the 2D file.
      path: its path.
      subject, take: of the positions.
      cameras: their names.
      frames: of the positions.

    Returns:
      float32 `[frames, joints, 2]` in pixels for each camera.

    Raises:
      UserError: the take is absent, has another number of cameras, or is shorter.
    """
    found = file.sequences.get(subject, {}).get(take)
    if found is None or len(found) != len(cameras):
        raise UserError(
            f"{path}: {subject}, {take!r} is absent or has not {len(cameras)} cameras, "
            "which the positions have; take both files from one preparation."
        )
    for view, camera in zip(found, cameras, strict=True):
        if len(view) < frames:
            raise UserError(
                f"{path}: {subject}, {take!r}, camera {camera}: {len(view)} frames "
                f"of keypoints for {frames} of positions."
            )
    # Videos go on a little after the motion capture has stopped.
    return [view[:frames].astype(np.float32) for view in found]


def entry(path: pathlib.Path, key: str) -> Any:
    """What an `.npz` file holds under a name.

    Raises:
      UserError: the file is damaged or has no such name.
    """
    content = object_arrays.read_npz(path)
    if key not in content:
        raise UserError(f"{path} has no {key!r} but {', '.join(content) or 'nothing'}.")
    return content[key]


def mapping(value: Any, path: pathlib.Path, name: str) -> Mapping[str, Any]:
    """A value that must be a dict of names.

    Raises:
      UserError: it is not.
    """
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UserError(f"{path}: {name} is a {type(value).__name__}, not a dict of names.")
    return value
