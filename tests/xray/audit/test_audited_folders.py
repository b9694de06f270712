"""Folders of images: copies across folders of splits, whatever their names, formats and depth."""

import pathlib
import shutil

import cv2
import numpy as np
import pytest

from jaxcxr.data import preparation
from jaxcxr.xray.audit import fingerprint_cache
from jaxcxr.xray.images import film_files, fingerprint


def film(seed, size=64):
    noise = np.random.default_rng(seed).normal(128, 60, (9, 9)).astype(np.float32)
    return np.clip(cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC), 0, 255
                   ).astype(np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.mark.parametrize(("train", "test"), [
    ("train/a.png", "test/b.png"),
    ("Training/sick/a.png", "TEST/sick/b.tif"),
    ("stage_2_train_images/a.bmp", "stage_2_test_images/x/b.png"),
])
def test_copies_across_folders_of_splits(train, test, tmp_path, run):
    folder = tmp_path / "films"
    for i in range(3):
        save(folder / train.replace("a.", f"{i}."), film(i))
        save(folder / test.replace("b.", f"{i + 3}."), film(i + 3))
    assert run(folder).code == 0
    save(folder / train, film(9))
    save(folder / test, film(9))
    near = film(2)
    near = cv2.imdecode(cv2.imencode(".jpg", near, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 0)
    save((folder / test).parent / "near.png", near)
    audited = run(folder)
    assert audited.code == 1
    same, = audited.found("identical_across_splits")
    assert same["items"] == [f"{train} = {test}"]
    alike, = audited.found("near_duplicate_across_splits")
    name = train.replace("a.", "2.")
    assert alike["items"][0].startswith(f"{name} ~ {pathlib.Path(test).parent}/near.png (r ")
    assert audited.table("films", "train")[1]["images"] == 4


def test_folders_of_splits_given_one_by_one(tmp_path, run):
    for split in ("train", "valid"):
        save(tmp_path / "set" / split / f"{split}.png", film(1))
    audited = run(tmp_path / "set" / "train", tmp_path / "set" / "valid")
    same, = audited.found("identical_across_splits")
    assert [side["split"] for side in same["between"]] == ["train", "validation"]


def test_the_cache_reads_only_what_changed(tmp_path, monkeypatch, cache):
    paths = [save(tmp_path / f"{i}.png", film(i)) for i in range(3)]
    read, asked = film_files.read_described, []

    def counted(path):
        asked.append(path.name)
        return read(path)

    monkeypatch.setattr(film_files, "read_described", counted)
    first = fingerprint_cache.of_files(paths, "films")
    assert sorted(asked) == ["0.png", "1.png", "2.png"]
    assert [seen.sha256 for seen in first] == [
        fingerprint.pixel_sha256(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)) for path in paths
    ]
    asked.clear()
    assert fingerprint_cache.of_files(paths, "films") == first
    assert asked == []
    save(paths[1], film(7, 80))
    changed = fingerprint_cache.of_files(paths, "films")
    assert asked == ["1.png"]
    assert [one == other for one, other in zip(first, changed, strict=True)] == [True, False, True]
    shutil.rmtree(cache)
    cache.write_text("no folder")  # nothing can be kept there
    assert fingerprint_cache.of_files(paths, "films") == changed


def test_files_that_cannot_be_read_are_named(tmp_path, run):
    folder = tmp_path / "films"
    for split in ("train", "test"):
        save(folder / split / f"{split}.png", film(len(split)))
    (folder / "train" / "broken.png").write_bytes(b"\x89PNG")
    audited = run(folder)
    assert audited.code == 0
    assert "1 images cannot be read: train/broken.png (" in audited.out
    assert "found by name only: films (1 images)" in " ".join(audited.out.split())


def test_a_table_with_its_images(tmp_path, run):
    for i, seed in enumerate((0, 1, 0)):
        save(tmp_path / "films" / "deep" / f"{i}.png", film(seed))
    (tmp_path / "a.csv").write_text("image,patient,split\n0.png,1,train\n1.png,2,val\n2.png,3,test")
    assert run(tmp_path / "a.csv").code == 0
    audited = run(tmp_path / "a.csv", "--images", tmp_path / "films")
    same, = audited.found("identical_across_splits")
    assert same["items"] == ["0.png = 2.png"]
    (tmp_path / "films" / "a.csv").write_text("x\n1\n")
    assert "a.csv not read; for labels, patients and splits give the table" in " ".join(
        run(tmp_path / "films").out.split())
    (tmp_path / "empty").mkdir()
    assert "no image in" in run(tmp_path / "a.csv", "--images", tmp_path / "empty").err


def test_patients_in_folders_and_no_pixels_where_not_wanted(tmp_path, run):
    for split in ("train", "test"):
        save(tmp_path / "films" / split / "patient7" / f"{split}.png", film(0))
    audited = run(tmp_path / "films", "--labels-only")
    assert audited.found("patient_in_two_splits")[0]["items"] == ["patient7"]
    assert audited.found("identical_across_splits") == []
    assert run(tmp_path / "films").found("identical_across_splits")[0]["count"] == 1


LAYOUTS = {
    "CheXpert-v1.0-small": ("chexpert", ("two_sexes", "identical_across_splits")),
    "mimic-cxr-jpg": ("mimic_cxr", ()),
    "kaggle": ("kaggle_pneumonia", ("patient_in_two_splits", "identical_across_splits")),
    "vindr": ("vindr_cxr", ("no_patients",)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts(layout, shared_cases, run):
    source, kinds = LAYOUTS[layout]
    audited = run(shared_cases / "cxr" / "external_layouts" / layout)
    assert audited.result["data_sets"][0]["name"] == source
    assert set(kinds) <= audited.kinds()
    assert audited.code == any("splits" in kind for kind in kinds)


@pytest.mark.parametrize("source", ["chexpert", "mimic_cxr"])
def test_a_prepared_set_is_its_raw_folder(source, shared_cases, tmp_path, run):
    layout = next(name for name, (known, _) in LAYOUTS.items() if known == source)
    raw = shared_cases / "cxr" / "external_layouts" / layout
    built = preparation.prepare(source, tmp_path / "out", raw=str(raw), size=32, workers=0)
    audited = run(raw, built.data_dir)
    beside = list(built.data_path.parent.iterdir())
    assert len(beside) > 1  # the lock too, which NAME/*/* lists
    assert run(*beside).result["data_sets"][0]["name"] == source
    names = [one["name"] for one in audited.result["data_sets"]]
    assert names == [source, f"{source} (2)"]
    within = audited.found("identical_within_split")
    between = [f for f in within if {s["data_set"] for s in f["between"]} == set(names)]
    # Each prepared image is found in the raw folder, as far as it is in the same split.
    prepared = sum(t["images"] for t in audited.result["tables"]
                   if t["data_set"] == names[1] and t["split"] != "all")
    assert sum(f["between"][1]["images"] for f in between) == prepared
