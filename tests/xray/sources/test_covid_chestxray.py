"""covid-chestxray-dataset: three headers, both kinds of findings, views, files that lie."""

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxcxr.data import preparation
from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.errors import UserError
from jaxcxr.xray.images import image_files
from jaxcxr.xray.sources import covid_chestxray
from jaxcxr.xray.sources import covid_chestxray as source
from tests.pose.sources import fuzz

FIRST = (
    "Patientid,offset,sex,age,finding,survival,view,date,location,filename,doi, url,license,notes"
)
JUNE = (
    "patientid,offset,sex,age,finding,survival,intubated,intubation_present,went_icu,in_icu,"
    "needed_supplemental_O2,extubated,temperature,pO2_saturation,leukocyte_count,neutrophil_count,"
    "lymphocyte_count,view,modality,date,location,folder,filename,doi,url,license,clinical_notes,"
    "other_notes,"
)
LAST = JUNE.replace("finding,", "finding,RT_PCR_positive,")
SKIP = {"image": tfds.decode.SkipDecoding()}


def line(header, **cells):
    """A row of a table with this header; the cells are given by the names of their columns."""
    cells = {"modality": "X-ray", "folder": "images", "view": "PA", "finding": "COVID-19"} | cells
    return ",".join(cells.get(name.strip().lower(), "") for name in header.split(","))


def table(folder, *cells, header=LAST, encoding="utf-8"):
    """Writes metadata.csv from one dict per row; what is not told has a default."""
    named = [{"patientid": f"{i}", "filename": f"{i}.jpg"} | row for i, row in enumerate(cells, 1)]
    text = "\n".join([header, *(line(header, **row) for row in named)]) + "\n"
    (folder / "metadata.csv").write_text(text, encoding=encoding)
    return folder


def read(folder, **options):
    return source.read_table(folder, 0.125, 0.2, **options)


def known(row):
    """The findings of a row that are not unknown."""
    return {f: label for f, label in zip(FINDINGS, row.labels, strict=True) if label != -1}


@pytest.mark.parametrize("header", [FIRST, JUNE, LAST], ids=["first", "June 2020", "last"])
def test_header_generations_give_the_same_row(tmp_path, header):
    cells = {"patientid": "2", "sex": "M", "age": "65", "view": "AP Supine", "filename": "a.jpeg"}
    (row,) = read(table(tmp_path, cells, header=header)).rows
    assert (row.image_id, row.patient_id) == ("a.jpeg", "covid_chestxray/2")
    assert row.source == "covid_chestxray"
    assert (row.view, row.sex, row.age) == ("AP", "M", 65)
    assert known(row) == {"COVID-19": 1}


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        ("COVID-19", {"COVID-19": 1}),
        ("COVID-19, ARDS", {"COVID-19": 1}),
        ("Pneumonia/Viral/COVID-19", {"COVID-19": 1, "Pneumonia": 1}),
        ("SARS", {"COVID-19": 0, "Pneumonia": 1}),
        ("Pneumocystis", {"COVID-19": 0, "Pneumonia": 1}),
        ("Mycoplasma Bacterial Pneumonia", {"COVID-19": 0, "Pneumonia": 1}),
        ("Klebsiella", {"COVID-19": 0, "Pneumonia": 1}),
        ("E.Coli", {"COVID-19": 0, "Pneumonia": 1}),
        ("Pneumonia/Bacterial/Streptococcus", {"COVID-19": 0, "Pneumonia": 1}),
        ("Pneumonia/Bacterial", {"COVID-19": 0, "Pneumonia": 1}),
        ("Pneumonia/Viral/Herpes ", {"COVID-19": 0, "Pneumonia": 1}),
        ("Pneumonia/Viral/Influenza/H1N1", {"COVID-19": 0, "Pneumonia": 1}),
        ("Pneumonia/Lipoid", {"COVID-19": 0, "Pneumonia": 1}),
        ("Pneumonia/Viral", {"Pneumonia": 1}),
        ("Pneumonia", {"Pneumonia": 1}),
        ("Streptococcus, COVID-19", {"COVID-19": 1, "Pneumonia": 1}),
        ("Tuberculosis", {"COVID-19": 0}),
        ("No Finding", {"COVID-19": 0, "Pneumonia": 0}),
        ("ARDS", {}),
        ("todo", {}),
        ("Unknown", {}),
        ("", {}),
    ],
)
def test_findings_become_labels(finding, expected):
    labels, strange = covid_chestxray.labels_of(finding)
    named = zip(FINDINGS, labels, strict=True)
    assert {name: label for name, label in named if label != -1} == expected
    assert strange == []


@pytest.mark.parametrize(
    "cause", ["Streptococcus", "Legionella", "Lipoid", "Varicella", "Chlamydophila", "Influenza",
              "Bacterial"],
)
def test_flat_and_hierarchical_names_of_a_cause_say_the_same(cause):
    for finding in (cause, f"Pneumonia/Bacterial/{cause}"):
        labels, strange = covid_chestxray.labels_of(finding)
        assert (labels[FINDINGS.index("Pneumonia")], labels[FINDINGS.index("COVID-19")]) == (1, 0)
        assert strange == []


