"""BVH clips: finding, splitting, and the prepared data set."""

import numpy as np
import pytest

from jaxcxr.data import preparation
from jaxcxr.errors import BadRecord, UserError
from jaxcxr.pose.sources import bvh_mocap
from tests.pose.formats import bvhs


@pytest.fixture
def folder(tmp_path):
    """Four subjects by CMU's names, three clips each."""
    for subject in (1, 2, 3, 4):
        for take in (1, 2, 3):
            path = tmp_path / "raw" / f"{subject:02d}" / f"{subject:02d}_{take:02d}.bvh"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(bvhs.text(bvhs.motionbuilder(), seed=subject * 10 + take, rest=True))
    return tmp_path / "raw"


def prepared(raw, out, **options):
    builder = preparation.prepare("bvh_mocap", out, raw=str(raw), workers=0, **options)
    return {split: {r["sequence_id"].decode(): r for r in builder.as_data_source(split)}
            for split in ("train", "validation", "test")}


def test_prepared(folder, tmp_path):
    found = prepared(folder, tmp_path / "out", test_subjects="03", validation_subjects="02")
    assert {split: len(records) for split, records in found.items()} == {
        "train": 24, "validation": 12, "test": 12
    }
    record = found["test"]["03-03_02_54138969"]
    # 30 frames at 120 fps without the first last 28 / 120 s: 12 frames at 50 fps.
    assert record["joints"].shape == (12, 17, 3)
    assert record["subject"] == b"03"
    world = bvh_mocap.load_clip(folder / "03" / "03_02.bvh")
    from_hip = np.linalg.norm(world[0] - world[0, :1], axis=-1)
    of_record = np.linalg.norm(record["joints"][0] - record["joints"][0, :1], axis=-1)
    np.testing.assert_allclose(of_record, from_hip, atol=1e-5)


def test_subjects_are_split_by_a_hash_and_stand_in_one_split(folder):
    clips = bvh_mocap.find_clips(folder)
    splits = bvh_mocap.split_clips(clips, bvh_mocap.BvhMocapConfig())
    subjects = {split: {c.subject for c in part} for split, part in splits.items()}
    assert {split: len(names) for split, names in subjects.items()} == {
        "train": 2, "validation": 1, "test": 1
    }
    assert len(set.union(*subjects.values())) == 4


def test_few_subjects_are_split_by_clip(tmp_path):
    for take in range(20):
        path = tmp_path / f"dataset-1_walk_active_{take:03d}.bvh"
        path.write_text(bvhs.text(bvhs.bandai(), seed=take))
    clips = bvh_mocap.find_clips(tmp_path)
    splits = bvh_mocap.split_clips(clips, bvh_mocap.BvhMocapConfig())
    assert {split: len(part) for split, part in splits.items()} == {
        "train": 14, "validation": 3, "test": 3
    }
    names = {c.subject for c in bvh_mocap.find_clips(tmp_path, r"(dataset-\d+)_")}
    assert names == {"dataset-1"}


def test_a_malformed_clip_is_named_and_can_be_tolerated(folder, tmp_path):
    path = folder / "01" / "01_02.bvh"
    path.write_text(path.read_text().replace("Frames: 30", "Frames: 31"))
    options = {"test_subjects": "03", "validation_subjects": "02"}
    with pytest.raises(UserError, match=r"max_bad=0.*01/01_02\.bvh, line \d+: 30 frames"):
        prepared(folder, tmp_path / "out", **options)
    found = prepared(folder, tmp_path / "out", max_bad=1, **options)
    assert len(found["train"]) == 20
    clip = bvh_mocap.find_clips(path)[0]
    with pytest.raises(BadRecord, match=r"01_02\.bvh"):
        bvh_mocap.encode(clip, "human36m", bvh_mocap.BvhMocapConfig().detector, 0)


@pytest.mark.parametrize(("options", "match"), [
    ({"test_subjects": "9"}, "no subject '9'; there are 01, 02, 03, 04"),
    ({"test_subjects": "01", "validation_subjects": "01"}, "named for two splits"),
    ({"test_subjects": "01,02,03", "validation_subjects": "04"}, "none for the train split"),
    ({"rig": "x"}, "allowed: human36m"),
    ({"unit": -1.0}, "metres per unit"),
    ({"up": "w"}, "up is 'w'; allowed: x, y, z, -x"),
    ({"head": -0.1}, "head is -0.1; give metres"),
    ({"raw_fps": -1.0}, "give frames per second"),
    ({"joints": "tail=Bone3"}, "joints names 'tail'"),
    ({"subject": "("}, "unterminated"),
    ({"subject": "abc"}, "needs one group"),
    ({"subject": "(zz)"}, "finds no subject in"),
])
def test_mistakes_are_sentences(folder, tmp_path, options, match):
    with pytest.raises(UserError, match=match):
        prepared(folder, tmp_path / "out", **options)


def test_no_files(tmp_path):
    with pytest.raises(UserError, match="no BVH file in"):
        bvh_mocap.find_clips(tmp_path)


def test_a_split_emptied_by_bad_clips_is_said_and_the_rest_prepared(folder, tmp_path, capsys):
    for path in (folder / "03").iterdir():
        path.write_text(path.read_text()[:3000])
    options = {"test_subjects": "03", "validation_subjects": "02"}
    builder = preparation.prepare(
        "bvh_mocap", tmp_path / "out", raw=str(folder), workers=0, max_bad=3, **options
    )
    assert set(builder.info.splits) == {"train", "validation"}
    assert "all 3 items of test are bad; the data set has no test split" in capsys.readouterr().err
    for path in folder.rglob("*.bvh"):
        path.write_text("HIERARCHY")
    with pytest.raises(UserError, match="nothing is left, all records are bad"):
        preparation.prepare(
            "bvh_mocap", tmp_path / "other", raw=str(folder), workers=0, max_bad=99, **options
        )


def test_what_was_recognised_is_said_once_with_a_count(folder, tmp_path, capsys):
    prepared(folder, tmp_path / "out")
    assert "bvh_mocap: 12 of 12: a unit is CMU's unit by the length of the legs, y is up" in (
        capsys.readouterr().err
    )
