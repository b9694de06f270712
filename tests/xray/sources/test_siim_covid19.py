"""The SIIM-FISABIO-RSNA COVID-19 challenge: grades of studies, boxes as text, kinds of DICOM."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxcxr.data import preparation
from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.errors import UserError
from jaxcxr.xray.images import image_files
from jaxcxr.xray.sources import builder as xray
from jaxcxr.xray.sources import siim_covid19 as source
from tests.pose.sources import fuzz
from tests.xray.images import dicoms

PNEUMONIA = FINDINGS.index("Pneumonia")
# Lines of the challenge's own files.
STUDY_HEADER = (
    "id,Negative for Pneumonia,Typical Appearance,Indeterminate Appearance,Atypical Appearance"
)
IMAGE_HEADER = "id,boxes,label,StudyInstanceUID"
TWO_BOXES = (
    "\"[{'x': 789.28836, 'y': 582.43035, 'width': 1026.65662, 'height': 1917.30292}, "
    "{'x': 2245.91208, 'y': 591.20528, 'width': 1094.66162, 'height': 1761.54944}]\","
    "opacity 1 789.28836 582.43035 1815.94498 2499.73327 "
    "opacity 1 2245.91208 591.20528 3340.5737 2352.75472"
)
STUDIES = (STUDY_HEADER, "5776db0cec75_study,0,1,0,0", "ff0879eb20ed_study,1,0,0,0",
           "9d514ce429a7_study,0,0,1,0", "28dddc8559b2_study,0,0,0,1")
IMAGES = (IMAGE_HEADER, f"000a312787f2_image,{TWO_BOXES},5776db0cec75",
          "000c3a3f293f_image,,none 1 0 0 1 1,ff0879eb20ed",
          "0012ff7358bc_image,\"[{'x': 10, 'y': 20.5, 'width': 30, 'height': 12.25}]\","
          "opacity 1 10 20.5 40 32.75,9d514ce429a7",
          "001398f4ff4f_image,,none 1 0 0 1 1,28dddc8559b2",
          "001bd15d1891_image,,none 1 0 0 1 1,5776db0cec75")
META = ("patientid,studyid,series_id,imageid,SeriesNumber,InstanceNumber",
        "p1,5776db0cec75,s1,000a312787f2,1,1", "p2,ff0879eb20ed,s2,000c3a3f293f,,",
        "p1,9d514ce429a7,s3,0012ff7358bc,1,1", "p3,28dddc8559b2,s4,001398f4ff4f,1,1",
        "p1,5776db0cec75,s5,001bd15d1891,2,1")


def write(folder, studies=STUDIES, films=IMAGES, meta=None):
    for name, lines in ((source.STUDIES, studies), (source.IMAGES, films), (source.META, meta)):
        if lines:
            (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def film(raw, study, image, dataset):
    folder = raw / "train" / study / f"series-of-{image}"
    folder.mkdir(parents=True)
    return dicoms.saved(folder, dataset, f"{image}.dcm")


def values(seed=0):
    """12 bits in use, averaged without remainder when the side is halved."""
    pixels = np.random.default_rng(seed).integers(101, 3900, (64, 64), dtype=np.uint16)
    pixels[0, :2] = 101, 3900
    return pixels


@pytest.fixture
def raw(tmp_path):
    """Five images of four studies of three patients."""
    write(tmp_path)
    for line in META[1:]:
        patient, study, _, image, *_ = line.split(",")
        film(tmp_path, study, image, dicoms.radiograph(
            values(), PatientID=patient, PatientAge="", PatientSex="M", ViewPosition=""))
    return tmp_path


def read(raw, headers=None, val_fraction=0.0, test_fraction=0.0):
    table = source.read_table(raw, val_fraction, test_fraction, headers or {})
    return {row.image_id: row for row in table.rows}, table.notes


def collect(raw, **options):
    config = xray.UnsplitConfig(**options)
    return source.SiimCovid19(config=config).collect(raw)


def known(row):
    return {name: label for name, label in zip(FINDINGS, row.labels, strict=True) if label >= 0}


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def prepared(raw, out):
    """Records by image id, of all splits."""
    builder = preparation.prepare(
        source.NAME, out, raw=str(raw), size=32, workers=0, equalize="none"
    )
    decoders = {"image": tfds.decode.SkipDecoding()}
    return {
        text(record["image_id"]): (split, record)
        for split in builder.info.splits
        for record in builder.as_data_source(split, decoders=decoders)
    }


def test_prepared_records_hold_pixels_boxes_and_patient(raw, tmp_path):
    records = prepared(raw, tmp_path / "out")
    assert len(records) == 5
    split, record = records["0012ff7358bc"]
    assert (text(record["patient_id"]), text(record["source"])) == ("siim_covid19/p1", source.NAME)
    assert split == xray.split_of("siim_covid19/p1", 0.125, 0.2)
    assert (text(record["sex"]), record["age"], text(record["view"])) == ("M", -1, "")
    assert record["original_size"].tolist() == [64, 64]
    # The boxes are in pixels of the DICOM file, whatever its size.
    np.testing.assert_allclose(record["boxes"], [[PNEUMONIA, 5, 10.25, 15, 6.125]], rtol=1e-6)
    for kind in ("000c3a3f293f", "001398f4ff4f"):
        assert records[kind][1]["boxes"].shape == (0, 5)


def _inverted(pixels):
    return dicoms.radiograph(4001 - pixels, PhotometricInterpretation="MONOCHROME1")


def _jpeg_lossless(pixels):
    pytest.importorskip("libjpeg", reason="JPEG Lossless: pip install 'jaxcxr[dicom]'")
    return dicoms.as_jpeg_lossless(dicoms.radiograph(pixels), pixels)


@pytest.mark.parametrize("kind", [dicoms.radiograph, _inverted, _jpeg_lossless])
def test_all_kinds_of_dicom_give_the_same_picture(tmp_path, kind):
    write(tmp_path, STUDIES[:3:2], IMAGES[:3:2])
    film(tmp_path, "ff0879eb20ed", "000c3a3f293f", kind(values()))
    _, record = prepared(tmp_path, tmp_path / "out")["000c3a3f293f"]
    means = dicoms.stretched(values()).reshape(32, 2, 32, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(image_files.decode(record["image"]), means, atol=1.01)


def test_labels_are_what_the_grade_says_and_no_more(tmp_path):
    rows, _ = read(write(tmp_path))
    assert {name: known(row) for name, row in rows.items()} == {
        "000a312787f2": {"Pneumonia": 1, "COVID-19": 1},
        "000c3a3f293f": {"Pneumonia": 0},
        "0012ff7358bc": {"Pneumonia": 1},
        "001398f4ff4f": {"Pneumonia": 1},
        "001bd15d1891": {"Pneumonia": 1, "COVID-19": 1},
    }


def test_boxes_of_the_challenge_are_read(tmp_path):
    rows, _ = read(write(tmp_path))
    assert rows["000a312787f2"].boxes == (
        (PNEUMONIA, 789.28836, 582.43035, 1026.65662, 1917.30292),
        (PNEUMONIA, 2245.91208, 591.20528, 1094.66162, 1761.54944),
    )
    assert rows["000a312787f2"].box_size == (0, 0)
    assert rows["000c3a3f293f"].boxes == ()


def test_patients_come_from_the_headers_and_several_studies_share_one(raw):
    collection = collect(raw)
    patients = {item.row.image_id: item.row.patient_id for item in collection.items}
    assert patients == {
        line.split(",")[3]: f"siim_covid19/{line.split(',')[0]}" for line in META[1:]
    }
    assert not any("patients of their own" in note for note in collection.notes)


def test_patients_come_from_the_meta_table_where_there_are_no_images(tmp_path):
    rows, notes = read(write(tmp_path, meta=META), val_fraction=0.4, test_fraction=0.4)
    patients = {name: row.patient_id for name, row in rows.items()}
    assert patients == {
        line.split(",")[3]: f"siim_covid19/{line.split(',')[0]}" for line in META[1:]
    }
    assert all(row.split == xray.split_of(row.patient_id, 0.4, 0.4) for row in rows.values())
    assert not any("patients of their own" in note for note in notes)


def test_without_both_each_study_is_a_patient_and_a_note_warns(tmp_path):
    rows, notes = read(write(tmp_path))
    assert rows["000a312787f2"].patient_id == "siim_covid19/5776db0cec75"
    assert rows["001bd15d1891"].patient_id == "siim_covid19/5776db0cec75"
    assert notes[-1].startswith("4 studies count as patients of their own")


def test_an_image_without_header_belongs_to_the_patient_of_its_study(raw):
    path = next((raw / "train").glob("*/*/001bd15d1891.dcm"))
    path.write_bytes(b"broken")
    rows = {item.row.image_id: item.row for item in collect(raw).items}
    assert rows["001bd15d1891"].patient_id == "siim_covid19/p1"


def test_boxes_that_are_absent_or_not_to_be_expected_are_noted(tmp_path):
    films = [*IMAGES, "new_image,\"[{'x': 1, 'y': 2, 'width': 3, 'height': 4}]\","
             "opacity 1 1 2 4 6,ff0879eb20ed"]
    _, notes = read(write(tmp_path, [*STUDIES, "empty_study,0,0,0,1"], films, META))
    assert set(notes) == {
        "2 images have no box although their study is not negative: 001398f4ff4f, 001bd15d1891",
        "1 images have boxes although their study is negative: new",
        "1 studies have no image: empty",
    }


def test_lateral_absent_and_unlisted_images_are_named(raw):
    paths = {path.stem: path for path in (raw / "train").glob("*/*/*.dcm")}
    paths["000c3a3f293f"].unlink()
    paths["001398f4ff4f"].rename(paths["001398f4ff4f"].with_name("unlisted.dcm"))
    dicoms.saved(paths["001bd15d1891"].parent, dicoms.radiograph(values(), ViewPosition="LL"),
                 "001bd15d1891.dcm")
    collection = collect(raw)
    assert [item.row.image_id for item in collection.items] == ["000a312787f2", "0012ff7358bc"]
    assert collection.missing == ("000c3a3f293f", "001398f4ff4f")
    assert "1 images are lateral and left out: 001bd15d1891" in collection.notes
    assert "1 images have no row and are left out: unlisted" in collection.notes


def test_other_headers_than_the_meta_table_are_an_error(raw):
    write(raw, meta=[*META[:-1], META[-1].replace("p1", "p4")])
    with pytest.raises(UserError, match=r"meta\.csv:6: the patient of study 5776db0cec75 is p4"):
        collect(raw)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("new_study,0,0,0,0", "the grades are '0,0,0,0'; expected 1 for one of Negative"),
        ("new_study,1,1,0,0", "the grades are '1,1,0,0'"),
        ("new_study,1,0,0,", "the grades are '1,0,0,'"),
        ("new_study,1,0,0,-1", "the grades are '1,0,0,-1'"),
        ("new_image,1,0,0,0", "the id 'new_image' is invalid; expected a name with _study"),
        ("_study,1,0,0,0", "the id '_study' is invalid"),
        ("ff0879eb20ed_study,1,0,0,0", "a second row for ff0879eb20ed"),
        ("new_study,1,0,0", "4 cells; 5 are expected"),
    ],
)
def test_wrong_studies_are_named_with_their_line(tmp_path, line, message):
    with pytest.raises(UserError, match=rf"train_study_level\.csv:6: {message}"):
        read(write(tmp_path, [*STUDIES, line]))


ONE = "[{'x': 1, 'y': 2, 'width': 3, 'height': 4}]"


@pytest.mark.parametrize(
    ("boxes", "label", "message"),
    [
        (ONE, "opacity 1 1 2 4 6.02", "the 1 boxes .* are not the 1 of the column label"),
        (ONE, "opacity 1 1 2 3 4", "are not the 1"),
        (ONE, "none 1 0 0 1 1", "the 1 boxes .* are not the 0"),
        ("", "opacity 1 1 2 4 6", "the 0 boxes .* are not the 1"),
        (ONE, "opacity 1 1 2 4 6 opacity 1 1 2 4 6", "the 1 boxes .* are not the 2"),
        (ONE, "opacity 1 nan 2 4 6", "are not the 1"),
        ("", "", "the label '' is neither"),
        (ONE, "opacity 0.5 1 2 4 6", "the label 'opacity 0.5 .* neither"),
        (ONE, "opacity 1 1 2 4", "the label 'opacity 1 1 2 4' is neither"),
        (ONE, "none 1 0 0 1 1 opacity 1 1 2 4 6", "the label 'none .* neither"),
        (ONE, "opacity 1 1 2 x 6", "the label .* neither 'none 1 0 0 1 1' nor boxes such as"),
        ("[]", "none 1 0 0 1 1", r"the boxes '\[\]' are none; expected entries such as"),
        ("[1]", "none 1 0 0 1 1", r"the boxes '\[1\]' are none"),
        ("1", "none 1 0 0 1 1", "the boxes '1' are none"),
        ("{'x': 1}", "none 1 0 0 1 1", "are none"),
        ("__import__('os')", "none 1 0 0 1 1", "are none"),
        ("[" * 5000, "none 1 0 0 1 1", "are none"),
        (ONE.replace("'width': 3, ", ""), "none 1 0 0 1 1", "are none"),
        (ONE.replace("3", "0"), "opacity 1 1 2 1 6", "are none"),
        (ONE.replace("3", "NaN"), "opacity 1 1 2 1 6", "are none"),
        (ONE.replace("3", "1e999"), "opacity 1 1 2 1 6", "are none"),
        (ONE.replace("3", "true"), "opacity 1 1 2 2 6", "are none"),
        (ONE.replace("3", "'3'"), "opacity 1 1 2 4 6", "are none"),
        (ONE.replace("3", "9" * 5000), "opacity 1 1 2 4 6", "are none"),
    ],
)
def test_boxes_that_are_none_or_differ_between_the_columns_are_named(
    tmp_path, boxes, label, message
):
    films = [*IMAGES, f'new_image,"{boxes}",{label},ff0879eb20ed']
    with pytest.raises(UserError, match=rf"train_image_level\.csv:7: .*{message}"):
        read(write(tmp_path, films=films))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("new_image,,none 1 0 0 1 1,other", "the study 'other' is not in .*train_study_level"),
        ("new_study,,none 1 0 0 1 1,ff0879eb20ed", "the id 'new_study' is invalid"),
        ("000c3a3f293f_image,,none 1 0 0 1 1,ff0879eb20ed", "a second row for 000c3a3f293f"),
        ("new_image,[{'x': 1, 'y': 2}],none 1 0 0 1 1,ff0879eb20ed", "5 cells; 4 are expected"),
    ],
)
def test_wrong_images_are_named_with_their_line(tmp_path, line, message):
    with pytest.raises(UserError, match=rf"train_image_level\.csv:7: {message}"):
        read(write(tmp_path, films=[*IMAGES, line]))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (",s,1,i,1,1", "'' is not a patientid"),
        ("p1,ff0879eb20ed,1,0012ff7358bc,1,1", "study of 0012ff7358bc is .* but 9d514ce429a7 in"),
        ("p9,ff0879eb20ed,1,other,1,1", "the patient of study ff0879eb20ed is p9, but p2"),
    ],
)
def test_a_wrong_meta_table_is_named_with_its_line(tmp_path, line, message):
    with pytest.raises(UserError, match=rf"train_meta\.csv:7: .*{message}"):
        read(write(tmp_path, meta=[*META, line]))


@pytest.mark.parametrize("name", [source.STUDIES, source.IMAGES, source.META])
def test_damaged_files_raise_only_user_errors(tmp_path, name):
    path = write(tmp_path, meta=META) / name
    valid = path.read_bytes()

    def write_and_read(content):
        path.write_bytes(content)
        read(tmp_path)

    fuzz.assert_only_user_errors(write_and_read, valid, name)


@pytest.mark.parametrize("name", [source.STUDIES, source.IMAGES])
def test_an_absent_file_is_named(tmp_path, name):
    (write(tmp_path) / name).unlink()
    with pytest.raises(UserError, match=f"{name} cannot be read: No such file"):
        read(tmp_path)
