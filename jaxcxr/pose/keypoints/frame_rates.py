"""Resamples keypoints, positions and records; checks the frame rate that sources take."""

import numpy as np

from jaxcxr.pose.keypoints import keypoint_files


def times(seconds: float, fps: float) -> np.ndarray:
    """Computes the times of a motion's frames at a rate, from 0 to its last frame at `seconds`."""
    # The last sample may fall beyond the end by a rounding error.
    found = np.arange(np.floor(seconds * fps + 1e-6) + 1) / fps
    return np.minimum(found, seconds)


def check(source: str, fps: float, native: bool = False) -> float:
    """Checks a source's option `fps`; if `native`, 0 keeps each sequence's own rate."""
    return 0.0 if native and fps == 0 else keypoint_files.check_fps(fps, f"{source}: fps")


def label(fps: float, default: float) -> str:
    """Names a rate in a variant's name, "" for the source's default."""
    if fps == default:
        return ""
    return f"_{fps:g}fps" if fps else "_own-fps"


def training_times(frames: int, fps: float, training_fps: float) -> np.ndarray:
    """Computes the times in seconds of a lifter's frames, from 0 to the video's end or beyond.

    The video has `frames` at `fps`; the lifter was trained at `training_fps`.
    """
    steps = (frames - 1) * training_fps / fps
    return np.arange(int(np.ceil(steps - 1e-6)) + 1) / training_fps


def resample_keypoints(
    keypoints: np.ndarray, confidence: np.ndarray, fps: float, training_fps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolates keypoints linearly at another frame rate.

    If one of both neighbours is unseen, the point takes the other when that is nearer, and is
    unseen otherwise.

    Returns:
      Keypoints `[frames, joints, 2]` and confidence at `training_times`; the last frame holds
      after the end.
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
    """Interpolates positions at `training_times` linearly at the `frames` of the video."""
    if fps == training_fps:
        return positions
    place = np.arange(frames) * training_fps / fps
    before = np.minimum(np.floor(place + 1e-9).astype(int), len(positions) - 1)
    after = np.minimum(before + 1, len(positions) - 1)
    share = np.clip(place - before, 0.0, 1.0).reshape(-1, *[1] * (positions.ndim - 1))
    return (1 - share) * positions[before] + share * positions[after]


def resample(record: dict, fps: float) -> dict:
    """Resamples a record of `pose_set.pose_features` to another frame rate.

    Joints and scale are interpolated linearly, keypoints by `resample_keypoints`.
    There is no low-pass filter, since human motion has hardly any content above 12 Hz. Between
    frames bones shorten by up to (angle of a step)^2 / 8 of their length; whole ratios, such as 50
    to 25, keep the record's own frames.

    The result runs from the first frame to the last time within the sequence; 0 frames per second
    keep the record's rate.
    """
    own = float(record["fps"])
    if fps in (0, own):
        return record
    count = len(times((len(record["joints"]) - 1) / own, fps))
    changed = {
        name: resample_positions(record[name], count, fps, own)
        for name in ("joints", "scale") if name in record
    }
    pixels, confidence = resample_keypoints(
        record["keypoints"], record["confidence"], own, fps
    )
    changed |= {"keypoints": pixels[:count], "confidence": confidence[:count]}
    return {
        **record, "fps": fps,
        **{name: values.astype(np.float32) for name, values in changed.items()},
    }
