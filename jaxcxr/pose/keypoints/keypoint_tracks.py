"""Follows people from frame to frame where the detector gives no ids."""

from collections.abc import Mapping, Sequence

import numpy as np

# Different people: boxes that overlap less, or centres more than half a box apart.
_OVERLAP, _FAR = 0.1, 0.5
_PATIENCE = 0.5  # seconds that a person may be out of sight

Person = tuple[str | None, np.ndarray]


def follow(frames: Mapping[int, Sequence[Person]], fps: float) -> dict[str, dict[int, np.ndarray]]:
    """Links people over time by their ids, or by position if they have none.

    A person without id continues the track with the largest overlap of boxes (intersection over
    union), else the one with the nearest centre; the best pairs are joined first. Boxes enclose
    only the points that both detections have, so partly found people continue their tracks.

    Arguments:
      frames: frame number -> its people as (id or None, points `[joints, 3]`: x, y and confidence,
        0 for points not found).
      fps: frames per second.

    Returns:
      Id -> {frame: points}. People without id are numbered "0", "1", ... by first appearance,
      skipping ids in the file. Of an id that comes twice in a frame, the person with the greater
      sum of confidences stays.
    """
    tracks: dict[str, dict[int, np.ndarray]] = {}
    given = {person for people in frames.values() for person, _ in people if person is not None}
    patience = max(1, round(_PATIENCE * fps))
    free = (str(number) for number in range(len(given) + sum(map(len, frames.values()))))
    free = (name for name in free if name not in given)
    followed: dict[str, int] = {}  # track -> frame in which it was last seen
    for frame in sorted(frames):
        unnamed = []
        for person, points in frames[frame]:
            if not points[:, 2].any():
                continue
            if person is None:
                unnamed.append(points)
                continue
            track = tracks.setdefault(person, {})
            if frame not in track or points[:, 2].sum() > track[frame][:, 2].sum():
                track[frame] = points
        followed = {name: last for name, last in followed.items() if frame - last <= patience}
        before = {name: tracks[name][last] for name, last in followed.items()}
        for name, points in _continued(before, unnamed):
            name = next(free) if name is None else name
            tracks.setdefault(name, {})[frame] = points
            followed[name] = frame
    return tracks


def _continued(before: Mapping[str, np.ndarray], now: Sequence[np.ndarray]):
    """Pairs each detection with the track it continues, None for a new track."""
    scores = [
        (likeness(before[name], points), name, index)
        for name in before for index, points in enumerate(now)
    ]
    taken: dict[int, str] = {}
    for score, name, index in sorted(scores, key=lambda item: -item[0]):
        if score > 0 and index not in taken and name not in taken.values():
            taken[index] = name
    return [(taken.get(index), points) for index, points in enumerate(now)]


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Scores how likely two detections `[joints, 3]`, confidence last, are the same person.

    Returns:
      1 plus the intersection over union of the boxes around the common points, if that is at least
      0.1; otherwise 1 minus the distance of the centres over half a box, at least 0.
    """
    both = (a[:, 2] > 0) & (b[:, 2] > 0)
    if not both.any():
        return 0.0
    a, b = a[both, :2], b[both, :2]
    low, high = np.maximum(a.min(0), b.min(0)), np.minimum(a.max(0), b.max(0))
    shared = np.prod(np.maximum(high - low, 0))
    areas = np.prod(np.ptp(a, 0)) + np.prod(np.ptp(b, 0))
    overlap = shared / (areas - shared) if areas > shared else 0.0
    if overlap >= _OVERLAP:
        return 1.0 + float(overlap)
    reach = _FAR * max(1.0, *(float(np.linalg.norm(np.ptp(points, 0))) for points in (a, b)))
    apart = np.linalg.norm(a.mean(0) - b.mean(0))
    return max(0.0, 1.0 - float(apart / reach))
