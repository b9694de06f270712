"""`jaxcxr score` from the command line: both forms of labels, any order, every mistake."""

import csv
import gzip
import hashlib
import json

import numpy as np
import pytest
from sklearn import metrics as sk

import jaxcxr
from jaxcxr import __main__ as command
from jaxcxr.xray.evaluation import calibration_fit, metrics_table
from tests.xray.evaluation.score_folders import CLASSES, Folder, N


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def metrics_only(result):
    return {key: result[key] for key in ("per_class", "macro")}


def test_metrics_are_scikit_learns_and_the_files_say_how_they_came_about(folder, capsys):
    result = folder.run("--seed", 3)
    assert list(result["per_class"]) == list(CLASSES)
    for i, entry in enumerate(result["per_class"].values()):
        y, s = folder.labels[:, i], folder.scores[:, i]
        assert entry["auroc"] == pytest.approx(sk.roc_auc_score(y, s), abs=1e-12)
        assert entry["average_precision"] == pytest.approx(sk.average_precision_score(y, s))
        assert entry["f1_max"] == pytest.approx(sk.f1_score(y, s >= entry["threshold"]))
        assert entry["f1_max"] == pytest.approx(max(sk.f1_score(y, s >= t) for t in s))
        assert (entry["n_positive"], entry["n_negative"]) == (y.sum(), N - y.sum())
        assert entry["auroc_interval"][0] < entry["auroc"] < entry["auroc_interval"][1]
        for name in ("auroc_interval_bootstrap", "average_precision_interval",
                     "f1_max_interval", "threshold_interval"):
            assert entry[name][0] < entry[name][1]
    for name in ("auroc", "average_precision", "f1_max"):
        mean = np.mean([entry[name] for entry in result["per_class"].values()])
        assert result["macro"][name] == pytest.approx(mean)
        low, high = result["macro"][f"{name}_interval"]
        assert low < high
    assert result["macro"]["classes"] == list(CLASSES)
    patients = len(set(folder.patients))
    assert result["counts"]["images"] == N
    assert result["counts"]["patients"] == patients
    assert result["settings"]["resamples"] == 20
    assert result["settings"]["seed"] == 3
    assert result["settings"]["resampled"] == "patients"
    digest = hashlib.sha256((folder.path / "labels.csv").read_bytes()).hexdigest()
    assert result["inputs"]["labels"] == {"name": "labels.csv", "sha256": digest}
    assert result["jaxcxr_version"] == jaxcxr.__version__

    with (folder.path / "out/metrics.csv").open(newline="") as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert list(rows) == [*CLASSES, "macro"]
    edema = result["per_class"]["Edema"]
    assert float(rows["Edema"]["auroc"]) == edema["auroc"]
    assert float(rows["Edema"]["f1_max_interval_high"]) == edema["f1_max_interval"][1]
    assert rows["macro"]["threshold"] == ""

    line = next(t for t in capsys.readouterr().out.splitlines() if t.startswith("Edema"))
    interval = "[{:.3f}, {:.3f}]".format(*edema["auroc_interval"])
    assert f"{edema['auroc']:.3f}  {interval}" in line


