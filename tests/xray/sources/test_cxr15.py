"""The composition of 15 findings, from folders of several data sets to records."""

import collections

import numpy as np
import openpyxl
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxcxr.data import preparation
from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import cxr15

PNEUMONIA, COVID = FINDINGS.index("Pneumonia"), FINDINGS.index("COVID-19")
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
NIH = ("00000001_000.png", "00000002_000.png", "00000003_000.png")
UUIDS = [f"47c78742-4998-4878-aec4-37b11b13540{i}" for i in range(4)]
COHEN = "patientid,offset,sex,age,finding,view,modality,folder,filename"
SKIP = {"image": tfds.decode.SkipDecoding()}


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 200, (40, 40), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def raw(tmp_path):
    """Patients 1 and 2 of ChestX-ray14 train, 3 tests; four RSNA images, of which 0 to 2 match."""
    raw = tmp_path / "raw"
    nih = raw / "chestxray14"
    write(nih / "Data_Entry_2017.csv", HEADER, *(
        f"{name},Hernia,0,{int(name[:8])},57,M,PA,2682,2749,0.143,0.143" for name in NIH
    ))
    write(nih / "train_val_list.txt", *NIH[:2])
    write(nih / "test_list.txt", NIH[2])
    for name in NIH:
        image(nih / "images" / name)
    write(
        raw / "labels/train_COVIDx8A.txt",
        f"{UUIDS[0]} {UUIDS[0]}.png pneumonia rsna",
        f"{UUIDS[2]} {UUIDS[2]}.png pneumonia rsna",
        f"{UUIDS[3]} {UUIDS[3]}.png pneumonia rsna",
        "5 a.jpg COVID-19 cohen",
    )
    write(raw / "labels/test_COVIDx8A.txt", f"{UUIDS[1]} {UUIDS[1]}.png normal rsna")
    write(
        raw / "rsna_to_chestxray14.csv",
        "rsna_patientId,chestxray14_image,mse",
        *(f"{name},{original},1.5" for name, original in zip(UUIDS, NIH, strict=False)),
        f"{UUIDS[3]},00000003_000.png,25.0",
    )
    for name in UUIDS:
        image(raw / f"rsna_pneumonia/stage_2_train_images/{name}.png")
    write(
        raw / "covid_chestxray/metadata.csv", COHEN,
        "5,0,M,35,COVID-19,PA,X-ray,images,a.jpg",
        "5,0,M,35,COVID-19,PA,X-ray,images,b.jpg",
    )
    image(raw / "covid_chestxray/images/a.jpg")
    image(raw / "covid_chestxray/images/b.jpg")
    return raw


def collect(raw, **options):
    builder = cxr15.Cxr15(config=cxr15.Cxr15Config(val_fraction=0.0, **options))
    return builder.collect(raw)


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def test_composition_is_prepared_with_unknown_labels_and_without_leaks(raw, tmp_path):
    builder = preparation.prepare(
        "cxr15", tmp_path / "out", raw=str(raw), size=32, workers=0, val_fraction=0.0
    )
    found = {}
    for split in builder.info.splits:
        for record in builder.as_data_source(split, decoders=SKIP):
            found[text(record["image_id"])] = (split, text(record["patient_id"]), record["labels"])
    # Patient 2 is tested as RSNA image 1, patient 3 as himself; RSNA image 0 is the film of 1.
    assert {name: (split, patient) for name, (split, patient, _) in found.items()} == {
        "00000001_000.png": ("train", "00000001"),
        f"{UUIDS[1]}.png": ("test", "00000002"),
        "00000003_000.png": ("test", "00000003"),
        f"{UUIDS[3]}.png": ("train", f"rsna_pneumonia/{UUIDS[3]}"),
        "a.jpg": ("train", "covid_chestxray/5"),
        "b.jpg": ("train", "covid_chestxray/5"),
    }
    merged, tested = found["00000001_000.png"][2], found["00000003_000.png"][2]
    hernia = FINDINGS.index("Hernia")
    assert np.flatnonzero(merged).tolist() == sorted([hernia, PNEUMONIA])
    assert np.flatnonzero(tested).tolist() == [hernia]
    assert tested[COVID] == 0
    assert {i: label for i, label in enumerate(found["b.jpg"][2]) if label >= 0} == {COVID: 1}


def test_notes_count_the_data_sets_and_what_was_left_out(raw):
    notes = collect(raw).notes
    counts = "images by data set: chestxray14 2, covidx 3, covid_chestxray 1; absent: "
    assert notes[0].startswith(counts)
    assert "siim_covid19" in notes[0]
    joined = "\n".join(notes)
    for fact in (
        "1 images of chestxray14 are of patients in a test split and are not trained on",
        "1 images of rsna_pneumonia are of patients in a test split and are not trained on",
        "1 images of rsna_pneumonia are images of chestxray14, come in as the original and "
        "are left out",
        "1 images of covid_chestxray are in two data sets or lists and count once: a.jpg",
        "1 training images of chestxray14 get Pneumonia",
    ):
        assert fact in joined
    assert "share films" not in joined


