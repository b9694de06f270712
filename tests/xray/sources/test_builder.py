"""What radiograph sources share: splits by patient, names of variants, absent images, records."""

import collections
import dataclasses
import pathlib

import cv2
import numpy as np
import pytest

from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.errors import UserError
from jaxcxr.xray.images import fingerprint, image_files
from jaxcxr.xray.sources import builder


@dataclasses.dataclass(eq=False)
class Config(builder.UnsplitConfig):
    """Options of a made-up source."""

    views: tuple[str, ...] = ("PA",)
    fold: int = 0
    map: str = dataclasses.field(default="", metadata=builder.RUN_ONLY)


def row(**changes):
    labels = tuple(int(i == 5) for i in range(len(FINDINGS)))
    values = {"image_id": "a.png", "patient_id": "made_up/1", "source": "made_up",
              "split": "train", "labels": labels}
    return builder.ImageRecord(**{**values, **changes})


def test_the_shares_of_the_splits_are_those_asked_for():
    patients = [f"made_up/{i}" for i in range(4000)]
    found = collections.Counter(builder.split_of(p, 0.125, 0.2) for p in patients)
    for split, share in {"train": 0.675, "validation": 0.125, "test": 0.2}.items():
        assert found[split] / 4000 == pytest.approx(share, abs=0.025)


def test_a_patient_stays_in_its_split_when_another_share_changes():
    patients = [f"made_up/{i}" for i in range(300)]
    for patient in patients:
        with_test = builder.split_of(patient, 0.2, 0.2)
        assert (with_test == "validation") == (builder.split_of(patient, 0.2) == "validation")
        assert (with_test == "test") == (builder.split_of(patient, 0.0, 0.2) == "test")
        assert builder.split_of(patient, 0.0) == "train"


def test_the_variant_is_named_after_what_changes_the_records():
    assert Config().name == Config(raw="x", map="y", workers=3, max_bad=1).name == "1024_hist_png"
    config = Config(size=64, equalize="none", encoding="raw", val_fraction=0.1, test_fraction=0.5,
                    views=("PA", "L"), fold=3, allow_missing=True)
    assert config.name == "64_none_raw_val0.1_test-fraction-0.5_views-PA-L_fold-3_partial"


@pytest.mark.parametrize(("options", "words"), [
    ({"test_fraction": 0.95}, r"test_fraction is 0\.95; allowed: 0\.0 to 0\.9"),
    ({"val_fraction": 0.6, "test_fraction": 0.5}, r"0\.6 and test_fraction 0\.5 leave nothing"),
    ({"encoding": "gif"}, "encoding is 'gif'; allowed: png"),
])
def test_impossible_options_say_what_is_allowed(options, words):
    with pytest.raises(UserError, match=words):
        Config(**options)


def test_images_are_sorted_into_their_splits_and_notes_are_said(capsys):
    items = tuple(
        builder.Item(row(image_id=f"{i}.png", split=split), "path", 1)
        for i, split in enumerate(("test", "train", "test"))
    )
    collection = builder.Collection(items, notes=builder.note(["x", "y"], "rows are odd"))
    found = builder.by_split("made_up", collection, allow_missing=False)
    assert {name: [item.row.image_id for item in part] for name, part in found.items()} == {
        "train": ["1.png"], "validation": [], "test": ["0.png", "2.png"],
    }
    assert "made_up: 2 rows are odd: x, y" in capsys.readouterr().err


def test_absent_images_are_an_error_unless_they_may_be(capsys):
    items = (builder.Item(row(), "path", 1),)
    collection = builder.Collection(items, missing=tuple(f"{i}.png" for i in range(7)))
    with pytest.raises(UserError, match=r"7 of 8 .*: 0\.png, .*4\.png, \.\.\.\. .*--allow-missing"):
        builder.by_split("made_up", collection, allow_missing=False)
    builder.by_split("made_up", collection, allow_missing=True)
    assert "Prepared is what is there: train 1, validation 0, test 0" in capsys.readouterr().err


def test_no_image_at_all_is_an_error():
    with pytest.raises(UserError, match=r"none of the 2 listed images .*: a, b\. .*--raw"):
        builder.by_split("made_up", builder.Collection((), missing=("a", "b")), allow_missing=True)


def test_of_two_files_with_one_name_the_first_folder_counts(tmp_path):
    for name in ("one/a.png", "two/a.png", "two/b.jpg", "two/deeper/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    folders = [tmp_path / name for name in ("one", "none", "two")]
    found = builder.files_by_name(folders)
    assert found == {"a.png": tmp_path / "one/a.png", "b.jpg": tmp_path / "two/b.jpg"}
    assert set(builder.files_by_name(folders, endings=False)) == {"a", "b"}


def test_paths_that_cannot_be_are_said_to(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert builder.given_path("raw", "~/films") == tmp_path / "films"
    for text, reason in (("~nobody-at-all/films", "no such home folder"), ("a" * 300, "too long")):
        with pytest.raises(UserError, match=f"--raw {text} cannot be read: .*{reason}"):
            builder.given_path("raw", text)


def encoded(tmp_path, **changes):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 80), np.uint8)
    path = pathlib.Path(tmp_path, "a.png")
    cv2.imwrite(str(path), pixels)
    item = builder.Item.of(row(**changes), path)
    return pixels, *builder.encode(item, size=16, equalize="none", encoding="png").popitem()


def test_a_record_has_fingerprints_of_the_pixels_before_they_are_resized(tmp_path):
    pixels, key, record = encoded(tmp_path)
    assert key == "made_up/a.png"
    assert record["sha256"] == fingerprint.pixel_sha256(pixels)
    assert int(record["phash"]) % 2**64 == fingerprint.perceptual_hash(pixels)
    assert record["original_size"].tolist() == [40, 80]
    stored = image_files.decode(record["image"])
    np.testing.assert_array_equal(stored, image_files.resize(pixels, 16))


def test_boxes_are_scaled_from_the_size_in_which_they_are_given(tmp_path):
    boxes = ((5.0, 8.0, 4.0, 40.0, 20.0),)
    _, _, record = encoded(tmp_path, boxes=boxes)  # of the file: 40 x 80
    np.testing.assert_allclose(record["boxes"], [[5, 1.6, 1.6, 8, 8]], rtol=1e-6)
    _, _, record = encoded(tmp_path, boxes=boxes, box_size=(400, 160), original_size=(9, 8))
    np.testing.assert_allclose(record["boxes"], [[5, 0.8, 0.16, 4, 0.8]], rtol=1e-6)
    assert record["original_size"].tolist() == [9, 8]
