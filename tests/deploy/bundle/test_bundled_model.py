"""A bundle made of a run: it says what the run said, and needs neither run nor data."""

import csv
import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxcxr import __main__ as command
from jaxcxr import config as base
from jaxcxr import models
from jaxcxr.deploy.bundle import Bundle, archive
from jaxcxr.errors import UserError
from jaxcxr.xray.evaluation.calibration import Calibration
from jaxcxr.xray.images import image_files, radiographs
from jaxcxr.xray.images.films import Film
from tests import toys


@pytest.fixture(scope="module")
def bundle(bundle_file):
    return Bundle.load(bundle_file)


@pytest.fixture(scope="module")
def test_split(xray_run):
    (manifest,) = (xray_run.parent / "data").glob("chest_phantom/*/*/manifest.parquet")
    return radiographs.Radiographs(manifest.parent, "test", 32)


def test_it_scores_the_test_split_as_the_run_did(bundle, xray_run, test_split):
    text = (xray_run / "predictions" / "test.csv").read_text().splitlines()
    rows = list(csv.DictReader(text))
    scores = np.array([[float(row[f"score_{c}"]) for c in bundle.classes] for row in rows])
    pixels = test_split.read(np.arange(len(test_split)))["image"][..., 0]
    logits = bundle.logits(pixels, batch=8)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), scores, atol=2e-6)
    calibration = Calibration.load(xray_run / "calibration.json")
    probabilities = bundle.probabilities(logits)
    np.testing.assert_allclose(probabilities, calibration.from_scores(scores), atol=1e-4)
    np.testing.assert_array_equal(
        bundle.findings(probabilities), probabilities >= calibration.thresholds
    )


def test_padding_changes_nothing_and_compiles_once(bundle, test_split):
    pixels = test_split.read(np.arange(7))["image"][..., 0]
    traced = []
    whole = Bundle.load(bundle.path)
    apply = whole.apply
    object.__setattr__(whole, "apply", lambda *given: traced.append(1) or apply(*given))
    single = np.concatenate([whole.logits(pixels[i : i + 3], batch=3) for i in (0, 3, 6)])
    assert len(traced) == 1
    np.testing.assert_allclose(bundle.logits(pixels, batch=8), single, atol=1e-5)
    logits, features = bundle.outputs(pixels[:0])
    assert logits.shape == (0, len(bundle.classes))
    assert features.shape == (0, bundle.guard.channels)
    for wrong in (pixels.astype(np.float32), pixels[:, :16]):
        with pytest.raises(ValueError, match="must be uint8"):
            bundle.logits(wrong)


@pytest.mark.parametrize(("name", "options"), [
    ("densenet121", {"stages": (2, 1), "growth": 4, "width": 8}),
    ("vit_tiny", {"dim": 16, "depth": 2, "heads": 2, "patch": 8, "scan": True}),
])
def test_logits_are_those_of_the_whole_model(bundle, name, options):
    config = toys.xray_config()
    base.set_model(config, name, **options)
    model = models.create(name, classes=len(bundle.classes), **options)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32), np.uint8)
    inputs = bundle.preprocessing.normalized(pixels)
    variables = jax.jit(model.init)(jax.random.key(1), inputs)
    other = dataclasses.replace(bundle, config=config, variables=variables)
    logits, features = other.outputs(pixels, batch=4)
    np.testing.assert_allclose(logits, jax.jit(model.apply)(variables, inputs), atol=1e-5)
    assert len(features) == 3
    assert features.std(0).max() > 1e-3


def test_it_says_where_it_comes_from(bundle, xray_run, test_split):
    (manifest,) = (xray_run.parent / "data").glob("chest_phantom/*/*/manifest.parquet")
    training = bundle.facts["training"]
    assert training["manifest"]["sha256"] == hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert training["images"]["test"] == len(test_split)
    assert (training["run"], training["source"]) == ("run", "chest_phantom")
    records = map(json.loads, (xray_run / "metrics.jsonl").read_text().splitlines())
    (expected,) = [r["auroc"] for r in records if r["kind"] == "test"]
    assert bundle.metrics["scalars"]["auroc"] == expected
    assert bundle.licence == "CC0 1.0"
    assert bundle.version_differences() == []
    assert bundle.facts["versions"]["packages"]["jax"] == jax.__version__


