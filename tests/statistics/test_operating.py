"""Rates at thresholds against scikit-learn, their resamples and the coverage of all intervals."""

import numpy as np
import pytest
from scipy import integrate, special, stats
from sklearn import metrics as sk

from jaxcxr.statistics import intervals, operating, ranking


def example(n=240, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 2, (n, 3))
    labels[:, 2] = 0
    probabilities = np.round(special.expit(rng.normal(size=(n, 3)) + labels), 2)
    return labels, probabilities, np.array([0.6, 0.4, 0.99]), rng.integers(0, 30, n)


def theirs(labels, probabilities, threshold, weight):
    known = labels >= 0
    y, p, w = labels[known], probabilities[known], weight[known]
    found = p >= threshold
    return {
        "f1": sk.f1_score(y, found, sample_weight=w),
        "sensitivity": sk.recall_score(y, found, sample_weight=w),
        "specificity": sk.recall_score(1 - y, ~found, sample_weight=w),
        "ppv": sk.precision_score(y, found, sample_weight=w),
        "npv": sk.precision_score(1 - y, ~found, sample_weight=w),
        "brier": sk.brier_score_loss(y, p, sample_weight=w),
    }


def test_rates_and_resamples_are_scikit_learns_with_sample_weight():
    labels, probabilities, thresholds, patients = example()
    terms = operating.terms(labels, probabilities, probabilities >= thresholds)
    values = operating.rates(terms.sum(axis=0))
    drawn = operating.rates(operating.resampled_sums(terms, patients, 70, seed=5))
    names, index = np.unique(patients, return_inverse=True)
    weights = intervals.with_replacement(np.random.default_rng(5), len(names), 70)[index]
    for c in range(2):
        expected = theirs(labels[:, c], probabilities[:, c], thresholds[c], np.ones(len(labels)))
        for name, value in expected.items():
            assert values[name][c] == pytest.approx(value, abs=1e-12), name
        for b in (0, 31, 69):
            expected = theirs(labels[:, c], probabilities[:, c], thresholds[c], weights[:, b])
            for name, value in expected.items():
                assert drawn[name][b, c] == pytest.approx(value, abs=1e-12), name


def test_what_is_undefined_is_nan():
    labels, probabilities, thresholds, patients = example()
    terms = operating.terms(labels, probabilities, probabilities >= thresholds)
    found = operating.with_intervals(
        terms.sum(axis=0), operating.resampled_sums(terms, patients, 20)
    )[2]  # no positive, and nothing found
    assert {name for name, ends in found.items() if np.isnan(ends[0])} == {
        "f1", "sensitivity", "ppv"
    }
    assert np.isnan(found["f1"][1:]).all()
    assert found["specificity"][0] == 1.0  # in every resample too, which is no interval
    assert np.isnan(found["specificity"][1:]).all()
    one = operating.with_intervals(
        terms.sum(axis=0), operating.resampled_sums(terms, np.zeros(240), 20)
    )[0]
    assert not np.isnan(one["f1"][0])
    assert np.isnan(one["f1"][1:]).all()


# A model of the simulation: scores of negatives N(0, 1), of positives N(SHIFT, 1), half of the
# variance and most labels shared by the images of a patient.
SHIFT, PREVALENCE, THRESHOLD = 1.2, 0.3, 0.35
BIAS = special.logit(PREVALENCE) - SHIFT**2 / 2  # of the true probability


