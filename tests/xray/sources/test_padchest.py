"""PadChest: lists of names, projections, lists that say nothing."""

import pytest

from jaxcxr.errors import UserError
from jaxcxr.xray.sources import padchest
from tests.xray.sources import layouts

HEADER = (",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,"
          "ViewPosition_DICOM,Projection,MethodLabel,Labels")  # fmt: skip
ROWS = {  # image: patient, projection, labels
    "1.png": ("p1", "PA", "\"['pleural effusion', ' Rib fracture', 'kyphosis', '']\""),
    "2.png": ("p1", "L", "\"['pleural effusion']\""),
    "3.png": ("p2", "AP_horizontal", "['normal']"),
    "4.png": ("p3", "PA", "['unchanged']"),
    "5.png": ("p4", "PA", ""),
    "6.png": ("p5", "COSTAL", "['pneumothorax']"),
    "7.png": ("p6", "EXCLUDE", "['normal']"),
    "8.png": ("p7", "PA", "\"['exclude', 'mass']\""),
    "9.png": ("p8", "PA", "\"['suboptimal study', 'mass', 'gynecomastia']\""),
}


@pytest.fixture(params=[False, True])
def raw(request, tmp_path):
    """Nine images in numbered folders."""
    root = tmp_path / "raw"
    lines = [
        f"{i},{name},{i % 3},20140915,s{i},{p},1930.0,F,POSTEROANTERIOR,{v},"
        f"{'Physician' if i else 'RNN_model'},{x}"
        for i, (name, (p, v, x)) in enumerate(ROWS.items())
    ]
    name = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    layouts.text(root / f"{name}{'.gz' * request.param}", HEADER, *lines, zipped=request.param)
    for i, image in enumerate(ROWS):
        layouts.film(root / str(i % 3) / image)
    return root


def test_lists_become_labels(raw, tmp_path, capsys):
    rows = layouts.prepared("padchest", raw, tmp_path / "out")
    found = layouts.labels(rows)
    assert sorted(found) == ["1.png", "3.png", "9.png"]
    present = {name: {c for c, x in known.items() if x} for name, known in found.items()}
    assert present == {
        "1.png": {"pleural effusion", "rib fracture", "kyphosis"}, "3.png": set(),
        "9.png": {"mass"},
    }
    assert all(len(known) == len(rows.classes) for known in found.values())  # none is unknown
    i = rows.image_id.tolist().index("3.png")
    assert [rows.view[i], rows.sex[i], rows.age[i]] == ["AP", "F", 84]
    said = capsys.readouterr().err
    for words in ("2 images are marked exclude and left out: 7.png, 8.png",
                  "2 images are left out, as their labels name no finding: 4.png, 5.png",
                  "2 images are not frontal and are left out; --views all takes them: 2.png, 6.png",
                  "names in the lists are no class here: gynecomastia 1"):
        assert words in said


@pytest.mark.parametrize("raw", [False], indirect=True)
def test_the_union_joins_parts(raw, tmp_path):
    rows = layouts.prepared("padchest", raw, tmp_path / "out", schema="union", views="all")
    found = layouts.labels(rows)
    assert {c for c, x in found["1.png"].items() if x} == {"Effusion", "Fracture"}
    assert "COVID-19" not in found["3.png"]
    assert found["3.png"]["Effusion"] == 0
    assert {"2.png", "6.png"} <= set(found)


@pytest.mark.parametrize("raw", [True], indirect=True)
def test_physicians_labels_alone(raw, tmp_path):
    rows = layouts.prepared("padchest", raw, tmp_path / "out", labeler="physician")
    assert sorted(rows.image_id) == ["3.png", "9.png"]


@pytest.mark.parametrize("cell", ["normal", "['normal'", "[normal]", "{'a': 1}"])
def test_other_texts_are_no_lists(cell):
    with pytest.raises(UserError, match=r"file:3: the labels .* are no list"):
        padchest._names(cell, "file:3")


def test_miniature(shared_cases, tmp_path):
    raw = shared_cases / "cxr/external_layouts/padchest"
    rows = layouts.prepared("padchest", raw, tmp_path / "out", schema="chestxray14")
    assert (len(rows), len(set(rows.patient_id))) == (8, 4)
    assert all({c for c, x in known.items() if x} == {"Effusion"}
               for known in layouts.labels(rows).values())
