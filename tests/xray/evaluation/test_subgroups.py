"""Metrics of subgroups against counting by hand, and the attributes of images in files."""

import csv

import numpy as np
import pytest
from sklearn import metrics as sk

from jaxcxr.errors import UserError
from jaxcxr.xray.evaluation import subgroups
from jaxcxr.xray.evaluation.subgroups import ALL

CLASSES = ("Mass", "Edema", "Hernia")
N = 300


def example(seed=0):
    """Two sexes, one missed more often; a class that only one of them has; some ages unknown."""
    rng = np.random.default_rng(seed)
    patients = rng.integers(0, 90, N)
    sex = np.where(patients % 3 == 0, "F", "M")
    labels = (rng.random((N, 3)) < 0.25).astype(np.int8)
    labels[sex == "F", 2] = 0
    labels[::11, 1] = -1
    scores = rng.normal(size=(N, 3)) + labels * np.where(sex == "F", 0.5, 2.0)[:, None]
    age = subgroups.age_bands(np.where(np.arange(N) % 10, patients, -1))
    return labels, scores, patients, {"sex": sex, "age": age, "view": np.full(N, "PA")}


@pytest.fixture(scope="module")
def made():
    labels, scores, patients, attributes = example()
    found = scores > 1
    rows = subgroups.rows(labels, scores, CLASSES, patients, attributes, found, resamples=200)
    return labels, scores, patients, attributes, found, rows


def test_rows_are_what_counting_gives(made):
    labels, scores, patients, attributes, found, rows = made
    assert {row["attribute"] for row in rows} == {"sex", "age"}  # one view is no group
    for row in rows:
        mask = attributes[row["attribute"]] == (row["group"] if row["group"] != "unknown" else "")
        assert row["images"] == mask.sum()
        assert row["patients"] == len(set(patients[mask]))
        if row["class"] == ALL:
            continue
        c = CLASSES.index(row["class"])
        y, known = labels[mask, c], labels[mask, c] >= 0
        assert (row["positives"], row["negatives"]) == ((y == 1).sum(), (y == 0).sum())
        if not (y == 1).any():
            assert row["auroc"] is row["sensitivity"] is row["gap"] is row["gap_interval"] is None
            continue
        assert row["auroc"] == pytest.approx(sk.roc_auc_score(y[known], scores[mask, c][known]))
        mine = found[mask, c][y == 1].mean()
        assert row["sensitivity"] == pytest.approx(mine)
        rest = found[~mask, c][labels[~mask, c] == 1]
        if len(rest):
            assert row["gap"] == pytest.approx(mine - rest.mean())
            assert row["gap_interval"][0] < row["gap"] < row["gap_interval"][1]
        else:
            assert row["gap"] is None


def test_whole_groups_are_under_diagnosed_by_counting(made):
    labels, _, _, attributes, found, rows = made
    for row in rows:
        if row["class"] != ALL:
            assert row["under_diagnosis"] is None
            continue
        mask = attributes[row["attribute"]] == (row["group"] if row["group"] != "unknown" else "")
        some = (labels[mask] == 1).any(axis=1)
        none = (labels[mask] == 0).all(axis=1)
        said = found[mask].any(axis=1)
        assert (row["positives"], row["negatives"]) == (some.sum(), none.sum())
        assert row["under_diagnosis"] == pytest.approx((~said)[some].mean())
        assert row["over_diagnosis"] == pytest.approx(said[none].mean())
        low, high = row["under_diagnosis_interval"]
        assert low < row["under_diagnosis"] < high
    whole = {row["group"]: row for row in rows if row["class"] == ALL}
    parts = [row for row in rows if row["group"] == "F" and row["class"] != ALL]
    assert whole["F"]["classes"] == 2
    assert whole["F"]["auroc"] == pytest.approx(np.mean([r["auroc"] for r in parts[:2]]))
    assert whole["F"]["gap"] == pytest.approx(np.mean([r["gap"] for r in parts[:2]]))
    assert whole["F"]["gap_interval"][1] < 0 < whole["M"]["gap_interval"][0]


