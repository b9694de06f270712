"""Fills short gaps of 2D keypoints in time, and marks what stays absent."""

import numpy as np

from jaxcxr.pose.geometry.skeletons import HUMAN36M

ABSENT, FILLED, SEEN = 0, 1, 2
STATES = ("absent", "filled", "seen")
LONGEST = 0.25  # seconds of a gap that is filled
_ENOUGH = 0.5  # share of the joints that make a frame "seen"


def fill(
    keypoints: np.ndarray, confidence: np.ndarray, fps: float, longest: float = LONGEST
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolates unseen joints linearly in time, each about its parent in the skeleton.

    Where at least half of the joints were found, the others are filled for as long as they hide; a
    frame in which fewer were found is filled if the gap lasts up to `longest` seconds and has
    seen frames at both ends.

    Arguments:
      keypoints: `[frames, 17, 2]`, pixels.
      confidence: `[frames, 17]`, 0 where unseen.

    Returns:
      Keypoints, zero in absent frames and for joints that were never seen; and the state of each
      frame, uint8: ABSENT, FILLED or SEEN.
    """
    seen = confidence > 0
    state = np.where(seen.mean(1) >= _ENOUGH, SEEN, FILLED).astype(np.uint8)
    if not (state == SEEN).any():  # nothing better: what there is counts
        state = np.where(seen.any(1), SEEN, FILLED).astype(np.uint8)
    for begin, end in runs(state == FILLED):
        inside = begin > 0 and end < len(state)
        if not inside or end - begin > longest * fps + 1e-6:
            state[begin:end] = ABSENT
    filled = np.zeros_like(keypoints)
    for begin, end in runs(state != ABSENT):
        part = slice(begin, end)
        filled[part] = _interpolated(keypoints[part], seen[part])
    return filled, state


def runs(wanted: np.ndarray) -> list[tuple[int, int]]:
    """Lists the stretches of true values as first index and index behind the last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]]).astype(np.int8)))
    return [(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]


def _interpolated(keypoints: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Interpolates the joints of one stretch; those never seen in it are zero."""
    found, known = np.where(seen[..., None], keypoints, 0.0), seen.copy()
    time = np.arange(len(found))
    for joint, parent in enumerate(HUMAN36M.parents):
        if seen[:, joint].all() or not seen[:, joint].any():
            continue
        base = found[:, parent] if parent >= 0 and known[:, parent].all() else np.zeros((1, 2))
        offset = found[:, joint] - base
        here = seen[:, joint]
        for axis in range(2):
            offset[:, axis] = np.interp(time, time[here], offset[here, axis])
        found[:, joint] = np.where(here[:, None], found[:, joint], base + offset)
        known[:, joint] = True
    return found


def at_rate(
    keypoints: np.ndarray, confidence: np.ndarray, seconds: np.ndarray, fps: float, longest: float
) -> tuple[int, np.ndarray, np.ndarray]:
    """Interpolates keypoints of irregular times linearly at a rate.

    A joint is seen where both neighbours are, at most `longest` seconds or two frames apart.

    Returns:
      Number of the first frame, keypoints and confidence.
    """
    start = int(np.ceil(seconds[0] * fps - 1e-6))
    end = max(start, int(np.floor(seconds[-1] * fps + 1e-6)))
    wanted = np.arange(start, end + 1) / fps
    points = np.zeros((len(wanted), *keypoints.shape[1:]))
    certain = np.zeros((len(wanted), confidence.shape[1]))
    most = max(longest, 2 / fps) + 1e-6
    for joint in range(confidence.shape[1]):
        here = np.flatnonzero(confidence[:, joint] > 0)
        if not len(here):
            continue
        own = seconds[here]
        after = np.clip(np.searchsorted(own, wanted - 1e-9), 0, len(own) - 1)
        before = np.clip(after - (own[after] > wanted + 1e-9), 0, None)
        near = (own[after] - own[before] <= most) & (wanted >= own[before] - 1e-6) & (
            wanted <= own[after] + 1e-6)
        certain[:, joint] = np.where(near, np.interp(wanted, own, confidence[here, joint]), 0)
        for axis in range(2):
            points[:, joint, axis] = np.interp(wanted, own, keypoints[here, joint, axis])
    return start, np.where(certain[..., None] > 0, points, 0.0), certain
