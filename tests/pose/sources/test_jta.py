"""JTA: annotations as published, made from drawn motion, and the prepared data set."""

import json

import numpy as np
import pytest

from jaxcxr.data import preparation
from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import cameras
from jaxcxr.pose.sources import jta
from tests.pose.sources import fuzz, takes_3d

CAMERA = cameras.look_at("camera", jta.LENS, (9.0, 1.0, 2.0), (0.0, 0.0, 1.0))


def person(number: int, frames, seed: int = 0, shift=(0.0, 0.0, 0.0)) -> list[list]:
    """Rows of a person in the frames named; the right wrist is occluded, the left by itself."""
    world = takes_3d.walk(max(frames) + 1, seed, 30.0) + np.array(shift)
    points = CAMERA.to_camera(takes_3d.points("jta22", world))
    pixels = jta.LENS.project(points)
    return [
        [frame, number, joint, *pixels[frame, joint].round(2).tolist(),
         *points[frame, joint].round(6).tolist(), int(joint == 6), int(joint == 10)]
        for frame in frames for joint in range(22)
    ]


def write(raw, frames=14):
    for split in ("train", "val", "test"):
        (raw / split).mkdir(parents=True)
        for seq in (0, 1):
            rows = person(3, range(1, frames + 1), seq) \
                + person(7, range(2, frames + 1), seq + 5, (1.0, 0.5, 0.0))
            (raw / split / f"seq_{seq}.json").write_text(json.dumps(rows))
    return raw


@pytest.fixture
def raw(tmp_path):
    return write(tmp_path / "raw")


def save(path, rows):
    path.write_text(json.dumps(rows))
    return path


def prepared(raw, out, **options):
    builder = preparation.prepare("jta", out, raw=str(raw), **{"workers": 0, **options})
    return {split: {r["sequence_id"].decode(): r for r in builder.as_data_source(split)}
            for split in ("train", "validation", "test")}


def test_prepared(raw, tmp_path):
    found = prepared(raw, tmp_path / "out")
    assert {split: len(records) for split, records in found.items()} == {
        "train": 4, "validation": 4, "test": 4}
    assert set(found["test"]) == {f"test_pedestrian_{seq}_{who}_chunk{start}_camera"
                                  for seq in (0, 1) for who, start in ((3, 1), (7, 2))}
    record = found["validation"]["val_pedestrian_1_3_chunk1_camera"]
    assert (record["subject"], record["action"], record["fps"]) == (b"val", b"pedestrian", 30.0)
    assert tuple(record["image_size"]) == (1920, 1080)
    kept = takes_3d.KEPT
    expected = CAMERA.to_camera(takes_3d.walk(15, 1, 30.0)[1:])
    np.testing.assert_allclose(record["joints"][:, kept], expected[:, kept], atol=1e-5)
    right_wrist, left_wrist = 16, 13
    assert (record["confidence"][:, right_wrist] == 0).all()
    assert (np.delete(record["confidence"], right_wrist, 1) == 1).all()
    shown = [joint for joint in kept if joint != right_wrist]
    np.testing.assert_allclose(record["keypoints"][:, shown],
                               jta.LENS.project(expected)[:, shown], atol=0.01)
    assert (record["keypoints"][:, right_wrist] == 0).all()
    assert left_wrist in shown


def test_occluded_joints_can_be_kept_and_frames_resampled(raw, tmp_path):
    found = prepared(raw, tmp_path / "out", occluded="kept", fps=15.0)
    for record in found["test"].values():
        assert (record["confidence"] == 1).all()
        assert (record["fps"], len(record["joints"])) == (15.0, 7)


def test_people_are_told_apart_and_gaps_end_a_track(tmp_path):
    rows = person(3, [1, 2, 3, 7, 8]) + person(9, [3, 4], 2)
    rng = np.random.default_rng(0)
    rng.shuffle(rows)  # rows may stand in any order
    tracks = jta.read_tracks(save(tmp_path / "seq_5.json", rows))
    assert [(t.person, t.start, len(t.joints)) for t in tracks] == [(3, 1, 3), (3, 7, 2), (9, 3, 2)]
    video = jta.Video("train", "5", str(tmp_path / "seq_5.json"), 0)
    options = {"occluded": "hidden", "max_distance": 0.0, "detector": jta.JtaConfig().detector,
               "seed": 0, "fps": 0.0}
    assert set(jta.encode(video, min_frames=3, **options)) == {
        "train_pedestrian_5_3_chunk1_camera"}
    everyone = jta.encode(video, min_frames=1, **options)
    assert len(everyone) == 3
    assert jta.encode(video, min_frames=1, **options | {"max_distance": 5.0}) == {}


