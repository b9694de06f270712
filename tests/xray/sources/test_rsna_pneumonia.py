"""The RSNA Pneumonia Detection Challenge: repeated rows, images for patients, DICOM headers."""

import collections
import shutil
import warnings

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxcxr.data import preparation
from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.errors import UserError
from jaxcxr.xray.images import image_files
from jaxcxr.xray.sources import builder as xray
from jaxcxr.xray.sources import rsna_pneumonia as source
from jaxcxr.xray.sources import rsna_pneumonia as table
from tests.pose.sources import fuzz
from tests.xray.images import dicoms

SKIP = {"image": tfds.decode.SkipDecoding()}
PNEUMONIA = FINDINGS.index("Pneumonia")
# The first ids of the data set, and what its csv files say of them.
NORMAL = "000924cf-0f8d-42bd-9158-1af53881a557"
OTHER = "0004cfab-14fd-4e49-80ba-63a80b6bddd6"
OPAQUE = "00436515-870c-4b36-a041-de91049b9ab4"
LABELS = ("patientId,x,y,width,height,Target", f"{OTHER},,,,,0", f"{NORMAL},,,,,0",
          f"{OPAQUE},264.0,152.0,213.0,379.0,1", f"{OPAQUE},562.0,152.0,256.0,453.0,1")
CLASSES = ("patientId,class", f"{OTHER},No Lung Opacity / Not Normal", f"{NORMAL},Normal",
           f"{OPAQUE},Lung Opacity", f"{OPAQUE},Lung Opacity")
MAP = ("rsna_patientId,chestxray14_image,mse", f"{OTHER},00019124_092.png,1.8079",
       f"{NORMAL},00029180_002.png,1.2006", f"{OPAQUE},00019124_014.png,9.99")
BOXES = ((PNEUMONIA, 264, 152, 213, 379), (PNEUMONIA, 562, 152, 256, 453))


def write(folder, labels=LABELS, classes=CLASSES, **others):
    for name, lines in {table.LABELS: labels, table.CLASSES: classes, **others}.items():
        path = folder / (name if "." in name else f"{name}.csv")
        path.write_text("\n".join(lines) + "\n")
    return folder


def film(folder, image_id, seed, **tags):
    """A DICOM of the challenge: the patient's id is the image's, an age has no unit."""
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64), dtype=np.uint8)
    folder.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Invalid value for VR AS")
        dataset = dicoms.radiograph(pixels, PatientID=image_id, **tags)
        dicoms.saved(folder, dataset, f"{image_id}.dcm")
    return pixels


@pytest.fixture
def raw(tmp_path):
    """Three images with csv files and map."""
    raw = write(tmp_path, rsna_to_chestxray14=MAP)
    folder = raw / "stage_2_train_images"
    film(folder, OTHER, 1, PatientAge="51", PatientSex="F", ViewPosition="PA")
    film(folder, NORMAL, 2, PatientAge="148", PatientSex="M", ViewPosition="AP")
    film(folder, OPAQUE, 3, PatientAge="7", PatientSex="", ViewPosition="AP")
    return raw


def read(raw, *places, val_fraction=0.0, test_fraction=0.0):
    content = table.read_table(raw, val_fraction, test_fraction, *places)
    return {row.image_id: row for row in content.rows}, content.notes


def collect(raw, **options):
    config = source.RsnaPneumoniaConfig(**options)
    return source.RsnaPneumonia(config=config).collect(raw)


