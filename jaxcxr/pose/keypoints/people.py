"""Follows people from frame to frame, repairs exchanged ids, and drops ghosts."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxcxr.pose.keypoints.keypoint_arrays import Person

# Different people: boxes that overlap less, or centres more than half a box apart.
_OVERLAP, _FAR = 0.1, 0.5
_PATIENCE = 0.5  # seconds that a person may be out of sight
# A jump: of the diagonal of a person's box, at once and for each second out of sight.
_REACH, _SPEED = 0.75, 8.0
_BLINK = 0.2  # seconds that an id may stand elsewhere and come back
GHOST_SECONDS, _GHOST_SHARE, _GHOST_SCORE = 0.2, 0.1, 0.25

Places = dict[int, np.ndarray]


def follow(frames: Mapping[int, Sequence[Person]], fps: float) -> dict[str, dict[int, np.ndarray]]:
    """Links people over time by their ids, or by position if they have none.

    A person without id continues the track with the largest overlap of boxes (intersection over
    union), else the one with the nearest centre; the best pairs are joined first. Boxes enclose
    only the points that both detections have, so partly found people continue their tracks.

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


def repaired(tracks: Mapping[str, Places], fps: float) -> tuple[dict[str, Places], list[str]]:
    """Exchanges ids back where a tracker swapped them, and splits ids that jump to somebody else.

    Returns:
      The tracks, and a sentence for each kind of change.
    """
    tracks = {name: dict(places) for name, places in tracks.items()}
    notes = []
    swaps = _unswap(tracks)
    if swaps:
        shown = ", ".join(f"{a} and {b} at frame {frame}" for frame, a, b in swaps[:3])
        notes.append(f"ids were exchanged and put back: {shown}"
                     + (f" and {len(swaps) - 3} more" if len(swaps) > 3 else ""))
    found: dict[str, Places] = {}
    for name, places in tracks.items():
        pieces = _pieces(places, fps)
        if len(pieces) > 1:
            notes.append(f"person {name} jumps farther than a person can at frame "
                         f"{min(pieces[1])}: taken for {len(pieces)} people")
        for number, piece in enumerate(pieces, start=1):
            label = name if number == 1 else f"{name}.{number}"
            while label in found or (number > 1 and label in tracks):
                label += "'"
            found[label] = piece
    return found, notes


def _unswap(tracks: dict[str, Places]) -> list[tuple[int, str, str]]:
    """Exchanges the rest of two tracks, in place, where each continues the other far better."""
    swaps = []
    frames = sorted({frame for places in tracks.values() for frame in places})
    before: dict[str, list[int]] = {name: [] for name in tracks}
    for frame in frames:
        here = [name for name, places in tracks.items() if frame in places]
        ready = [name for name in here if len(before[name]) > 1 and frame - before[name][-1] <= 3]
        expected = {name: _expected(tracks[name], before[name], frame) for name in ready}
        own = {name: _apart(expected[name], tracks[name][frame]) for name in ready}
        jumping = [name for name in ready if own[name] > 0.03]
        for i, a in enumerate(jumping):
            for b in jumping[i + 1:]:
                kept = own[a] + own[b]
                swapped = _apart(expected[a], tracks[b][frame]) + _apart(
                    expected[b], tracks[a][frame])
                if swapped < 0.4 * kept:
                    _exchange(tracks, a, b, frame)
                    swaps.append((frame, a, b))
                    own[a] = own[b] = 0.0
        for name in here:
            if frame in tracks[name]:
                before[name] = [*before[name][-1:], frame]
    return swaps


def _exchange(tracks: dict[str, Places], a: str, b: str, frame: int) -> None:
    parts = {name: {f: p for f, p in tracks[name].items() if f < frame} for name in (a, b)}
    parts[a] |= {f: p for f, p in tracks[b].items() if f >= frame}
    parts[b] |= {f: p for f, p in tracks[a].items() if f >= frame}
    tracks |= parts


def _expected(places: Places, last: Sequence[int], frame: int) -> np.ndarray:
    """Extrapolates points at constant speed."""
    one, two = (places[number] for number in last)
    speed = (two[:, :2] - one[:, :2]) / (last[1] - last[0])
    known = (one[:, 2] > 0) & (two[:, 2] > 0)
    moved = two[:, :2] + np.where(known[:, None], speed * (frame - last[1]), 0.0)
    return np.concatenate([moved, two[:, 2:]], -1)


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """Computes the mean distance of common points, of the diagonal of the box; 0 without any."""
    both = (a[:, 2] > 0) & (b[:, 2] > 0)
    if not both.any():
        return 0.0
    distance = np.linalg.norm(a[both, :2] - b[both, :2], axis=-1).mean()
    return float(distance / _diagonal(a))


def _diagonal(points: np.ndarray) -> float:
    seen = points[points[:, 2] > 0, :2]
    return max(1.0, float(np.linalg.norm(np.ptp(seen, 0)))) if len(seen) else 1.0


def _pieces(places: Places, fps: float) -> list[Places]:
    """Splits a track where it jumps; drops a moment elsewhere from which it comes back."""
    pieces: list[Places] = []
    for frame in sorted(places):
        if not pieces or _jumps(pieces[-1], frame, places[frame], fps):
            blink = len(pieces) > 1 and max(pieces[-1]) - min(pieces[-1]) < _BLINK * fps
            if blink and not _jumps(pieces[-2], frame, places[frame], fps):
                pieces.pop()
            else:
                pieces.append({})
        pieces[-1][frame] = places[frame]
    return pieces


def _jumps(piece: Places, frame: int, points: np.ndarray, fps: float) -> bool:
    last = max(piece)
    diagonal = max(_diagonal(piece[last]), _diagonal(points))
    both = (piece[last][:, 2] > 0) & (points[:, 2] > 0)
    if both.sum() < 3:
        return False
    moved = np.linalg.norm(np.median(points[both, :2] - piece[last][both, :2], axis=0))
    return bool(moved > diagonal * (_REACH + _SPEED * (frame - last - 1) / fps))


def without_ghosts(
    tracks: Mapping[str, Places], fps: float, seconds: float | None = None,
    score: float | None = None,
) -> tuple[dict[str, Places], list[str]]:
    """Drops people seen for a moment or with low scores only.

    Arguments:
      seconds: shortest time that counts; None: 0.2 s, if that is below a tenth of the longest.
      score: lowest mean confidence that counts; None: a quarter of the highest.

    Returns:
      The others, at least one, and a sentence if somebody was dropped.
    """
    seen = {name: len(places) for name, places in tracks.items()}
    scores = {
        name: float(np.mean([points[points[:, 2] > 0, 2].mean() for points in places.values()]))
        for name, places in tracks.items()
    }
    longest, best = max(seen.values(), default=0), max(scores.values(), default=0.0)
    least = min(GHOST_SECONDS * fps, _GHOST_SHARE * longest) if seconds is None else seconds * fps
    lowest = _GHOST_SCORE * best if score is None else score
    kept = {name: places for name, places in tracks.items()
            if seen[name] >= least - 1e-6 and scores[name] >= lowest}
    if len(kept) == len(tracks) or not kept:
        return dict(tracks), []
    dropped = [name for name in tracks if name not in kept]
    shown = ", ".join(
        f"{name} ({seen[name]} frames, mean score {scores[name]:.2f})" for name in dropped[:3]
    )
    more = f" and {len(dropped) - 3} more" if len(dropped) > 3 else ""
    return kept, [f"left out as ghosts: {shown}{more}; keep them with --min-seconds 0 "
                  "--min-score 0"]
