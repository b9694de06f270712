"""The benchmarks of bundles: what a guard flags, and the rows of a prediction beside the model."""

import argparse
import re

import numpy as np
import pytest

from jaxcxr import bench
from jaxcxr.bench import guard


def arguments(*words):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    args, args.config = parser.parse_known_args([*map(str, words)])
    return args


@pytest.fixture
def few(monkeypatch):
    """Two kinds of images instead of fifteen."""
    changed, foreign = guard.changed, guard.foreign
    monkeypatch.setattr(
        guard, "changed", lambda *given: {"inverted": changed(*given)["inverted"]})
    monkeypatch.setattr(guard, "foreign", lambda *given: {"noise": foreign(*given)["noise"]})


def test_rows_of_the_guard(bundle_file, few, capsys):
    bench.run(arguments("guard", "--model", bundle_file, "--images", 8))
    title, header, inside, *rows = capsys.readouterr().out.splitlines()
    assert "resnet18 of run" in title
    assert header.split() == ["images", "n", "AUROC", "appearance", "content", "flagged"]
    assert inside.startswith("test split  8")
    for row, name in zip(rows, ("inverted", "noise"), strict=True):
        assert row.startswith(name)
        auroc, *_, flagged = map(float, row.split()[2:])
        assert auroc > 0.9
        assert 0 <= flagged <= 1


def test_changes_and_what_is_no_radiograph_are_images_of_the_same_size():
    real = np.random.default_rng(0).integers(0, 256, (3, 32, 32), np.uint8)
    sets = {**guard.changed(real, 0), **guard.foreign(3, lambda image: image[:32, :32], 0)}
    assert len(sets) == 15
    for name, pixels in sets.items():
        assert pixels.dtype == np.uint8, name
        assert len(pixels) == 3, name
        assert not np.array_equal(pixels[..., :8, :8], real[..., :8, :8]), name
    np.testing.assert_array_equal(sets["inverted"], 255 - real)
    np.testing.assert_array_equal(sets["mirrored"], real[:, :, ::-1])


def test_rows_of_a_prediction(bundle_file, capsys):
    words = ("predict", "--model", bundle_file, "--images", 8, "--batch", 4, "--rounds", 2)
    bench.run(arguments(*words))
    title, *rows = capsys.readouterr().out.splitlines()
    assert title.endswith("8 images, batches of 4")
    whole, bare, ratio = (float(re.sub(r"[^0-9. ]", "", row).split()[0]) for row in rows)
    assert whole > 0
    assert 0.01 < ratio < 10
    assert ratio == pytest.approx(whole / bare, rel=0.9)
