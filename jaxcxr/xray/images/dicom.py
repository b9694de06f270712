"""Reads DICOM radiographs: the header, and the pixels as a viewer shows them.

pydicom parses and decompresses; this module puts its steps in order. RLE and uncompressed files
need nothing else, 8-bit JPEG and gray JPEG 2000 need Pillow (which comes with Matplotlib), JPEG
Lossless, JPEG-LS and 12-bit JPEG the extra `jaxcxr[dicom]`.

References are to the DICOM standard, part 3 (PS3.3), unless another part is named.
"""

import contextlib
import dataclasses
import datetime
import io
import logging
import math
import os
import re
import warnings
from typing import BinaryIO

import cv2
import numpy as np
import pydicom
from pydicom import encaps
from pydicom import pixels as decoding
from pydicom.pixels import processing

from jaxcxr.data import vocabulary
from jaxcxr.errors import BadRecord
from jaxcxr.xray.images import films, whole_files
from jaxcxr.xray.images.films import Film

_DECODERS = "pip install 'jaxcxr[dicom]'"
_GRAY = ("MONOCHROME1", "MONOCHROME2")
# pydicom turns the YBR ones into RGB while decoding.
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_AGE = re.compile(r"(\d+)([YMWD]?)", re.IGNORECASE)
_UNITS_PER_YEAR = {"": 1, "Y": 1, "M": 12, "W": 52, "D": 365}
_OLDEST = 120
_LONGEST_REASON = 300
_DESCRIBING = (
    "PatientID", "PatientSex", "PatientAge", "PatientBirthDate", "StudyDate", "ViewPosition",
    "Modality", "BodyPartExamined", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID",
    "SpecificCharacterSet", "Rows", "Columns", "PhotometricInterpretation",
)

_LOGGERS = ("pydicom", "pylibjpeg", "libjpeg", "openjpeg")


@dataclasses.dataclass(frozen=True)
class Header:
    """Holds the header of a radiograph; comparison ignores the photometric interpretation.

    Attributes:
      patient_id: "" if absent, as all texts here.
      sex: "M", "F" or "".
      age: whole years, -1 unknown.
      view: "PA", "AP", "L" (either lateral) or "".
      modality, body_part: as written, such as "DX" and "CHEST".
      study_id, series_id, image_id: the instance UIDs of study, series and image (SOP).
      photometric: Photometric Interpretation as written.
    """

    patient_id: str
    sex: str
    age: int
    view: str
    modality: str
    body_part: str
    study_id: str
    series_id: str
    image_id: str
    photometric: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Dicom:
    """Holds a radiograph and its header."""

    header: Header
    film: Film

    @property
    def pixels(self) -> np.ndarray:
        """The film in 256 grays, uint8 `[height, width]`."""
        return self.film.gray8


def read(path: str | os.PathLike) -> Dicom:
    """Reads a radiograph with its header, see `decode`.

    Raises:
      BadRecord: see `decode`; or the file is absent.
    """
    with _naming(path):
        return _radiograph(path)


def decode(content: bytes) -> Dicom:
    """Decodes the content of a file.

    Stored values pass the Modality LUT or the rescaling (C.11.1), then the VOI LUT or else the
    first window (C.11.2). Without these, or with a window that the standard forbids (a width under
    1), the range of the values fills the range of gray; if they have more than 8 bits, without
    outliers, see `films.usual_range`. MONOCHROME1 is then inverted (C.7.6.3.1.2). Padding is black
    in every case (C.7.5.1.1.2). Presentation LUT Shape is ignored: in a radiograph it repeats the
    photometric interpretation (C.8.11.3.1.2). Color becomes luma. Other tags that cannot be read
    count as absent.

    Arguments:
      content: of a DICOM file of one frame, with or without preamble and file meta information.
        Without a transfer syntax, the encoding of the header counts.

    Raises:
      BadRecord: the file is truncated or not DICOM; lacks a tag that the pixels need (such as
        Photometric Interpretation: a guess might invert the image); has several frames; or needs a
        decoder that is not installed.
    """
    with _naming():
        return _radiograph(io.BytesIO(content))


