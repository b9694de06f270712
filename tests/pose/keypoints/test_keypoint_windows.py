"""Resampling and cross-fading: analytic cases and invariants."""

import numpy as np
import pytest

from jaxcxr.pose.keypoints import keypoint_windows
from jaxcxr.pose.sources import clips


def windows_of(lengths, frames, stride):
    sequences = [
        clips.Sequence(f"{i:03d}", "", "", "", np.zeros((n, 17, 3), np.float32),
                       np.zeros((n, 17, 3), np.float32)) for i, n in enumerate(lengths)
    ]
    return clips.Clips(sequences, frames, stride).windows


@pytest.mark.parametrize("frames", [1, 2, 9, 27])
def test_windows_of_any_length_leave_no_seam(frames):
    lengths = [1, frames, frames + 1, 5 * frames // 2 + 1, 100]
    windows = windows_of(lengths, frames, max(1, frames // 2))
    constant = np.full((len(windows), frames, 2), 3.25)
    for length, whole in zip(
        lengths, keypoint_windows.cross_fade(constant, windows, lengths), strict=True
    ):
        assert whole.shape == (length, 2)
        np.testing.assert_allclose(whole, 3.25, rtol=1e-14)
    # What depends on the frame alone comes out as it is, in whatever window it stood.
    exact = np.stack([np.arange(start, start + frames) * 1.0 for _, start in windows])
    for whole in keypoint_windows.cross_fade(exact, windows, lengths):
        np.testing.assert_allclose(whole, np.arange(len(whole)), atol=1e-12)


def test_windows_that_disagree_fade_into_each_other():
    frames, length = 16, 24
    windows = windows_of([length], frames, 8)
    assert windows == [(0, 0), (0, 8)]
    values = np.stack([np.zeros(frames), np.ones(frames)])[..., None]
    (whole,) = keypoint_windows.cross_fade(values, windows, [length])
    assert (whole[:8] == 0).all()
    assert (whole[16:] == 1).all()
    # sin^2 of half a window and of the other half add up to 1.
    phase = np.pi * (np.arange(8) + 0.5) / frames
    np.testing.assert_allclose(whole[8:16, 0], np.sin(phase) ** 2, atol=1e-12)


@pytest.mark.parametrize(
    ("fps", "training_fps"), [(30, 50), (60, 50), (25, 50), (29.97, 50), (1, 50)]
)
def test_motion_at_constant_speed_comes_back(fps, training_fps):
    frames = 37
    keypoints = np.arange(frames)[:, None, None] / fps * np.ones((1, 17, 2))
    confidence = np.linspace(0.2, 0.9, frames, dtype=np.float32)[:, None] * np.ones((1, 17))
    points, certain = keypoint_windows.resample_keypoints(keypoints, confidence, fps, training_fps)
    times = keypoint_windows.training_times(frames, fps, training_fps)
    end = (frames - 1) / fps
    assert times[-2] < end <= times[-1] + 1e-6
    np.testing.assert_allclose(points[:, 0, 0], np.minimum(times, end), atol=1e-9)
    assert (certain > 0).all()
    back = keypoint_windows.resample_positions(points, frames, fps, training_fps)
    np.testing.assert_allclose(back[:-1], keypoints[:-1], atol=1e-9)
    assert np.abs(back[-1] - keypoints[-1]).max() <= 1 / training_fps


def test_the_same_rate_changes_nothing():
    keypoints = np.random.default_rng(0).normal(size=(5, 17, 2))
    confidence = np.ones((5, 17), np.float32)
    points, certain = keypoint_windows.resample_keypoints(keypoints, confidence, 50, 50)
    assert points is keypoints
    assert certain is confidence
    assert keypoint_windows.resample_positions(keypoints, 5, 50, 50) is keypoints


def test_unseen_points_do_not_draw_seen_ones():
    keypoints = np.array([10.0, 0.0, 30.0, 40.0])[:, None, None] * np.ones((1, 1, 2))
    confidence = np.array([[1.0], [0], [0.5], [1]], np.float32)
    points, certain = keypoint_windows.resample_keypoints(keypoints, confidence, 10, 40)
    # Quarters of a frame: 10 until the middle of the gap, then 30, then between 30 and 40.
    np.testing.assert_allclose(
        points[:, 0, 0], [10, 10, 10, 0, 0, 0, 30, 30, 30, 32.5, 35, 37.5, 40]
    )
    np.testing.assert_allclose(
        certain[:, 0], [1, 1, 1, 0, 0, 0, 0.5, 0.5, 0.5, 0.625, 0.75, 0.875, 1]
    )


def test_a_single_frame():
    keypoints, confidence = np.ones((1, 17, 2)), np.ones((1, 17), np.float32)
    points, _ = keypoint_windows.resample_keypoints(keypoints, confidence, 30, 50)
    np.testing.assert_array_equal(points, keypoints)
    assert len(keypoint_windows.resample_positions(points, 1, 30, 50)) == 1
