"""The pixels of DICOM files against pydicom's own functions, analytic ramps and Pillow."""

import io

import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import encaps
from pydicom.data import get_testdata_file
from pydicom.pixels import processing

from jaxcxr.errors import BadRecord
from jaxcxr.xray.images import dicom, film_files
from tests.xray.images.dicoms import lut, pixels_of, radiograph, saved, stretched, values_of_12_bits

FUZZ = settings(database=None, derandomize=True, deadline=None, max_examples=150)


@pytest.fixture(scope="module")
def stored():
    """Values of 12 bits `[40, 36]`."""
    return values_of_12_bits()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_without_voi_the_range_of_the_values_fills_gray(tmp_path, stored, dtype):
    values = (stored // 16 if dtype == np.uint8 else stored).astype(dtype)
    values = values if dtype in (np.uint8, np.uint16) else values - values.dtype.type(1900)
    np.testing.assert_array_equal(pixels_of(tmp_path, radiograph(values)), stretched(values))


@FUZZ
@given(seed=st.integers(0, 10**6), bits=st.integers(2, 12), signed=st.booleans())
def test_monochrome1_of_inverted_pixels_is_monochrome2(tmp_path_factory, seed, bits, signed):
    folder = tmp_path_factory.mktemp("inverted")
    values = np.random.default_rng(seed).integers(0, 2**bits, (5, 6)).astype(np.uint16)
    inverted = (2**bits - 1 - values).astype(np.uint16)
    if signed:
        values, inverted = values.view(np.int16) - 2048, inverted.view(np.int16) - 2048
    one = radiograph(inverted, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(pixels_of(folder, one), pixels_of(folder, radiograph(values)))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize("slope", [None, 2.5, -0.5])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_window_is_pydicoms(tmp_path, stored, function, slope, kind):
    tags = {"WindowCenter": 1800, "WindowWidth": 2200, "PhotometricInterpretation": kind}
    tags |= {} if function is None else {"VOILUTFunction": function}
    tags |= {} if slope is None else {"RescaleSlope": slope, "RescaleIntercept": 300}
    dataset = radiograph(stored, **tags)
    values = processing.apply_windowing(processing.apply_modality_lut(stored, dataset), dataset)
    # pydicom's own range: all that the stored bits can hold, rescaled.
    low, high = (end * (slope or 1) + 300 * (slope is not None) for end in (0, 4095))
    expected = (values - low) / (high - low) * 255
    expected = 255 - expected if kind == "MONOCHROME1" else expected
    np.testing.assert_allclose(pixels_of(tmp_path, dataset), expected, atol=0.5001)


def test_linear_window_is_the_ramp_of_the_standard(tmp_path):
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    read = pixels_of(tmp_path, radiograph(ramp, WindowCenter=2048, WindowWidth=1024)).ravel()
    # PS3.3 C.11.2.1.2.1: from c - 0.5 - (w - 1) / 2 to c - 0.5 + (w - 1) / 2.
    x = (np.arange(4096) - 2047.5) / 1023 + 0.5
    np.testing.assert_array_equal(read, np.round(np.clip(x, 0, 1) * 255))
    assert (read[:1537] == 0).all()
    assert (read[2559:] == 255).all()


def test_first_of_several_windows_counts(tmp_path, stored):
    several = radiograph(stored, WindowCenter=[900, 3000], WindowWidth=[500, 10])
    one = radiograph(stored, WindowCenter=900, WindowWidth=500)
    np.testing.assert_array_equal(pixels_of(tmp_path, several), pixels_of(tmp_path, one))


@pytest.mark.parametrize("tags", [
    {"WindowCenter": 5, "WindowWidth": 0}, {"WindowCenter": 5}, {"WindowWidth": 5},
    {"WindowCenter": None, "WindowWidth": None}, {"WindowCenter": 5, "WindowWidth": -3},
    {"WindowCenter": 5, "WindowWidth": 0, "VOILUTFunction": "LINEAR_EXACT"},
    {"RescaleSlope": None, "RescaleIntercept": None}, {"RescaleIntercept": -1024},
])
def test_unusable_or_half_a_window_or_rescale_changes_nothing(tmp_path, stored, tags):
    dataset = radiograph(stored, **tags)
    np.testing.assert_array_equal(pixels_of(tmp_path, dataset), stretched(stored))


def test_window_works_on_float_pixels(tmp_path):
    values = np.linspace(-3, 3, 30, dtype=np.float32).reshape(5, 6)
    tags = {"WindowCenter": 0, "WindowWidth": 2, "VOILUTFunction": "LINEAR_EXACT"}
    expected = np.clip((values + 1) / 2, 0, 1) * 255
    np.testing.assert_allclose(
        pixels_of(tmp_path, radiograph(values, **tags)), expected, atol=0.5001)


def test_voi_lut_is_pydicoms_and_precedes_the_window(tmp_path, stored):
    table = np.round(4095 * np.linspace(0, 1, 3000) ** 0.5)
    dataset = radiograph(
        stored, VOILUTSequence=lut(table, 200, 12), WindowCenter=5, WindowWidth=9)
    expected = processing.apply_voi_lut(stored, dataset) / 4095 * 255
    np.testing.assert_allclose(pixels_of(tmp_path, dataset), expected, atol=0.5001)


def test_voi_lut_of_8_bits_with_4096_entries(tmp_path, stored):
    dataset = radiograph(stored, VOILUTSequence=lut(np.arange(4096) // 16, 0, 8))
    np.testing.assert_array_equal(pixels_of(tmp_path, dataset), stored // 16)


def test_voi_lut_of_negative_values_follows_the_rescaling(tmp_path, stored):
    table = np.arange(4096) * 16
    dataset = radiograph(stored, RescaleSlope=1, RescaleIntercept=-1000.4,
                         VOILUTSequence=lut(table, -1000, 16))
    expected = table[stored] / 65535 * 255
    np.testing.assert_allclose(pixels_of(tmp_path, dataset), expected, atol=0.5001)


@pytest.mark.parametrize("start", [500, -100])
def test_modality_lut_is_looked_up(tmp_path, stored, start):
    table = np.random.default_rng(1).integers(0, 2**16, 3000)
    dataset = radiograph(stored, ModalityLUTSequence=lut(table, start, 16))
    expected = stretched(table[np.clip(stored.astype(int) - start, 0, 2999)])
    np.testing.assert_array_equal(pixels_of(tmp_path, dataset), expected)


def test_negative_slope_inverts(tmp_path, stored):
    dataset = radiograph(stored, RescaleSlope=-1, RescaleIntercept=4095)
    np.testing.assert_array_equal(pixels_of(tmp_path, dataset), stretched(4095 - stored))


@pytest.mark.parametrize(("dtype", "first", "last"), [
    (np.uint16, 0, None), (np.uint16, 4000, 4095), (np.uint16, 4095, 4000), (np.int16, -2000, None),
])
def test_padding_is_left_out_of_the_range(tmp_path, stored, dtype, first, last):
    values = (stored - 2000 * (dtype == np.int16)).astype(dtype)
    values[-3:] = first
    vr = "SS" if dtype == np.int16 else "US"
    tags = {"PixelPaddingValue": (vr, first)}
    if last is not None:
        values[-1] = last
        tags["PixelPaddingRangeLimit"] = (vr, last)
    read = pixels_of(tmp_path, radiograph(values, **tags))
    np.testing.assert_array_equal(read[:-3], stretched(values[:-3]))
    assert not read[-3:].any()


def test_float_padding_and_values_that_are_no_number(tmp_path, stored):
    values = stored.astype(np.float32)
    values[-3:] = [[-1e30], [np.nan], [np.inf]]
    read = pixels_of(tmp_path, radiograph(values, FloatPixelPaddingValue=float(np.float32(-1e30))))
    np.testing.assert_array_equal(read[:-3], stretched(values[:-3]))
    np.testing.assert_array_equal(read[-3:, 0], [0, 0, 255])


@pytest.mark.parametrize("tags", [
    {}, {"PhotometricInterpretation": "MONOCHROME1"}, {"PixelPaddingValue": ("US", 7)},
])
def test_image_of_one_value_is_black(tmp_path, tags):
    assert not pixels_of(tmp_path, radiograph(np.full((3, 4), 7, np.uint16), **tags)).any()


def coloured(colours, **tags):
    """A colour file, by pixel."""
    dataset = radiograph(colours[..., 0], SamplesPerPixel=3, PhotometricInterpretation="RGB",
                         PlanarConfiguration=0, **tags)
    dataset.PixelData = colours.tobytes()
    return dataset


@pytest.mark.parametrize("kind", ["by pixel", "by plane", "YBR_FULL", "16 bits"])
def test_colour_becomes_luma(tmp_path, kind):
    colours = np.random.default_rng(2).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(colours).convert("L"))
    dataset = coloured(colours)
    if kind == "by plane":
        dataset.PlanarConfiguration = 1
        dataset.PixelData = np.ascontiguousarray(colours.transpose(2, 0, 1)).tobytes()
    elif kind == "YBR_FULL":
        dataset.PhotometricInterpretation = "YBR_FULL"
        dataset.PixelData = processing.convert_color_space(colours, "RGB", "YBR_FULL").tobytes()
    elif kind == "16 bits":
        dataset = coloured(colours.astype(np.uint16) * 257, BitsStored=16, HighBit=15)
    np.testing.assert_allclose(pixels_of(tmp_path, dataset), expected, atol=1)


@pytest.mark.parametrize("name", ["examples_palette.dcm", "SC_rgb_jpeg_dcmtk.dcm"])
def test_palette_and_jpeg_colours_of_pydicoms_files(name):
    path = get_testdata_file(name, download=False)
    dataset = pydicom.dcmread(path)
    colours = pydicom.pixels.pixel_array(dataset)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        colours = processing.apply_color_lut(colours, dataset)
        colours = (colours / np.iinfo(colours.dtype).max * 255).round().astype(np.uint8)
    expected = cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)
    np.testing.assert_allclose(dicom.read(path).pixels, expected, atol=1)


@pytest.mark.parametrize(("keyword", "named"), [
    ("Rows", "0028,0010"), ("Columns", "0028,0011"), ("BitsAllocated", "0028,0100"),
    ("BitsStored", "0028,0101"), ("PixelRepresentation", "0028,0103"), ("PixelData", "Pixel Data"),
    ("PhotometricInterpretation", "0028,0004"), ("SamplesPerPixel", "0028,0002"),
])
def test_missing_tag_that_the_pixels_need_is_named(tmp_path, stored, keyword, named):
    dataset = radiograph(stored)
    del dataset[keyword]
    with pytest.raises(BadRecord, match=rf"x\.dcm.*{named}"):
        dicom.read(saved(tmp_path, dataset))


def test_missing_pixels_of_a_jpeg_are_named(tmp_path, stored):
    dataset = radiograph(stored)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    del dataset.PixelData
    with pytest.raises(BadRecord, match=r"x\.dcm.*no 'Pixel Data'"):
        dicom.read(saved(tmp_path, dataset))


@pytest.mark.parametrize(("tags", "reason"), [
    ({"NumberOfFrames": 2}, "2 frames"),
    ({"PhotometricInterpretation": "HSV"}, "'HSV'"),
    ({"WindowCenter": 3, "WindowWidth": 3, "VOILUTFunction": "CUBIC"}, "CUBIC"),
    ({"VOILUTSequence": lut([1, 2], 0, 3)}, "'3' bits"),
])
def test_what_is_not_supported_is_said(tmp_path, stored, tags, reason):
    with pytest.raises(BadRecord, match=rf"x\.dcm.*{reason}"):
        dicom.read(saved(tmp_path, radiograph(stored, **tags)))


def test_real_radiographs(shared_data):
    upright, fake = (
        dicom.read(shared_data / "dicom" / name) for name in (
            "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm", "Fake_MONOHR1.dcm"))
    header = dicom.read_header(shared_data / "dicom" / "Fake_MONOHR1.dcm")
    assert upright.header == fake.header == header
    assert (header.sex, header.age, header.view) == ("M", 62, "PA")
    assert (header.modality, header.body_part) == ("CR", "CHEST")
    np.testing.assert_allclose(fake.pixels, 255.0 - upright.pixels, atol=1)  # ties
    lungs = upright.pixels[300:600, [*range(250, 400), *range(700, 800)]].mean()
    spine = upright.pixels[300:600, 500:560].mean()
    assert lungs + 50 < spine


def test_real_radiograph_is_its_jpeg(shared_data):
    for path in (shared_data / "dicom").glob("1*.dcm"):
        frame = encaps.get_frame(pydicom.dcmread(path).PixelData, 0, number_of_frames=1)
        with Image.open(io.BytesIO(frame)) as picture:
            expected = stretched(np.asarray(picture))
        np.testing.assert_array_equal(film_files.read(path).gray8, expected)


WINDOW = {"WindowCenter": 1800, "WindowWidth": 2200}


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shown", [
    {}, WINDOW, {"VOILUTSequence": lut(np.arange(4096) * 16, 0, 16)},
])
@pytest.mark.parametrize(("dtype", "padding"), [
    (np.uint16, {"PixelPaddingValue": ("US", 0)}),
    (np.uint16, {"PixelPaddingValue": ("US", 65535)}),
    (np.uint16, {"PixelPaddingValue": ("US", 4095)}),
    (np.uint16, {"PixelPaddingValue": ("US", 60000), "PixelPaddingRangeLimit": ("US", 60005)}),
    (np.uint16, {"PixelPaddingValue": ("SS", -1)}),  # of 65535, in the other type
    (np.int16, {"PixelPaddingValue": ("SS", -2000)}),
    (np.int16, {"PixelPaddingValue": ("US", 63536)}),  # of -2000, in the other type
    (np.int16, {"PixelPaddingValue": ("SS", -32768), "PixelPaddingRangeLimit": ("SS", -32760)}),
])
def test_padding_is_black_and_changes_nothing_else(tmp_path, stored, kind, shown, dtype, padding):
    values = stored.astype(dtype)
    value = padding["PixelPaddingValue"][1]
    last = padding.get("PixelPaddingRangeLimit", (0, value))[1]
    tags = {"PhotometricInterpretation": kind, "BitsStored": 16, "HighBit": 15, **shown}
    expected = dicom.read(saved(tmp_path, radiograph(values, **tags))).film
    padded = np.full((50, 40), value, np.int64)
    padded[:4] = last
    padded = padded.astype(dtype)
    padded[5:45, 2:38] = values
    film = dicom.read(saved(tmp_path, radiograph(padded, **tags, **padding))).film
    np.testing.assert_array_equal(film.pixels[5:45, 2:38], expected.pixels)
    outside = np.ones((50, 40), bool)
    outside[5:45, 2:38] = False
    assert not film.pixels[outside].any()
    np.testing.assert_array_equal(film.shown, ~outside)


@pytest.mark.parametrize(("dtype", "value"), [
    (np.uint16, 63536), (np.uint16, 4096), (np.int16, -32768), (np.int16, 2048),
])
def test_padding_may_use_bits_that_are_not_stored(tmp_path, stored, dtype, value):
    values = (stored.astype(np.int64) - 2000 * (dtype == np.int16)).astype(dtype)
    expected = pixels_of(tmp_path, radiograph(values))
    padded = np.full((60, 60), value, dtype)
    padded[10:50, 12:48] = values
    vr = "SS" if dtype == np.int16 else "US"
    film = dicom.read(saved(tmp_path, radiograph(padded, PixelPaddingValue=(vr, value)))).film
    np.testing.assert_array_equal(film.gray8[10:50, 12:48], expected)
    assert film.shown.mean() == pytest.approx(40 * 36 / 3600)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("outlier", [0, 65535])
def test_a_hot_pixel_does_not_posterise(tmp_path, stored, kind, outlier):
    tags = {"PhotometricInterpretation": kind, "BitsStored": 16, "HighBit": 15}
    values = (stored // 2 + 30_000).astype(np.uint16)
    expected = pixels_of(tmp_path, radiograph(values, **tags))
    values[20, 20] = outlier
    read = pixels_of(tmp_path, radiograph(values, **tags))
    away = np.hypot(*np.mgrid[-20:20, -20:16]) > 0
    assert np.abs(read.astype(int) - expected)[away].max() <= 2


def test_a_window_of_all_16_bits_keeps_the_depth(tmp_path, stored):
    wide = radiograph(stored, BitsStored=16, HighBit=15, WindowCenter=32768, WindowWidth=65536)
    film = dicom.read(saved(tmp_path, wide)).film
    assert len(np.unique(film.gray8)) < 20
    assert len(np.unique(film.prepared(36, "hist"))) > 200


def test_films_of_8_bits_stay_8_bits(tmp_path):
    values = np.random.default_rng(0).integers(0, 200, (40, 36), dtype=np.uint8)
    values[0, 0] = 255  # is no outlier among 8 bits
    film = dicom.read(saved(tmp_path, radiograph(values))).film
    assert film.pixels.dtype == np.uint8
    np.testing.assert_array_equal(film.pixels, stretched(values))


def replaced(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path


@pytest.mark.parametrize(("tags", "old", "new"), [
    ({"WindowCenter": "1234.5", "WindowWidth": "10"}, b"1234.5", b"center"),
    ({"WindowCenter": "12", "WindowWidth": "1234.5"}, b"1234.5", b"1,2345"),
    ({"RescaleSlope": "1.00", "RescaleIntercept": "0"}, b"1.00", b"one "),
    ({"NumberOfFrames": "1234"}, b"1234", b"one "), ({"PatientWeight": "71.5"}, b"71.5", b"kg  "),
    ({"InstanceNumber": "4321"}, b"4321", b"4.x1"), ({"StudyDate": "20200101"}, b"20200101",
                                                    b"2020/1/1"),
    ({"PatientName": "A^B"}, b"A^B", b"=^\xff"), ({"PatientAge": "057Y"}, b"057Y", b"57 y"),
    ({"SpecificCharacterSet": "ISO_IR 100"}, b"ISO_IR 100", b"KLINGON 42"),
    ({"PixelSpacing": ["0.14", "0.15"]}, b"0.14\\0.15", b"0,14\\0,15"),
    ({"PixelAspectRatio": ["1", "1"]}, b"1\\1 ", b"1:1 "),
])
def test_an_optional_tag_that_cannot_be_read_counts_as_absent(tmp_path, stored, tags, old, new):
    path = replaced(saved(tmp_path, radiograph(stored, **tags)), old, new)
    found = dicom.read(path)
    np.testing.assert_array_equal(found.pixels, stretched(stored))
    assert found.header.patient_id == "p1"
    assert dicom.read_header(path).patient_id == "p1"


def jpeg_in_dicom(gray, behind=b"", damage=slice(0)):
    file = io.BytesIO()
    Image.fromarray(gray).save(file, "JPEG", quality=90)
    frame = bytearray(file.getvalue())
    frame[damage] = bytes(len(frame[damage]))
    dataset = radiograph(gray)
    dataset.PixelData = encaps.encapsulate([bytes(frame) + behind])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    return dataset


def test_jpeg_inside_dicom_is_checked_like_any_other(tmp_path):
    rng = np.random.default_rng(3)
    gray = np.clip(rng.normal(120, 30, (128, 128)), 0, 255).astype(np.uint8)
    whole = pixels_of(tmp_path, jpeg_in_dicom(gray))
    np.testing.assert_array_equal(pixels_of(tmp_path, jpeg_in_dicom(gray, b"behind" * 9)), whole)
    with pytest.raises(BadRecord, match=r"x\.dcm: the file is (damaged|truncated)"):
        dicom.read(saved(tmp_path, jpeg_in_dicom(gray, damage=slice(3000, 3800))))
