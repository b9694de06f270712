"""The manifest: row i of a split is record i, unknown labels are empty, absence is explained."""

import numpy as np
import pytest

from jaxcxr.data import manifest
from jaxcxr.errors import UserError

CLASSES = ("Mass", "Nodule")


def record(name, labels, **changes):
    return {"image_id": name.encode(), "patient_id": f"p{name}".encode(), "view": b"PA",
            "sex": b"F", "age": np.int32(50), "labels": np.array(labels, np.int8), **changes}


@pytest.fixture
def folder(tmp_path):
    splits = {
        "train": [record("b", [1, 0]), record("a", [-1, 1], age=np.int32(-1), sex=b"", view=b""),
                  record('odd, "name"', [0, 0])],
        "validation": [],
        "test": [record("c", [0, -1], image_id="text")],
    }
    manifest.write(tmp_path, splits, CLASSES)
    return tmp_path


def test_rows_come_back_in_the_order_of_the_records(folder):
    rows = manifest.read(folder, "train")
    assert list(rows.image_id) == ["b", "a", 'odd, "name"']
    assert list(rows.patient_id) == ["pb", "pa", 'podd, "name"']
    np.testing.assert_array_equal(rows.labels, [[1, 0], [-1, 1], [0, 0]])
    np.testing.assert_array_equal(rows.age, [50, -1, 50])
    assert list(rows.sex) == ["F", "", "F"]
    assert list(rows.view) == ["PA", "", "PA"]
    assert rows.classes == CLASSES
    assert len(rows) == 3
    assert (rows.labels.dtype, rows.age.dtype) == (np.int8, np.int32)


def test_text_and_bytes_are_alike(folder):
    assert list(manifest.read(folder, "test").image_id) == ["text"]


def test_an_empty_split_has_the_shapes_of_a_full_one(folder):
    rows = manifest.read(folder, "validation")
    assert len(rows) == 0
    assert rows.labels.shape == (0, 2)
    assert rows.age.shape == (0,)


def test_an_unfinished_preparation_is_explained(tmp_path):
    with pytest.raises(UserError, match=r"manifest.csv is missing: .* run it again"):
        manifest.read(tmp_path, "train")


def test_an_unknown_split_is_refused(folder):
    with pytest.raises(UserError, match=r"no split 'tset'.*train, validation, test"):
        manifest.read(folder, "tset")


def test_nothing_half_written_is_left(folder):
    assert {path.name for path in folder.iterdir()} == {"manifest.csv"}
