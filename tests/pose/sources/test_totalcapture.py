"""TotalCapture: its files as published, made from drawn motion, and the prepared data set."""

import numpy as np
import pytest

from jaxcxr.data import preparation
from jaxcxr.errors import UserError
from jaxcxr.pose.geometry import cameras
from jaxcxr.pose.sources import clips, totalcapture
from jaxcxr.pose.sources.totalcapture import TotalcaptureConfig
from tests.pose.sources import fuzz, takes_3d

TAKES = ("rom1", "walking2", "freestyle2", "acting3", "freestyle3")
TO_Y_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
LENS = cameras.Intrinsics(1070.0, 1069.0, 965.0, 535.0, -0.18, width=1920, height=1080)
CAMERAS = [cameras.look_at(name, LENS, place, (0.0, 0.0, 1.0))
           for name, place in (("cam1", (4.0, 3.0, 2.5)), ("cam2", (-4.0, 3.5, 2.6)))]


def positions_text(world: np.ndarray) -> str:
    """As published: tabs between joints and at the end, spaces between coordinates, inches."""
    points = takes_3d.points("totalcapture21", world) @ TO_Y_UP.T / 0.0254
    lines = ["\t".join(totalcapture.NAMES) + "\t"]
    lines += ["\t".join(" ".join(f"{x:.6f}" for x in point) for point in frame) + "\t"
              for frame in points]
    return "\n".join(lines) + "\n"


def calibration_text(views=CAMERAS) -> str:
    lines = [f"{len(views)} 1"]
    for camera in views:
        lens = camera.intrinsics
        rotation = camera.rotation @ TO_Y_UP.T
        translation = -camera.rotation @ camera.position
        lines += ["0 1079 0 1919", f"{lens.fx} {lens.fy} {lens.cx} {lens.cy}", f"{lens.k1}"]
        lines += [" ".join(f"{x:.12f}" for x in row) for row in (*rotation, translation)]
    return "\n".join(lines) + "\n"


def write(raw, frames=20):
    """A copy of the data set: five subjects, five takes each."""
    raw.mkdir(parents=True, exist_ok=True)
    (raw / "calibration.cal").write_text(calibration_text())
    for subject in range(1, 6):
        for number, take in enumerate(TAKES):
            path = raw / f"S{subject}" / "vicon" / take / "gt_skel_gbl_pos.txt"
            path.parent.mkdir(parents=True)
            path.write_text(positions_text(takes_3d.walk(frames, 10 * subject + number)))
    return raw


@pytest.fixture
def raw(tmp_path):
    return write(tmp_path / "raw")


def prepared(raw, out, **options):
    builder = preparation.prepare("totalcapture", out, raw=str(raw), **options)
    return builder, {
        split: {r["sequence_id"].decode(): r for r in builder.as_data_source(split)}
        for split in ("train", "validation", "test")
    }


def test_prepared_as_published(raw, tmp_path):
    builder, found = prepared(raw, tmp_path / "out")
    names = {split: {name.rsplit("_", 1)[0] for name in records} for split, records in
             found.items()}
    assert names["train"] == {"S1_rom1", "S2_rom1", "S3_rom1"}
    assert names["validation"] == {"S1_freestyle2", "S2_freestyle2", "S3_freestyle2"}
    assert names["test"] == {f"S{i}_{take}" for i in range(1, 6)
                             for take in ("walking2", "acting3", "freestyle3")}
    record = found["test"]["S4_acting3_cam2"]
    assert (record["subject"], record["action"], record["fps"]) == (b"S4", b"acting3", 60.0)
    assert tuple(record["image_size"]) == (1920, 1080)
    world = takes_3d.walk(20, 43)
    expected = CAMERAS[1].to_camera(world)
    kept = takes_3d.KEPT
    np.testing.assert_allclose(record["joints"][:, kept], expected[:, kept], atol=1e-5)
    assert (record["confidence"] == 1).all()
    np.testing.assert_allclose(record["keypoints"][:, kept], LENS.project(expected)[:, kept],
                               atol=2e-3)
    # Upright: the head is higher in the image than the feet.
    assert (record["keypoints"][:, 10, 1] < record["keypoints"][:, 3, 1]).all()
    sequences = clips.read_sequences(builder.data_path, "train")
    assert {s.fps for s in sequences} == {60.0}


