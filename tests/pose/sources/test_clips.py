"""Windows over sequences: every frame once in evaluation, padding masked, inputs as documented."""

import dataclasses
import itertools

import numpy as np
import pytest

from jaxcxr.pose.geometry import cameras
from jaxcxr.pose.sources import clips
from tests import toys


@pytest.mark.parametrize("frames", [1, 4, 9, 27, 64])
def test_evaluation_windows_hold_every_frame_once_and_stitch_back(frames):
    source = toys.toy_clips(frames, frames)
    windows = [source[i] for i in range(len(source))]
    assert sum(window["mask"].sum() for window in windows) == 30 + 7 + 19
    stitched = source.stitch(np.stack([window["joints"] for window in windows]))
    for values, sequence in zip(stitched, source.sequences, strict=True):
        np.testing.assert_array_equal(values, sequence.joints)


@pytest.mark.parametrize(("frames", "stride"), [(9, 3), (9, 9), (27, 9), (4, 7), (9, 1)])
def test_training_windows_reach_the_first_and_the_last_frame(frames, stride):
    source = toys.toy_clips(frames, stride)
    for which, sequence in enumerate(source.sequences):
        starts = [start for index, start in source.windows if index == which]
        assert starts == sorted(set(starts))
        assert starts[0] == 0
        assert all(b - a == stride for a, b in itertools.pairwise(starts))
        if stride <= frames:
            assert starts[-1] + frames >= len(sequence.joints)
        assert starts[-1] < len(sequence.joints)


def test_padding_is_zero_and_masked():
    source = toys.toy_clips(9, 9)
    window = source[[which for which, _ in source.windows].index(1)]  # the sequence of 7 frames
    np.testing.assert_array_equal(window["mask"], [True] * 7 + [False] * 2)
    assert (window["joints"][7:] == 0).all()
    assert (window["keypoints"][7:] == 0).all()
    assert window["keypoints"][:7].any()
    assert {key: value.shape for key, value in window.items()} == {
        "keypoints": (9, 17, 3), "joints": (9, 17, 3), "mask": (9,), "fps": (),
    }


def test_sequences_are_ordered_by_name_whatever_the_order_on_disk():
    sequences = toys.toy_clips(9, 9).sequences
    again = clips.Clips(sequences[::-1], 9, 9)
    assert [s.sequence_id for s in again.sequences] == ["s0", "s1", "s2"]


def test_a_record_becomes_screen_coordinates_and_root_relative_joints():
    rng = np.random.default_rng(0)
    record = {
        "sequence_id": b"s", "subject": b"S1", "action": b"walk", "camera": "c0", "fps": 50.0,
        "keypoints": rng.uniform(0, 1000, (5, 17, 2)).astype(np.float32),
        "confidence": np.ones((5, 17), np.float32),
        "joints": rng.normal(0, 1, (5, 17, 3)).astype(np.float32),
        "image_size": np.array([1000, 500], np.int32),
    }
    record["confidence"][2, 4] = 0.0
    sequence = clips.Sequence.from_record(record)
    assert (sequence.sequence_id, sequence.subject, sequence.camera) == ("s", "S1", "c0")
    x, y = record["keypoints"][0, 1]
    # x from -1 to 1 over the width, y in the same unit about the middle of the height.
    np.testing.assert_allclose(sequence.inputs[0, 1], [x / 500 - 1, y / 500 - 0.5, 1], atol=1e-6)
    screen = cameras.normalize_screen(record["keypoints"], 1000, 500)
    np.testing.assert_allclose(sequence.inputs[3, :, :2], screen[3], atol=1e-6)
    assert (sequence.inputs[2, 4] == 0).all(), "a joint that was not seen"
    assert (sequence.joints[:, 0] == 0).all()
    np.testing.assert_array_equal(sequence.root, record["joints"][:, 0])
    assert sequence.fps == 50.0
    np.testing.assert_allclose(
        sequence.joints[:, 5], record["joints"][:, 5] - record["joints"][:, 0], atol=1e-6
    )
    assert sequence.inputs.dtype == sequence.joints.dtype == np.float32


def with_roots(source):
    rng = np.random.default_rng(1)
    return [
        dataclasses.replace(
            s, root=rng.normal(size=(len(s.joints), 3)).astype(np.float32), fps=25.0 * (i + 1)
        )
        for i, s in enumerate(source.sequences)
    ]


