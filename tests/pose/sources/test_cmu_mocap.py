"""CMU clips: finding, splitting, joints, and the prepared data set."""

import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxcxr import registry
from jaxcxr.errors import BadRecord, UserError
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.sources import cmu_mocap, virtual

# name: (parent, direction, length in units of 0.056444 m), enough bones for the 17 joints.
_BONES = {
    "lhipjoint": ("root", (0.57, -0.75, 0.3), 2.4),
    "lfemur": ("lhipjoint", (0.3, -0.95, 0), 7.2),
    "ltibia": ("lfemur", (0.3, -0.95, 0), 7.5),
    "rhipjoint": ("root", (-0.57, -0.75, 0.3), 2.4),
    "rfemur": ("rhipjoint", (-0.3, -0.95, 0), 7.2),
    "rtibia": ("rfemur", (-0.3, -0.95, 0), 7.5),
    "thorax": ("root", (0, 1, 0), 6.0),
    "upperneck": ("thorax", (0, 1, 0), 3.5),
    "head": ("upperneck", (0, 1, 0), 1.8),
    "lclavicle": ("thorax", (0.94, 0.33, 0), 3.6),
    "lhumerus": ("lclavicle", (1, 0, 0), 5.0),
    "lwrist": ("lhumerus", (1, 0, 0), 5.2),
    "rclavicle": ("thorax", (-0.94, 0.33, 0), 3.6),
    "rhumerus": ("rclavicle", (-1, 0, 0), 5.0),
    "rwrist": ("rhumerus", (-1, 0, 0), 5.2),
}


def _asf():
    lines = [":units", " length 0.45", " angle deg", ":root", " order TX TY TZ RX RY RZ",
             " axis XYZ", " position 0 0 0", " orientation 0 0 0", ":bonedata"]
    for name, (_, direction, length) in _BONES.items():
        dof = ["  dof rx ry rz"] if name.endswith(("femur", "humerus")) else []
        lines += [" begin", f"  name {name}", "  direction {} {} {}".format(*direction),
                  f"  length {length}", "  axis 0 0 20 XYZ", *dof, " end"]
    lines += [":hierarchy", " begin"]
    lines += [f"  {parent} {name}" for name, (parent, _, _) in _BONES.items()]
    return "\n".join([*lines, " end"])


def _amc(seed, frames=60):
    rng = np.random.default_rng(seed)
    lines = [":FULLY-SPECIFIED", ":DEGREES"]
    sizes = rng.uniform(5, 30, (4, 3))
    for frame in range(frames):
        swing = np.sin(frame / 9) * sizes
        lines += [str(frame + 1), f"root 0 17 {frame / 10} 0 5 0"]
        lines += ["{} {} {} {}".format(bone, *angles) for bone, angles in
                  zip(("lfemur", "rfemur", "lhumerus", "rhumerus"), swing, strict=True)]
    return "\n".join(lines)


@pytest.fixture
def tree(tmp_path):
    """An unpacked tree of four subjects with three clips each."""
    for subject in ("01", "02", "03", "11"):
        folder = tmp_path / "all_asfamc" / "subjects" / subject
        folder.mkdir(parents=True)
        (folder / f"{subject}.asf").write_text(_asf())
        for clip in range(1, 4):
            text = _amc([int(subject), clip])
            (folder / f"{subject}_{clip:02d}.amc").write_text(text)
    return tmp_path / "all_asfamc"


def _zipped(tree):
    path = tree.parent / "allasfamc.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(tree.rglob("*.a*")):
            archive.write(file, file.relative_to(tree.parent))
    return path


def _config(raw, **options):
    named = {"train_subjects": ("01",), "validation_subjects": ("02",),
             "test_subjects": ("03", "11")}
    return cmu_mocap.CmuMocapConfig(raw=str(raw), **{**named, **options})