def test_options(raw, tmp_path):
    _, found = prepared(raw, tmp_path / "out", cameras="cam1", validation_subjects="S3",
                        train_subjects="S1,S2", fps=30.0, noise=2.0)
    assert set(found["train"]) == {f"S{i}_{take}_cam1" for i in (1, 2)
                                   for take in ("rom1", "freestyle2")}
    assert set(found["validation"]) == {"S3_rom1_cam1", "S3_freestyle2_cam1"}
    record = found["train"]["S1_rom1_cam1"]
    assert (record["fps"], len(record["joints"])) == (30.0, 10)
    exact = LENS.project(record["joints"])
    error = record["keypoints"] - exact
    assert 1 < error.std() < 3


def test_the_names_of_variants_differ():
    published = TotalcaptureConfig().name
    assert published.startswith("published_")
    others = {TotalcaptureConfig(**{field: "S1"}).name for field in
              ("train_subjects", "validation_takes", "test_subjects", "cameras")}
    assert len(others | {published, TotalcaptureConfig(fps=30.0).name}) == 6


@pytest.mark.parametrize(("options", "match"), [
    ({"cameras": "cam9"}, "no camera 'cam9'; there are cam1, cam2"),
    ({"validation_subjects": "S1"}, "S1 is named for two splits"),
    ({"test_takes": "freestyle2"}, "freestyle2 is named for two splits"),
    ({"train_subjects": "S9"}, "no take for the train split; there are S1/acting3"),
    ({"fps": -1.0}, "from 1 to 1,000"),
    ({"noise": -1.0}, "must not be negative"),
])
def test_mistakes_are_sentences(raw, tmp_path, options, match):
    with pytest.raises(UserError, match=match):
        prepared(raw, tmp_path / "out", **options)


def test_folders_with_mistakes(raw, tmp_path):
    with pytest.raises(UserError, match="where is the data"):
        preparation.prepare("totalcapture", tmp_path / "out")
    with pytest.raises(UserError, match=r"no gt_skel_gbl_pos\.txt in"):
        totalcapture.find_takes(tmp_path / "none")
    (raw / "S1" / "again" / "rom1").mkdir(parents=True)
    text = (raw / "S1" / "vicon" / "rom1" / "gt_skel_gbl_pos.txt").read_text()
    (raw / "S1" / "again" / "rom1" / "gt_skel_gbl_pos.txt").write_text(text)
    with pytest.raises(UserError, match="of its own: as"):
        totalcapture.find_takes(raw)
    (tmp_path / "x" / "walking1").mkdir(parents=True)
    (tmp_path / "x" / "walking1" / "gt_skel_gbl_pos.txt").write_text(text)
    with pytest.raises(UserError, match="no folder above it is S1 to S5"):
        totalcapture.find_takes(tmp_path / "x")
    (raw / "S1" / "calibration.cal").write_text(calibration_text())
    with pytest.raises(UserError, match=r"2 files calibration\.cal"):
        totalcapture.find_cameras(raw, ())


def _cut(text, lines):
    return "".join(text.splitlines(keepends=True)[:lines])


