"""Human3.6M: files in each exact form, made from drawn motion, and the prepared data set."""

import cdflib.cdfwrite
import h5py
import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxcxr.data import preparation
from jaxcxr.errors import UserError
from jaxcxr.pose.geometry.cameras import HUMAN36M_INTRINSICS
from jaxcxr.pose.phantom import body
from jaxcxr.pose.phantom.actions import ACTIONS
from jaxcxr.pose.sources import clips, cmu_mocap, human36m

SUBJECTS = ("S1", "S8", "S9", "S11")
TAKES = ("Directions", "Walking 1", "WalkDog")


def motion(subject: str, take: str, frames: int = 12) -> np.ndarray:
    """World positions float32 `[frames, 32, 3]` in metres; the joints not kept are far away."""
    who = body.make_body(int(subject[1:]))
    rng = np.random.default_rng(TAKES.index(take))
    joints = body.place(who, ACTIONS["walk"](rng, who, np.arange(frames) / 50), 50.0)
    full = np.full((frames, 32, 3), 90.0, np.float32)
    full[:, human36m.KEPT] = joints
    return full


@pytest.fixture(scope="module")
def world():
    return {s: {t: motion(s, t) for t in TAKES} for s in SUBJECTS}


def save_3d(folder, world):
    np.savez_compressed(folder / "data_3d_h36m.npz", positions_3d=world)


def pixels_of(world, extra=3):
    """Keypoints as VideoPose3D's files hold them: per camera, a few frames longer."""
    found = {}
    for subject, takes in world.items():
        cameras = human36m.cameras_of(subject)
        for take, values in takes.items():
            if (subject, take) == ("S11", "Directions"):
                continue
            joints = values[:, human36m.KEPT]
            views = [c.intrinsics.project(c.to_camera(joints)) for c in cameras]
            longer = [np.concatenate([v, v[-1:].repeat(extra, 0)]) for v in views]
            found.setdefault(subject, {})[take] = [v.astype(np.float32) for v in longer]
    return found


def save_2d(folder, name, content, **metadata):
    np.savez_compressed(folder / f"data_2d_h36m_{name}.npz", positions_2d=content,
                        metadata={"num_joints": 17, **metadata})


def records(builder, split):
    return {r["sequence_id"].decode(): r for r in builder.as_data_source(split)}


def make(raw, out, **options):
    named = {"train_subjects": "S1", "validation_subjects": "S8", **options}
    return preparation.prepare("human36m", out, raw=str(raw), **named)


def test_prepared_from_videopose3d_files(tmp_path, world):
    save_3d(tmp_path, world)
    rng = np.random.default_rng(0)
    noisy = {s: {t: [v + rng.normal(0, 2, v.shape).astype(np.float32) for v in views]
                 for t, views in takes.items()} for s, takes in pixels_of(world).items()}
    save_2d(tmp_path, "cpn_ft_h36m_dbb", noisy, layout_name="h36m")
    builder = make(tmp_path, tmp_path / "out")
    found = {split: records(builder, split) for split in ("train", "validation", "test")}
    # S11's Directions is left out: 3 + 2 takes of four cameras.
    assert [len(found[s]) for s in found] == [12, 12, 20]
    record = found["test"]["S9_Walking_1_55011271"]
    assert (record["subject"], record["action"], record["fps"]) == (b"S9", b"Walking", 50.0)
    camera = human36m.cameras_of("S9")[1]
    expected = camera.to_camera(world["S9"]["Walking 1"][:, human36m.KEPT])
    np.testing.assert_allclose(record["joints"], expected, atol=1e-5)
    np.testing.assert_array_equal(record["keypoints"], noisy["S9"]["Walking 1"][1][:12])
    assert tuple(record["image_size"]) == (1000, 1000)
    assert tuple(found["test"]["S9_WalkDog_54138969"]["image_size"]) == (1000, 1002)
    sequences = clips.read_sequences(builder.data_path, "test")
    assert {s.action for s in sequences} == {"Directions", "Walking", "WalkDog"}


