"""Places a motion in the room: the standing foot holds, the lower foot touches the floor."""

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation
from scipy.special import logsumexp, softmax

from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.phantom.actions import Motion
from jaxcxr.pose.phantom.body import Body, forward_kinematics

_SOFTNESS = 0.02  # metres; feet within this height of one another share the weight
_ANKLES = [HUMAN36M.index("right_ankle"), HUMAN36M.index("left_ankle")]


def place(body: Body, motion: Motion, fps: float) -> np.ndarray:
    """World positions of a motion whose path is centred on the vertical axis.

    The root moves so that the standing foot stays where it is; feet at one height share the
    weight, so that the motion is smooth.

    Arguments:
      body: the person.
      motion: its angles, heading and lift.
      fps: frames per second.

    Returns:
      `[frames, 17, 3]` in metres, z up, floor at z = 0.
    """
    local = forward_kinematics(body, motion.angles)
    heading = Rotation.from_euler("z", motion.heading[:, None]).as_matrix()
    turned = np.einsum("tab,tjb->tja", heading, local)
    feet = turned[:, _ANKLES]
    height = feet[:, :, 2]
    lowest = -_SOFTNESS * (logsumexp(-height / _SOFTNESS, axis=1) - np.log(2))
    root = np.zeros((len(local), 3))
    root[:, :2] = _path(feet, height, motion, fps)
    root[:, 2] = body.ankle + motion.lift - lowest
    return turned + root[:, None]


def _path(feet, height, motion, fps) -> np.ndarray:
    """Horizontal path of the root `[frames, 2]`, metres."""
    load = softmax(-height / _SOFTNESS, axis=1) if motion.load is None else motion.load
    load = (load[1:] + load[:-1]) / 2
    step = -np.sum(load[..., None] * np.diff(feet[..., :2], axis=0), axis=1)
    if motion.steadiness:
        step = _steady(step, motion, fps)
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(step, axis=0)])
    return path - (path.min(axis=0) + path.max(axis=0)) / 2


def _steady(step, motion, fps) -> np.ndarray:
    # Evened out in the body's frame, in which the mean velocity of a curved path is constant.
    middle = (motion.heading[1:] + motion.heading[:-1]) / 2
    turn = Rotation.from_euler("z", middle[:, None]).as_matrix()[:, :2, :2]
    own = np.einsum("tba,tb->ta", turn, step)
    own = gaussian_filter1d(own, motion.steadiness * fps, axis=0)
    return np.einsum("tab,tb->ta", turn, own)
