"""Resizing, equalising, and the encodings of a record."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxcxr.errors import BadRecord, UserError
from jaxcxr.xray.images import image_files


@pytest.fixture(scope="module")
def gray():
    """Smooth gray image `[48, 40]` with noise, no two rows alike."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:48, :40]
    return np.clip(rows * 3 + columns + rng.normal(0, 4, (48, 40)), 0, 255).astype(np.uint8)


def test_shrinking_by_a_whole_factor_is_the_mean_of_the_blocks(gray):
    square = gray[:32, :32]
    blocks = square.reshape(8, 4, 8, 4).astype(float).mean(axis=(1, 3))
    np.testing.assert_allclose(image_files.resize(square, 8), blocks, atol=1)


def test_shrinking_keeps_the_mean_and_avoids_aliasing():
    stripes = np.tile(np.array([0, 255], np.uint8), (448, 224))
    small = image_files.resize(stripes, 100)
    np.testing.assert_allclose(small, 127.5, atol=12)


def test_resizing_to_the_same_size_changes_nothing_and_growing_works(gray):
    square = gray[:32, :32]
    assert image_files.resize(square, 32) is square
    assert image_files.resize(gray, 64).shape == (64, 64)


def test_histogram_equalisation_spreads_the_gray_values_evenly(gray):
    dark = gray // 4
    equal = image_files.equalize(dark, "hist")
    assert (equal.min(), equal.max()) == (0, 255)
    shares = np.arange(1, 256) / 255
    distribution = np.array([(equal <= 255 * share).mean() for share in shares])
    assert np.abs(distribution - shares).max() < 0.06
    order = np.argsort(dark, axis=None)
    assert (np.diff(equal.ravel()[order].astype(int)) >= 0).all()


def test_clahe_differs_from_hist_and_none_changes_nothing(gray):
    assert image_files.equalize(gray, "none") is gray
    clahe, hist = (image_files.equalize(gray, method) for method in ("clahe", "hist"))
    assert not np.array_equal(clahe, hist)
    with pytest.raises(UserError, match="hist, clahe, none"):
        image_files.equalize(gray, "histogram")


@pytest.mark.parametrize("encoding", ["png", "zstd", "raw"])
@pytest.mark.parametrize("shape", [(48, 40), (1, 1), (1, 7), (33, 2)])
def test_lossless_encodings_return_the_very_image(encoding, shape):
    image = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    for one in (image, image.T):
        np.testing.assert_array_equal(image_files.decode(image_files.encode(one, encoding)), one)


def test_zstd_survives_the_overflow_of_its_sums():
    white = np.full((4096, 4096), 255, np.uint8)
    white[::2, 1::2] = 0
    np.testing.assert_array_equal(image_files.decode(image_files.encode(white, "zstd")), white)


def test_png_and_jpeg_records_open_elsewhere(gray):
    with Image.open(io.BytesIO(image_files.encode(gray, "png"))) as picture:
        assert (picture.format, picture.mode) == ("PNG", "L")
        np.testing.assert_array_equal(np.asarray(picture), gray)
    with Image.open(io.BytesIO(image_files.encode(gray, "jpeg"))) as picture:
        assert (picture.format, picture.mode) == ("JPEG", "L")
        assert np.abs(np.asarray(picture).astype(int) - gray).mean() < 2


def test_raw_record_is_npy(gray):
    np.testing.assert_array_equal(np.load(io.BytesIO(image_files.encode(gray, "raw"))), gray)


def test_unknown_encoding_names_the_known(gray):
    with pytest.raises(UserError, match="png, zstd, raw, jpeg"):
        image_files.encode(gray, "gif")


@pytest.mark.parametrize("encoding", image_files.ENCODINGS)
def test_broken_record_is_an_error(gray, encoding):
    content = image_files.encode(gray, encoding)
    with pytest.raises(BadRecord, match="record"):
        image_files.decode(content[: len(content) // 8])


def test_pickle_in_a_record_is_not_executed():
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(BadRecord):
        image_files.decode(buffer.getvalue())
