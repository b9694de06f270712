"""Files of 2D keypoints in each form, people followed, and every mistake a sentence."""

import json
import math

import numpy as np
import pytest

from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.keypoints import keypoint_files
from jaxcxr.pose.keypoints import people as people_of
from tests.pose.sources import fuzz

SIZE = (640, 480)
FPS = 30.0


def person(rng, joints, frames=6, at=(100.0, 100.0), speed=4.0):
    """Points `[frames, joints, 3]` of somebody who walks to the right."""
    shape = rng.uniform(0, 80, (joints, 2)) + at
    walk = np.arange(frames)[:, None, None] * np.array([speed, 0.0])
    confidence = rng.uniform(0.4, 1.0, (frames, joints, 1))
    return np.concatenate([shape + walk, confidence], -1)


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def entry(image, points, **more):
    return {"image_id": image, "category_id": 1, "score": 0.9,
            "keypoints": points.ravel().tolist(), **more}


def read(path, **options):
    return keypoint_files.read(path, **{"fps": FPS, "size": SIZE, "rotate": 0, **options})


def expected(name, points):
    return joint_sets.to_human36m(name)(points[..., :2], points[..., 2])


def assert_is(track, name, points):
    places, confidence = expected(name, points)
    seen = confidence > 0
    np.testing.assert_allclose(track.keypoints[seen], places[seen], atol=1e-9)
    np.testing.assert_allclose(track.confidence, confidence, atol=1e-6)


def test_coco_results_of_two_people_by_id(tmp_path):
    rng = np.random.default_rng(0)
    a, b = person(rng, 17), person(rng, 17, at=(110.0, 100.0))
    rows = [entry(i + 1, points[i], track_id=who) for i in range(6) for who, points in
            ((11, b), (2, a)) if not (who == 11 and i == 3)]
    rng.shuffle(rows)
    video = read(write(tmp_path / "a.json", rows))
    assert [track.person for track in video.tracks] == ["2", "11"]
    assert video.joint_set == "coco"
    assert_is(video.tracks[0], "coco", a)
    assert not video.tracks[1].confidence[3].any()
    assert video.tracks[1].states.tolist() == [2, 2, 2, 1, 2, 2]
    np.testing.assert_allclose(
        video.tracks[1].keypoints[3], video.tracks[1].keypoints[[2, 4]].mean(0)
    )
    b[3, :, 2] = 0
    assert_is(video.tracks[1], "coco", b)


def test_coco_annotations_say_the_size_and_visibility(tmp_path):
    points = person(np.random.default_rng(1), 17, 3)
    points[..., 2] = [[0, 1, 2][joint % 3] for joint in range(17)]
    content = {
        "images": [{"id": 70 + i, "file_name": f"v_{i:05d}.jpg", "width": 320, "height": 200}
                   for i in range(3)],
        "annotations": [entry(70 + i, points[i]) for i in range(3)],
    }
    video = keypoint_files.read(write(tmp_path / "a.json", content), fps=25)
    assert video.size == (320, 200)
    assert video.tracks[0].start == 0
    assert set(np.unique(video.tracks[0].confidence)) == {0, 1}
    content["images"][1]["width"] = 321
    with pytest.raises(UserError, match=r"several sizes \(320x200, 321x200\)"):
        keypoint_files.read(write(tmp_path / "a.json", content), fps=25)


@pytest.mark.parametrize(("count", "name"), [(17, "coco"), (26, "halpe26"), (136, "halpe26")])
def test_alphapose(tmp_path, count, name):
    points = person(np.random.default_rng(2), count)
    kept = points[:, : len(joint_sets.joint_set(name).joints)]
    rows = [entry(f"{i}.jpg", points[i], idx=[7]) for i in range(6)]
    (track,) = read(write(tmp_path / "a.json", rows)).tracks
    assert track.person == "7"
    assert_is(track, name, kept)


def write_openpose(folder, frames, ids=None):
    folder.mkdir()
    for i, people in enumerate(frames):
        content = {"version": 1.3, "people": [
            {"person_id": [-1] if ids is None else [ids[k]],
             "pose_keypoints_2d": points.ravel().tolist()} for k, points in enumerate(people)
        ]}
        write(folder / f"clip_{i:012d}_keypoints.json", content)
    return folder


def test_openpose_body25(tmp_path):
    points = person(np.random.default_rng(3), 25)
    points[2, 4] = 0
    frames = [[], *([points[i]] for i in range(6)), []]
    (track,) = read(write_openpose(tmp_path / "json", frames)).tracks
    assert track.start == 1
    assert_is(track, "openpose25", points)


