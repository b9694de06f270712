"""SURREAL: `_info.mat` files as published, made from drawn motion, and the prepared data set."""

import numpy as np
import pytest
import scipy.io

from jaxcxr.data import preparation
from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import cameras
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.sources import surreal
from tests.pose.sources import fuzz, takes_3d

# z up to the world of the renderings, where y is down: a rotation.
TO_WORLD = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


def content(frames=12, seed=0) -> dict:
    """The variables of one clip; those that are not read are as published too."""
    points = takes_3d.points("smpl24", takes_3d.walk(max(frames, 2), seed)[:frames]) @ TO_WORLD.T
    place = points[0, 0] + (7.5, 0.1, -0.05)
    camera = cameras.Camera("camera", surreal.LENS, surreal.ROTATION, place)
    pixels = np.round(surreal.LENS.project(camera.to_camera(points)))
    return {
        "joints3D": points.transpose(2, 1, 0).astype(np.float32),
        "joints2D": pixels.transpose(2, 1, 0).astype(np.float32),
        "camLoc": place[:, None].astype(np.float32), "camDist": np.float32(7.5), "clipNo": 1.0,
        "gender": np.ones((frames, 1), np.uint8), "pose": np.zeros((72, frames), np.float32),
        "shape": np.zeros((10, frames), np.float32), "zrot": np.zeros((frames, 1), np.float32),
        "sequence": "01_01_c0001", "source": "cmu", "stride": np.uint8(50),
        "bg": np.array([["a.jpg"] * frames], object),
    }


def save(path, variables):
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, variables, do_compression=True)
    return path


def write(raw, frames=12):
    """Four subjects in train, two in test, val as a part of test."""
    takes = {"train": ("01_01", "02_03", "05_02", "ung_139_16"), "test": ("104_46", "ung_13_17"),
             "val": ("104_46",)}
    for part, names in takes.items():
        for run in ("run0", "run1"):
            for number, name in enumerate(names):
                for clip in (1, 2):
                    path = raw / part / run / name / f"{name}_c{clip:04d}_info.mat"
                    save(path, content(frames, 10 * number + clip))
    return raw


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write(tmp_path_factory.mktemp("surreal") / "raw")


def prepared(raw, out, **options):
    builder = preparation.prepare("surreal", out, raw=str(raw), **{"workers": 0, **options})
    return {split: {r["sequence_id"].decode(): r for r in builder.as_data_source(split)}
            for split in ("train", "validation", "test")}


def test_the_camera_is_that_of_the_authors_example():
    # The numbers stand in the script 3Dto2D/main.m of the data set's code.
    camera = cameras.Camera("camera", surreal.LENS, surreal.ROTATION,
                            np.array([6.7456, -0.9839, -1.9293]))
    point = camera.to_camera(np.array([-0.8645, -1.0915, -1.0260]))
    np.testing.assert_array_equal(np.round(surreal.LENS.project(point)), [89, 112])


def test_poses_before_the_camera_are_those_of_people(tmp_path):
    clip = surreal.read_clip(save(tmp_path / "a_info.mat", content(40)))
    at = {name: clip.joints[:, i] for i, name in enumerate(HUMAN36M.joints)}
    assert (at["head"][:, 1] < at["left_ankle"][:, 1]).all()  # y is down
    # Knees bend forward of the line from hip to ankle: it would be backward with the names of
    # left and right as they stand in the file.
    forward = np.cross(at["left_hip"] - at["right_hip"], (0.0, -1.0, 0.0))
    for side in ("left", "right"):
        bend = at[f"{side}_knee"] - (at[f"{side}_hip"] + at[f"{side}_ankle"]) / 2
        assert ((bend * forward).sum(-1) > -1e-4).all()
        assert (bend * forward).sum(-1).max() > 1e-3
    assert np.abs(clip.keypoints - clip.projected)[:, takes_3d.KEPT].max() <= 0.5 + 1e-3
    world = takes_3d.walk(40)
    lengths = HUMAN36M.bone_lengths(world)
    swapped = HUMAN36M.bone_lengths(clip.joints)[:, [HUMAN36M.swap[child] - 1
                                                    for _, child in HUMAN36M.bones]]
    kept = [i for i, (a, b) in enumerate(HUMAN36M.bones)
            if a in takes_3d.KEPT and b in takes_3d.KEPT]
    np.testing.assert_allclose(swapped[:, kept], lengths[:, kept], atol=1e-4)


def test_prepared(raw, tmp_path):
    found = prepared(raw, tmp_path / "out")
    subjects = {split: {r["subject"].decode() for r in records.values()}
                for split, records in found.items()}
    assert subjects["test"] == {"104", "13"}
    assert len(subjects["validation"]) == 1
    assert subjects["train"] | subjects["validation"] == {"01", "02", "05", "139"}
    assert not subjects["train"] & subjects["validation"]
    record = found["test"]["104_motion_46_chunk100020_camera"]
    assert (record["fps"], record["action"]) == (30.0, b"motion")
    assert tuple(record["image_size"]) == (320, 240)
    lens = record["intrinsics"]
    np.testing.assert_array_equal(lens[:4], [600, 600, 160, 120])
    seen = record["confidence"] > 0
    projected = surreal.LENS.project(record["joints"])
    kept = takes_3d.KEPT
    assert seen.mean() > 0.7
    apart = np.abs(record["keypoints"] - projected)[:, kept][seen[:, kept]]
    assert apart.max() <= 0.51
    assert "13_motion_ung17_chunk000010_camera" in found["test"]


