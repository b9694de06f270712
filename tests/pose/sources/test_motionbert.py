"""MotionBERT's pickles: what is prepared, millimetres by the true scale, and damaged files."""

import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxcxr import __main__ as command
from jaxcxr.data import preparation
from jaxcxr.deploy.predict import lifter
from jaxcxr.errors import UserError
from jaxcxr.pose import task as pose_task
from jaxcxr.pose.evaluation import mean_errors
from jaxcxr.pose.formats import videopose3d_files
from jaxcxr.pose.geometry.cameras import HUMAN36M_INTRINSICS, normalize_screen
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.sources import clips, motionbert
from tests import toys
from tests.pose.sources import fuzz, motionberts

SH = "h36m_sh_conf_cam_source_final.pkl"
SMALL = {"train_subjects": "S1,S5", "clip": 9}


@pytest.fixture(scope="module")
def values():
    return motionberts.content()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("motionbert")
    motionberts.save(folder / SH, values)
    return preparation.prepare("motionbert", folder / "out", raw=str(folder), **SMALL)


def rows(part, source):
    return np.array(part["source"]) == source


def test_splits_names_and_the_tails_that_fill_no_clip(prepared):
    found = {split: clips.read_sequences(prepared.data_path, split)
             for split in ("train", "validation", "test")}
    subjects = {split: {s.subject for s in sequences} for split, sequences in found.items()}
    assert subjects == {"train": {"S1", "S5"}, "validation": {"S8"}, "test": {"S9", "S11"}}
    assert {len(s.joints) for s in found["test"]} == {18}  # 20 frames hold two clips of 9
    assert {len(s.joints) for s in found["train"]} == {20}
    names = {(s.sequence_id, s.action, s.camera) for s in found["test"]}
    assert ("S9_Greeting_2_54138969", "Greeting", "54138969") in names
    assert len(names) == 6
    assert all(s.root is None for sequences in found.values() for s in sequences)


def test_targets_are_motionberts_and_their_scale_gives_its_millimetres(prepared, values):
    source = clips.Clips(clips.read_sequences(prepared.data_path, "test"), 9, 9)
    which = next(i for i, s in enumerate(source.sequences)
                 if s.sequence_id == "S11_Walking_1_55011271")
    windows = [i for i, (sequence, _) in enumerate(source.windows) if sequence == which]
    part = values["test"]
    chosen = rows(part, "s_11_act_14_subact_01_ca_02")
    image = part["joint3d_image"][chosen][:18]
    # As in MotionBERT's reader: x and y on the screen, the depth in half widths.
    target = np.concatenate([normalize_screen(image[..., :2], 1000, 1000),
                             image[..., 2:] / 500], -1)
    read = source.read(np.array(windows))
    np.testing.assert_allclose(np.concatenate(read["joints"]), target - target[:, :1], atol=1e-5)
    inputs = np.concatenate(read["keypoints"])
    pixels = part["joint_2d"][chosen][:18]
    np.testing.assert_allclose(inputs[..., :2], normalize_screen(pixels, 1000, 1000), atol=1e-5)
    np.testing.assert_allclose(inputs[..., 2], part["confidence"][chosen][:18, :, 0], atol=1e-6)
    # As in its evaluation: pixels times the factor of the frame, about the root.
    rng = np.random.default_rng(0)
    guess = rng.normal(0, 0.3, (len(source), 9, 17, 3)).astype(np.float32)
    own = np.concatenate(guess[windows]) * 500 * part["2.5d_factor"][chosen][:18, None, None]
    truth = part["joints_2.5d_image"][chosen][:18]
    expected = np.linalg.norm((own - own[:, :1]) - (truth - truth[:, :1]), axis=-1).mean()
    sequence, stitched = source.sequences[which], source.stitch(guess)[which]
    found = mean_errors.mpjpe(1000 * stitched, 1000 * sequence.joints, root=0)
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_task_evaluates_in_millimetres_and_writes_what_score_reads(prepared, tmp_path):
    def open_split(split):
        return clips.Clips(clips.read_sequences(prepared.data_path, split), 9, 9)

    task = pose_task.PoseTask(toys.pose_config(), open_split)
    source = task.source("test")
    perfect = {"joints": source.read(np.arange(len(source)))["joints"]}
    off = {"joints": perfect["joints"] + np.float32([0, 0, 0.1]) * (np.arange(17) > 0)[:, None]}
    assert task.evaluate("test", perfect).metrics["mpjpe"] == pytest.approx(0, abs=1e-3)
    scale = np.concatenate([s.scale for s in source.sequences])
    metrics = task.evaluate("test", off).metrics
    assert metrics["mpjpe"] == pytest.approx(100 * scale.mean() * 16 / 17, rel=1e-4)
    steps = np.concatenate([np.abs(np.diff(s.scale)) for s in source.sequences])
    assert metrics["mpjve_per_second"] == pytest.approx(
        100 * steps.mean() * 16 / 17 * 50, rel=1e-3)
    task.write("test", off, tmp_path)
    files = [f"--{kind}={tmp_path}/predictions/{name}.npz"
             for kind, name in (("labels", "test_labels"), ("predictions", "test"))]
    command.run(["score", "--task=pose", *files, "--protocol=motionbert-sh",
                 f"--out={tmp_path}/scores", "--resamples=20"])
    result = json.loads((tmp_path / "scores/metrics.json").read_text())
    assert result["counts"]["sequences"] == 4  # two of S9's Greeting 2 do not count
    counted = [s.scale.mean() for s in source.sequences if "Greeting" not in s.sequence_id]
    assert result["overall"]["mpjpe"] == pytest.approx(100 * np.mean(counted) * 16 / 17, rel=1e-4)