def test_the_gap_has_the_interval_of_a_difference_of_independent_groups():
    """Patients of one sex only: the bootstrap of the gap has the variances of both sides."""
    rng = np.random.default_rng(0)
    n = 4000
    sex = np.where(np.arange(n) % 2, "F", "M")
    labels = np.ones((n, 1), np.int8)
    found = (rng.random(n) < np.where(sex == "F", 0.6, 0.7))[:, None]
    row = next(r for r in subgroups.rows(
        labels, found.astype(float), ("Mass",), None, {"sex": sex}, found, resamples=1000
    ) if r["class"] == "Mass" and r["group"] == "F")
    half = 1.96 * np.sqrt(0.6 * 0.4 / 2000 + 0.7 * 0.3 / 2000)
    low, high = row["gap_interval"]
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    assert (high + low) / 2 == pytest.approx(row["gap"], abs=0.004)


def test_without_thresholds_there_is_auroc_alone(tmp_path):
    labels, scores, patients, attributes = example()
    rows = subgroups.rows(labels, scores, CLASSES, patients, attributes, resamples=20)
    assert "gap" not in rows[0]
    text = subgroups.to_text(rows)
    assert "AUROC" in text
    assert "gap" not in text
    assert subgroups.write([], tmp_path) == ()


def test_few_patients_have_metrics_without_intervals():
    labels, scores, patients, _ = example()
    few = np.where(patients < 5, "few", "many")
    rows = subgroups.rows(
        labels, scores, CLASSES, patients, {"a": few}, scores > 1, resamples=50
    )
    entries = {row["group"]: row for row in rows if row["class"] == ALL}
    assert entries["few"]["under_diagnosis"] is not None
    assert entries["few"]["under_diagnosis_interval"] is entries["few"]["auroc_interval"] is None
    assert entries["many"]["auroc_interval"] is not None


def test_the_table_of_a_run_fits_80_columns(made):
    lines = subgroups.to_text(made[-1], brief=True).splitlines()
    assert len(lines) == 1 + sum(row["class"] == ALL for row in made[-1])
    assert max(map(len, lines)) <= 80


def test_files_hold_all_rows(made, tmp_path):
    rows = made[-1]
    paths = subgroups.write(rows, tmp_path)
    with paths[0].open(newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == len(rows)
    assert float(read[0]["gap_interval_low"]) == rows[0]["gap_interval"][0]
    text = paths[1].read_text()
    assert text.count("| sex | F |") == 4
    assert "under-diagnosis" in text
    assert "n/a" in text  # Hernia of women


def test_age_bands():
    ages = np.array([-1, 0, 19, 20, 59, 60, 80, 120])
    assert subgroups.age_bands(ages).tolist() == [
        "", "00-19", "00-19", "20-39", "40-59", "60-79", "80+", "80+"
    ]


def write_rows(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_attributes_of_a_file_by_their_names(tmp_path):
    path = write_rows(tmp_path / "a.csv", [
        ["filename", "Patient Gender", "Patient Age", "View Position", "height"],
        ["2.png", "F", "057Y", "AP", "1"], ["1.png", "M", "9.0", "", "2"],
    ])
    found = subgroups.read(path, ["1.png", "2.png"], "labels.csv")
    assert {name: values.tolist() for name, values in found.items()} == {
        "sex": ["M", "F"], "age": ["00-19", "40-59"], "view": ["", "AP"],
    }
    path = write_rows(tmp_path / "b.csv", [["id", "patient_id", "scanner"], ["1", "p", "A"]])
    assert subgroups.read(path, ["1.png"], "labels.csv")["scanner"].tolist() == ["A"]
    path = write_rows(tmp_path / "c.csv", [["id", "patient_id"], ["1", "p"]])
    with pytest.raises(UserError, match="one per attribute"):
        subgroups.read(path, ["1"], "labels.csv")
