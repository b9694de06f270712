"""Writes the rows of `predictions.csv` and `.jsonl`, and draws heat maps over radiographs."""

import csv
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from jaxcxr.xray.images.dicom import Header

FORMATS = ("csv", "jsonl", "sr")
STATES = ("ok", "flagged", "refused", "failed")
_SHOWN = 384  # least side of a drawn heat map, pixels
_TEXTS = ("view", "modality", "body_part", "photometric", "patient_id", "study_id", "image_id")


@dataclasses.dataclass(frozen=True)
class XrayPrediction:
    """The prediction for one file.

    Attributes:
      image: path as found.
      status: of `STATES`: "flagged" is unlike the frontal chest radiographs of the training,
        "refused" is flagged and left without findings on request, "failed" could not be read.
      reason: why the status is not "ok".
      unusual: score of the guard, NaN if failed.
      probabilities: `[classes]`, calibrated; None if refused or failed.
      findings: bool `[classes]`, or None.
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


class Tables:
    """Writes `predictions.csv` and `predictions.jsonl` row by row, so that rows survive a crash.

    The csv has the columns `prob_CLASS` and `finding_CLASS`, which `jaxcxr score` reads.

    Arguments:
      folder: existing folder to write to.
      classes: names of the outputs.
      formats: of `FORMATS`.
    """

    def __init__(self, folder: pathlib.Path, classes: Sequence[str], formats: Sequence[str]):
        self._classes = tuple(classes)
        self.paths: list[pathlib.Path] = []
        self._csv = self._jsonl = None
        if "csv" in formats:
            self._csv = self._open(folder / "predictions.csv")
            self._writer = csv.writer(self._csv)
            self._writer.writerow((
                "image", "status", "reason", "unusual", "view",
                *(f"prob_{name}" for name in classes), *(f"finding_{name}" for name in classes),
            ))
        if "jsonl" in formats:
            self._jsonl = self._open(folder / "predictions.jsonl")

    def __enter__(self) -> "Tables":
        return self

    def __exit__(self, *_) -> None:
        for file in filter(None, (self._csv, self._jsonl)):
            file.close()

    def write(self, row: XrayPrediction) -> None:
        """Adds a row."""
        empty = ("",) * len(self._classes)
        if self._csv:
            self._writer.writerow((
                row.image, row.status, row.reason,
                "" if np.isnan(row.unusual) else f"{row.unusual:.6g}",
                (row.header or {}).get("view", ""),
                *(empty if row.probabilities is None else (f"{p:.6g}" for p in row.probabilities)),
                *(empty if row.findings is None else map(int, row.findings)),
            ))
        if self._jsonl:
            record = json.dumps(row.to_json(self._classes), ensure_ascii=False, allow_nan=False)
            self._jsonl.write(f"{record}\n")

    def flush(self) -> None:
        """Flushes the files."""
        for file in filter(None, (self._csv, self._jsonl)):
            file.flush()

    def _open(self, path: pathlib.Path):
        self.paths.append(path)
        # Linux paths are bytes and may not be valid text.
        return path.open("w", newline="", encoding="utf-8", errors="backslashreplace")


def overlay(pixels: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Draws a heat map over its image.

    Arguments:
      pixels: uint8 `[S, S]`.
      heatmap: float `[S, S]`, in any unit.

    Returns:
      uint8 `[side, side, 3]`, BGR; the least value of the map leaves the image unchanged.
    """
    side = len(pixels) * -(-_SHOWN // len(pixels))
    low, high = float(heatmap.min()), float(heatmap.max())
    unit = (heatmap - low) / (high - low) if high > low else np.zeros_like(heatmap)
    gray, strength = (
        cv2.resize(one, (side, side), interpolation=cv2.INTER_LINEAR)
        for one in (pixels, unit.astype(np.float32))
    )
    colours = cv2.applyColorMap((strength * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    alpha = 0.6 * strength[..., None]
    return np.round(gray[..., None] * (1 - alpha) + colours * alpha).astype(np.uint8)