def _prepare(config, folder):
    builder = cmu_mocap.CmuMocap(config=config, data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    read = tfds.builder_from_directory(builder.data_path)
    return {split: {record["sequence_id"]: record for record in read.as_data_source(split)}
            for split in ("train", "validation", "test")}


def test_zip_and_tree_prepare_to_the_same_records(tree, tmp_path):
    assert registry.builder_class("cmu_mocap") is cmu_mocap.CmuMocap
    one = _prepare(_config(tree), tmp_path / "tree")
    two = _prepare(_config(_zipped(tree)), tmp_path / "zip")
    assert {split: len(records) for split, records in one.items()} == {
        "train": 12, "validation": 12, "test": 24
    }
    for split, records in one.items():
        assert records.keys() == two[split].keys()
        for key, record in records.items():
            assert record["joints"].shape == (25, 17, 3)  # 60 frames at 120 fps are 0.49 s
            assert record["fps"] == 50
            assert record["confidence"].min() == 1
            for field in ("joints", "keypoints", "intrinsics", "image_size"):
                np.testing.assert_array_equal(record[field], two[split][key][field])
    assert {record["subject"] for record in one["test"].values()} == {b"03", b"11"}


def test_two_processes_give_the_same_records(tree, tmp_path):
    one = _prepare(_config(tree), tmp_path / "one")
    two = _prepare(_config(tree, workers=2), tmp_path / "two")
    for key, record in one["test"].items():
        np.testing.assert_array_equal(record["keypoints"], two["test"][key]["keypoints"])


def test_a_malformed_clip_is_named_and_can_be_tolerated(tree, tmp_path):
    path = tree / "subjects" / "01" / "01_02.amc"
    path.write_text(path.read_text().replace("root 0 17 0.5", "root 0 oops 0.5"))
    with pytest.raises(UserError, match=r"max_bad=0.*01_02\.amc, line 34: '0 oops 0\.5"):
        _prepare(_config(tree), tmp_path / "out")
    kept = _prepare(_config(tree, max_bad=1), tmp_path / "out")
    assert len(kept["train"]) == 8


def test_a_skeleton_without_a_needed_bone_is_bad(tree):
    path = tree / "subjects" / "01" / "01.asf"
    path.write_text(path.read_text().replace("upperneck", "gooseneck"))
    clip = cmu_mocap.find_clips(tree)[0]
    with pytest.raises(BadRecord, match=r"01\.asf: no bone called upperneck"):
        cmu_mocap.encode(clip, "human36m", virtual.Detector(), 0)


def test_default_splits_share_no_subject_with_the_test(tree):
    clips = [cmu_mocap.Clip(f"{subject:02d}_{clip:02d}", f"{subject:02d}", "", "", "", 0)
             for subject in range(1, 41) for clip in range(1, 21)]
    splits = cmu_mocap.split_clips(clips, cmu_mocap.CmuMocapConfig())
    assert {clip.subject for clip in splits["test"]} == {"03", "11", "19", "27", "35"}
    assert not {c.subject for c in splits["test"]} & {c.subject for c in splits["train"]}
    names = [clip.name for part in splits.values() for clip in part]
    assert len(names) == len(set(names)) == len(clips)
    held = len(splits["validation"]) / (len(splits["validation"]) + len(splits["train"]))
    assert 0.1 < held < 0.2
    # A clip's split depends on its name, not on what else is there.
    fewer = cmu_mocap.split_clips(clips[::2], cmu_mocap.CmuMocapConfig())
    assert {c.name for c in fewer["validation"]} <= {c.name for c in splits["validation"]}


def test_named_subjects_alone_are_used(tree):
    clips = cmu_mocap.find_clips(tree)
    config = _config(tree, test_subjects="3")
    assert config.test_subjects == ("03",)
    splits = cmu_mocap.split_clips(clips, config)
    assert {split: {c.subject for c in part} for split, part in splits.items()} == {
        "train": {"01"}, "validation": {"02"}, "test": {"03"}
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_subjects": ("01",)}, "01 stand in both"),
        ({"test_subjects": ("99",)}, "test_subjects names 99, but the data hold 01, 02, 03, 11"),
        ({"train_subjects": ("01", "03", "11"), "test_subjects": ()}, "no clip for the test split"),
    ],
)
def test_impossible_splits_say_why(tree, options, message):
    with pytest.raises(UserError, match=message):
        cmu_mocap.split_clips(cmu_mocap.find_clips(tree), _config(tree, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rig": "x"}, "allowed: human36m"), ({"raw_fps": 0}, "give frames per second")],
)
def test_impossible_options_say_what_is_allowed(options, message):
    with pytest.raises(UserError, match=message):
        cmu_mocap.CmuMocapConfig(**options)


def test_wrong_places_say_what_to_give(tree, tmp_path):
    with pytest.raises(UserError, match="no motion capture at"):
        cmu_mocap.find_clips(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no motion in it"):
        cmu_mocap.find_clips(tmp_path / "empty")
    (tmp_path / "broken.zip").write_bytes(b"PK not a zip")
    with pytest.raises(UserError, match="no complete zip file"):
        cmu_mocap.find_clips(tmp_path / "broken.zip")
    (tree / "subjects" / "02" / "02.asf").unlink()
    with pytest.raises(UserError, match=r"no skeleton .* belongs to .*02_01\.amc"):
        cmu_mocap.find_clips(tree)
    with pytest.raises(UserError, match="--raw"):
        _prepare(_config(""), tmp_path / "out")


@pytest.fixture(scope="module")
def real(shared_data):
    clips = cmu_mocap.find_clips(shared_data / "cmu_mocap")
    return {clip.name: clip for clip in clips}


def test_the_real_archive_has_its_clips_and_the_default_split(real):
    assert len(real) == 29
    splits = cmu_mocap.split_clips(list(real.values()), cmu_mocap.CmuMocapConfig())
    assert {clip.subject for clip in splits["test"]} == {"03", "11"}
    assert {clip.subject for clip in splits["train"]} == {"01", "02"}
    assert {clip.subject for clip in splits["validation"]} <= {"01", "02"}


@pytest.mark.parametrize(("name", "frames"), [("02_01", 143), ("02_03", 72), ("11_01", 249)])
def test_real_people_walk_forward_upright_and_left_is_left(real, name, frames):
    world = cmu_mocap.load_clip(real[name])
    assert world.shape == (frames, 17, 3)
    height = world[:, 10, 2] - world[:, [3, 6], 2].min(axis=1)
    assert np.all((height > 1.2) & (height < 1.7))
    across = world[:, 4] - world[:, 1]
    forward = np.cross(across, (0, 0, 1.0))
    speed = np.gradient(world[:, 0], axis=0)
    assert np.mean(np.sum(forward * speed, axis=-1) > 0) > 0.95
    # The bones that ASF has as such; hip and spine are middles of others.
    rigid = [(1, 2), (2, 3), (4, 5), (5, 6), (11, 12), (14, 15)]
    lengths = HUMAN36M.bone_lengths(world)
    for bone in rigid:
        own = lengths[:, HUMAN36M.bones.index(bone)]
        assert np.ptp(own) < 1e-6
        assert 0.2 < own[0] < 0.5


@pytest.mark.parametrize(("files", "subjects"), [
    # Flat; a named subject beside a numbered one; HDM05; one name for all; folders by kind.
    (("01.asf", "01_01.amc", "1_02.AMC", "10.asf", "10_01.amc"), ("01", "01", "10")),
    (("01/01.asf", "01/01_01.amc", "anna/anna.asf", "anna/anna_01.amc", "anna/Anna-02.amc"),
     ("01", "anna", "anna")),
    (("HDM_bd.asf", "walk/HDM_bd_walk2StepsLstart_001_120.amc", "HDM_mm/HDM_mm.asf",
      "HDM_mm/HDM_mm_02-03_03_120.amc"), ("HDM_bd", "HDM_mm")),
    (("a/skeleton.asf", "a/take 1.amc", "b/skeleton.asf", "b/x/take 1.amc"), ("a", "x")),
    (("asf/07.ASF", "asf/08.asf", "amc/07_11.amc", "amc/08_01.amc"), ("07", "08")),
])
def test_any_layout_and_name(tmp_path, files, subjects):
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_asf() if name.lower().endswith(".asf") else _amc(len(name)))
    clips = cmu_mocap.find_clips(tmp_path)
    assert sorted(clip.subject for clip in clips) == sorted(subjects)
    assert len({clip.name for clip in clips}) == len(clips)
    for clip in clips:
        assert cmu_mocap.load_clip(clip).shape == (25, 17, 3)


def test_subjects_without_numbers_are_chosen_by_a_hash(tree):
    for subject, name in (("01", "bd"), ("02", "bk"), ("03", "dg"), ("11", "mm")):
        (tree / "subjects" / subject / f"{subject}.asf").rename(
            tree / "subjects" / subject / f"HDM_{name}.asf")
        for path in (tree / "subjects" / subject).glob("*.amc"):
            path.rename(path.with_name(f"HDM_{name}_{path.stem[-2:]}_120.amc"))
    splits = cmu_mocap.split_clips(
        cmu_mocap.find_clips(tree), _config(tree, train_subjects=(), validation_subjects=(),
                                            test_subjects=()))
    test, train = ({clip.subject for clip in splits[split]} for split in ("test", "train"))
    assert len(test) == 1
    assert not test & train


def test_the_rate_of_the_files_can_be_given(tree, tmp_path):
    found = _prepare(_config(tree, raw_fps=60.0), tmp_path / "out")
    assert all(len(record["joints"]) == 50 for record in found["test"].values())


def test_a_leg_of_an_impossible_length_is_refused(tree):
    path = tree / "subjects" / "01" / "01.asf"
    path.write_text(path.read_text().replace("length 0.45", "length 1.0"))
    with pytest.raises(UserError, match=r"01\.asf: a leg is 0\.373 m long by the length of :units"):
        cmu_mocap.load_clip(cmu_mocap.find_clips(tree)[0])
