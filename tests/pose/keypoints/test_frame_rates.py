"""Frame rates: what interpolation keeps, what stays missing, sets of several rates, the options."""

import numpy as np
import pytest
from scipy.interpolate import interp1d

from jaxcxr import config as config_lib
from jaxcxr import registry
from jaxcxr.data import preparation
from jaxcxr.deploy import pose_runs
from jaxcxr.errors import UserError
from jaxcxr.pose.evaluation import mean_errors
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.keypoints import frame_rates
from jaxcxr.pose.phantom import actions, body
from jaxcxr.pose.sources import clips
from tests.pose.evaluation.pose_scores import refused


def walk(fps: float, frames: int = 41) -> np.ndarray:
    who = body.make_body(1)
    return body.place(who, actions.ACTIONS["walk"](np.random.default_rng(0), who,
                                                    np.arange(frames) / fps), fps)


def record(joints: np.ndarray, fps: float) -> dict:
    return {
        "sequence_id": "S1_walk_0", "subject": "S1", "action": "walk", "camera": "0", "fps": fps,
        "keypoints": 500 + 200 * joints[..., :2].astype(np.float32),
        "confidence": np.ones(joints.shape[:2], np.float32), "joints": joints.astype(np.float32),
        "image_size": np.array([1000, 1000], np.int32), "intrinsics": np.ones(9, np.float32),
    }


@pytest.mark.parametrize(("fps", "wanted"), [(60, 50), (50, 25), (25, 50), (30, 29.97)])
def test_positions_are_those_of_scipys_linear_interpolation(fps, wanted):
    joints = walk(fps)
    scale = np.linspace(1, 2, len(joints), dtype=np.float32)
    found = frame_rates.resample({**record(joints, fps), "scale": scale}, wanted)
    seconds = np.arange(len(joints)) / fps
    times = np.arange(int(seconds[-1] * wanted + 1e-6) + 1) / wanted
    expected = interp1d(seconds, joints, axis=0)(np.minimum(times, seconds[-1]))
    np.testing.assert_allclose(found["joints"], expected, atol=1e-6)
    np.testing.assert_allclose(found["keypoints"], 500 + 200 * expected[..., :2], atol=1e-3)
    np.testing.assert_allclose(
        found["scale"], interp1d(seconds, scale)(np.minimum(times, seconds[-1])), atol=1e-6)
    assert (found["fps"], found["keypoints"].dtype, len(found["confidence"])) == (
        wanted, np.float32, len(expected))


def test_a_record_keeps_its_own_rate_and_every_second_frame_is_exact():
    whole = record(walk(50), 50.0)
    for fps in (0, 50.0):
        assert frame_rates.resample(whole, fps) is whole
    half = frame_rates.resample(whole, 25.0)
    np.testing.assert_array_equal(half["joints"], whole["joints"][::2])
    np.testing.assert_array_equal(half["keypoints"], whole["keypoints"][::2])
    one = frame_rates.resample(record(walk(50)[:1], 50.0), 30.0)
    assert one["joints"].shape == (1, 17, 3)


def test_bones_hardly_change_and_velocities_in_mm_per_second_do_not():
    slow, fast = (frame_rates.resample(record(walk(60, 121), 60.0), fps)["joints"]
                  for fps in (50.0, 60.0))
    lengths = HUMAN36M.bone_lengths(walk(60)[:1])
    assert np.abs(HUMAN36M.bone_lengths(slow) / lengths - 1).max() < 0.005
    speeds = [mean_errors.mpjve(1000 * x, np.zeros_like(x), fps=fps, root=0)
              for x, fps in ((slow, 50.0), (fast, 60.0))]
    assert speeds[0] == pytest.approx(speeds[1], rel=0.02)


def test_what_is_missing_stays_missing():
    whole = record(walk(60), 60.0)
    whole["confidence"][10:20, 3] = 0
    whole["keypoints"][10:20, 3] = np.nan  # unseen points may hold anything
    whole["confidence"][:, 5] = 0
    found = frame_rates.resample(whole, 50.0)
    place = np.arange(len(found["joints"])) * 60 / 50
    gone = (place > 9.5) & (place < 19.5)
    np.testing.assert_array_equal(found["confidence"][:, 3] == 0, gone)
    assert (found["confidence"][:, 5] == 0).all()
    assert np.isfinite(found["keypoints"]).all()


