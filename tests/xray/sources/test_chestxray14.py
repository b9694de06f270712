"""ChestX-ray14: its table in all known forms, finding images, encoding records."""

import collections
import os
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxcxr.data import preparation
from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.errors import UserError
from jaxcxr.xray.images import image_files
from jaxcxr.xray.sources import builder as xray
from jaxcxr.xray.sources import chestxray14
from jaxcxr.xray.sources.builder import split_of
from tests.pose.sources import fuzz

SKIP = {"image": tfds.decode.SkipDecoding()}
# Published counts of the official test split (Data_Entry_2017_v2020.csv and test_list.txt).
OFFICIAL_TEST = {
    "Cardiomegaly": 1069, "Emphysema": 1093, "Effusion": 4658, "Hernia": 86, "Infiltration": 6112,
    "Mass": 1748, "Nodule": 1623, "Atelectasis": 3279, "Pneumothorax": 2665,
    "Pleural_Thickening": 1143, "Pneumonia": 555, "Fibrosis": 435, "Edema": 925,
    "Consolidation": 1815, "COVID-19": 0,
}
HEADER_V1 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
HEADER_KAGGLE = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImageWidth,OriginalImageHeight,OriginalImagePixelSpacing_x,OriginalImagePixelSpacing_y"
)
ROW = "00000003_000.png,Hernia,0,3,74,F,PA,2500,2048,0.168,0.168"



def _prepare(raw_data, tmp_path, **options):
    options = {"raw": str(raw_data.folder), "size": 32, "workers": 0, **options}
    return preparation.prepare("chestxray14", tmp_path / "out", **options)


def _records(builder, split):
    source = builder.as_data_source(split, decoders=SKIP)
    return {_text(record["image_id"]): record for record in source}


def _text(value):
    return value.decode() if isinstance(value, bytes) else value


def test_records_hold_what_the_table_says(raw_data, tmp_path):
    builder = _prepare(raw_data, tmp_path, val_fraction=0.0)
    assert set(builder.info.splits) == {"train", "test"}
    record = _records(builder, "train")["00000001_001.png"]
    assert _text(record["patient_id"]) == "00000001"
    assert (_text(record["view"]), _text(record["sex"]), record["age"]) == ("PA", "M", 58)
    assert record["original_size"].tolist() == [2729, 2894]
    assert record["labels"].dtype == np.int8
    positive = [f for f, label in zip(FINDINGS, record["labels"], strict=True) if label == 1]
    assert positive == ["Cardiomegaly", "Emphysema"]
    assert record["boxes"].shape == (0, 5)


def test_boxes_are_in_pixels_of_the_stored_image(raw_data, tmp_path):
    record = _records(_prepare(raw_data, tmp_path), "test")["00000003_000.png"]
    scale = 32 / 1024
    expected = [[FINDINGS.index("Infiltration"), *np.array([100.5, 200, 300, 400]) * scale]]
    np.testing.assert_allclose(record["boxes"], expected, rtol=1e-6)


@pytest.mark.parametrize("encoding", image_files.ENCODINGS)
def test_stored_image_is_resized_then_equalised(raw_data, tmp_path, encoding):
    record = _records(_prepare(raw_data, tmp_path, encoding=encoding), "test")["00000003_000.png"]
    with Image.open(raw_data.folder / "images_002/images/00000003_000.png") as picture:
        pixels = np.asarray(picture).reshape(32, 2, 32, 2).astype(float).mean(axis=(1, 3))
    stored = image_files.decode(record["image"]).astype(float)
    assert stored.shape == (32, 32)
    # Equalised: the ranks of the block means stay, their values spread over 0..255.
    ranks = pixels.ravel().argsort().argsort() / 1023
    assert np.abs(stored.ravel() / 255 - ranks).mean() < 0.02


@pytest.mark.parametrize("layout", ["images", "", "images_007"])
def test_images_are_found_in_every_layout(raw_data, layout):
    folder = raw_data.folder
    for path in folder.glob("images_*/images/*.png"):
        target = folder / layout / path.name
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    content = chestxray14.read_table(folder, 0.0)
    found = xray.by_split("", chestxray14.find_images(content, folder), allow_missing=False)
    assert {name: len(items) for name, items in found.items()} == {
        "train": 3, "validation": 0, "test": 1,
    }


