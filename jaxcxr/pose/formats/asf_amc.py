"""Reads Acclaim motion capture: skeletons (.asf), motions (.amc) and their forward kinematics.

Format: J. Lander, "Working with motion capture file formats", 1998. With `C` the rotation of a
bone's axis and `M` that of its degrees of freedom, each `Rz Ry Rx` for the order XYZ:
`R = R_parent C M C^T` and `end = end_parent + length R direction`.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from jaxcxr.errors import UserError
from jaxcxr.pose.keypoints import frame_rates

_INCH = 0.0254
_ROTATIONS = ("rx", "ry", "rz")
_ROOT_CHANNELS = ("tx", "ty", "tz", "rx", "ry", "rz")


@dataclasses.dataclass(frozen=True, eq=False)
class Bone:
    """One bone of the skeleton at rest.

    Attributes:
      name: name of the bone; the "root" has length 0.
      parent: index of the parent bone, -1 for the root.
      direction: unit vector from start to end in the world frame, `[3]`.
      length: metres.
      axis: rotation of the frame of the degrees of freedom.
      dofs: channels in the order of the motion file, e.g. ("rx", "rz").
      order: order in which the rotations apply, e.g. "xyz" for `Rz Ry Rx`.
    """

    name: str
    parent: int
    direction: np.ndarray
    length: float
    axis: Rotation
    dofs: tuple[str, ...]
    order: str


@dataclasses.dataclass(frozen=True, eq=False)
class AsfSkeleton:
    """The skeleton of one subject.

    Attributes:
      bones: the root first, parents before their children.
      unit: metres per unit of length in the files.
      degrees: whether angles are in degrees unless the motion file says otherwise.
      origin: position of the root at rest, metres, `[3]`.
    """

    bones: tuple[Bone, ...]
    unit: float
    degrees: bool
    origin: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the bones."""
        return tuple(bone.name for bone in self.bones)


@dataclasses.dataclass(frozen=True, eq=False)
class AmcMotion:
    """Rotations of the bones over time.

    Attributes:
      times: seconds from the first frame, `[frames]`, rising.
      root: position of the root, metres, `[frames, 3]`.
      rotations: `M` of every frame, for each moving bone.
    """

    times: np.ndarray
    root: np.ndarray
    rotations: dict[str, Rotation]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.split("#", 1)[0].strip()
        if line:
            yield number, line


def _wrong(name: str, number: int, why: str) -> UserError:
    return UserError(
        f"{name}, line {number}: {why}; download the file again or leave the clip out."
    )


def _numbers(words: list[str], count: int, name: str, number: int) -> np.ndarray:
    try:
        values = np.array(words, np.float64)
    except ValueError as error:
        raise _wrong(name, number, f"{' '.join(words)!r} should be numbers") from error
    if len(values) != count or not np.isfinite(values).all():
        raise _wrong(name, number, f"expected {count} numbers, found {' '.join(words)!r}")
    return values


def parse_asf(text: str, name: str) -> AsfSkeleton:
    """Reads a skeleton file.

    `name` of the file is for messages, here and below.

    Returns:
      The skeleton in metres (one unit is `0.0254 / length` m).
    """
    sections = _sections(text, name)
    for needed in ("bonedata", "hierarchy"):
        if needed not in sections:
            raise UserError(f"{name} has no :{needed} section; it is no ASF skeleton.")
    units = {line.split()[0]: (number, line.split()[1:]) for number, line in sections["units"]}
    number, words = units.get("length", (0, ["1"]))
    unit = _INCH / float(_numbers(words, 1, name, number)[0])
    degrees = units.get("angle", (0, ["deg"]))[1] != ["rad"]
    blocks = _blocks(sections["bonedata"], name)
    parents = _hierarchy(sections["hierarchy"], name)
    root, origin = _root(sections["root"], name, unit, degrees)
    bones, index = [root], {"root": 0}
    waiting = dict(blocks)
    for child, (number, parent) in parents.items():
        if child not in waiting:
            raise _wrong(name, number, f"bone {child!r} has no entry, or two parents")
        if parent not in index:
            raise _wrong(name, number, f"parent {parent!r} of {child!r} comes after it")
        bones.append(_bone(child, waiting.pop(child), index[parent], name, unit, degrees))
        index[child] = len(index)
    if waiting:
        raise UserError(f"{name}: bones without a place in the hierarchy: {', '.join(waiting)}.")
    return AsfSkeleton(tuple(bones), unit, degrees, origin)