def test_validation_is_in_nominal_millimetres(prepared):
    for sequence in clips.read_sequences(prepared.data_path, "validation"):
        subject = motionberts.world(8, 1, 20)
        true, found = (np.linalg.norm(x[:, 10] - x[:, 3], axis=-1).mean()
                       for x in (subject, sequence.joints))
        assert found / true == pytest.approx(1, abs=0.15)


def test_true_keypoints_and_files_without_confidence(tmp_path, values):
    plain = {part: {k: v for k, v in content.items() if k != "confidence"}
             for part, content in values.items()}
    motionberts.save(tmp_path / "h36m_cpn_cam_source.pkl", plain)
    view = motionbert.read_parts(tmp_path / "h36m_cpn_cam_source.pkl", "gt")["test"][0]
    part = values["test"]
    expected = part["joint3d_image"][rows(part, part["source"][0])][..., :2]
    np.testing.assert_allclose(view.keypoints, expected, rtol=1e-6)
    for keypoints in ("gt", "cpn"):
        builder = preparation.prepare("motionbert", tmp_path / "out", raw=str(tmp_path),
                                  keypoints=keypoints, **SMALL)
        record = next(iter(builder.as_data_source("test")))
        assert (record["confidence"] == 1).all()
        assert tuple(record["image_size"]) in ((1000, 1002), (1000, 1000))


def changed(values, part, **changes):
    content = {**values[part], **changes}
    return {**values, part: {k: v for k, v in content.items() if v is not None}}


def _at(values, index, value):
    copy = np.array(values, copy=True)
    copy[index] = value
    return copy


@pytest.mark.parametrize(("part", "key", "change", "match"), [
    ("test", "2.5d_factor", lambda v: None, "no '2.5d_factor', which"),
    ("test", "2.5d_factor", lambda v: _at(v, 7, 0), "of frame 7 is 0; expected millimetres per"),
    ("test", "2.5d_factor", lambda v: v * 1000, "millimetres per pixel"),
    ("test", "2.5d_factor", lambda v: np.roll(v, 20) * 1.3, "the factor is wrong"),
    ("test", "2.5d_factor", lambda v: v[:-1], r"'2.5d_factor' is float64 \(119,\); expected"),
    ("test", "2.5d_factor", lambda v: _at(v, 3, np.nan), "'2.5d_factor' of frame 3 is not finite"),
    ("train", "joint_2d", lambda v: v[:, :16], r"expected real numbers \[120, 17, 2\]"),
    ("train", "joint3d_image", lambda v: v[:, :16], r"expected real numbers \[frames, 17, 3\]"),
    ("train", "joint3d_image", lambda v: v[:0], r"expected real numbers \[frames, 17, 3\]"),
    ("train", "joint3d_image", lambda v: _at(v, (5, 3), np.nan), "of frame 5 is not finite"),
    ("train", "joint3d_image", lambda v: v * [0, 0, 0] + [500, 500, 0], "at one point"),
    ("train", "joint_2d", lambda v: v[::-1] + 300, "belong to another take or camera"),
    ("train", "joint_2d", lambda v: None, "train has no 'joint_2d'; it has"),
    ("train", "camera_name", lambda v: v[::-1], "but camera_name says"),
    ("train", "source", lambda v: ["video"] * 120, "'video' is no source"),
    ("train", "source", lambda v: v[20:40] + v[:20] + v[20:], "'source' has the shape"),
    ("train", "source", lambda v: v[:20] + v[40:60] + v[:20] + v[60:],
     "are not consecutive|camera_name says"),
    ("test", "confidence", lambda v: None, "give --keypoints cpn"),
])
def test_broken_files_are_sentences(tmp_path, values, part, key, change, match):
    small = values if part == "test" else {**values, "train": motionberts.content()["train"]}
    broken = changed(small, part, **{key: change(small[part][key])})
    path = motionberts.save(tmp_path / "a.pkl", broken)
    with pytest.raises(UserError, match=match) as error:
        motionbert.read_parts(path, "sh")
    assert "a.pkl" in str(error.value)