def test_copies_with_another_ending_in_another_folder_are_found(raw_data, tmp_path):
    other = tmp_path / "copies"
    other.mkdir()
    for path in raw_data.folder.glob("images_*/images/*.png"):
        with Image.open(path) as picture:
            picture.save(other / f"{path.stem}.jpg")
        path.unlink()
    builder = _prepare(raw_data, tmp_path, images=str(other))
    assert sum(split.num_examples for split in builder.info.splits.values()) == 4


def test_absent_images_are_an_error_with_count_and_names(raw_data, tmp_path):
    (raw_data.folder / "images_001/images/00000001_000.png").unlink()
    with pytest.raises(UserError, match=r"1 of 4 .*: 00000001_000\.png\. .*--allow-missing"):
        _prepare(raw_data, tmp_path)


def test_allow_missing_prepares_what_is_there_and_says_so(raw_data, tmp_path, capsys):
    (raw_data.folder / "images_001/images/00000001_000.png").unlink()
    builder = _prepare(raw_data, tmp_path, allow_missing=True, val_fraction=0.0)
    assert builder.builder_config.name == "32_hist_png_val0_partial"
    assert builder.info.splits["train"].num_examples == 2
    assert "train 2, validation 0, test 1" in capsys.readouterr().err


def test_no_image_at_all_is_an_error_even_when_some_may_be_missing(raw_data, tmp_path):
    for path in raw_data.folder.glob("images_*/images/*.png"):
        path.unlink()
    with pytest.raises(UserError, match=r"none of the 4 listed images .*--images DIR"):
        _prepare(raw_data, tmp_path, allow_missing=True)


def test_broken_image_is_named_and_can_be_tolerated(raw_data, tmp_path, capsys):
    path = raw_data.folder / "images_001/images/00000001_000.png"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"1 bad records.*00000001_000\.png: .*--max-bad"):
        _prepare(raw_data, tmp_path)
    builder = _prepare(raw_data, tmp_path, max_bad=1)
    assert sum(split.num_examples for split in builder.info.splits.values()) == 3
    assert "00000001_000.png" in capsys.readouterr().err


def test_split_whose_images_are_all_bad_is_left_out(raw_data, tmp_path):
    (raw_data.folder / "images_002/images/00000003_000.png").write_bytes(b"broken")
    builder = _prepare(raw_data, tmp_path, max_bad=1, val_fraction=0.0)
    assert set(builder.info.splits) == {"train"}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("equalize", "histogram", "equalize is 'histogram'; allowed: hist, clahe, none"),
        ("encoding", "gif", "allowed: png, zstd, raw, jpeg"),
        ("size", 0, "size is 0; allowed: 16 to 4096"),
        ("val_fraction", 1.5, r"val_fraction is 1\.5"),
        ("max_bad", -1, "max_bad is -1"),
    ],
)
def test_impossible_options_say_what_is_allowed(option, value, message):
    with pytest.raises(UserError, match=message):
        chestxray14.ChestXray14Config(**{option: value})


def test_name_of_the_variant_tells_what_changes_the_records_and_nothing_else():
    config = chestxray14.ChestXray14Config
    assert config().name == config(raw="x", images="y", workers=3, max_bad=2).name
    assert config().name == "1024_hist_png"
    assert config(size=64, equalize="clahe", encoding="zstd").name == "64_clahe_zstd"


def test_real_images_land_in_their_official_splits(shared_data, tmp_path):
    raw = shared_data / "chestxray14"
    options = {"raw": str(raw), "size": 64, "allow_missing": True, "workers": 0}
    builder = preparation.prepare("chestxray14", tmp_path, **options)
    listed = set((raw / "test_list.txt").read_text().split())
    test = set(_records(builder, "test"))
    rest = {*_records(builder, "train"), *_records(builder, "validation")}
    on_disk = set(os.listdir(raw / "images_001/images"))
    assert test == on_disk & listed
    assert rest == on_disk - listed
    assert len(test) == 14


def test_real_copies_of_64_pixels_take_labels_and_lists_from_elsewhere(shared_data, tmp_path):
    folder = shared_data / "chestxray14_64/images"
    options = {"raw": str(shared_data / "chestxray14"), "images": str(folder), "size": 64}
    builder = preparation.prepare(
        "chestxray14", tmp_path, **options, equalize="none", allow_missing=True, workers=0
    )
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    assert counts == {"train": 647, "validation": 43, "test": 310}
    name, record = next(iter(_records(builder, "test").items()))
    with Image.open(pathlib.Path(folder, name)) as picture:
        gray = np.asarray(picture.convert("L"))
    np.testing.assert_array_equal(image_files.decode(record["image"]), gray)


