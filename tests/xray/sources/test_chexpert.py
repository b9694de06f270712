"""CheXpert: layouts of its releases, patients of paths, uncertain and blank labels."""

import pytest

from jaxcxr.errors import UserError
from tests.xray.sources import layouts

HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(layouts.FINDINGS_OF_CHEXPERT)
# No Finding, then 13 findings: Cardiomegaly 1, Edema -1, Effusion 0, others blank.
DOUBTFUL = ",,1.0,,,-1.0,,,,,0.0,,,"
HEALTHY = "1.0" + "," * 13
EXPERT = ",".join(["0"] * 10 + ["1"] + ["0"] * 3)  # effusion


@pytest.fixture(params=["small", "full", "batches", "plain", "gzipped"])
def raw(request, tmp_path):
    """Four training images of two patients, one lateral; one of valid; in a release's layout."""
    kind = request.param
    prefix = {"small": "CheXpert-v1.0-small/", "plain": ""}.get(kind, "CheXpert-v1.0/")
    root = tmp_path / "raw"
    base = root / prefix if kind in ("full", "gzipped") else root
    names = ("patient00001/study1/view1_frontal.jpg", "patient00001/study1/view2_lateral.jpg",
             "patient00001/study2/view1_frontal.jpg", "patient00002/study1/view1_frontal.jpg")
    told = ("Female,68,Frontal,AP", "Female,68,Lateral,", "Female,69,Frontal,PA",
            "Male,,Frontal,LL")
    rows = [f"{prefix}train/{n},{t},{x}" for n, t, x in
            zip(names, told, (DOUBTFUL, DOUBTFUL, HEALTHY, DOUBTFUL), strict=True)]
    valid = "patient64541/study1/view1_frontal.jpg"
    zipped = kind == "gzipped"
    ending = ".gz" if zipped else ""
    layouts.text(base / f"train.csv{ending}", HEADER, *rows, zipped=zipped)
    layouts.text(base / f"valid.csv{ending}", HEADER,
                 f"{prefix}valid/{valid},Male,73,Frontal,AP,{EXPERT}", zipped=zipped)
    folders = {"batches": ("CheXpert-v1.0 batch 2 (train 1)", "CheXpert-v1.0 batch 1 (validate)")}
    train, held = folders.get(kind, ("train", "valid"))
    for name in names:
        layouts.film(base / train / name)
    layouts.film(base / held / valid)
    return root


def test_every_release_gives_the_same_records(raw, tmp_path, capsys):
    rows = layouts.prepared("chexpert", raw, tmp_path / "out")
    by_id = dict(zip(rows.image_id.tolist(), range(len(rows)), strict=True))
    one = by_id["train/patient00001/study1/view1_frontal.jpg"]
    assert sorted(name.removesuffix("/view1_frontal.jpg") for name in by_id) == [
        "train/patient00001/study1", "train/patient00001/study2", "train/patient00002/study1",
        "valid/patient64541/study1",
    ]
    told = [getattr(rows, name)[one] for name in ("patient_id", "sex", "age", "view", "split")]
    assert told == ["chexpert/patient00001", "F", 68, "AP", "train"]
    assert rows.split[by_id["valid/patient64541/study1/view1_frontal.jpg"]] == "validation"
    found = layouts.labels(rows)
    assert found["train/patient00001/study1/view1_frontal.jpg"] == {
        "Cardiomegaly": 1, "Pleural Effusion": 0
    }
    healthy = found["train/patient00001/study2/view1_frontal.jpg"]
    assert healthy == dict.fromkeys([c for c in rows.classes if c != "Support Devices"], 0)
    said = capsys.readouterr().err
    assert "1 images are not frontal and are left out; --views all takes them" in said
    assert "12 blank labels are absent, as No Finding is present" in said


@pytest.mark.parametrize("raw", ["small"], indirect=True)
@pytest.mark.parametrize(("options", "edema", "mass"), [
    ({}, -1, -1), ({"uncertain": "U-Zeros"}, 0, -1), ({"uncertain": "U-Ones"}, 1, -1),
    ({"blank": "negative"}, -1, 0), ({"uncertain": "positive", "blank": "negative"}, 1, 0),
])
def test_uncertain_and_blank_by_option(raw, tmp_path, options, edema, mass):
    rows = layouts.prepared("chexpert", raw, tmp_path / "out", **options)
    i = rows.image_id.tolist().index("train/patient00002/study1/view1_frontal.jpg")
    known = dict(zip(rows.classes, rows.labels[i].tolist(), strict=True))
    assert (known["Edema"], known["Lung Lesion"], known["Pleural Effusion"]) == (edema, mass, 0)


