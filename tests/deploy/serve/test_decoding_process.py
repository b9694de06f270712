"""The decoder: what it reads, what it refuses before decoding, and that its end is survived."""

import asyncio
import io
import json
import os
import re
import signal
import struct
import zlib

import cv2
import numpy as np
import pydicom
import pytest
from pydicom import uid

from jaxcxr.deploy.serve import decoding_process, resources
from jaxcxr.deploy.serve.limits import Refusal
from jaxcxr.xray.images import dicom, film_files
from tests.xray.images import dicoms

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)
KEYPOINTS = {"fps": 30.0, "size": (640, 480), "joints": "", "rotate": None,
             "training_fps": 50.0, "frames": 1000}


def encoded(ending, image=IMAGE):
    return cv2.imencode(ending, image)[1].tobytes()


def dicom_bytes(pixels=IMAGE, **tags):
    file = io.BytesIO()
    dicoms.radiograph(pixels, **tags).save_as(file, enforce_file_format=True)
    return file.getvalue()


def png_header(width, height):
    """A PNG that declares a size and holds a few bytes."""
    def chunk(name, content):
        code = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + code

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (decoding_process.PNG + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000)))
            + chunk(b"IEND", b""))


def asked(content, media_type="", pixels=10_000):
    kind = decoding_process.kind_of(content, media_type)
    return decoding_process.answer({"kind": kind, "pixels": pixels}, content)


def keypoints(content, **options):
    text = json.dumps(content).encode()
    return decoding_process.answer({"kind": "keypoints", **KEYPOINTS, **options}, text)


def person(frame, value=100.0):
    points = [part for i in range(17) for part in (value + i % 3, value + 10 * i, 1.0)]
    return {"image_id": frame, "keypoints": points, "track_id": 1}


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_pixels_of_images_are_those_of_their_files(tmp_path, ending):
    (tmp_path / f"a{ending}").write_bytes(encoded(ending))
    about, arrays = asked(encoded(ending))
    np.testing.assert_array_equal(arrays["pixels"], film_files.read(tmp_path / f"a{ending}").pixels)
    assert about == {"header": None}


def test_dicom_with_and_without_preamble(tmp_path):
    content = dicom_bytes()
    (tmp_path / "a.dcm").write_bytes(content)
    expected = dicom.read(tmp_path / "a.dcm")
    for part, media_type in ((content, ""), (content[132:], "application/dicom")):
        about, arrays = asked(part, media_type)
        np.testing.assert_array_equal(arrays["pixels"], expected.film.pixels)
        assert dicom.Header(**about["header"]) == expected.header
    assert decoding_process.kind_of(content[132:], "") == ""


def test_sizes_are_refused_before_anything_is_decoded(monkeypatch):
    monkeypatch.setattr(film_files, "decode", lambda *_, **__: pytest.fail("decoded"))
    large = encoded(".jpg", np.zeros((101, 100), np.uint8))
    declared = dicom_bytes()
    dataset = pydicom.dcmread(io.BytesIO(declared))
    dataset.Rows, dataset.Columns = 60_000, 60_000
    file = io.BytesIO()
    dataset.save_as(file)
    for content in (png_header(100_000, 100_000), large, file.getvalue()):
        about, arrays = asked(content)
        assert about["status"] == 413
        assert "the limit is 0.01 million" in about["error"]
        assert arrays == {}


def test_a_png_below_the_limit_whose_pixels_are_not_there():
    assert asked(png_header(50, 50))[0]["status"] == 422


@pytest.mark.parametrize(("content", "message"), [
    (encoded(".png")[:-30], "truncated"), (encoded(".jpg")[:200], "broken|truncated"),
    (decoding_process.PNG + bytes(30), "does not begin with its header"),
    (decoding_process.PNG, "header"),
    (b"\xff\xd8\xff" + bytes(50), "header cannot be read"),
    (bytes(128) + b"DICM" + bytes(20), "DICOM"), (dicom_bytes()[:-600], "DICOM|bytes"),
    (dicom_bytes(NumberOfFrames=2), "2 frames"),
])
def test_broken_images_are_refused_with_a_reason(content, message):
    about, arrays = asked(content)
    assert about["status"] == 422
    assert re.search(message, about["error"])
    assert "BytesIO" not in about["error"]
    assert arrays == {}


def test_deflated_dicom_is_refused_unread():
    dataset = dicoms.radiograph(IMAGE)
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    about, _ = asked(file.getvalue())
    assert about["status"] == 422
    assert "deflated" in about["error"]


def test_keypoints_become_tracks():
    about, arrays = keypoints([person(0), person(1), person(2)])
    assert about == {"size": (640, 480), "joint_set": "coco", "tracks": [["1", 0]],
                     "fps": 30.0, "step": 1, "notes": ()}
    assert arrays["keypoints0"].shape == (3, 17, 2)
    assert arrays["confidence0"].dtype == np.float32


@pytest.mark.parametrize(("content", "options", "status", "message"), [
    ([person(0, float("nan"))], {}, 422, "no point of any person"),
    ({}, {}, 422, "neither a list"), ([], {}, 422, "neither a list"), ("x", {}, 422, "neither"),
    ([person(0)], {"size": None}, 422, "give width and height"),
    ([{**person(0), "keypoints": [1.0] * 21}], {}, 422, "Name other joint sets with joints"),
    ([person(i) for i in range(700)], {}, 413, "1,167 poses at the 50 frames per second"),
])
def test_keypoints_that_are_none(content, options, status, message):
    about, arrays = keypoints(content, **options)
    assert about["status"] == status
    assert message in about["error"]
    assert arrays == {}


def test_text_that_nests_too_deep_or_is_none():
    for content in (b"[" * 100_000, b"\xff\xfe\x00", b""):
        about, _ = decoding_process.answer({"kind": "keypoints", **KEYPOINTS}, content)
        assert about["status"] == 422
        assert "is no valid JSON" in about["error"]


def with_decoders(check, seconds=60.0, count=1):
    async def run():
        decoders = resources.Decoders(count, seconds)
        await decoders.start()
        try:
            await check(decoders)
        finally:
            await decoders.stop()

    asyncio.run(run())


async def good(decoders):
    _, arrays = await decoders.decode(encoded(".png"), kind="png", pixels=10_000)
    np.testing.assert_array_equal(arrays["pixels"], IMAGE)


def test_a_decoder_that_hangs_or_dies_is_replaced():
    async def check(decoders):
        await good(decoders)
        process = decoders._idle._queue[0]
        os.kill(process.pid, signal.SIGSTOP)
        decoders._seconds = 0.3
        with pytest.raises(Refusal, match=r"took longer than 0\.3 s") as found:
            await good(decoders)
        assert found.value.status == 422
        assert process.returncode == -signal.SIGKILL
        decoders._seconds = 60.0
        await good(decoders)
        process = decoders._idle._queue[0]
        os.kill(process.pid, signal.SIGSTOP)
        task = asyncio.create_task(good(decoders))
        await asyncio.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(Refusal, match="made the decoder fail"):
            await task
        await good(decoders)
        process = decoders._idle._queue[0]
        os.kill(process.pid, signal.SIGKILL)  # as the system may, when nothing is asked
        await process.wait()
        await good(decoders)

    with_decoders(check)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(resources, "MEMORY", 600 * 2**20)
    flood = encoded(".png", np.zeros((6000, 6000), np.uint16))

    async def check(decoders):
        with pytest.raises(Refusal) as found:
            await decoders.decode(flood, kind="png", pixels=40_000_000)
        assert found.value.status in (413, 422)
        await good(decoders)

    with_decoders(check)