@pytest.mark.parametrize("frames", [1, 4, 9, 27])
def test_windows_about_every_frame(frames):
    sequences = with_roots(toys.toy_clips(9, 9))
    source = clips.Clips(sequences, frames, 1, "center")
    assert len(source) == 30 + 7 + 19
    found = source.read(np.arange(len(source)))
    assert found["mask"].shape == (56, frames)
    assert found["mask"].all()
    stitched, roots = source.stitch(found["joints"]), source.stitch(found["root"])
    before, after = frames // 2, frames - 1 - frames // 2
    windows = iter(found["keypoints"])
    for index, sequence in enumerate(sequences):
        np.testing.assert_array_equal(stitched[index], sequence.joints)
        np.testing.assert_array_equal(roots[index], sequence.root)
        padded = np.pad(sequence.inputs, ((before, after), (0, 0), (0, 0)), mode="edge")
        for t in range(len(sequence.joints)):
            np.testing.assert_array_equal(next(windows), padded[t : t + frames])
    np.testing.assert_array_equal(found["fps"], np.repeat([25, 50, 75], [30, 7, 19]))


def test_training_windows_about_every_third_frame_reach_the_end():
    source = clips.Clips(toys.toy_clips(9, 9).sequences, 9, 3, "center")
    assert [t for which, t in source.windows if which == 0] == [*range(0, 30, 3)]
    assert source[0]["joints"].shape == (1, 17, 3)
    assert "root" not in source[0]


def test_roots_of_windows_are_padded_with_zeros():
    source = clips.Clips(with_roots(toys.toy_clips(9, 9)), 9, 9)
    found = source.read(np.arange(len(source)))
    for values, sequence in zip(source.stitch(found["root"]), source.sequences, strict=True):
        np.testing.assert_array_equal(values, sequence.root)
    assert (found["root"][~found["mask"]] == 0).all()


@pytest.mark.parametrize(("name", "camera", "take", "motion"), [
    ("S9_Walking_1_54138969", "54138969", "S9_Walking_1", "S9_Walking_1"),
    ("S1_Walking_1_chunk0_2", "2", "S1_Walking_1_chunk0", "S1_Walking_1"),
    ("03_02_random0", "random0", "03_02", "03_02"),
])
def test_views_are_of_takes_and_chunks_of_motions(name, camera, take, motion):
    empty = np.zeros((1, 17, 3), np.float32)
    sequence = clips.Sequence(name, "S", "Walking", camera, empty, empty)
    assert (sequence.take, sequence.motion) == (take, motion)


def blank_clips(lengths, frames, stride):
    sequences = [
        clips.Sequence(f"{i:03d}", "", "", "", np.zeros((n, 17, 3), np.float32),
                       np.zeros((n, 17, 3), np.float32)) for i, n in enumerate(lengths)
    ]
    return clips.Clips(sequences, frames, stride)


@pytest.mark.parametrize("frames", [1, 2, 9, 27])
def test_windows_of_any_length_leave_no_seam(frames):
    lengths = [1, frames, frames + 1, 5 * frames // 2 + 1, 100]
    source = blank_clips(lengths, frames, max(1, frames // 2))
    constant = np.full((len(source), frames, 2), 3.25)
    for length, whole in zip(lengths, source.cross_fade(constant), strict=True):
        assert whole.shape == (length, 2)
        np.testing.assert_allclose(whole, 3.25, rtol=1e-14)
    # What depends on the frame alone comes out as it is, in whatever window it stood.
    exact = np.stack([np.arange(start, start + frames) * 1.0 for _, start in source.windows])
    for whole in source.cross_fade(exact):
        np.testing.assert_allclose(whole, np.arange(len(whole)), atol=1e-12)


def test_windows_that_disagree_fade_into_each_other():
    frames, length = 16, 24
    source = blank_clips([length], frames, 8)
    assert source.windows == [(0, 0), (0, 8)]
    values = np.stack([np.zeros(frames), np.ones(frames)])[..., None]
    (whole,) = source.cross_fade(values)
    assert (whole[:8] == 0).all()
    assert (whole[16:] == 1).all()
    # sin^2 of half a window and of the other half add up to 1.
    phase = np.pi * (np.arange(8) + 0.5) / frames
    np.testing.assert_allclose(whole[8:16, 0], np.sin(phase) ** 2, atol=1e-12)
