"""One walk in the form of each detector: the same points, frames and people come out of each."""

import json
import pathlib

import numpy as np
import pytest

from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.keypoints import frame_numbers, gaps, keypoint_files

SIZE, FPS, FRAMES = (1920, 1080), 30.0, 90
COCO = joint_sets.joint_set("coco").joints


@pytest.fixture
def walk(shared_cases):
    """The reference: COCO's points `[90, 17, 2]`."""
    with np.load(shared_cases / "pose" / "00_reference" / "walk_coco.npz") as file:
        return file["keypoints"]


def human36m(points):
    return joint_sets.to_human36m("coco")(points, np.ones(points.shape[:2]))[0]


def read(path, **options):
    return keypoint_files.read(path, **{"fps": FPS, "size": SIZE, **options})


SAID = {"size": None, "fps": None}


@pytest.mark.parametrize(("file", "options"), [
    ("03_wholebody133/wb.json", {}), ("03_wholebody133/wb.npz", SAID),
    ("04_mediapipe33/coco_norm.json", {}), ("04_mediapipe33/landmarks_dict.json", {}),
    ("04_mediapipe33/mp33.npz", SAID), ("04_mediapipe33/mp_coco_norm.npz", SAID),
    ("05_mmpose_json/inferencer.json", {}), ("05_mmpose_json/results_walk.json", {}),
    ("06_ultralytics/results.json", {}), ("06_ultralytics/labels", {}),
    ("06_ultralytics/stacked.npz", {}), ("07_vp3d_custom/walk.mp4.npz", {"size": None}),
    ("07_vp3d_custom/data_2d_custom_one.npz", {"size": None}),
    ("08_missing_values/nested.json", {}), ("08_missing_values/noconf2.json", {}),
    ("17_names_ids/suffix_1080p.json", {}), ("17_names_ids/person_suffix.json", {}),
    ("17_names_ids/sec_dot.json", {}), ("17_names_ids/timestamp.json", {}),
])
def test_the_same_points_in_every_form(shared_cases, walk, file, options):
    video = read(shared_cases / "pose" / file, **options)
    (track,) = video.tracks
    assert (video.fps, video.size, track.start) == (FPS, SIZE, 0)
    np.testing.assert_array_equal(track.states, np.full(FRAMES, gaps.SEEN))
    np.testing.assert_allclose(track.keypoints, human36m(walk), atol=0.01)


@pytest.mark.parametrize("name", [
    "conf0.npz", "minus1.npz", "minus1_conf.npz", "nan.json", "nan.npz", "nan_conf.npz",
    "nokp.json", "null.json", "zero.npz",
])
def test_missing_points_are_filled(shared_cases, walk, name):
    (track,) = keypoint_files.read(shared_cases / "pose/08_missing_values" / name, **(
        {} if name.endswith("npz") else {"fps": FPS, "size": SIZE})).tracks
    frames = track.start + np.arange(len(track.keypoints))
    off = np.linalg.norm(track.keypoints - human36m(walk)[frames], axis=-1)
    assert off.mean() < 0.7  # pixels; the person is about 600 tall
    assert (track.states > gaps.ABSENT).all()


def test_frames_without_anybody(shared_cases):
    (track,) = read(shared_cases / "pose/01_openpose_empty/json").tracks
    assert (track.start, len(track.keypoints)) == (5, 80)
    assert np.flatnonzero(track.states == gaps.FILLED).tolist() == [25, 26, 27, 28, 29]
    path = shared_cases / "pose/02_alphapose_gaps/alphapose-results.json"
    (track,) = read(path).tracks
    assert track.start == 10
    assert np.flatnonzero(track.states == gaps.ABSENT).tolist() == list(range(30, 45))
    (track,) = read(path, fill=0.5).tracks
    assert (track.states == gaps.FILLED).sum() == 15


def test_videos_of_several_sizes(shared_cases, walk):
    path = shared_cases / "pose" / "07_vp3d_custom" / "data_2d_custom_myvideos.npz"
    video = keypoint_files.read(path, fps=FPS)
    small, large = video.tracks
    assert (video.size_of(small), video.size_of(large)) == ((960, 540), SIZE)
    np.testing.assert_allclose(large.keypoints, human36m(walk), atol=0.01)


def test_steps_of_numbers_are_the_rate(shared_cases):
    for name, rows, step in (("every_third_frame.json", 30, 3), ("ids_step_2.json", 90, 2)):
        video = read(shared_cases / "pose" / "17_names_ids" / name)
        (track,) = video.tracks
        assert (video.step, video.fps, len(track.keypoints)) == (step, FPS / step, rows)
        np.testing.assert_array_equal(video.frames(track), step * np.arange(rows))
        assert "in steps of" in video.notes[0]