def test_options(raw, tmp_path):
    found = prepared(raw, tmp_path / "out", keypoints="projected", runs="run1", fps=15.0,
                     validation_subjects="02,05")
    assert {r["subject"].decode() for r in found["validation"].values()} == {"02", "05"}
    assert all(name.split("chunk")[1].startswith("1") for name in found["train"])
    for record in found["test"].values():
        assert (record["fps"], len(record["joints"])) == (15.0, 6)
        seen = record["confidence"] > 0
        apart = record["keypoints"] - surreal.LENS.project(record["joints"])
        assert np.abs(apart[seen]).max() < 0.01


def test_frames_that_were_not_rendered_split_a_clip(tmp_path):
    variables = content(12)
    for name in ("joints3D", "joints2D"):
        variables[name][..., [0, 5, 6]] = 0
    path = save(tmp_path / "104_46_c0021_info.mat", variables)
    clip = surreal.Clip("test", "104", "46", 21, str(path), 1)
    records = surreal.encode(clip, "joints2D", surreal.SurrealConfig().detector, 0, 0.0)
    assert {name: len(record["joints"]) for name, record in records.items()} == {
        "104_motion_46_chunk000210_camera": 4, "104_motion_46_chunk000211_camera": 5}


def test_a_clip_of_one_frame(tmp_path):
    clip = surreal.read_clip(save(tmp_path / "a_info.mat", content(1)))
    assert clip.joints.shape == (1, 17, 3)


def _change(**values):
    return lambda variables: variables | values


@pytest.mark.parametrize(("change", "match"), [
    (lambda v: {k: x for k, x in v.items() if k != "joints3D"}, r"shape \[0\], not \[3, 24, fr"),
    (lambda v: v | {"joints3D": v["joints3D"][:, :23]}, "joints3D has the shape"),
    (lambda v: v | {"joints2D": v["joints2D"][..., :5]}, "joints3D has 12 frames, joints2D 5"),
    (lambda v: v | {"joints2D": v["joints2D"] * np.nan}, "joints2D has no frames, or numbers"),
    (lambda v: v | {"joints3D": v["joints3D"][..., :0]}, "joints3D has"),
    (lambda v: v | {"joints3D": v["joints3D"] * 0}, "no frame was rendered"),
    (_change(camLoc=np.zeros(2)), "camLoc must be the camera"),
    (_change(camLoc=np.full(3, np.nan)), "camLoc must be"),
    (_change(camLoc=np.full((3, 1), -50.0)), "behind the camera"),
    (lambda v: v | {"camLoc": v["camLoc"] + 1}, "pixels from joints2D"),
    (lambda v: v | {"joints3D": v["joints3D"][:, [0] * 24], "joints2D": v["joints2D"][:, [0] * 24]},
     "head and feet are 0 m apart"),
    (_change(joints3D="text"), "joints3D has the shape"),
])
def test_broken_clips(tmp_path, change, match):
    path = save(tmp_path / "a_info.mat", change(content()))
    with pytest.raises(UserError, match=match) as said:
        surreal.read_clip(path)
    assert str(path) in str(said.value)


def test_a_truncated_clip_is_named_and_can_be_tolerated(tmp_path):
    raw = write(tmp_path / "raw")
    path = raw / "train" / "run0" / "01_01" / "01_01_c0001_info.mat"
    path.write_bytes(path.read_bytes()[:-100])
    options = {"validation_subjects": "02"}
    with pytest.raises(UserError, match=r"01_01_c0001_info\.mat is damaged .*ends too early"):
        prepared(raw, tmp_path / "out", **options)
    found = prepared(raw, tmp_path / "out", max_bad=1, **options)
    assert len(found["train"]) == 3 * 4 - 1


def test_folders_and_options_with_mistakes(raw, tmp_path):
    for options, match in (
        ({"keypoints": "gt"}, "allowed: joints2D, projected"),
        ({"validation_subjects": "104"}, "no subject '104' in train: 01, 02"),
        ({"validation_subjects": "01,02,05,139"}, "nobody is left to train on"),
        ({"runs": "run7"}, "no clip in"),
    ):
        with pytest.raises(UserError, match=match):
            prepared(raw, tmp_path / "out", **options)
    with pytest.raises(UserError, match="where is the data"):
        preparation.prepare("surreal", tmp_path / "out", workers=0)
    copy = tmp_path / "copy"
    for part in ("train", "test"):
        save(copy / part / "run0" / "01_01" / "01_01_c0001_info.mat", content(2))
    with pytest.raises(UserError, match="subject 01 is in train and in test"):
        surreal.find_clips(copy, ("run0",))
    save(copy / "train" / "run0" / "x" / "x_info.mat", content(2))
    with pytest.raises(UserError, match="is not named like"):
        surreal.find_clips(copy, ("run0",))


def test_damaged_files(tmp_path):
    path = save(tmp_path / "a_info.mat", content(2))

    def write_and_read(damaged):
        path.write_bytes(damaged)
        surreal.read_clip(path)

    fuzz.assert_only_user_errors(write_and_read, path.read_bytes(), path.name)