def _sections(text: str, name: str) -> dict[str, list[tuple[int, str]]]:
    sections: dict[str, list[tuple[int, str]]] = {"units": [], "root": []}
    current = None
    for number, line in _lines(text):
        if line.startswith(":"):
            current = sections.setdefault(line[1:].split()[0].lower(), [])
        elif current is None:
            raise _wrong(name, number, f"{line!r} stands before the first section")
        else:
            current.append((number, line))
    return sections


def _blocks(lines, name) -> dict[str, dict[str, tuple[int, list[str]]]]:
    """Reads each bone's fields with their line numbers."""
    blocks: dict[str, dict[str, tuple[int, list[str]]]] = {}
    fields: dict[str, tuple[int, list[str]]] | None = None
    for number, line in lines:
        key, *words = line.split()
        if key == "begin":
            fields = {"begin": (number, [])}
        elif fields is None:
            raise _wrong(name, number, f"{line!r} stands outside begin ... end")
        elif key == "end":
            if "name" not in fields or len(fields["name"][1]) != 1:
                raise _wrong(name, number, "a bone without a name ends here")
            blocks[fields["name"][1][0]] = fields
            fields = None
        elif not line.startswith("("):  # further lines of the limits
            fields[key] = (number, words)
    if fields is not None:
        raise _wrong(name, fields["begin"][0], "this bone has no end")
    return blocks


def _hierarchy(lines, name) -> dict[str, tuple[int, str]]:
    parents: dict[str, tuple[int, str]] = {}
    for number, line in lines:
        parent, *children = line.split()
        if parent in ("begin", "end") and not children:
            continue
        for child in children:
            if child in parents:
                raise _wrong(name, number, f"bone {child!r} has two parents")
            parents[child] = (number, parent)
    return parents


def _axis(words: list[str], name: str, number: int, degrees: bool) -> tuple[Rotation, str]:
    """Reads the rotation and order of "x y z XYZ"."""
    order = words[-1].lower() if words else ""
    if sorted(order) != ["x", "y", "z"]:
        raise _wrong(name, number, f"{' '.join(words)!r} should end in an order such as XYZ")
    angles = dict(zip("xyz", _numbers(words[:-1], 3, name, number), strict=True))
    # SciPy takes a lower-case order as fixed axes: "xyz" is Rz Ry Rx.
    values = [angles[letter] for letter in order]
    return Rotation.from_euler(order, values, degrees=degrees), order


def _bone(bone_name, fields, parent, name, unit, degrees) -> Bone:
    start = fields["begin"][0]
    for key in ("direction", "length", "axis"):
        if key not in fields:
            raise _wrong(name, start, f"bone {bone_name!r} has no {key}")
    direction = _numbers(fields["direction"][1], 3, name, fields["direction"][0])
    norm = float(np.linalg.norm(direction))
    if norm == 0:
        raise _wrong(name, fields["direction"][0], f"bone {bone_name!r} has no direction")
    length = float(_numbers(fields["length"][1], 1, name, fields["length"][0])[0])
    axis, order = _axis(fields["axis"][1], name, fields["axis"][0], degrees)
    number, words = fields.get("dof", (start, []))
    dofs = tuple(word.lower() for word in words)
    if not set(dofs) <= set(_ROTATIONS):
        raise _wrong(name, number, f"only rx, ry and rz are known, found {' '.join(words)!r}")
    return Bone(bone_name, parent, direction / norm, length * unit, axis, dofs, order)


def _root(lines, name, unit, degrees) -> tuple[Bone, np.ndarray]:
    fields = {line.split()[0]: (number, line.split()[1:]) for number, line in lines}
    number, words = fields.get("order", (0, ["TX", "TY", "TZ", "RX", "RY", "RZ"]))
    dofs = tuple(word.lower() for word in words)
    if sorted(dofs) != sorted(_ROOT_CHANNELS):
        raise _wrong(name, number, f"the root's order is {' '.join(words)!r}")
    order = fields.get("axis", (0, ["XYZ"]))[1]
    number, words = fields.get("orientation", (0, ["0", "0", "0"]))
    axis, order = _axis([*words, *order], name, number, degrees)
    number, words = fields.get("position", (0, ["0", "0", "0"]))
    origin = _numbers(words, 3, name, number) * unit
    return Bone("root", -1, np.array([0.0, 1.0, 0.0]), 0.0, axis, dofs, order), origin


