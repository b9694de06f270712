"""MPI-INF-3DHP: both kinds of files told apart by content, the prepared set, damaged files."""

import json

import numpy as np
import pytest

from jaxcxr import __main__ as command
from jaxcxr.data import preparation
from jaxcxr.errors import UserError
from jaxcxr.pose.evaluation import protocols
from jaxcxr.pose.sources import clips, mpi_inf_3dhp
from tests.pose.sources import fuzz, mpi_inf_3dhps

OPTIONS = {"train_subjects": "S1"}


@pytest.fixture(scope="module")
def contents():
    both = {"train": mpi_inf_3dhps.make_train, "test": mpi_inf_3dhps.make_test}
    return {(part, univ): make(univ) for univ in (False, True) for part, make in both.items()}


@pytest.fixture(scope="module")
def raw(tmp_path_factory, contents):
    """Both files of D3DP's kind, and one that has nothing to do with them."""
    folder = tmp_path_factory.mktemp("3dhp")
    for part in ("train", "test"):
        mpi_inf_3dhps.save(folder / f"data_{part}_3dhp.npz", contents[part, False])
    np.savez(folder / "other.npz", positions_3d=np.zeros(3))
    return folder


def make(raw, out=None, **options):
    return preparation.prepare("mpi_inf_3dhp", out or raw / "out", raw=str(raw),
                           **{**OPTIONS, **options})


def records(builder, split):
    return {r["sequence_id"].decode(): r for r in builder.as_data_source(split)}


@pytest.mark.parametrize("univ", [False, True])
@pytest.mark.parametrize("part", ["train", "test"])
def test_the_kind_and_part_of_a_file_are_seen_from_its_content(tmp_path, contents, part, univ):
    found = mpi_inf_3dhp.read_file(mpi_inf_3dhps.save(tmp_path / "a.npz", contents[part, univ]))
    assert (found.part, found.annotations) == (part, ("annot3", "univ_annot3")[univ])
    for view in found.views:
        lens = mpi_inf_3dhps.lens(view.subject)
        np.testing.assert_allclose(view.camera_vector[:4], [lens.fx, lens.fy, lens.cx, lens.cy],
                                   rtol=0.01)
        assert view.size == (lens.width, lens.height)


def test_one_height_is_no_reason_and_noise_of_keypoints_neither(tmp_path, contents):
    rng = np.random.default_rng(0)
    noisy = {name: {**entry, "data_2d": entry["data_2d"] + rng.normal(0, 6, entry["data_2d"].shape)}
             for name, entry in contents["test", False].items()}
    found = mpi_inf_3dhp.read_file(mpi_inf_3dhps.save(tmp_path / "a.npz", noisy))
    assert found.annotations == "annot3"


def test_prepared_with_valid_frames_alone(raw):
    builder = make(raw)
    assert builder.name == "mpi_inf_3dhp"  # where it lies, as for every other source
    found = {split: records(builder, split) for split in ("train", "validation", "test")}
    assert [len(found[split]) for split in found] == [4, 2, 7]
    assert {"TS1_test_0", "TS2_test_chunk0_0", "TS2_test_chunk1_0"} < set(found["test"])
    whole = mpi_inf_3dhps.camera_frame("TS2", "test", 1, 30)
    for name, frames in (("TS2_test_chunk0_0", slice(1, 10)), ("TS2_test_chunk1_0",
                                                               slice(12, 30))):
        record = found["test"][name]
        np.testing.assert_allclose(record["joints"], whole[frames], atol=1e-4)
        pixels = mpi_inf_3dhps.lens("TS2").project(whole[frames])
        np.testing.assert_allclose(record["keypoints"], pixels, atol=0.05)
    assert tuple(found["test"]["TS5_test_0"]["image_size"]) == (1920, 1080)
    subjects = {split: {r["subject"] for r in rows.values()} for split, rows in found.items()}
    assert subjects["train"] == {b"S1"}
    assert subjects["validation"] == {b"S8"}


def test_sequences_of_25_and_50_frames_per_second_are_brought_to_one_rate(raw):
    record = records(make(raw), "train")["S1_Seq2_2"]
    whole = mpi_inf_3dhps.camera_frame("S1", "Seq2", 2, 30)
    np.testing.assert_allclose(record["joints"], whole[::2], atol=1e-4)
    for fps, rates in ((25.0, {25.0}), (0.0, {25.0, 50.0})):
        found = clips.read_sequences(make(raw, fps=fps).data_path, "train")
        assert {s.fps for s in found} == rates
        source = clips.Clips(found, 9, 9)
        assert source.rate == (25.0 if len(rates) == 1 else None)
        assert set(source.read(np.arange(len(source)))["fps"]) == rates


def test_the_protocols_hold_out_a_training_subject():
    config = mpi_inf_3dhp.MpiInf3dhpConfig()
    for name in ("mpi-inf-3dhp", "mpi-inf-3dhp-univ"):
        protocol = protocols.get(name)
        assert protocol.train == (*config.train_subjects, *config.validation_subjects)
        assert protocol.validation == config.validation_subjects
        assert protocol.test == config.test_subjects