def truth():
    """Every figure of the model, analytic or by quadrature."""
    x = np.linspace(-8, 10, 40_001)
    true, false = stats.norm.sf(x - SHIFT), stats.norm.sf(x)
    precision = PREVALENCE * true / (PREVALENCE * true + (1 - PREVALENCE) * false)
    p = special.expit(SHIFT * x + BIAS)
    brier = (PREVALENCE * stats.norm.pdf(x - SHIFT) * (1 - p) ** 2
             + (1 - PREVALENCE) * stats.norm.pdf(x) * p**2)
    cut = (special.logit(THRESHOLD) - BIAS) / SHIFT
    found, wrong = PREVALENCE * stats.norm.sf(cut - SHIFT), (1 - PREVALENCE) * stats.norm.sf(cut)
    return {
        "auroc": stats.norm.cdf(SHIFT / 2**0.5),
        "average_precision": integrate.trapezoid(precision * stats.norm.pdf(x - SHIFT), x),
        "sensitivity_at_specificity": stats.norm.sf(stats.norm.ppf(0.9) - SHIFT),
        "f1": 2 * found / (found + wrong + PREVALENCE),
        "sensitivity": found / PREVALENCE,
        "specificity": 1 - wrong / (1 - PREVALENCE),
        "brier": integrate.trapezoid(brier, x),
    }


def simulated(rng, patients=400):
    index = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    n = len(index)
    own = rng.random(patients) < PREVALENCE
    labels = np.where(rng.random(n) < 0.6, own[index], rng.random(n) < PREVALENCE)
    scores = (rng.normal(size=patients)[index] + rng.normal(size=n)) / 2**0.5 + SHIFT * labels
    return labels.astype(np.int8)[:, None], scores[:, None], index


@pytest.mark.slow
def test_intervals_cover_the_truth_in_1000_simulated_sets(record):
    rng, expected, hits, naive = np.random.default_rng(1), truth(), {}, []
    for seed in range(1000):
        labels, scores, patients = simulated(rng)
        bootstrap = ranking.cluster_bootstrap(labels, scores, patients, seed=seed)
        p = special.expit(SHIFT * scores + BIAS)
        terms = operating.terms(labels, p, p >= THRESHOLD)
        drawn = operating.resampled_sums(terms, patients, seed=seed)
        rates = operating.with_intervals(terms.sum(axis=0), drawn)[0]
        for name, value in expected.items():
            ends = rates[name][1:] if name in rates else bootstrap.interval(name, 0)
            hits.setdefault(name, []).append(ends[0] <= value <= ends[1])
        low, high = intervals.delong(labels[:, 0], scores[:, 0]).interval
        naive.append(low <= expected["auroc"] <= high)
    shares = {name: float(np.mean(values)) for name, values in hits.items()}
    print(shares, "DeLong", np.mean(naive))
    titles = {"auroc": "AUROC", "average_precision": "AP", "brier": "Brier", "f1": "F1",
              "sensitivity_at_specificity": "sensitivity at 90 % specificity"}
    rows = [(titles.get(name, name), f"{100 * share:.1f}") for name, share in shares.items()]
    rows.append(("AUROC, DeLong, which takes images as independent", f"{100 * np.mean(naive):.1f}"))
    record("intervals", *rows, columns=("metric", "share of 95 % intervals that hold the truth, %"),
           note="1,000 simulated sets of 400 patients whose images are alike.")
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares
    assert np.mean(naive) < 0.93  # images of a patient are not independent


@pytest.mark.slow
def test_intervals_of_few_patients_are_too_narrow_and_told_so(record):
    shares, told = {}, {}
    for patients in (20, 100):
        rng, hits, few = np.random.default_rng(patients), [], []
        for seed in range(300):
            labels, scores, index = simulated(rng, patients)
            drawn = ranking.cluster_bootstrap(labels, scores, index, seed=seed)
            low, high = drawn.interval("auroc", 0)
            hits.append(low <= truth()["auroc"] <= high)
            few.append(intervals.few_clusters(labels, index)[0])
        shares[patients], told[patients] = float(np.mean(hits)), float(np.mean(few))
    print("coverage by patients", shares, "told to be too narrow", told)
    record("intervals", few=f"{100 * shares[20]:.0f} %")
    assert shares[20] < 0.9 < shares[100]
    assert told[100] == 0 < told[20]