def test_openpose_coco18_is_coco_and_a_neck(tmp_path):
    sides = ("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle")
    limbs = [f"{side}_{part}" for parts in sides for side in ("right", "left") for part in parts]
    face = ["right_eye", "left_eye", "right_ear", "left_ear"]
    names = ["nose", "neck", *limbs, *face]
    points = person(np.random.default_rng(4), 18)
    order = [names.index(joint) for joint in joint_sets.joint_set("coco").joints]
    (track,) = read(write_openpose(tmp_path / "json", [[p] for p in points])).tracks
    assert_is(track, "coco", points[:, order])


def test_openpose_with_the_mpi_model(tmp_path):
    points = person(np.random.default_rng(11), 15, 4)
    folder = tmp_path / "json"
    folder.mkdir()
    for i, frame in enumerate(points):
        write(folder / f"v_{i:012d}_keypoints.json",
              {"version": 1.3, "people": [{"person_id": [-1],
                                           "pose_keypoints_2d": frame.ravel().tolist()}]})
    video = read(folder)
    assert video.joint_set == "openpose15"
    assert_is(video.tracks[0], "openpose15", points)


# Of COCO's points the first is the nose, then left before right; OpenPose has the neck second and
# right before left. Source: the documentation of OpenPose's output.
OPENPOSE18 = [0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]


@pytest.mark.parametrize(("form", "inner"), [("bodies", "joints"), ("people", "pose_keypoints_2d")])
def test_alphapose_in_the_forms_of_others(tmp_path, form, inner):
    """--format cmu and --format open: one file of all images, and sep-json with one for each."""
    rng = np.random.default_rng(12)
    coco = [person(rng, 17, 5), person(rng, 17, 5, at=(400.0, 100.0))]
    content = {}
    for i in range(5):
        people = []
        for who in coco:
            neck = who[i, [5, 6]].mean(0)
            rows = [neck if place is None else who[i, place] for place in OPENPOSE18]
            people.append({inner: np.ravel(rows).tolist()})
        content[f"{i + 3}.jpg"] = {"version": "AlphaPose v0.3", form: people}
    folder = tmp_path / "sep-json"
    folder.mkdir()
    for name, image in content.items():
        write(folder / f"{name.split('.')[0]}.json", image)
    for path in (write(tmp_path / "alphapose-results.json", content), folder):
        video = read(path)
        assert video.joint_set == "coco"
        assert len(video.tracks) == 2
        for track, points in zip(video.tracks, coco, strict=True):
            assert_is(track, "coco", points)
    content["4"] = content["3.jpg"]
    with pytest.raises(UserError, match="frame 4 comes twice"):
        read(write(tmp_path / "twice.json", content))
    with pytest.raises(UserError, match="no person in any of 1 frames"):
        read(write(tmp_path / "nobody.json", {"7.jpg": {form: []}}))


def test_people_without_ids_are_followed(tmp_path):
    rng = np.random.default_rng(5)
    a = person(rng, 17, 20, at=(0.0, 100.0), speed=12.0)
    b = person(rng, 17, 20, at=(400.0, 120.0), speed=-9.0)  # they pass each other
    rows = []
    for i in range(20):
        people = [("a", a[i]), ("b", b[i])]
        rng.shuffle(people)
        rows += [entry(i, points) for who, points in people if not (who == "b" and 4 <= i < 9)]
    video = read(write(tmp_path / "a.json", rows))
    b[4:9, :, 2] = 0
    assert [track.person for track in video.tracks] == ["0", "1"]
    start = {track.keypoints[0, 0, 0] < 200: track for track in video.tracks}
    assert_is(start[True], "coco", a)
    assert_is(start[False], "coco", b)


def test_who_was_out_of_sight_for_long_is_somebody_else():
    points = person(np.random.default_rng(6), 17, 1)[0]
    for gap, people in ((15, 1), (16, 2)):
        tracks = people_of.follow({0: [(None, points)], gap: [(None, points)]}, fps=30)
        assert len(tracks) == people