def test_a_perfect_prediction_has_the_area_that_mehtas_thresholds_leave(raw, tmp_path):
    found = clips.read_sequences(make(raw).data_path, "test")
    poses = {f"{s.subject}/{s.take.split('_', 1)[1].replace('_', ' ')}/{s.camera}": s.joints
             for s in found}
    np.savez(tmp_path / "truth.npz", unit="m", joint_set="human36m", fps=25.0, **poses)
    command.run(["score", "--task=pose", "--protocol=mpi-inf-3dhp", f"--out={tmp_path}/out",
                 f"--labels={tmp_path}/truth.npz", f"--predictions={tmp_path}/truth.npz",
                 "--resamples=20"])
    result = json.loads((tmp_path / "out/metrics.json").read_text())
    overall = result["overall"]
    assert overall["mpjpe"] == 0
    assert overall["pck3d"] == 1
    assert overall["auc3d"] == pytest.approx(30 / 31)
    assert result["counts"]["frames"] == 6 * 30 - 3
    assert result["counts"]["motions"] == 6  # chunks of a sequence are one motion


def test_the_kind_that_is_not_wanted_is_refused(tmp_path, contents):
    for part in ("train", "test"):
        mpi_inf_3dhps.save(tmp_path / f"data_{part}_3dhp.npz", contents[part, True])
    with pytest.raises(UserError, match=r"no train file of annot3.*data_test_3dhp.npz: test, univ"):
        make(tmp_path)
    record = records(make(tmp_path, annotations="univ_annot3"), "test")["TS3_test_0"]
    whole = mpi_inf_3dhps.camera_frame("TS3", "test", 1, 30)
    relative = whole - whole[:, :1]
    np.testing.assert_allclose(record["joints"] - record["joints"][:, :1],
                               relative * mpi_inf_3dhps.scale("TS3"), atol=1e-4)
    mpi_inf_3dhps.save(tmp_path / "copy.npz", contents["test", True])
    with pytest.raises(UserError, match="2 test file of univ_annot3"):
        make(tmp_path, tmp_path / "again", annotations="univ_annot3")


def test_mistakes_are_sentences(tmp_path, raw):
    def refused(match, **options):
        with pytest.raises(UserError, match=match):
            preparation.prepare("mpi_inf_3dhp", tmp_path / "out", **options)

    refused("where is the data")
    refused("expected one; files there: none", raw=str(tmp_path))
    refused("annotations is 'annot2'", annotations="annot2")
    refused("'S9'; subjects are S1, S2", train_subjects="S9")
    refused("fps: -1 frames per second", fps=-1.0)
    refused("no take for the train split; the data hold subjects S1, S8", raw=str(raw),
            train_subjects="S2")
    whole = (raw / "data_test_3dhp.npz").read_bytes()
    (tmp_path / "data_test_3dhp.npz").write_bytes(whole[: len(whole) // 2])
    refused("data_test_3dhp.npz is damaged", raw=str(tmp_path))


def _changed(data, key, change):
    return {name: {**entry, key: change(entry[key])} for name, entry in data.items()}


@pytest.mark.parametrize(("key", "change", "match"), [
    ("data_3d", lambda v: v[:, :16], r"expected real numbers \[frames, 17, 3\]"),
    ("data_2d", lambda v: v[..., :1], r"expected real numbers \[frames, 17, 2\]"),
    ("data_3d", lambda v: v[:0], "at least one frame"),
    ("data_3d", lambda v: v[:-1], "29 frames of poses, 30 of keypoints"),
    ("data_3d", lambda v: np.where(np.arange(30)[:, None, None] == 4, np.nan, v), "of frame 4 is"),
    ("data_3d", lambda v: v / 1000, "files must be in millimetres"),
    ("data_3d", lambda v: v[:, :1].repeat(17, 1), "head and foot are 0 mm apart"),
    ("data_2d", lambda v: v[::-1, ::-1], "must be of one camera"),
    ("data_2d", lambda v: v * np.nan, "must be of one camera"),
    ("data_3d", lambda v: [[1], [1, 2]], "data_3d is object"),
    ("valid", lambda v: v[:-1], r"valid has the shape \(29,\); expected \[30\]"),
])
def test_broken_files_are_sentences(tmp_path, contents, key, change, match):
    path = mpi_inf_3dhps.save(tmp_path / "a.npz", _changed(contents["test", False], key, change))
    with pytest.raises(UserError, match=match) as error:
        mpi_inf_3dhp.read_file(path)
    assert "a.npz" in str(error.value)


@pytest.mark.parametrize(("data", "match"), [
    ({}, "no dict 'data'"), ([1], "no dict 'data'"), ({"TS7": {"valid": 1}}, "test sequence 'TS7'"),
    ({"S1 Seq3": []}, "'S1 Seq3' is no sequence"), ({"S1 Seq1": []}, "has no cameras"),
    ({"S1 Seq1": [{"0": 3}]}, "camera 0: a int, not data_3d"),
    ({"S1 Seq1": [{}], "TS1": {"valid": [1]}}, "both training and test sequences; split"),
])
def test_files_of_another_form(tmp_path, data, match):
    with pytest.raises(UserError, match=match):
        mpi_inf_3dhp.read_file(mpi_inf_3dhps.save(tmp_path / "a.npz", data))


def test_a_person_who_stands_still_is_a_motion(tmp_path, contents):
    still = {name: {**entry, **{key: entry[key][:1].repeat(30, 0) for key in
                                ("data_3d", "data_2d")}}
             for name, entry in contents["test", False].items()}
    found = mpi_inf_3dhp.read_file(mpi_inf_3dhps.save(tmp_path / "a.npz", still))
    assert found.annotations == "annot3"


def test_damaged_files_are_user_errors(tmp_path, contents):
    data = {"TS1": contents["test", False]["TS1"]}
    path = mpi_inf_3dhps.save(tmp_path / "a.npz", data)
    fuzz.assert_only_user_errors(
        lambda content: (path.write_bytes(content), mpi_inf_3dhp.read_file(path)),
        path.read_bytes(), path.name, examples=60,
    )
