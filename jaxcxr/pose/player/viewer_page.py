"""Renders motions as one self-contained HTML page: a 3D skeleton to rotate and play.

The page stores positions as 16-bit numbers, in steps of 0.1 mm if everyone stays within 3 m of the
hip, else of 1 mm or more; keypoints in steps of a quarter of a pixel, or more in large images.
"""

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.player.motions import Take
from jaxcxr.report.page import render_template

NONE = -32768  # marks unknown values
_LARGEST = 32767
MOST_FRAMES = 20_000  # on one page, about 6 MB


def page(takes: Sequence[Take], title: str, most_frames: int = MOST_FRAMES) -> str:
    """Renders the page.

    Arguments:
      takes: the sequences to choose from.
      title: heading.
      most_frames: frames of all sequences together; with more, the page has every second, third
        ... frame of each and says so.
    """
    step = max(1, math.ceil(sum(len(take.joints) for take in takes) / most_frames))
    note = "" if step == 1 else f"Long motions: every {_ordinal(step)} frame is shown."
    content = {
        "joints": HUMAN36M.joints, "parents": HUMAN36M.parents, "left": HUMAN36M.left,
        "right": HUMAN36M.right, "none": NONE, "note": note,
        "takes": [_take(take.every(step)) for take in takes],
    }
    return render_template("pose/player/player.html", title=title, content=content)


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")


def _take(take: Take) -> dict:
    reach = max(np.nanmax(np.abs(a)) for a in (take.joints, take.truth) if a is not None)
    scale = max(0.1, float(reach) / _LARGEST)
    entry: dict[str, Any] = {
        "name": take.name, "fps": take.fps, "frames": len(take.joints), "scale": scale,
        "predicted": encode(take.joints, scale),
        "truth": None if take.truth is None else encode(take.truth, scale),
        "input": None,
    }
    if take.keypoints is not None and take.size is not None:
        unseen = take.keypoints[..., 2:] <= 0
        places = np.where(unseen, np.nan, take.keypoints[..., :2])
        reach = np.nanmax(np.abs(places), initial=0.0)
        entry["pixel"] = max(0.25, float(reach) / _LARGEST)
        entry["input"] = encode(places, entry["pixel"])
        entry["size"] = take.size
    return entry


def encode(values: np.ndarray, scale: float) -> str:
    """Encodes `value / scale` as base64 of little-endian int16; `NONE` if not finite."""
    known = np.isfinite(values)
    whole = np.clip(np.rint(np.where(known, values, 0) / scale), -_LARGEST, _LARGEST)
    return base64.b64encode(np.where(known, whole, NONE).astype("<i2").tobytes()).decode()