def test_a_calibration_adds_what_holds_at_its_thresholds(folder, capsys):
    calibration = calibration_fit.fit(folder.labels, folder.probabilities(), CLASSES, rule="youden")
    path = folder.path / "calibration.json"
    calibration.select(CLASSES[::-1]).save(path)  # classes match by name
    result = folder.run("--calibration", path)
    found = calibration.findings(calibration.from_scores(folder.read_scores()))
    for i, entry in enumerate(result["per_class"].values()):
        y, p = folder.labels[:, i], calibration.from_scores(folder.read_scores())[:, i]
        assert entry["f1"] == pytest.approx(sk.f1_score(y, found[:, i]))
        assert entry["sensitivity"] == pytest.approx(sk.recall_score(y, found[:, i]))
        assert entry["specificity"] == pytest.approx(sk.recall_score(1 - y, ~found[:, i]))
        assert entry["ppv"] == pytest.approx(sk.precision_score(y, found[:, i]))
        assert entry["brier"] == pytest.approx(sk.brier_score_loss(y, p))
        assert entry["shipped_threshold"] == calibration.thresholds[i]
        uncertainty = y.mean() * (1 - y.mean())
        parts = entry["brier_miscalibration"] - entry["brier_discrimination"] + uncertainty
        assert parts == pytest.approx(entry["brier"])
        assert entry["f1_interval"][0] < entry["f1"] < entry["f1_interval"][1]
        assert entry["ece"] <= entry["ece_uncalibrated"]
    for name in ("f1", "sensitivity", "specificity", "brier"):
        mean = np.mean([entry[name] for entry in result["per_class"].values()])
        assert result["macro"][name] == pytest.approx(mean)
    assert result["settings"]["calibration"]["threshold"] == "youden"
    out = capsys.readouterr().out
    assert "at shipped thresholds" in out
    assert "F1max" not in out


def test_a_calibration_wants_probabilities_and_all_classes(folder, capsys):
    calibration = calibration_fit.fit(folder.labels, folder.probabilities(), CLASSES)
    path = folder.path / "calibration.json"
    calibration.save(path)
    folder.scores[7, 1] = 1.5
    folder.predict()
    assert "outside [0, 1]" in folder.fails("--calibration", path, capsys=capsys)
    calibration.select(CLASSES[:2]).save(path)
    assert "no class 'Edema'" in folder.fails("--calibration", path, capsys=capsys)


