"""Some rows of a split, other labels for it, and label files that must be refused."""

import pathlib

import numpy as np
import pytest

from jaxcxr import config as base
from jaxcxr import task as tasks
from jaxcxr.data import preparation
from jaxcxr.errors import UserError
from jaxcxr.xray import losses, relabeling
from jaxcxr.xray.images import manifest, radiographs


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Sixty chest phantoms."""
    folder = tmp_path_factory.mktemp("data")
    builder = preparation.prepare("chest_phantom", folder, size=32, images=60, workers=0)
    return pathlib.Path(builder.data_dir)


@pytest.fixture
def config(directory):
    config = base.default("cxr")
    base.set_source(config, "chest_phantom", size=32, images=60)
    config.data.dir = str(directory.parents[2])
    config.data.image_size = 32
    return config


@pytest.fixture
def flipped(directory, tmp_path):
    """Path of a file with each label the opposite, one unknown, rows in another order."""
    rows = manifest.read(directory, "train")
    labels = 1 - rows.labels
    labels[0, 0] = -1
    path = tmp_path / "labels.csv"
    relabeling.write_labels(path, rows.image_id[::-1], labels[::-1], rows.classes)
    return path, labels


def test_rows_and_labels_are_those_asked_for(directory):
    whole = radiographs.Radiographs(directory, "train", 32)
    labels = 1 - whole.manifest.labels
    rows = np.array([5, 0, 9])
    some = radiographs.Radiographs(directory, "train", 32, rows, labels)
    assert len(some) == 3
    assert list(some.manifest.image_id) == list(whole.manifest.image_id[rows])
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(some[i]["image"], whole[row]["image"])
        np.testing.assert_array_equal(some[i]["labels"], 1 - whole[row]["labels"])
    np.testing.assert_array_equal(some.read(np.array([2, 1]))["labels"], labels[[9, 0]])


def test_recorded_labels_are_the_records(directory):
    records = radiographs.open_records(directory, "train")
    whole = radiographs.Radiographs(directory, "train", 32)
    for i in range(len(records)):
        np.testing.assert_array_equal(whole[i]["labels"], records[i]["labels"])
        assert whole[i]["labels"].dtype == np.int8


@pytest.mark.parametrize("left_out", [(0,), (1, 3)])
def test_no_patient_left_out_is_trained_on(config, left_out):
    whole = tasks.create(config)
    config.data.folds, config.data.left_out = 4, left_out
    task = tasks.create(config)
    train, left = (task.source(name).manifest for name in ("train", tasks.LEFT_OUT))
    every = whole.source("train").manifest
    assert min(len(train), len(left)) > 0
    assert not set(train.patient_id) & set(left.patient_id)
    assert sorted([*train.image_id, *left.image_id]) == sorted(every.image_id)
    assert set(relabeling.folds(left.patient_id, 4, 0)) == set(left_out)
    for split in ("validation", "test"):
        alike = [t.source(split).manifest.image_id for t in (task, whole)]
        np.testing.assert_array_equal(*alike)
    lines = task.describe()
    assert lines["left_out"].startswith(f"{len(left)} images of ")
    assert f"folds {', '.join(map(str, left_out))} of 0 to 3" in lines["left_out"]


def test_without_folds_nothing_is_left_out(config):
    with pytest.raises(UserError, match="folds is 0"):
        tasks.create(config).source(tasks.LEFT_OUT)


def test_new_labels_are_trained_on_and_nothing_else_sees_them(config, flipped):
    path, labels = flipped
    before = tasks.create(config)
    config.data.labels = str(path)
    after = tasks.create(config)
    np.testing.assert_array_equal(after.source("train").manifest.labels, labels)
    np.testing.assert_array_equal(after.source("train")[7]["labels"], labels[7])
    positive, negative = losses.class_weights(labels, "thesis")
    np.testing.assert_array_equal(after._positive, positive)
    np.testing.assert_array_equal(after._negative, negative)
    assert (before._positive != positive).any()
    assert after.describe()["training labels"] == str(path)
    for split in ("validation", "test"):
        old, new = before.source(split), after.source(split)
        np.testing.assert_array_equal(new.manifest.labels, old.manifest.labels)
        scores = np.random.default_rng(0).random(old.manifest.labels.shape)
        results = [task.evaluate(split, {"scores": scores}) for task in (before, after)]
        assert results[0] == results[1]


def test_new_labels_follow_the_folds(config, flipped):
    path, labels = flipped
    config.data.labels, config.data.folds, config.data.left_out = str(path), 3, (1,)
    task = tasks.create(config)
    every = manifest.read(preparation.find_or_generate(config), "train")
    left = relabeling.folds(every.patient_id, 3, 0) == 1
    np.testing.assert_array_equal(task.source("train").manifest.labels, labels[~left])
    np.testing.assert_array_equal(task.source(tasks.LEFT_OUT).manifest.labels, labels[left])


def refused(path, directory):
    with pytest.raises(UserError) as caught:
        radiographs.read_labels(path, directory)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_labels_of_other_splits_are_refused(flipped, directory, split):
    path, _ = flipped
    names = manifest.read(directory, split).image_id
    cells = path.read_text().splitlines()[-1].split(",")[1:]
    path.write_text(path.read_text() + ",".join([names[2], *cells]) + "\n")
    message = refused(path, directory)
    assert "1 of its images belong to the validation or test split" in message
    assert names[2] in message


def test_strange_and_missing_images_are_refused(flipped, directory):
    path, labels = flipped
    head, *lines = path.read_text().splitlines()
    path.write_text("\n".join([head, *lines[2:]]) + "\n")
    message = refused(path, directory)
    assert f"2 of the {len(labels)} training images have no row" in message
    assert lines[0].split(",")[0] in message
    path.write_text("\n".join([head, *lines, "nobody" + ",1" * 15]) + "\n")
    assert "1 of its images are not in the training split" in refused(path, directory)


@pytest.mark.parametrize(("change", "parts"), [
    (lambda lines: [lines[0].replace("Mass", "Mas"), *lines[1:]],
     [":1", "no column 'Mass'", ", Mas,"]),
    (lambda lines: [line + ",Rib" for line in lines], [":1", "unknown 'Rib'"]),
    (lambda lines: [lines[0] + ",Mass", *(line + ",1" for line in lines[1:])],
     [":1", "columns Mass and Mass are both of the class Mass"]),
    (lambda lines: [*lines[:3], lines[3][:-1] + "2"], [":4", "'2' in column COVID-19"]),
    (lambda lines: [*lines, lines[2]], ["second row", "line 3; remove"]),
    (lambda lines: [*lines[:2], lines[2] + ",1"], [":3", "17 cells", "16 are expected"]),
    (lambda lines: [], ["no line with data", "image_id"]),
])
def test_a_damaged_file_is_refused(flipped, directory, change, parts):
    path, _ = flipped
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    message = refused(path, directory)
    for part in parts:
        assert part in message


def test_an_absent_file_and_one_that_is_no_text_are_refused(tmp_path, directory):
    assert "config.data.labels" in refused(tmp_path / "absent.csv", directory)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    assert "NUL" in refused(tmp_path / "binary.csv", directory)
    (tmp_path / "binary.csv").write_bytes(b"image_id,\x81")
    assert "UTF-8" in refused(tmp_path / "binary.csv", directory)
