"""Writes small data sets in published layouts, with films of noise."""

import gzip
import pathlib

import cv2
import numpy as np

from jaxcxr.data import preparation
from jaxcxr.xray.images import manifest

FINDINGS_OF_CHEXPERT = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip


def film(path, seed=None):
    """Writes a film of noise; one seed gives one film, without seed by its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(map(ord, str(path))) if seed is None else seed
    pixels = np.random.default_rng(seed).integers(0, 200, (48, 40), dtype=np.uint8)
    content = cv2.imencode(".png" if path.suffix not in (".jpg", ".jpeg") else ".jpg", pixels)[1]
    path.write_bytes(content.tobytes())


def text(path, *lines, zipped=False):
    """Writes lines, gzipped if asked for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(content) if zipped else content)


def prepared(source, raw, out, **options):
    """Prepares a data set and reads its manifest."""
    options = {"size": 32, "workers": 0, "encoding": "raw", **options}
    raw = {} if raw is None else {"raw": str(raw)}
    builder = preparation.prepare(source, out, **raw, **options)
    return manifest.read(pathlib.Path(builder.data_dir))


def labels(rows):
    """Returns {image: {class: label}} without unknown ones."""
    return {
        str(image): {c: int(x) for c, x in zip(rows.classes, row, strict=True) if x >= 0}
        for image, row in zip(rows.image_id, rows.labels, strict=True)
    }