def test_windows_of_several_rates_say_each_their_own():
    joints = walk(50)
    both = [clips.Sequence.from_record({**frame_rates.resample(record(joints, 50.0), fps),
                                        "sequence_id": f"S1_walk{fps}_0"}) for fps in (25, 50)]
    source = clips.Clips(both, 9, 9)
    found = source.read(np.arange(len(source)))
    which = np.array([source.sequences[w].fps for w, _ in source.windows], np.float32)
    np.testing.assert_array_equal(found["fps"], which)
    assert set(which) == {25.0, 50.0}


@pytest.mark.parametrize("name", ["cmu_mocap", "bvh_mocap", "human36m", "motion_phantom"])
def test_every_source_that_knows_its_rate_has_the_option(name):
    config = registry.builder_class(name).builder_config_class
    default, other = config(), config(fps=25.0)
    assert (default.fps, other.fps) == (50.0, 25.0)
    assert "fps" not in default.name  # what was prepared before is found
    assert other.name == default.name + "_25fps"
    with pytest.raises(UserError, match="from 1 to 1,000"):
        config(fps=0.0)


def test_the_command_prepares_at_another_rate(tmp_path, capsys):
    from jaxcxr import __main__ as command

    options = ["--subjects=4", "--sequences=1", "--seconds=0.4"]
    call = ["prepare", "motion_phantom", "--out", str(tmp_path), *options]
    command.run([*call, "--fps=25"])
    directory = preparation.find(
        "motion_phantom", {"subjects": 4, "sequences": 1, "seconds": 0.4, "fps": 25.0}, tmp_path
    )
    found = clips.read_sequences(directory, "test")
    assert {(s.fps, len(s.joints)) for s in found} == {(25.0, 10)}
    assert "from 1 to 1,000" in refused(capsys, lambda: command.run([*call, "--fps=nan"]))


def test_predict_takes_the_rate_of_the_run():
    settings = config_lib.default("pose")
    for options, expected in (({}, 50.0), ({"fps": 25.0}, 25.0)):
        config_lib.set_source(settings, "cmu_mocap", **options)
        assert pose_runs.training_fps(settings) == expected


@pytest.mark.parametrize(
    ("fps", "training_fps"), [(30, 50), (60, 50), (25, 50), (29.97, 50), (1, 50)]
)
def test_motion_at_constant_speed_comes_back(fps, training_fps):
    frames = 37
    keypoints = np.arange(frames)[:, None, None] / fps * np.ones((1, 17, 2))
    confidence = np.linspace(0.2, 0.9, frames, dtype=np.float32)[:, None] * np.ones((1, 17))
    points, certain = frame_rates.resample_keypoints(keypoints, confidence, fps, training_fps)
    times = frame_rates.training_times(frames, fps, training_fps)
    end = (frames - 1) / fps
    assert times[-2] < end <= times[-1] + 1e-6
    np.testing.assert_allclose(points[:, 0, 0], np.minimum(times, end), atol=1e-9)
    assert (certain > 0).all()
    back = frame_rates.resample_positions(points, frames, fps, training_fps)
    np.testing.assert_allclose(back[:-1], keypoints[:-1], atol=1e-9)
    assert np.abs(back[-1] - keypoints[-1]).max() <= 1 / training_fps


def test_the_same_rate_changes_nothing():
    keypoints = np.random.default_rng(0).normal(size=(5, 17, 2))
    confidence = np.ones((5, 17), np.float32)
    points, certain = frame_rates.resample_keypoints(keypoints, confidence, 50, 50)
    assert points is keypoints
    assert certain is confidence
    assert frame_rates.resample_positions(keypoints, 5, 50, 50) is keypoints


def test_unseen_points_do_not_draw_seen_ones():
    keypoints = np.array([10.0, 0.0, 30.0, 40.0])[:, None, None] * np.ones((1, 1, 2))
    confidence = np.array([[1.0], [0], [0.5], [1]], np.float32)
    points, certain = frame_rates.resample_keypoints(keypoints, confidence, 10, 40)
    # Quarters of a frame: 10 until the middle of the gap, then 30, then between 30 and 40.
    np.testing.assert_allclose(
        points[:, 0, 0], [10, 10, 10, 0, 0, 0, 30, 30, 30, 32.5, 35, 37.5, 40]
    )
    np.testing.assert_allclose(
        certain[:, 0], [1, 1, 1, 0, 0, 0, 0.5, 0.5, 0.5, 0.625, 0.75, 0.875, 1]
    )


def test_a_single_frame():
    keypoints, confidence = np.ones((1, 17, 2)), np.ones((1, 17), np.float32)
    points, _ = frame_rates.resample_keypoints(keypoints, confidence, 30, 50)
    np.testing.assert_array_equal(points, keypoints)
    assert len(frame_rates.resample_positions(points, 1, 30, 50)) == 1
