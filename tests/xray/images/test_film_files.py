"""Reading any film file: what decodes, what is turned upright, and what is damaged."""

import io
import os

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from jaxcxr.errors import BadRecord
from jaxcxr.xray.images import film_files


@pytest.fixture(scope="module")
def gray():
    """Smooth gray image `[48, 40]` with noise, no two rows alike."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:48, :40]
    return np.clip(rows * 3 + columns + rng.normal(0, 4, (48, 40)), 0, 255).astype(np.uint8)


def read(path):
    """The film in 256 grays."""
    return film_files.read(path).gray8


def _saved(path, picture, **options):
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_every_png_of_8_bits_reads_as_the_same_gray(tmp_path, gray, mode):
    path = _saved(tmp_path / "x.png", Image.fromarray(gray).convert(mode))
    np.testing.assert_array_equal(read(path), gray)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "WEBP", "JPEG"])
@pytest.mark.parametrize("name", ["x.dcm", "x.DICOM"])
def test_a_picture_under_the_name_of_a_dicom_file_is_one(tmp_path, gray, kind, name):
    options = {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(gray).save(tmp_path / "y", kind, **options)
    path = (tmp_path / "y").rename(tmp_path / name)
    np.testing.assert_allclose(read(path), np.asarray(Image.open(path).convert("L")), atol=3)


def test_half_transparent_rgba_keeps_its_gray(tmp_path, gray):
    picture = Image.fromarray(gray).convert("RGBA")
    picture.putalpha(100)
    np.testing.assert_array_equal(read(_saved(tmp_path / "x.png", picture)), gray)


def test_palette_is_looked_up(tmp_path, gray):
    indices = Image.fromarray(gray // 2).convert("P")
    indices.putpalette([value for i in range(256) for value in (255 - i,) * 3])
    path = _saved(tmp_path / "x.png", indices)
    with Image.open(path) as opened:
        assert opened.mode == "P"
        expected = np.asarray(opened.convert("L"))
    np.testing.assert_array_equal(read(path), expected)


def test_one_bit_png_reads_as_black_and_white(tmp_path, gray):
    path = _saved(tmp_path / "x.png", Image.fromarray(gray > 100))
    np.testing.assert_array_equal(read(path), np.where(gray > 100, 255, 0))


def test_colour_becomes_luma(tmp_path):
    colours = np.random.default_rng(1).integers(0, 256, (18, 18, 3), dtype=np.uint8)
    picture = Image.fromarray(colours)
    found = read(_saved(tmp_path / "x.png", picture))
    np.testing.assert_allclose(found, np.asarray(picture.convert("L")), atol=1)


@pytest.mark.parametrize(("bits", "scale"), [(16, 257), (12, 4095 / 255), (8, 1)])
def test_16_bit_png_is_scaled_by_the_bits_in_use(tmp_path, bits, scale):
    ramp = np.linspace(0, 2**bits - 1, 256).astype(np.uint16).reshape(16, 16)
    found = read(_saved(tmp_path / "x.png", Image.fromarray(ramp)))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.round(ramp / scale))


def test_ending_that_lies_about_the_format_is_no_matter(tmp_path, gray):
    path = _saved(tmp_path / "x.png", Image.fromarray(gray), format="JPEG", quality=95)
    np.testing.assert_allclose(read(path), gray, atol=30)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.95])
def test_truncated_file_is_named(tmp_path, gray, kind, share):
    path = _saved(tmp_path / "cut.img", Image.fromarray(gray), format=kind)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(BadRecord, match=r"cut\.img"):
        read(path)


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
            read(tmp_path / name)


def test_real_radiographs_read_as_pillow_reads_them(shared_data):
    paths = sorted((shared_data / "chestxray14/images_001/images").glob("*.png"))[:6]
    for path in paths:
        with Image.open(path) as picture:
            expected = np.asarray(picture.convert("L"))
        np.testing.assert_array_equal(read(path), expected)


def test_real_rgba_radiographs_are_gray(shared_data):
    found = 0
    for path in (shared_data / "chestxray14/images_001/images").glob("*.png"):
        with Image.open(path) as picture:
            if picture.mode != "RGBA":
                continue
            found += 1
            np.testing.assert_array_equal(read(path), np.asarray(picture)[..., 0])
    assert found == 2


def content(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def described(picture, kind, orientation):
    if kind == "TIFF":
        return content(picture, kind, tiffinfo={0x0112: orientation})
    exif = Image.Exif()
    exif[0x0112] = orientation
    return content(picture, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))


@pytest.mark.parametrize(("kind", "deep"), [
    ("JPEG", False), ("PNG", False), ("PNG", True), ("TIFF", False), ("TIFF", True),
    ("WEBP", False),
])
def test_exif_orientation_is_applied(gray, kind, deep):
    picture = Image.fromarray(gray.astype(np.uint16) * 257 if deep else gray)
    for orientation in range(1, 9):
        made = described(picture, kind, orientation)
        found = film_files.decode(made)[0].gray8
        plain = Image.fromarray(gray)
        plain.getexif()[0x0112] = orientation
        upright = np.asarray(ImageOps.exif_transpose(plain))
        np.testing.assert_allclose(found, upright, atol=30 if kind == "JPEG" else 1)


def test_broken_or_impossible_exif_leaves_the_film_as_it_is(gray):
    for orientation in (0, 9, 200):
        made = described(Image.fromarray(gray), "PNG", orientation)
        np.testing.assert_array_equal(film_files.decode(made)[0].gray8, gray)
    made = content(Image.fromarray(gray), "PNG", exif=b"Exif\0\0nonsense")
    np.testing.assert_array_equal(film_files.decode(made)[0].gray8, gray)
    made = content(Image.fromarray(gray), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    assert film_files.decode(made)[0].shape == gray.shape


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "TIFF"])
def test_bytes_behind_the_end_are_no_matter(gray, kind):
    whole = content(Image.fromarray(gray), kind)
    expected = film_files.decode(whole)[0].gray8
    for trailer in (b"\n", b"<!-- exported -->", bytes(100_000), whole[:300]):
        np.testing.assert_array_equal(film_files.decode(whole + trailer)[0].gray8, expected)


def large():
    """Film `[256, 256]` that compresses to many bytes."""
    rng = np.random.default_rng(5)
    rows = np.linspace(0, 180, 256)[:, None] + rng.normal(0, 12, (256, 256))
    return Image.fromarray(np.clip(rows + 30, 0, 255).astype(np.uint8))


DAMAGES = {
    "zeros": lambda x, m: x[:m] + bytes(800) + x[m + 800 :],
    "random": lambda x, m: x[:m] + np.random.default_rng(1).bytes(800) + x[m + 800 :],
    "missing": lambda x, m: x[:m] + x[m + 800 :],
    "cut": lambda x, m: x[:m],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("kind", "options"), [
    ("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"restart_marker_blocks": 4}),
    ("PNG", {}), ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "tiff_deflate"}),
])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_destroyed_middle_is_damage(tmp_path, kind, options, damage, mode):
    whole = content(large().convert(mode), kind, **options)
    assert film_files.decode(whole)[0].shape == (256, 256)
    (tmp_path / "film.bin").write_bytes(DAMAGES[damage](whole, len(whole) // 2))
    with pytest.raises(BadRecord, match=r"film\.bin: .*(truncated|damaged|not a readable)"):
        film_files.read(tmp_path / "film.bin")


def test_only_a_wrong_checksum_of_the_pixels_is_damage(gray):
    said = PngImagePlugin.PngInfo()
    said.add_text("Comment", "spine")
    whole = content(Image.fromarray(gray), "PNG", pnginfo=said)
    spelled = whole.replace(b"spine", b"shine")
    np.testing.assert_array_equal(film_files.decode(spelled)[0].gray8, gray)
    place = whole.index(b"IDAT") + 40
    with pytest.raises(BadRecord, match=r"damaged \(wrong checksum of IDAT"):
        film_files.decode(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_cmyk_jpeg_is_pillows_gray(options):
    colours = np.stack([np.asarray(large())] * 3, -1)
    made = content(Image.fromarray(colours).convert("CMYK"), "JPEG", quality=95, **options)
    with Image.open(io.BytesIO(made)) as picture:
        expected = np.asarray(picture.convert("L"))
    np.testing.assert_allclose(film_files.decode(made)[0].gray8, expected, atol=3)


@pytest.mark.parametrize("deep", [False, True])
def test_tiff_with_white_as_zero(gray, deep):
    values = gray.astype(np.uint16) * 257 if deep else gray
    # Pillow inverts 8 bits while saving, but not 16.
    values = 65_535 - values if deep else values
    made = content(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    np.testing.assert_array_equal(film_files.decode(made)[0].gray8, gray)


def test_a_tiff_of_several_pages_is_refused(gray):
    pages = [Image.fromarray(gray)] * 3
    made = content(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    with pytest.raises(BadRecord, match="3 pages"):
        film_files.decode(made)


def test_what_is_wholly_transparent_is_no_film(gray):
    picture = Image.fromarray(np.where(np.arange(40) < 10, 255, gray).astype(np.uint8))
    alpha = Image.fromarray(np.where(np.arange(40) < 10, 0, gray | 1).astype(np.uint8))
    for mode in ("LA", "RGBA"):
        clear = picture.convert(mode)
        clear.putalpha(alpha)
        film = film_files.decode(content(clear, "PNG"))[0]
        assert not film.pixels[:, :10].any()
        np.testing.assert_array_equal(film.pixels[:, 10:], gray[:, 10:])
        np.testing.assert_array_equal(film.shown, np.broadcast_to(np.arange(40) >= 10, (48, 40)))
    clear.putalpha(0)  # an alpha channel that was never filled
    np.testing.assert_array_equal(film_files.decode(content(clear, "PNG"))[0].gray8, picture)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (15, 100), (20, 100), (2, 2)])
def test_points_and_lines_are_no_films(tmp_path, shape):
    path = _saved(tmp_path / "line.png", Image.fromarray(np.full(shape, 9, np.uint8)))
    with pytest.raises(BadRecord, match=rf"line\.png: {shape[1]} x {shape[0]} pixels"):
        film_files.read(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadRecord, match=r"pipe\.png: a pipe"):
        film_files.read(tmp_path / "pipe.png")


def test_cases_of_phones(shared_cases):
    folder = shared_cases / "cxr/exif_trailers"
    upright = read(folder / "upright.jpg").astype(int)
    np.testing.assert_array_equal(read(folder / "motion_photo_trailer.jpg"), upright)
    for orientation in (3, 6, 8):
        assert np.abs(read(folder / f"phone_orientation{orientation}.jpg") - upright).mean() < 1
    assert read(folder / "png_trailer.png").shape == (1024, 1024)


def test_cases_of_damage(shared_cases):
    folder = shared_cases / "cxr/blank_and_corrupt"
    for name, reason in {
        "images/IMG0000.png": "1 x 1", "images/IMG0001.png": "3000 x 1",
        "images/IMG0003.png": "truncated", "images/IMG0004.png": "damaged",
        "jpeg_corrupt_in_dicom.dcm": "damaged",
    }.items():
        with pytest.raises(BadRecord, match=f"{name}: .*{reason}"):
            film_files.read(folder / name)
    assert film_files.read(folder / "images/IMG0002.png").blank
    assert film_files.read(folder / "images/IMG0005.png").blank
    assert not film_files.read(folder / "images/IMG0006.png").blank


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_signed_values_with_an_offset_fill_the_grays(gray, kind):
    values = 32_768 - 1_000 + 12 * gray.astype(np.uint16)
    found = film_files.decode(content(Image.fromarray(values), kind))[0].gray8
    low, high = int(gray.min()), int(gray.max())
    np.testing.assert_array_equal(found, np.rint((gray.astype(float) - low) / (high - low) * 255))


@pytest.mark.parametrize("bits", [10, 12, 14, 15, 16])
@pytest.mark.parametrize("marked", [False, True])
def test_deep_pictures_have_the_grays_of_their_8_bits(gray, bits, marked):
    values = gray.astype(np.uint16) * 2 ** (bits - 8)
    if marked and bits < 16:
        values[3:9, 5:15] = 65_535
    found = film_files.decode(content(Image.fromarray(values), "PNG"))[0].gray8
    away = values < 65_535
    assert np.abs(found.astype(int) - gray)[away].max() <= 1


def test_orientation_in_the_text_of_a_png_is_applied(gray):
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = exif.tobytes()
    said = PngImagePlugin.PngInfo()
    said.add_text("Raw profile type exif", f"\nexif\n{len(profile):8}\n{profile.hex()}\n", zip=True)
    said.add_text("Comment", "no orientation")
    found = film_files.decode(content(Image.fromarray(gray), "PNG", pnginfo=said))[0].gray8
    np.testing.assert_array_equal(found, np.rot90(gray, -1))