def test_findings_that_are_not_the_data_sets_are_noted_and_count_as_nothing(tmp_path):
    rows = [{"finding": '"COVID-19, Rickets"'}, {"finding": "Broken Rib"}, {}]
    content = read(table(tmp_path, *rows))
    assert [known(row) for row in content.rows] == [{"COVID-19": 1}, {"COVID-19": 1}]
    assert "2 findings are not known and count as nothing: Rickets, Broken Rib" in content.notes


def test_images_without_a_known_class_are_left_out_and_counted(tmp_path):
    rows = [{"finding": finding} for finding in ("todo", "Unknown", "", "ARDS", "SARS")]
    content = read(table(tmp_path, *rows))
    assert [row.image_id for row in content.rows] == ["5.jpg"]
    (note,) = content.notes
    assert note.startswith("4 images are left out, as their finding leaves every class open: 1.jpg")


VIEWS = [
    {"view": "PA"}, {"view": "AP"}, {"view": "AP Supine"}, {"view": "AP Erect"}, {"view": "L"},
    {"view": "Axial", "modality": "CT"}, {"view": "Coronal", "modality": "CT"},
    {"view": "AP", "modality": "CT"}, {"view": "Axial", "modality": "CT", "folder": "volumes"},
    {"view": "CT", "modality": ""}, {"view": "Oblique"}, {"view": ""},
]  # fmt: skip


def test_lateral_films_ct_and_volumes_are_left_out_unless_asked_for(tmp_path):
    table(tmp_path, *VIEWS)
    content = read(tmp_path)
    assert [row.image_id for row in content.rows] == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert [row.view for row in content.rows] == ["PA", "AP", "AP", "AP"]
    assert {note.partition(":")[0] for note in content.notes} == {
        "1 images are left out for their view, L",
        "4 images are left out for their view, CT",
        "1 images are left out for their view, 'Oblique'",
        "1 images are left out for their view, ''",
        "1 volumes are left out",
    }
    asked = read(tmp_path, views=("L", "CT")).rows
    assert [(row.image_id, row.view) for row in asked] == [
        ("5.jpg", "L"), ("6.jpg", ""), ("7.jpg", ""), ("8.jpg", ""), ("10.jpg", ""),
    ]  # fmt: skip


def test_patient_62_is_two_people_and_nobody_else_is(tmp_path):
    people = [
        {"patientid": "62", "sex": "M", "age": "46", "filename": "a"},
        {"patientid": "62", "sex": "F", "age": "75", "filename": "b"},
        {"patientid": "62", "sex": "F", "age": "75.0", "filename": "c"},
        {"patientid": "63", "sex": "M", "age": "46", "filename": "d"},
        {"patientid": "63", "sex": "F", "age": "75", "filename": "e"},
    ]
    ids = [row.patient_id.partition("/")[2] for row in read(table(tmp_path, *people)).rows]
    assert ids == ["62-46-M", "62-75-F", "62-75-F", "63", "63"]


def test_all_images_of_a_patient_are_in_one_split_and_all_splits_are_filled(tmp_path):
    rows = [{"patientid": f"{i // 3}", "filename": f"{i}.png"} for i in range(300)]
    splits = {}
    for row in read(table(tmp_path, *rows)).rows:
        splits.setdefault(row.patient_id, set()).add(row.split)
    assert len(splits) == 100
    assert all(len(names) == 1 for names in splits.values())
    assert set.union(*splits.values()) == {"train", "validation", "test"}


def test_a_file_named_twice_counts_once_or_not_at_all(tmp_path):
    rows = [
        {"patientid": "1", "filename": "same.jpg", "age": "50"},
        {"patientid": "1", "filename": "same.jpg", "age": "51"},
        {"patientid": "2", "filename": "other.jpg"},
        {"patientid": "3", "filename": "other.jpg"},
        {"patientid": "4", "filename": "third.jpg", "finding": "SARS"},
        {"patientid": "4", "filename": "third.jpg"},
    ]
    content = read(table(tmp_path, *rows))
    assert [(row.image_id, row.age) for row in content.rows] == [("same.jpg", 50)]
    assert content.notes == (
        "1 images are in several rows of metadata.csv and count once: same.jpg",
        "2 images are left out, as their rows contradict each other: other.jpg, third.jpg",
    )


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-8-sig"])
def test_degree_signs_do_not_matter(tmp_path, encoding):
    row = {"clinical_notes": "38 °C", "filename": "é.jpg"}
    content = read(table(tmp_path, row, encoding=encoding))
    assert [row.image_id for row in content.rows] == ["é.jpg"]


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def gray(seed):
    return np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)


