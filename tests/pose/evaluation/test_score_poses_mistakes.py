"""`jaxcxr score --task pose`: every mistake is a sentence and exit code 2."""

import numpy as np
import pytest

from jaxcxr import __main__ as command
from jaxcxr.errors import UserError
from jaxcxr.pose.evaluation import pose_arrays
from tests.pose.evaluation.pose_scores import KEYS, Folder, refused


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def _broken(folder, name):
    key, poses = KEYS[0], folder.predictions
    value = poses[key].copy()
    if name == "NaN":
        value[3, 7] = np.nan
    changes = {
        "missing": {k: v for k, v in poses.items() if k != key},
        "shorter": {**poses, key: value[:-1]}, "longer": {**poses, key: np.tile(value, (2, 1, 1))},
        "joints": {**poses, key: value[:, :16]}, "flat": {**poses, key: value[..., :2]},
        "no frame": {**poses, key: value[:0]}, "NaN": {**poses, key: value},
        "text": {**poses, key: value.astype(str)}, "key": {**poses, "walk": value},
        "twice": {**poses, "S9/WalkingDog/0": value, "S9/WalkDog/0": value},
        "protocol": {**poses, "protocol": "vp3d-gt"}, "objects": {"positions_3d": np.array({})},
        "nothing": {"unit": "m"}, "no index": {"poses": value},
        "index": {"poses": value, "sequence": [key]},
        "frame": {"poses": value, "sequence": [key] * 6, "frame": np.zeros(6)},
        "again": {"poses": value, "sequence": [key] * 6, "frame": np.array([0, 1, 1, 2, 3, 4])},
        "gap": {"poses": value, "sequence": [key] * 6, "frame": np.arange(6) + 1},
    }
    folder.save(predictions=changes[name])
    if name == "gap":
        np.savez(folder.path / "labels.npz", **{key: folder.labels[key]})


@pytest.mark.parametrize(("name", "message"), [
    ("missing", "1 of 16 sequences are not predicted: S9/Walking 1/54138969"),
    ("shorter", "5 frames of S9/Walking 1/54138969, but the labels have 6"),
    ("longer", "12 frames of S9/Walking 1/54138969, but the labels have 6"),
    ("joints", "16 joints in S9/Walking 1/54138969, but vp3d-cpn has 17"),
    ("flat", "S9/Walking 1/54138969 has the shape (6, 17, 2)"),
    ("no frame", "has the shape (0, 17, 3)"),
    ("NaN", "spine in frame 3 of S9/Walking 1/54138969 is not finite, and 0 more"),
    ("text", "not numbers"),
    ("key", "'walk' is no sequence; sequences are called subject/action/camera"),
    ("twice", "two arrays are of the sequence S9/WalkDog/0"),
    ("protocol", "of the protocol vp3d-gt, not vp3d-cpn"),
    ("objects", "positions_3d: not a plain array but Python objects"),
    ("nothing", "no array of poses in it"),
    ("no index", "poses need subject, action and camera, or sequence"),
    ("index", "sequence has the shape (1,), but there are 6 poses"),
    ("frame", "frame must be whole numbers, not float64"),
    ("again", "has frame 1 twice"),
    ("gap", "1 of 6 frames of S9/Walking 1/54138969 are not predicted, the first is 0"),
])
def test_mistakes_in_predictions(folder, capsys, name, message):
    _broken(folder, name)
    text = refused(capsys, folder.run)
    assert message in text
    assert "guess.npz" in text


def test_mistakes_in_labels(folder, capsys):
    folder.labels[KEYS[1]][2, 0] = np.nan
    folder.save()
    assert "S9/Walking 1/60457274 has no hip in frame 2" in refused(capsys, folder.run)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04nothing", b"\x80\x04N.", b"text"])
def test_files_that_are_no_arrays(folder, capsys, content):
    (folder.path / "guess.npz").write_bytes(content)
    assert "guess.npz" in refused(capsys, folder.run)


def test_damaged_files_are_refused_wherever_they_are_cut(folder, tmp_path):
    np.savez_compressed(tmp_path / "whole.npz", **{KEYS[0]: folder.labels[KEYS[0]]})
    whole = (tmp_path / "whole.npz").read_bytes()
    rng = np.random.default_rng(0)
    refusals = 0
    for end in range(0, len(whole), 37):
        (tmp_path / "cut.npz").write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"cut\.npz"):
            pose_arrays.read(tmp_path / "cut.npz")
    for _ in range(60):
        changed = bytearray(whole)
        changed[rng.integers(len(whole))] ^= int(rng.integers(1, 256))
        (tmp_path / "cut.npz").write_bytes(changed)
        try:
            pose_arrays.read(tmp_path / "cut.npz")
        except UserError:
            refusals += 1
    assert refusals > 30


def test_mistakes_of_options(folder, capsys):
    for options, message in (
        (["--protocol=vp3d-cnp"], "Did you mean vp3d-cpn?"),
        (["--protocol=vp3d-cpn", "--split-list", "x"], "--split-list is of radiographs"),
        (["--task=cxr", "--protocol=vp3d-cpn"], "--protocol is of poses; add --task pose"),
        (["--task=cxr", "--labels-unit=m"], "--labels-unit is of poses"),
        ([], "--protocol is missing; name one of vp3d-cpn"),
        (["--protocol=vp3d-cpn", "--resamples=0"], "--resamples must be at least 1"),
        (["--protocol=vp3d-cpn", "--labels=nothing.npz"], "nothing.npz cannot be read"),
        (["--protocol=vp3d-cpn", f"--out={folder.path / 'labels.npz'}"], "cannot be written"),
    ):
        words = [
            "score", "--task=pose", "--labels", str(folder.path / "labels.npz"), "--predictions",
            str(folder.path / "guess.npz"), "--out", str(folder.path / "out"), *options,
        ]
        assert message in refused(capsys, lambda words=words: command.run(words))
