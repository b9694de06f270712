"""Depth, padding and orientation of films against OpenCV, Pillow and films without defects."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxcxr.xray.images import film_files, films, image_files
from jaxcxr.xray.images.films import Film


@pytest.fixture(scope="module")
def gray():
    """Smooth film of 8 bits `[120, 100]`, wide histogram, no symmetry."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:120, :100]
    wave = 90 + 50 * np.sin(rows / 17) + 40 * np.cos(columns / 11) + rows / 3
    return np.clip(wave + rng.normal(0, 3, wave.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("method", image_files.EQUALIZE)
@pytest.mark.parametrize("size", [100, 64, 25])
def test_a_film_of_8_bits_is_resized_and_equalised_as_before(gray, method, size):
    expected = image_files.equalize(image_files.resize(gray, size), method)
    np.testing.assert_array_equal(Film(gray).prepared(size, method), expected)


@pytest.mark.parametrize("bits", [10, 12, 14, 15, 16])
def test_equalising_a_deep_film_is_equalising_its_8_bits(gray, bits):
    deep = Film.scaled(gray.astype(float) * 2 ** (bits - 8), 0, 255 * 2 ** (bits - 8))
    assert deep.pixels.dtype == np.float32
    np.testing.assert_array_equal(deep.gray8, gray)
    square = Film(deep.pixels[:100]).prepared(100, "hist")
    np.testing.assert_allclose(square, cv2.equalizeHist(gray[:100]), atol=1)


def test_a_narrow_window_of_a_deep_film_keeps_its_grays():
    ramp = np.linspace(30_000, 30_500, 64 * 64).reshape(64, 64)
    film = Film.scaled(ramp, 0, 65_535)  # two of 256 grays
    assert len(np.unique(film.gray8)) <= 3
    assert len(np.unique(film.prepared(64, "hist"))) == 256


@pytest.mark.parametrize("method", image_files.EQUALIZE)
@pytest.mark.parametrize("padding", [0, 255])
@pytest.mark.parametrize("deep", [False, True])
def test_padding_changes_no_gray_of_the_film(gray, method, padding, deep):
    film = gray[:100].astype(np.float32) if deep else gray[:100]
    wide = np.full((200, 200), padding, film.dtype)
    wide[50:150, 60:160] = film
    shown = np.zeros(wide.shape, bool)
    shown[50:150, 60:160] = True
    result = Film.padded(wide, shown).prepared(200, method)
    np.testing.assert_allclose(
        result[50:150, 60:160], Film(film).prepared(100, method), atol=int(method == "hist"))
    assert not result[~shown].any()


def test_shrunken_pixels_at_the_edge_of_padding_are_the_mean_of_the_film():
    shown = np.ones((64, 64), bool)
    shown[:, :9] = False  # the second column of the result is half film
    result = Film.padded(np.full((64, 64), 200, np.uint8), shown).prepared(8, "none")
    assert not result[:, 0].any()
    assert (result[:, 1:] == 200).all()


def test_turning_is_pillows(gray):
    for orientation in range(10):
        picture = Image.fromarray(gray)
        picture.getexif()[0x0112] = orientation
        turned = Film(gray, gray > 50).turned(orientation)
        expected = np.asarray(ImageOps.exif_transpose(picture))
        np.testing.assert_array_equal(turned.pixels, expected)
        np.testing.assert_array_equal(turned.shown, expected > 50)


@pytest.mark.parametrize("shape", ["flat", "soft", "lettered", "pixel"])
@pytest.mark.parametrize("bright", [True, False])
def test_a_marker_is_left_out_of_the_range(gray, shape, bright):
    values = 20_000.0 + 16 * gray
    everything = np.ones(values.shape, bool)
    expected = films.usual_range(values, everything)
    assert expected == (values.min(), values.max())
    outlier = 65_535.0 if bright else 0.0
    marked = values.copy()
    marked[30:60, 30:60] = outlier  # 7.5 % of the film
    if shape == "pixel":
        marked = values.copy()
        marked[7, 9] = outlier
    elif shape == "lettered":
        marked[40:45, 40:50] = abs(outlier - 1)
    elif shape == "soft":
        soft = cv2.GaussianBlur(marked, (3, 3), 0.8)
        marked = np.where(np.abs(soft - marked) > 1e3, soft, marked)
    np.testing.assert_allclose(films.usual_range(marked, everything), expected, rtol=0.02)


@pytest.mark.parametrize("values", [[0, 5, 9], [0, 1], [4, 4], [0, 0, 1000, 7, 8, 9]])
def test_a_few_values_keep_their_range(values):
    values = np.array([values], float)
    low, high = films.usual_range(values, np.ones(values.shape, bool))
    assert low <= high
    assert values.min() <= low
    if len(np.unique(values)) <= 3:
        assert (low, high) == (values.min(), values.max())


def test_blank_films(gray):
    assert not Film(gray).blank
    assert Film(np.full((40, 40), 200, np.uint8)).blank
    text = np.zeros((200, 200), np.uint8)
    text[:5, :30] = 255
    assert Film(text).blank
    # A window far too wide hides in 8 bits what equalisation brings back.
    assert not Film.scaled(gray.astype(float), 0, 60_000).blank
    assert Film.scaled(np.full((40, 40), 3.0), 0, 60_000).blank
    shown = np.zeros((40, 40), bool)
    shown[:20] = True
    assert Film.padded(np.where(shown, 90, 0).astype(np.uint8), shown).blank


def test_cases_of_one_marker_have_the_grays_of_the_film_without(shared_cases):
    folder = shared_cases / "cxr/posterised_16bit"
    clean, marked = (film_files.read(folder / f"film_{name}.png") for name in ("clean", "marker"))
    away = marked.pixels < 255
    assert away.mean() > 0.99
    for one, other in ((clean.gray8, marked.gray8),
                       (clean.prepared(1024, "hist"), marked.prepared(1024, "hist"))):
        assert np.abs(one.astype(int) - other)[away].max() <= 2
    hot = film_files.read(folder / "hot_pixel_nowindow.dcm")
    same = film_files.read(shared_cases / "cxr/sr_deidentified/plain12.dcm")
    differs = np.abs(hot.gray8.astype(int) - same.gray8) > 2
    assert differs.sum() <= 1
    assert len(np.unique(hot.gray8)) > 200


def test_cases_of_padding_have_the_grays_of_the_film_without(shared_cases):
    folder = shared_cases / "cxr/padding_white"
    padded, border = (film_files.read(folder / f"film_{name}.dcm")
                      for name in ("padded", "black_border"))
    np.testing.assert_array_equal(padded.gray8[padded.shown], border.gray8[padded.shown])
    assert padded.prepared(768, "hist")[padded.shown[:, :768]].any()
    expected = {}
    for name in ("mono1_pad0_nowindow", "mono1_pad0_window", "pad_hi_nowindow", "pad_hi_window"):
        film = film_files.read(folder / f"{name}.dcm")
        assert film.shown.mean() == pytest.approx(0.7)
        assert not film.pixels[~film.shown].any()
        expected.setdefault(name.rpartition("_")[2], []).append(film)
        small = film.prepared(128, "hist")
        anatomy = image_files.resize(film.shown.astype(np.float32), 128) > 0
        assert small[anatomy].mean() == pytest.approx(128, abs=2)
    for one, other in expected.values():
        np.testing.assert_allclose(one.pixels, other.pixels, atol=1e-3)
