"""`jaxcxr compare`: figures against scikit-learn and DeLong, seeds, poses, and what is refused."""

import csv
import json

import numpy as np
import pytest
from scipy import special, stats
from sklearn import metrics as sk

from jaxcxr import __main__ as command
from jaxcxr.statistics import paired
from jaxcxr.xray.evaluation import calibration_fit

CLASSES = ("Mass", "Pleural_Thickening", "Edema", "COVID-19")
N = 120


class Workspace:
    """Labels of 120 images of 40 patients, and runs of models that see them better or worse."""

    def __init__(self, path, capsys):
        rng = np.random.default_rng(0)
        self.path, self.capsys = path, capsys
        self.labels = (rng.random((N, 4)) < 0.3).astype(int)
        self.labels[:, 3] = 0
        self.patients = rng.integers(0, 40, N)
        self.ids = [f"i{i}.png" for i in range(N)]
        self.noise = rng.normal(size=(N, 4))
        self.scores = {}

    def csv(self, name, gain, seed=0, ids=None, labels=None, prefix=True):
        rng = np.random.default_rng(seed + 1)
        values = self.noise + 0.3 * rng.normal(size=(N, 4)) + gain * self.labels
        scores = np.round(special.expit(values - 1), 6)
        self.scores[name] = scores
        ids, labels = ids or self.ids, self.labels if labels is None else labels
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            head = [f"label_{c}" for c in CLASSES] if prefix else []
            writer.writerow(["image_id", "patient_id", *head, *(f"score_{c}" for c in CLASSES)])
            for i, p, y, s in zip(ids, self.patients, labels, scores, strict=True):
                writer.writerow([i, p, *(y if prefix else []), *s])
        return str(path)

    def workdir(self, name, gain, seed=0, **more):
        self.csv(f"{name}/predictions/test.csv", gain, seed, **more)
        scores = self.scores[name] = self.scores.pop(f"{name}/predictions/test.csv")
        calibration = calibration_fit.fit(self.labels, scores, CLASSES)
        calibration.save(self.path / name / "calibration.json")
        return str(self.path / name)

    def run(self, *words):
        out = self.path / "out"
        command.run(["compare", *words, "--out", str(out), "--resamples", "200"])
        return json.loads((out / "metrics.json").read_text()), self.capsys.readouterr().out

    def fails(self, *words):
        with pytest.raises(SystemExit) as caught:
            command.run(["compare", *words, "--resamples", "10"])
        assert caught.value.code == 2
        return self.capsys.readouterr().err


@pytest.fixture
def place(tmp_path, capsys):
    return Workspace(tmp_path, capsys)