def test_groups_of_the_images(folder, capsys):
    sexes, ages = np.where(folder.patients % 2, "M", "F"), folder.patients * 3
    folder.write("groups.csv", [
        ["Image Index", "Patient Sex", "Patient Age", "Weight"],
        *([i, s, f"{a:03d}Y", 70] for i, s, a in zip(folder.ids, sexes, ages, strict=True)),
    ])
    folder.run("--groups", folder.path / "groups.csv")
    with (folder.path / "out/subgroups.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["class"] == "Edema"]
    groups = [row["group"] for row in rows]
    assert groups == ["F", "M", "00-19", "20-39", "40-59", "60-79"]
    for row in rows:
        if row["attribute"] == "sex":
            mask = sexes == row["group"]
            expected = sk.roc_auc_score(folder.labels[mask, 2], folder.scores[mask, 2])
            assert float(row["auroc"]) == pytest.approx(expected)
            assert int(row["images"]) == mask.sum()
    assert "subgroups.md" in capsys.readouterr().out
    folder.write("groups.csv", [["image_id", "sex"], [folder.ids[0], "F"]])
    message = folder.fails("--groups", folder.path / "groups.csv", capsys=capsys)
    assert "79 of 80 images have no row" in message


def test_forms_orders_and_prefixes_give_the_same(folder):
    expected = metrics_only(folder.run())
    order = np.random.default_rng(1).permutation(N)

    folder.predict("Image Index", "", [c.upper() for c in CLASSES], order=order)
    assert list(metrics_only(folder.run())["per_class"]) == list(CLASSES)
    assert metrics_only(folder.run()) == expected

    names = ["mass", "pleural thickening", "EDEMA"]
    folder.predict("filename", "score_", names, [f"x/y/{i}" for i in folder.ids])
    assert metrics_only(folder.run()) == expected

    folder.predict("ID", "prob_", CLASSES, [i.removesuffix(".png") for i in folder.ids], order)
    folder.plain("label_")
    assert metrics_only(folder.run()) == expected

    with (folder.path / "labels.csv").open("a") as file:  # and an empty line, and spaces
        file.write("\n")
    folder.replace("labels.csv", "label_Mass", " label_Mass ")
    assert metrics_only(folder.run()) == expected


@pytest.mark.parametrize("end", ["", ","])
def test_data_entry_without_a_prediction_of_covid(folder, end, capsys):
    expected = metrics_only(folder.run())
    folder.data_entry(end)
    result = folder.run()
    for name in CLASSES:
        ours, theirs = result["per_class"][name], expected["per_class"][name]
        assert ours["auroc_interval"] == theirs["auroc_interval"]
        assert ours["n_positive"] == theirs["n_positive"]
    assert result["counts"]["patients"] == len(set(folder.patients))
    absent = result["classes"]["labels_without_predictions"]
    assert len(absent) == 11
    assert "COVID-19" not in absent
    assert "11 classes of the labels have no prediction and are left out" in capsys.readouterr().out


def test_own_predictions_serve_as_both(folder):
    values = [["" if v == 0 and i % 5 == 0 else v for v in row]
              for i, row in enumerate(folder.labels)]
    rows = zip(folder.ids, folder.patients, values, folder.scores, strict=True)
    folder.write("scores.csv", [
        ["image_id", "patient_id", *(f"label_{c}" for c in CLASSES),
         *(f"score_{c}" for c in CLASSES)],
        *([i, p, *v, *s] for i, p, v, s in rows),
    ])
    (folder.path / "labels.csv").write_bytes((folder.path / "scores.csv").read_bytes())
    result = folder.run()
    assert list(result["per_class"]) == list(CLASSES)
    assert result["classes"]["predictions_without_labels"] == []
    for i, entry in enumerate(result["per_class"].values()):
        known = np.array([row[i] != "" for row in values])
        assert entry["n_unknown"] == (~known).sum() > 0
        y, s = folder.labels[known, i], folder.scores[known, i]
        assert entry["auroc"] == pytest.approx(sk.roc_auc_score(y, s), abs=1e-12)


def test_split_list_and_extra_predictions(folder, capsys):
    listed = folder.ids[10:60]
    path = folder.path / "list.txt"
    path.write_text("\n".join([*reversed(listed), "other.png", listed[0]]) + "\n")
    result = folder.run("--split-list", path)
    assert result["counts"] == {
        "images": 50, "patients": len(set(folder.patients[10:60])),
        "predictions_ignored": 30, "listed_without_labels": 1,
    }
    expected = sk.roc_auc_score(folder.labels[10:60, 0], folder.scores[10:60, 0])
    assert result["per_class"]["Mass"]["auroc"] == pytest.approx(expected, abs=1e-12)
    assert set(result["inputs"]) == {"labels", "predictions", "split_list"}
    out = capsys.readouterr().out
    assert "1 images of the split list have no label and are left out: other.png" in out
    assert "30 predictions are of images that are not scored: ignored" in out


def test_without_patients_the_output_says_so(folder, capsys):
    folder.replace("labels.csv", "patient_id", "prob_of_nothing")
    result = folder.run()
    assert result["counts"]["patients"] is None
    assert result["settings"]["resampled"] == "images"
    assert "The labels name no patients" in capsys.readouterr().out


def test_undefined_classes_are_null_and_named(folder, capsys):
    values = folder.labels.copy()
    values[:, 1] = 0
    folder.plain(values=values)
    result = folder.run()
    entry = result["per_class"]["Pleural_Thickening"]
    undefined = {name: value for name, value in entry.items() if value is None}
    assert set(undefined) == {
        "auroc", "auroc_interval", "auroc_interval_bootstrap", "average_precision",
        "average_precision_interval", "f1_max", "f1_max_interval", "threshold",
        "threshold_interval", "sensitivity_at_specificity", "sensitivity_at_specificity_interval",
    }
    assert entry["bootstrap_undefined"] == 20
    assert result["macro"]["classes_left_out"] == ["Pleural_Thickening"]
    assert result["macro"]["bootstrap_undefined"] == 0
    out = capsys.readouterr().out
    assert "macro mean (2 of 3)" in out
    assert "not in the mean (one label value only): Pleural_Thickening" in out
    assert out.count("n/a") == 10

    folder.plain(values=np.zeros((N, 3), int))
    assert folder.run()["macro"]["auroc"] is None


def test_classes_of_one_file_only_are_left_out_and_named(folder, capsys):
    folder.replace("labels.csv", "Edema", "Rib")
    folder.replace("scores.csv", "prob_Edema", "prob_No Finding")
    result = folder.run()
    assert result["classes"] == {
        "scored": ["Mass", "Pleural_Thickening"], "labels_without_predictions": ["Rib"],
        "predictions_without_labels": ["No Finding"],
    }
    out = capsys.readouterr().out
    assert "1 classes of the labels have no prediction and are left out: Rib" in out
    assert "1 classes of the predictions have no labels and are left out: No Finding" in out


# file, text, its replacement, what the message holds
MISTAKES = {
    "no image column": ("labels.csv", "image_id", "picture", "labels.csv: no column of image ids"),
    "label of another value": ("labels.csv", "_002.png,15,0", "_002.png,15,2",
                               "labels.csv:4: '2' in column Mass is no label; allowed: 1, 0,"),
    "text for a label": ("labels.csv", "_002.png,15,0", "_002.png,15,oui",
                         "labels.csv:4: 'oui' in column Mass is no label"),
    "no patient": ("labels.csv", "_002.png,15,", "_002.png,,", "labels.csv:4: no patient in"),
    "no id": ("scores.csv", "00000015_002.png,", ",", "scores.csv:4: no image id in column id"),
    "image twice": ("scores.csv", "00000015_002.png", "{first}",
                    "scores.csv:4: a second row for {first}, the first is line 2; remove one"),
    "text for a score": ("scores.csv", "_002.png,", "_002.png,high",
                         "scores.csv:4: 'high{score}' in column prob_Mass is no number"),
    "empty score": ("scores.csv", "_002.png,{score}", "_002.png,",
                    "scores.csv:4: '' in column prob_Mass is no number"),
    "nan": ("scores.csv", "_002.png,{score}", "_002.png,nan",
            "scores.csv:4: 'nan' in column prob_Mass is not finite"),
    "cell missing": ("scores.csv", "_002.png,{score}", "_002.png",
                     "scores.csv:4: 3 cells; 4 are expected"),
    "cell too many": ("scores.csv", "_002.png", "_002.png,0",
                      "scores.csv:4: 5 cells; 4 are expected"),
    "image without prediction": ("scores.csv", "00000015_002.png", "other.png",
                                 "1 of 80 images have no prediction: 00000015_002.png; predict"),
    "class twice": ("scores.csv", "prob_Edema", "score_mass",
                    "the columns prob_Mass and score_mass are both of the class mass"),
    "open quote": ("scores.csv", "_002.png", '_002.png,"', "not a csv file"),
    "two separators": ("scores.csv", "id,prob_Mass,prob_Pleural_Thickening,prob_Edema",
                       "id;prob_Mass", "scores.csv:2: 1 cells; 2 are expected"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_one_line_and_exit_code_2(folder, mistake, capsys):
    name, old, new, message = MISTAKES[mistake]
    folder.ids[2] = "00000015_002.png"
    folder.patients[2], folder.labels[2, 0] = 15, 0
    folder.plain()
    folder.predict()
    known = {"first": folder.ids[0], "score": folder.scores[2, 0]}
    folder.replace(name, old.format(**known), new.format(**known))
    with pytest.raises(SystemExit) as stopped:
        folder.run()
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message.format(**known) in error
    assert error.startswith("jaxcxr: ")
    assert error.count("\n") == 1
    assert not (folder.path / "out").exists()


@pytest.mark.parametrize(("content", "message"), [
    (None, "labels.csv cannot be read: No such file"),
    (b"", "labels.csv: no line with data; the columns image_id, ... are expected"),
    (b"image_id,Mass\n\n", "labels.csv: no line with data; the columns"),
    (b"image_id,patient_id\na.png,1\n", "labels.csv: no column of a class among"),
    (b"image_id,Mass\na.png,1\nb\x81.png,0\n", "labels.csv:3: not in UTF-8; save it as"),
    ("image_id,Mass\na.png,1\n".encode("utf-16")[:-1], "labels.csv:1: no text: it holds NUL"),
    ("image_id,Mass\na.png,1\n".encode("utf-16-le"), "labels.csv:1: no text: it holds NUL"),
    (gzip.compress(b"image_id,Mass\na.png,1\n", mtime=0)[:-3], "labels.csv cannot be decompressed"),
    (b"Image Index,Finding Labels,Patient ID\na.png,Mess,1\n",
     "labels.csv:2: 'Mess' in column Finding Labels is not made of ChestX-ray14's findings"),
    (b"image_id,Rib\na.png,1\n", "none of its classes (Mass, Pleural_Thickening, Edema) is one of"),
    (b"image_id,mass,Mass\na.png,1,1\n", "the columns mass and Mass are both of the class Mass"),
])
def test_files_that_are_not_labels(folder, content, message, capsys):
    path = folder.path / "labels.csv"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    folder.write("scores.csv", [["id", *CLASSES], ["a.png", 1, 1, 1], ["b.png", 1, 1, 1]])
    with pytest.raises(SystemExit) as stopped:
        folder.run()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_mistakes_of_options_and_lists(folder, capsys):
    (folder.path / "empty.txt").write_text("\n")
    (folder.path / "strange.txt").write_text("a.png\nb.png\n")
    (folder.path / "file").write_text("")
    for options, message in (
        (("--resamples", 0), "--resamples must be at least 1"),
        (("--seed", -1), "--seed at least 0"),
        (("--split-list", folder.path / "empty.txt"), "empty.txt: empty; one image per line"),
        (("--split-list", folder.path / "strange.txt"), "none of its 2 images has a label in"),
        (("--split-list", folder.path / "none.txt"), "none.txt cannot be read"),
        (("--out", folder.path / "file"), "file cannot be written"),
    ):
        with pytest.raises(SystemExit) as stopped:
            folder.run(*options)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err


def test_score_of_arrays_needs_no_files():
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 2, (50, 2))
    result = metrics_table.score(labels, rng.normal(size=(50, 2)), ("A", "B"), None, resamples=10)
    assert result["per_class"]["A"]["n_unknown"] == (labels[:, 0] == -1).sum()
    assert "macro mean (2 of 2)" in metrics_table.to_text(result)


def test_the_official_test_split(shared_data, tmp_path):
    raw = shared_data / "chestxray14"
    needed = [raw / "Data_Entry_2017_v2020.csv", raw / "test_list.txt"]
    if not all(path.exists() for path in needed):
        pytest.skip(f"no ChestX-ray14 csv and list in {raw}; see `shared_data`")
    ids = needed[1].read_text().split()
    scores = np.random.default_rng(0).random((len(ids), 2))
    with (tmp_path / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "prob_Hernia", "prob_Cardiomegaly"])
        writer.writerows([name, *row] for name, row in zip(ids, scores, strict=True))
    command.run([
        "score", "--labels", str(needed[0]), "--split-list", str(needed[1]), "--predictions",
        str(tmp_path / "scores.csv"), "--out", str(tmp_path), "--resamples", "50",
    ])
    result = json.loads((tmp_path / "metrics.json").read_text())
    assert result["counts"]["images"] == 25_596
    assert result["counts"]["patients"] == 2_797
    cardiomegaly, hernia = result["per_class"]["Cardiomegaly"], result["per_class"]["Hernia"]
    assert (cardiomegaly["n_positive"], cardiomegaly["n_negative"]) == (1_069, 24_527)
    assert hernia["n_positive"] == 86
    assert hernia["auroc_interval"][0] < 0.5 < hernia["auroc_interval"][1]