def test_likeness_is_the_intersection_over_union():
    a = np.array([[0, 0, 1], [10, 10, 1.0]])
    b = np.array([[5, 0, 1], [15, 10, 1.0]])
    assert people_of.likeness(a, b) == pytest.approx(1 + 50 / 150)
    far = a + np.array([100, 0, 0])
    assert people_of.likeness(a, far) == 0
    near = a + np.array([11, 0, 0])
    assert people_of.likeness(a, near) == 0
    beside = a + np.array([6, 6, 0])  # overlap 16/184 < 0.1, centres 8.49 of at most 7.07 apart
    assert people_of.likeness(a, beside) == 0
    line = np.array([[0, 0, 1], [0, 10, 1.0]])  # no area, so no overlap
    assert people_of.likeness(line, line + np.array([1, 0, 0])) == pytest.approx(1 - 1 / 5)
    unseen = a * [1, 1, 0]
    assert people_of.likeness(a, unseen) == 0


@pytest.mark.parametrize("shape", [(5, 17, 2), (5, 17, 3), (3, 5, 17, 2), (3, 5, 17, 3)])
def test_arrays(tmp_path, shape):
    values = np.random.default_rng(7).uniform(0.1, 0.9, shape)
    values[..., :2] = 300 * values[..., :2] + np.linspace(0, 9, shape[-3])[:, None, None]
    path = tmp_path / "a.npz"
    np.savez(path, keypoints=values, joint_set="coco", image_size=SIZE, fps=50.0)
    video = keypoint_files.read(path, rotate=0)
    assert (video.fps, video.size, len(video.tracks)) == (50, SIZE, 3 if len(shape) == 4 else 1)
    if shape[-1] == 2:
        values = np.concatenate([values, np.ones((*shape[:-1], 1))], -1)
    for track, points in zip(video.tracks, values.reshape(-1, 5, 17, 3), strict=True):
        assert_is(track, "coco", points)


def test_videopose3d_files_of_own_videos(tmp_path):
    points = person(np.random.default_rng(8), 17, 4)
    metadata = {"layout_name": "coco", "num_joints": 17, "keypoints_symmetry": [[1], [2]],
                "video_metadata": {"walk.mp4": {"w": 640, "h": 480}}}
    path = tmp_path / "data_2d_custom_x.npz"
    np.savez(path, positions_2d={"walk.mp4": {"custom": [points[..., :2]]}}, metadata=metadata)
    video = keypoint_files.read(path, fps=25)
    assert video.size == SIZE
    points[..., 2] = 1
    assert_is(video.tracks[0], "coco", points)
    assert video.tracks[0].person == "walk.mp4"


GOOD = np.random.default_rng(9).uniform(1, 400, (4, 17, 3))
GOOD[..., 2] = 0.5


@pytest.mark.parametrize(("change", "message"), [
    (lambda p: p[:, :14], "14 points; 17, 26"),
    (lambda p: p[:, :10].reshape(len(p), -1), "10 points; 17, 26"),
    (lambda p: p.reshape(len(p), -1)[:, :49], "49 numbers are neither"),
    (lambda p: np.where(np.arange(3) < 1, np.nan, p), "no point of any person"),
    (lambda p: np.where(np.arange(3) < 2, p, np.nan), "no point of any person"),
    (lambda p: np.where(np.arange(3) < 2, p, -1), "no point of any person"),
    (lambda p: np.where(np.arange(3) < 2, p * 1e9, 1), "no point of any person"),
    (lambda p: np.where(np.arange(3) < 2, p * 100, 1), "lie outside the image of 640x480"),
    (lambda p: np.where(np.arange(3) < 2, p, 0), "no point of any person"),
    (lambda p: p * [1 / 320, 1 / 240, 1] - [1, 1, 0], "neither pixels nor shares"),
    (lambda p: p / 200 + [100, 100, 0], "too small to lift"),
])
def test_bad_points_in_lists(tmp_path, change, message):
    path = write(tmp_path / "a.json", [entry(i, points) for i, points in enumerate(change(GOOD))])
    with pytest.raises(UserError, match=message) as said:
        read(path)
    assert str(path) in str(said.value)