def test_preprocessing_resizes_equalises_and_resizes_again(bundle):
    image = np.random.default_rng(0).integers(0, 90, (70, 50), np.uint8)
    other = type(bundle.preprocessing)(40, "hist", 16, 0.5, 0.25)
    stored = image_files.equalize(image_files.resize(image, 40), "hist")
    np.testing.assert_array_equal(other.pixels(Film(image)), image_files.resize(stored, 16))
    np.testing.assert_array_equal(bundle.preprocess(Film(image)), image_files.resize(image, 32))
    got = other.normalized(np.array([[[0, 255], [51, 102]]], np.uint8))
    np.testing.assert_allclose(got[0, ..., 0], [[-2, 2], [-1.2, -0.4]], rtol=1e-6)


def test_it_loads_without_run_data_tensorflow_and_tfds(bundle_file, tmp_path):
    shutil.copy(bundle_file, tmp_path / "b")
    code = (
        "import sys, numpy as np; from jaxcxr.deploy.bundle import Bundle; b = Bundle.load('b');"
        "print(b.image_size, *b.classes);"
        "assert not {'tensorflow', 'tensorflow_datasets', 'orbax'} & set(sys.modules)"
    )
    got = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True,
                         capture_output=True, text=True).stdout
    assert got.split()[:2] == ["32", "Cardiomegaly"]


def changed(path, out, name, content):
    """A bundle whose hashes are right, with one file changed."""
    found = archive.read(path)
    facts = {k: v for k, v in found.facts.items() if k not in ("format", "version", "files")}
    archive.write(out, {**facts, **(content if name == "facts" else {})},
                  {**found.files, **({} if name == "facts" else {name: content})})
    return out


def test_parts_that_do_not_fit_each_other_are_refused(bundle_file, tmp_path):
    found = archive.read(bundle_file)
    weights = safetensors.numpy.load(found.files["weights.safetensors"])
    name = "params/head/logits/kernel"
    fewer = {key: value for key, value in weights.items() if key != name}
    calibration = json.loads(found.files["calibration.json"])
    calibration["classes"].pop()
    preprocessing = found.facts["preprocessing"]
    for part, content, message in (
        ("weights.safetensors", safetensors.numpy.save(fewer), f"do not fit the model: {name}"),
        ("weights.safetensors", b"\x00" * 50, "is damaged"),
        ("calibration.json", json.dumps(calibration).encode(), "of other classes"),
        ("config.json", b"[]", "is damaged"),
        ("guard.safetensors", b"", "is damaged"),
        ("facts", {"preprocessing": {**preprocessing, "image_size": 10**9}}, "image_size"),
        ("facts", {"preprocessing": {"image_size": 32}}, "is damaged"),
    ):
        with pytest.raises(UserError, match=message):
            Bundle.load(changed(bundle_file, tmp_path / "x", part, content))


def test_the_command_makes_the_same_file_again(xray_run, bundle_file, tmp_path, capsys):
    out = tmp_path / "again.jaxcxr"
    licence = tmp_path / "licence.txt"
    licence.write_text("CC0 1.0")
    command.run(["bundle", f"--workdir={xray_run}", f"--out={out}", f"--licence={licence}"])
    assert out.read_bytes() == bundle_file.read_bytes()
    assert "test auroc" in capsys.readouterr().out
    with zipfile.ZipFile(out) as file:
        assert set(file.namelist()) == set(archive.LIMITS)


def test_runs_that_are_not_finished_are_refused(xray_run, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(xray_run, copy)
    content = json.loads((copy / "calibration.json").read_text())
    content["about"]["step"] = 1
    (copy / "calibration.json").write_text(json.dumps(content))
    for message in ("was fitted on the checkpoint of step 1", "no metrics of the test split"):
        with pytest.raises(SystemExit) as stopped:
            command.run(["bundle", f"--workdir={copy}", f"--out={tmp_path / 'x'}"])
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
        (copy / "calibration.json").unlink(missing_ok=True)
        (copy / "metrics.jsonl").unlink(missing_ok=True)
    assert not (tmp_path / "x").exists()
