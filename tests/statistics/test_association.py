"""Association of a label with one attribute, against SciPy and scikit-learn."""

import math

import numpy as np
import pytest
from scipy.stats import contingency
from sklearn import metrics as sk

from jaxcxr.statistics import association


def draw(seed, n=400, categories=5):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, categories, n)
    labels = (rng.random(n) < 0.1 + 0.15 * ((groups * 3) % categories)).astype(int)
    labels[rng.random(n) < 0.1] = -1
    return labels, groups


@pytest.mark.parametrize("seed", range(5))
def test_cramers_v_is_scipys(seed):
    labels, groups = draw(seed)
    table = association.counts(labels, groups)
    known = labels >= 0
    oracle = contingency.crosstab(labels[known], groups[known]).count
    np.testing.assert_array_equal(table, oracle)
    expected = contingency.association(oracle, method="cramer", correction=False)
    assert association.cramers_v(table) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_category_auroc_is_that_of_the_share_of_positives(seed):
    labels, groups = draw(seed)
    known = labels >= 0
    share = {g: labels[known & (groups == g)].mean() for g in set(groups)}
    expected = sk.roc_auc_score(labels[known], [share[g] for g in groups[known]])
    result = association.category_auroc(association.counts(labels, groups))
    assert result == pytest.approx(expected, abs=1e-12)
    # No other order of the categories does better.
    rng = np.random.default_rng(seed)
    for _ in range(20):
        scores = rng.normal(size=5)[groups[known]]
        assert sk.roc_auc_score(labels[known], scores) <= result + 1e-12


def test_value_auroc_takes_the_better_direction():
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 2, 300)
    age = rng.integers(0, 90, 300) - 10 * labels
    known = labels >= 0
    auroc = sk.roc_auc_score(labels[known], age[known])
    assert auroc < 0.5
    assert association.value_auroc(labels, age) == pytest.approx(1 - auroc)
    assert association.value_auroc(labels, -age) == pytest.approx(1 - auroc)


def test_extremes():
    perfect = association.counts(np.array([1, 1, 0, 0, -1]), np.array(["a", "a", "b", "c", "d"]))
    np.testing.assert_array_equal(perfect, [[0, 1, 1], [2, 0, 0]])
    assert association.category_auroc(perfect) == 1.0
    assert association.cramers_v(perfect) == pytest.approx(1.0)
    independent = np.array([[30, 60], [10, 20]])
    assert association.category_auroc(independent) == 0.5
    assert association.cramers_v(independent) == pytest.approx(0.0)


@pytest.mark.parametrize("labels", [[1, 1], [0, 0], [-1, -1], []])
def test_one_label_value_has_no_auroc(labels):
    table = association.counts(np.array(labels, int), np.arange(len(labels)))
    assert math.isnan(association.category_auroc(table))
    assert math.isnan(association.cramers_v(table))
    assert math.isnan(association.value_auroc(np.array(labels, int), np.arange(len(labels))))


def test_one_category_has_no_v_and_tells_nothing():
    table = association.counts(np.array([1, 0, 0]), np.array(["a"] * 3))
    assert math.isnan(association.cramers_v(table))
    assert association.category_auroc(table) == 0.5


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"labels \[2\] and groups \[3\]"):
        association.counts(np.zeros(2), np.zeros(3))


def test_a_probe_finds_what_is_linear_and_nothing_else():
    random = np.random.default_rng(0)
    x = random.normal(size=(600, 5))
    labels = np.stack([x[:, 2] > 0, random.random(600) > 0.5, np.ones(600)], 1).astype(int)
    labels[:50, 0] = -1
    found = association.probe_scores(x[:300], labels[:300], x[300:])
    assert sk.roc_auc_score(labels[300:, 0], found[:, 0]) > 0.98
    assert 0.4 < sk.roc_auc_score(labels[300:, 1], found[:, 1]) < 0.6
    assert np.isnan(found[:, 2]).all()


def test_unknown_labels_are_not_learned_from():
    random = np.random.default_rng(1)
    x = random.normal(size=(200, 3))
    labels = (x[:, :1] > 0).astype(int)
    wrong = np.where(x[:, 1:2] > 0, -1, labels)
    known = association.probe_scores(x[wrong[:, 0] != -1], wrong[wrong != -1][:, None], x)
    np.testing.assert_allclose(association.probe_scores(x, wrong, x), known, rtol=1e-4)


def test_categories_as_labels():
    found, groups = association.indicators(np.array(["b", "a", "", "c"]))
    assert groups == ["a", "b", "c"]
    assert found.tolist() == [[0, 1, 0], [1, 0, 0], [-1, -1, -1], [0, 0, 1]]
    two, groups = association.indicators(np.array(["F", "M", ""]))
    assert groups == ["F", "M"]
    assert two.tolist() == [[0], [1], [-1]]
    other, _ = association.indicators(np.array(["M", "X"]), groups)
    assert other.tolist() == [[1], [0]]
