"""A process that decodes what others sent: a crash or a flood of memory ends it and nothing else.

    python -m jaxcxr.deploy.serve.decoding_process MEMORY

It reads requests from its standard input, a line of JSON with the number of `bytes` that follow,
and answers each on its standard output by eight bytes with the length of a safetensors file, in
which the array `json` holds the text and others the pixels or points. Neither end unpickles.
`MEMORY` bounds its address space in bytes. It loads no JAX.
"""

import contextlib
import dataclasses
import io
import json
import math
import os
import struct
import sys
from typing import Any

import numpy as np
import safetensors.numpy

from jaxcxr.errors import BadRecord, UserError
from jaxcxr.xray.images import image_files

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
# Deflated Explicit VR Little Endian: pydicom would inflate the whole, however large, at once.
_DEFLATED = b"1.2.840.10008.1.2.1.99"
# What the command line calls by other names than the API.
_PARAMETERS = {
    "--size, such as 1920x1080": "width and height, such as 1920 and 1080", "--joints": "joints",
}

Reply = tuple[dict[str, Any], dict[str, np.ndarray]]


class TooLarge(UserError):
    """What a file declares is more than is decoded."""


def main() -> None:
    """Answers requests until the input ends."""
    _bound_memory(int(sys.argv[1]))
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand between answers
    _send(sink, {}, {})
    while line := source.readline():
        options = json.loads(line)
        content = source.read(options.pop("bytes"))
        _send(sink, *answer(options, content))


def answer(options: dict[str, Any], content: bytes) -> Reply:
    """What is sent back: the result, or `error` with the `status` that HTTP has for it."""
    try:
        if options["kind"] == "keypoints":
            return _keypoints(content, options)
        return _image(content, options)
    except TooLarge as error:
        return {"status": 413, "error": str(error)}, {}
    except UserError as error:
        return {"status": 422, "error": str(error)}, {}
    except MemoryError:
        return {"status": 413, "error": "decoding it takes more memory than is given to it."}, {}


def kind_of(content: bytes, media_type: str) -> str:
    """The kind of an image by its first bytes; "" if none is known.

    Arguments:
      content: of the file.
      media_type: what the client calls it; only DICOM without preamble is known by that.
    """
    if content.startswith(PNG):
        return "png"
    if content.startswith(JPEG):
        return "jpeg"
    if content[128:132] == b"DICM" or media_type == "application/dicom":
        return "dicom"
    return ""


def _image(content: bytes, options) -> Reply:
    if options["kind"] == "dicom":
        return _dicom(content, options["pixels"])
    size = _png_size(content) if options["kind"] == "png" else _jpeg_size(content)
    _check_size(*size, options["pixels"])
    return {"header": None}, {"image": image_files.decode_any(content)}


def _dicom(content: bytes, most: int) -> Reply:
    import pydicom

    from jaxcxr.xray.images import dicom

    if _DEFLATED in content:
        raise BadRecord("a deflated DICOM file, which is not read; save it uncompressed.")
    try:
        declared = pydicom.dcmread(io.BytesIO(content), force=True)
        size = [int(declared.get(name) or 0) for name in ("Columns", "Rows")]
    except Exception as error:  # any there is, as parsers of broken bytes have it
        raise BadRecord("the DICOM file is broken: its header cannot be read.") from error
    _check_size(*size, most)
    file = io.BytesIO(content)
    try:
        found = dicom.read(file)
    except BadRecord as error:
        raise BadRecord(str(error).removeprefix(f"{file}: ")) from error
    header = dataclasses.asdict(dataclasses.replace(found, pixels=None))
    return {"header": header}, {"image": found.pixels}


def _png_size(content: bytes) -> tuple[int, int]:
    """Width and height; the header is the first part of every PNG."""
    if len(content) < 24 or content[12:16] != b"IHDR":
        raise BadRecord("the PNG file is broken: it does not begin with its header.")
    return struct.unpack(">II", content[16:24])


def _jpeg_size(content: bytes) -> tuple[int, int]:
    from PIL import Image

    # The size is compared with a limit of our own, which is lower than Pillow's.
    Image.MAX_IMAGE_PIXELS = None
    try:
        return Image.open(io.BytesIO(content), formats=("JPEG",)).size
    except Exception as error:  # any there is, as parsers of broken bytes have it
        raise BadRecord("the JPEG file is broken: its header cannot be read.") from error


def _check_size(width: int, height: int, most: int) -> None:
    if width * height > most:
        raise TooLarge(
            f"an image of {width:,} x {height:,} pixels; at most {most / 1e6:g} million are read. "
            "Make it smaller; the model sees it smaller still."
        )


def _keypoints(content: bytes, options) -> Reply:
    from jaxcxr.pose.keypoints import keypoint_files

    try:
        video = keypoint_files.from_json(
            content, "the file", fps=options["fps"], size=options["size"], joints=options["joints"]
        )
    except UserError as error:
        text = str(error)
        for option, parameter in _PARAMETERS.items():
            text = text.replace(option, parameter)
        raise UserError(text) from error
    faster = options["training_fps"] / video.fps
    frames = sum(math.ceil(len(track.keypoints) * faster) for track in video.tracks)
    if frames > options["frames"]:
        raise TooLarge(
            f"{len(video.tracks)} people and {frames:,} poses at the {options['training_fps']:g} "
            f"frames per second of the model; at most {options['frames']:,} are lifted at once. "
            "Cut the video, or use `jaxcxr predict`."
        )
    about = {
        "size": video.size, "joint_set": video.joint_set,
        "tracks": [[track.person, track.start] for track in video.tracks],
    }
    arrays = {}
    for number, track in enumerate(video.tracks):
        arrays[f"keypoints{number}"], arrays[f"confidence{number}"] = (
            np.ascontiguousarray(track.keypoints), np.ascontiguousarray(track.confidence)
        )
    return about, arrays


def _send(sink, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    content = safetensors.numpy.save({"json": text, **arrays})
    sink.write(struct.pack("<Q", len(content)) + content)
    sink.flush()


def _bound_memory(most: int) -> None:
    import resource

    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    main()
