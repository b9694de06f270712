"""Averages pose errors over joints and frames, or over actions, by their weights."""

from collections.abc import Mapping, Sequence

import numpy as np


def known(poses: np.ndarray) -> np.ndarray:
    """Which joints are finite: `[..., joints, dimensions]` to bool `[..., joints]`."""
    return np.isfinite(poses).all(axis=-1)


def weighted_mean(values: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean of values over those of positive weight.

    Arguments:
      values: `[...]`, one number per frame, or per frame and joint.
      weights: `[...]` mask or weights of the same shape; none: all alike.

    Returns:
      The mean; NaN if nothing has weight.
    """
    values = np.asarray(values, np.float64)
    if weights is None:
        return float(values.mean()) if values.size else float("nan")
    weights = np.asarray(weights, np.float64)
    if weights.shape != values.shape:
        raise ValueError(f"weights {weights.shape} do not fit the frames {values.shape}")
    used = weights > 0
    if not used.any():
        return float("nan")
    return float(np.average(values[used], weights=weights[used]))


def by_action(
    errors: np.ndarray, actions: Sequence[str], weights: np.ndarray | None = None
) -> Mapping[str, float]:
    """Mean of errors within each action.

    Arguments:
      errors: one error per frame, or per frame and joint, `[frames]` or `[frames, joints]`.
      actions: the action of each frame, `[frames]`.
      weights: of the shape of the errors.

    Returns:
      Action to mean error, in alphabetic order. `action_mean` of it is the number that papers
      report for Human3.6M; `weighted_mean(errors, weights)` is the frame mean.
    """
    names = np.asarray(actions)
    errors = np.asarray(errors)
    weights = np.ones(errors.shape) if weights is None else np.asarray(weights)
    return {
        str(name): weighted_mean(errors[names == name], weights[names == name])
        for name in np.unique(names)
    }


def action_mean(means: Mapping[str, float]) -> float:
    """Unweighted mean of the actions' means; an action without a frame (NaN) is left out."""
    values = [value for value in means.values() if not np.isnan(value)]
    return float(np.mean(values)) if values else float("nan")


def joint_weights(weights, shape: tuple[int, ...]) -> np.ndarray | None:
    """Weights of joints `[..., joints]` from those of frames or joints; none stays none."""
    if weights is None:
        return None
    weights = np.asarray(weights, np.float64)
    if weights.shape == shape:
        return weights
    if weights.shape != shape[:-1]:
        raise ValueError(f"weights {weights.shape} do not fit the frames {shape[:-1]}")
    return np.broadcast_to(weights[..., None], shape)


def average_errors(errors, weights, average: str, actions) -> float:
    """Mean of errors `[..., joints]`, over frames or over actions."""
    weights = joint_weights(weights, errors.shape)
    if average == "frame":
        return weighted_mean(errors, weights)
    if average != "action":
        raise ValueError(f"average is {average!r}; 'frame' and 'action' are known")
    if actions is None:
        raise ValueError("average='action' needs the actions of the frames")
    actions = np.broadcast_to(np.asarray(actions), errors.shape[:-1])
    return action_mean(by_action(errors, actions, weights))
