import math

import numpy as np
import pytest
from sklearn import metrics as sk

from jaxcxr.xray.evaluation import class_metrics

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
    table = class_metrics.evaluate(labels, scores, CLASSES)
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
    table = class_metrics.evaluate(*example, CLASSES)
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
    rows = class_metrics.evaluate(labels, scores, CLASSES).rows
    assert [r.positives for r in rows] == list((labels == 1).sum(0))
    assert [r.negatives for r in rows] == list((labels == 0).sum(0))
    assert all(r.positives + r.negatives + r.unknown == 60 for r in rows)


def test_unknown_examples_change_nothing_and_order_neither(example):
    labels, scores = example
    table = class_metrics.evaluate(labels, scores, CLASSES)
    order = np.random.default_rng(1).permutation(60)
    shuffled = class_metrics.evaluate(labels[order], scores[order], CLASSES)
    assert shuffled.to_text() == table.to_text()
    assert shuffled.macro("auroc") == pytest.approx(table.macro("auroc"), abs=1e-12)
    longer = class_metrics.evaluate(
        np.concatenate([labels, np.full((9, 4), -1)]),
        np.concatenate([scores, np.full((9, 4), 99.0)]),
        CLASSES,
    )
    assert longer.macro("auroc") == pytest.approx(table.macro("auroc"), abs=1e-12)
    assert longer.rows[0].unknown == table.rows[0].unknown + 9


def test_monotone_scores_and_perfect_order(example):
    labels, scores = example
    raw = class_metrics.evaluate(labels, scores, CLASSES)
    probability = class_metrics.evaluate(labels, 1 / (1 + np.exp(-scores)), CLASSES)
    assert probability.macro("auroc") == pytest.approx(raw.macro("auroc"), abs=1e-12)
    perfect = class_metrics.evaluate(labels, labels.astype(float), CLASSES)
    assert perfect.macro("auroc") == perfect.macro("average_precision") == 1.0


def test_nothing_defined_is_n_a():
    table = class_metrics.evaluate(np.ones((3, 1)), np.zeros((3, 1)), ("Mass",))
    assert math.isnan(table.macro("auroc"))
    assert "auroc" not in table.scalars()
    assert "macro mean (0 of 1)" in table.to_text()
    empty = class_metrics.evaluate(np.zeros((0, 1)), np.zeros((0, 1)), ("Mass",))
    assert empty.undefined == ("Mass",)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_rejected(example, bad):
    labels, scores = example
    scores[7, 2] = bad
    with pytest.raises(ValueError, match=r"1 scores are not finite.* example 7, class Edema"):
        class_metrics.evaluate(labels, scores, CLASSES)


def test_other_mistakes_are_rejected(example):
    labels, scores = example
    with pytest.raises(ValueError, match=r"labels \[60, 4\] .* must both be \[examples, 3\]"):
        class_metrics.evaluate(labels, scores, CLASSES[:3])
    labels[3, 0] = 2
    with pytest.raises(ValueError, match=r"label 2 of example 3, class Mass"):
        class_metrics.evaluate(labels, scores, CLASSES)
