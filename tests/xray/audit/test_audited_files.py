"""The readers of `jaxcxr audit`: damaged files of every form, and what each form becomes."""

import itertools

import numpy as np
import pyarrow.parquet
import pytest

from jaxcxr.errors import UserError
from jaxcxr.xray.audit import audit_result, audited_files
from jaxcxr.xray.images import manifest
from tests.pose.sources import fuzz

CSV = (
    b"image_id,patient_id,split,source,view,sex,age,sha256,phash,label_Mass,label_Edema\n"
    b"a.png,1,train,north,pa,Female,057Y,,12,1,\n"
    b"b.png,1,val,north,AP,m,411,,18446744073709551615,0,-1\n"
)
DATA_ENTRY = (
    b"Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,\n"
    b"00000001_000.png,Mass|Edema,0,1,57,M,PA,\n00000002_000.png,No Finding,0,2,60,F,AP,\n"
)
LIST = b"1 a.png positive cohen\n2 b.png negative actmed\n"
RSNA = "0004cfab-14fd-4e49-80ba-63a80b6bddd6"
MAP = f"rsna_patientId,chestxray14_image,mse\n{RSNA},00000007_000.png,1.5\n".encode()
FORMS = {"a.csv": CSV, "Data_Entry_2017.csv": DATA_ENTRY, "train_X.txt": LIST, "map.csv": MAP}


@pytest.mark.parametrize("name", FORMS)
def test_damaged_files_are_user_errors(name, tmp_path):
    (tmp_path / "test_X.txt").write_bytes(LIST)
    (tmp_path / "list.csv").write_text(f"image_id,source\n{RSNA}.png,rsna\n")

    def write_and_read(content):
        path = tmp_path / name
        path.write_bytes(content)
        if name == "map.csv":
            data_sets = audited_files.load([tmp_path / "list.csv"], path)
        else:
            data_sets = audited_files.load(
                [path, tmp_path / "test_X.txt"] if name == "train_X.txt" else [path]
            )
        audit_result.audit(data_sets)

    fuzz.assert_only_user_errors(write_and_read, FORMS[name], named=name)


def test_damaged_manifests_are_user_errors(tmp_path):
    path = tmp_path / "a.parquet"
    rows = manifest.from_rows(
        [{"image_id": "a", "split": "train", "labels": (1, 0)}], ("Mass", "Edema")
    )
    pyarrow.parquet.write_table(manifest.to_table(rows), path)

    def write_and_read(content):
        path.write_bytes(content)
        audit_result.audit(audited_files.load([path]))

    fuzz.assert_only_user_errors(write_and_read, path.read_bytes(), named="a.parquet", examples=50)


def test_a_csv_becomes_a_manifest(tmp_path):
    (tmp_path / "a.csv").write_bytes(CSV)
    data_set, = audited_files.load([tmp_path / "a.csv"])
    rows = data_set.rows
    assert rows.split.tolist() == ["train", "validation"]
    assert rows.patient_id.tolist() == ["north/1", "north/1"]
    assert rows.view.tolist() == ["PA", "AP"]
    assert rows.sex.tolist() == ["F", "M"]
    assert rows.age.tolist() == [57, -1]
    assert rows.phash.tolist() == [12, 2**64 - 1]
    assert rows.classes == ("Mass", "Edema")
    assert rows.labels.tolist() == [[1, -1], [0, -1]]
    assert data_set.identity.tolist() == ["north/a.png", "north/b.png"]


def test_a_data_entry_csv_has_chestxray14s_names(tmp_path):
    (tmp_path / "Data_Entry_2017.csv").write_bytes(DATA_ENTRY)
    data_set, = audited_files.load([tmp_path / "Data_Entry_2017.csv"])
    rows = data_set.rows
    assert (data_set.name, set(rows.split)) == ("chestxray14", {audited_files.UNSPLIT})
    assert rows.patient_id.tolist() == ["00000001", "00000002"]
    assert rows.labels[0][[rows.classes.index(name) for name in ("Mass", "Edema")]].all()
    assert rows.labels.sum() == 2


def test_data_sets_of_other_classes_are_unknown_there():
    rows = [{"image_id": name, "split": "test", "labels": (value,)}
            for name, value in (("a", 1), ("b", 0))]
    parts = [manifest.from_rows(rows, (name,)) for name in ("Mass", "Edema")]
    joined = audited_files.concatenate(parts)
    assert joined.classes == ("Mass", "Edema")
    np.testing.assert_array_equal(joined.labels, [[1, -1], [0, -1], [-1, 1], [-1, 0]])


def test_an_empty_manifest_is_no_accident(tmp_path):
    pyarrow.parquet.write_table(manifest.to_table(manifest.from_rows([], ("Mass",))),
                                tmp_path / "a.parquet")
    result = audit_result.audit(audited_files.load([tmp_path / "a.parquet"]))
    assert (result["leaks"], result["tables"]) == (0, [])


def test_the_rsnas_images_are_the_same_in_every_list(tmp_path):
    (tmp_path / "a.csv").write_text(f"image_id,source\n{RSNA},rsna_pneumonia\n{RSNA},north\n")
    for split in ("train", "test"):
        (tmp_path / f"{split}_X.txt").write_text(f"{RSNA} {RSNA}.png negative rsna\n")
    known = audited_files.load([tmp_path / f"{name}" for name in (
        "a.csv", "train_X.txt", "test_X.txt")])
    assert [data_set.identity.tolist() for data_set in known] == [
        [f"rsna_pneumonia/{RSNA}", f"north/{RSNA}"], [f"rsna_pneumonia/{RSNA}"] * 2,
    ]


def test_splits_of_a_manifest(tmp_path):
    path = tmp_path / "a.parquet"
    for split, expected in (("", audited_files.UNSPLIT), ("test", "test")):
        rows = manifest.from_rows([{"image_id": "a", "split": split, "labels": (1,)}], ("Mass",))
        pyarrow.parquet.write_table(manifest.to_table(rows), path)
        assert audited_files.load([path])[0].rows.split.tolist() == [expected]
    rows.split[:] = "tset"
    pyarrow.parquet.write_table(manifest.to_table(rows), path)
    with pytest.raises(UserError, match=r"a.parquet: 'tset' is not a split"):
        audited_files.load([path])


def test_names_of_data_sets_differ(tmp_path):
    paths = [tmp_path / folder / "a.csv" for folder in "xyz"]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(CSV)
    names = [data_set.name for data_set in audited_files.load(paths)]
    assert names == ["a", "a (2)", "a (3)"]
    assert all(one != other for one, other in itertools.combinations(names, 2))
