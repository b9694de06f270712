"""calibration.json: what is fitted, what is read back, and every way in which it can be wrong."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from scipy import special

from jaxcxr import __main__ as command
from jaxcxr.errors import UserError
from jaxcxr.statistics import reliability
from jaxcxr.xray.evaluation import calibration_fit
from jaxcxr.xray.evaluation.calibration import Calibration, logit, shift

CLASSES = ("Mass", "Edema", "Hernia", "COVID-19")
METHODS = ("identity", "temperature", "platt", "isotonic")


def example(n=900, seed=0):
    """Labels of four classes: common, common and partly unknown, five positives, no positive."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 4)) * 2
    labels = (rng.random((n, 4)) < special.expit(1.5 * logits - 1)).astype(np.int8)
    labels[:100, 1] = -1
    labels[:, 2] = 0
    labels[:5, 2] = 1
    labels[:, 3] = 0
    return labels, special.expit(logits)


@pytest.fixture
def fitted():
    return calibration_fit.fit(*example(), CLASSES)


@pytest.mark.parametrize("method", METHODS)
def test_the_file_gives_what_was_fitted(method, tmp_path):
    labels, scores = example()
    made = calibration_fit.fit(labels, scores, CLASSES, method, "sensitivity", 0.8, {"step": 7})
    made.save(tmp_path / "calibration.json")
    read = Calibration.load(tmp_path / "calibration.json")
    assert read.to_json() == made.to_json()
    assert read.names == CLASSES
    assert read.about["step"] == 7
    probabilities = read.from_scores(scores)
    np.testing.assert_array_equal(probabilities, made.probabilities(logit(scores)))
    known = labels[:, 1] >= 0
    y, z = labels[known, 1], logit(scores[known, 1])
    expected = {
        "identity": lambda: scores[known, 1],
        "temperature": lambda: special.expit(z / reliability.temperature(y, z)),
        "platt": lambda: special.expit(np.polyval(reliability.platt(y, z), z)),
        "isotonic": lambda: np.interp(z, *reliability.isotonic(y, z)),
    }[method]()
    np.testing.assert_allclose(probabilities[known, 1], expected, rtol=1e-12)
    found = read.findings(probabilities)
    np.testing.assert_array_equal(found, probabilities >= read.thresholds)
    assert found[known, 1][y == 1].mean() >= 0.8
    entry = read.classes[1]
    assert (entry.positives, entry.negatives, entry.unknown) == (y.sum(), (y == 0).sum(), 100)
    assert entry.prevalence == pytest.approx(y.mean())
    assert not list(tmp_path.glob("*.partial"))


def test_calibration_mends_the_probabilities_of_new_images(fitted):
    labels, scores = example(seed=1)
    before = np.abs(scores[:, 0].mean() - labels[:, 0].mean())
    after = np.abs(fitted.from_scores(scores)[:, 0].mean() - labels[:, 0].mean())
    assert before > 0.1
    assert after < 0.03


def test_rare_classes_fall_back_and_say_so(fitted):
    hernia, covid = fitted.classes[2:]
    assert (hernia.method, hernia.parameters, hernia.threshold) == ("identity", {}, 0.5)
    assert hernia.fallback
    assert hernia.positives == 5
    assert "takes 20 positives" in hernia.note
    notes = calibration_fit.remarks(fitted)
    assert [note.endswith(": Hernia, COVID-19") for note in notes] == [True, True]
    assert hernia.thresholds == {}
    assert (covid.prevalence, covid.positives) == (0.0, 0)
    assert not fitted.classes[0].fallback
    assert not fitted.classes[0].note
    assert set(fitted.classes[0].thresholds) == {"f1", "youden", "sensitivity", "specificity"}
    none = calibration_fit.fit(np.full((3, 1), -1), np.full((3, 1), 0.5), ("Mass",))
    assert none.to_json()["classes"][0]["prevalence"] is None
    assert np.isnan(Calibration.from_json(none.to_json()).classes[0].prevalence)


