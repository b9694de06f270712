"""HumanEva: files in VideoPose3D's form made from drawn motion, and the prepared data set."""

import cv2
import numpy as np
import pytest

from jaxcxr.data import preparation
from jaxcxr.errors import UserError
from jaxcxr.pose.evaluation import protocols
from jaxcxr.pose.formats import videopose3d_files
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.sources import clips, humaneva
from tests.pose.sources import fuzz, humanevas


@pytest.fixture(scope="module")
def positions():
    return humanevas.positions()


@pytest.fixture
def raw(tmp_path, positions):
    humanevas.save(tmp_path, positions, "gt", humanevas.keypoints(), layout_name="humaneva15")
    return tmp_path


def make(raw, keypoints="gt", **options):
    return preparation.prepare(
        "humaneva", raw / "out", raw=str(raw), keypoints=keypoints, **options
    )


def records(builder, split):
    return {r["sequence_id"].decode(): r for r in builder.as_data_source(split)}


def test_prepared_from_videopose3d_files(raw):
    builder = make(raw)
    found = {split: records(builder, split) for split in ("train", "validation", "test")}
    # Two chunks of Walking and one of Box, three cameras; Gestures are not in the protocol.
    assert [len(found[split]) for split in found] == [18, 9, 27]
    record = found["test"]["Validate/S2_Walking_1_chunk1_C3"]
    assert (record["subject"], record["action"], record["camera"]) == (
        b"Validate/S2", b"Walking", b"C3")
    assert (record["fps"], tuple(record["image_size"])) == (60.0, (640, 480))
    joints = humanevas.world("Validate/S2", "Walking 1 chunk1", 14)
    direct = [i for i, name in enumerate(HUMAN36M.joints) if name not in ("neck", "spine")]
    expected = humaneva.to_camera(joints, "Validate/S2", "C3")[:, direct]
    np.testing.assert_allclose(record["joints"][:, direct], expected, atol=1e-5)
    pixels = humanevas.LENS.project(expected)
    np.testing.assert_allclose(record["keypoints"][:, direct], pixels, atol=1e-3)
    hip, thorax, spine = (record["joints"][:, HUMAN36M.index(n)] for n in
                          ("hip", "thorax", "spine"))
    np.testing.assert_allclose(spine, (hip + thorax) / 2, atol=1e-5)


def test_intrinsics_are_estimated_from_both_files(raw):
    record = next(iter(make(raw).as_data_source("test")))
    lens = humanevas.LENS
    np.testing.assert_allclose(record["intrinsics"][:4], [lens.fx, lens.fy, lens.cx, lens.cy],
                               rtol=0.02)


def test_the_three_cameras_stand_around_people_and_see_them_upright():
    origin = np.array([0.0, 0.0, 1.0])
    for subject in humaneva.SUBJECTS:
        for camera in humaneva.CAMERAS:
            below, above = humaneva.to_camera(
                origin + np.array([[0, 0, -0.5], [0, 0, 0.5]]), subject, camera)
            assert 3 < below[2] < 6
            assert above[1] < below[1] - 0.9


def test_points_of_coco_become_the_common_joints(tmp_path, positions):
    humanevas.save(tmp_path, positions, "detectron_pt_coco", humanevas.coco(),
                   layout_name="coco", num_joints=17)
    record = records(make(tmp_path, "detectron_pt_coco"), "test")["Validate/S1_Box_1_chunk0_C1"]
    limbs = [HUMAN36M.index(name) for name in ("left_wrist", "right_knee", "left_ankle")]
    joints = humanevas.world("Validate/S1", "Box 1 chunk0", 14)[:, limbs]
    expected = humanevas.LENS.project(humaneva.to_camera(joints, "Validate/S1", "C1"))
    np.testing.assert_allclose(record["keypoints"][:, limbs], expected, atol=1e-3)


def test_a_joint_that_was_not_detected_is_missing(tmp_path, positions):
    seen = humanevas.keypoints()
    seen["Validate/S1"]["Box 1 chunk0"][0][3:6, 4] = np.nan
    humanevas.save(tmp_path, positions, "gt", seen, layout_name="humaneva15")
    record = records(make(tmp_path), "test")["Validate/S1_Box_1_chunk0_C1"]
    wrist = HUMAN36M.index("left_wrist")
    np.testing.assert_array_equal(np.flatnonzero(record["confidence"][:, wrist] == 0), [3, 4, 5])
    assert (record["keypoints"][3:6, wrist] == 0).all()


def test_the_protocol_holds_out_a_training_subject(raw):
    protocol, config = protocols.get("humaneva"), humaneva.HumanevaConfig()
    assert set(protocol.train) == {*config.train_subjects, *config.validation_subjects}
    assert protocol.validation == config.validation_subjects
    assert protocol.test == config.test_subjects
    assert protocol.actions == config.actions
    subjects = {split: {s.subject for s in clips.read_sequences(make(raw).data_path, split)}
                for split in ("train", "validation", "test")}
    assert subjects["validation"] == {"Train/S2"}
    assert not subjects["validation"] & (subjects["train"] | subjects["test"])


def test_another_frame_rate_and_all_actions(raw):
    builder = make(raw, fps=30.0, actions="")
    record = records(builder, "test")["Validate/S2_Gestures_1_chunk0_C3"]
    whole = records(make(raw, actions="Gestures"), "test")["Validate/S2_Gestures_1_chunk0_C3"]
    assert record["fps"] == 30.0
    np.testing.assert_allclose(record["joints"], whole["joints"][::2], atol=1e-6)