@pytest.fixture(scope="module")
def official(shared_data):
    return chestxray14.read_table(shared_data / "chestxray14", val_fraction=0.125)


def _read(raw_data, val_fraction=0.5):
    content = chestxray14.read_table(raw_data.folder, val_fraction)
    return {row.image_id: row for row in content.rows}, content.notes


def test_official_test_split_has_the_published_counts(official):
    test = [row for row in official.rows if row.split == "test"]
    counts = np.sum([row.labels for row in test], axis=0)
    assert dict(zip(FINDINGS, counts.tolist(), strict=True)) == OFFICIAL_TEST
    assert sum(not any(row.labels) for row in test) == 9861
    assert len(test) == 25596
    assert len({row.patient_id for row in test}) == 2797


def test_official_table_is_complete_and_patient_disjoint(official):
    assert official.notes == ()
    assert len(official.rows) == 112120
    splits = collections.defaultdict(set)
    for row in official.rows:
        splits[row.split].add(row.patient_id)
    assert sum(map(len, splits.values())) == len(set().union(*splits.values())) == 30805
    share = len(splits["validation"]) / (30805 - 2797)
    assert share == pytest.approx(0.125, abs=0.01)


def test_official_csv_has_its_published_counts(official):
    counts = np.sum([row.labels for row in official.rows], axis=0)
    assert dict(zip(FINDINGS, counts.tolist(), strict=True)) == {
        "Infiltration": 19894, "Effusion": 13317, "Atelectasis": 11559, "Nodule": 6331,
        "Mass": 5782, "Pneumothorax": 5302, "Consolidation": 4667, "Pleural_Thickening": 3385,
        "Cardiomegaly": 2776, "Emphysema": 2516, "Edema": 2303, "Fibrosis": 1686,
        "Pneumonia": 1431, "Hernia": 227, "COVID-19": 0,
    }
    assert sum(not any(row.labels) for row in official.rows) == 60361
    images = collections.Counter(row.patient_id for row in official.rows)
    assert max(images.values()) == 184


def test_official_views_sexes_and_boxes(official):
    views = collections.Counter(row.view for row in official.rows)
    sexes = collections.Counter(row.sex for row in official.rows)
    assert views == {"PA": 67310, "AP": 44810}
    assert sexes == {"M": 63340, "F": 48780}
    boxed = [row for row in official.rows if row.boxes]
    assert len(boxed) == 880
    assert sum(len(row.boxes) for row in boxed) == 984
    assert {row.split for row in boxed} == {"test"}


def test_row_of_the_2020_csv(raw_data):
    rows, notes = _read(raw_data)
    row = rows["00000001_001.png"]
    assert notes == ()
    assert [f for f, label in zip(FINDINGS, row.labels, strict=True) if label] == [
        "Cardiomegaly", "Emphysema",
    ]
    assert (row.patient_id, row.sex, row.view, row.age) == ("00000001", "M", "PA", 58)
    assert row.original_size == (2729, 2894)
    assert set(rows["00000002_000.png"].labels) == {0}


def test_infiltrate_box_belongs_to_infiltration(raw_data):
    rows, _ = _read(raw_data)
    index = FINDINGS.index("Infiltration")
    assert rows["00000003_000.png"].boxes == ((float(index), 100.5, 200.0, 300.0, 400.0),)
    assert rows["00000001_000.png"].boxes == ()


@pytest.mark.parametrize(
    ("header", "row"),
    [
        (HEADER_V1, ROW + ","),
        (HEADER_V1, ROW),
        (HEADER_V1.rstrip(",").replace("Gender", "Sex"), ROW),
        (HEADER_KAGGLE, ROW.replace(",74,", ",074Y,")),
        ("\ufeff" + HEADER_V1, ROW + ","),
    ],
    ids=["v1", "v1 without the last comma", "Patient Sex", "Kaggle sample", "byte order mark"],
)
def test_header_variants_give_the_same_row(raw_data, header, row):
    raw_data.table(header, row)
    rows, _ = _read(raw_data)
    read = rows["00000003_000.png"]
    assert (read.sex, read.view, read.age, read.original_size) == ("F", "PA", 74, (2048, 2500))
    assert read.labels[FINDINGS.index("Hernia")] == 1
    assert sum(read.labels) == 1


