"""DICOM files: transfer syntaxes, header, recognition, and what broken ones give."""

import io
import logging
import subprocess
import sys

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.pixels import get_decoder, processing

from jaxcxr.errors import BadRecord
from jaxcxr.xray.images import dicom, film_files
from tests.xray.images.dicoms import (
    IMAGE,
    SERIES,
    STUDY,
    as_jpeg_lossless,
    item,
    lut,
    pixels_of,
    radiograph,
    saved,
    stretched,
    values_of_12_bits,
)

FUZZ = settings(database=None, derandomize=True, deadline=None, max_examples=150)


@pytest.fixture(scope="module")
def stored():
    """Values of 12 bits `[40, 36]`."""
    return values_of_12_bits()


@pytest.mark.parametrize("syntax", [
    uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless, uid.JPEG2000Lossless,
])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_lossless_transfer_syntaxes_give_the_same_pixels(tmp_path, stored, syntax, dtype):
    if syntax == uid.JPEG2000Lossless:
        pytest.importorskip("openjpeg", reason="writing JPEG 2000: pip install 'jaxcxr[dicom]'")
    values = stored.astype(dtype) - dtype(0 if dtype == np.uint16 else 2000)
    dataset = radiograph(values, WindowCenter=0, WindowWidth=1500)
    expected = pixels_of(tmp_path, dataset)
    if syntax.is_compressed and syntax.is_encapsulated:
        dataset.compress(syntax)
    elif syntax == uid.ExplicitVRBigEndian:
        dataset.PixelData = values.byteswap().tobytes()
        dataset["PixelData"].VR = "OW"
    dataset.file_meta.TransferSyntaxUID = syntax
    path = tmp_path / "other.dcm"
    dataset.save_as(path, enforce_file_format=True)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(dicom.read(path).pixels, expected)


def test_jpeg_lossless_sv1(tmp_path, stored):
    pytest.importorskip("libjpeg", reason="JPEG Lossless: pip install 'jaxcxr[dicom]'")
    dataset = as_jpeg_lossless(radiograph(stored), stored)
    np.testing.assert_array_equal(pixels_of(tmp_path, dataset), stretched(stored))


@pytest.mark.parametrize(("name", "decoded_by"), [
    ("JPGExtended.dcm", "libjpeg"), ("MR_small_jpeg_ls_lossless.dcm", "libjpeg"),
    ("693_J2KI.dcm", None), ("JPEG2000.dcm", None), ("MR_small_RLE.dcm", None),
])
def test_pydicoms_own_compressed_files(tmp_path, name, decoded_by):
    if decoded_by:
        pytest.importorskip(decoded_by, reason="pip install 'jaxcxr[dicom]'")
    path = get_testdata_file(name, download=False)
    dataset = pydicom.dcmread(path)
    values = processing.apply_modality_lut(dataset.pixel_array, dataset).astype(float)
    if "WindowWidth" in dataset:
        low, width = dataset.WindowCenter - dataset.WindowWidth / 2, dataset.WindowWidth - 1
        expected = np.clip((values - low) / width, 0, 1) * 255
    else:  # the range of all values, some of which are outliers
        low, high = float(values.min()), float(values.max())
        dataset.WindowCenter, dataset.WindowWidth = (low + high) / 2, high - low
        dataset.VOILUTFunction = "LINEAR_EXACT"
        path = saved(tmp_path, dataset)
        expected = stretched(values)
    np.testing.assert_allclose(dicom.read(path).pixels, expected, atol=0.5001)


def test_compression_without_decoder_says_what_to_install(tmp_path, stored, monkeypatch):
    path = saved(tmp_path, as_jpeg_lossless(radiograph(stored), stored))
    monkeypatch.setattr(get_decoder(uid.JPEGLosslessSV1), "_available", {})
    with pytest.raises(BadRecord, match=r"x\.dcm.*JPEG Lossless.*'jaxcxr\[dicom\]'"):
        dicom.read(path)
    assert dicom.read_header(path).image_id == IMAGE


def test_12_bit_jpeg_without_the_extra_says_what_to_install(monkeypatch):
    decoder = get_decoder(uid.JPEGExtended12Bit)
    pillow = {name: f for name, f in decoder._available.items() if name == "pillow"}
    monkeypatch.setattr(decoder, "_available", pillow)
    with pytest.raises(BadRecord, match=r"12-bit.*'jaxcxr\[dicom\]'"):
        dicom.read(get_testdata_file("JPGExtended.dcm", download=False))