def known(row):
    return {name: label for name, label in zip(FINDINGS, row.labels, strict=True) if label >= 0}


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def test_prepared_records_hold_pixels_boxes_and_header(raw, tmp_path):
    pixels = film(raw / "stage_2_train_images", OPAQUE, 3, PatientAge="7", ViewPosition="AP")
    builder = preparation.prepare(
        source.NAME, tmp_path / "out", raw=str(raw), map=str(raw / source._MAP), size=32,
        workers=0, equalize="none", val_fraction=0.0, test_fraction=0.0,
    )
    assert builder.builder_config.name == "32_none_png_val0_test-fraction-0.0_patients-chestxray14"
    records = {
        text(record["image_id"]): record
        for record in builder.as_data_source("train", decoders=SKIP)
    }
    assert records.keys() == {NORMAL, OTHER, OPAQUE}
    record = records[OPAQUE]
    assert (text(record["patient_id"]), text(record["source"])) == ("00019124", "rsna_pneumonia")
    assert (text(record["view"]), text(record["sex"]), record["age"]) == ("AP", "F", 7)
    expected = np.array(BOXES, float) * [1, *[32 / 1024] * 4]
    np.testing.assert_allclose(record["boxes"], expected, rtol=1e-6)
    means = dicoms.stretched(pixels).reshape(32, 2, 32, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(image_files.decode(record["image"]), means, atol=0.51)


def test_labels_are_what_the_class_says_and_no_more(raw):
    rows, _ = read(raw)
    assert known(rows[NORMAL]) == dict.fromkeys(FINDINGS, 0)
    assert known(rows[OTHER]) == {"Pneumonia": 0, "COVID-19": 0}
    assert known(rows[OPAQUE]) == {"Pneumonia": 1, "COVID-19": 0}


def test_rows_repeated_per_box_become_one_row_with_all_boxes(raw):
    rows, _ = read(raw)
    assert [rows[name].boxes for name in (OTHER, NORMAL, OPAQUE)] == [(), (), BOXES]
    assert rows[OPAQUE].box_size == (1024, 1024)


def test_a_box_that_is_given_twice_counts_once_and_the_order_of_columns_is_free(tmp_path):
    labels = ["Target,height,width,y,x,patientId", f"1,379,213,152,264,{OPAQUE}"]
    labels.append(labels[-1])
    rows, _ = read(write(tmp_path, labels, (CLASSES[0], *CLASSES[3:])))
    assert rows[OPAQUE].boxes == BOXES[:1]


def test_headers_give_view_sex_and_age_without_unit(raw):
    rows = {item.row.image_id: item.row for item in collect(raw).items}
    described = {name: (row.view, row.sex, row.age) for name, row in rows.items()}
    assert described == {OTHER: ("PA", "F", 51), NORMAL: ("AP", "M", -1), OPAQUE: ("AP", "", 7)}


def test_copies_as_png_are_found_and_tell_nothing_of_the_patient(raw):
    path = raw / "stage_2_train_images" / f"{OTHER}.dcm"
    path.unlink()
    Image.fromarray(np.zeros((256, 256), np.uint8)).save(path.with_suffix(".png"))
    item = next(item for item in collect(raw).items if item.row.image_id == OTHER)
    assert item.path == str(path.with_suffix(".png"))
    assert (item.row.view, item.row.sex, item.row.age) == ("", "", -1)


def test_absent_unlisted_and_broken_images_are_named(raw, tmp_path):
    folder = raw / "stage_2_train_images"
    (folder / f"{OTHER}.dcm").rename(folder / "unlisted.dcm")
    (folder / f"{NORMAL}.dcm").write_bytes(b"broken")
    collection = collect(raw)
    assert collection.missing == (OTHER,)
    assert "1 images have no row and are left out: unlisted" in collection.notes
    options = {"raw": str(raw), "size": 32, "workers": 0, "allow_missing": True}
    with pytest.raises(UserError, match=rf"1 bad records(.|\n)*{NORMAL}\.dcm"):
        preparation.prepare(source.NAME, tmp_path / "out", **options)


def test_without_map_each_image_is_a_patient_and_a_note_warns(raw):
    rows, notes = read(raw)
    assert rows[OTHER].patient_id == f"rsna_pneumonia/{OTHER}"
    assert len({row.patient_id for row in rows.values()}) == 3
    assert "patients are unknown" in notes[0]
    assert "--map FILE" in notes[0]


def test_with_map_films_of_one_person_share_the_id_of_chestxray14(raw):
    rows, notes = read(raw, raw / source._MAP, val_fraction=0.4, test_fraction=0.4)
    assert {name: row.patient_id for name, row in rows.items()} == {
        OTHER: "00019124", NORMAL: "00029180", OPAQUE: "00019124",
    }
    assert all(row.split == xray.split_of(row.patient_id, 0.4, 0.4) for row in rows.values())
    assert notes == ()


def test_a_match_of_different_pixels_is_none(raw):
    (raw / source._MAP).write_text("\n".join([*MAP[:3], MAP[3].replace("9.99", "10")]))
    rows, notes = read(raw, raw / source._MAP)
    assert rows[OPAQUE].patient_id == f"rsna_pneumonia/{OPAQUE}"
    assert notes == (
        f"1 images match none of ChestX-ray14 and count as patients of their own: {OPAQUE}",
    )


def test_official_split_tests_on_the_patients_of_the_test_list_alone(raw):
    (raw / "test_list.txt").write_text("00019124_001.png\n00000003_000.png\n")
    places = raw / source._MAP, raw / "test_list.txt"
    rows, _ = read(raw, *places, test_fraction=0.9)
    assert {name: row.split for name, row in rows.items()} == {
        OTHER: "test", OPAQUE: "test", NORMAL: "train",
    }
    by_option = collect(raw, split="chestxray14", patients="chestxray14", test_fraction=0.8)
    assert {item.row.image_id: item.row.split for item in by_option.items} == {
        OTHER: "test", OPAQUE: "test", NORMAL: xray.split_of("00029180", 0.125),
    }


def test_files_given_imply_the_options_that_name_the_variant(tmp_path):
    config = source.RsnaPneumoniaConfig
    assert config(map="m", test_list="t").name == config(
        patients="chestxray14", split="chestxray14"
    ).name == "1024_hist_png_patients-chestxray14_split-chestxray14"
    with pytest.raises(UserError, match="needs to know the patients; give --map FILE"):
        config(test_list="t")
    with pytest.raises(UserError, match="patients is 'nih'; allowed: image, chestxray14"):
        config(patients="nih")
    with pytest.raises(UserError, match=r"rsna_to_chestxray14\.csv cannot be read: No such file"):
        collect(write(tmp_path), patients="chestxray14")


@pytest.fixture
def everything(shared_data, tmp_path):
    """All 26,684 ids as normal images, with the real map."""
    real = shared_data / "covidx/rsna_to_chestxray14.csv"
    ids = [line.split(",")[0] for line in real.read_text().split()[1:]]
    write(tmp_path, [LABELS[0], *(f"{name},,,,,0" for name in ids)],
          [CLASSES[0], *(f"{name},Normal" for name in ids)])
    return real, tmp_path


def test_the_real_map_tells_the_patients_of_all_but_98_images(everything, shared_data):
    real, raw = everything
    tests = shared_data / "chestxray14/test_list.txt"
    content = table.read_table(raw, 0.125, 0.0, real, tests)
    matched = [row for row in content.rows if "/" not in row.patient_id]
    assert (len(content.rows), len(matched)) == (26684, 26586)
    assert content.notes[0].startswith("98 images match none of ChestX-ray14")
    splits = collections.defaultdict(set)
    for row in content.rows:
        splits[row.split].add(row.patient_id)
    assert not splits["test"] & (splits["train"] | splits["validation"])
    assert not splits["train"] & splits["validation"]
    # A split of ChestX-ray14 is by patient, so its list must say the same of each image.
    listed = set(tests.read_text().split())
    images_of = dict(line.split(",")[:2] for line in real.read_text().split()[1:])
    assert all((row.split == "test") == (images_of[row.image_id] in listed) for row in matched)


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([*LABELS, f"{OPAQUE},,,,,0"], CLASSES, r"labels\.csv:6: Target is 0 .* but 1 at .*csv:4"),
        ([*LABELS, f"{OTHER},1,1,1,1,0"], CLASSES, r"labels\.csv:6: Target is 0, but there is a"),
        ([*LABELS, f"{OPAQUE},1,1,,,1"], CLASSES, r"labels\.csv:6: Target is 1, but x,y.*'1,1,,'"),
        ([*LABELS, f"{OPAQUE},1,1,nan,1,1"], CLASSES, r"labels\.csv:6: .* 1024 x 1024"),
        ([*LABELS, f"{OPAQUE},1,1,0,9,1"], CLASSES, r"labels\.csv:6: .* 1024 x 1024"),
        ([*LABELS, f"{OPAQUE},1024,1,5,9,1"], CLASSES, r"labels\.csv:6: .* 1024 x 1024"),
        ([*LABELS, f"{OPAQUE},1,1,5,inf,1"], CLASSES, r"labels\.csv:6: .* 1024 x 1024"),
        ([*LABELS, f"{OPAQUE},,,,,2"], CLASSES, r"labels\.csv:6: Target is '2'; expected 0 or"),
        ([*LABELS, ",,,,,0"], CLASSES, r"labels\.csv:6: '' is not a patientId"),
        ([*LABELS, "new,,,,,0"], CLASSES, r"labels\.csv:6: new has no line in .*class_info\.csv"),
        (LABELS, [*CLASSES, "new,Normal"], r"info\.csv:6: new has no line in .*labels\.csv"),
        (LABELS, [*CLASSES, f"{NORMAL},normal"], r"info\.csv:6: the class 'normal' is not one of"),
        (LABELS, [*CLASSES, f"{OTHER},Normal"], r"info\.csv:6: .* 'Normal', but 'No Lung .*csv:2"),
        (LABELS, [*CLASSES[:-3], f"{NORMAL},Lung Opacity", CLASSES[-1]],
         r"info\.csv:3: .* 'Lung Opacity', but its Target is 0 at .*labels\.csv:3"),
        (LABELS, [*CLASSES[:-2], f"{OPAQUE},Normal"],
         r"info\.csv:4: .* 'Normal', but its Target is 1 at .*labels\.csv:4"),
        ([*LABELS, OTHER], CLASSES, r"labels\.csv:6: 1 cells; 6 are expected"),
        ([LABELS[0].replace("Target", "goal")], CLASSES, r"labels\.csv:1: no column 'Target'"),
        (LABELS, [f"{CLASSES[0]},class", f"{OTHER},a,b"], r"info\.csv:1: several columns 'class'"),
        (LABELS[:1], CLASSES, r"labels\.csv: no line with data"),
        (LABELS, [*CLASSES, '"open'], r"info\.csv:6: not a csv file"),
    ],
)
def test_contradictions_and_wrong_forms_are_named_with_their_line(
    tmp_path, labels, classes, message
):
    with pytest.raises(UserError, match=message):
        read(write(tmp_path, labels, classes))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["patientId,image,mse"], r"14\.csv:1: no column 'rsna_patientId'"),
        ([*MAP, MAP[1]], r"14\.csv:5: a second line for .*14\.csv:2"),
        ([*MAP, "new,00019124.png,1"], r"14\.csv:5: 'new' and '00019124\.png' are no patientId"),
        ([*MAP, "new,00019124_000.png,"], r"14\.csv:5: mse is ''; a number from 0 on"),
        ([*MAP, "new,00019124_000.png,-1"], r"14\.csv:5: mse is '-1'"),
        ([MAP[0], "new,00019124_000.png,1"], r"14\.csv: none of the 3 images matches"),
    ],
)
def test_a_wrong_map_is_named_with_its_line(raw, lines, message):
    (raw / source._MAP).write_text("\n".join(lines))
    with pytest.raises(UserError, match=message):
        read(raw, raw / source._MAP)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no image in it"),
     (b"00000003_000.png\n3.png", r"list\.txt:2: '3\.png' is not an image"),
     (b"00000003_000.png\n\x81", r"list\.txt:2: not in UTF-8")],
)
def test_a_wrong_test_list_is_named_with_its_line(raw, content, message):
    (raw / "test_list.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(raw, raw / source._MAP, raw / "test_list.txt")


@pytest.mark.parametrize("name", [table.LABELS, table.CLASSES, source._MAP, "test_list.txt"])
def test_damaged_files_raise_only_user_errors(raw, name):
    shutil.rmtree(raw / "stage_2_train_images")
    (raw / "test_list.txt").write_text("00019124_001.png\n")
    path = raw / name
    valid = path.read_bytes()

    def write_and_read(content):
        path.write_bytes(content)
        read(raw, raw / source._MAP, raw / "test_list.txt")

    fuzz.assert_only_user_errors(write_and_read, valid, name)
    path.unlink()
    with pytest.raises(UserError, match=f"{name} cannot be read: No such file"):
        read(raw, raw / source._MAP, raw / "test_list.txt")
