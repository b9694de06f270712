"""MIMIC-CXR-JPG: three tables joined by study and image."""

import pytest

from jaxcxr.errors import UserError
from jaxcxr.xray.sources import mimic_cxr
from tests.xray.sources import layouts

NAMES = sorted(layouts.FINDINGS_OF_CHEXPERT)
IMAGES = {  # dicom_id: subject, study, view, split
    "aa-01": ("10000032", "50414267", "PA", "train"),
    "aa-02": ("10000032", "50414267", "LATERAL", "train"),
    "bb-01": ("10000764", "57375967", "AP", "validate"),
    "cc-01": ("10000898", "50771383", "", "test"),
    "cc-02": ("10000898", "50771383", "PA", "test"),
    "dd-01": ("10000935", "50578979", "PA", "train"),
}


def cells(**known):
    return ",".join(known.get(name.replace(" ", "_"), "") for name in NAMES)


@pytest.fixture(params=["gz", "csv", "nested"])
def raw(request, tmp_path):
    """Six images of four subjects, one study without labels."""
    zipped, ending = request.param == "gz", ".csv.gz" if request.param == "gz" else ".csv"
    root = tmp_path / "raw"
    base = root / "physionet.org/files/mimic-cxr-jpg/2.1.0" if request.param == "nested" else root
    for word, one in (("chexpert", "1.0"), ("negbio", "0.0")):
        layouts.text(
            base / f"mimic-cxr-2.0.0-{word}{ending}", ",".join(["subject_id", "study_id", *NAMES]),
            f"10000032,50414267,{cells(Edema=one, Pneumonia='-1.0')}",
            f"10000764,57375967,{cells(No_Finding='1.0')}",
            f"10000898,50771383,{cells(Pleural_Effusion='0.0')}", zipped=zipped,
        )  # fmt: skip
    layouts.text(
        base / f"mimic-cxr-2.0.0-metadata{ending}",
        "dicom_id,subject_id,study_id,ViewPosition,Rows,Columns",
        *(f"{k},{s},{t},{v},3056,2544" for k, (s, t, v, _) in IMAGES.items()), zipped=zipped,
    )  # fmt: skip
    layouts.text(base / f"mimic-cxr-2.0.0-split{ending}", "dicom_id,study_id,subject_id,split",
                 *(f"{k},{t},{s},{x}" for k, (s, t, _, x) in IMAGES.items()), zipped=zipped)
    for name, (subject, study, _, _) in IMAGES.items():
        layouts.film(base / f"files/p{subject[:2]}/p{subject}/s{study}/{name}.jpg")
    return root


def test_labels_belong_to_the_study_and_the_split_to_the_image(raw, tmp_path, capsys):
    rows = layouts.prepared("mimic_cxr", raw, tmp_path / "out", views="all")
    found = layouts.labels(rows)
    assert found["aa-01"] == found["aa-02"] == {"Edema": 1}
    assert found["cc-01"] == found["cc-02"] == {"Pleural Effusion": 0}
    assert dict(zip(rows.image_id.tolist(), rows.split.tolist(), strict=True)) == {
        "aa-01": "train", "aa-02": "train", "bb-01": "validation", "cc-01": "test", "cc-02": "test",
    }
    assert rows.original_size[0].tolist() == [3056, 2544]
    assert set(rows.patient_id) == {f"mimic_cxr/{p}" for p in ("10000032", "10000764", "10000898")}
    said = capsys.readouterr().err
    assert "1 images are left out, as mimic-cxr-2.0.0-chexpert.csv" in said
    assert "has no labels of their study: dd-01" in said


@pytest.mark.parametrize("raw", ["gz"], indirect=True)
def test_frontal_films_alone_by_default(raw, tmp_path, capsys):
    rows = layouts.prepared("mimic_cxr", raw, tmp_path / "out", labeler="negbio")
    assert sorted(rows.image_id) == ["aa-01", "bb-01", "cc-02"]
    assert layouts.labels(rows)["aa-01"] == {"Edema": 0}
    said = capsys.readouterr().err
    assert "1 images are not frontal and are left out; --views all takes them: aa-02" in said
    assert "1 images are left out, as nothing tells their view" in said


@pytest.mark.parametrize(("position", "view"), [
    ("PA", ("PA", True)), ("AP", ("AP", True)), ("LATERAL", ("L", False)), ("LL", ("L", False)),
    ("AP AXIAL", ("", False)), ("LAO", ("", False)), ("", ("", None)),
])
def test_views(position, view):
    assert mimic_cxr.view_of(position) == view


@pytest.mark.parametrize("raw", ["csv"], indirect=True)
def test_a_table_that_is_absent_is_named(raw, tmp_path):
    (raw / "mimic-cxr-2.0.0-split.csv").unlink()
    with pytest.raises(UserError, match=r"no table mimic-cxr-2\.0\.0-split\.csv\.gz in it"):
        layouts.prepared("mimic_cxr", raw, tmp_path / "out")


def test_miniature(shared_cases, tmp_path, capsys):
    raw = shared_cases / "cxr/external_layouts/mimic-cxr-jpg"
    rows = layouts.prepared("mimic_cxr", raw, tmp_path / "out")
    assert [int((rows.split == s).sum()) for s in ("train", "validation", "test")] == [3, 2, 1]
    # Two images, lateral ones, are of a study that another subject's labels name.
    assert "2 images are left out, as the labels of their study" in capsys.readouterr().err
