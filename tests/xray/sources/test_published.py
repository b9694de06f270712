"""Published data sets as a whole: recognised by their tables, files found by the ends of paths."""

import pytest

from jaxcxr.data import preparation
from jaxcxr.errors import UserError
from jaxcxr.xray.audit import audited_files
from jaxcxr.xray.sources import published, published_files
from tests.xray.sources import layouts

# Images, and patients: VinDr names none, so that an audit has one that is unknown.
MINIATURES = {
    "CheXpert-v1.0-small": ("chexpert", 18, 9), "mimic-cxr-jpg": ("mimic_cxr", 10, 4),
    "padchest": ("padchest", 8, 4), "vindr": ("vindr_cxr", 5, 1),
    "vindr_kaggle": ("vindr_cxr", 5, 1), "openi": ("open_i", 3, 2),
    "kaggle": ("kaggle_pneumonia", 56, 24),
}


@pytest.mark.parametrize("folder", MINIATURES)
def test_folders_are_recognised_and_audited(shared_cases, folder):
    name, images, patients = MINIATURES[folder]
    (found,) = audited_files.load([shared_cases / "cxr/external_layouts" / folder])
    assert found.name == name
    assert len(found.rows) == images
    assert len(set(found.rows.patient_id)) == patients
    splits = {"openi": {"all"}, "padchest": {"all"}, "vindr": {"train"}, "vindr_kaggle": {"all"},
              "CheXpert-v1.0-small": {"train", "validation"}}
    assert set(found.rows.split) == splits.get(folder, {"train", "validation", "test"})


def test_other_folders_are_not(tmp_path):
    layouts.text(tmp_path / "train.csv", "image,Mass", "a.png,1")
    assert published.recognised(tmp_path) is None


def test_files_are_found_by_the_ends_of_their_paths(tmp_path):
    for name in ("one/p1/a.png", "two/p2/a.png", "two/p2/b.jpeg", "c.dcm.png", "a.png.txt"):
        layouts.text(tmp_path / name, "x")
    files = published_files.Files.below(tmp_path)
    found = files.find(["p1/a.jpg", "p2/a.png", "p2/b.png", "p3/a.png"])
    assert found == [tmp_path / "one/p1/a.png", tmp_path / "two/p2/a.png",
                     tmp_path / "two/p2/b.jpeg", None]
    assert files.find(["c", "c.png"]) == [tmp_path / "c.dcm.png"] * 2
    with pytest.raises(UserError, match=r"one/p1/a\.png and two/p2/a\.png both fit a\.png"):
        files.find(["a.png"])


def test_tables_are_found_nearest_to_the_root_and_gzipped(tmp_path):
    layouts.text(tmp_path / "x/y/Train.csv", "far")
    layouts.text(tmp_path / "x/train.csv.gz", "near", zipped=True)
    files = published_files.Files.below(tmp_path)
    assert files.table(["valid.csv", "train.csv"]) == tmp_path / "x/train.csv.gz"
    assert files.table(["*rain.csv"]) == tmp_path / "x/train.csv.gz"
    assert files.table(["test.csv"]) is None
    with pytest.raises(UserError, match=r"no test\.csv in it or a folder of it"):
        files.needed_table(["test.csv"], "test.csv")
    layouts.text(tmp_path / "z/train.csv", "near too")
    with pytest.raises(UserError, match=r"several tables train\.csv: x/train\.csv\.gz, z/"):
        published_files.Files.below(tmp_path).table(["train.csv"])


def test_a_table_of_another_data_set_is_not_taken(tmp_path):
    layouts.text(tmp_path / "a/train.csv", "image_id,class_name", "x,Mass")
    layouts.text(tmp_path / "b/train.csv.gz", '"Path";"Sex"', "x;F", zipped=True)
    files = published_files.Files.below(tmp_path)
    assert files.table(["train.csv"], ["path"]) == tmp_path / "b/train.csv.gz"
    assert files.table(["train.csv"], ["class_name"]) == tmp_path / "a/train.csv"
    assert files.table(["train.csv"], ["Study"]) is None


def test_the_folder_above_several_data_sets_serves_each(shared_cases, tmp_path):
    raw = shared_cases / "cxr/external_layouts"
    for name, images in (("chexpert", 18), ("mimic_cxr", 6), ("kaggle_pneumonia", 56)):
        assert len(layouts.prepared(name, raw, tmp_path / "out")) == images


@pytest.mark.parametrize("cell", ["1", "1.0", "1.00", " 1"])
def test_numbers_of_labels(cell):
    assert published.labels_of({"Mass": cell.strip()}, ["Mass"], "file:1") == {"Mass": 1}


def test_dry_run_prints_and_writes_nothing(shared_cases, tmp_path, capsys):
    raw = shared_cases / "cxr/external_layouts/padchest"
    preparation.preview("padchest", tmp_path / "out", raw=str(raw), schema="chestxray14")
    said = capsys.readouterr().out
    assert "8 images of 4 patients, labels as published" in " ".join(said.split())
    assert not list((tmp_path / "out").rglob("*.array_record*"))