def test_prior_shift_is_bayes_rule(fitted):
    """Positives and negatives drawn anew in another proportion, from known densities."""
    x = np.linspace(-4, 4, 41)
    positive, negative = np.exp(-((x - 1) ** 2) / 2), np.exp(-((x + 1) ** 2) / 2)

    def posterior(share):
        return share * positive / (share * positive + (1 - share) * negative)

    np.testing.assert_allclose(shift(posterior(0.3), 0.3, 0.02), posterior(0.02), rtol=1e-12)
    moved = fitted.with_prevalences({"Mass": 0.02})
    _, scores = example(seed=1)
    old, new = fitted.from_scores(scores), moved.from_scores(scores)
    np.testing.assert_allclose(
        new[:, 0], shift(old[:, 0], fitted.classes[0].prevalence, 0.02), rtol=1e-12
    )
    np.testing.assert_array_equal(new[:, 1:], old[:, 1:])
    # The same operating point, and back again.
    np.testing.assert_array_equal(moved.findings(new), fitted.findings(old))
    back = moved.with_prevalences({"Mass": fitted.classes[0].prevalence})
    assert back.classes[0].threshold == pytest.approx(fitted.classes[0].threshold, rel=1e-12)
    np.testing.assert_allclose(back.from_scores(scores), old, rtol=1e-9)
    read = Calibration.from_json(json.loads(json.dumps(moved.to_json())))
    np.testing.assert_array_equal(read.from_scores(scores), new)


def test_prevalences_that_cannot_be(fitted):
    rare = fitted.with_prevalences({"Hernia": 0.1}).classes[2]
    assert rare.target_prevalence is None
    assert "not adjusted to a prevalence of 0.1" in rare.note
    for wrong, message in (({"Bass": 0.1}, "Mass"), ({"Mass": 0.0}, "above 0"),
                           ({"Mass": 1.0}, "below 1")):
        with pytest.raises(UserError, match=message):
            fitted.with_prevalences(wrong)
    identity = calibration_fit.fit(*example(), CLASSES, "identity")
    with pytest.raises(UserError, match="COVID-19: no prevalence"):
        identity.with_prevalences({"COVID-19": 0.1})


def test_shapes_extremes_and_nan(fitted):
    one = fitted.probabilities(np.zeros(4))
    assert one.shape == (4,)
    np.testing.assert_allclose(fitted.probabilities(np.zeros((2, 3, 4))), np.tile(one, (2, 3, 1)))
    ends = fitted.probabilities([[-1e9] * 4, [1e9] * 4])
    np.testing.assert_allclose(ends, [[0] * 4, [1] * 4])
    np.testing.assert_allclose(logit(np.array([0.0, 0.5, 1.0])), [-16.6, 0, 16.6], atol=0.05)
    with pytest.raises(ValueError, match=r"\[\.\.\., 4\]"):
        fitted.probabilities(np.zeros((5, 3)))
    bad = fitted.probabilities([np.nan, 0, 0, 0])
    assert np.isnan(bad[0])
    with pytest.raises(ValueError, match="NaN"):
        fitted.findings(bad)


def test_classes_are_selected_by_name(fitted):
    some = fitted.select(["Hernia", "Mass"])
    assert some.names == ("Hernia", "Mass")
    assert some.thresholds.tolist() == [0.5, fitted.classes[0].threshold]
    with pytest.raises(UserError, match="Bass"):
        fitted.select(["Bass"])


