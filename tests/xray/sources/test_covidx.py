"""COVIDx: images of the lists, found in the folders of their sources."""

import collections
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxcxr.data import preparation
from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import builder as xray
from jaxcxr.xray.sources import covidx
from tests.xray.images import dicoms

UUID = "47c78742-4998-4878-aec4-37b11b1354ac"
STONY = "A441566-01-04-1901-NA-CHEST_AP_VIEWONLY-03673-3.000000-AP-23690-1-1.jpg"
TRAIN = (
    "2 auntminnie-a.jpeg positive cohen",
    "COVID-00015a COVID-00015a.png positive fig1",
    "COVID 216 COVID(216).png positive sirm",
    f"A441566 {STONY} positive stonybrook",
    "S03132 sub-S03132_ses-E06429_run-1_bp-chest_vp-pa_dx-corrected.png positive bimcv",
)
TEST = (
    "ANON191 CR.1.2.840.png negative actmed",
    f"{UUID} {UUID}.png negative rnsa",
    "419639-003251 MIDRC-RICORD-1C-419639-003251-46647-0.png positive ricord",
)
COHEN = (
    "patientid,offset,sex,age,finding,view,modality,folder,filename",
    "2,0,M,35,Pneumonia/Viral/COVID-19,PA,X-ray,images,auntminnie-a.jpeg",
)
SKIP = {"image": tfds.decode.SkipDecoding()}


def image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 200, (40, 40), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def raw(tmp_path):
    """One image of each of the eight sources, where that source keeps it."""
    raw = tmp_path / "raw"
    write(raw / "labels/train_COVIDx9B.txt", *TRAIN)
    write(raw / "labels/test_COVIDx9B.txt", *TEST)
    image(raw / "covid_chestxray/images/auntminnie-a.jpeg", 1)
    write(raw / "covid_chestxray/metadata.csv", *COHEN)
    image(raw / "figure1/images/COVID-00015a.png", 2)
    image(raw / "covid19_radiography/COVID-19/COVID (216).png", 3)
    image(raw / "stonybrook" / STONY, 4)
    image(raw / "bimcv" / TRAIN[4].split()[1], 5)
    image(raw / "actualmed/images/CR.1.2.840.png", 6)
    image(raw / "ricord/images/MIDRC-RICORD-1C-419639-003251-46647-0.png", 7)
    folder = raw / "rsna_pneumonia/stage_2_train_images"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(8).integers(0, 200, (40, 40), dtype=np.uint8)
    dicoms.saved(folder, dicoms.radiograph(pixels, ViewPosition="AP"), f"{UUID}.dcm")
    return raw


def collect(raw, **options):
    return covidx.Covidx(config=covidx.CovidxConfig(**options)).collect(raw)


def rows_by_source(collection):
    return {item.row.source: item.row for item in collection.items}


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def test_all_sources_are_prepared_in_the_published_split(raw, tmp_path):
    builder = preparation.prepare(
        "covidx", tmp_path / "out", raw=str(raw), size=32, workers=0, val_fraction=0.0
    )
    covid = FINDINGS.index("COVID-19")
    found = collections.defaultdict(dict)
    for split in builder.info.splits:
        for record in builder.as_data_source(split, decoders=SKIP):
            found[split][text(record["source"])] = record
            assert set(np.delete(record["labels"], covid)) == {-1}
    assert {name: record["labels"][covid] for name, record in found["train"].items()} == {
        "covid_chestxray": 1, "figure1": 1, "covid19_radiography": 1, "stonybrook": 1, "bimcv": 1,
    }
    assert {name: record["labels"][covid] for name, record in found["test"].items()} == {
        "actualmed": 0, "rsna_pneumonia": 0, "ricord": 1,
    }
    assert text(found["train"]["covid19_radiography"]["image_id"]) == "COVID(216).png"


def test_view_sex_and_age_are_the_sources_own(raw):
    rows = rows_by_source(collect(raw))
    seen = {name: (row.view, row.sex, row.age) for name, row in rows.items()}
    assert seen["covid_chestxray"] == ("PA", "M", 35)
    assert seen["rsna_pneumonia"] == ("AP", "F", 57)
    assert seen["stonybrook"] == ("AP", "", -1)
    assert seen["bimcv"] == ("PA", "", -1)
    assert seen["figure1"] == ("", "", -1)


def test_names_that_differ_in_the_ending_alone_are_described_each_for_itself(raw):
    lines = [f"2,0,{sex},40,COVID-19,PA,X-ray,images,000004.{end}"
             for sex, end in (("M", "jpg"), ("F", "png"))]
    write(raw / "covid_chestxray/metadata.csv", COHEN[0], *lines)
    listed = ["2 000004.png positive cohen", "2 000004.jpg positive cohen"]
    write(raw / "labels/train_COVIDx9B.txt", *listed)
    rows = covidx.read_table(raw, "9B", 0.0).rows
    assert [(row.image_id, row.sex) for row in rows[:2]] == [
        ("000004.png", "F"), ("000004.jpg", "M"),
    ]


