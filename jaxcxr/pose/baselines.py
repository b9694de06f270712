"""Fits two baselines that a pose lifter must beat: the mean pose and ridge regression."""

from collections.abc import Callable, Iterable

import numpy as np
from sklearn.linear_model import Ridge


def mean_pose(train: np.ndarray) -> np.ndarray:
    """Computes the mean training pose, the constant with the least squared error.

    Arguments:
      train: root-relative joints `[frames, joints, 3]`, any unit.

    Returns:
      `[joints, 3]` in the same unit.
    """
    return train.mean(axis=0, dtype=np.float64)


def ridge(
    train_x: np.ndarray, train_y: np.ndarray, alpha: float = 1.0
) -> Callable[[np.ndarray], np.ndarray]:
    """Fits ridge regression from one frame's keypoints to its root-relative joints.

    Arguments:
      train_x: `[frames, joints, 3]` as (x, y, confidence), normalised to the screen.
      train_y: `[frames, joints, 3]` root-relative, any unit.
      alpha: weight of the squared norm of the coefficients; the intercept is free.

    Returns:
      A function from `[..., joints, 3]` inputs to `[..., joints, 3]` predictions.
    """
    model = Ridge(alpha=alpha, solver="cholesky")
    model.fit(np.asarray(train_x, np.float64).reshape(len(train_x), -1),
              np.asarray(train_y, np.float64).reshape(len(train_y), -1))
    return _predictor(model.coef_.T, model.intercept_, train_y.shape[1:])


def ridge_streamed(
    batches: Iterable[tuple[np.ndarray, np.ndarray]], alpha: float = 1.0
) -> Callable[[np.ndarray], np.ndarray]:
    """Fits the same regression in one pass over data too large for memory (normal equations).

    Arguments:
      batches: pairs (x, y) of `[frames, joints, 3]` each.
      alpha: as in `ridge`.

    Returns:
      A function from `[..., joints, 3]` inputs to `[..., joints, 3]` predictions.

    Raises:
      ValueError: there is no batch.
    """
    gram = cross = total_x = total_y = np.zeros(())
    frames, shape = 0, None
    for x, y in batches:
        shape = y.shape[1:]
        x = np.asarray(x, np.float64).reshape(len(x), -1)
        y = np.asarray(y, np.float64).reshape(len(y), -1)
        gram, cross = gram + x.T @ x, cross + x.T @ y
        total_x, total_y = total_x + x.sum(axis=0), total_y + y.sum(axis=0)
        frames += len(x)
    if not frames:
        raise ValueError("ridge regression got no training frame")
    mean_x, mean_y = total_x / frames, total_y / frames
    gram = gram - frames * np.outer(mean_x, mean_x) + alpha * np.eye(len(mean_x))
    coefficients = np.linalg.solve(gram, cross - frames * np.outer(mean_x, mean_y))
    return _predictor(coefficients, mean_y - mean_x @ coefficients, shape)


def _predictor(coefficients, intercept, shape) -> Callable[[np.ndarray], np.ndarray]:
    def predict(inputs: np.ndarray) -> np.ndarray:
        lead = inputs.shape[:-2]
        flat = np.asarray(inputs, np.float64).reshape(-1, len(coefficients))
        return (flat @ coefficients + intercept).reshape(*lead, *shape)

    return predict
