"""The worked examples of docs/extending.md do what the page says, also together."""

import json
import math

import jax
import numpy as np
import pytest
from PIL import Image

from docs.examples import (
    asymmetric_loss,
    calibrated,
    flexible_heads,
    folder_of_images,
    own_config,
    small_backbone,
    youden_index,
)
from jaxcxr import config as base
from jaxcxr import registry, task
from jaxcxr.data import label_tables, preparation
from jaxcxr.statistics import ranking
from jaxcxr.train import loop, parallel, writers
from jaxcxr.xray.images import manifest

PATIENTS, IMAGES = 30, 90


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A folder of noise with labels, three images a patient; a tenth of the labels is unknown."""
    folder = tmp_path_factory.mktemp("raw")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    lines = ["image_id,patient_id,Effusion,Mass"]
    for i in range(IMAGES):
        labels = ["" if rng.random() < 0.1 else str(rng.integers(2)) for _ in range(2)]
        lines.append(f"image{i},patient{i % PATIENTS},{','.join(labels)}")
        pixels = rng.integers(0, 255, (24, 24), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"image{i}.png")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def registered():
    """The examples under their names, as lines of the registry would have it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.TASKS, "cxr", asymmetric_loss.ENTRY)
        patch.setitem(registry.SOURCES, folder_of_images.NAME, folder_of_images.ENTRY)
        patch.setitem(registry.MODELS, small_backbone.NAME, small_backbone.ENTRY)
        yield


@pytest.fixture(scope="module")
def run(raw, registered, tmp_path_factory):
    """Folder of a run of two steps with the loss, the data set and the backbone together."""
    root = tmp_path_factory.mktemp("run")
    preparation.prepare(folder_of_images.NAME, root / "data", raw=str(raw), size=24, workers=0)
    config = base.default("cxr")
    base.set_source(config, folder_of_images.NAME, size=24)
    base.set_model(config, small_backbone.NAME, widths=(8, 8))
    base.add_stage(config, "all", "2 steps", learning_rate=1e-3)
    config.data.dir, config.data.image_size = str(root / "data"), 24
    config.batch_size, config.report.samples, config.log_every = 8, 1, 1
    base.validate(config)
    assert isinstance(task.create(config), asymmetric_loss.AsymmetricXray)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), parallel.AXES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "make_mesh", lambda config: mesh)
        loop.train(config, root / "run", writers.Screen(quiet=True))
    return root / "run"


def test_the_loss_is_the_papers_over_known_labels():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (5, 3)).astype(np.float32)
    labels = rng.integers(-1, 2, (5, 3)).astype(np.int8)
    expected = np.zeros((5, 3))
    for place in np.ndindex(5, 3):
        p = 1 / (1 + math.exp(-float(logits[place])))
        shifted = max(p - 0.05, 0.0)
        expected[place] = {
            1: -math.log(p), 0: -(shifted**4) * math.log(1 - shifted), -1: 0.0,
        }[int(labels[place])]
    assert {-1, 0, 1} <= set(labels.ravel().tolist())
    found = asymmetric_loss.asymmetric_loss(logits, labels)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_the_data_set_holds_every_image_and_no_patient_twice(raw, registered, tmp_path):
    preparation.prepare(folder_of_images.NAME, tmp_path, raw=str(raw), size=24, workers=0)
    folder = preparation.find(folder_of_images.NAME, {"size": 24}, tmp_path)
    splits = [manifest.read(folder, split) for split in ("train", "validation", "test")]
    assert sorted(str(i) for rows in splits for i in rows.image_id) == sorted(
        f"image{i}" for i in range(IMAGES)
    )
    patients = [set(rows.patient_id) for rows in splits]
    assert sum(map(len, patients)) == len(set.union(*patients)) == PATIENTS
    cells = dict(line.split(",", 1) for line in (raw / "labels.csv").read_text().split()[1:])
    for rows in splits:
        for image, labels in zip(rows.image_id, rows.labels, strict=True):
            read = ["" if label == -1 else str(label) for label in labels]
            assert cells[str(image)].split(",")[1:] == read


def test_options_of_the_backbone_are_its_fields(registered):
    assert registry.model_options(small_backbone.NAME) == {
        "classes": 15, "widths": (16, 32, 64)
    }


def test_a_run_with_all_of_them_reports(run):
    assert (run / "report" / "index.html").exists()
    table = label_tables.read(run / "predictions" / "test.csv")
    assert list(table.classes) == list(folder_of_images.FolderOfImages.classes)


def test_the_metric_is_that_of_scikit_learns_roc_curve():
    from sklearn.metrics import roc_curve

    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 40), rng.integers(0, 9, 40) / 8
    false_positive, true_positive, _ = roc_curve(labels, scores)
    expected = max(true_positive - false_positive)
    metric = youden_index.ENTRY
    assert metric.value(np.append(labels, -1), np.append(scores, 2.0)) == pytest.approx(expected)
    assert metric.value(labels, -labels.astype(float)) == 0.0
    assert np.isnan(metric.value(np.ones(3, int), np.arange(3.0)))
    drawn = ranking.cluster_bootstrap(
        labels[:, None], scores[:, None], np.arange(40) // 2, 200, measures={"y": metric.measure}
    )
    low, high = drawn.interval("y", 0)
    assert 0 <= low < expected < high <= 1


def test_the_config_of_the_page_is_valid():
    config = own_config.get_config()
    base.validate(config)
    assert config.stage_order == ("head", "all")


def test_the_layer_of_the_page_has_eight_heads():
    assert sum(group.count for group in flexible_heads.groups) == 8
    assert flexible_heads.outputs.shape == flexible_heads.tokens.shape


def test_a_calibration_is_applied(run):
    path = run / "calibration.json"
    classes = json.loads(path.read_text())["classes"]
    logits = np.zeros((2, len(classes)))
    probabilities, found = calibrated.findings(path, logits)
    assert probabilities.shape == found.shape == logits.shape
    assert ((probabilities > 0) & (probabilities < 1)).all()
