"""The COVID-19 Radiography Database: renamed files, workbooks, both layouts."""

import zipfile

import numpy as np
import openpyxl
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxcxr.data import preparation
from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import builder
from jaxcxr.xray.sources import covid19_radiography as source
from tests.pose.sources import fuzz

HEADER = ("FILE NAME", "FORMAT", "SIZE", "URL")
RSNA = "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data"
SIRM = "https://sirm.org/category/senza-categoria/covid-19/"
SKIP = {"image": tfds.decode.SkipDecoding()}


def workbook(path, *rows, header=HEADER):
    """Writes `<class>.metadata.xlsx`; a row is (file name, URL)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    book.active.append(header)
    for name, url in rows:
        book.active.append((name, "PNG", "256*256", url))
    book.save(path)
    return path


def image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 200, (40, 40), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def release_4(tmp_path):
    """Twelve images of each class, as on Kaggle; `Normal` is spelled otherwise in its workbook."""
    raw = tmp_path / "raw"
    folder = raw / "COVID-19_Radiography_Dataset"
    urls = {"COVID": SIRM, "Lung_Opacity": RSNA, "Normal": RSNA, "Viral Pneumonia": "n/a"}
    for label, url in urls.items():
        spelled = "NORMAL" if label == "Normal" else label
        rows = [(f"{spelled}-{number}", url) for number in range(1, 13)]
        workbook(folder / f"{label}.metadata.xlsx", *rows)
        for number in range(1, 13):
            image(folder / label / "images" / f"{label}-{number}.png", seed=number)
            image(folder / label / "masks" / f"{label}-{number}.png")
    return raw


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def labels_of(row):
    return {name: label for name, label in zip(FINDINGS, row.labels, strict=True) if label >= 0}


def read(raw, val_fraction=0.0, test_fraction=0.0):
    return source.read_table(raw, val_fraction, test_fraction)


def test_release_4_is_prepared_with_all_its_images_and_none_of_its_masks(release_4, tmp_path):
    builder = preparation.prepare(
        source.NAME, tmp_path / "out", raw=str(release_4), size=32, workers=0, test_fraction=0.4
    )
    records = {}
    for split in builder.info.splits:
        for record in builder.as_data_source(split, decoders=SKIP):
            records[text(record["image_id"])] = (split, record)
    assert len(records) == 48
    assert {split for split, _ in records.values()} == {"train", "validation", "test"}
    split, record = records["Lung_Opacity-7.png"]
    row = next(r for r in read(release_4, 0.125, 0.4).rows if r.image_id == "Lung_Opacity-7.png")
    assert (split, text(record["patient_id"]), text(record["source"])) == (
        row.split, "covid19_radiography/Lung_Opacity-7", "covid19_radiography",
    )
    assert record["labels"].tolist() == list(row.labels)
    assert record["original_size"].tolist() == [40, 40]


def test_labels_are_what_the_class_says_and_no_more(release_4):
    rows = {row.image_id: row for row in read(release_4).rows}
    assert labels_of(rows["COVID-1.png"]) == {"COVID-19": 1}
    assert labels_of(rows["Lung_Opacity-1.png"]) == {"Pneumonia": 1, "COVID-19": 0}
    assert labels_of(rows["Viral Pneumonia-1.png"]) == {"Pneumonia": 1, "COVID-19": 0}
    assert labels_of(rows["Normal-1.png"]) == dict.fromkeys(FINDINGS, 0)


def test_notes_tell_the_origins_and_that_patients_are_unknown(release_4):
    table = read(release_4)
    assert any("no patient ids" in note for note in table.notes)
    assert "origins of the images: www.kaggle.com 24, sirm.org 12, unknown 12" in table.notes
    assert table.urls["Normal-3.png"] == RSNA


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("COVID-216.png", "COVID-216"),
        ("COVID-19(216)", "COVID-216"),
        ("COVID-19 (216)", "COVID-216"),
        ("COVID (216).png", "COVID-216"),
        ("covid(216).PNG", "COVID-216"),
        ("COVID-19", "COVID-19"),
        ("COVID-19.png", "COVID-19"),
        ("COVID-19(19)", "COVID-19"),
        ("COVID-1916", "COVID-1916"),
        ("NORMAL (1)", "Normal-1"),
        ("Viral Pneumonia-12", "Viral Pneumonia-12"),
        ("viral pneumonia (12)", "Viral Pneumonia-12"),
        ("Lung_Opacity-6012", "Lung_Opacity-6012"),
        ("COVID", None),
        ("COVID-1-2", None),
        ("NORMAL2-IM-1431-0001.png", None),
        ("COVID-99999999999999999999", None),
        ("COVID-\N{ARABIC-INDIC DIGIT ONE}", None),
    ],
)
def test_names_of_all_releases_meet_in_class_and_number(name, key):
    assert source.image_key(name) == key


@pytest.mark.parametrize(
    ("folder", "listed", "on_disk"),
    [
        ("COVID-19", "COVID-19(216)", "COVID-19(216).png"),
        ("COVID-19", "COVID-19 (216)", "COVID (216).png"),
        ("COVID", "COVID-19(216)", "COVID (216).png"),
        ("COVID/images", "covid-216", "COVID-216.png"),
    ],
)
def test_renamed_files_are_found_in_flat_and_nested_folders(tmp_path, folder, listed, on_disk):
    book = folder.partition("/")[0]
    workbook(tmp_path / f"{book}.metadata.xlsx", (listed, SIRM))
    image(tmp_path / folder / on_disk)
    collection = collect(tmp_path)
    assert [item.row.image_id for item in collection.items] == ["COVID-216.png"]
    assert collection.items[0].path == str(tmp_path / folder / on_disk)
    assert collection.missing == ()


def collect(raw):
    opened = source.Covid19Radiography(config=builder.UnsplitConfig())
    return opened.collect(raw)


def test_absent_unlisted_and_repeated_images_are_named(release_4):
    folder = release_4 / "COVID-19_Radiography_Dataset"
    (folder / "COVID/images/COVID-2.png").unlink()
    image(folder / "COVID/images/COVID-99.png")
    rows = [("COVID-1", SIRM), ("COVID-2", SIRM), ("covid (1)", SIRM)]
    workbook(folder / "COVID.metadata.xlsx", *rows)
    (folder / "Normal.metadata.xlsx").unlink()
    collection = collect(release_4)
    assert collection.missing == ("COVID-2.png",)
    notes = "\n".join(collection.notes)
    assert "1 rows are repetitions and count once: COVID-1.png" in notes
    assert "1 classes have no workbook and are left out: Normal" in notes
    assert "COVID-99.png" not in [item.row.image_id for item in collection.items]
    assert "images are in no workbook and are left out: " in notes


def test_a_formula_is_neither_computed_nor_taken_for_a_name(tmp_path):
    book = workbook(tmp_path / "COVID.metadata.xlsx", ('=CONCATENATE("COVID-","1")', SIRM))
    with pytest.raises(UserError, match=r"row 2: no FILE NAME"):
        read(book.parent)


def test_a_size_that_the_workbook_claims_is_not_believed(tmp_path):
    path = workbook(tmp_path / "COVID.metadata.xlsx", ("COVID-1", SIRM), ("COVID-2", SIRM))
    _replace_in_sheet(path, b'ref="A1:D3"', b'ref="A1"')
    assert [row.image_id for row in read(tmp_path).rows] == ["COVID-1.png", "COVID-2.png"]


def _replace_in_sheet(path, old, new):
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    assert old in parts[sheet]
    parts[sheet] = parts[sheet].replace(old, new)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([("COVID-1", SIRM)], ("NAME", "FORMAT", "SIZE", "URL"), "row 1: no column FILE NAME"),
        ([("COVID-1", SIRM)], ("FILE NAME", "FORMAT", "SIZE"), "row 1: no column URL"),
        ([("COVID-1", SIRM), ("Normal-1", RSNA)], HEADER,
         "row 3: 'Normal-1' is not an image of class"),
        ([("x-ray 1", SIRM)], HEADER, r"row 2: 'x-ray 1' .* expected .* COVID-1"),
        ([("", SIRM)], HEADER, "row 2: no FILE NAME"),
    ],
)
def test_a_wrong_workbook_is_named_with_its_row(tmp_path, rows, header, message):
    workbook(tmp_path / "COVID.metadata.xlsx", *rows, header=header)
    with pytest.raises(UserError, match=rf"COVID\.metadata\.xlsx: {message}"):
        read(tmp_path)


def test_no_workbook_at_all_says_what_is_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"no COVID\.metadata\.xlsx"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"no folder .*--raw"):
        read(tmp_path / "absent")


def test_a_malformed_url_counts_as_unknown(tmp_path):
    workbook(tmp_path / "COVID.metadata.xlsx", ("COVID-1", "http://[bad"), ("COVID-2", None))
    assert "origins of the images: unknown 2" in read(tmp_path).notes


def test_broken_workbooks_raise_only_user_errors(tmp_path):
    path = workbook(tmp_path / "COVID.metadata.xlsx", ("COVID-1", SIRM), ("COVID-2", SIRM))
    valid = path.read_bytes()

    def write_and_read(content):
        path.write_bytes(content)
        read(tmp_path)

    fuzz.assert_only_user_errors(write_and_read, valid, path.name)


@pytest.mark.parametrize(
    "sheet",
    [b"", b"<worksheet/>", b"<worksheet><sheetData><row><c t='s'><v>99</v></c></row></sheetData>",
     b'<!DOCTYPE x [<!ENTITY a "COVID-1">]><worksheet>&a;</worksheet>'],
)
def test_broken_sheets_in_a_sound_archive_raise_only_user_errors(tmp_path, sheet):
    path = workbook(tmp_path / "COVID.metadata.xlsx", ("COVID-1", SIRM))
    with zipfile.ZipFile(path) as archive:
        whole = archive.read("xl/worksheets/sheet1.xml")
    _replace_in_sheet(path, whole, sheet)
    with pytest.raises(UserError, match=path.name):
        read(tmp_path)