def test_projected_keypoints_are_those_of_the_ground_truth_file(tmp_path, world):
    save_3d(tmp_path, world)
    save_2d(tmp_path, "gt", pixels_of(world))  # without a layout, as the published file
    of_file = records(make(tmp_path, tmp_path / "out", keypoints="gt"), "test")
    projected = records(make(tmp_path, tmp_path / "out", keypoints="projected"), "test")
    assert of_file.keys() == projected.keys()
    for name, record in projected.items():
        seen = record["confidence"] > 0
        assert seen.mean() > 0.9
        np.testing.assert_allclose(record["keypoints"][seen], of_file[name]["keypoints"][seen],
                                   atol=1e-3)


def test_keypoints_of_other_joint_sets_are_converted(tmp_path, world):
    save_3d(tmp_path, world)
    mpii = {s: {t: [v[:, [3, 2, 1, 4, 5, 6, 0, 8, 9, 10, 16, 15, 14, 11, 12, 13]] for v in views]
                for t, views in takes.items()} for s, takes in pixels_of(world).items()}
    save_2d(tmp_path, "sh_ft_h36m", mpii)
    record = records(make(tmp_path, tmp_path / "out", keypoints="sh_ft_h36m"), "test")
    found = record["S9_Walking_1_55011271"]["keypoints"]
    expected = pixels_of(world)["S9"]["Walking 1"][1][:12]
    others = [i for i in range(17) if i != 7]  # MPII has no spine
    np.testing.assert_allclose(found[:, others], expected[:, others], atol=1e-3)


def test_original_cdf_and_h5_files_give_the_positions_of_the_npz_file(tmp_path, world):
    folders = {name: tmp_path / name for name in ("npz", "cdf", "h5")}
    folders["npz"].mkdir()
    save_3d(folders["npz"], world)
    for subject, takes in world.items():
        for take, values in takes.items():
            stem = take.replace("WalkDog", "WalkingDog")
            cdf = folders["cdf"] / subject / "MyPoseFeatures" / "D3_Positions" / f"{stem}.cdf"
            cdf.parent.mkdir(parents=True, exist_ok=True)
            with cdflib.cdfwrite.CDF(cdf) as file:
                flat = (values.reshape(1, len(values), 96) * 1000).astype(np.float32)
                spec = {"Variable": "Pose", "Data_Type": 44, "Num_Elements": 1,
                        "Rec_Vary": True, "Dim_Sizes": list(flat.shape[1:])}
                file.write_var(spec, var_data=flat)
            h5 = folders["h5"] / subject / "MyPoses" / "3D_positions" / f"{take}.h5"
            h5.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(h5, "w") as file:
                file["3D_positions"] = values.transpose(1, 2, 0).reshape(96, -1) * 1000
    found = {name: human36m.read_positions(folder) for name, folder in folders.items()}
    for other in (found["cdf"], found["h5"]):
        assert other.keys() == found["npz"].keys()
        for subject, takes in found["npz"].items():
            assert other[subject].keys() == takes.keys()
            for take, values in takes.items():
                assert values.shape == (12, 17, 3)
                np.testing.assert_allclose(other[subject][take], values, atol=1e-5)
    assert "Directions" not in found["npz"]["S11"]


def test_a_tenth_of_the_takes_validates_where_no_subject_does(tmp_path, world):
    takes = {s: {f"Walking {i}": world["S1"]["Walking 1"] for i in range(30)}
             for s in ("S1", "S9")}
    save_3d(tmp_path, takes)
    builder = make(tmp_path, tmp_path / "out", keypoints="projected", validation_subjects="",
                   test_subjects="S9")
    sizes = {split: builder.info.splits[split].num_examples for split in builder.info.splits}
    assert sizes["train"] + sizes["validation"] == 30 * 4
    assert 4 <= sizes["validation"] <= 32
    ids = {split: set(records(builder, split)) for split in ("train", "validation")}
    takes_of = {s: {name.rsplit("_", 1)[0] for name in names} for s, names in ids.items()}
    assert not takes_of["train"] & takes_of["validation"]


