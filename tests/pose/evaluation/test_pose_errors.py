"""Pose metrics against SciPy's Procrustes analysis and closed forms."""

import numpy as np
import pytest
from scipy.spatial import procrustes as scipy_procrustes
from scipy.spatial.transform import Rotation

from jaxcxr.pose.evaluation import mean_errors, pose_errors


@pytest.fixture
def poses():
    rng = np.random.default_rng(0)
    target = rng.normal(0, 300, (6, 17, 3))
    return target + rng.normal(0, 60, target.shape), target


def _similar(target, scale=1.7):
    turn = Rotation.random(len(target), rng=np.random.default_rng(1)).as_matrix()
    return scale * np.einsum("tab,tjb->tja", turn, target) + (10.0, -400.0, 77.0)


def test_mpjpe_of_a_shift_is_its_length(poses):
    _, target = poses
    shifted = target + np.array([3.0, 4.0, 12.0])
    assert mean_errors.mpjpe(shifted, target) == pytest.approx(13)
    assert mean_errors.per_joint(shifted, target) == pytest.approx(np.full(17, 13))


def test_mpjpe_of_one_wrong_joint(poses):
    _, target = poses
    prediction = target.copy()
    prediction[2, 5] += (0, 0, 102.0)
    assert mean_errors.mpjpe(prediction, target) == pytest.approx(102 / 17 / 6)
    assert np.flatnonzero(mean_errors.per_joint(prediction, target)).tolist() == [5]
    assert mean_errors.per_joint(prediction, target)[5] == pytest.approx(17)


def test_p_mpjpe_forgives_similarities_and_nothing_else(poses):
    _, target = poses
    assert mean_errors.p_mpjpe(_similar(target), target) == pytest.approx(0, abs=1e-9)
    assert mean_errors.mpjpe(_similar(target), target) > 100
    mirrored = _similar(target) * (-1, 1, 1)
    assert mean_errors.p_mpjpe(mirrored, target) > 50


def test_procrustes_is_scipys(poses):
    prediction, target = poses
    for one, other in zip(prediction, target, strict=True):
        theirs_target, theirs, disparity = scipy_procrustes(other, one)
        # SciPy scales the target to unit norm and allows reflections; none is best here.
        size = np.linalg.norm(other - other.mean(0))
        aligned = pose_errors.procrustes(one, other)
        np.testing.assert_allclose((aligned - other.mean(0)) / size, theirs, atol=1e-10)
        np.testing.assert_allclose((other - other.mean(0)) / size, theirs_target, atol=1e-10)
        assert ((aligned - other) ** 2).sum() / size**2 == pytest.approx(disparity)


def test_procrustes_rotation_is_scipys_where_a_reflection_would_be_better(poses):
    prediction, target = poses
    mirrored = prediction * (1, -1, 1)
    aligned = pose_errors.procrustes(mirrored, target)
    for one, other, ours in zip(mirrored, target, aligned, strict=True):
        moving, fixed = one - one.mean(0), other - other.mean(0)
        turn, _ = Rotation.align_vectors(fixed, moving)
        turned = turn.apply(moving)
        scale = (turned * fixed).sum() / (turned**2).sum()
        np.testing.assert_allclose(ours, scale * turned + other.mean(0), atol=1e-6)


def test_a_flat_pose_is_aligned_without_reflection(poses):
    _, target = poses
    flat = target * (1, 1, 0)
    assert mean_errors.p_mpjpe(_similar(flat), flat) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("point", [(0.0, 0.0, 0.0), (12.3, -4.5, 1e5)])
def test_a_collapsed_prediction_moves_to_the_centroid(poses, point):
    _, target = poses
    collapsed = np.broadcast_to(np.array(point), target.shape)
    expected = np.linalg.norm(target - target.mean(1, keepdims=True), axis=-1).mean()
    assert mean_errors.p_mpjpe(collapsed, target) == pytest.approx(expected)