def read_header(path: str | os.PathLike) -> Header:
    """Reads the header alone, in a time that does not grow with the image.

    Raises:
      BadRecord: the file is absent, not DICOM, or ends before the size of the image, so that the
        header may be incomplete.
    """
    with _naming(path):
        dataset = _dataset(path, stop_before_pixels=True, specific_tags=list(_DESCRIBING))
        return _header(dataset)


@contextlib.contextmanager
def _naming(path: str | os.PathLike = ""):
    """Turns all errors into a BadRecord that names the file, and silences warnings."""
    named = f"{path}: " if path else ""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"), _quiet():
            for module in ("pydicom", "pylibjpeg", "PIL", re.escape(__name__)):
                warnings.filterwarnings("ignore", module=module)
            yield
    except BadRecord as error:
        raise BadRecord(f"{named}{error}") from error.__cause__
    except Exception as error:
        # Parsers of nested binary formats can raise any exception on broken bytes.
        system = error.strerror if isinstance(error, OSError) else None
        reason = system or f"broken DICOM file ({_brief(error)})"
        raise BadRecord(f"{named}{reason}") from error


@contextlib.contextmanager
def _quiet():
    """Silences the loggers of the readers, which also raise or warn of what they log."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__


def _dataset(path, **options) -> pydicom.Dataset:
    dataset = pydicom.dcmread(path, force=True, **options)
    if "Rows" not in dataset or "Columns" not in dataset:
        raise BadRecord(
            "no image: Rows (0028,0010) or Columns (0028,0011) is missing; the file is truncated, "
            "another kind of DICOM or not DICOM"
        )
    return dataset


def _header(dataset: pydicom.Dataset) -> Header:
    sex = _text(dataset, "PatientSex").upper()
    return Header(
        patient_id=_text(dataset, "PatientID"),
        sex=sex if sex in ("M", "F") else "",
        age=_age(dataset),
        view=vocabulary.view_of(_text(dataset, "ViewPosition"), qualified=False),
        modality=_text(dataset, "Modality"),
        body_part=_text(dataset, "BodyPartExamined"),
        study_id=_text(dataset, "StudyInstanceUID"),
        series_id=_text(dataset, "SeriesInstanceUID"),
        image_id=_text(dataset, "SOPInstanceUID"),
        photometric=_text(dataset, "PhotometricInterpretation"),
    )


def _text(dataset: pydicom.Dataset, keyword: str) -> str:
    value = _value(dataset, keyword)
    if isinstance(value, pydicom.multival.MultiValue):
        value = "\\".join(map(str, value))  # as it stands in the file
    return "" if value is None else str(value).strip(" \0")


def _value(dataset: pydicom.Dataset, keyword: str):
    """Returns the value of a tag; None if it is absent or cannot be read."""
    try:
        return dataset.get(keyword)
    except Exception:  # pydicom raises whatever the bytes lead to
        return None


def _age(dataset: pydicom.Dataset) -> int:
    """Reads the age in years, from `057Y`, `006M`, `58` (RSNA) or birth and study date, or -1."""
    match = _AGE.fullmatch(_text(dataset, "PatientAge"))
    if match:
        years = int(match[1]) // _UNITS_PER_YEAR[match[2].upper()]
    else:
        born, examined = (_date(dataset, key) for key in ("PatientBirthDate", "StudyDate"))
        if born is None or examined is None:
            return -1
        before_birthday = (examined.month, examined.day) < (born.month, born.day)
        years = examined.year - born.year - before_birthday
    return years if 0 <= years <= _OLDEST else -1


def _date(dataset: pydicom.Dataset, keyword: str) -> datetime.date | None:
    try:
        # Dots stood between the parts before DICOM 3.0 (PS3.5, 6.2).
        return datetime.datetime.strptime(_text(dataset, keyword).replace(".", ""), "%Y%m%d").date()
    except ValueError:
        return None


def _radiograph(source: str | os.PathLike | BinaryIO) -> Dicom:
    dataset = _dataset(source)
    return Dicom(_header(dataset), _film(dataset))


def _film(dataset: pydicom.Dataset) -> Film:
    stored = _decoded(dataset)
    kind = dataset.PhotometricInterpretation
    if kind in _GRAY and stored.ndim == 2:
        values = _modality_values(stored, dataset)
        shown = ~_padding(stored, dataset)
        deep = stored.dtype.kind == "f" or dataset.BitsStored > 8
        values, low, high = _values_of_interest(values, shown, dataset, deep)
        return Film.scaled(
            values, low, high, shown=shown, inverted=kind == "MONOCHROME1", deep=deep
        )
    if kind == "PALETTE COLOR" and stored.ndim == 2:
        colours = processing.apply_color_lut(stored, dataset)
        return Film(_luma(colours, np.iinfo(colours.dtype).max))
    if kind in _COLOUR and stored.ndim == 3:
        return Film(_luma(stored, 2**dataset.BitsStored - 1))
    raise BadRecord(f"Photometric Interpretation (0028,0004) is {kind!r}, which is not supported")


def _decoded(dataset: pydicom.Dataset, **options) -> np.ndarray:
    """Decodes the stored values, `[height, width]` or, of color, `[height, width, 3]`."""
    frames = _number(dataset, "NumberOfFrames", 1)
    if frames > 1:
        raise BadRecord(f"{frames:g} frames (0028,0008); a radiograph has one")
    if "NumberOfFrames" in dataset:
        del dataset["NumberOfFrames"]  # which may be unreadable
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = _uncompressed(*dataset.original_encoding)
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = decoding.get_decoder(syntax)
    except NotImplementedError as error:  # pydicom's answer to a syntax it does not know
        raise BadRecord(f"transfer syntax {syntax.name} is not supported") from error
    if not decoder.is_available:
        raise BadRecord(f"{syntax.name} needs a decoder: {_DECODERS}")
    plugin = ""
    if syntax == pydicom.uid.JPEGBaseline8Bit and "PixelData" in dataset:
        whole_files.check_jpeg(encaps.get_frame(dataset.PixelData, 0, number_of_frames=1))
        # Decoders may differ by one; this one gives the same pixels without the extra.
        plugin = "pillow"
    try:
        return decoding.pixel_array(dataset, decoding_plugin=plugin, **options)
    except RuntimeError as error:
        if decoder.available_plugins != ("pillow",):
            raise
        raise BadRecord(
            f"{syntax.name}: Pillow could not decode it ({_brief(error)}); unless the file is "
            f"broken, another decoder can: {_DECODERS}"
        ) from error


def _uncompressed(implicit: bool, little_endian: bool) -> pydicom.uid.UID:
    if implicit:
        return pydicom.uid.ImplicitVRLittleEndian
    return pydicom.uid.ExplicitVRLittleEndian if little_endian else pydicom.uid.ExplicitVRBigEndian


def _padding(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Marks pixels that pad the image to a rectangle (C.7.5.1.1.2)."""
    kind = next(kind for kind in ("", "Float", "DoubleFloat") if f"{kind}PixelData" in dataset)
    first = _number(dataset, f"{kind}PixelPaddingValue", math.nan)
    last = _number(dataset, f"{kind}PixelPaddingRangeLimit", math.nan)
    if stored.dtype.kind in "iu":
        first, last = (_as_stored(value, stored.dtype) for value in (first, last))
        reach = 2 ** (dataset.BitsStored - (stored.dtype.kind == "i"))
        if any(value >= reach or value < -reach for value in (first, last)):
            # pydicom drops the bits that are not in use, by which padding may be marked.
            stored = _decoded(dataset, correct_unused_bits=False)
    last = first if math.isnan(last) else last
    return (stored >= min(first, last)) & (stored <= max(first, last))


