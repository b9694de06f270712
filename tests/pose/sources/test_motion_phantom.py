"""The motion phantom as a prepared data set."""

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxcxr import registry
from jaxcxr.errors import UserError
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.sources import motion_phantom


def _prepare(folder, **options):
    builder = motion_phantom.MotionPhantom(
        config=motion_phantom.MotionPhantomConfig(subjects=4, sequences=1, seconds=0.4, **options),
        data_dir=folder,
        file_format="array_record",
    )
    builder.download_and_prepare()
    read = tfds.builder_from_directory(builder.data_path)
    return {split: list(read.as_data_source(split)) for split in ("train", "validation", "test")}


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    return _prepare(tmp_path_factory.mktemp("noisy"), noise=3.0, dropout=0.1)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return _prepare(tmp_path_factory.mktemp("clean"), noise=0.0, dropout=0.0)


def _stack(records, key):
    return np.stack([record[key] for record in records])


def _by_id(records):
    return {record["sequence_id"]: record for record in records}


def test_registry_knows_the_builder():
    assert registry.builder_class("motion_phantom") is motion_phantom.MotionPhantom
    assert registry.source("motion_phantom").generated


def test_splits_hold_other_people_and_all_actions_and_cameras(clean):
    people = {split: {r["subject"] for r in records} for split, records in clean.items()}
    assert people == {"train": {b"S1"}, "validation": {b"S2"}, "test": {b"S3", b"S4"}}
    for split, records in clean.items():
        assert len(records) == 7 * 4 * len(people[split])
        assert len({record["sequence_id"] for record in records}) == len(records)
        assert {r["action"].decode() for r in records} == {
            "walk", "run", "turn", "squat", "wave", "sit", "jump"
        }
        assert len({record["camera"] for record in records}) == 4


def test_keypoints_are_opencvs_projection_of_the_joints(clean):
    for record in clean["test"]:
        fx, fy, cx, cy, k1, k2, k3, p1, p2 = np.float64(record["intrinsics"])
        matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        points = np.float64(record["joints"]).reshape(-1, 3)
        expected, _ = cv2.projectPoints(
            points, np.zeros(3), np.zeros(3), matrix, np.array([k1, k2, p1, p2, k3])
        )
        np.testing.assert_allclose(record["keypoints"].reshape(-1, 2), expected[:, 0], atol=0.01)
        assert record["confidence"].min() == 1
        assert np.all(record["keypoints"] < record["image_size"])


def test_records_are_metric_upright_and_of_constant_bones(clean):
    for record in clean["train"]:
        joints = record["joints"]
        assert joints.shape == (20, 17, 3)
        assert record["fps"] == 50
        assert np.all((joints[..., 2] > 2) & (joints[..., 2] < 9))
        assert np.all(joints[:, 10, 1] < joints[:, 0, 1])  # the head is above the hip; y is down
        lengths = HUMAN36M.bone_lengths(joints)
        np.testing.assert_allclose(lengths, np.broadcast_to(lengths[0], lengths.shape), atol=1e-5)


def test_noise_has_its_size_and_misses_their_rate(noisy, clean):
    records = [record for split in noisy.values() for record in split]
    truth = {key: value for split in clean.values() for key, value in _by_id(split).items()}
    seen = _stack(records, "confidence") > 0
    assert 0.08 < 1 - seen.mean() < 0.12
    assert np.all(_stack(records, "keypoints")[~seen] == 0)
    # The noise is drawn after the motion, so both variants hold the same first camera's motion.
    errors = []
    for record in records:
        if record["camera"] == b"54138969":
            other = truth[record["sequence_id"]]
            np.testing.assert_array_equal(record["joints"], other["joints"])
            errors.append((record["keypoints"] - other["keypoints"])[record["confidence"] > 0])
    errors = np.concatenate(errors)
    assert errors.std(axis=0) == pytest.approx((3, 3), rel=0.05)
    assert np.abs(errors.mean(axis=0)).max() < 0.15


def test_same_seed_same_data_other_seed_other_data(clean, tmp_path):
    again = _by_id(_prepare(tmp_path / "again", noise=0.0, dropout=0.0)["test"])
    other = _by_id(_prepare(tmp_path / "other", noise=0.0, dropout=0.0, seed=1)["test"])
    for key, record in _by_id(clean["test"]).items():
        for field in ("joints", "keypoints", "confidence"):
            np.testing.assert_array_equal(record[field], again[key][field])
        assert np.abs(record["joints"] - other[key]["joints"]).max() > 0.01


def test_every_option_names_the_variant():
    config = motion_phantom.MotionPhantomConfig
    changed = [{}, {"subjects": 8}, {"sequences": 2}, {"seconds": 2.5}, {"seed": 1},
               {"noise": 0.5}, {"dropout": 0.3}, {"rig": "random"}]
    assert len({config(**options).name for options in changed}) == len(changed)


def test_random_rig_has_other_views(tmp_path):
    records = _prepare(tmp_path, rig="random", noise=0.0, dropout=0.0)["train"]
    assert {record["camera"] for record in records} == {b"random0", b"random1", b"random2",
                                                        b"random3"}
    assert min(record["confidence"].min() for record in records) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subjects": 3}, "at least 4"),
        ({"sequences": 0}, "at least 1"),
        ({"rig": "stage"}, "allowed: human36m, random"),
        ({"noise": -1.0}, "must not be negative"),
        ({"dropout": 1.0}, "below 1"),
    ],
)
def test_impossible_options_say_what_is_allowed(options, message):
    with pytest.raises(UserError, match=message):
        motion_phantom.MotionPhantomConfig(**options)