@pytest.fixture
def odd_files(tmp_path):
    """Seven images in as many forms; the pixels of `i` are `gray(i)`."""
    raw = tmp_path / "raw"
    folder = raw / "images"
    folder.mkdir(parents=True)
    Image.fromarray(gray(0)).save(folder / "gray.png")
    Image.fromarray(gray(1)).save(folder / "lies.jpg", format="PNG")
    Image.fromarray(gray(2)).convert("RGBA").save(folder / "rgba.png")
    palette = Image.fromarray(255 - gray(3)).convert("P")
    palette.putpalette([255 - i // 3 for i in range(768)])
    palette.save(folder / "palette.png")
    cv2.imwrite(str(folder / "deep.png"), np.dstack([gray(4).astype(np.uint16) * 257] * 4))
    Image.fromarray(np.dstack([gray(5)] * 3)).save(folder / "colour.png")
    Image.fromarray(gray(6)).save(raw / "elsewhere.png")
    names = ["gray.png", "lies.jpg", "rgba.png", "palette.png", "deep.png", "colour.png"]
    return table(raw, *({"filename": name} for name in [*names, "elsewhere.jpeg"]))


def test_prepared_images_come_by_content_whatever_their_name_and_form(odd_files, tmp_path):
    builder = preparation.prepare(
        source.NAME, tmp_path / "out", raw=str(odd_files), size=32, workers=0, equalize="none",
        val_fraction=0.0, test_fraction=0.0,
    )  # fmt: skip
    records = list(builder.as_data_source("train", decoders=SKIP))
    stored = {text(record["image_id"]): image_files.decode(record["image"]) for record in records}
    names = ["gray.png", "lies.jpg", "rgba.png", "palette.png", "deep.png", "colour.png"]
    assert set(stored) == {*names, "elsewhere.jpeg"}
    for seed, name in enumerate([*names, "elsewhere.jpeg"]):
        np.testing.assert_array_equal(stored[name], gray(seed), err_msg=name)
    patients = {text(record["patient_id"]) for record in records}
    assert patients == {f"covid_chestxray/{i}" for i in range(1, 8)}


def test_a_file_that_is_listed_itself_does_not_stand_in_for_another(odd_files):
    table(odd_files, {"filename": "gray.png"}, {"filename": "gray.jpg"})
    found = covid_chestxray.with_images(read(odd_files), [odd_files / "images"])
    assert [item.row.image_id for item in found.items] == ["gray.png"]
    assert found.missing == ("gray.jpg",)


def test_chosen_views_name_the_variant_in_one_order_only():
    config = source.CovidChestXrayConfig
    assert config().name == config(views=("AP Erect", "AP Supine", "PA", "AP")).name
    assert config(views=("L", "PA")).name == config(views=("PA", "L")).name != config().name


@pytest.mark.parametrize("views", [("PA", "Side"), (), ("pa",)])
def test_views_that_are_none_are_refused(views):
    with pytest.raises(UserError, match="allowed: some of PA, AP, AP Supine, AP Erect, L, CT"):
        source.CovidChestXrayConfig(views=views)


def test_variant_with_chosen_views_is_prepared_and_found(odd_files, tmp_path):
    options = {"size": 32, "views": ("PA", "AP Supine"), "val_fraction": 0.0, "test_fraction": 0.0}
    preparation.prepare(source.NAME, tmp_path / "out", raw=str(odd_files), workers=0, **options)
    assert preparation.find(source.NAME, options, tmp_path / "out").is_dir()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"metadata\.csv: no line with data; the columns patientid"),
        (b"patientid,sex,age,finding,filename\n", r"metadata\.csv:1: no column 'view' among"),
        (f"{FIRST}\n1,,,,COVID-19\n".encode(), r"metadata\.csv:2: 5 cells; at least 10"),
        (f"{FIRST}\n{line(FIRST, filename='a.jpg')}\n".encode(), r"csv:2: no patientid"),
        (f"{FIRST}\n{line(FIRST, patientid='1')}\n".encode(), r"csv:2: no filename"),
        (f"{FIRST}\n".encode("utf-16")[:-1], r"metadata\.csv:1: .*NUL"),
        (f"{FIRST}\n{'x' * 200_000}\n".encode(), r"metadata\.csv:2: not a csv"),
        (f"{FIRST}\n".encode(), r"metadata\.csv: no line with data"),
    ],
)
def test_impossible_tables_are_refused(tmp_path, content, message):
    (tmp_path / "metadata.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_absent_table_is_named(tmp_path):
    with pytest.raises(UserError, match=r"metadata\.csv cannot be read: No such file"):
        read(tmp_path)


def test_damaged_tables_are_user_errors(tmp_path):
    rows = [{"finding": "SARS", "sex": "F", "age": "50+"}, {"view": "L"}, {"patientid": "62"}]
    valid = (table(tmp_path, *rows) / "metadata.csv").read_bytes()

    def write_and_read(content):
        (tmp_path / "metadata.csv").write_bytes(content)
        return read(tmp_path)

    fuzz.assert_only_user_errors(write_and_read, valid, "metadata.csv")