def _as_stored(value: float, dtype: np.dtype) -> float:
    """Reads a padding value in the type of the pixels; many files have it in the other one."""
    if math.isfinite(value):
        span, limits = 2.0 ** (8 * dtype.itemsize), np.iinfo(dtype)
        if value > limits.max and value < span:
            return value - span
        if value < limits.min and value >= -span / 2:
            return value + span
    return value


def _modality_values(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    if dataset.get("ModalityLUTSequence"):
        # pydicom keeps the type of the pixels for the index, which a signed table start overflows.
        return processing.apply_modality_lut(stored.astype(np.int64), dataset).astype(np.float64)
    slope = _number(dataset, "RescaleSlope", 1.0)
    return stored.astype(np.float64) * slope + _number(dataset, "RescaleIntercept", 0.0)


def _values_of_interest(
    values: np.ndarray, shown: np.ndarray, dataset: pydicom.Dataset, deep: bool
) -> tuple[np.ndarray, float, float]:
    """Returns values, and which of them become black and white; see `films.usual_range`."""
    table = (_value(dataset, "VOILUTSequence") or [None])[0]
    if table is not None and "LUTDescriptor" in table and "LUTData" in table:
        return _voi_lut(values, table, dataset)
    window = _window(dataset)
    if window is not None:
        return processing.apply_windowing(values, window), 0.0, 255.0
    counted = shown & np.isfinite(values)
    if not counted.any():
        return values, 0.0, 0.0
    if deep:
        return values, *films.usual_range(values, counted)
    return values, float(values[counted].min()), float(values[counted].max())


def _voi_lut(values, table, dataset) -> tuple[np.ndarray, float, float]:
    entries, start, bits = table.LUTDescriptor
    # For 8 bits, pydicom 3.0 also indexes with 8 bits, which wraps in a table of over 256 entries;
    # 16 bits change nothing else.
    table.LUTDescriptor = [entries, start, 16 if bits == 8 else bits]
    whole = np.round(np.nan_to_num(values)).astype(np.int64)
    return processing.apply_voi(whole, dataset).astype(np.float64), 0.0, float(2**bits - 1)


def _window(dataset: pydicom.Dataset) -> pydicom.Dataset | None:
    """Returns the first window, in the form that makes pydicom return values from 0 to 255."""
    center, width = (_number(dataset, key, math.nan) for key in ("WindowCenter", "WindowWidth"))
    function = _text(dataset, "VOILUTFunction").upper() or "LINEAR"
    narrowest = 1.0 if function == "LINEAR" else np.finfo(float).tiny
    if not (math.isfinite(center) and narrowest <= width < math.inf):
        return None
    window = pydicom.Dataset()
    window.PhotometricInterpretation = "MONOCHROME2"
    window.BitsStored, window.PixelRepresentation = 8, 0
    window.add_new("WindowCenter", "FD", center)
    window.add_new("WindowWidth", "FD", width)
    window.VOILUTFunction = function
    return window


def _number(dataset: pydicom.Dataset, keyword: str, absent: float) -> float:
    """Returns the first value of a tag; `absent` if there is none or it is no number."""
    value = _value(dataset, keyword)
    if isinstance(value, (pydicom.multival.MultiValue, list)):
        value = value[0] if value else None
    try:
        return absent if value is None or value == "" else float(value)
    except (TypeError, ValueError):
        return absent


def _luma(colours: np.ndarray, top: int) -> np.ndarray:
    if top != 255:
        colours = np.round(np.minimum(colours, top) * (255.0 / top)).astype(np.uint8)
    return cv2.cvtColor(np.ascontiguousarray(colours), cv2.COLOR_RGB2GRAY)