def test_mistakes_are_sentences(tmp_path, positions):
    def refused(match, **options):
        with pytest.raises(UserError, match=match):
            make(tmp_path, **options)

    with pytest.raises(UserError, match="where is the data"):
        preparation.prepare("humaneva", tmp_path / "out")
    refused("no file at .*data_3d_humaneva15")
    humanevas.save(tmp_path, positions)
    refused("no .*data_2d_humaneva15_gt.npz; keypoints there: none")
    refused("'S1'; subjects are Train/S1", train_subjects="S1")
    refused("no take for the train split", actions="Jump", keypoints="gt")
    seen = humanevas.keypoints()
    swapped = {s: {c: [v[1], v[0], v[2]] for c, v in chunks.items()} for s, chunks in seen.items()}
    humanevas.save(tmp_path, None, "gt", swapped)
    refused("camera C1: keypoints are .* pixels from the projected joints")
    seen["Train/S1"]["Box 1 chunk0"] = seen["Train/S1"]["Box 1 chunk0"][:2]
    humanevas.save(tmp_path, None, "gt", seen)
    refused("'Box 1 chunk0' is absent or lacks some of the 3 cameras")
    seen = humanevas.keypoints(longer=0)
    seen["Train/S1"]["Box 1 chunk0"][1] = seen["Train/S1"]["Box 1 chunk0"][1][:-1]
    humanevas.save(tmp_path, None, "gt", seen)
    refused("camera C2: 13 frames of keypoints for 14 of positions")
    seen["Train/S1"]["Box 1 chunk0"][1] = np.full((14, 15, 2), np.nan, np.float32)
    humanevas.save(tmp_path, None, "gt", {**seen})
    refused("camera C2 has no keypoints")


@pytest.mark.parametrize(("change", "match"), [
    (lambda v: v[:, :14], r"expected real numbers \[frames, 15, 3\]"),
    (lambda v: np.concatenate([v, v[:, :5]], 1), r"float32 \(14, 20, 3\)"),
    (lambda v: np.where(np.arange(14)[:, None, None] == 4, np.nan, v), "frame 4 is not finite"),
    (lambda v: v[:0], "no frames"),
    (lambda v: v * 1000, "the file must be in metres"),
    (lambda v: v[:, :1].repeat(15, 1), "0 m apart"),
    (lambda v: v.astype(int), "expected real numbers"),
])
def test_broken_positions(tmp_path, positions, change, match):
    chunk = positions["Train/S1"]["Walking 1 chunk0"]
    humanevas.save(tmp_path, {"Train/S1": {"Walking 1 chunk0": change(chunk)}})
    with pytest.raises(UserError, match=match):
        humaneva.read_positions(tmp_path / humaneva.NAME)


def test_a_person_who_stands_still_is_a_motion(tmp_path, positions):
    still = {s: {c: v[:1].repeat(14, 0) for c, v in chunks.items()}
             for s, chunks in positions.items()}
    seen = {s: {c: [v[:1].repeat(14, 0) for v in views] for c, views in chunks.items()}
            for s, chunks in humanevas.keypoints().items()}
    humanevas.save(tmp_path, still, "gt", seen)
    for record in records(make(tmp_path), "test").values():
        assert (record["joints"] == record["joints"][:1]).all()


def test_damaged_files_are_user_errors(tmp_path, positions):
    path = tmp_path / humaneva.NAME
    humanevas.save(tmp_path, {"Train/S1": {"Box 1 chunk0": positions["Train/S1"]["Box 1 chunk0"]}})
    fuzz.assert_only_user_errors(
        lambda content: (path.write_bytes(content), humaneva.read_positions(path)),
        path.read_bytes(), path.name,
    )
    views = humanevas.keypoints(4)["Train/S1"]["Box 1 chunk0"]
    humanevas.save(tmp_path, None, "gt", {"Train/S1": {"Box 1 chunk0": views}})
    path = tmp_path / "data_2d_humaneva15_gt.npz"
    fuzz.assert_only_user_errors(
        lambda content: (path.write_bytes(content), videopose3d_files.read_keypoints(path)),
        path.read_bytes(), path.name, examples=40,
    )


@pytest.mark.parametrize(("views", "match"), [
    (3, "must have one array per camera"), ([[[1], [1, 2]]] * 3, "an array object"),
    ({"C1": 2}, "must have one array per camera"),
])
def test_keypoints_of_another_form(tmp_path, views, match):
    humanevas.save(tmp_path, None, "gt", {"Train/S1": {"Box 1 chunk0": views}})
    with pytest.raises(UserError, match=match):
        videopose3d_files.read_keypoints(tmp_path / "data_2d_humaneva15_gt.npz")


def test_projection_of_the_estimate_is_opencvs():
    from jaxcxr.pose.geometry import cameras

    rng = np.random.default_rng(0)
    points = rng.uniform([-1, -1, 3], [1, 1, 6], (200, 3))
    matrix = np.array([[800.0, 0, 330], [0, 810, 240], [0, 0, 1]])
    pixels = cv2.projectPoints(points, np.zeros(3), np.zeros(3), matrix, None)[0][:, 0]
    seen = pixels + rng.normal(0, 0.5, pixels.shape)
    seen[:10] += 300  # outliers
    seen[10:20] = np.nan
    points[20, 2] = -1
    camera = cameras.fit_pinhole(points, seen)
    np.testing.assert_allclose(camera, [800, 810, 330, 240], rtol=0.003)
    off = cameras.reprojection_errors(camera, points, seen)
    assert np.isinf(off[20])
    assert np.isnan(off[10:20]).all()
    assert np.median(off[21:]) < 1
    assert np.isnan(cameras.fit_pinhole(points[10:20], seen[10:20])).all()
