"""DICOM files made with pydicom, for the tests that read them."""

import struct

import numpy as np
import pydicom
from pydicom import encaps, uid

from jaxcxr.xray.images import dicom

STUDY, SERIES, IMAGE = "1.2.3.4", "1.2.3.5", "1.2.3.6"


def values_of_12_bits():
    """uint16 `[40, 36]`, no two rows alike, from 101 to 3900."""
    values = np.random.default_rng(0).integers(101, 3900, (40, 36), dtype=np.uint16)
    values[0, :2] = 101, 3900
    return values


def item(**tags):
    """A data set with these tags; (VR, value) where the dictionary leaves the VR open."""
    dataset = pydicom.Dataset()
    for keyword, value in tags.items():
        if isinstance(value, tuple):
            dataset.add_new(keyword, *value)
        else:
            setattr(dataset, keyword, value)
    return dataset


def radiograph(pixels, **tags):
    """A file's data set: MONOCHROME2 as the type of the pixels says; 16 bits are 12 in use."""
    dataset = item(
        SOPClassUID=uid.DigitalXRayImageStorageForPresentation, SOPInstanceUID=IMAGE,
        StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES, PatientID="p1", PatientSex="F",
        PatientAge="057Y", Modality="DX", BodyPartExamined="CHEST", ViewPosition="PA",
        Rows=pixels.shape[0], Columns=pixels.shape[1], PhotometricInterpretation="MONOCHROME2",
        SamplesPerPixel=1, BitsAllocated=8 * pixels.itemsize,
    )
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    if pixels.dtype.kind == "f":
        keyword, vr = {4: ("FloatPixelData", "OF"), 8: ("DoubleFloatPixelData", "OD")}[
            pixels.itemsize]
        dataset.add_new(keyword, vr, pixels.tobytes())
    else:
        bits = {1: 8, 2: 12, 4: 32}[pixels.itemsize]
        dataset.BitsStored, dataset.HighBit = bits, bits - 1
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        dataset.add_new("PixelData", "OW" if pixels.itemsize > 1 else "OB", pixels.tobytes())
    dataset.update(item(**tags))
    return dataset


def saved(folder, dataset, name="x.dcm"):
    """Writes the file as its transfer syntax asks."""
    path = folder / name
    dataset.save_as(path, enforce_file_format=True)
    return path


def stretched(values):
    """The range of the values on the range of gray."""
    values = values.astype(np.float64)
    return np.round((values - values.min()) / (values.max() - values.min()) * 255)


def lut(table, start, bits):
    """The item of a Modality or VOI LUT Sequence."""
    vr = "SS" if start < 0 else "US"
    entries = [int(value) for value in table]
    return [item(LUTDescriptor=(vr, [len(entries), start, bits]), LUTData=("US", entries))]


def jpeg_lossless(pixels, bits):
    """ITU-T T.81 process 14, selection value 1: codes of 5 bits for 17 sizes of difference."""
    padded = np.pad(pixels.astype(int), ((0, 0), (1, 0)))
    padded[1:, 0] = padded[:-1, 1]
    padded[0, 0] = 2 ** (bits - 1)
    code = ""
    for difference in np.diff(padded, axis=1).ravel().tolist():
        size = abs(difference).bit_length()
        code += f"{size:05b}"
        if size:
            code += f"{difference if difference > 0 else difference + 2**size - 1:0{size}b}"
    code += "1" * (-len(code) % 8)
    scan = bytes(int(code[i : i + 8], 2) for i in range(0, len(code), 8))
    return (
        b"\xff\xd8\xff\xc3" + struct.pack(">HBHHBBBB", 11, bits, *pixels.shape, 1, 1, 0x11, 0)
        + b"\xff\xc4" + struct.pack(">HB16B", 36, 0, *(17 * (i == 4) for i in range(16)))
        + bytes(range(17)) + b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 0, 0)
        + scan.replace(b"\xff", b"\xff\x00") + b"\xff\xd9"
    )


def as_jpeg_lossless(dataset, pixels):
    """The same data set with its pixels in JPEG Lossless SV1."""
    dataset.PixelData = encaps.encapsulate([jpeg_lossless(pixels, 12)])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = uid.JPEGLosslessSV1
    return dataset


def pixels_of(folder, dataset):
    """What `read` makes of it."""
    pixels = dicom.read(saved(folder, dataset)).pixels
    assert pixels.dtype == np.uint8
    return pixels
