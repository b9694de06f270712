"""`jaxcxr render`: what is in the files, and every mistake."""

import base64
import contextlib
import json
import re

import cv2
import numpy as np
import pytest
from PIL import Image, ImageSequence

from jaxcxr import __main__ as commands
from jaxcxr.errors import UserError
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.player import motions, rendering
from jaxcxr.train import checkpoint
from tests import toys
from tests.pose.player import takes
from tests.pose.sources import fuzz

NAMES = ("walk/person 0/camera", "walk/person 1/camera")


def call(*arguments, code=0):
    with pytest.raises(SystemExit) if code else contextlib.nullcontext() as stopped:
        commands.run(["render", *map(str, arguments)])
    assert not code or stopped.value.code == code


def data_of(page):
    """What the page holds, decoded."""
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert len(found) == 1
    data = json.loads(found[0])
    for take in data["takes"]:
        for name, width in (("predicted", 3), ("truth", 3), ("input", 2)):
            if take[name] is not None:
                scale = take["pixel"] if name == "input" else take["scale"]
                values = np.frombuffer(base64.b64decode(take[name]), "<i2").astype(float)
                values = np.where(values == data["none"], np.nan, values * scale)
                take[name] = values.reshape(take["frames"], 17, width)
    return data


def test_a_page_of_predicted_poses_and_labels(tmp_path, capsys):
    truth = takes.write_npz(tmp_path / "walk.npz", NAMES)
    labels = {name: poses / 1000 for name, poses in truth.items()}
    np.savez(tmp_path / "labels.npz", **labels, unit="m")
    call(tmp_path / "walk.npz", "--labels", tmp_path / "labels.npz", "--out", tmp_path / "a.html")
    assert "2 sequences, 100 frames" in capsys.readouterr().out
    page = (tmp_path / "a.html").read_text()
    # One file: nothing is fetched, and the page forbids it too.
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)\s*=|https?://|@import|url\(", page)
    data = data_of(page)
    assert [take["name"] for take in data["takes"]] == list(NAMES)
    assert tuple(data["parents"]) == HUMAN36M.parents
    for i, take in enumerate(data["takes"]):
        true, guess, keypoints = takes.walk(seed=i)
        assert (take["scale"], take["pixel"], take["fps"]) == (0.1, 0.25, 50)
        assert np.abs(take["predicted"] - guess).max() < 0.051
        assert np.abs(take["truth"] - true).max() < 0.051
        assert np.abs(take["input"] - keypoints[..., :2]).max() < 0.126
        assert tuple(take["size"]) == takes.SIZE


def test_a_page_of_a_run(tmp_path):
    path = takes.write_csv(tmp_path / "run" / "predictions" / "test.csv")
    checkpoint.write_config(tmp_path / "run", toys.pose_config())
    call(path, "--out", tmp_path / "a.html")
    (take,) = data_of((tmp_path / "a.html").read_text())["takes"]
    assert take["fps"] == 50  # of the phantoms that the config names
    assert take["input"] is None
    true, guess, _ = takes.walk()
    assert np.abs(take["truth"] - true).max() < 0.11
    assert np.abs(take["predicted"] - guess).max() < 0.11


def test_names_and_titles_cannot_end_the_script(tmp_path):
    name = "</script><script>alert(1)</script>/a/b"
    takes.write_npz(tmp_path / "a.npz", (name,))
    page = rendering.page(motions.read(tmp_path / "a.npz"), "<b>&")
    assert page.count("</script>") == 2
    assert data_of(page)["takes"][0]["name"] == name
    assert "<h1>&lt;b&gt;&amp;</h1>" in page


