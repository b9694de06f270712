"""Decodes uploaded files in a process of its own, which contains crashes and floods of memory.

    python -m jaxcxr.deploy.serve.decoding_process MEMORY

A request on standard input is a line of JSON with the number of `bytes` that follow. The answer on
standard output is the length, eight bytes, of a safetensors file, in which the array `json` holds
text and the others hold pixels or points. Neither side unpickles. `MEMORY` limits the address
space, bytes. JAX is not loaded.
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
from jaxcxr.xray.images import film_files

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
# Deflated Explicit VR Little Endian: pydicom would inflate it at once, however large.
_DEFLATED = b"1.2.840.10008.1.2.1.99"
# Names on the command line -> names in the API.
_PARAMETERS = {
    "with --size": "as width and height", "--rotate": "rotate",
    "--size, such as 1920x1080": "width and height, such as 1920 and 1080", "--joints": "joints",
}

Reply = tuple[dict[str, Any], dict[str, np.ndarray]]


class TooLarge(UserError):
    """A file declares more than the limit."""


def main() -> None:
    """Answers requests until the input ends."""
    _bound_memory(int(sys.argv[1]))
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # prints of libraries must not corrupt the answers
    _send(sink, {}, {})
    while line := source.readline():
        options = json.loads(line)
        content = source.read(options.pop("bytes"))
        _send(sink, *answer(options, content))


def answer(options: dict[str, Any], content: bytes) -> Reply:
    """Decodes a file; a failure is answered by `error` and its HTTP `status`."""
    try:
        if options["kind"] == "keypoints":
            return _keypoints(content, options)
        return _image(content, options)
    except TooLarge as error:
        return {"status": 413, "error": str(error)}, {}
    except UserError as error:
        return {"status": 422, "error": str(error)}, {}
    except MemoryError:
        return {"status": 413, "error": "decoding it takes more memory than the limit."}, {}


def kind_of(content: bytes, media_type: str) -> str:
    """Recognises an image by its first bytes, DICOM without preamble by its media type; else ""."""
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
    return _film(content, as_dicom=False)


def _dicom(content: bytes, most: int) -> Reply:
    import pydicom

    if _DEFLATED in content:
        raise BadRecord("deflated DICOM files are not supported; save it uncompressed.")
    try:
        declared = pydicom.dcmread(io.BytesIO(content), force=True)
        width, height = (int(declared.get(name) or 0) for name in ("Columns", "Rows"))
    except Exception as error:  # parsers of broken bytes raise anything
        raise BadRecord("the DICOM file is broken: its header cannot be read.") from error
    _check_size(width, height, most)
    return _film(content, as_dicom=True)


def _film(content: bytes, *, as_dicom: bool) -> Reply:
    film, header = film_files.decode(content, as_dicom=as_dicom)
    arrays = {"pixels": np.ascontiguousarray(film.pixels)}
    if film.shown is not None:
        arrays["shown"] = np.ascontiguousarray(film.shown)
    return {"header": dataclasses.asdict(header) if header else None}, arrays


def _png_size(content: bytes) -> tuple[int, int]:
    """Reads width and height from the header, the first chunk of every PNG."""
    if len(content) < 24 or content[12:16] != b"IHDR":
        raise BadRecord("the PNG file is broken: it does not begin with its header.")
    return struct.unpack(">II", content[16:24])


def _jpeg_size(content: bytes) -> tuple[int, int]:
    from PIL import Image

    # Our own limit is lower than Pillow's.
    Image.MAX_IMAGE_PIXELS = None
    try:
        return Image.open(io.BytesIO(content), formats=("JPEG",)).size
    except Exception as error:  # parsers of broken bytes raise anything
        raise BadRecord("the JPEG file is broken: its header cannot be read.") from error


def _check_size(width: int, height: int, most: int) -> None:
    if width * height > most:
        raise TooLarge(
            f"the image has {width:,} x {height:,} pixels, the limit is {most / 1e6:g} million. "
            "Make it smaller; the model shrinks it anyway."
        )


def _keypoints(content: bytes, options) -> Reply:
    from jaxcxr.pose.keypoints import keypoint_files

    try:
        video = keypoint_files.from_json(
            content, "the file", fps=options["fps"], size=options["size"],
            joints=options["joints"], rotate=options["rotate"],
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
        "size": video.size, "joint_set": video.joint_set, "fps": video.fps, "step": video.step,
        "notes": video.notes,
        "tracks": [[track.person, track.start] for track in video.tracks],
    }
    arrays = {}
    for number, track in enumerate(video.tracks):
        arrays[f"keypoints{number}"], arrays[f"confidence{number}"] = (
            np.ascontiguousarray(track.keypoints), np.ascontiguousarray(track.confidence)
        )
        arrays[f"state{number}"] = np.ascontiguousarray(track.states)
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