@pytest.mark.parametrize("raw", ["full"], indirect=True)
def test_schemas_name_the_classes(raw, tmp_path):
    rows = layouts.prepared("chexpert", raw, tmp_path / "out", schema="chestxray14", views="all")
    found = layouts.labels(rows)["train/patient00001/study1/view2_lateral.jpg"]
    assert found == {"Cardiomegaly": 1, "Effusion": 0}
    assert "L" in rows.view
    i = rows.image_id.tolist().index("train/patient00001/study2/view1_frontal.jpg")
    of_healthy = dict(zip(rows.classes, rows.labels[i].tolist(), strict=True))
    assert of_healthy["Hernia"] == of_healthy["Nodule"] == -1  # CheXpert never read for them
    assert of_healthy["Pneumonia"] == 0


@pytest.mark.parametrize("raw", ["small"], indirect=True)
def test_test_sets_of_either_form(raw, tmp_path):
    film = "test/patient64741/study1/view1_frontal.jpg"
    layouts.film(raw / film)
    names = ",".join(layouts.FINDINGS_OF_CHEXPERT)
    layouts.text(raw / "test.csv", f"Path,{names}", f"{film},{EXPERT}")
    by_image = layouts.prepared("chexpert", raw, tmp_path / "image")
    layouts.text(raw / "test.csv", f"Study,{names}",
                 f"CheXpert-v1.0/test/patient64741/study1,{EXPERT}")
    by_study = layouts.prepared("chexpert", raw, tmp_path / "study")
    for rows in (by_image, by_study):
        assert rows.split.tolist().count("test") == 1
        assert layouts.labels(rows)[film]["Pleural Effusion"] == 1
    with pytest.raises(UserError, match=r"valid_as is test, but .*test\.csv is there too"):
        layouts.prepared("chexpert", raw, tmp_path / "both", valid_as="test")


@pytest.mark.parametrize("raw", ["plain"], indirect=True)
def test_valid_may_be_the_test_split(raw, tmp_path):
    rows = layouts.prepared("chexpert", raw, tmp_path / "out", valid_as="test", val_fraction=0.0)
    assert sorted(set(rows.split)) == ["test", "train"]


@pytest.mark.parametrize("raw", ["small"], indirect=True)
@pytest.mark.parametrize(("cell", "message"), [
    ("2.0", r"train\.csv:2: '2\.0' in column No Finding is no label"),
    ("yes", r"'yes' in column No Finding is no label; allowed: 1, 0, -1 and nothing"),
])
def test_strange_cells_are_refused(raw, tmp_path, cell, message):
    path = raw / "train.csv"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace(",AP,,", f",AP,{cell},")
    layouts.text(path, *lines)
    with pytest.raises(UserError, match=message):
        layouts.prepared("chexpert", raw, tmp_path / "out")


@pytest.mark.parametrize("raw", ["plain"], indirect=True)
def test_an_image_in_two_rows_is_named(raw, tmp_path):
    path = raw / "train.csv"
    lines = path.read_text().splitlines()
    layouts.text(path, *lines, lines[1].replace(",1.0", ",0.0"))
    with pytest.raises(UserError, match=r"1 images are listed twice: train/patient00001/study1"):
        layouts.prepared("chexpert", raw, tmp_path / "out")


@pytest.mark.parametrize("raw", ["small"], indirect=True)
def test_two_releases_in_one_folder_are_asked_about(raw, tmp_path):
    layouts.film(raw / "copy/train/patient00002/study1/view1_frontal.jpg")
    with pytest.raises(UserError, match="both fit patient00002/study1/view1_frontal"):
        layouts.prepared("chexpert", raw, tmp_path / "out")


def test_a_folder_without_tables(tmp_path):
    with pytest.raises(UserError, match=r"no train\.csv, valid\.csv or test\.csv in"):
        layouts.prepared("chexpert", tmp_path, tmp_path / "out")


def test_miniature(shared_cases, tmp_path):
    raw = shared_cases / "cxr/external_layouts/CheXpert-v1.0-small"
    rows = layouts.prepared("chexpert", raw, tmp_path / "out")
    assert [int((rows.split == s).sum()) for s in ("train", "validation")] == [12, 6]
    assert len(set(rows.patient_id)) == 9
