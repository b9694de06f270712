"""What `jaxcxr predict` writes of radiographs: `predictions.csv` and `.jsonl`, row by row."""

import csv
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

FORMATS = ("csv", "jsonl", "sr")
STATES = ("ok", "flagged", "refused", "failed")
_SHOWN = 384  # least side in pixels of a drawn heat map
_TEXTS = ("view", "modality", "body_part", "photometric", "patient_id", "study_id", "image_id")


@dataclasses.dataclass(frozen=True)
class XrayPrediction:
    """One radiograph, or what was thought to be one.

    Attributes:
      image: its path, as found.
      status: of `STATES`: "flagged" is unlike a frontal chest radiograph of the training, and
        "refused" the same where findings were not wanted then; "failed" could not be read.
      reason: why it is not ok.
      unusual: score of the guard, NaN where there is none.
      probabilities: `[classes]`, calibrated; None where refused or failed.
      findings: bool `[classes]`, or None.
      header: of a DICOM file, texts only.
    """

    image: str
    status: str
    reason: str = ""
    unusual: float = float("nan")
    probabilities: np.ndarray | None = None
    findings: np.ndarray | None = None
    header: Mapping[str, str] | None = None

    def to_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """JSON types: numbers of 6 digits, null where there is none."""
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


def header_texts(header: Any) -> dict[str, str] | None:
    """What a row keeps of a `data.dicom.Dicom`."""
    return None if header is None else {name: getattr(header, name) for name in _TEXTS}


class Tables:
    """`predictions.csv` and `predictions.jsonl` of a folder, written as rows come.

    Whatever ends the program, the rows that were written stay. The csv has a column `prob_CLASS`
    and `finding_CLASS` for each class, so that `jaxcxr score` reads it.

    Arguments:
      folder: it exists.
      classes: names of the outputs.
      formats: of `FORMATS`.
    """

    def __init__(self, folder: pathlib.Path, classes: Sequence[str], formats: Sequence[str]):
        self._classes, self.paths = tuple(classes), []
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

    def __exit__(self, *exc_info) -> None:
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
        """Hands what was written to the system."""
        for file in filter(None, (self._csv, self._jsonl)):
            file.flush()

    def _open(self, path: pathlib.Path):
        self.paths.append(path)
        # Paths on Linux are bytes, of which not all are text.
        return path.open("w", newline="", encoding="utf-8", errors="backslashreplace")


def overlay(pixels: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """A heat map over its image, for people to look at.

    Arguments:
      pixels: uint8 `[S, S]`.
      heatmap: float `[S, S]`, in any unit.

    Returns:
      uint8 `[side, side, 3]`, BGR; the least value of the map leaves the image as it is.
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