def test_camera_positions_are_the_rig_of_the_virtual_cameras():
    from jaxcxr.pose.geometry.cameras import _HUMAN36M_POSITIONS

    for camera in human36m.cameras_of("S1"):
        np.testing.assert_allclose(camera.position, _HUMAN36M_POSITIONS[camera.name], atol=0.051)
    for subject in human36m.SUBJECTS:
        for camera in human36m.cameras_of(subject):
            assert camera.name in HUMAN36M_INTRINSICS
            # All look at the middle of the hall, level but for a little roll.
            x, y, z = camera.to_camera(np.array([0, 0, 0.9]))
            assert abs(x / z) < 0.2
            assert abs(y / z) < 0.2
            assert camera.rotation[1, 2] < -0.9


def _mistake(tmp_path, match, **options):
    with pytest.raises(UserError, match=match):
        make(tmp_path, tmp_path / "out", **options)


def test_mistakes_are_sentences(tmp_path, world):
    _mistake(tmp_path, "no Human3.6M positions in")
    save_3d(tmp_path, world)
    _mistake(tmp_path, "keypoints there: none, and 'projected'")
    _mistake(tmp_path, "'S2'; subjects are S1", train_subjects="S2")
    _mistake(tmp_path, "S8 is named for two splits", train_subjects="S1,S8")
    _mistake(tmp_path, "no take for the train split", train_subjects="S5", keypoints="projected")
    short = pixels_of(world, extra=0)
    short["S9"]["WalkDog"][2] = short["S9"]["WalkDog"][2][:5]
    save_2d(tmp_path, "gt", short)
    _mistake(tmp_path, "S9, 'WalkDog', camera 58860488: 5 frames", keypoints="gt")
    del short["S9"]["WalkDog"]
    save_2d(tmp_path, "gt", short)
    _mistake(tmp_path, "S9, 'WalkDog' is absent", keypoints="gt")
    short["S9"]["WalkDog"] = [np.zeros((20, 3, 2), np.float32)] * 4
    save_2d(tmp_path, "gt", short)
    _mistake(tmp_path, r"expected real numbers \[frames, 17, 2\]", keypoints="gt")
    np.savez(tmp_path / "data_3d_h36m.npz", positions=np.zeros(3))
    _mistake(tmp_path, "no 'positions_3d'; it has positions")


@pytest.mark.parametrize(("change", "match"), [
    (lambda v: v[:, :20], r"expected real numbers \[frames, 32, 3\]"),
    (lambda v: np.where(np.arange(32)[:, None] == 3, np.nan, v), "not finite"),
    (lambda v: v[:0], "no frames"),
    (lambda v: v * 1000, "must be in metres"),
])
def test_broken_positions(tmp_path, world, change, match):
    save_3d(tmp_path, {"S1": {"Walking 1": change(world["S1"]["Walking 1"])}})
    with pytest.raises(UserError, match=match):
        human36m.read_positions(tmp_path)


def test_truncated_files(tmp_path, world):
    save_3d(tmp_path, world)
    whole = (tmp_path / "data_3d_h36m.npz").read_bytes()
    (tmp_path / "data_3d_h36m.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is damaged"):
        human36m.read_positions(tmp_path)
    folder = tmp_path / "cut" / "S1" / "MyPoses" / "3D_positions"
    folder.mkdir(parents=True)
    (folder / "Walking.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(UserError, match=r"Walking\.h5 is damaged"):
        human36m.read_positions(tmp_path / "cut")
    folder = tmp_path / "cut2" / "S1" / "MyPoseFeatures" / "D3_Positions"
    folder.mkdir(parents=True)
    (folder / "Walking.cdf").write_bytes(b"\xcd\xf3\x00\x01\x00\x00\xff\xff")
    with pytest.raises(UserError, match=r"Walking\.cdf is damaged"):
        human36m.read_positions(tmp_path / "cut2")


def test_the_prepared_set_is_read_without_its_builder(tmp_path, world):
    save_3d(tmp_path, world)
    builder = make(tmp_path, tmp_path / "out", keypoints="projected")
    again = tfds.builder_from_directory(builder.data_path)
    assert len(again.as_data_source("test")) == 20


def test_subjects_are_named_in_any_form_that_commands_give():
    for value in ("S1, S5", ("S1", "S5"), ["S1,S5"]):
        assert human36m.Human36mConfig(train_subjects=value).train_subjects == ("S1", "S5")
    assert cmu_mocap.CmuMocapConfig(train_subjects=("1,2",)).train_subjects == ("01", "02")
