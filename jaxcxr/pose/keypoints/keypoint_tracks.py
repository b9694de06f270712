"""Who is who from frame to frame, where the detector did not say."""

from collections.abc import Mapping, Sequence

import numpy as np

# Boxes that overlap less, and centres farther apart than half a box, are of different people.
_OVERLAP, _FAR = 0.1, 0.5
_PATIENCE = 0.5  # seconds that a person may be out of sight and still be the same

Person = tuple[str | None, np.ndarray]


def follow(frames: Mapping[int, Sequence[Person]], fps: float) -> dict[str, dict[int, np.ndarray]]:
    """People over time: by the ids that the file gives, the others by where they are.

    A person without id continues the track whose last box overlaps its own most (intersection over
    union), or whose centre is nearest; pairs are joined greedily, the best first. A person found in
    fewer points continues a track too, for the boxes are about the points that both have.

    Arguments:
      frames: number of the frame -> its people as (id or None, points `[joints, 3]`: x, y and
        confidence, which is 0 where a point was not found).
      fps: frames per second.

    Returns:
      Id -> {frame: points}; people without id are "0", "1", ... in the order of their first
      appearance, or the next numbers that no file gave. An id that stands twice in a frame keeps
      the person with the greater sum of confidences.
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
    """Pairs of the track, None for a new one, and the points that go on with it."""
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
    """How much two detections look like one person: above 1 by overlap, above 0 by nearness.

    Arguments:
      a: points `[joints, 3]`, confidence last.
      b: the same.

    Returns:
      1 + the intersection over union of the boxes about the points that both have, if that is at
      least 0.1; else how much nearer than half a box the centres are; 0 for different people.
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
    reach = _FAR * max(np.linalg.norm(np.ptp(a, 0)), np.linalg.norm(np.ptp(b, 0)), 1.0)
    apart = np.linalg.norm(a.mean(0) - b.mean(0))
    return max(0.0, 1.0 - float(apart / reach))
