"""The benchmarks of bundles: what a guard flags, and the rows of a prediction beside the model."""

import argparse
import re

import cv2
import numpy as np
import pytest

from jaxcxr.deploy.bundle import Bundle
from jaxcxr.deploy.predict import xray_files
from tests.bench import guard_bench, predict_bench


def run(program, *words):
    parser = argparse.ArgumentParser()
    program.add_arguments(parser)
    program.run(parser.parse_args([*map(str, words)]))


@pytest.fixture
def few(monkeypatch):
    """Two kinds of images instead of fifteen."""
    changed, foreign = guard_bench.changed, guard_bench.foreign
    monkeypatch.setattr(
        guard_bench, "changed", lambda *given: {"inverted": changed(*given)["inverted"]})
    monkeypatch.setattr(guard_bench, "foreign", lambda *given: {"noise": foreign(*given)["noise"]})


def test_rows_of_the_guard(bundle_file, few, capsys):
    run(guard_bench, "--model", bundle_file, "--images", 8)
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
    foreign = guard_bench.foreign(3, lambda image: image[:32, :32], 0)
    sets = {**guard_bench.changed(real, 0), **foreign}
    assert len(sets) == 15
    for name, pixels in sets.items():
        assert pixels.dtype == np.uint8, name
        assert len(pixels) == 3, name
        assert not np.array_equal(pixels[..., :8, :8], real[..., :8, :8]), name
    np.testing.assert_array_equal(sets["inverted"], 255 - real)
    np.testing.assert_array_equal(sets["mirrored"], real[:, :, ::-1])


def test_a_prediction_goes_from_files_to_rows_in_every_round(bundle_file, tmp_path, monkeypatch):
    bundle, written = Bundle.load(bundle_file), []
    write = xray_files.Tables.write
    monkeypatch.setattr(
        xray_files.Tables, "write",
        lambda tables, row: written.append(row.status) or write(tables, row))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32), np.uint8)
    paths = [str(tmp_path / f"{i}.png") for i in range(8)]
    for path, image in zip(paths, pixels, strict=True):
        cv2.imwrite(path, image)
    found = predict_bench.measure(bundle, paths, pixels, 4, 2, tmp_path)
    assert [set(sides) for sides in found] == [{"predict", "bare"}] * 2
    assert all(rate > 0 for sides in found for rate in sides.values())
    assert written == ["flagged"] * 8 * 3  # noise, in two rounds and one that compiles
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 9


def test_what_is_printed_of_a_prediction(bundle_file, capsys):
    words = ("--model", bundle_file, "--images", 8, "--batch", 4, "--rounds", 2)
    run(predict_bench, *words)
    title, whole, bare, ratio = capsys.readouterr().out.splitlines()
    assert title.endswith("8 images, batches of 4")
    for line, start in ((whole, "files to rows"), (bare, "bare model"), (ratio, "ratio")):
        assert re.fullmatch(rf"{start} +[\d,.]+ .*\(median of .*\)", line)