def test_n_mpjpe_forgives_scale_alone(poses):
    prediction, target = poses
    scales = np.array([0.1, 0.5, 1, 2, 3, 40])[:, None, None]
    assert mean_errors.n_mpjpe(scales * target, target) == pytest.approx(0, abs=1e-9)
    # The best scale is a least-squares fit of the target by the prediction.
    fits = [np.linalg.lstsq(p.reshape(-1, 1), t.ravel(), rcond=None)[0][0]
            for p, t in zip(prediction, target, strict=True)]
    fitted = np.array(fits)[:, None, None] * prediction
    expected = mean_errors.mpjpe(fitted, target)
    assert mean_errors.n_mpjpe(prediction, target) == pytest.approx(expected)
    zero = np.zeros_like(target)
    assert mean_errors.n_mpjpe(zero, target) == pytest.approx(mean_errors.mpjpe(zero, target))


def test_errors_are_ordered_by_freedom(poses):
    # The alignment minimises squares, so the order holds for root mean squares.
    prediction, target = poses
    power = (prediction**2).sum((-2, -1), keepdims=True)
    scaled = (prediction * target).sum((-2, -1), keepdims=True) / power * prediction
    squares = [((p - target) ** 2).sum() for p in
               (pose_errors.procrustes(prediction, target), scaled, prediction)]
    assert squares == sorted(squares)


def test_mpjve_of_a_drift_is_its_speed():
    target = np.random.default_rng(2).normal(size=(2, 20, 17, 3))
    drift = np.arange(20)[:, None, None] * np.array([0.0, 0.6, 0.8])
    assert mean_errors.mpjve(target + drift + 5, target) == pytest.approx(1)
    assert mean_errors.mpjve(target + drift + 5, target, fps=50) == pytest.approx(50)
    weights = np.ones((2, 20))
    weights[0, 10] = 0
    jumping = target + drift
    jumping[0, 10] += 1e6
    assert mean_errors.mpjve(jumping, target, weights) == pytest.approx(1)
    assert np.isnan(mean_errors.mpjve(target[:, :1], target[:, :1]))


@pytest.mark.parametrize("metric", [mean_errors.mpjpe, mean_errors.p_mpjpe, mean_errors.n_mpjpe])
def test_padding_never_enters(poses, metric):
    prediction, target = poses
    padded = np.concatenate([prediction, np.full_like(prediction, np.nan)])
    truth = np.concatenate([target, np.full_like(target, np.nan)])
    mask = np.arange(12) < 6
    expected = metric(prediction, target)
    assert metric(padded, truth, mask) == pytest.approx(expected, rel=1e-12)
    assert np.isnan(metric(padded, truth, np.zeros(12, bool)))


def test_weights_are_repetitions(poses):
    prediction, target = poses
    weights = np.array([1, 2, 0, 3, 1, 1])
    expected = mean_errors.mpjpe(np.repeat(prediction, weights, 0), np.repeat(target, weights, 0))
    assert mean_errors.mpjpe(prediction, target, weights) == pytest.approx(expected)


def test_action_mean_and_frame_mean_differ_as_they_should():
    errors = np.array([10.0, 10.0, 10.0, 50.0])
    means = mean_errors.by_action(errors, ["walk", "walk", "walk", "sit"])
    assert means == {"sit": 50.0, "walk": 10.0}
    assert mean_errors.action_mean(means) == 30.0
    assert mean_errors.weighted_mean(errors) == 20.0
    masked = mean_errors.by_action(errors, ["walk", "walk", "walk", "sit"], np.array([1, 1, 1, 0]))
    assert np.isnan(masked["sit"])
    assert mean_errors.action_mean(masked) == 10.0


def test_wrong_shapes_are_refused(poses):
    prediction, target = poses
    with pytest.raises(ValueError, match="must have one shape"):
        mean_errors.mpjpe(prediction[:1], target)
    with pytest.raises(ValueError, match="do not fit"):
        mean_errors.mpjpe(prediction, target, np.ones(3))
