"""Tracks of 2D keypoints to the windows of a lifter, and its output back to the video's frames."""

from collections.abc import Sequence

import numpy as np


def training_times(frames: int, fps: float, training_fps: float) -> np.ndarray:
    """Times in seconds of the frames that a lifter sees of a video, from 0 to its end or beyond.

    Arguments:
      frames: of the video.
      fps: of the video.
      training_fps: frames per second on which the lifter was trained.
    """
    steps = (frames - 1) * training_fps / fps
    return np.arange(int(np.ceil(steps - 1e-6)) + 1) / training_fps


def resample_keypoints(
    keypoints: np.ndarray, confidence: np.ndarray, fps: float, training_fps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints at another frame rate, linearly between neighbouring frames.

    Where one of both neighbours is unseen, the point is the other if that is the nearer, else
    unseen.

    Arguments:
      keypoints: `[frames, joints, 2]`.
      confidence: `[frames, joints]`, 0 where unseen.
      fps: their frames per second.
      training_fps: wanted.

    Returns:
      The same at `training_times`; the video stands still after its end.
    """
    if fps == training_fps:
        return keypoints, confidence
    place = training_times(len(keypoints), fps, training_fps) * fps
    before = np.minimum(np.floor(place + 1e-9).astype(int), len(keypoints) - 1)
    after = np.minimum(before + 1, len(keypoints) - 1)
    share = np.clip(place - before, 0.0, 1.0)[:, None]
    left = (1 - share) * (confidence[before] > 0)
    right = share * (confidence[after] > 0)
    total = left + right
    seen = total >= 0.5
    divisor = np.where(seen, total, 1.0)
    points = left[..., None] * keypoints[before] + right[..., None] * keypoints[after]
    certain = (left * confidence[before] + right * confidence[after]) / divisor
    points = np.where(seen[..., None], points / divisor[..., None], 0.0)
    return points, np.where(seen, certain, 0.0).astype(confidence.dtype)


def resample_positions(
    positions: np.ndarray, frames: int, fps: float, training_fps: float
) -> np.ndarray:
    """Positions at `training_times` back at the frames of the video, linearly.

    Arguments:
      positions: `[training frames, ...]`.
      frames: of the video.
      fps: of the video.
      training_fps: of `positions`.

    Returns:
      `[frames, ...]`.
    """
    if fps == training_fps:
        return positions
    place = np.arange(frames) * training_fps / fps
    before = np.minimum(np.floor(place + 1e-9).astype(int), len(positions) - 1)
    after = np.minimum(before + 1, len(positions) - 1)
    share = np.clip(place - before, 0.0, 1.0).reshape(-1, *[1] * (positions.ndim - 1))
    return (1 - share) * positions[before] + share * positions[after]


def raised_cosine(frames: int) -> np.ndarray:
    """Weight of each frame of a window, small at its ends and never 0: `[frames]`."""
    return np.sin(np.pi * (np.arange(frames) + 0.5) / frames) ** 2


def cross_fade(
    values: np.ndarray, windows: Sequence[tuple[int, int]], lengths: Sequence[int]
) -> list[np.ndarray]:
    """The mean over overlapping windows, each weighted by its raised cosine.

    Arguments:
      values: `[windows, frames, ...]`.
      windows: for each the sequence that it is of and its first frame.
      lengths: frames of the sequences; what a window has beyond is dropped.

    Returns:
      One `[length, ...]` for each sequence, in double precision. Every frame must be in a window.
    """
    frames = values.shape[1]
    weight = raised_cosine(frames)
    sums = [np.zeros((length, *values.shape[2:])) for length in lengths]
    weights = [np.zeros(length) for length in lengths]
    for (which, start), value in zip(windows, values, strict=True):
        kept = min(frames, lengths[which] - start)
        part = weight[:kept].reshape(-1, *[1] * (values.ndim - 2))
        sums[which][start : start + kept] += part * value[:kept]
        weights[which][start : start + kept] += weight[:kept]
    return [
        total / known.reshape(-1, *[1] * (values.ndim - 2))
        for total, known in zip(sums, weights, strict=True)
    ]