def test_mistakes_are_sentences(tmp_path, values):
    def refused(match, **options):
        with pytest.raises(UserError, match=match):
            preparation.prepare("motionbert", tmp_path / "out", **options)

    refused("where is the data")
    refused(f"no {SH} in .*; pickles there: none", raw=str(tmp_path))
    refused("keypoints is 'hrnet'", keypoints="hrnet")
    refused("clip is -1", clip=-1)
    motionberts.save(tmp_path / SH, values)
    refused("S8 is in the file's training part", raw=str(tmp_path), test_subjects="S8",
            validation_subjects="S5", train_subjects="S1")
    refused("no take for the train split; the data hold subjects S1, S11", raw=str(tmp_path),
            train_subjects="S6")
    whole = (tmp_path / SH).read_bytes()
    (tmp_path / SH).write_bytes(whole[: len(whole) // 2])
    refused("is damaged or of another kind", raw=str(tmp_path))


def test_a_source_says_who_does_what_before_which_camera():
    cameras = tuple(HUMAN36M_INTRINSICS)
    assert videopose3d_files.parse_source("s_09_act_10_subact_02_ca_03") == (
        "S9", "SittingDown 2", cameras[2])
    for name in ("s_09_act_01_subact_02_ca_03", "s_09_act_17_subact_01_ca_01", "S9/Walking/1",
                 "s_09_act_05_subact_01_ca_05"):
        assert videopose3d_files.parse_source(name) is None


def test_damaged_files_are_user_errors(tmp_path):
    import pickle

    small = motionberts.content(frames=2, cameras=(1,))
    path = tmp_path / "a.pkl"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        motionbert.read_parts(path, "sh")

    fuzz.assert_only_user_errors(read, pickle.dumps(small, 2), "a.pkl")


def test_any_number_is_read_or_refused(tmp_path):
    small = motionberts.content(frames=2, cameras=(1,))
    path = tmp_path / "a.pkl"
    arrays = ("joint_2d", "confidence", "joint3d_image", "2.5d_factor", "joints_2.5d_image")

    @hypothesis.settings(max_examples=80, deadline=None, database=None)
    @hypothesis.given(st.sampled_from(arrays), st.floats(), st.integers(0, 2))
    def check(key, value, place):
        broken = changed(small, "test", **{key: _at(small["test"][key], place, value)})
        motionberts.save(path, broken)
        try:
            views = motionbert.read_parts(path, "sh")["test"]
        except UserError as error:
            said, views = str(error), []
        else:
            said = "a.pkl was read"
        assert "a.pkl" in said
        for view in views:
            for array in (view.keypoints, view.confidence, view.joints, view.scale):
                assert np.isfinite(array).all()

    check()


def test_predict_gives_people_of_nominal_height():
    joints = motionberts.world(1, 1, 5)
    lifted = {"joints": [joints * 7, joints[:3] / 9], "sigma": [joints[..., 0], joints[:3, :, 0]],
              "root": [joints[:, 0], joints[:3, 0]]}
    found = lifter._enlarged(lifted, motionbert.nominal_scale)
    assert set(found) == {"joints", "sigma"}
    for poses in found["joints"]:
        np.testing.assert_allclose(HUMAN36M.bone_lengths(poses).sum(-1), 4.1)
    np.testing.assert_allclose(found["sigma"][0] / lifted["sigma"][0],
                               (found["joints"][0] / lifted["joints"][0])[..., 0])