def test_images_that_are_left_out_need_not_be_there_and_others_are_missed(raw):
    for name in (UUIDS[0], UUIDS[2], UUIDS[3]):
        (raw / f"rsna_pneumonia/stage_2_train_images/{name}.png").unlink()
    (raw / "chestxray14/images" / NIH[1]).unlink()
    (raw / "covid_chestxray/images/b.jpg").unlink()
    missing = {"covid_chestxray/b.jpg", f"rsna_pneumonia/{UUIDS[3]}.png"}
    assert set(collect(raw).missing) == missing


def test_the_map_is_needed_where_images_of_the_rsna_take_part(raw, tmp_path):
    path = raw / "rsna_to_chestxray14.csv"
    elsewhere = tmp_path / "map.csv"
    path.rename(elsewhere)
    message = r"4 images of the RSNA are films of ChestX-ray14.*--map FILE"
    with pytest.raises(UserError, match=message):
        collect(raw)
    assert len(collect(raw, map=str(elsewhere)).items) == 6
    write(elsewhere, "rsna_patientId,chestxray14_image,mse", "x,00000003_000.png,1.0")
    with pytest.raises(UserError, match=r"map\.csv: none of the 4 images of the RSNA is in it"):
        collect(raw, map=str(elsewhere))
    for split in ("train", "test"):
        write(raw / f"labels/{split}_COVIDx8A.txt", f"5 {split}.jpg COVID-19 cohen")
        image(raw / f"covid_chestxray/images/{split}.jpg")
    assert collect(raw).missing == ()


def test_other_data_sets_alone_are_split_by_patient(raw):
    for path in (raw / "labels").iterdir():
        path.unlink()
    (raw / "labels").rmdir()
    lines = [f"{i % 30},0,M,35,COVID-19,PA,X-ray,images,{i}.jpg" for i in range(60)]
    write(raw / "covid_chestxray/metadata.csv", COHEN, *lines)
    for i in range(60):
        image(raw / f"covid_chestxray/images/{i}.jpg")
    collection = collect(raw, test_fraction=0.5)
    splits = collections.defaultdict(set)
    for item in collection.items:
        if item.row.source == "covid_chestxray":
            splits[item.row.patient_id].add(item.row.split)
    assert len(splits) == 30
    assert {frozenset(found) for found in splits.values()} == {
        frozenset({"train"}), frozenset({"test"}),
    }
    without = [note for note in collection.notes if "is not used" in note]
    assert [note.split()[0] for note in without] == ["rsna_pneumonia/"]


def test_copies_in_the_radiography_database_are_left_out(raw):
    folder = raw / "covid19_radiography"
    book = openpyxl.Workbook()
    book.active.append(("FILE NAME", "FORMAT", "SIZE", "URL"))
    for i, url in enumerate(("https://sirm.org/x", "https://github.com/ieee8023/y", "n/a"), 1):
        book.active.append((f"COVID-{i}", "PNG", "256*256", url))
    folder.mkdir()
    book.save(folder / "COVID.metadata.xlsx")
    for i in (1, 3):
        image(folder / f"COVID/images/COVID-{i}.png")
    collection = collect(raw)
    names = {item.row.image_id for item in collection.items}
    assert {"COVID-1.png", "COVID-3.png"} <= names
    assert collection.missing == ()
    image(folder / "COVID/images/COVID-2.png")
    again = collect(raw)
    assert {item.row.image_id for item in again.items} == names
    fact = "1 images are copies of unknown images of other sources"
    assert any(fact in note for note in again.notes)


def test_a_folder_without_enough_says_what_is_needed(raw, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    (raw / "chestxray14").rename(alone / "chestxray14")
    with pytest.raises(UserError, match=r"alone holds .*at least one of: labels/"):
        collect(alone)
    with pytest.raises(UserError, match=r"raw holds covid_chestxray, labels of what is needed"):
        collect(raw)


def test_options_that_change_the_records_name_the_variant():
    config = cxr15.Cxr15Config
    assert config(map="x", images="y").name == config().name == "1024_hist_png"
    assert config(list_version="8b").name == "1024_hist_png_list-version-8B"
    with pytest.raises(UserError, match="list_version is"):
        config(list_version="8 B")


def test_real_images_with_the_published_lists(shared_data, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, target in {
        "chestxray14": "chestxray14",
        "labels": "covidx/labels",
        "rsna_to_chestxray14.csv": "covidx/rsna_to_chestxray14.csv",
        "covid19_image_repository": "covid19_image_repository",
    }.items():
        (raw / name).symlink_to(shared_data / target)
    collection = cxr15.Cxr15(config=cxr15.Cxr15Config(list_version="8B")).collect(raw)
    sources = collections.Counter(item.row.source for item in collection.items)
    assert sources["covid19_image_repository"] == 40
    # Of the 36 films of ChestX-ray14 those whose patient COVIDx tests are not there.
    assert 30 <= sources["chestxray14"] <= 36
    assert set(sources) == {"covid19_image_repository", "chestxray14"}
    overlap = "covid19_image_repository and covidx share films, and nothing tells which"
    assert any(note.startswith(overlap) for note in collection.notes)
    splits = collections.defaultdict(set)
    for item in collection.items:
        splits[item.row.patient_id].add(item.row.split)
    assert all(len(found) == 1 for found in splits.values())