def test_exchanged_ids_are_put_back(shared_cases):
    video = read(shared_cases / "pose" / "17_names_ids" / "ids_swap_at_45.json")
    assert "1 and 2 at frame 45" in video.notes[0]
    for track in video.tracks:  # nobody jumps
        bend = np.abs(np.diff(track.keypoints, 2, axis=0)).max((1, 2))
        assert bend[42:46].max() <= np.delete(bend, slice(42, 46)).max()


# ---- generated, so that they run everywhere

@pytest.fixture(scope="module")
def own():
    """Somebody who walks upright to the right: COCO's points `[60, 17, 3]`."""
    rng = np.random.default_rng(0)
    heights = dict(zip(
        ("nose", "eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"),
        (90, 80, 85, 150, 230, 310, 320, 440, 560), strict=True,
    ))
    side = {"left": 30, "right": -30}
    points = np.array([[
        side.get(name.split("_")[0], 0) * (0.3 if "eye" in name else 1.0),
        heights[name.split("_")[-1]],
    ] for name in COCO], float)
    swing = 25 * np.sin(np.arange(60)[:, None] / 6 + np.arange(17))
    moving = points + np.array([300, 100]) + np.stack(
        [8.0 * np.arange(60)[:, None] + swing, 0 * swing], -1)
    scores = rng.uniform(0.6, 1.0, (60, 17, 1))
    return np.concatenate([moving, scores], -1)


def entry(image, points, **more):
    return {"image_id": image, "keypoints": np.ravel(points).tolist(), **more}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def mediapipe(points):
    names = joint_sets.joint_set("mediapipe33").joints
    places = [COCO.index(name) if name in COCO else 0 for name in names]
    return points[..., places, :]


def forms(own, folder: pathlib.Path):
    """Every form that needs a file: (path, options)."""
    x, y, score = np.moveaxis(own, -1, 0)
    dots = [[{"x": a / 1920, "y": b / 1080, "z": -0.1, "visibility": c} for a, b, c in frame]
            for frame in mediapipe(own).tolist()]
    yield write(folder / "rtm.json", [
        {"keypoints": [frame[:, :2].tolist()], "scores": [frame[:, 2].tolist()]} for frame in own])
    yield write(folder / "text.json", [json.dumps([{"name": "person", "keypoints": {
        "x": list(a), "y": list(b), "visible": list(c)}}]) for a, b, c in
        zip(x, y, score, strict=True)])
    yield write(folder / "frames.json", {"frames": [
        {"frame": i, "people": [{"keypoints": frame.tolist()}]} for i, frame in enumerate(own)]})
    yield write(folder / "tasks.json", [{"landmarks": [frame], "worldLandmarks": [frame]}
                                        for frame in dots])
    yield write(folder / "lists.json", dots)
    yield write(folder / "lines.json", "\n".join(
        json.dumps(entry(i, frame)) for i, frame in enumerate(own)))
    yield write(folder / "names.json", [entry(f"2023-05-01/a12_{i:05d}_of_0060_720p.png", frame)
                                        for i, frame in enumerate(own)])
    yield write(folder / "odd.json", [*(entry(i, f) for i, f in enumerate(own)), None, {"a": 1},
                                      entry(7, [1.0, 2.0]), entry(8, None), "x"])
    np.save(folder / "a.npy", own)
    yield folder / "a.npy"
    several = np.empty(len(own), object)
    several[:] = [frame[None] for frame in own]
    np.savez(folder / "objects.npz", keypoints=several)
    yield folder / "objects.npz"
    np.savez(folder / "first.npz", keypoints_2d=own[:, None, :, :2], scores=own[:, None, :, 2])
    yield folder / "first.npz"
    names = [n.replace("left_", "L").replace("right_", "R") for n in COCO]
    rows = [["scorer", *["m"] * 51], ["bodyparts", *(n for n in names for _ in range(3))],
            ["coords", *["x", "y", "likelihood"] * 17],
            *([i, *np.ravel(frame)] for i, frame in enumerate(own))]
    yield write(folder / "dlc.csv", "\n".join(",".join(map(str, row)) for row in rows))
    rows = [["track", "frame_idx", "instance.score",
             *(f"{n}.{axis}" for n in names for axis in ("x", "y", "score"))],
            *(["", i, 0.9, *np.ravel(frame)] for i, frame in enumerate(own))]
    yield write(folder / "sleap.csv", "\n".join(",".join(map(str, row)) for row in rows))


