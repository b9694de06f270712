"""Reads BVH motion files and computes their forward kinematics.

Format: Biovision hierarchy, M. Meredith and S. Maddock, "Motion capture file formats explained",
2001. A joint turns by its channels in the order listed, `R = R1 R2 R3`, and lies at
`p = p_parent + R_parent offset`; its position channels replace the offset.
"""

import dataclasses
import decimal
import re
from collections.abc import Iterator

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from jaxcxr.errors import UserError
from jaxcxr.pose.keypoints import frame_rates

POSITIONS = ("Xposition", "Yposition", "Zposition")
ROTATIONS = ("Xrotation", "Yrotation", "Zrotation")
_CHANNELS = {channel.lower(): channel for channel in (*POSITIONS, *ROTATIONS)}
_DEEPEST = 500  # nested joints, more than any skeleton has
_HEADER = re.compile(r"^\s*(frames|frame\s+time)\s*:\s*", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"([+-]?\d*),(\d+(?:e[+-]?\d+)?)", re.IGNORECASE)
_NTSC = 1000 / 1001  # of 24, 30, 60 or 120 frames per second


@dataclasses.dataclass(frozen=True, eq=False)
class Joint:
    """One joint, or the end of a chain, which has no channels.

    Attributes:
      name: its name; NAME_End for the end of the chain at NAME.
      parent: index of the parent, -1 for the root.
      offset: from the parent, in the parent's frame and the file's unit, `[3]`.
      channels: names as in the file, e.g. ("Zrotation", "Yrotation", "Xrotation").
      line: its line in the file.
    """

    name: str
    parent: int
    offset: np.ndarray
    channels: tuple[str, ...]
    line: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Motion:
    """A moving skeleton.

    Attributes:
      joints: a root first, parents before their children; there can be several roots.
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
        self._lines = [_words(line) for line in text.splitlines()]
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

    def title(self) -> str:
        """Returns the words up to an opening brace; they stand on one line."""
        words: list[str] = []
        line = 0
        while (word := self.next()) != "{":
            if words and self.line != line:
                raise self.wrong(f"expected {{, found {word!r}")
            words.append(word)
            line = self.line
        return " ".join(words)

    def number(self) -> float:
        """Returns the next word as a number."""
        return self.as_number(self.next())

    def as_number(self, word: str) -> float:
        """Converts a word to a number."""
        value = _number(word)
        if not np.isfinite(value):
            raise self.wrong(f"expected a number, found {word!r}")
        return value

    def vector(self) -> np.ndarray:
        """Returns the next three words as numbers."""
        return np.array([self.number() for _ in range(3)])

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


def _words(line: str) -> list[str]:
    """Splits a line; braces, the colons of the header and separators may touch other words."""
    line = _HEADER.sub(lambda found: " ".join(found[1].split()) + ": ", line)
    line = line.replace("{", " { ").replace("}", " } ").replace(";", " ")
    return re.sub(r",(?=\s|$)", " ", line).split()


def _number(word: str) -> float:
    """Converts a word to a number, with a point or a comma before the decimals; else NaN."""
    try:
        return float(_DECIMAL_COMMA.sub(r"\1.\2", word) if "," in word else word)
    except ValueError:
        return np.nan


def parse(text: str, name: str, fps: float = 0.0) -> Motion:
    """Reads the text of a motion file; lengths are in its unit, `name` is for messages.

    The frames per second, if not 0, replace those of the file.
    """
    words = _Words(text, name)
    words.expect("HIERARCHY")
    words.expect("ROOT")
    joints: list[Joint] = []
    _joint(words, joints, -1, 0)
    while words.expect("MOTION", "ROOT") == "ROOT":
        _joint(words, joints, -1, 0)
    words.expect("Frames:")
    frames = words.number()
    if frames < 1 or frames != int(frames):
        raise words.wrong(f"the file announces {frames:g} frames")
    words.expect("Frame")
    words.expect("Time:")
    word = words.next()
    seconds = words.as_number(word)
    if not fps and not 0 < seconds <= 1:
        raise words.wrong(f"a frame lasts {seconds:g} s; give the frames per second, for example "
                          "with --raw-fps=30")
    values = _values(words, int(frames), sum(len(joint.channels) for joint in joints), joints)
    times = np.arange(int(frames)) / (fps or _rate(word, seconds))
    return _motion(tuple(joints), values, times)


def _rate(word: str, seconds: float) -> float:
    """Returns the frames per second of which a file rounds the duration, as 1/120 to .0083333."""
    digits = decimal.Decimal(word.replace(",", ".")).as_tuple().exponent
    step = 10.0 ** digits if isinstance(digits, int) else 0.0
    whole = round(1 / seconds)
    for rate in (whole, round(1 / seconds / _NTSC) * _NTSC):
        if rate and abs(1 / rate - seconds) <= min(step, 0.005 * seconds):
            return float(rate)
    return 1 / seconds


def _joint(words: _Words, joints: list[Joint], parent: int, depth: int) -> None:
    """Reads a joint after its keyword, with all its descendants."""
    if depth > _DEEPEST:
        raise words.wrong("joints lie too deep within each other")
    name = words.title()
    if not name:
        raise words.wrong("a joint has no name")
    if any(joint.name == name for joint in joints):
        raise words.wrong(f"joint {name!r} comes twice")
    line = words.line
    words.expect("OFFSET")
    offset = words.vector()
    index = len(joints)
    joints.append(Joint(name, parent, offset, (), line))
    while True:
        word = words.expect("CHANNELS", "JOINT", "End", "EndSite", "}")
        if word == "}":
            return
        if word == "CHANNELS":
            if joints[index].channels or len(joints) > index + 1:
                raise words.wrong(f"the channels of {name!r} come late or twice")
            joints[index] = dataclasses.replace(joints[index], channels=_channels(words, name))
        elif word == "JOINT":
            _joint(words, joints, index, depth + 1)
        else:
            if word == "End":
                words.expect("Site")
            words.title()  # some give the end a name
            words.expect("OFFSET")
            joints.append(Joint(f"{name}_End", index, words.vector(), ()))
            words.expect("}")


def _channels(words: _Words, name: str) -> tuple[str, ...]:
    count = words.number()
    if count not in range(7):
        raise words.wrong(f"joint {name!r} has {count:g} channels")
    channels = tuple(_CHANNELS[words.expect(*_CHANNELS).lower()] for _ in range(int(count)))
    if len(set(channels)) != len(channels):
        raise words.wrong(f"joint {name!r} has the same channel twice")
    return channels


def _values(words: _Words, frames: int, channels: int, joints: list[Joint]) -> np.ndarray:
    """Reads the numbers `[frames, channels]`, one frame per line or broken into lines."""
    rows = words.rows()
    wrong = next((i for i, (_, row) in enumerate(rows) if len(row) != channels), None)
    if wrong is not None:
        number, row = rows[wrong]
        if sum(len(row) for _, row in rows) != frames * channels:
            roots = ", ".join(joint.name for joint in joints if joint.parent < 0)
            raise words.wrong(
                f"expected {channels} numbers for all joints below {roots}, found {len(row)}",
                number,
            )
        every = [(number, word) for number, row in rows for word in row]
        rows = [(every[i][0], [word for _, word in every[i : i + channels]])
                for i in range(0, len(every), channels)]
    if len(rows) != frames:
        last = rows[-1][0] if rows else words.line
        raise words.wrong(f"{len(rows)} frames, where the file announces {frames}", last)
    try:
        values = np.array([row for _, row in rows], np.float64)
    except ValueError:
        values = np.array([[_number(word) for word in row] for _, row in rows])
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        named = [f"{joint.name} {channel}" for joint in joints for channel in joint.channels]
        raise words.wrong(
            f"{named[column]} is {rows[row][1][column]!r}, no finite number", rows[row][0]
        )
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
