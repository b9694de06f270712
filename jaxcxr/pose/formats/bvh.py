"""Reads BVH motion files and computes their forward kinematics.

Format: Biovision hierarchy, M. Meredith and S. Maddock, "Motion capture file formats explained",
2001. A joint turns by its channels in the order listed, `R = R1 R2 R3`, and lies at
`p = p_parent + R_parent offset`; its position channels replace the offset.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from jaxcxr.errors import UserError
from jaxcxr.pose.keypoints import frame_rates

POSITIONS = ("Xposition", "Yposition", "Zposition")
ROTATIONS = ("Xrotation", "Yrotation", "Zrotation")
_CHANNELS = {channel.lower(): channel for channel in (*POSITIONS, *ROTATIONS)}
_DEEPEST = 500  # nested joints, more than any skeleton has


@dataclasses.dataclass(frozen=True, eq=False)
class Joint:
    """One joint, or the end of a chain, which has no channels.

    Attributes:
      name: its name; NAME_End for the end of the chain at NAME.
      parent: index of the parent, -1 for the root.
      offset: from the parent, in the parent's frame and the file's unit, `[3]`.
      channels: names as in the file, e.g. ("Zrotation", "Yrotation", "Xrotation").
    """

    name: str
    parent: int
    offset: np.ndarray
    channels: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Motion:
    """A moving skeleton.

    Attributes:
      joints: the root first, parents before their children.
      times: seconds from the first frame, `[frames]`, rising.
      rotations: joint name -> rotations over time, for joints that rotate.
      positions: joint name -> place in the parent's frame, `[frames, 3]`, for joints that move.
    """

    joints: tuple[Joint, ...]
    times: np.ndarray
    rotations: dict[str, Rotation]
    positions: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> Joint:
        return next(joint for joint in self.joints if joint.name == name)

    @property
    def names(self) -> frozenset[str]:
        """Names of the joints and of the ends of chains."""
        return frozenset(joint.name for joint in self.joints)


class _Words:
    """Reads a file word by word and keeps track of the line."""

    def __init__(self, text: str, name: str):
        self._lines = [line.split() for line in text.splitlines()]
        self._words = self._all()
        self.name, self.line = name, 0

    def _all(self) -> Iterator[tuple[int, str]]:
        for number, words in enumerate(self._lines, start=1):
            for word in words:
                yield number, word

    def next(self) -> str:
        """Returns the next word."""
        self.line, word = next(self._words, (len(self._lines), ""))
        if not word:
            raise self.wrong("the file ends too early")
        return word

    def expect(self, *wanted: str) -> str:
        """Returns the next word, which must be one of those wanted, ignoring case."""
        word = self.next()
        for choice in wanted:
            if word.lower() == choice.lower():
                return choice
        raise self.wrong(f"expected {' or '.join(wanted)}, found {word!r}")

    def number(self) -> float:
        """Returns the next word as a number."""
        word = self.next()
        try:
            value = float(word)
        except ValueError:
            value = np.nan
        if not np.isfinite(value):
            raise self.wrong(f"expected a number, found {word!r}")
        return value

    def rows(self) -> list[tuple[int, list[str]]]:
        """Returns the remaining lines that are not blank."""
        found = enumerate(self._lines[self.line :], start=self.line + 1)
        return [(number, words) for number, words in found if words]

    def wrong(self, why: str, line: int | None = None) -> UserError:
        """Returns the error for this line or another."""
        where = self.line if line is None else line
        return UserError(
            f"{self.name}, line {where}: {why}; download the file again or leave the clip out."
        )


def parse(text: str, name: str) -> Motion:
    """Reads the text of a motion file; lengths are in its unit, `name` is for messages."""
    words = _Words(text, name)
    words.expect("HIERARCHY")
    words.expect("ROOT")
    joints: list[Joint] = []
    _joint(words, joints, -1, 0)
    words.expect("MOTION")
    words.expect("Frames:")
    frames = words.number()
    words.expect("Frame")
    words.expect("Time:")
    seconds = words.number()
    if frames < 1 or frames != int(frames) or not 0 < seconds <= 1:
        raise words.wrong(f"{frames:g} frames of {seconds:g} s each")
    if abs(1 / seconds - round(1 / seconds)) < 0.01:
        seconds = 1 / round(1 / seconds)  # files round 1/120 s to .0083333
    values = _values(words, int(frames), sum(len(joint.channels) for joint in joints))
    return _motion(tuple(joints), values, np.arange(int(frames)) * seconds)


def _joint(words: _Words, joints: list[Joint], parent: int, depth: int) -> None:
    """Reads a joint after its keyword, with all its descendants."""
    if depth > _DEEPEST:
        raise words.wrong("joints lie too deep within each other")
    name = words.next()
    if any(joint.name == name for joint in joints):
        raise words.wrong(f"joint {name!r} comes twice")
    words.expect("{")
    words.expect("OFFSET")
    offset = np.array([words.number() for _ in range(3)])
    words.expect("CHANNELS")
    count = words.number()
    if count not in range(7):
        raise words.wrong(f"joint {name!r} has {count:g} channels")
    channels = tuple(_CHANNELS[words.expect(*_CHANNELS).lower()] for _ in range(int(count)))
    if len(set(channels)) != len(channels):
        raise words.wrong(f"joint {name!r} has the same channel twice")
    index = len(joints)
    joints.append(Joint(name, parent, offset, channels))
    while True:
        word = words.expect("JOINT", "End", "}")
        if word == "}":
            return
        if word == "JOINT":
            _joint(words, joints, index, depth + 1)
            continue
        words.expect("Site")
        words.expect("{")
        words.expect("OFFSET")
        end = np.array([words.number() for _ in range(3)])
        words.expect("}")
        joints.append(Joint(f"{name}_End", index, end, ()))


def _values(words: _Words, frames: int, channels: int) -> np.ndarray:
    """Reads the numbers `[frames, channels]`, one frame per line."""
    rows = words.rows()
    for number, row in rows:
        if len(row) != channels:
            raise words.wrong(f"expected {channels} numbers, found {len(row)}", number)
    if len(rows) != frames:
        last = rows[-1][0] if rows else words.line
        raise words.wrong(f"{len(rows)} frames, where the file announces {frames}", last)
    try:
        values = np.array([row for _, row in rows], np.float64)
    except ValueError as error:
        raise words.wrong(f"a frame holds something other than numbers ({error})") from error
    bad = ~np.isfinite(values).all(1)
    if bad.any():
        raise words.wrong("a number is not finite", rows[int(np.argmax(bad))][0])
    return values


def _motion(joints: tuple[Joint, ...], values: np.ndarray, times: np.ndarray) -> Motion:
    rotations, positions = {}, {}
    column = 0
    for joint in joints:
        own = values[:, column : column + len(joint.channels)]
        column += len(joint.channels)
        turns = [i for i, channel in enumerate(joint.channels) if channel in ROTATIONS]
        moves = {channel: i for i, channel in enumerate(joint.channels) if channel in POSITIONS}
        if turns:
            order = "".join(joint.channels[i][0] for i in turns)
            rotations[joint.name] = Rotation.from_euler(order, own[:, turns], degrees=True)
        if moves:
            place = np.tile(joint.offset, (len(values), 1))
            for axis, channel in enumerate(POSITIONS):
                if channel in moves:
                    place[:, axis] = own[:, moves[channel]]
            positions[joint.name] = place
    return Motion(joints, times, rotations, positions)


def forward_kinematics(motion: Motion) -> dict[str, np.ndarray]:
    """Computes the place `[frames, 3]` of every joint and end, in the file's unit and axes."""
    frames: list[np.ndarray] = []
    places: list[np.ndarray] = []
    still = np.broadcast_to(np.eye(3), (len(motion.times), 3, 3))
    for joint in motion.joints:
        turn = still
        if joint.name in motion.rotations:
            turn = motion.rotations[joint.name].as_matrix().reshape(-1, 3, 3)
        place = motion.positions.get(joint.name, np.broadcast_to(joint.offset, still.shape[:2]))
        if joint.parent >= 0:
            place = places[joint.parent] + np.einsum("fij,fj->fi", frames[joint.parent], place)
            turn = frames[joint.parent] @ turn
        frames.append(turn)
        places.append(place)
    names = [joint.name for joint in motion.joints]
    return dict(zip(names, places, strict=True))


def resample(motion: Motion, fps: float) -> Motion:
    """Resamples a motion to another frame rate: rotations by slerp, positions linearly."""
    if len(motion.times) == 1:
        return motion
    times = frame_rates.times(motion.times[-1], fps)
    rotations = {name: Slerp(motion.times, turn)(times) for name, turn in motion.rotations.items()}
    positions = {
        name: np.stack([np.interp(times, motion.times, axis) for axis in place.T], axis=-1)
        for name, place in motion.positions.items()
    }
    return Motion(motion.joints, times, rotations, positions)


def without_first_frame(motion: Motion) -> Motion:
    """Drops the first frame."""
    return Motion(
        motion.joints,
        motion.times[1:] - motion.times[1],
        {name: turn[1:] for name, turn in motion.rotations.items()},
        {name: place[1:] for name, place in motion.positions.items()},
    )
