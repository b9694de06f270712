"""Frame rates of motion sequences: the option that sources share, and records at another rate."""

import numpy as np

from jaxcxr.pose.keypoints import keypoint_files, keypoint_windows


def times(seconds: float, fps: float) -> np.ndarray:
    """Times of the frames of a motion at some rate, from 0 to the last within it.

    Arguments:
      seconds: time of its last frame, the first being at 0.
      fps: frames per second.
    """
    # The last sample may fall beyond the end by a rounding error.
    found = np.arange(np.floor(seconds * fps + 1e-6) + 1) / fps
    return np.minimum(found, seconds)


def check(source: str, fps: float, native: bool = False) -> float:
    """The option `fps` of a source.

    Arguments:
      source: its name.
      fps: the option's value.
      native: whether 0 is allowed, for the rate that each sequence has.

    Raises:
      UserError: no possible rate.
    """
    return 0.0 if native and fps == 0 else keypoint_files.check_fps(fps, f"{source}: fps")


def label(fps: float, default: float) -> str:
    """What a variant's name says of its rate: nothing where it is the source's default."""
    if fps == default:
        return ""
    return f"_{fps:g}fps" if fps else "_own-fps"


def resample(record: dict, fps: float) -> dict:
    """A record of `pose_set.pose_features` at another frame rate.

    Joints and scale are interpolated linearly between neighbouring frames, keypoints as
    `keypoint_windows.resample_keypoints` does: what is unseen stays unseen. No low-pass filter:
    human motion holds next to nothing above 12 Hz. Between frames bones get shorter by up to
    (angle of a step)^2 / 8 of their length; at whole ratios, such as 50 to 25, the frames are those
    of the record.

    Arguments:
      record: its features.
      fps: frames per second wanted; 0: those that it has.

    Returns:
      The features from the first frame to the last time within the sequence.
    """
    own = float(record["fps"])
    if fps in (0, own):
        return record
    count = len(times((len(record["joints"]) - 1) / own, fps))
    changed = {
        name: keypoint_windows.resample_positions(record[name], count, fps, own)
        for name in ("joints", "scale") if name in record
    }
    pixels, confidence = keypoint_windows.resample_keypoints(
        record["keypoints"], record["confidence"], own, fps
    )
    changed |= {"keypoints": pixels[:count], "confidence": confidence[:count]}
    return {
        **record, "fps": fps,
        **{name: values.astype(np.float32) for name, values in changed.items()},
    }
