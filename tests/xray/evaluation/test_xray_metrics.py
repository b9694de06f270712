"""Records of metrics: a column takes one, what is undefined breaks no table; values of a split."""

import csv
import json
import math
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics as sk

from jaxcxr.xray.evaluation import metrics_table, subgroups, xray_metrics
from jaxcxr.xray.evaluation.xray_metrics import METRICS, of_basis
from tests.xray.evaluation.metric_program import NAME

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("metrics")
    command = [sys.executable, "-m", "tests.xray.evaluation.metric_program", str(out)]
    subprocess.run(command, cwd=ROOT, check=True)
    return out


def test_a_record_is_all_that_a_column_takes(written):
    def text(name):
        return (written / name).read_text(encoding="utf-8")

    for name in ("screen.txt", "metrics.md", "compare.txt"):
        assert "Positive" in text(name), name
    assert "Pos." in text("brief.txt")
    for name in ("page.txt", "page_subgroups.txt", "subgroups.txt", "subgroups.md"):
        assert "predictive value" in text(name), name
    assert "Pos." in text("subgroups_brief.txt")
    for name in ("metrics.csv", "subgroups.csv", "metrics.json", "compare_rows.txt"):
        assert NAME in text(name), name
    assert f"{NAME}: nothing predicted positive" in text("metrics.json").replace("ppv, ", "")


def test_a_value_that_is_undefined_in_one_class_leaves_the_mean_undefined(written):
    result = json.loads((written / "metrics.json").read_text())
    found = {name: entry[NAME] for name, entry in result["per_class"].items()}
    assert found["Mass"] > 0.9
    assert found["Hernia"] is None
    assert result["macro"][NAME] is None
    assert result["macro"][f"{NAME}_interval"] is None
    assert result["macro"]["sensitivity"] == pytest.approx(
        np.mean([entry["sensitivity"] for entry in result["per_class"].values()])
    )
    with (written / "metrics.csv").open(newline="") as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert rows["Hernia"][NAME] == rows["macro"][NAME] == ""
    assert rows["macro"][f"{NAME}_interval_low"] == ""
    for line in (written / "screen.txt").read_text().splitlines()[8:]:
        assert line.startswith(("Mass", "Edema", "-", "at")) or "n/a" in line


LABELS = {
    "all positive": np.ones((6, 2), int), "all negative": np.zeros((6, 2), int),
    "all unknown": np.full((6, 2), -1), "no image": np.zeros((0, 2), int),
    "one class of two": np.array([[1, 1], [0, 1], [1, 1], [0, 1], [0, 1], [1, 1]]),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("together", [False, True])
def test_labels_of_which_little_is_defined_break_no_table(labels, together, tmp_path):
    scores = np.linspace(0.1, 0.9, labels.size).reshape(labels.shape)
    patients = ["p"] * len(labels) if together else None
    result = metrics_table.score(labels, scores, ("a", "b"), patients, 20)
    metrics_table.write(result, tmp_path)
    macro = json.loads((tmp_path / "metrics.json").read_text())["macro"]
    defined = len(labels) and len(np.unique(labels[:, 0])) == 2
    assert (macro["auroc"] is not None) == bool(defined)
    for brief in (False, True):
        assert "n/a" in metrics_table.to_text(result, brief)  # "b" is never defined
    groups = {"sex": np.array(["F", "M", "F", "M", "F", "M"])[: len(labels)]}
    rows = subgroups.rows(labels, scores, ("a", "b"), patients, groups, scores > 0.5, 20)
    subgroups.write(rows, tmp_path)
    lines = subgroups.to_text(rows, brief=True).splitlines()
    assert len(lines) == (3 if len(labels) else 0)  # the head and two groups


def test_names_are_unique_and_every_record_says_where_it_is_undefined():
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert all(metric.undefined for metric in METRICS)
    assert not any(metric.calibrated for metric in of_basis("rates", calibrated=False))


CLASSES = ("Mass", "Hernia", "Edema", "COVID-19")


@pytest.fixture
def example():
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 2, (60, 4)).astype(np.int8)
    labels[:, 1] = np.where(labels[:, 1] == 1, 0, labels[:, 1])  # no positive
    labels[:, 3] = -1  # nothing known
    # Rounded, so that ties occur.
    scores = np.round(rng.normal(size=(60, 4)) + 0.5 * labels, 1).astype(np.float32)
    return labels, scores