@pytest.mark.parametrize(("change", "match"), [
    (lambda t: t.replace("LeftFoot", "LeftToe", 1), "has no LeftFoot"),
    (lambda t: t.replace("Spine1", "Spine", 1), "has no Spine1"),
    (lambda t: t.replace("\t\n", "\tHead\n", 1), "names Head twice"),
    (lambda t: _cut(t, 1), "0 frames; expected 1"),
    (lambda t: "", "has no Hips"),
    (lambda t: t[:-300], r"line 21: \d+ numbers, but 21 joints need 63"),
    (lambda t: t.replace("\t", " nan\t", 22).replace(" nan", "", 21), "line 2: 64 numbers"),
    (lambda t: _cut(t, 2) + " ".join(["nan"] * 63), "line 3: a number is not finite"),
    (lambda t: _cut(t, 2) + " ".join(["1e9"] * 63), "line 3: a number is not finite"),
    (lambda t: _cut(t, 2) + " ".join(["x"] * 63), "line 3: could not convert"),
    (lambda t: _cut(t, 1) + " ".join(["1.0"] * 63), "head and feet are 0 m apart"),
])
def test_broken_positions(tmp_path, change, match):
    path = tmp_path / "gt_skel_gbl_pos.txt"
    path.write_text(change(positions_text(takes_3d.walk())))
    with pytest.raises(UserError, match=match) as said:
        totalcapture.read_positions(path)
    assert str(path) in str(said.value)


def test_positions_in_metres_are_refused_and_the_order_of_joints_does_not_matter(tmp_path):
    path = tmp_path / "a.txt"
    world = takes_3d.walk(3)
    path.write_text(positions_text(world * 0.0254))
    with pytest.raises(UserError, match="must hold people in inches"):
        totalcapture.read_positions(path)
    path.write_text(positions_text(world))
    expected = totalcapture.read_positions(path)
    rows = [line.strip("\t\n").split("\t") for line in positions_text(world).splitlines()]
    path.write_text("\n".join("\t".join(row[::-1]) for row in rows))
    np.testing.assert_array_equal(totalcapture.read_positions(path), expected)


def test_a_person_who_stands_still_is_read(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(positions_text(np.repeat(takes_3d.walk(2)[:1], 5, 0)))
    joints = totalcapture.read_positions(path)
    assert joints.shape == (5, 17, 3)
    assert (joints == joints[:1]).all()


@pytest.mark.parametrize(("change", "match"), [
    (lambda t: "", "first line must be the number of cameras"),
    (lambda t: t.replace("2 1", "2 3", 1), "first line must be the number"),
    (lambda t: t.replace("2 1", "0 1", 1), "first line must be the number"),
    (lambda t: t.replace("2 1", "3 1", 1), "42 numbers for 3 cameras, which need 21 each"),
    (lambda t: t[:-40], "numbers for 2 cameras"),
    (lambda t: t.replace("0 1079 0 1919", "0 -5 0 1919", 1),
     "camera 1: its focal length or image size"),
    (lambda t: t.replace("1070.0", "-1070.0", 1), "camera 1: its focal length or image size"),
    (lambda t: t.replace("1070.0", "nan", 1), "line 3: a number is not finite"),
    (lambda t: t.replace("1070.0", "f", 1), "line 3: could not convert"),
    (lambda t: "\n".join(["1 1", "0 1 0 1", "1 1 1 1", "0", "1 0 0", "0 1 0", "0 0 2", "0 0 0"]),
     "camera 1: its rotation matrix is not a rotation"),
    (lambda t: "\n".join(["1 1", "0 1 0 1", "1 1 1 1", "0", "1 0 0", "0 1 0", "0 0 -1", "0 0 0"]),
     "camera 1: its rotation matrix is not a rotation"),
])
def test_broken_calibration(tmp_path, change, match):
    path = tmp_path / "calibration.cal"
    path.write_text(change(calibration_text()))
    with pytest.raises(UserError, match=match) as said:
        totalcapture.read_cameras(path)
    assert str(path) in str(said.value)


@pytest.mark.parametrize("kind", ["positions", "calibration"])
def test_damaged_files(tmp_path, kind):
    path = tmp_path / "damaged.txt"
    read, text = {
        "positions": (totalcapture.read_positions, positions_text(takes_3d.walk(2))),
        "calibration": (totalcapture.read_cameras, calibration_text()),
    }[kind]

    def write_and_read(content):
        path.write_bytes(content)
        read(path)

    fuzz.assert_only_user_errors(write_and_read, text.encode(), path.name)
