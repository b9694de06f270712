"""Composed data sets: classes, unknown labels, copies across sets, parts of every kind."""

import pathlib

import numpy as np
import pytest

from jaxcxr.data import preparation, vocabulary
from jaxcxr.errors import UserError
from jaxcxr.xray.images import image_files, manifest, radiographs
from tests.xray.sources import layouts


@pytest.fixture
def folders(tmp_path):
    """Two data sets that share a film: of a training patient here, of a test patient there."""
    one, other = tmp_path / "kaggle", tmp_path / "padchest"
    for i in range(6):
        folder = ("train", "train", "train", "val", "test", "test")[i]
        layouts.film(one / f"{folder}/PNEUMONIA/person{i}_virus_{i}.png", seed=i)
    rows = [f"x{i}.png,p{i // 2},PA,['pleural effusion']" for i in range(8)]
    layouts.text(other / "padchest.csv", "ImageID,PatientID,Projection,Labels", *rows)
    for i in range(8):
        layouts.film(other / f"x{i}.png", seed=4 if i == 2 else 100 + i)
    return {"kaggle_pneumonia": one, "padchest": other}


def composed(folders, out, parts=None, **options):
    parts = parts or [f"{name}={folder}" for name, folder in folders.items()]
    options = {"val_fraction": 0.0, "test_fraction": 0.0, **options}
    return layouts.prepared("compose", None, out, parts=tuple(parts), **options)


def test_findings_that_a_set_was_not_read_for_are_unknown(folders, tmp_path):
    rows = composed(folders, tmp_path / "out")
    assert rows.classes == vocabulary.SCHEMAS["union"]
    found = layouts.labels(rows)
    assert found["train/PNEUMONIA/person0_virus_0.png"] == {"Pneumonia": 1}
    assert found["x0.png"]["Effusion"] == 1
    assert found["x0.png"]["Pneumonia"] == 0
    assert "Lung Opacity" not in found["x0.png"]
    assert "COVID-19" not in found["x0.png"]


def test_copies_and_their_patients_leave_the_training_split(folders, tmp_path, capsys):
    rows = composed(folders, tmp_path / "out")
    # x2 is person4's film of the test split, so p1 is person4, and x3 may not be trained on.
    assert not {"x2.png", "x3.png"} & set(rows.image_id.tolist())
    assert {"x0.png", "x1.png", "x4.png"} <= set(rows.image_id.tolist())
    assert "test/PNEUMONIA/person4_virus_4.png" in rows.image_id
    assert len(set(rows.sha256)) == len(rows) == 6 + 8 - 2
    said = capsys.readouterr().err
    assert "1 images have the pixels of one in another data set or split: padchest/x2.png" in said
    assert "1 images are of people whom such copies show in another split: padchest/x3.png" in said


def test_copies_within_a_set_leave_the_training_split_too(folders, tmp_path):
    layouts.film(folders["kaggle_pneumonia"] / "train/NORMAL/IM-1-0001.png", seed=5)  # person5
    layouts.film(folders["kaggle_pneumonia"] / "train/NORMAL/IM-2-0001.png", seed=0)  # person0
    ids = composed(folders, tmp_path / "out").image_id
    assert "train/NORMAL/IM-1-0001.png" not in ids
    assert {"train/NORMAL/IM-2-0001.png", "train/PNEUMONIA/person0_virus_0.png"} <= set(ids)


def test_of_copies_in_one_split_the_first_named_set_keeps_its_own(folders, tmp_path):
    layouts.film(folders["padchest"] / "x5.png", seed=0)  # person0 of the training split
    parts = [f"{name}={folder}" for name, folder in folders.items()]
    assert "x5.png" not in composed(folders, tmp_path / "one", parts).image_id
    assert "x5.png" in composed(folders, tmp_path / "other", parts[::-1]).image_id


