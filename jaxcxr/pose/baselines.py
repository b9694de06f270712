"""Fits two baselines that a pose lifter must beat: the mean pose and ridge regression."""

from collections.abc import Callable

import numpy as np
from sklearn.linear_model import Ridge


def mean_pose(train: np.ndarray) -> np.ndarray:
    """Computes the mean training pose, the constant with the least squared error."""
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

    def predict(inputs: np.ndarray) -> np.ndarray:
        flat = np.asarray(inputs, np.float64).reshape(-1, model.coef_.shape[1])
        outputs = flat @ model.coef_.T + model.intercept_
        return outputs.reshape(*inputs.shape[:-2], *train_y.shape[1:])

    return predict