def test_unknown_transfer_syntax_is_named(tmp_path, stored):
    dataset = radiograph(stored)
    path = saved(tmp_path, dataset)
    known, other = (name.encode() for name in ("1.2.840.10008.1.2.1\0", "1.2.840.10008.1.2.9\0"))
    path.write_bytes(path.read_bytes().replace(known, other))
    with pytest.raises(BadRecord, match=r"x\.dcm.*1\.2\.840\.10008\.1\.2\.9"):
        dicom.read(path)


def test_images_read_knows_dicom_by_content_or_else_by_ending(tmp_path, stored):
    content = saved(tmp_path, radiograph(stored)).read_bytes()
    bare = io.BytesIO()
    dataset = radiograph(stored)
    del dataset.file_meta
    dataset.save_as(bare, implicit_vr=True, little_endian=True)
    for name, written in {"image": content, "x.png": content, "bare.DCM": bare.getvalue(),
                          "bare.dicom": bare.getvalue()}.items():
        (tmp_path / name).write_bytes(written)
        np.testing.assert_array_equal(film_files.read(tmp_path / name).gray8, stretched(stored))
    (tmp_path / "bare").write_bytes(bare.getvalue())
    with pytest.raises(BadRecord, match="bare"):
        film_files.read(tmp_path / "bare")


@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
def test_without_meta_information_the_encoding_of_the_header_counts(
    tmp_path, stored, implicit, little
):
    dataset = radiograph(stored)
    del dataset.file_meta
    if not little:
        dataset.PixelData = stored.byteswap().tobytes()
        dataset["PixelData"].VR = "OW"
    dataset.save_as(tmp_path / "x.dcm", implicit_vr=implicit, little_endian=little)
    np.testing.assert_array_equal(dicom.read(tmp_path / "x.dcm").pixels, stretched(stored))


def test_absent_file_is_named(tmp_path):
    for read in (dicom.read, dicom.read_header):
        with pytest.raises(BadRecord, match=r"none\.dcm: No such file"):
            read(tmp_path / "none.dcm")


def test_reading_a_png_does_not_load_pydicom(tmp_path):
    Image.new("L", (40, 40)).save(tmp_path / "x.png")
    code = ("import sys; from jaxcxr.xray.images import film_files as f; f.read(sys.argv[1]);"
            "assert 'pydicom' not in sys.modules")
    subprocess.run([sys.executable, "-c", code, tmp_path / "x.png"], check=True)


def test_header(tmp_path, stored):
    path = saved(tmp_path, radiograph(stored))
    expected = dicom.Header("p1", "F", 57, "PA", "DX", "CHEST", STUDY, SERIES, IMAGE)
    assert dicom.read(path).header == dicom.read_header(path) == expected


def test_missing_tags_of_the_header_are_empty(tmp_path, stored):
    dataset = radiograph(stored)
    for keyword in ("PatientID", "PatientSex", "PatientAge", "Modality", "BodyPartExamined",
                    "ViewPosition", "StudyInstanceUID", "SeriesInstanceUID"):
        del dataset[keyword]
    expected = dicom.Header("", "", -1, "", "", "", "", "", IMAGE)
    assert dicom.read(saved(tmp_path, dataset)).header == expected


@pytest.mark.parametrize(("tags", "age"), [
    ({"PatientAge": "057Y"}, 57), ({"PatientAge": "006M"}, 0), ({"PatientAge": "013M"}, 1),
    ({"PatientAge": "053W"}, 1), ({"PatientAge": "010D"}, 0), ({"PatientAge": "58"}, 58),
    ({"PatientAge": "000Y"}, 0), ({"PatientAge": "411"}, -1), ({"PatientAge": "Y"}, -1),
    ({"PatientBirthDate": "19500311", "StudyDate": "20100310"}, 59),
    ({"PatientBirthDate": "19500311", "StudyDate": "20100311"}, 60),
    ({"PatientBirthDate": "1950.03.11", "StudyDate": "20100311"}, 60),
    ({"PatientAge": "", "PatientBirthDate": "19500311", "StudyDate": "20100311"}, 60),
    ({"PatientAge": "061Y", "PatientBirthDate": "19500311", "StudyDate": "20100311"}, 61),
    ({"PatientBirthDate": "19500311", "StudyDate": "19010101"}, -1),
    ({"PatientBirthDate": "19500311"}, -1), ({"PatientBirthDate": "19501399"}, -1),
])
def test_age(tmp_path, stored, tags, age):
    dataset = radiograph(stored)
    del dataset.PatientAge
    with pydicom.config.disable_value_validation():
        dataset.update(item(**tags))
        path = saved(tmp_path, dataset)
    assert dicom.read_header(path).age == age