def test_patients_whom_a_list_takes_for_one_are_told_apart_before_the_split(raw):
    table = [COHEN[0]]
    lines = []
    for i in range(40):
        table.append(f"62,0,{'FM'[i % 2]},{30 + i % 2},COVID-19,PA,X-ray,images,{i}.jpg")
        lines.append(f"62 {i}.jpg positive cohen")
    write(raw / "covid_chestxray/metadata.csv", *table)
    write(raw / "labels/train_COVIDx9B.txt", *lines)
    rows = covidx.read_table(raw, "9B", 0.5).rows
    splits = collections.defaultdict(set)
    for row in rows:
        if row.split != "test":
            splits[row.patient_id].add(row.split)
    assert len(splits) == 2
    assert all(len(found) == 1 for found in splits.values())


def test_absent_images_are_reported_source_by_source(raw, tmp_path):
    (raw / "figure1/images/COVID-00015a.png").unlink()
    for path in sorted((raw / "ricord").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (raw / "ricord").rmdir()
    collection = collect(raw)
    assert sorted(collection.missing) == [
        "figure1/COVID-00015a.png", "ricord/MIDRC-RICORD-1C-419639-003251-46647-0.png",
    ]
    notes = "\n".join(collection.notes)
    assert f"1 listed images are not in {raw / 'figure1'}: COVID-00015a.png" in notes
    assert f"1 listed images are not in {raw / 'ricord'}, a folder that is not there" in notes
    with pytest.raises(UserError, match=r"2 of 8 listed images are absent.*--allow-missing"):
        preparation.prepare("covidx", tmp_path / "out", raw=str(raw), size=32, workers=0)
    builder = preparation.prepare(
        "covidx", tmp_path / "out", raw=str(raw), size=32, workers=0, allow_missing=True
    )
    written = pathlib.Path(builder.data_dir, xray.MISSING).read_text(encoding="utf-8")
    assert written.splitlines() == list(collection.missing)


def test_a_file_of_the_same_name_but_another_ending_is_another_image(raw):
    path = raw / "covid_chestxray/images/auntminnie-a.jpeg"
    path.rename(path.with_suffix(".png"))
    assert collect(raw).missing == ("covid_chestxray/auntminnie-a.jpeg",)


def test_a_source_with_a_broken_table_still_gives_its_images_and_says_so(raw):
    write(raw / "covid_chestxray/metadata.csv", "nothing")
    collection = collect(raw)
    assert collection.missing == ()
    fact = "covid_chestxray: view, sex and age are unknown: "
    assert any(note.startswith(fact) and "metadata.csv" in note for note in collection.notes)


def test_the_prebuilt_data_set_has_its_images_under_their_listed_names(tmp_path):
    raw = tmp_path / "raw"
    write(raw / "train.txt", *TRAIN)
    write(raw / "val.txt", TEST[0])
    write(raw / "test.txt", *TEST[1:])
    for split, lines in (("train", TRAIN), ("val", TEST[:1]), ("test", TEST[1:])):
        for line in lines:
            image(raw / split / line.split()[-3])
    collection = collect(raw, list_version="Kaggle")
    assert collection.missing == ()
    assert collections.Counter(item.row.split for item in collection.items) == {
        "train": 5, "validation": 1, "test": 2,
    }


@pytest.mark.parametrize(
    ("version", "train", "test"),
    [
        ("8a", "train_COVIDx8A.txt", "test_COVIDx8A.txt"),
        ("CXR-3A", "train_COVIDx_CXR-3A.txt", "test_COVIDx_CXR-3A.txt"),
        ("1", "train_COVIDx.txt", "test_COVIDx.txt"),
        ("2", "train_split_v2.txt", "test_COVIDx2.txt"),
    ],
)
def test_lists_are_found_under_all_their_names(tmp_path, version, train, test):
    write(tmp_path / train, *TRAIN)
    write(tmp_path / "labels" / test, *TEST)
    version = covidx.CovidxConfig(list_version=version).list_version
    assert len(covidx.read_table(tmp_path, version, 0.0).rows) == 8


def test_absent_lists_are_an_error_that_tells_which_there_are(raw):
    with pytest.raises(UserError, match=r"train_COVIDx8A\.txt .*there are test_COVIDx9B\.txt"):
        collect(raw, list_version="8A")
    with pytest.raises(UserError, match=r"list_version is '\.\./9B'"):
        covidx.CovidxConfig(list_version="../9B")


def test_the_version_names_the_variant():
    assert covidx.CovidxConfig().name == "1024_hist_png"
    assert covidx.CovidxConfig(list_version="9a").name == "1024_hist_png_list-version-9A"


def test_published_lists_without_any_image_name_all_of_them_as_absent(shared_data):
    collection = collect(shared_data / "covidx", list_version="9A")
    assert len(collection.missing) == 30_530
    assert any(note.startswith("14132 listed images are not in ") for note in collection.notes)
