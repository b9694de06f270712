"""VinDr-CXR: votes of readers, their agreement, boxes, both layouts."""

import numpy as np
import pytest

from jaxcxr.errors import UserError
from jaxcxr.xray.sources import vindr_cxr
from tests.xray.images import dicoms
from tests.xray.sources import layouts

HEADER = "image_id,rad_id,Aortic enlargement,Cardiomegaly,Nodule/Mass,Other diseases,No finding"
READINGS = ("a,R1,1,0,0,0,0", "a,R2,1,1,0,0,0", "a,R3,0,1,1,0,0",
            "b,R1,0,0,0,0,1", "b,R2,0,0,0,0,1", "b,R3,0,0,0,1,0")  # fmt: skip
BOXES = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max"


@pytest.fixture
def physionet(tmp_path):
    """Two training films of three readers and a test film by consensus, as DICOM."""
    root = tmp_path / "raw"
    layouts.text(root / "annotations/image_labels_train.csv", HEADER, *READINGS)
    layouts.text(root / "annotations/image_labels_test.csv", HEADER.replace("rad_id,", ""),
                 "c,0,1,0,0,0")
    layouts.text(root / "annotations/annotations_train.csv", BOXES,
                 "a,R2,Cardiomegaly,4,8,24,28", "a,R3,Nodule/Mass,1,1,5,5", "b,R1,No finding,,,,")
    layouts.text(root / "annotations/annotations_test.csv", BOXES.replace("rad_id,", ""),
                 "c,Cardiomegaly,0,0,10,10")
    for name in ("train/a", "train/b", "test/c"):
        (root / name).parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(len(name)).integers(0, 4000, (64, 32)).astype(np.uint16)
        folder, _, file = name.partition("/")
        dicoms.saved(root / folder, dicoms.radiograph(pixels), f"{file}.dicom")
    return root


def known(rows, image):
    return layouts.labels(rows)[image]


def test_the_majority_of_readers_decides(physionet, tmp_path, capsys):
    rows = layouts.prepared("vindr_cxr", physionet, tmp_path / "out", val_fraction=0.0)
    assert known(rows, "a") == {"Aortic enlargement": 1, "Cardiomegaly": 1, "Nodule/Mass": 0,
                                "Other disease": 0}
    assert known(rows, "b")["Other disease"] == 0
    assert dict(zip(rows.image_id.tolist(), rows.split.tolist(), strict=True)) == {
        "a": "train", "b": "train", "c": "test"
    }
    boxes = {str(n): b.tolist() for n, b in zip(rows.image_id, rows.boxes, strict=True)}
    heart = rows.classes.index("Cardiomegaly")
    assert boxes["a"] == [[heart, 4, 4, 20, 10]]  # 64 x 32 pixels became 32 x 32
    assert boxes["b"] == []
    said = capsys.readouterr()
    assert "patients are not published" in said.err
    assert "2 images of 3 readers" in said.out


def test_any_reader_is_enough_by_option(physionet, tmp_path):
    rows = layouts.prepared("vindr_cxr", physionet, tmp_path / "out", readers="any")
    assert known(rows, "a")["Nodule/Mass"] == 1
    assert known(rows, "b")["Other disease"] == 1
    i = rows.image_id.tolist().index("a")
    assert len(rows.boxes[i]) == 2


def test_two_readers_who_differ_leave_it_unknown():
    assert vindr_cxr._vote([1, 0], False) == vindr_cxr.UNCERTAIN
    assert vindr_cxr._vote([1, 0], True) == 1
    assert vindr_cxr._vote([1, 1, 0, 0, 1], False) == 1


def test_agreement_is_that_of_pairs_and_kappa_is_fleiss(capsys):
    # Fleiss' kappa by its definition: 4 images, 3 readers, votes 3, 2, 0, 0.
    readings = {
        str(i): {f"R{r}": {"Cardiomegaly": int(r < votes)} for r in range(3)}
        for i, votes in enumerate((3, 2, 0, 0))
    }
    vindr_cxr.show_agreement("x", readings)
    pairs = (1 + 1 / 3 + 1 + 1) / 4
    share = 5 / 12
    chance = share**2 + (1 - share) ** 2
    said = capsys.readouterr().out
    assert f"{pairs:.1%}" in said
    assert f"{(pairs - chance) / (1 - chance):.2f}" in said


def test_kaggle_counts_readers_and_needs_sizes_for_copies(tmp_path, capsys):
    root = tmp_path / "raw"
    layouts.text(root / "train.csv", "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max",
                 "a,Pleural effusion,10,R8,10,20,30,40", "a,Pleural effusion,10,R9,12,20,30,40",
                 "a,Cardiomegaly,3,R8,1,1,9,9", "a,No finding,14,R10,,,,",
                 "b,No finding,14,R8,,,,", "b,No finding,14,R9,,,,", "b,No finding,14,R10,,,,")
    for name in "ab":
        layouts.film(root / f"train/{name}.png")
    options = {"val_fraction": 0.0, "test_fraction": 0.0, "schema": "cxr15"}
    rows = layouts.prepared("vindr_cxr", root, tmp_path / "out", **options)
    assert known(rows, "a")["Effusion"] == 1
    assert known(rows, "a")["Cardiomegaly"] == 0
    assert known(rows, "b")["Effusion"] == 0
    assert "Emphysema" not in known(rows, "b")  # Kaggle's challenge has 14 of the findings
    assert "1 images lose their boxes" in capsys.readouterr().err
    layouts.text(root / "train_meta.csv", "image_id,dim0,dim1", "a,480,400", "b,480,400")
    by_meta = layouts.prepared("vindr_cxr", root, tmp_path / "meta", **options)
    (root / "train_meta.csv").unlink()
    lines = (root / "train.csv").read_text().splitlines()
    sized = [lines[0] + ",width,height", *(f"{line},400,480" for line in lines[1:])]
    layouts.text(root / "train.csv", *sized)
    by_columns = layouts.prepared("vindr_cxr", root, tmp_path / "columns", **options)
    for rows in (by_meta, by_columns):
        boxes = rows.boxes[rows.image_id.tolist().index("a")]
        np.testing.assert_allclose(boxes[0, 1:], [0.8, 20 / 15, 1.6, 20 / 15], rtol=1e-5)


@pytest.mark.parametrize(("line", "message"), [
    ("a,Cough,1,R1,,,,", "'Cough' is no finding of VinDr-CXR"),
    ("a,Cardiomegaly,3,R1,9,9,1,1", "x_min,y_min,x_max,y_max are 9,9,1,1; no box"),
])
def test_malformed_rows(tmp_path, line, message):
    layouts.text(tmp_path / "train.csv",
                 "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max", line)
    with pytest.raises(UserError, match=message):
        layouts.prepared("vindr_cxr", tmp_path, tmp_path / "out")


@pytest.mark.parametrize("name", ["vindr", "vindr_kaggle"])
def test_miniature_tables(shared_cases, tmp_path, name):
    raw = shared_cases / "cxr/external_layouts" / name
    with pytest.raises(UserError, match="none of the 5 listed images is there"):  # it has none
        layouts.prepared("vindr_cxr", raw, tmp_path / "out")
