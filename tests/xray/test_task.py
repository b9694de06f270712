"""The chest X-ray task: weights and losses against hand computation and scikit-learn, files."""

import csv
import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk

from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.xray import losses
from jaxcxr.xray import task as xray_task
from jaxcxr.xray.evaluation import calibration_fit
from jaxcxr.xray.evaluation.calibration import Calibration
from tests import toys


@pytest.fixture(scope="module")
def logits():
    return np.random.default_rng(0).normal(0, 3, (40, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(1).integers(-1, 2, (40, 3)).astype(np.int8)


ONES = np.ones(3, np.float32)


@pytest.mark.parametrize("kind", ["thesis", "chexnet", "effective_number", "none"])
@pytest.mark.parametrize("loss", ["bce", "focal"])
def test_the_loss_weighs_by_the_training_split_alone(logits, labels, kind, loss):
    config = toys.xray_config(
        loss__cxr=loss, loss__class_weights=kind, loss__effective_beta=0.9, loss__focal_gamma=1.5
    )
    opened = []

    def open_split(split):
        opened.append(split)
        return toys.ToyXrays(40, seed=0)

    task = xray_task.XrayTask(config, open_split)
    positive, negative = losses.class_weights(toys.ToyXrays(40, seed=0).labels, kind, beta=0.9)
    gamma = 1.5 if loss == "focal" else 0.0
    expected = losses.cross_entropy(logits, labels, positive, negative, gamma).sum()
    batch = {"labels": labels, "valid": np.ones(40, bool)}
    assert task.loss_sums(jnp.asarray(logits), batch)["cross_entropy"] == expected
    assert opened == ["train"]


def test_the_default_weights_are_chexnets(logits, labels):
    batch = {"labels": labels, "valid": np.ones(40, bool)}
    sums = [
        toys.make_xray_task(config).loss_sums(jnp.asarray(logits), batch)["cross_entropy"]
        for config in (toys.xray_config(), toys.xray_config(loss__class_weights="chexnet"))
    ]
    assert sums[0] == sums[1]


def test_counts_and_weights_of_each_class_are_shown():
    config = toys.xray_config(loss__class_weights="effective_number", loss__effective_beta=0.9)
    task = toys.make_xray_task(config)
    labels = task.source("train").labels
    positive, negative = losses.class_weights(labels, "effective_number", 0.9)
    head, *rows = task.describe()["class weights"].splitlines()
    assert head.split() == ["pos.", "neg.", "unk.", "w+", "w-"]
    assert len(rows) == 3
    for c, row in enumerate(rows):
        name, *counts, plus, minus = row.split()
        assert name == toys.CLASSES[c]
        assert [int(n) for n in counts] == [(labels[:, c] == v).sum() for v in (1, 0, -1)]
        assert float(plus) == pytest.approx(positive[c], abs=5e-5)
        assert float(minus) == pytest.approx(negative[c], abs=5e-5)


def test_the_table_of_weights_fits_a_terminal_of_80_columns(monkeypatch):
    """Beside the longest name of a row, with the findings and counts of ChestX-ray14."""
    monkeypatch.setattr(toys, "CLASSES", FINDINGS)
    task = toys.make_xray_task(toys.xray_config())
    labels = np.zeros((112_120, 15), np.int8)
    labels[:2] = 1
    source = task.source("train")
    source.manifest = dataclasses.replace(source.manifest, labels=labels)
    lines = task.describe()["class weights"].splitlines()
    frame = len("│ parameters, backbone │  │")
    assert max(map(len, lines)) + frame <= 80


def test_padding_counts_neither_in_the_loss_nor_in_its_divisor(logits, labels):
    task = toys.make_xray_task(toys.xray_config())
    valid = np.arange(40) < 25
    whole = {"labels": labels, "valid": valid}
    part = {"labels": labels[:25], "valid": valid[:25]}
    assert float(task.divisors(whole)["cross_entropy"]) == (labels[:25] >= 0).sum()
    np.testing.assert_allclose(
        task.loss_sums(jnp.asarray(logits), whole)["cross_entropy"],
        task.loss_sums(jnp.asarray(logits[:25]), part)["cross_entropy"], rtol=1e-6,
    )


def test_inputs_are_normalised_alike_from_bytes_and_from_augmented_floats():
    task = toys.make_xray_task(toys.xray_config())
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    from_bytes, _ = task.inputs({"image": jnp.asarray(image)})
    from_floats, _ = task.inputs({"image": jnp.asarray(image / np.float32(255))})
    np.testing.assert_allclose(from_bytes, from_floats, atol=1e-6)
    np.testing.assert_allclose(from_bytes[0, 0, 0, 0], -0.449 / 0.226, rtol=1e-6)


@pytest.fixture
def written(tmp_path):
    """Task, scores and workdir after `write`."""
    task = toys.make_xray_task(toys.xray_config(report__samples=5))
    scores = np.random.default_rng(0).random((21, 3)).astype(np.float32)
    task.write("test", {"scores": scores}, tmp_path)
    return task, scores, tmp_path


def test_predictions_hold_ids_labels_and_scores(written):
    task, scores, workdir = written
    with (workdir / "predictions" / "test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    source = task.source("test")
    assert [row["image_id"] for row in rows] == list(source.manifest.image_id)
    assert [row["patient_id"] for row in rows] == list(source.manifest.patient_id)
    for c, name in enumerate(toys.CLASSES):
        read = [-1 if row[f"label_{name}"] == "" else int(row[f"label_{name}"]) for row in rows]
        np.testing.assert_array_equal(read, source.labels[:, c])
        np.testing.assert_allclose([float(row[f"score_{name}"]) for row in rows], scores[:, c],
                                   rtol=1e-5)
    assert any(row[f"label_{toys.CLASSES[0]}"] == "" for row in rows)


def test_figures_are_pictures(written):
    _, _, workdir = written
    for name in ("roc_test", "samples_test"):
        assert (workdir / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_end_of_a_run_calibrates_and_says_what_holds_at_its_thresholds(tmp_path):
    config = toys.xray_config(report__samples=1)
    config.calibration.update({"method": "temperature", "threshold": "youden"})
    task = toys.make_xray_task(config)
    rng = np.random.default_rng(1)
    scores = rng.random((len(task.source("validation")), 3)).astype(np.float32)
    task.calibrate({"scores": scores}, 7, tmp_path)
    calibration = Calibration.load(tmp_path / "calibration.json")
    assert calibration.names == toys.CLASSES
    assert calibration.about["step"] == 7
    assert calibration.about["method"] == "temperature"
    labels = task.source("validation").manifest.labels
    expected = calibration_fit.fit(labels, scores, toys.CLASSES, "temperature", "youden")
    np.testing.assert_array_equal(calibration.thresholds, expected.thresholds)
    with (tmp_path / "predictions" / "validation.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(scores)

    scores = rng.random((21, 3)).astype(np.float32)
    text = task.write("test", {"scores": scores}, tmp_path)
    assert "at shipped thresholds" in text
    assert "takes 10 positives" in text
    result = json.loads((tmp_path / "report" / "metrics.json").read_text())
    found = calibration.findings(calibration.from_scores(scores))
    for c, entry in enumerate(result["per_class"].values()):
        truth = task.source("test").labels[:, c]
        known = truth >= 0
        assert entry["f1"] == pytest.approx(sk.f1_score(truth[known], found[known, c]))
    for name in ("reliability.png", "metrics.csv"):
        assert (tmp_path / "report" / name).stat().st_size > 100


def test_samples_show_every_finding_there_is():
    labels = np.array([[0, 0], [0, 0], [1, 0], [0, 1], [1, 1]], np.int8)
    assert list(xray_task._spread(labels, 3)) == [2, 3, 0]
    assert list(xray_task._spread(labels, 9)) == [2, 3, 0, 1, 4]


def test_evaluation_is_scikit_learns_over_known_labels():
    task = toys.make_xray_task(toys.xray_config())
    labels = task.source("test").labels
    scores = np.random.default_rng(2).random(labels.shape)
    result = task.evaluate("test", {"scores": scores})
    areas = [sk.roc_auc_score(labels[labels[:, c] >= 0, c], scores[labels[:, c] >= 0, c])
             for c in range(3)]
    assert result.metrics["auroc"] == pytest.approx(np.mean(areas))
    assert all(name in result.table for name in toys.CLASSES)
    assert task.ids("test", [3, 0]) == ["image3", "image0"]
    assert task.describe()["test"] == "21 images of 21 patients"
