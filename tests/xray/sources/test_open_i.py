"""Open-I: MeSH headings and qualifiers, both forms of the reports."""

import pytest

from jaxcxr.errors import UserError
from jaxcxr.xray.sources import open_i
from tests.xray.sources import layouts

HEADINGS = {
    "1": "normal",
    "2": "Cardiomegaly/borderline;Opacity/lung/base/left;Thickening/pleura",
    "3": "No Indexing",
    "4": "Opacity/bone;Technical Quality of Image Unsatisfactory ",
    "5": "Technical Quality of Image Unsatisfactory ",
}
PROJECTIONS = [(uid, f"{uid}_IM-000{uid}-{view}001.dcm.png", word)
               for uid in HEADINGS for view, word in ((4, "Frontal"), (3, "Lateral"))]  # fmt: skip


def write(root, kind):
    layouts.text(root / "indiana_projections.csv", "uid,filename,projection",
                 *(",".join(row) for row in PROJECTIONS))
    if kind == "kaggle":
        layouts.text(root / "indiana_reports.csv", "uid,MeSH,Problems",
                     *(f"{uid},{text}," for uid, text in HEADINGS.items()))
        for _, name, _ in PROJECTIONS:
            layouts.film(root / "images/images_normalized" / name)
        return
    for uid, text in HEADINGS.items():
        majors = "".join(f"<major>{part}</major>" for part in text.split(";"))
        images = [f"CXR{uid}_{uid}_IM-000{uid}-{view}001" for view in (4, 3)]
        parents = "".join(f'<parentImage id="{name}"><panel/></parentImage>' for name in images)
        layouts.text(
            root / f"ecgen-radiology/{uid}.xml",
            f'<eCitation><uId id="CXR{uid}"/><MeSH>{majors}<automatic>pleural effusion</automatic>'
            f"</MeSH>{parents}</eCitation>",
        )  # fmt: skip
        for name in images:
            layouts.film(root / f"NLMCXR_png/{name}.png")


@pytest.mark.parametrize("kind", ["kaggle", "xml"])
def test_both_forms_give_the_same_labels(tmp_path, capsys, kind):
    write(tmp_path / "raw", kind)
    rows = layouts.prepared("open_i", tmp_path / "raw", tmp_path / "out")
    patients = [str(patient).rpartition("/")[2] for patient in rows.patient_id]
    present = {
        patient: {c for c, x in known.items() if x}
        for patient, known in zip(patients, layouts.labels(rows).values(), strict=True)
    }
    assert present == {
        "1": set(), "2": {"Cardiomegaly", "Lung Opacity", "Pleural Thickening"}, "4": set()
    }
    assert (rows.labels >= 0).all()
    said = capsys.readouterr().err
    assert "3 images are not frontal and are left out" in said
    assert "4 images are left out, as their report is not indexed" in said
    assert "headings are no class here: opacity 2" in said


def test_reports_alone_do_not_tell_lateral_films(tmp_path):
    write(tmp_path / "raw", "xml")
    (tmp_path / "raw/indiana_projections.csv").unlink()
    with pytest.raises(UserError, match="do not tell frontal from lateral films; put indiana_proj"):
        layouts.prepared("open_i", tmp_path / "raw", tmp_path / "out")
    rows = layouts.prepared("open_i", tmp_path / "raw", tmp_path / "out", views="all")
    assert len(rows) == 6


def test_names_of_both_forms_are_one_image():
    assert open_i.image_key("CXR1_1_IM-0001-4001.png") == open_i.image_key("1_IM-0001-4001.dcm.png")
    assert open_i.image_key("CXR12_IM-0001-4001") == ("12", "IM-0001-4001")
    assert open_i.image_key("film.png") is None


def test_broken_xml_is_named(tmp_path):
    write(tmp_path / "raw", "xml")
    (tmp_path / "raw/ecgen-radiology/2.xml").write_text("<eCitation>")
    with pytest.raises(UserError, match=r"2\.xml: not readable as XML"):
        layouts.prepared("open_i", tmp_path / "raw", tmp_path / "out")


def test_miniature_tables(shared_cases, tmp_path):
    with pytest.raises(UserError, match="none of the 2 listed images is there"):  # it has none
        layouts.prepared("open_i", shared_cases / "cxr/external_layouts/openi", tmp_path / "out")
