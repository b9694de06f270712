import numpy as np
from sklearn import metrics as sk

from jaxcxr.statistics import probes


def test_a_probe_finds_what_is_linear_and_nothing_else():
    random = np.random.default_rng(0)
    x = random.normal(size=(600, 5))
    labels = np.stack([x[:, 2] > 0, random.random(600) > 0.5, np.ones(600)], 1).astype(int)
    labels[:50, 0] = -1
    found = probes.scores(x[:300], labels[:300], x[300:])
    assert sk.roc_auc_score(labels[300:, 0], found[:, 0]) > 0.98
    assert 0.4 < sk.roc_auc_score(labels[300:, 1], found[:, 1]) < 0.6
    assert np.isnan(found[:, 2]).all()


def test_unknown_labels_are_not_learned_from():
    random = np.random.default_rng(1)
    x = random.normal(size=(200, 3))
    labels = (x[:, :1] > 0).astype(int)
    wrong = np.where(x[:, 1:2] > 0, -1, labels)
    np.testing.assert_allclose(
        probes.scores(x, wrong, x), probes.scores(x[wrong[:, 0] != -1], wrong[wrong != -1][:, None],
                                                  x), rtol=1e-4,
    )


def test_categories_as_labels():
    found, groups = probes.indicators(np.array(["b", "a", "", "c"]))
    assert groups == ["a", "b", "c"]
    assert found.tolist() == [[0, 1, 0], [1, 0, 0], [-1, -1, -1], [0, 0, 1]]
    two, groups = probes.indicators(np.array(["F", "M", ""]))
    assert groups == ["F", "M"]
    assert two.tolist() == [[0], [1], [-1]]
    other, _ = probes.indicators(np.array(["M", "X"]), groups)
    assert other.tolist() == [[1], [0]]
