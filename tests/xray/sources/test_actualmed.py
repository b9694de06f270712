"""Actualmed: a negative test is no normal film, an inconclusive one is nothing."""

import numpy as np
import pytest
from PIL import Image

from jaxcxr.data import preparation
from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import covid_chestxray as source
from tests.pose.sources import fuzz

HEADER = (
    "patientid,offset,sex,age,finding,survival,temperature,pO2 saturation,view,modality,imagename,"
    "artifacts/distortion,notes"
)
CR = "CR.1.2.840.113564.1722810170"
ROWS = (
    f'ANON196,,,,,,,,PA,X-ray,{CR}.2020.100.png,,"Inconclusive, date taken (YYYYMMDD): 20200313"',
    f'ANON196,,,,COVID-19,,,,PA,X-ray,{CR}.2020.101.png,,", date taken (YYYYMMDD): 20200318"',
    f'ANON91,,,,No finding,,,,AP,X-ray,{CR}.2020.102.png,,"Negative (covid-19 excluded)"',
    f"ANON58,,,,COVID-19,,,,AP,X-ray,{CR}.2020.103.png,,",
    f"ANON58,,,,No finding,,,,PA,X-ray,{CR}.2020.104.png,,",
)


@pytest.fixture
def raw(tmp_path):
    """Five rows of three patients, with their images."""
    folder = tmp_path / "raw"
    (folder / "images").mkdir(parents=True)
    (folder / "metadata.csv").write_text("\n".join([HEADER, *ROWS]) + "\n", encoding="latin-1")
    for seed, row in enumerate(ROWS):
        pixels = np.random.default_rng(seed).integers(0, 200, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / row.split(",")[10])
    return folder


def read(folder):
    table = source.read_actualmed(folder, 0.125, 0.2)
    return {row.image_id[-7:-4]: row for row in table.rows}, table.notes


def known(row):
    return {f: label for f, label in zip(FINDINGS, row.labels, strict=True) if label != -1}


def test_findings_speak_of_covid_only_and_inconclusive_images_are_left_out(raw):
    rows, notes = read(raw)
    assert {name: known(row) for name, row in rows.items()} == {
        "101": {"COVID-19": 1},
        "102": {"COVID-19": 0},
        "103": {"COVID-19": 1},
        "104": {"COVID-19": 0},
    }
    (note,) = notes
    assert note.startswith("1 images are left out, as their finding leaves every class open: CR.")


def test_patients_keep_their_images_together(raw):
    rows, _ = read(raw)
    assert [row.patient_id for row in rows.values()] == [
        "actualmed/ANON196", "actualmed/ANON91", "actualmed/ANON58", "actualmed/ANON58",
    ]  # fmt: skip
    assert rows["103"].split == rows["104"].split
    assert [row.view for row in rows.values()] == ["PA", "AP", "AP", "PA"]
    assert {(row.sex, row.age) for row in rows.values()} == {("", -1)}


def test_images_are_found_by_name(raw, tmp_path):
    builder = preparation.prepare(
        source.ACTUALMED, tmp_path / "out", raw=str(raw), size=32, workers=0, val_fraction=0.0,
        test_fraction=0.0,
    )  # fmt: skip
    assert builder.info.splits["train"].num_examples == 4


def test_table_without_image_names_is_refused(raw):
    (raw / "metadata.csv").write_text(HEADER.replace("imagename", "image") + "\n")
    with pytest.raises(UserError, match=r"metadata\.csv:1: no column 'imagename' among patientid"):
        read(raw)


def test_damaged_tables_are_user_errors(raw):
    def write_and_read(content):
        (raw / "metadata.csv").write_bytes(content)
        return read(raw)

    valid = (raw / "metadata.csv").read_bytes()
    fuzz.assert_only_user_errors(write_and_read, valid, "metadata.csv")
