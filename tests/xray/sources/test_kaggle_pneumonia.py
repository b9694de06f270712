"""Folders of normal films and films of pneumonia: splits, patients of names, second trees."""

import pytest

from jaxcxr.errors import UserError
from jaxcxr.xray.sources import kaggle_pneumonia
from tests.xray.sources import layouts

FILES = ("train/NORMAL/IM-0115-0001.jpeg", "train/NORMAL/IM-0115-0001-0002.jpeg",
         "train/PNEUMONIA/person1_bacteria_1.jpeg", "train/PNEUMONIA/person1_bacteria_2.jpeg",
         "train/PNEUMONIA/person1_virus_6.jpeg", "val/NORMAL/NORMAL2-IM-1427-0001.jpeg",
         "test/PNEUMONIA/BACTERIA-1008087-0001.jpeg", "test/NORMAL/film.jpeg")  # fmt: skip


@pytest.mark.parametrize(("name", "patient"), [
    ("person12_bacteria_46.jpeg", "person12_bacteria"),
    ("person12_virus_46.jpeg", "person12_virus"),
    ("IM-0115-0001.jpeg", "IM-0115"), ("IM-0033-0001-0002.jpeg", "IM-0033"),
    ("NORMAL2-IM-0427-0001.jpeg", "NORMAL2-IM-0427"),
    ("BACTERIA-1008087-0001.jpeg", "BACTERIA-1008087"), ("film.jpeg", ""),
])
def test_patients(name, patient):
    assert kaggle_pneumonia.patient_of(name) == patient


@pytest.mark.parametrize("base", ["", "chest_xray", "archive/chest_xray"])
def test_folders_are_splits_and_labels(tmp_path, capsys, base):
    root = tmp_path / "raw"
    for name in FILES:
        layouts.film(root / base / name)
        layouts.film(root / base / "chest_xray" / name)  # as in Kaggle's archive
    layouts.film(root / "__MACOSX" / base / FILES[0])
    rows = layouts.prepared("kaggle_pneumonia", root, tmp_path / "out")
    assert sorted(rows.image_id) == sorted(FILES)
    splits = dict(zip(rows.image_id.tolist(), rows.split.tolist(), strict=True))
    assert splits["val/NORMAL/NORMAL2-IM-1427-0001.jpeg"] == "validation"
    assert [list(splits.values()).count(s) for s in ("train", "validation", "test")] == [5, 1, 2]
    assert all(known == {"Pneumonia": int("PNEUMONIA" in name)}
               for name, known in layouts.labels(rows).items())
    assert len(set(rows.patient_id[rows.split == "train"])) == 3
    said = capsys.readouterr().err
    assert f"{len(FILES)} images are in a second tree of folders and left out" in said
    assert "1 images count as patients of their own" in said


def test_without_splits_patients_are_assigned(tmp_path):
    for i in range(40):
        layouts.film(tmp_path / f"raw/Normal/IM-{i // 2:04d}-000{i % 2}.jpeg")
        layouts.film(tmp_path / f"raw/Pneumonia/person{i // 2}_virus_{i}.jpeg")
    rows = layouts.prepared("kaggle_pneumonia", tmp_path / "raw", tmp_path / "out")
    assert set(rows.split) == {"train", "validation", "test"}
    together = {(str(p), str(s)) for p, s in zip(rows.patient_id, rows.split, strict=True)}
    assert len(together) == len(set(rows.patient_id)) == 40


def test_causes_may_have_folders_of_their_own(tmp_path):
    for name in ("train/NORMAL/IM-1-0001.jpeg", "train/PNEUMONIA/BACTERIA/person1_bacteria_1.jpeg",
                 "train/Pneumonia/viral/person2_virus_3.jpeg", "test/NORMAL/IM-2-0001.jpeg"):
        layouts.film(tmp_path / "raw" / name)
    rows = layouts.prepared("kaggle_pneumonia", tmp_path / "raw", tmp_path / "out",
                            val_fraction=0.0)
    assert sorted(rows.split) == ["test", "train", "train", "train"]
    assert sum(known["Pneumonia"] for known in layouts.labels(rows).values()) == 2


def test_no_such_folders(tmp_path):
    layouts.film(tmp_path / "raw/film.png")
    with pytest.raises(UserError, match="no images in folders NORMAL and PNEUMONIA"):
        layouts.prepared("kaggle_pneumonia", tmp_path / "raw", tmp_path / "out")


def test_miniature(shared_cases, tmp_path, capsys):
    raw = shared_cases / "cxr/external_layouts/kaggle"
    rows = layouts.prepared("kaggle_pneumonia", raw, tmp_path / "out")
    assert [int((rows.split == s).sum()) for s in ("train", "validation", "test")] == [32, 8, 16]
    assert "12 patients are in two of the published splits" in capsys.readouterr().err