def parse_amc(
    text: str, skeleton: AsfSkeleton, name: str, fps: float = 120.0, longest_gap: float = 0.1
) -> AmcMotion:
    """Reads a motion file.

    The file does not state its frames per second; CMU's are 120. Gaps in the frame numbers of at
    most `longest_gap` seconds are allowed.
    """
    moving = {bone.name: bone for bone in skeleton.bones if bone.dofs}
    values: dict[str, list[tuple[int, list[str]]]] = {bone: [] for bone in moving}
    degrees, number = skeleton.degrees, 0
    frames: list[int] = []
    for number, line in _lines(text):
        if line.startswith(":"):
            degrees = {":DEGREES": True, ":RADIANS": False}.get(line.upper(), degrees)
            continue
        key, *words = line.split()
        if not words and key.isdigit():
            _check_frame(values, frames, name, number)
            if frames and not 0 < (int(key) - frames[-1]) / fps <= longest_gap:
                raise _wrong(name, number, f"frame {key} follows frame {frames[-1]}")
            frames.append(int(key))
        elif key not in moving or not frames:
            raise _wrong(name, number, f"{key!r} is no moving bone of the skeleton, or comes early")
        elif len(values[key]) != len(frames) - 1:
            raise _wrong(name, number, f"bone {key!r} comes twice in frame {frames[-1]}")
        else:
            values[key].append((number, words))
    if not frames:
        raise UserError(f"{name} has no frame; it is no AMC motion file.")
    _check_frame(values, frames, name, number)
    rows = {bone: _rows(lines, len(moving[bone].dofs), name) for bone, lines in values.items()}
    return _motion(skeleton, rows, (np.array(frames) - frames[0]) / fps, degrees)


def _rows(lines, count, name) -> np.ndarray:
    """Converts one bone's values `[frames, channels]`, at once because files are long."""
    try:
        rows = np.array([words for _, words in lines], np.float64)
    except ValueError:
        rows = np.full((0, 0), np.nan)
    if rows.shape == (len(lines), count) and np.isfinite(rows).all():
        return rows
    return np.stack([_numbers(words, count, name, number) for number, words in lines])


def _check_frame(values, frames, name, number) -> None:
    lacking = [bone for bone, rows in values.items() if len(rows) != len(frames)]
    if lacking:
        raise _wrong(name, number, f"frame {frames[-1]} ends without {', '.join(lacking)}")


def _motion(skeleton, rows, times, degrees) -> AmcMotion:
    rotations = {}
    for bone in skeleton.bones:
        if bone.name not in rows:
            continue
        values = dict(zip(bone.dofs, rows[bone.name].T, strict=True))
        still = np.zeros(len(times))
        angles = np.stack([values.get(f"r{letter}", still) for letter in bone.order], axis=-1)
        rotations[bone.name] = Rotation.from_euler(bone.order, angles, degrees=degrees)
    columns = [skeleton.bones[0].dofs.index(channel) for channel in ("tx", "ty", "tz")]
    root = skeleton.origin + rows["root"][:, columns] * skeleton.unit
    return AmcMotion(times, root, rotations)


def resample(motion: AmcMotion, fps: float) -> AmcMotion:
    """Resamples a motion to another frame rate.

    Rotations are interpolated on the sphere (slerp) and the root's position linearly, which keeps
    bone lengths; interpolated positions would not. Missing frames are filled the same way. There
    is no low-pass filter, since human motion has hardly any content above 25 Hz.
    """
    if len(motion.times) == 1:
        return motion
    times = frame_rates.times(motion.times[-1], fps)
    root = np.stack([np.interp(times, motion.times, column) for column in motion.root.T], axis=-1)
    rotations = {name: Slerp(motion.times, turn)(times) for name, turn in motion.rotations.items()}
    return AmcMotion(times, root, rotations)


def forward_kinematics(skeleton: AsfSkeleton, motion: AmcMotion) -> dict[str, np.ndarray]:
    """Computes the end of every bone.

    Returns:
      Bone name -> `[frames, 3]` in metres, y up; "root" is the root itself.
    """
    frames: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    for bone in skeleton.bones:
        axis = bone.axis.as_matrix()
        turn = np.eye(3)
        if bone.name in motion.rotations:
            turn = axis @ motion.rotations[bone.name].as_matrix() @ axis.T
        if bone.parent < 0:
            frames.append(turn)
            ends.append(motion.root)
            continue
        frames.append(frames[bone.parent] @ turn)
        ends.append(ends[bone.parent] + bone.length * (frames[-1] @ bone.direction))
    return dict(zip(skeleton.names, ends, strict=True))