def test_long_motions_are_thinned_and_say_so():
    guess = np.zeros((50, 17, 3), np.float32) + np.arange(50, dtype=np.float32)[:, None, None]
    take = motions.Take("a", 50.0, 0, guess)
    data = data_of(rendering.page([take, take], "t", most_frames=40))
    assert "every third frame" in data["note"]
    assert (data["takes"][0]["frames"], data["takes"][0]["fps"]) == (17, pytest.approx(50 / 3))
    np.testing.assert_allclose(data["takes"][0]["predicted"][:, 0, 0], np.arange(0, 50, 3))
    far = motions.Take("a", 50.0, 0, guess * 1000)
    (wide,) = data_of(rendering.page([far], "t"))["takes"]
    assert wide["scale"] == pytest.approx(49000 / 32767)
    np.testing.assert_allclose(wide["predicted"], far.joints, atol=0.51 * wide["scale"])


def test_unseen_points_and_unknown_truth_are_nothing(tmp_path):
    truth = takes.write_npz(tmp_path / "a.npz")
    content = dict(np.load(tmp_path / "a.npz"))
    content["confidence"][3, 5] = 0
    np.savez(tmp_path / "a.npz", **content)
    (name,) = truth
    np.savez(tmp_path / "labels.npz", poses=truth[name][:20], sequence=np.repeat("S1/a/b", 20),
             frame=np.arange(10, 30))
    read = motions.read(tmp_path / "a.npz")
    (take,) = motions.with_labels(read, tmp_path / "labels.npz")
    errors = take.errors()
    assert np.isfinite(errors).tolist() == [10 <= frame < 30 for frame in range(50)]
    expected = np.linalg.norm(take.joints[10:30] - truth[name][:20], axis=-1).mean(-1)
    np.testing.assert_allclose(errors[10:30], expected, rtol=1e-4)
    (shown,) = data_of(rendering.page([take], "t"))["takes"]
    assert np.isnan(shown["truth"][0]).all()
    assert np.isnan(shown["input"][3, 5]).all()
    assert np.isnan(shown["input"]).sum() == 2


def colors(picture):
    """How many pixels are blue, orange and green."""
    r, g, b = np.moveaxis(np.asarray(picture, int), -1, 0)
    return ((b > 140) & (r < 80)).sum(), ((r > 170) & (b < 80)).sum(), ((g > 130) & (r < 80)).sum()


def test_gif(tmp_path, capsys):
    path = takes.write_csv(tmp_path / "test.csv", NAMES)
    call(path, "--fps=50", "--sequence=person 1", "--out", tmp_path / "a.gif")
    assert "walk/person 1/camera: 25 frames at 25 fps" in capsys.readouterr().out
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 25
        pictures = [frame.convert("RGB") for frame in ImageSequence.Iterator(film)]
        assert film.info["duration"] == 40
    blue, orange, _ = colors(pictures[0])
    assert orange > 300
    assert blue > 60
    assert np.abs(np.asarray(pictures[0], int) - np.asarray(pictures[12], int)).mean() > 0.5


def test_mp4(tmp_path, capsys):
    takes.write_npz(tmp_path / "walk.npz", NAMES)
    call(tmp_path / "walk.npz", "--out", tmp_path / "a.mp4")
    said = capsys.readouterr().out
    assert "25 frames at 25 fps, codec vp09" in said
    assert "walk.npz has 1 more" in said
    film = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    assert film.get(cv2.CAP_PROP_FPS) == pytest.approx(25)
    pictures = []
    while (picture := film.read())[0]:
        pictures.append(picture[1][..., ::-1])
    film.release()
    assert len(pictures) == 25
    _, orange, green = colors(pictures[0])
    assert min(orange, green) > 300


def test_films_without_the_codec_that_browsers_play(tmp_path, monkeypatch, capsys):
    takes.write_npz(tmp_path / "walk.npz")
    monkeypatch.setattr(rendering, "_CODECS", ("zzzz", "mp4v"))
    call(tmp_path / "walk.npz", "--out", tmp_path / "a.mp4")
    assert "browsers do not" in capsys.readouterr().out
    monkeypatch.setattr(rendering, "_CODECS", ("zzzz",))
    call(tmp_path / "walk.npz", "--out", tmp_path / "b.mp4", code=1)
    assert "none of the codecs zzzz" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "walk.npz"]