@pytest.mark.parametrize(("content", "message"), [
    ([], "neither a list"),
    ({}, "neither a list"),
    ({"people": []}, "no person in any of 1 frames"),
    ([{"image_id": 3}], "no person in any of 1 frames"),
    (["x", entry(1, GOOD[0])], "entry 0: it is text"),
    ([{"keypoints": points.tolist()} for points in GOOD[:, :, ::-1] * [0, 1, 1] +
      np.arange(4)[:, None, None] * [900, 0, 0]], "without the image"),
    ([{"frame": i, "pose_world_landmarks": [{"x": 0.1, "y": 0.2}] * 33} for i in range(3)],
     "world landmarks are metres"),
    ([entry(0, GOOD[0]), entry(1, np.tile(GOOD[0], (2, 1))[:26])], "another number of points"),
    ([entry("first.jpg", GOOD[0])], "has no number"),
    ([entry(0, GOOD[0]), entry(391895, GOOD[1])], "are not one video"),
])
def test_bad_lists(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read(write(tmp_path / "a.json", content))


def test_what_nothing_tells_is_asked_for(tmp_path):
    path = write(tmp_path / "a.json", [entry(0, GOOD[0])])
    for options, message in (
        ({"size": None}, "give --size, such as"), ({"fps": None}, "give --fps"),
        ({"fps": 0.0}, "from 1 to 1,000"), ({"fps": math.nan}, "from 1 to 1,000"),
        ({"joints": "openpose25"}, "'openpose25' has 25"), ({"joints": "coc"}, "Did you mean"),
        ({"size": (0, 5)}, "0x5 pixels"),
    ):
        with pytest.raises(UserError, match=message):
            read(path, **options)
    with pytest.raises(UserError, match="no keypoints at"):
        read(tmp_path / "other.json")


@pytest.mark.parametrize(("arrays", "message"), [
    ({"keypoints": np.zeros((0, 17, 2))}, "at least one frame"),
    ({"keypoints": np.zeros((17, 2))}, r"shape \[17, 2\]"),
    ({"keypoints": GOOD}, "name the right one with --joints"),
    ({"keypoints": np.full((2, 16, 2), np.nan)}, "no point of any person"),
    ({"keypoints": GOOD, "joint_set": "coco", "image_size": [480, 640]}, "not 640x480 as --size"),
    ({"keypoints": GOOD, "joint_set": "coco", "fps": "fast"}, "is no rate"),
    ({"keypoints": GOOD[:, :16, :2], "confidence": np.ones((4, 17))}, "confidence has the shape"),
    ({"keypoints": GOOD, "joint_set": "coco", "people": ["a", "b"]}, "1 people, but the ids a, b"),
    ({"keypoints": GOOD, "joint_set": "coco", "image_size": [1, 2, 3]}, "width and height"),
    ({"poses": GOOD}, "it has poses"),
    ({"keypoints": np.array(["a"])}, "must be a list of numbers"),
    ({"positions_2d": {}}, "no video"),
])
def test_bad_arrays(tmp_path, arrays, message):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=message):
        read(path)


def test_openpose_folders_with_mistakes(tmp_path):
    folder = tmp_path / "json"
    folder.mkdir()
    with pytest.raises(UserError, match=r"no \.json or \.txt file"):
        read(folder)
    write(folder / "a_0_keypoints.json", {"people": []})
    with pytest.raises(UserError, match="no person in any of 1 frames"):
        read(folder)
    write(folder / "a_1_keypoints.json", {"people": [{"face": []}]})
    with pytest.raises(UserError, match="no person in any of 2 frames"):
        read(folder)
    write(folder / "a_1_keypoints.json", {"people": [{"pose_keypoints_2d": [1.0] * 42}]})
    with pytest.raises(UserError, match="14 points; 17, 26"):
        read(folder)
    write(folder / "a_1_keypoints.json",
          {"people": [{"pose_keypoints_2d": GOOD[0].ravel().tolist()}]})
    write(folder / "b_1_keypoints.json", {"people": []})
    with pytest.raises(UserError, match="frame 1 comes twice"):
        read(folder)


@pytest.mark.parametrize("kind", ["coco", "openpose", "alphapose", "npz"])
def test_damaged_files(tmp_path, kind):
    path = tmp_path / "a_1_keypoints.json"
    if kind == "coco":
        rows = [entry(f"{i}.jpg", GOOD[i].round(1), idx=1) for i in range(2)]
        valid = json.dumps(rows).encode()
    elif kind == "openpose":
        points = np.tile(GOOD[0], (2, 1))[:25].round(1).ravel().tolist()
        valid = json.dumps({"people": [{"person_id": [-1], "pose_keypoints_2d": points}]}).encode()
    elif kind == "alphapose":
        points = np.tile(GOOD[0], (2, 1))[:18].round(1).ravel().tolist()
        valid = json.dumps({"1.jpg": {"version": "AlphaPose v0.3", "bodies": [
            {"joints": points}]}, "2.jpg": {"bodies": []}}).encode()
    else:
        path = tmp_path / "a.npz"
        np.savez(path, keypoints=GOOD[:2], joint_set="coco")
        valid = path.read_bytes()

    def write_and_read(content):
        path.write_bytes(content)
        read(tmp_path if kind == "openpose" else path)

    fuzz.assert_only_user_errors(write_and_read, valid, str(tmp_path), examples=60)