@pytest.mark.parametrize(("change", "message"), [
    (lambda c: c.update(format="x"), "not a calibration.json"),
    (lambda c: c.update(version=2), "version 2"),
    (lambda c: c.pop("classes"), "damaged"),
    (lambda c: c.update(classes=[]), "no class"),
    (lambda c: c["classes"].append(c["classes"][0]), "twice"),
    (lambda c: c["classes"][0].pop("threshold"), "threshold"),
    (lambda c: c["classes"][0].update(method="magic"), "magic"),
    (lambda c: c["classes"][0].update(parameters={"slope": 1}), "intercept"),
    (lambda c: c["classes"][0]["parameters"].update(slope="x"), "damaged"),
    (lambda c: c["classes"][0].update(method="temperature", parameters={"temperature": 0}),
     "not positive"),
    (lambda c: c["classes"][0].update(
        method="isotonic", parameters={"logits": [1, 0], "probabilities": [0, 1]}), "do not rise"),
])
def test_damaged_files_are_a_sentence(fitted, tmp_path, change, message):
    content = fitted.to_json()
    change(content)
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        Calibration.load(path)
    assert str(path) in str(caught.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        Calibration.load(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match="no JSON"):
        Calibration.load(tmp_path / "x.json")


def test_reading_needs_numpy_alone():
    code = (
        "import sys; from jaxcxr.xray.evaluation.calibration import Calibration; "
        "sys.exit(bool({'scipy', 'sklearn', 'jax', 'tensorflow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def files(tmp_path):
    """A workdir with predictions of validation, and a way to run `jaxcxr calibrate`."""
    labels, scores = example()
    path = tmp_path / "run" / "predictions" / "validation.csv"
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", *(f"label_{c}" for c in CLASSES),
                         *(f"score_{c}" for c in CLASSES)])
        for i, (y, s) in enumerate(zip(labels, scores, strict=True)):
            writer.writerow([i, *("" if v < 0 else v for v in y), *map(repr, map(float, s))])
    return tmp_path, labels, scores, path


def fails(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        command.run(["calibrate", *map(str, words)])
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_the_command_fits_a_workdir_again(files, capsys):
    folder, labels, scores, _ = files
    command.run(["calibrate", "--workdir", str(folder / "run"), "--method", "isotonic",
                 "--threshold", "specificity", "--target", "0.95", "--prevalence", "Mass=0.05"])
    read = Calibration.load(folder / "run" / "calibration.json")
    expected = calibration_fit.fit(labels, scores, CLASSES, "isotonic", "specificity", 0.95)
    expected = expected.with_prevalences({"Mass": 0.05})
    assert read.to_json()["classes"] == expected.to_json()["classes"]
    assert read.about["inputs"]["predictions"]["name"] == "validation.csv"
    out = capsys.readouterr().out
    assert "isotonic" in out
    assert "0.0500" in out


def test_the_command_takes_files_of_any_framework(files, capsys):
    folder, labels, scores, path = files
    command.run(["calibrate", "--labels", str(path), "--predictions", str(path),
                 "--out", str(folder / "x" / "c.json")])
    read = Calibration.load(folder / "x" / "c.json")
    expected = calibration_fit.fit(labels, scores, CLASSES)
    assert read.to_json()["classes"] == expected.to_json()["classes"]
    assert "Written" in capsys.readouterr().out


def test_mistakes_of_the_command_are_sentences(files, capsys):
    folder, _, _, path = files
    workdir = folder / "run"
    assert "is missing; `jaxcxr evaluate" in fails(capsys, "--workdir", folder / "none")
    assert "leave the others out" in fails(capsys, "--workdir", workdir, "--labels", path)
    assert "give --workdir, or all" in fails(capsys, "--labels", path)
    assert "--target is 1.5" in fails(capsys, "--workdir", workdir, "--target", "1.5")
    assert "not like Effusion=0.1" in fails(capsys, "--workdir", workdir, "--prevalence", "Mass")
    assert "no such class" in fails(capsys, "--workdir", workdir, "--prevalence", "Bass=0.1")
    path.write_text(path.read_text().replace(",0.9", ",1.9", 1))
    assert "outside [0, 1]" in fails(capsys, "--workdir", workdir)
    assert not (workdir / "calibration.json").exists()