@pytest.mark.parametrize("kind", ["gif", "mp4", "html"])
def test_a_single_pose(tmp_path, kind):
    np.savez(tmp_path / "a.npz", **{"S1/a/b": takes.walk()[0][:1]})
    call(tmp_path / "a.npz", "--fps=30", "--out", tmp_path / f"a.{kind}")
    assert (tmp_path / f"a.{kind}").stat().st_size > 500


def test_films_are_thinned():
    long = motions.Take("a", 50.0, 0, np.zeros((6001, 17, 3), np.float32))
    fewer, note = rendering.thinned(long)
    assert (len(fewer.joints), fewer.fps) == (1201, 10)
    assert "10 of 50 frames per second" in note
    assert rendering.thinned(long.every(60))[1] == ""


def test_predictions_of_another_framework_in_metres(tmp_path):
    _, guess, _ = takes.walk()
    np.savez(tmp_path / "a.npz", **{"S9/Walking 1/cam": guess / 1000})
    with pytest.raises(UserError, match="give --fps"):
        motions.read(tmp_path / "a.npz")
    (take,) = motions.read(tmp_path / "a.npz", fps=30)
    np.testing.assert_allclose(take.joints, guess, atol=1e-2)
    assert take.keypoints is None


@pytest.mark.parametrize(("arguments", "message"), [
    (["none.npz", "--out=a.html"], "no predictions at none.npz"),
    (["a.npz", "--out=a.avi"], "ends in none of .html, .gif, .mp4"),
    (["a.npz", "--out=a.html", "--sequence=run"], "no sequence 'run'; its sequences: walk/"),
    (["a.npz", "--out=a.html", "--fps=-1"], "--fps -1"),
    (["a.npz", "--out=a.html", "--labels=other.npz"], "no sequence 'walk/person 0/camera'"),
    (["sixteen.npz", "--out=a.html", "--fps=5"], "poses have 16 joints"),
    (["nan.npz", "--out=a.html", "--fps=5"], "has a pose that is not finite"),
    (["a.txt", "--out=a.html"], "give an .npz or a .csv"),
    (["table.csv", "--out=a.html"], "no column 'sequence_id'"),
    (["rows.csv", "--out=a.html"], "does not say its frames per second"),
    (["half.csv", "--out=a.html", "--fps=5"], "no column 'true_left_wrist_y'"),
    (["text.csv", "--out=a.html", "--fps=5"], "column 'predicted_hip_x' must hold numbers"),
    (["a.npz", "--out=a.txt/a.html"], "cannot write"),
])
def test_mistakes(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    takes.write_npz(tmp_path / "a.npz")
    (tmp_path / "a.txt").write_text("")
    np.savez("other.npz", **{f"S1/a/{i}": np.zeros((3, 17, 3)) for i in range(2)})
    np.savez("sixteen.npz", **{"S1/a/b": np.zeros((3, 16, 3))})
    np.savez("nan.npz", **{"S1/a/b": np.full((3, 17, 3), np.nan)})
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    text = takes.write_csv(tmp_path / "rows.csv").read_text()
    (tmp_path / "half.csv").write_text(text.replace("true_left_wrist_y", "else"))
    lines = text.splitlines()
    cells = lines[1].split(",")
    cells[5 + 51] = "far"
    (tmp_path / "text.csv").write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]))
    call(*arguments, code=2)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_damaged_files(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        valid = "\n".join(takes.write_csv(path).read_text().splitlines()[:4]).encode()
    else:
        takes.write_npz(path)
        valid = path.read_bytes()

    def write_and_read(content):
        path.write_bytes(content)
        motions.read(path, fps=50)

    fuzz.assert_only_user_errors(write_and_read, valid, path.name, examples=60)