def test_defined_classes_are_scikit_learns_on_known_labels(example):
    labels, scores = example
    table = xray_metrics.evaluate(labels, scores, CLASSES)
    for i in (0, 2):
        known = labels[:, i] >= 0
        y, s = labels[known, i], scores[known, i].astype(float)
        values = table.rows[i].values
        assert values["auroc"] == pytest.approx(sk.roc_auc_score(y, s), abs=1e-12)
        assert values["average_precision"] == pytest.approx(sk.average_precision_score(y, s))
        pairs = s[y == 1][:, None] - s[y == 0][None]
        mann_whitney = np.mean((pairs > 0) + 0.5 * (pairs == 0))
        assert values["auroc"] == pytest.approx(mann_whitney, abs=1e-12)
    defined = [table.rows[i].values["auroc"] for i in (0, 2)]
    assert table.macro("auroc") == pytest.approx(sum(defined) / 2)


def test_undefined_classes_are_named_and_left_out(example):
    table = xray_metrics.evaluate(*example, CLASSES)
    assert table.undefined == ("Hernia", "COVID-19")
    assert math.isnan(table.rows[1].values["auroc"])
    assert math.isnan(table.rows[3].values["average_precision"])
    text = table.to_text()
    assert "macro mean (2 of 4)" in text
    assert text.endswith("not in the mean (one label value only): Hernia, COVID-19")
    assert text.count("n/a") == 4
    scalars = table.scalars()
    assert scalars["auroc"] == table.macro("auroc")
    assert scalars["classes_undefined"] == 2
    assert "auroc/Hernia" not in scalars
    assert all(map(math.isfinite, scalars.values()))


def test_counts_add_up(example):
    labels, scores = example
    rows = xray_metrics.evaluate(labels, scores, CLASSES).rows
    assert [r.positives for r in rows] == list((labels == 1).sum(0))
    assert [r.negatives for r in rows] == list((labels == 0).sum(0))
    assert all(r.positives + r.negatives + r.unknown == 60 for r in rows)


def test_unknown_examples_change_nothing_and_order_neither(example):
    labels, scores = example
    table = xray_metrics.evaluate(labels, scores, CLASSES)
    order = np.random.default_rng(1).permutation(60)
    shuffled = xray_metrics.evaluate(labels[order], scores[order], CLASSES)
    assert shuffled.to_text() == table.to_text()
    assert shuffled.macro("auroc") == pytest.approx(table.macro("auroc"), abs=1e-12)
    longer = xray_metrics.evaluate(
        np.concatenate([labels, np.full((9, 4), -1)]),
        np.concatenate([scores, np.full((9, 4), 99.0)]),
        CLASSES,
    )
    assert longer.macro("auroc") == pytest.approx(table.macro("auroc"), abs=1e-12)
    assert longer.rows[0].unknown == table.rows[0].unknown + 9


def test_monotone_scores_and_perfect_order(example):
    labels, scores = example
    raw = xray_metrics.evaluate(labels, scores, CLASSES)
    probability = xray_metrics.evaluate(labels, 1 / (1 + np.exp(-scores)), CLASSES)
    assert probability.macro("auroc") == pytest.approx(raw.macro("auroc"), abs=1e-12)
    perfect = xray_metrics.evaluate(labels, labels.astype(float), CLASSES)
    assert perfect.macro("auroc") == perfect.macro("average_precision") == 1.0


def test_nothing_defined_is_n_a():
    table = xray_metrics.evaluate(np.ones((3, 1)), np.zeros((3, 1)), ("Mass",))
    assert math.isnan(table.macro("auroc"))
    assert "auroc" not in table.scalars()
    assert "macro mean (0 of 1)" in table.to_text()
    empty = xray_metrics.evaluate(np.zeros((0, 1)), np.zeros((0, 1)), ("Mass",))
    assert empty.undefined == ("Mass",)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_rejected(example, bad):
    labels, scores = example
    scores[7, 2] = bad
    with pytest.raises(ValueError, match=r"1 scores are not finite.* example 7, class Edema"):
        xray_metrics.evaluate(labels, scores, CLASSES)


def test_other_mistakes_are_rejected(example):
    labels, scores = example
    with pytest.raises(ValueError, match=r"labels \[60, 4\] .* must both be \[examples, 3\]"):
        xray_metrics.evaluate(labels, scores, CLASSES[:3])
    labels[3, 0] = 2
    with pytest.raises(ValueError, match=r"label 2 of example 3, class Mass"):
        xray_metrics.evaluate(labels, scores, CLASSES)