def test_two_runs_class_by_class(place):
    a, b = place.workdir("a", 0.5), place.workdir("b", 2.0)
    result, out = place.run(a, b)
    assert list(result["metrics"]) == ["auroc", "average_precision", "f1", "brier"]
    auroc = result["metrics"]["auroc"]
    p = []
    for c, name in enumerate(CLASSES[:3]):
        y, first, second = place.labels[:, c], place.scores["a"][:, c], place.scores["b"][:, c]
        one = auroc[name]["differences"]["B"]
        expected = sk.roc_auc_score(y, second) - sk.roc_auc_score(y, first)
        assert one["difference"] == pytest.approx(expected)
        assert one["p_delong"] == pytest.approx(paired.delong(y, first, second).p)
        assert one["interval"][0] < expected < one["interval"][1]
        p.append(one["p_delong"])
        ap = result["metrics"]["average_precision"][name]["models"]["B"]["mean"]
        assert ap == pytest.approx(sk.average_precision_score(y, second))
    adjusted = [auroc[name]["differences"]["B"]["p_delong_holm"] for name in CLASSES[:3]]
    assert adjusted == pytest.approx(paired.holm(p))
    assert auroc["COVID-19"]["differences"]["B"]["difference"] is None
    macro = auroc["macro"]["differences"]["B"]
    singles = [auroc[name]["differences"]["B"]["difference"] for name in CLASSES[:3]]
    assert macro["difference"] == pytest.approx(np.mean(singles))
    assert macro["p"] == pytest.approx(2 / 201)
    assert result["classes_left_out"] == ["COVID-19"]
    assert "Not in the means (one label value only): COVID-19" in out
    assert f"B: {b}" in out
    with (place.path / "out/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 5
    assert float(rows[0]["difference_interval_low"]) == auroc["Mass"]["differences"]["B"][
        "interval"][0]
    assert "## AUROC" in (place.path / "out/metrics.md").read_text()


def test_the_bootstrap_of_single_images_agrees_with_delong(place):
    place.patients = np.arange(N)
    result, _ = place.run(place.csv("a.csv", 1.0), place.csv("b.csv", 1.2, seed=5))
    for name in CLASSES[:3]:
        one = result["metrics"]["auroc"][name]["differences"]["B"]
        widths = [ends[1] - ends[0] for ends in (one["interval"], one["interval_delong"])]
        assert widths[0] == pytest.approx(widths[1], rel=0.25)


def test_seeds_are_shown_with_their_spread_and_not_pooled(place):
    a = [place.workdir(f"a{i}", 0.8, seed=i) for i in range(3)]
    b = [place.workdir(f"b{i}", 1.5, seed=i + 7) for i in range(2)]
    result, out = place.run(",".join(a), ",".join(b))
    y = place.labels[:, 0]
    of_a = [sk.roc_auc_score(y, place.scores[f"a{i}"][:, 0]) for i in range(3)]
    of_b = [sk.roc_auc_score(y, place.scores[f"b{i}"][:, 0]) for i in range(2)]
    entry = result["metrics"]["auroc"]["Mass"]
    assert entry["models"]["A"]["values"] == pytest.approx(of_a)
    assert entry["models"]["A"]["mean"] == pytest.approx(np.mean(of_a))
    assert entry["models"]["A"]["deviation"] == pytest.approx(np.std(of_a, ddof=1))
    one = entry["differences"]["B"]
    assert one["difference"] == pytest.approx(np.mean(of_b) - np.mean(of_a))
    welch = stats.ttest_ind(of_a, of_b, equal_var=False)
    assert one["seeds"]["p"] == pytest.approx(welch.pvalue)
    # Averaging the scores would have been another, better figure.
    pooled = np.mean([place.scores[f"a{i}"][:, 0] for i in range(3)], axis=0)
    assert abs(sk.roc_auc_score(y, pooled) - np.mean(of_a)) > 1e-4
    assert f"{np.mean(of_a):.3f} +- {np.std(of_a, ddof=1):.3f} (3)" in out
    assert "Over seeds, macro AUROC of B - A" in out


def test_files_with_labels_apart_in_any_order(place):
    a, b = place.csv("a.csv", 0.5), place.csv("b.csv", 2.0)
    expected, _ = place.run(a, b)
    bare = place.csv("bare.csv", 0.5, prefix=False)
    assert "no column label_CLASS; give the true labels with --labels" in place.fails(bare, b)
    order = list(np.random.default_rng(3).permutation(N))
    lines = (place.path / "b.csv").read_text().splitlines()
    (place.path / "b2.csv").write_text("\n".join([lines[0], *(lines[i + 1] for i in order)]))
    for words in ((a, str(place.path / "b2.csv")), (bare, b, "--labels", a)):
        result, _ = place.run(*words)
        assert result["metrics"] == expected["metrics"]
    assert "f1" not in expected["metrics"]  # no calibration ships with a csv file


def test_three_models_share_one_correction(place):
    words = [place.csv(f"{name}.csv", gain) for name, gain in (("a", 0.5), ("b", 1), ("c", 2))]
    result, _ = place.run(*words)
    entries = [
        one for name in CLASSES for one in
        result["metrics"]["auroc"][name]["differences"].values()
    ]
    p = [np.nan if one["p"] is None else one["p"] for one in entries]
    expected = paired.holm(p)
    for one, value in zip(entries, expected, strict=True):
        assert one["p_holm"] == (None if np.isnan(value) else pytest.approx(value))


def test_unlike_things_are_refused(place):
    a = place.workdir("a", 0.5)
    other = place.labels.copy()
    other[4, 1] = 1 - other[4, 1]
    message = place.fails(a, place.csv("b.csv", 1, labels=other))
    assert "1 differ, the first is Pleural_Thickening of i4.png" in message
    message = place.fails(a, place.csv("b.csv", 1, ids=[*place.ids[:-1], "x.png"]))
    assert "2 are in one of both only: i119.png, x.png" in message
    path = place.csv("b.csv", 1)
    text = (place.path / "b.csv").read_text().replace("Edema", "Oedema")
    (place.path / "b.csv").write_text(text)
    assert "they differ in Edema, Oedema" in place.fails(a, path)
    assert "at least two" in place.fails(a)
    assert "each once" in place.fails(a, f"{a},{a}")
    assert "is missing; give a file" in place.fails(a, str(place.path / "nothing"))


SEQUENCES = ("S1/Walk 1/c0", "S1/Walk 1/c1", "S1/Run 1/c0", "S2/Run 1/c0")


def poses(path, noise, seed=0, names=SEQUENCES):
    """A workdir of poses in metres; returns the error of each sequence's joints in mm."""
    truth, rng = np.random.default_rng(0), np.random.default_rng(seed + 1)
    labels = {name: truth.normal(size=(20, 17, 3)) for name in names}
    guesses = {n: value + noise * rng.normal(size=value.shape) for n, value in labels.items()}
    (path / "predictions").mkdir(parents=True)
    (path / "predictions" / "test.csv").write_text("id\n")
    np.savez(path / "predictions" / "test_labels.npz", unit="m", **labels)
    np.savez(path / "predictions" / "test.npz", unit="m", **guesses)
    return str(path), np.concatenate(
        [np.linalg.norm(guesses[n] - labels[n], axis=-1) for n in names]) * 1000


def test_poses_are_compared_over_whole_motions(place):
    a, errors_a = poses(place.path / "a", 0.03)
    b, errors_b = poses(place.path / "b", 0.02, seed=1)
    c, errors_c = poses(place.path / "c", 0.02, seed=2)
    result, out = place.run(a, f"{b},{c}")
    assert result["of_models"]["A"]["mean"] == pytest.approx(errors_a.mean())
    expected = (errors_b.mean() + errors_c.mean()) / 2 - errors_a.mean()
    one = result["differences"]["B"]
    assert one["difference"] == pytest.approx(expected)
    assert one["interval"][0] < expected < one["interval"][1] < 0
    assert result["counts"] == {"sequences": 4, "motions": 3}
    assert "MPJPE in mm" in out
    d, _ = poses(place.path / "d", 0.02, names=("S1/Walk 1/c0", "S9/Run 1/c0"))
    assert "not the sequences" in place.fails(a, d)
    assert "are of radiographs" in place.fails(a, b, "--labels", "x.csv")