def test_forms_that_users_write(own, tmp_path):
    paths = list(forms(own, tmp_path))
    assert len(paths) == 13
    for path in paths:
        video = read(path)
        (track,) = video.tracks
        assert video.joint_set in ("coco", "mediapipe33"), path
        assert len(track.keypoints) == 60, path
        np.testing.assert_allclose(track.keypoints, human36m(own[..., :2]), atol=0.01,
                                   err_msg=str(path))


@pytest.mark.parametrize(("turn", "size", "message"), [
    (lambda x, y: (x, y), (1080, 1920), None),
    (lambda x, y: (x, y), (400, 1920), "they fit 1920x400: give --size 1920x400"),
    (lambda x, y: (1080 - y, x), (1080, 1920), "--rotate 270"),
    (lambda x, y: (y, 1920 - x), (1080, 1920), "--rotate 90"),
    (lambda x, y: (1920 - x, 1080 - y), SIZE, "--rotate 180"),
    (lambda x, y: (x / 960 - 1, y / 960 - 0.6), SIZE, "neither pixels nor shares"),
    (lambda x, y: (x, y), (100_000, 100_000), "too small to lift"),
])
def test_what_cannot_be_is_refused(own, tmp_path, turn, size, message):
    x, y = turn(own[..., 0], own[..., 1])
    if message and "fit" in message:
        y = y / 4
    path = write(tmp_path / "a.json", [
        entry(i, np.stack([a, b, c], -1))
        for i, (a, b, c) in enumerate(zip(x, y, own[..., 2], strict=True))])
    if message is None:
        assert len(read(path, size=size).tracks) == 1
        return
    with pytest.raises(UserError, match=message):
        read(path, size=size)
    if "rotate" in message:
        video = read(path, size=size, rotate=int(message.split()[1]))
        assert video.size == SIZE
        np.testing.assert_allclose(video.tracks[0].keypoints, human36m(own[..., :2]), atol=1e-6)


def test_variable_rates_are_resampled(own, tmp_path):
    times = np.cumsum(np.random.default_rng(1).uniform(20, 60, 60))
    times = (times - times[0]).astype(int)
    own = own[:1] + np.stack([0.3 * times, 0 * times, 0 * times], -1)[:, None]  # straight on
    path = write(tmp_path / "a.json", [entry(f"{t}.jpg", f) for t, f in zip(times, own,
                                                                            strict=True)])
    video = read(path)
    (track,) = video.tracks
    assert "no constant rate" in video.notes[0]
    there = track.states == gaps.SEEN
    expected = human36m(own[:1, :, :2]) + np.stack(
        [300 * np.arange(len(there)) / FPS, 0 * there], -1)[:, None]
    assert there.mean() > 0.9
    np.testing.assert_allclose(track.keypoints[there], expected[there], atol=0.01)


def test_ghosts_and_jumps(own, tmp_path):
    ghost = own[:3] * [1, 1, 0.1] + [600, 0, 0]
    path = write(tmp_path / "a.json", [entry(i, f) for i, f in enumerate(own)] + [
        entry(i + 20, f) for i, f in enumerate(ghost)])
    video = read(path)
    assert len(video.tracks) == 1
    assert "left out as ghosts" in video.notes[0]
    assert len(read(path, min_seconds=0.0, min_score=0.0).tracks) == 2
    elsewhere = [entry(i, f + ([900, 0, 0] if i >= 30 else 0), track_id=3)
                 for i, f in enumerate(own)]
    video = read(write(tmp_path / "b.json", elsewhere))
    assert [track.start for track in video.tracks] == [0, 30]
    assert "person 3 jumps" in video.notes[0]
    blink = [entry(i, f + ([900, 0, 0] if i in (30, 31) else 0), track_id=3)
             for i, f in enumerate(own)]
    (track,) = read(write(tmp_path / "c.json", blink)).tracks
    assert np.flatnonzero(track.states == gaps.FILLED).tolist() == [30, 31]


@pytest.mark.parametrize(("text", "fps"), [
    ("25", 25), ("29.97", 29.97), ("30000/1001", 30000 / 1001), (" 24 ", 24)])
def test_rates(text, fps):
    assert frame_numbers.rate(text) == pytest.approx(fps)


@pytest.mark.parametrize("text", ["fast", "30/0", "", "nan"])
def test_no_rates(text):
    with pytest.raises(ValueError, match="no rate"):
        frame_numbers.rate(text)


def test_a_video_is_answered_by_what_to_do(tmp_path):
    (tmp_path / "walk.MP4").write_bytes(b"")
    with pytest.raises(UserError, match=r"is a video; detect keypoints first.*source=walk.MP4"):
        read(tmp_path / "walk.MP4")
