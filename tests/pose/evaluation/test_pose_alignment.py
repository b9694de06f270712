"""The alignment of poses against SciPy and a singular value decomposition, in every bad case."""

import time

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.transform import Rotation

from jaxcxr.pose.evaluation import mean_errors, pose_errors


def umeyama(prediction, target):
    """The similarity by the decomposition, one frame after the other."""
    result = []
    for one, other in zip(prediction, target, strict=True):
        moving, fixed = one - one.mean(0), other - other.mean(0)
        u, singular, vt = np.linalg.svd(fixed.T @ moving)
        signs = np.array([1, 1, -1.0 if np.linalg.det(u @ vt) < 0 else 1])
        scale = (singular * signs).sum() / (moving**2).sum()
        result.append(scale * moving @ ((u * signs) @ vt).T + other.mean(0))
    return np.array(result)


def cases():
    rng = np.random.default_rng(5)
    target = rng.normal(0, 300, (200, 17, 3))
    near = target + rng.normal(0, 40, target.shape)
    return {
        "near": (near, target),
        "far": (rng.normal(0, 300, target.shape), target),
        "mirrored": (near * (-1, 1, 1), target),
        "shifted": (near + np.array([1e5, -2e5, 3e5]), target - 4e4),
        "flat prediction": (near * (1, 0, 1), target),
        "flat both, mirrored": (near * (1, -1, 0), target * (1, 1, 0)),
        "tiny": (near * 1e-6, target),
        "metres": (near / 1000, target / 1000),
    }


@pytest.mark.parametrize("name", cases())
def test_the_rotation_is_that_of_the_decomposition(name):
    prediction, target = cases()[name]
    size = np.abs(target).max()
    ours = pose_errors.procrustes(prediction, target)
    np.testing.assert_allclose(ours / size, umeyama(prediction, target) / size, atol=1e-9)


def test_scipys_orthogonal_procrustes_gives_the_same_where_no_reflection_is_better():
    prediction, target = cases()["near"]
    for one, other in zip(prediction[:20], target[:20], strict=True):
        moving, fixed = one - one.mean(0), other - other.mean(0)
        rotation, total = orthogonal_procrustes(moving, fixed)
        expected = total / (moving**2).sum() * moving @ rotation + other.mean(0)
        np.testing.assert_allclose(pose_errors.procrustes(one, other), expected, atol=1e-9)
    # With one it would find the mirror image, and an error far too small.
    mirrored, fixed = (prediction * (-1, 1, 1))[0], target[0] - target[0].mean(0)
    moving = mirrored - mirrored.mean(0)
    rotation, total = orthogonal_procrustes(moving, fixed)
    reflected = total / (moving**2).sum() * moving @ rotation
    assert np.linalg.det(rotation) < 0
    assert mean_errors.mpjpe(reflected, fixed) < mean_errors.p_mpjpe(mirrored, target[0]) / 2


@pytest.mark.parametrize("axis", [(1.0, 0.0, 0.0), (3.0, -2.0, 1.0)])
def test_a_pose_on_a_line_is_moved_onto_the_best_line(axis):
    rng = np.random.default_rng(0)
    target = rng.normal(0, 300, (50, 17, 3))
    line = rng.normal(0, 300, (50, 17, 1)) * np.array(axis) + (5.0, 6.0, 7.0)
    aligned = pose_errors.procrustes(line, target)
    expected = umeyama(line, target)
    # Turning about the line is free: the points on it are not.
    np.testing.assert_allclose(aligned, expected, atol=1e-7)
    assert np.isfinite(aligned).all()


def test_weights_are_those_of_scipys_align_vectors():
    rng = np.random.default_rng(1)
    prediction, target = cases()["near"]
    prediction, target = prediction[:20], target[:20]
    weights = rng.uniform(0.1, 3, prediction.shape[:2])
    weights[:, 4] = 0
    broken = prediction.copy()
    broken[:, 4] = np.nan
    ours = pose_errors.procrustes(broken, target, weights)
    for one, other, w, found in zip(prediction, target, weights, ours, strict=True):
        center = np.average(one, axis=0, weights=w)
        place = np.average(other, axis=0, weights=w)
        turn, _ = Rotation.align_vectors(other - place, one - center, weights=w)
        turned = turn.apply(one - center)
        scale = (w[:, None] * turned * (other - place)).sum() / (w[:, None] * turned**2).sum()
        seen = w > 0
        np.testing.assert_allclose(found[seen], (scale * turned + place)[seen], atol=1e-6)


def test_equal_weights_change_nothing_and_zero_weights_leave_a_joint_out():
    prediction, target = cases()["far"]
    plain = pose_errors.procrustes(prediction, target)
    ones = np.full(prediction.shape[:2], 2.5)
    np.testing.assert_allclose(pose_errors.procrustes(prediction, target, ones), plain, atol=1e-9)
    mask = np.ones(prediction.shape[:2], bool)
    mask[:, [3, 11]] = False
    kept = [j for j in range(17) if j not in (3, 11)]
    expected = pose_errors.procrustes(prediction[:, kept], target[:, kept])
    ours = pose_errors.procrustes(prediction, target, mask)
    np.testing.assert_allclose(ours[:, kept], expected, atol=1e-9)
    nothing = pose_errors.procrustes(prediction, target, np.zeros(prediction.shape[:2]))
    assert np.isfinite(nothing).all()


def test_shapes_and_blocks_make_no_difference(monkeypatch):
    prediction, target = cases()["near"]
    whole = pose_errors.procrustes(prediction, target)
    monkeypatch.setattr(pose_errors, "_BLOCK", 7)
    np.testing.assert_allclose(pose_errors.procrustes(prediction, target), whole, atol=1e-9)
    folded = pose_errors.procrustes(
        prediction.reshape(4, 50, 17, 3), target.reshape(4, 50, 17, 3)
    )
    np.testing.assert_allclose(folded.reshape(whole.shape), whole, atol=1e-9)


def test_the_middle_of_both_hips_can_be_the_root():
    _, target = cases()["near"]
    moved = pose_errors.centered(target, (2, 5))
    np.testing.assert_allclose((moved[:, 2] + moved[:, 5]) / 2, 0, atol=1e-12)
    assert np.array_equal(pose_errors.centered(target, 3), target - target[:, 3:4])


@pytest.mark.slow
def test_all_test_frames_of_human36m_take_under_ten_seconds():
    rng = np.random.default_rng(0)
    target = rng.normal(0, 300, (566_920, 17, 3)).astype(np.float32)
    prediction = target + rng.normal(0, 40, target.shape).astype(np.float32)
    # A single thread's own time: what else the machine does is no property of the metrics.
    start = time.process_time()
    values = mean_errors.mpjpe(prediction, target), mean_errors.p_mpjpe(prediction, target)
    velocity = mean_errors.mpjve(prediction, target)
    seconds = time.process_time() - start
    print(f"MPJPE, P-MPJPE and MPJVE of 566,920 frames: {seconds:.1f} s")
    assert values[1] < values[0] < velocity
    assert seconds < 10