def test_raw_and_prepared_parts_give_the_same_records(folders, tmp_path):
    raw = composed(folders, tmp_path / "raw", equalize="hist")
    for name, folder in folders.items():
        preparation.prepare(name, tmp_path / "parts", raw=str(folder), size=32, workers=0,
                            equalize="none", val_fraction=0.0, test_fraction=0.0, encoding="raw")
    made = [str(p.parent) for p in sorted((tmp_path / "parts").rglob(manifest.NAME))]
    again = composed(folders, tmp_path / "again", made, equalize="hist")
    by_name = composed(folders, tmp_path / "parts", list(folders), equalize="hist")
    for rows in (again, by_name):
        # The union has more of PadChest's names than the one class that its own schema gives.
        assert sorted(rows.image_id) == sorted(raw.image_id)
        place = [rows.image_id.tolist().index(name) for name in raw.image_id]
        for name in ("labels", "sha256", "phash", "split", "patient_id", "original_size"):
            np.testing.assert_array_equal(getattr(rows, name)[place], getattr(raw, name))
    pictures = [stored(tmp_path / root) for root in ("raw", "again")]
    assert pictures[0].keys() == pictures[1].keys()
    assert all((pictures[1][name] == image).all() for name, image in pictures[0].items())


def stored(root):
    (folder,) = [p.parent for p in pathlib.Path(root, "compose").rglob(manifest.NAME)]
    return {
        record["image_id"]: image_files.decode(record["image"])
        for split in ("train", "test") for record in radiographs.open_records(folder, split)
    }


def test_a_set_of_this_name_from_other_parts_is_refused(folders, tmp_path):
    parts = [f"{name}={folder}" for name, folder in folders.items()]
    composed(folders, tmp_path / "out", parts)
    composed(folders, tmp_path / "out", parts)  # the same again: nothing to do
    with pytest.raises(UserError, match=r"was composed of kaggle_pneumonia=.*--dataset NAME"):
        composed(folders, tmp_path / "out", parts[:1])
    other = composed(folders, tmp_path / "out", parts[:1], dataset="other")
    assert set(other.source) == {"kaggle_pneumonia"}


def test_parts_take_options(folders, tmp_path):
    rows = composed(
        folders, tmp_path / "out",
        [f"kaggle_pneumonia={folders['kaggle_pneumonia']}",
         f"padchest={folders['padchest']},test-fraction=0.9,views=all"],
    )  # fmt: skip
    mine = rows.take(rows.source == "padchest")
    assert "test" in set(mine.split)


@pytest.mark.parametrize(("part", "message"), [
    ("nothing", "nothing is neither the folder of a prepared data set nor SOURCE=DIR"),
    ("padchest=/nowhere", "no folder /nowhere with the raw files of padchest"),
    ("padchest={raw},colour=1", "padchest has no option 'colour'; it has "),
    ("chest_phantom={raw}", "chest_phantom has no raw files; prepare it, and give its folder"),
    ("padchest", "0 data sets of padchest are prepared in "),
])
def test_impossible_parts(folders, tmp_path, part, message):
    with pytest.raises(UserError, match=message):
        composed(folders, tmp_path / "out", [part.format(raw=folders["padchest"])])


def test_prepared_parts_must_be_large_enough_and_equalised_alike(folders, tmp_path):
    builder = preparation.prepare("padchest", tmp_path / "parts", raw=str(folders["padchest"]),
                                  size=32, workers=0, equalize="clahe")
    with pytest.raises(UserError, match="too small for --size 64; give --size 32"):
        composed(folders, tmp_path / "out", [builder.data_dir], size=64, equalize="clahe")
    with pytest.raises(UserError, match="was prepared with --equalize clahe, not hist"):
        composed(folders, tmp_path / "out", [builder.data_dir])


def test_miniatures_compose(shared_cases, tmp_path):
    base = shared_cases / "cxr/external_layouts"
    parts = [f"chexpert={base / 'CheXpert-v1.0-small'},uncertain=positive",
             f"mimic_cxr={base / 'mimic-cxr-jpg'}", f"padchest={base / 'padchest'}",
             f"kaggle_pneumonia={base / 'kaggle'}"]
    rows = layouts.prepared("compose", None, tmp_path / "out", parts=tuple(parts))
    assert len(set(rows.sha256)) <= len(rows)
    by_source = {str(s): set(rows.sha256[rows.source == s]) for s in set(rows.source)}
    names = sorted(by_source)
    assert not any(by_source[a] & by_source[b] for a in names for b in names if a < b)
    patients = {(str(p), str(s)) for p, s in zip(rows.patient_id, rows.split, strict=True)}
    assert len(patients) == len(set(rows.patient_id))
