"""Figure 1: images without names, letters, findings and views that are not there."""

import numpy as np
import pytest
from PIL import Image

from jaxcxr.data import preparation
from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import covid_chestxray as source
from tests.pose.sources import fuzz

HEADER = (
    "patientid,offset,sex,age,finding,survival,temperature,pO2 saturation,view,modality,"
    "artifacts/distortion,notes"
)
ROWS = (
    "COVID-00001,13,M,33,COVID-19,,,58,AP erect,X-ray,,",
    "COVID-00002,,M,50+,,,,,AP erect,X-ray,,blank finding",
    "COVID-00003a,8,F,28,COVID-19,,38+,90,PA,X-ray,,fever 38°",
    "COVID-00003b,8,F,28,COVID-19,,,90,,X-ray,,",
    "COVID-00023,,,,No finding,,,,,X-ray,,labeled normal patient",
    "COVID-00031,,,early 40s,Pneumonia,,,,L,X-ray,,",
    "COVID-00034,,,early 40s,Pneumonia,,,,AP,X-ray,,",
)


@pytest.fixture
def raw(tmp_path):
    """Seven rows and the images, of which one is a PNG."""
    folder = tmp_path / "raw"
    (folder / "images").mkdir(parents=True)
    (folder / "metadata.csv").write_text("\n".join([HEADER, *ROWS]) + "\n", encoding="latin-1")
    for seed, row in enumerate(ROWS):
        pixels = np.random.default_rng(seed).integers(0, 200, (40, 40), dtype=np.uint8)
        ending = "png" if seed == 0 else "jpg"
        Image.fromarray(pixels).save(folder / "images" / f"{row.split(',')[0]}.{ending}")
    return folder


def read(folder):
    table = source.read_figure1(folder, 0.125, 0.2)
    return {row.image_id: row for row in table.rows}, table.notes


def known(row):
    return {f: label for f, label in zip(FINDINGS, row.labels, strict=True) if label != -1}


def test_rows_with_a_finding_become_labels(raw):
    rows, notes = read(raw)
    assert {name: known(row) for name, row in rows.items()} == {
        "COVID-00001": {"COVID-19": 1},
        "COVID-00003a": {"COVID-19": 1},
        "COVID-00003b": {"COVID-19": 1},
        "COVID-00023": {"COVID-19": 0, "Pneumonia": 0},
        "COVID-00034": {"Pneumonia": 1},
    }
    assert notes == (
        "1 images are left out, as their finding leaves every class open: COVID-00002",
        "1 images are left out for their view, L: COVID-00031",
    )


def test_letters_are_films_of_one_patient(raw):
    rows, _ = read(raw)
    ids = [rows[name].patient_id for name in ("COVID-00001", "COVID-00003a", "COVID-00003b")]
    assert ids == ["figure1/COVID-00001", "figure1/COVID-00003", "figure1/COVID-00003"]
    assert rows["COVID-00003a"].split == rows["COVID-00003b"].split


def test_views_ages_and_sexes(raw):
    rows, _ = read(raw)
    seen = {name: (row.view, row.sex, row.age) for name, row in rows.items()}
    assert seen["COVID-00001"] == ("AP", "M", 33)
    assert seen["COVID-00003a"] == ("PA", "F", 28)
    assert seen["COVID-00023"] == ("", "", -1)
    assert seen["COVID-00034"] == ("AP", "", 40)


def test_images_are_found_by_the_patientid(raw, tmp_path):
    builder = preparation.prepare(
        source.FIGURE1, tmp_path / "out", raw=str(raw), size=32, workers=0, val_fraction=0.0,
        test_fraction=0.0,
    )  # fmt: skip
    assert builder.info.splits["train"].num_examples == 5


def test_absent_image_is_named(raw, tmp_path):
    (raw / "images/COVID-00003b.jpg").unlink()
    with pytest.raises(UserError, match="1 of 5 listed images are absent: COVID-00003b"):
        preparation.prepare(source.FIGURE1, tmp_path / "out", raw=str(raw), size=32, workers=0)


def test_damaged_tables_are_user_errors(raw):
    def write_and_read(content):
        (raw / "metadata.csv").write_bytes(content)
        return read(raw)

    valid = (raw / "metadata.csv").read_bytes()
    fuzz.assert_only_user_errors(write_and_read, valid, "metadata.csv")
