"""The ChestX-ray14 builder: finding images, encoding records, reading them back."""

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

SKIP = {"image": tfds.decode.SkipDecoding()}


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
    content = chestxray14.table.read(folder, 0.0)
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