def test_validation_is_by_patient_and_does_not_depend_on_the_others(raw_data):
    many = [f"{p:08d}_{i:03d}.png" for p in range(100, 300) for i in range(2)]
    rows = [f"{name},No Finding,0,{int(name[:8])},50,M,PA,9,9,1,1" for name in many]
    raw_data.table(HEADER_V1, *rows)
    raw_data.lists(many, ["00000003_000.png"])
    whole, _ = _read(raw_data, 0.25)
    by_patient = collections.defaultdict(set)
    for row in whole.values():
        by_patient[row.patient_id].add(row.split)
    assert all(len(splits) == 1 for splits in by_patient.values())
    held_out = sum(splits == {"validation"} for splits in by_patient.values())
    assert 0.15 < held_out / len(by_patient) < 0.35
    raw_data.table(HEADER_V1, *rows[:50])
    part, _ = _read(raw_data, 0.25)
    assert all(whole[name].split == row.split for name, row in part.items())


def test_the_hash_of_the_patient_never_changes():
    chosen = [p for p in range(40) if split_of(f"{p:08d}", 0.125) == "validation"]
    # `printf 00000022 | sha256sum` begins with a digit under 2, as an eighth of all do.
    assert chosen == [22, 34, 38]
    tested = [p for p in range(40) if split_of(f"{p:08d}", 0.125, 0.2) == "test"]
    assert tested
    assert not set(tested) & set(chosen)
    assert not any(split_of(f"{p:08d}", 0.0) == "validation" for p in range(40))


def test_unlisted_repeated_and_rowless_images_are_noted_and_left_out(raw_data):
    raw_data.table(HEADER_V1, ROW, ROW, ROW.replace("00000003_000", "00000009_000"))
    rows, notes = _read(raw_data)
    assert list(rows) == ["00000003_000.png"]
    text = "\n".join(notes)
    assert "1 rows of Data_Entry_2017_v2020.csv are in no split list" in text
    assert "00000009_000.png" in text
    assert "1 rows of Data_Entry_2017_v2020.csv are repetitions" in text
    assert "3 listed images have no row" in text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((HEADER_V1, ROW, ROW.replace("Hernia", "Mass")), "csv:3: a second row"),
        ((HEADER_V1, ROW.replace("Hernia", "Broken Rib")), "csv:2: 'Broken Rib' is not made of"),
        ((HEADER_V1, ROW.replace("Hernia", "No Finding|Mass")), r"No Finding\|Mass"),
        (("Image,Labels", "a,b"), "no column 'Image Index'.*among Image, Labels"),
        ((HEADER_V1, ROW.replace("00000003_000", "00000077_000")), "is in the split lists"),
    ],
)
def test_impossible_tables_are_refused(raw_data, lines, message):
    raw_data.table(*lines)
    with pytest.raises(UserError, match=message):
        _read(raw_data)


def test_an_image_or_a_patient_in_both_lists_is_refused(raw_data):
    raw_data.lists(["00000003_000.png"], ["00000003_000.png"])
    with pytest.raises(UserError, match=r"00000003_000\.png is in the train_val list too"):
        _read(raw_data)
    raw_data.lists(["00000001_000.png"], ["00000001_001.png"])
    with pytest.raises(UserError, match=r"1 patients are in both split lists.*: 00000001") as e:
        _read(raw_data)
    for name in ("Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt"):
        assert str(raw_data.folder / name) in str(e.value)


@pytest.mark.parametrize(
    "name", ["train_val_list.txt", "test_list.txt", "Data_Entry_2017_v2020.csv"]
)
def test_absent_file_is_named_with_the_folder(raw_data, name):
    (raw_data.folder / name).unlink()
    with pytest.raises(UserError, match=f"there is no .*{name}.* in {raw_data.folder}"):
        _read(raw_data)


def test_boxes_may_be_absent_but_not_malformed(raw_data):
    header = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
    raw_data.write("BBox_List_2017.csv", header, "a,Mass,1,2")
    with pytest.raises(UserError, match=r"BBox_List_2017\.csv:2"):
        _read(raw_data)
    (raw_data.folder / "BBox_List_2017.csv").unlink()
    rows, _ = _read(raw_data)
    assert not any(row.boxes for row in rows.values())


@pytest.mark.parametrize(
    "name", ["Data_Entry_2017_v2020.csv", "train_val_list.txt", "BBox_List_2017.csv"]
)
def test_damaged_files_give_user_errors_that_name_them_or_their_folder(raw_data, name):
    path = raw_data.folder / name

    def write_and_read(content):
        path.write_bytes(content)
        chestxray14.read_table(raw_data.folder, 0.5)

    named = name if name.endswith(".csv") else "raw"
    fuzz.assert_only_user_errors(write_and_read, path.read_bytes(), named, examples=150)
