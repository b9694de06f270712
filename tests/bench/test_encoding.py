"""The benchmark of encodings, on toys."""

import argparse

import cv2
import numpy as np
import pytest

from jaxcxr.errors import UserError
from tests.bench import encoding
from tests.bench.printed import number


def run(*words):
    parser = argparse.ArgumentParser()
    encoding.add_arguments(parser)
    encoding.run(parser.parse_args([*map(str, words)]))


def test_encoding_prints_a_row_for_each(tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), noise)
    run("--images", tmp_path, "--size", 64)
    text = capsys.readouterr().out
    assert number(text, "raw") == pytest.approx(64 * 64 / 1e3, abs=1)  # kB
    for name in ("png", "zstd", "jpeg"):
        assert number(text, name) > 0


@pytest.mark.parametrize("words", [(), ("--images", "nowhere")])
def test_encoding_without_images_is_a_users_mistake(words):
    with pytest.raises(UserError, match="--images"):
        run(*words)
