"""Reading any radiograph file, resizing, equalising, and the encodings of a record."""

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


def _saved(path, picture, **options):
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_every_png_of_8_bits_reads_as_the_same_gray(tmp_path, gray, mode):
    path = _saved(tmp_path / "x.png", Image.fromarray(gray).convert(mode))
    np.testing.assert_array_equal(image_files.read(path), gray)


def test_half_transparent_rgba_keeps_its_gray(tmp_path, gray):
    picture = Image.fromarray(gray).convert("RGBA")
    picture.putalpha(100)
    np.testing.assert_array_equal(image_files.read(_saved(tmp_path / "x.png", picture)), gray)


def test_palette_is_looked_up(tmp_path, gray):
    indices = Image.fromarray(gray // 2).convert("P")
    indices.putpalette([value for i in range(256) for value in (255 - i,) * 3])
    path = _saved(tmp_path / "x.png", indices)
    with Image.open(path) as opened:
        assert opened.mode == "P"
        expected = np.asarray(opened.convert("L"))
    np.testing.assert_array_equal(image_files.read(path), expected)


def test_one_bit_png_reads_as_black_and_white(tmp_path, gray):
    path = _saved(tmp_path / "x.png", Image.fromarray(gray > 100))
    np.testing.assert_array_equal(image_files.read(path), np.where(gray > 100, 255, 0))


def test_colour_becomes_luma(tmp_path):
    colours = np.random.default_rng(1).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(colours)
    read = image_files.read(_saved(tmp_path / "x.png", picture))
    np.testing.assert_allclose(read, np.asarray(picture.convert("L")), atol=1)


@pytest.mark.parametrize(("bits", "scale"), [(16, 257), (12, 4095 / 255), (8, 1)])
def test_16_bit_png_is_scaled_by_the_bits_in_use(tmp_path, bits, scale):
    ramp = np.linspace(0, 2**bits - 1, 64).astype(np.uint16).reshape(8, 8)
    read = image_files.read(_saved(tmp_path / "x.png", Image.fromarray(ramp)))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, np.round(ramp / scale))


def test_ending_that_lies_about_the_format_is_no_matter(tmp_path, gray):
    path = _saved(tmp_path / "x.png", Image.fromarray(gray), format="JPEG", quality=95)
    np.testing.assert_allclose(image_files.read(path), gray, atol=30)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.95])
def test_truncated_file_is_named(tmp_path, gray, kind, share):
    path = _saved(tmp_path / "cut.img", Image.fromarray(gray), format=kind)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(BadRecord, match=r"cut\.img"):
        image_files.read(path)


def test_broken_checksum_empty_text_absent_and_float_files_are_named(tmp_path, gray):
    path = _saved(tmp_path / "flipped.png", Image.fromarray(gray))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    _saved(tmp_path / "float.tif", Image.fromarray(gray.astype(np.float32)))
    for name in ("flipped.png", "empty.png", "text.png", "absent.png", "float.tif"):
        with pytest.raises(BadRecord, match=name):
            image_files.read(tmp_path / name)


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


def test_real_radiographs_read_as_pillow_reads_them(shared_data):
    paths = sorted((shared_data / "chestxray14/images_001/images").glob("*.png"))[:6]
    for path in paths:
        with Image.open(path) as picture:
            expected = np.asarray(picture.convert("L"))
        np.testing.assert_array_equal(image_files.read(path), expected)


def test_real_rgba_radiographs_are_gray(shared_data):
    found = 0
    for path in (shared_data / "chestxray14/images_001/images").glob("*.png"):
        with Image.open(path) as picture:
            if picture.mode != "RGBA":
                continue
            found += 1
            np.testing.assert_array_equal(image_files.read(path), np.asarray(picture)[..., 0])
    assert found == 2