@pytest.mark.parametrize(("position", "view"), [
    ("PA", "PA"), ("AP", "AP"), ("ap ", "AP"), ("LL", "L"), ("RL", "L"), ("L", "L"),
    ("LATERAL", "L"), ("LLO", ""), ("", ""), (["PA", "LL"], ""),
])
def test_view(tmp_path, stored, position, view):
    with pydicom.config.disable_value_validation():
        path = saved(tmp_path, radiograph(stored, ViewPosition=position, PatientSex="O"))
    header = dicom.read_header(path)
    assert (header.view, header.sex) == (view, "")


def test_header_needs_no_pixels_but_all_of_itself(tmp_path, stored):
    path = saved(tmp_path, radiograph(stored))
    content = path.read_bytes()
    path.write_bytes(content[: -stored.nbytes // 2])
    assert dicom.read_header(path).patient_id == "p1"
    path.write_bytes(content[: content.index(b"CHEST")])
    with pytest.raises(BadRecord, match=r"x\.dcm.*truncated"):
        dicom.read_header(path)


def test_values_against_the_standard_are_read_in_silence(tmp_path, stored, caplog):
    with pydicom.config.disable_value_validation():
        path = saved(tmp_path, radiograph(stored, PatientAge="57 years old", PatientID="p" * 99,
                                          StudyInstanceUID="1.02.x", WindowCenter="5" * 20))
    with pytest.warns(UserWarning, match="Invalid value"):
        assert pydicom.dcmread(path).StudyInstanceUID
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        read = dicom.read(path).header  # warnings are errors here
    assert (read.age, read.patient_id, read.study_id) == (-1, "p" * 99, "1.02.x")
    assert not caplog.records


def is_bad_image(path, content):
    """Both readers give a radiograph or a BadRecord naming the file; true if `read` did that."""
    path.write_bytes(content)
    results = [_result(read, path) for read in (dicom.read, dicom.read_header)]
    for result in results:
        if isinstance(result, BadRecord):
            assert str(result).startswith(f"{path}: ")
    if isinstance(results[0], BadRecord):
        return True
    assert (results[0].pixels.dtype, results[0].pixels.ndim) == (np.uint8, 2)
    return False


def _result(read, path):
    try:
        return read(path)
    except BadRecord as error:
        return error


@pytest.fixture(scope="module")
def valid_files(tmp_path_factory, stored):
    """A path to write to, and files of four encodings."""
    folder = tmp_path_factory.mktemp("fuzz")
    plain = radiograph(stored, WindowCenter=9, WindowWidth=900,
                       VOILUTSequence=lut(range(300), 0, 16))
    written = [saved(folder, plain).read_bytes()]
    plain.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    written.append(saved(folder, plain).read_bytes())
    squeezed = radiograph(stored)
    squeezed.compress(uid.RLELossless)
    written.append(saved(folder, squeezed).read_bytes())
    written.append(saved(folder, as_jpeg_lossless(radiograph(stored), stored)).read_bytes())
    return folder / "fuzz.dcm", written


@FUZZ
@given(content=st.binary(max_size=400), preamble=st.booleans())
def test_random_bytes_are_a_bad_image(valid_files, content, preamble):
    path, _ = valid_files
    assert is_bad_image(path, bytes(128) + b"DICM" + content if preamble else content)


@FUZZ
@given(which=st.integers(0, 3), changes=st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_bytes_give_a_radiograph_or_a_bad_image(valid_files, which, changes):
    path, files = valid_files
    content = bytearray(files[which])
    for place, value in changes:
        content[int(132 + place * (len(content) - 132))] = value
    is_bad_image(path, content)


@FUZZ
@given(which=st.integers(0, 3), share=st.floats(0, 1))
def test_truncated_file_is_a_bad_image(valid_files, which, share):
    path, files = valid_files
    whole = files[which]
    # The last 12 bytes may be the end of a sequence, a checksum or an even length: no pixels.
    assert is_bad_image(path, whole[: int(share * (len(whole) - 12))])
