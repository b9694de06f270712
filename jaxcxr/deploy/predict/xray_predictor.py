"""Predicts findings in files of chest radiographs by a bundle, in one pass.

Threads read and decode files while the model computes. All batches have one size, the last is
padded, so that the model compiles once.
"""

import collections
import concurrent.futures
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import cv2
import jax
import numpy as np

from jaxcxr.data import folders, progress
from jaxcxr.data.staging import usable_cores
from jaxcxr.deploy.bundle.bundled_model import Bundle
from jaxcxr.errors import BadRecord, UserError, some
from jaxcxr.xray.images import film_files

if TYPE_CHECKING:
    from jaxcxr.xray.images.dicom import Header


STATES = ("ok", "flagged", "refused", "failed")
_TEXTS = ("view", "modality", "body_part", "photometric", "patient_id", "study_id", "image_id")
_AHEAD = 3  # batches to read ahead
_XRAY = ("", "CR", "DX", "DR", "RG", "RF")
_CHEST = ("", "CHEST", "THORAX", "LUNG", "CHESTABDOMEN", "RIB", "TSPINE")
_GRAY = ("", "MONOCHROME1", "MONOCHROME2")


# Pixels, and the outputs that the device computes for them.
_Launched: TypeAlias = tuple[np.ndarray, tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class XrayPrediction:
    """The prediction for one file.

    Attributes:
      image: path as found.
      status: of `STATES`: "flagged" is unlike the frontal chest radiographs of the training,
        "refused" is flagged and left without probabilities on request, "failed" could not be read.
      reason: why the status is not "ok".
      unusual: score of the guard, NaN if failed.
      probabilities: `[classes]`, calibrated; None if refused or failed.
      findings: bool `[classes]`; None if not "ok".
      header: texts of the header of a DICOM file.
    """

    image: str
    status: str
    reason: str = ""
    unusual: float = float("nan")
    probabilities: np.ndarray | None = None
    findings: np.ndarray | None = None
    header: Mapping[str, str] | None = None

    def to_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """Turns the prediction into JSON types, numbers with 6 digits."""
        found = None if self.findings is None else [
            name for name, there in zip(classes, self.findings, strict=True) if there
        ]
        probabilities = None if self.probabilities is None else {
            name: float(f"{p:.6g}") for name, p in zip(classes, self.probabilities, strict=True)
        }
        return {
            "image": self.image, "status": self.status, "reason": self.reason,
            "unusual": None if np.isnan(self.unusual) else float(f"{self.unusual:.6g}"),
            "probabilities": probabilities, "findings": found,
            "dicom": None if self.header is None else dict(self.header),
        }


def header_texts(header: "Header | None") -> dict[str, str] | None:
    """Selects the texts of a DICOM header that a row keeps."""
    return None if header is None else {name: getattr(header, name) for name in _TEXTS}


@dataclasses.dataclass(frozen=True)
class Reading:
    """A file as read: pixels uint8 `[S, S]` for the model, or None and an error; a DICOM header.

    `blank` says that nearly all of the film has one gray.
    """

    path: str
    pixels: np.ndarray | None
    header: "Header | None" = None
    error: str = ""
    blank: bool = False


def find(inputs: Iterable[str]) -> list[str]:
    """Finds image files, in order, each once.

    Arguments:
      inputs: files of any name; folders, searched at any depth by `folders.files_below` for files
        that `film_files.is_film` knows; patterns such as `scans/**/*.dcm`.

    Raises:
      UserError: an input does not exist, matches nothing or holds no image.
    """
    found: dict[str, None] = {}
    for given in map(os.path.expanduser, inputs):
        if os.path.isdir(given):
            below = folders.files_below(given)
            there = [path for path in below.paths if film_files.is_film(path)]
            if remark := below.remark():
                progress.say(f"{given}: {remark}")
            films = set(there)
            others = [os.path.basename(path) for path in below.paths if path not in films]
            if others:
                progress.say(f"{given}: {len(others)} files are no images: {some(others)}")
        elif os.path.exists(given):
            there = [given]
        else:
            there = list(folders.files_matching(given))
        if not there:
            what = "holds no image" if os.path.isdir(given) else "does not exist"
            raise UserError(f"{given} {what}; give image files, folders or patterns.")
        found |= dict.fromkeys(there)
    return list(found)


def read(path: str, bundle: Bundle) -> Reading:
    """Reads and preprocesses a file; a failure is told in `error`."""
    try:
        film, header = film_files.read_described(path)
        return Reading(path, bundle.preprocess(film), header, blank=film.blank)
    except BadRecord as error:
        return Reading(path, None, error=str(error).removeprefix(f"{path}: "))
    except (cv2.error, MemoryError) as error:
        return Reading(path, None, error=f"cannot be decoded or resized ({error})")


def predicted(
    bundle: Bundle, paths: Sequence[str], batch: int = 32, threads: int = 0, *,
    refuse: bool = False,
) -> Iterator[list[tuple[XrayPrediction, Reading]]]:
    """Predicts files in their order, about `batch` at a time.

    Arguments:
      bundle: of radiographs.
      paths: as `find` returns them.
      batch: images at once.
      threads: that read; 0: one per core.
      refuse: gives no probabilities for flagged images.
    """
    waiting: collections.deque[tuple[list[Reading], _Launched | None]] = collections.deque()
    for chunk in _chunks(_readings(bundle, paths, batch, threads), batch):
        # The device works on this chunk while the rows of the one before are made.
        waiting.append((chunk, _launched(bundle, chunk, batch)))
        if len(waiting) > 1:
            yield rows(bundle, *waiting.popleft(), refuse=refuse)
    while waiting:
        yield rows(bundle, *waiting.popleft(), refuse=refuse)


def tag_remarks(header: "Header | None") -> list[str]:
    """Lists the tags of a DICOM header that contradict a frontal chest radiograph."""
    if header is None:
        return []
    part = "".join(filter(str.isalpha, header.body_part.upper()))
    return [text for wrong, text in (
        (header.view == "L", "ViewPosition says lateral"),
        (header.modality.upper() not in _XRAY, f"Modality is {header.modality}"),
        (part not in _CHEST, f"BodyPartExamined is {header.body_part}"),
        (header.photometric.upper() not in _GRAY, f"stored in colour, {header.photometric}"),
    ) if wrong]


def _readings(bundle: Bundle, paths: Sequence[str], batch: int, threads: int) -> Iterator[Reading]:
    """Reads files in order, at most `_AHEAD` batches ahead."""
    workers = threads or usable_cores()
    pending: collections.deque[concurrent.futures.Future[Reading]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        rest = iter(paths)
        try:
            while True:
                while len(pending) < _AHEAD * batch and (path := next(rest, None)) is not None:
                    pending.append(pool.submit(read, path, bundle))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _chunks(readings: Iterable[Reading], batch: int) -> Iterator[list[Reading]]:
    """Groups readings: up to `batch` good ones in each part, and as many failed ones."""
    chunk: list[Reading] = []
    good = 0
    for reading in readings:
        chunk.append(reading)
        good += reading.pixels is not None
        if good == batch or len(chunk) == 2 * batch:
            yield chunk
            chunk, good = [], 0
    if chunk:
        yield chunk


def _launched(bundle: Bundle, chunk: Sequence[Reading], batch: int) -> _Launched | None:
    """Starts the model on the good readings of a part."""
    good = [reading.pixels for reading in chunk if reading.pixels is not None]
    if not good:
        return None
    pixels = np.zeros((batch, *good[0].shape), np.uint8)
    pixels[: len(good)] = good
    return pixels[: len(good)], bundle.forward(pixels)


def rows(
    bundle: Bundle, chunk: Sequence[Reading], launched: _Launched | None, *, refuse: bool
) -> list[tuple[XrayPrediction, Reading]]:
    """Makes the row of each reading.

    Arguments:
      bundle: of radiographs.
      chunk: readings.
      launched: pixels uint8 `[n, S, S]` of the n good readings, and the outputs of
        `bundle.forward` for them, padded or not; None if n is 0.
      refuse: gives no probabilities for flagged images; findings are never given.
    """
    _, guard = bundle.fitted
    good: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]] = iter(())
    if launched:
        pixels, outputs = launched
        logits, features = (np.asarray(value)[: len(pixels)] for value in outputs)
        probabilities = bundle.probabilities(logits)
        findings = bundle.findings(probabilities)
        good = zip(guard.parts(pixels, features), probabilities, findings, strict=True)
    found = []
    for reading in chunk:
        if reading.pixels is None:
            found.append((XrayPrediction(reading.path, "failed", reading.error), reading))
            continue
        part, probability, finding = next(good)
        unlike = "blank" if reading.blank else guard.reason(reading.pixels, part)
        reasons = [*tag_remarks(reading.header), *filter(None, [unlike])]
        refused = bool(refuse and reasons)
        status = "ok" if not reasons else "refused" if refused else "flagged"
        found.append((XrayPrediction(
            reading.path, status, "; ".join(reasons), float(part.max()),
            None if refused else probability, None if reasons else finding,
            header_texts(reading.header),
        ), reading))
    return found
