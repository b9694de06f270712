"""Writes the predictions for files of radiographs: rows, structured reports, heat maps."""

import collections
import csv
import json
import pathlib
import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from jaxcxr.data.progress import Progress
from jaxcxr.deploy.bundle.bundled_model import Bundle
from jaxcxr.deploy.predict import xray_predictor
from jaxcxr.deploy.predict.xray_predictor import STATES, Reading, XrayPrediction
from jaxcxr.errors import RunError, UserError
from jaxcxr.pose.formats import prediction_files
from jaxcxr.xray.explain import explanation

FORMATS = ("csv", "jsonl", "sr")
_SHOWN = 384  # least side of a drawn heat map, pixels


def predict_files(
    bundle: Bundle,
    paths: Sequence[str],
    out: pathlib.Path,
    formats: Sequence[str],
    say: Callable[[str], None],
    *,
    heatmaps: str = "",
    refuse: bool = False,
    batch: int = 32,
    threads: int = 0,
) -> None:
    """Predicts for every file and writes the rows.

    Arguments:
      bundle: of radiographs.
      paths: as `xray_predictor.find` returns them.
      out: existing folder to write to.
      formats: of `FORMATS`.
      say: gets lines of progress.
      heatmaps: method of heat maps, "auto", or "" for none.
      refuse, batch, threads: see `xray_predictor.predicted`.

    Raises:
      UserError: a method that does not explain the model, or a package that is not installed.
      RunError: some files could not be read; all others were predicted and written.
    """
    reports = _Reports(out, bundle) if "sr" in formats else None
    sinks: list[_Reports | _Heatmaps] = [reports] if reports else []
    if heatmaps:
        sinks.append(_Heatmaps(out, bundle, heatmaps, batch))
    say(bundle.description)
    for line in bundle.version_differences():
        say(f"another version than in training: {line}")
    counts: collections.Counter[str] = collections.Counter()
    begun = time.perf_counter()
    with (
        Tables(out, bundle.classes, formats) as tables,
        Progress("predict", len(paths)) as progress,
    ):
        for part in xray_predictor.predicted(bundle, paths, batch, threads, refuse=refuse):
            for row, _ in part:
                tables.write(row)
                counts[row.status] += 1
            tables.flush()
            for sink in sinks:
                sink.add(part)
            progress.advance(len(part), bad=counts["failed"])
    seconds = time.perf_counter() - begun
    _write_summary(out, bundle, counts, seconds)
    states = ", ".join(f"{counts[s]:,} {s}" for s in STATES if counts[s])
    total = counts.total()
    say(f"{total:,} files: {states}; {total / seconds:,.1f} files/s with compilation")
    for line in [*map(str, tables.paths), *(sink.summary() for sink in sinks)]:
        say(f"written: {line}")
    if counts["failed"]:
        raise RunError(
            f"{counts['failed']} of {len(paths)} files could not be read; the column `reason` of "
            f"{out} says why, and the other rows are there."
        )
    if reports and reports.failed:
        raise RunError(
            f"{len(reports.failed)} structured reports could not be written, as said above; all "
            "else is there."
        )


def _write_summary(out: pathlib.Path, bundle: Bundle, counts, seconds: float) -> None:
    record = {
        "bundle": bundle.digest, "model": bundle.model_name, "training": bundle.facts["training"],
        "thresholds": dict(zip(bundle.classes, bundle.thresholds.tolist(), strict=True)),
        "unusual_threshold": bundle.fitted[1].threshold,
        "images": {state: counts[state] for state in STATES},
        "seconds": round(seconds, 3),
    }
    (out / "predictions.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


class _Reports:
    """Writes a DICOM structured report for each DICOM file that was not refused."""

    def __init__(self, out: pathlib.Path, bundle: Bundle):
        from jaxcxr.deploy.predict import structured_report

        structured_report.check_installed()
        self._write, self._bundle = structured_report.write, bundle
        self._folder, self._names = out / "sr", prediction_files.Names()
        self._folder.mkdir(exist_ok=True)
        self._written, self._others = 0, 0
        self.failed: list[str] = []

    def add(self, part: Sequence[tuple[XrayPrediction, Reading]]) -> None:
        model = {"name": self._bundle.model_name, "digest": self._bundle.digest}
        for row, reading in part:
            if row.probabilities is None:
                continue
            if reading.header is None:
                self._others += 1
                continue
            thresholds = zip(row.probabilities, self._bundle.thresholds, strict=True)
            values = dict(zip(self._bundle.classes, thresholds, strict=True))
            path = self._folder / f"{self._names.new(row.image)}.dcm"
            try:
                self._write(path, row.image, values, model, row.reason)
                self._written += 1
            except UserError as error:
                self.failed.append(str(error))

    def summary(self) -> str:
        others = f"; none for {self._others} files that are not DICOM" if self._others else ""
        failed = "".join(f"\n    {text}" for text in self.failed)
        return f"{self._folder}: {self._written} structured reports{others}{failed}"


class _Heatmaps:
    """Draws a heat map for each predicted finding."""

    def __init__(self, out: pathlib.Path, bundle: Bundle, method: str, batch: int):
        self._bundle, self._batch = bundle, batch
        size = bundle.image_size
        blank = bundle.preprocessing.normalized(np.zeros((1, size, size), np.uint8))
        possible = bundle.explainer.methods(blank)
        self._method = method
        if method == "auto":
            self._method = explanation.method_for(bundle.explainer, blank)
        if self._method not in possible:
            raise UserError(
                f"--heatmaps {method!r} does not explain this model; its methods: "
                f"{', '.join(possible)}."
            )
        self._folder, self._names, self._written = out / "heatmaps", prediction_files.Names(), 0
        self._folder.mkdir(exist_ok=True)

    def add(self, part: Sequence[tuple[XrayPrediction, Reading]]) -> None:
        cases = [
            (self._names.new(row.image), reading.pixels, np.flatnonzero(row.findings))
            for row, reading in part if row.findings is not None
        ]
        pairs = [(name, pixels, int(c)) for name, pixels, found in cases for c in found]
        for begin in range(0, len(pairs), self._batch):
            self._draw(pairs[begin : begin + self._batch])

    def _draw(self, pairs) -> None:
        size = self._bundle.image_size
        pixels = np.zeros((self._batch, size, size), np.uint8)  # padded: compiled once
        classes = np.zeros(self._batch, np.int32)
        for i, (_, image, finding) in enumerate(pairs):
            pixels[i], classes[i] = image, finding
        maps = self._bundle.heatmaps(self._method, pixels, classes)
        for (name, image, finding), one in zip(pairs, maps, strict=False):
            title = prediction_files.file_name(self._bundle.classes[finding])
            picture = overlay(image, one)
            cv2.imwrite(str(self._folder / f"{name}_{title}.png"), picture)
            self._written += 1

    def summary(self) -> str:
        return f"{self._folder}: {self._written} pictures by {self._method}"


class Tables:
    """Writes `predictions.csv` and `.jsonl` row by row, so that rows survive a crash.

    The csv has the columns `prob_CLASS`, which `jaxcxr score` reads, and `finding_CLASS`, empty
    unless the status is "ok".
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
    """Draws a map `[S, S]` over its image uint8 `[S, S]`, BGR; the least value is transparent."""
    side = len(pixels) * -(-_SHOWN // len(pixels))
    strength = explanation.unit(heatmap).astype(np.float32)
    return explanation.blended(*(
        cv2.resize(one, (side, side), interpolation=cv2.INTER_LINEAR) for one in (pixels, strength)
    ))
