"""Preparation, prediction and service read the very same pixels from a file."""

import dataclasses

import cv2
import numpy as np
import pytest

from jaxcxr.deploy.bundle.bundled_model import Preprocessing
from jaxcxr.deploy.predict import xray_predictor
from jaxcxr.deploy.serve import decoding_process, xray_routes
from jaxcxr.errors import BadRecord
from jaxcxr.xray.images import film_files, fingerprint, image_files
from jaxcxr.xray.images.films import Film
from jaxcxr.xray.sources import builder
from tests.xray.images import dicoms

SIZE = 96


@dataclasses.dataclass(frozen=True)
class Model:
    """The part of a bundle that reads films."""

    equalize: str

    def preprocess(self, film):
        return Preprocessing(SIZE, self.equalize, SIZE, 0.5, 0.25).pixels(film)


def prepared(path, equalize):
    row = builder.ImageRecord("x", "p", "s", "train", ())
    made = builder.encode(
        builder.Item.of(row, path), size=SIZE, equalize=equalize, encoding="png")
    (record,) = made.values()
    return image_files.decode(record["image"]), record["sha256"]


def served(path, equalize):
    content = path.read_bytes()
    kind = decoding_process.kind_of(content, "")
    about, arrays = decoding_process.answer({"kind": kind, "pixels": 10**8}, content)
    if "error" in about:
        return about["error"], None
    film = Film(arrays["pixels"], arrays.get("shown"))
    reading, shown = xray_routes.as_reading(Model(equalize), film, None)
    return reading.pixels, fingerprint.pixel_sha256(shown)


def compared(path, equalize):
    """Compares the three; returns "film", "blank" or "bad"."""
    predicted = xray_predictor.read(str(path), Model(equalize))
    by_service, its_hash = served(path, equalize)
    try:
        film = film_files.read(path)
    except BadRecord as error:
        reason = str(error).removeprefix(f"{path}: ")
        assert predicted.error == by_service == reason
        with pytest.raises(BadRecord, match=path.name):
            prepared(path, equalize)
        return "bad"
    np.testing.assert_array_equal(by_service, predicted.pixels)
    assert its_hash == fingerprint.pixel_sha256(film.gray8)
    if film.blank:
        assert predicted.blank
        with pytest.raises(BadRecord, match="blank"):
            prepared(path, equalize)
        return "blank"
    stored, sha256 = prepared(path, equalize)
    np.testing.assert_array_equal(stored, predicted.pixels)
    assert sha256 == its_hash
    return "film"


@pytest.mark.parametrize("equalize", image_files.EQUALIZE)
def test_every_kind_of_file(tmp_path, equalize):
    rng = np.random.default_rng(0)
    gray = np.clip(rng.normal(120, 40, (130, 110)), 0, 255).astype(np.uint8)
    deep = gray.astype(np.uint16) * 16
    cv2.imwrite(str(tmp_path / "a.png"), gray)
    cv2.imwrite(str(tmp_path / "b.png"), deep)
    cv2.imwrite(str(tmp_path / "c.jpg"), gray)
    cv2.imwrite(str(tmp_path / "d.png"), np.full((50, 50), 7, np.uint8))
    deep[:20] = 4095
    for name, tags in {
        "e.dcm": {}, "f.dcm": {"PixelPaddingValue": ("US", 4095)},
        "g.dcm": {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": ("US", 4095)},
    }.items():
        dicoms.saved(tmp_path, dicoms.radiograph(deep, **tags), name)
    (tmp_path / "h.jpg").write_bytes((tmp_path / "c.jpg").read_bytes()[:900])
    found = [compared(path, equalize) for path in sorted(tmp_path.iterdir())]
    assert found == ["film", "film", "film", "blank", "film", "film", "film", "bad"]


def test_every_case(shared_cases):
    counts = {"film": 0, "blank": 0, "bad": 0}
    for folder in ("blank_and_corrupt", "exif_trailers", "padding_white", "posterised_16bit",
                   "sr_deidentified"):
        for path in sorted((shared_cases / "cxr" / folder).rglob("*")):
            if path.suffix in (".png", ".jpg", ".dcm"):
                counts[compared(path, "hist")] += 1
    assert (counts["blank"], counts["bad"]) == (2, 5)
    assert counts["film"] >= 50
