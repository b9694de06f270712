"""The benchmark of preparation: figures that belong together, and mistakes as sentences."""

import argparse
import re

import cv2
import numpy as np
import pytest

from jaxcxr.errors import UserError
from jaxcxr.xray.images import image_files
from jaxcxr.xray.sources import builder
from tests.bench import prepare_bench


def run(*words):
    parser = argparse.ArgumentParser()
    prepare_bench.add_arguments(parser)
    prepare_bench.run(parser.parse_args([*map(str, words)]))


@pytest.fixture
def folder(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
    for i, image in enumerate(noise):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    return tmp_path


def rows_of(text):
    return {line.split()[0]: line for line in text.splitlines()[1:]}


def test_prints_a_rate_and_its_ratio_for_each_encoding(folder, capsys):
    run("--raw-images", folder, "--size", 32)
    text = capsys.readouterr().out
    assert text.startswith("3 images to 32 x 32")
    rows = rows_of(text)
    assert float(re.search(r"([\d.]+) images/s", rows["bare"])[1]) > 0
    for encoding in image_files.ENCODINGS:
        rate, ratio = map(float, re.findall(r"[\d.]+", rows[encoding].replace("images/s,", "")))
        assert min(rate, ratio) > 0


def test_rates_and_ratios_are_those_of_the_clock(folder, capsys, monkeypatch):
    now = 0.0

    def spend(seconds):
        nonlocal now
        now += seconds

    costs = {name: 0.125 * 2**i for i, name in enumerate(image_files.ENCODINGS)}
    monkeypatch.setattr(prepare_bench.time, "perf_counter", lambda: now)
    monkeypatch.setattr(prepare_bench, "_bare", lambda item, size: spend(0.25))
    monkeypatch.setattr(builder, "encode", lambda item, encoding, **_: spend(costs[encoding]))
    run("--raw-images", folder, "--size", 32)
    rows = rows_of(capsys.readouterr().out)
    assert "4.0 images/s" in rows["bare"]
    for encoding, cost in costs.items():
        expected = f"{1 / cost:.1f} images/s, ratio to the bare loop {0.25 / cost:.2f}"
        assert rows[encoding].endswith(expected)


def test_bare_loop_does_what_a_record_holds(folder):
    item = builder.Item.of(builder.ImageRecord("0", "0", "bench", "train", (0,)), folder / "0.png")
    record = builder.encode(item, size=32, equalize="hist", encoding="png").popitem()[1]
    bare = prepare_bench._bare(item, size=32)
    ours, theirs = map(image_files.decode, (record["image"], bare.tobytes()))
    np.testing.assert_array_equal(ours, theirs)


def test_mistakes_are_sentences(folder, tmp_path):
    with pytest.raises(UserError, match="--raw-images"):
        run()
    with pytest.raises(UserError, match="nowhere"):
        run("--raw-images", tmp_path / "nowhere")
    (folder / "0.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"0\.png: not a readable image"):
        run("--raw-images", folder)
