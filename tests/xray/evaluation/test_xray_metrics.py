"""Records of metrics: a column takes one, and what is undefined breaks no table."""

import csv
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from jaxcxr.xray.evaluation import metrics_table, subgroups
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
