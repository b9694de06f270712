"""Finds out which frame of a video each image is, from the numbers in its name or its time."""

import collections
import dataclasses
import fractions
import functools
import math
import pathlib
import re
from collections.abc import Hashable, Sequence

import numpy as np

from jaxcxr.errors import UserError

_NUMBER = re.compile(r"\d+")
_DECIMAL = re.compile(r"\d+\.\d+")
_UNITS = {"milliseconds": 1e-3, "microseconds": 1e-6, "nanoseconds": 1e-9}
_STRIDES = 10  # at most every tenth frame was recorded
_JITTER = 0.25  # share of a frame by which regular times may be off


@dataclasses.dataclass(frozen=True)
class Numbering:
    """The frames of images.

    Attributes:
      frames: frame of each image, by its name; multiples of `step` apart.
      step: every how many frames of the video there is an image.
      fps: frames per second of the images, None if nothing tells it.
      seconds: time of each frame, where they come at no constant rate; else empty.
      note: a sentence on what was found out, or "".
    """

    frames: dict[Hashable, int]
    step: int
    fps: float | None
    seconds: dict[int, float] = dataclasses.field(default_factory=dict)
    note: str = ""


def rate(text: str | float) -> float:
    """Reads a rate such as 25, 29.97 or 30000/1001.

    Raises:
      ValueError: it is none.
    """
    try:
        return float(fractions.Fraction(str(text).strip()))
    except (ZeroDivisionError, ValueError) as error:
        raise ValueError(f"{text!r} is no rate") from error


def number(names: Sequence[Hashable], fps: float | None, where: str) -> Numbering:
    """Numbers images, given by number, by name or, as a float, by time in seconds.

    Of several numbers in the names that one counts which has the most values, and of those the one
    that runs in equal steps. Times are recognised where they fit the rate.
    """
    values = _values(names, fps, where)
    if isinstance(next(iter(values.values())), float):
        return _by_time(values, 1.0, fps, "seconds")
    different = sorted(set(values.values()))
    gaps = np.diff(different)
    if len(gaps) > 1 and fps:
        for unit, seconds in _UNITS.items():
            if _is_time(gaps, seconds, fps):
                return _by_time(values, seconds, fps, unit)
        if _irregular(gaps):
            for unit, seconds in _UNITS.items():
                if 0.3 <= float(np.median(gaps)) * seconds * fps <= _STRIDES:
                    return _by_time(values, seconds, fps, unit)
    step = functools.reduce(math.gcd, gaps.tolist(), 0) if len(gaps) > 3 else 1
    if step > 1 and np.mean(gaps == step) < 0.5:
        step = 1
    note = "" if step == 1 else (
        f"images are numbered in steps of {step}, so that there are {fps / step:g} per second; if "
        f"they are all the frames of the video, give --fps {fps * step:g}"
        if fps else f"images are numbered in steps of {step}"
    )
    return Numbering(values, step, fps and fps / step, note=note)


def _is_time(gaps: np.ndarray, unit: float, fps: float) -> bool:
    """Tells whether numbers run as fast as the frames of a video, every frame or every nth."""
    frames = float(np.median(gaps)) * unit * fps
    stride = round(frames)
    return (np.median(gaps) > _STRIDES or unit < 1e-3) and 1 <= stride <= _STRIDES and (
        abs(frames / stride - 1) < 0.1
    )


def _irregular(gaps: np.ndarray) -> bool:
    """Tells whether numbers run in large steps of different length, as no frames of a video do."""
    usual = np.mean(gaps == np.median(gaps))
    return len(gaps) > 3 and np.median(gaps) > _STRIDES and usual < 0.5


def _by_time(values: dict, unit: float, fps: float | None, called: str) -> Numbering:
    """Numbers images by their times; keeps the times where they are irregular."""
    first = min(values.values())
    seconds = {name: (value - first) * unit for name, value in values.items()}
    different = np.unique(list(seconds.values()))
    if len(different) < 2:
        return Numbering(dict.fromkeys(values, 0), 1, fps)
    median = float(np.median(np.diff(different)))
    own = fps
    if own is None or abs(median * own - 1) < 0.1:
        # Rounded times: whole frames of about the given rate.
        own = own or round(1 / median, 3)
        apart = np.diff(different) / median
        if (np.abs(apart - np.rint(apart)) < _JITTER).all():
            places = np.concatenate([[0], np.cumsum(np.rint(apart))]).astype(int)
            of = dict(zip(different.tolist(), places.tolist(), strict=True))
            return Numbering(
                {name: of[second] for name, second in seconds.items()}, 1, own,
                note=f"images are named by their time in {called}" if called != "seconds" else "",
            )
    order = {second: place for place, second in enumerate(different.tolist())}
    return Numbering(
        {name: order[second] for name, second in seconds.items()}, 1, own,
        {place: second for second, place in order.items()},
        f"images come at no constant rate, by their time in {called}: resampled at {own:g} frames "
        "per second",
    )


def _values(names: Sequence[Hashable], fps: float | None, where: str) -> dict:
    """Returns the number, or the time as a float, of each image."""
    stems = {name: pathlib.PurePath(name).stem for name in names if isinstance(name, str)}
    if len(stems) < len(names):
        given: dict[Hashable, int | float] = {}
        for name in names:
            found = _NUMBER.findall(stems[name]) if name in stems else [name]
            value = int(found[-1][:18]) if found and isinstance(found[-1], str) else (
                found[-1] if found else -1)
            if not isinstance(value, int | float) or value < 0:
                raise UserError(_unnumbered(where, name))
            given[name] = value
        if any(isinstance(value, float) for value in given.values()):
            given = {name: float(value) for name, value in given.items()}
        return given
    decimals = {name: _DECIMAL.findall(stem) for name, stem in stems.items()}
    if fps and all(len(found) == 1 for found in decimals.values()):
        times = {name: float(found[0]) for name, found in decimals.items()}
        gaps = np.diff(np.unique(list(times.values())))
        if len(gaps) and abs(np.median(gaps) * fps - 1) < 0.1:
            return times
    numbers = {name: [int(part[:18]) for part in _NUMBER.findall(stem)]
               for name, stem in stems.items()}
    for name, found in numbers.items():
        if not found:
            raise UserError(_unnumbered(where, name))
    counts = {len(found) for found in numbers.values()}
    patterns = collections.Counter(_NUMBER.sub("#", stem) for stem in stems.values())
    if len(counts) > 1 or len(patterns) > 1:
        return {name: found[-1] for name, found in numbers.items()}
    columns = list(zip(*numbers.values(), strict=True))
    best = max(range(len(columns)), key=lambda place: (*_running(columns[place]), place))
    return {name: found[best] for name, found in numbers.items()}


def _running(column: Sequence[int]) -> tuple[int, float]:
    """Scores how much a number runs: its different values, and the share of its usual step."""
    different = sorted(set(column))
    gaps = np.diff(different)
    if not len(gaps):
        return 1, 0.0
    usual = collections.Counter(gaps.tolist()).most_common(1)[0][1]
    return len(different), usual / len(gaps)


def _unnumbered(where: str, name: Hashable) -> str:
    return (
        f"{where}: the image {name!r} has no number to order frames by; name images such as "
        '"000012.jpg".'
    )