def test_joints_outside_the_image_are_not_seen(tmp_path):
    # Beside the camera's view, the left half of the body is outside.
    rows = person(1, range(1, 10), shift=(0.0, -8.2, 0.0))
    pixels = np.array(rows)[:, 3]
    assert (pixels < 0).any() or (pixels > 1920).any()
    video = jta.Video("test", "1", str(save(tmp_path / "seq_1.json", rows)), 0)
    records = jta.encode(video, "kept", 1, 0.0, jta.JtaConfig().detector, 0, 0.0)
    (record,) = records.values()
    inside = np.all((jta.LENS.project(record["joints"]) >= 0)
                    & (jta.LENS.project(record["joints"]) < (1920, 1080)), -1)
    kept = takes_3d.KEPT
    np.testing.assert_array_equal(record["confidence"][:, kept] > 0, inside[:, kept])
    assert 0 < inside.mean() < 1


def _cell(row, column, value):
    def change(rows):
        rows[row][column] = value
        return rows
    return change


@pytest.mark.parametrize(("change", "match"), [
    (lambda rows: [], "rows have the shape"),
    (lambda rows: {"frames": rows}, "must be a list of rows of numbers"),
    (lambda rows: rows[:-1], "person 3 in frame 4 must have each of the joints"),
    (lambda rows: rows[1:], "person 3 in frame 1 must have each of the joints"),
    (lambda rows: rows + rows[:22], "person 3 in frame 1 must have each"),
    (lambda rows: [row[:9] for row in rows], "rows have the shape"),
    (lambda rows: [row[:9] if i == 3 else row for i, row in enumerate(rows)], "must be a list"),
    (_cell(5, 5, float("nan")), r"row 5: \["),
    (_cell(5, 3, "x"), "must be a list of rows"),
    (_cell(5, 0, 0), "row 5"), (_cell(5, 0, 1.5), "row 5"), (_cell(5, 2, 22), "row 5"),
    (_cell(5, 8, 2), "row 5"), (_cell(5, 1, 1e300), "row 5"),
    (lambda rows: [[*r[:3], r[3] + 300, *r[4:]] for r in rows], "joints are 300 pixels from"),
    (lambda rows: [[*r[:5], r[5], -r[6], *r[7:]] for r in rows], "its camera or axes"),
    (lambda rows: [[*r[:5], *(-x for x in r[5:8]), *r[8:]] for r in rows], "nobody is in front"),
    (lambda rows: [[*r[:5], *(100 * x for x in r[5:8]), *r[8:]] for r in rows], "be in metres"),
])
def test_broken_files(tmp_path, change, match):
    path = save(tmp_path / "seq_1.json", change(person(3, [1, 2, 4])))
    with pytest.raises(UserError, match=match) as said:
        jta.read_tracks(path)
    assert str(path) in str(said.value)


def test_people_who_stand_still_are_read(tmp_path):
    rows = person(3, [1])
    still = [[frame, *row[1:]] for frame in range(1, 6) for row in rows]
    (track,) = jta.read_tracks(save(tmp_path / "seq_1.json", still))
    assert (track.joints == track.joints[:1]).all()


def test_a_truncated_file_is_named_and_can_be_tolerated(raw, tmp_path):
    path = raw / "train" / "seq_1.json"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(UserError, match=r"seq_1\.json must be a list"):
        prepared(raw, tmp_path / "out")
    assert len(prepared(raw, tmp_path / "out", max_bad=1)["train"]) == 2


def test_folders_and_options_with_mistakes(raw, tmp_path):
    for options, match in (
        ({"occluded": "x"}, "allowed: hidden, kept"), ({"min_frames": 0}, "at least 1"),
        ({"max_distance": -1.0}, "at least 0"), ({"fps": 0.5}, "from 1 to 1,000"),
    ):
        with pytest.raises(UserError, match=match):
            prepared(raw, tmp_path / "out", **options)
    with pytest.raises(UserError, match="where is the data"):
        preparation.prepare("jta", tmp_path / "out", workers=0)
    (raw / "val" / "first.json").write_text("[]")
    with pytest.raises(UserError, match=r"is not named like seq_42\.json"):
        jta.find_videos(raw)
    with pytest.raises(UserError, match="give the folder annotations"):
        jta.find_videos(raw / "train")


def test_damaged_files(tmp_path):
    path = tmp_path / "seq_1.json"
    valid = json.dumps(person(3, [1, 2])).encode()

    def write_and_read(damaged):
        path.write_bytes(damaged)
        jta.read_tracks(path)

    fuzz.assert_only_user_errors(write_and_read, valid, path.name, examples=120)
