"""The manifest: row i of a split is record i, unknown stays unknown, absence is explained."""

import numpy as np
import pyarrow.parquet
import pytest

from jaxcxr.errors import UserError
from jaxcxr.xray.images import manifest

CLASSES = ("Mass", "Nodule")


def record(name, labels, **changes):
    return {"image_id": name.encode(), "patient_id": f"p{name}".encode(), "view": b"PA",
            "source": b"here", "sex": b"F", "age": np.int32(50), "sha256": name.encode() * 2,
            "phash": np.uint64(2**64 - 1), "original_size": np.array([3, 4], np.int32),
            "labels": np.array(labels, np.int8), "boxes": np.zeros((0, 5), np.float32), **changes}


@pytest.fixture
def folder(tmp_path):
    boxes = np.array([[1, 2, 3, 4, 5], [0, 0.5, 1, 2, 3]], np.float32)
    splits = {
        "train": [record("b", [1, 0]),
                  record("a", [-1, 1], age=np.int32(-1), sex=b"", view=b"", boxes=boxes),
                  record('odd, "name"', [0, 0], sha256=b"", phash=np.uint64(0))],
        "validation": [],
        "test": [record("c", [0, -1], image_id="text", boxes=boxes[:1])],
    }
    manifest.write(tmp_path, splits, CLASSES)
    return tmp_path


def test_rows_come_back_in_the_order_of_the_records(folder):
    rows = manifest.read(folder, "train")
    assert list(rows.image_id) == ["b", "a", 'odd, "name"']
    assert list(rows.patient_id) == ["pb", "pa", 'podd, "name"']
    np.testing.assert_array_equal(rows.labels, [[1, 0], [-1, 1], [0, 0]])
    np.testing.assert_array_equal(rows.age, [50, -1, 50])
    np.testing.assert_array_equal(rows.original_size, [[3, 4]] * 3)
    assert list(rows.sex) == ["F", "", "F"]
    assert list(rows.view) == ["PA", "", "PA"]
    assert set(rows.source) == {"here"}
    assert rows.classes == CLASSES
    assert len(rows) == 3
    assert (rows.labels.dtype, rows.age.dtype, rows.phash.dtype) == (np.int8, np.int32, np.uint64)
    assert rows.phash[0] == 2**64 - 1


def test_boxes_stay_with_their_row(folder):
    rows = manifest.read(folder)
    assert [len(boxes) for boxes in rows.boxes] == [0, 2, 0, 1]
    np.testing.assert_array_equal(rows.boxes[1], [[1, 2, 3, 4, 5], [0, 0.5, 1, 2, 3]])
    np.testing.assert_array_equal(manifest.read(folder, "test").boxes[0], [[1, 2, 3, 4, 5]])


def test_all_rows_of_all_splits(folder):
    rows = manifest.read(folder / manifest.NAME)
    assert list(rows.split) == ["train"] * 3 + ["test"]
    chosen = rows.take(rows.labels[:, 0] == 0)
    assert list(chosen.image_id) == ['odd, "name"', "text"]
    assert [len(boxes) for boxes in chosen.boxes] == [0, 1]


def test_unknown_is_null_for_other_readers(folder):
    table = pyarrow.parquet.read_table(folder / manifest.NAME)
    assert table["label_Mass"].to_pylist() == [1, None, 0, 0]
    assert table["age"].to_pylist() == [50, None, 50, 50]
    assert table["phash"].to_pylist()[2] is None
    assert table["boxes"].to_pylist()[3] == [
        {"finding": "Nodule", "x": 2, "y": 3, "width": 4, "height": 5}
    ]


def test_an_empty_split_has_the_shapes_of_a_full_one(folder):
    rows = manifest.read(folder, "validation")
    assert len(rows) == 0
    assert rows.labels.shape == (0, 2)
    assert rows.age.shape == (0,)


def test_no_rows_at_all(tmp_path):
    manifest.write(tmp_path, {}, CLASSES)
    rows = manifest.read(tmp_path)
    assert (len(rows), rows.classes, rows.boxes) == (0, CLASSES, ())


def test_an_unfinished_preparation_is_explained(tmp_path):
    with pytest.raises(UserError, match=r"manifest.parquet is missing: .* run it again"):
        manifest.read(tmp_path, "train")


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", "other"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "x.parquet"
    if content == "other":
        pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.parquet is not a manifest"):
        manifest.read(path)


def test_an_unknown_split_is_refused(folder):
    with pytest.raises(UserError, match=r"no split 'tset'.*train, validation, test"):
        manifest.read(folder, "tset")


def test_nothing_half_written_is_left(folder):
    assert {path.name for path in folder.iterdir()} == {"manifest.parquet"}
