import numpy as np
import pytest
from scipy import stats

from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.errors import UserError
from jaxcxr.xray.phantom import population


def _first_visits(prevalence, patients=4000):
    return [population.visit(5, patient, 0, prevalence) for patient in range(patients)]


@pytest.mark.parametrize("prevalence", ["nih", "enriched"])
def test_each_finding_comes_at_its_rate(prevalence):
    labels = np.array([visit.labels() for visit in _first_visits(prevalence)])
    rates = population.rates(prevalence)
    counts = labels.sum(0)
    # First visits of different patients are independent: exact binomial bounds, 15 tests at once.
    low, high = stats.binom.interval(1 - 1e-4, len(labels), rates)
    assert (counts >= low).all()
    assert (counts <= high).all()
    assert rates.shape == (len(FINDINGS),)


def test_nih_cohort_resembles_chestxray14_in_what_was_not_set():
    visits = _first_visits("nih")
    healthy = np.mean([not visit.severity for visit in visits])
    assert abs(healthy - 60361 / 112120) < 0.04  # "No Finding" in Data_Entry_2017_v2020.csv
    edema = [visit.view == "AP" for visit in visits if "Edema" in visit.severity]
    assert np.mean(edema) > 0.7  # 88 % there
    everyone = np.mean([visit.view == "AP" for visit in visits])
    assert abs(everyone - 44810 / 112120) < 0.04


def test_findings_go_together_as_in_reports():
    labels = np.array([visit.labels() for visit in _first_visits("enriched")])
    k = FINDINGS.index

    def lift(a, b):
        both = (labels[:, k(a)] & labels[:, k(b)]).mean()
        return both / (labels[:, k(a)].mean() * labels[:, k(b)].mean())

    assert lift("Effusion", "Atelectasis") > 1.5
    assert lift("Effusion", "Cardiomegaly") > 1.5
    assert lift("Emphysema", "Pneumothorax") > 1.8
    assert lift("Edema", "Pneumothorax") < 0.9


def test_severities_are_uniform_and_chronic_findings_last():
    visits = _first_visits("enriched", 3000)
    severities = [s for visit in visits for s in visit.severity.values()]
    assert stats.kstest(severities, "uniform").pvalue > 1e-3

    def lasts(finding):
        again = [population.visit(5, v.patient, 3, "enriched").severity
                 for v in visits if finding in v.severity]
        return np.mean([finding in severity for severity in again])

    assert lasts("Emphysema") > 0.6
    assert lasts("Pneumonia") < 0.4


def test_a_patient_keeps_sex_and_grows_older():
    visits = [population.visit(1, 12, n, "nih") for n in range(6)]
    assert len({visit.sex for visit in visits}) == 1
    ages = [visit.age for visit in visits]
    assert ages == sorted(ages)
    assert 16 <= ages[0] <= 95


@pytest.mark.parametrize("images", [20, 333, 2000])
def test_splits_divide_all_images_by_patient(images):
    splits = population.splits(3, images)
    assert sum(map(len, splits.values())) == images
    everything = [pair for part in splits.values() for pair in part]
    assert len(set(everything)) == images
    patients = {name: {patient for patient, _ in part} for name, part in splits.items()}
    assert not patients["train"] & patients["test"]
    assert not patients["train"] & patients["validation"]
    assert not patients["validation"] & patients["test"]
    if images == 2000:
        assert abs(len(splits["train"]) / images - 0.7) < 0.02
        assert abs(len(splits["test"]) / images - 0.2) < 0.02


def test_several_images_per_patient():
    counts = np.bincount([patient for patient, _ in population.cohort(0, 1000)])
    assert 2.0 < counts.mean() < 3.0
    assert counts.max() <= 10
    assert (counts == 1).any()


def test_label_noise_flips_at_its_rate():
    visits = _first_visits("enriched", 1000)
    flips = [(population.recorded_labels(v, 0.1) != v.labels()).sum() for v in visits]
    low, high = stats.binom.interval(1 - 1e-4, 15 * len(visits), 0.1)
    assert low <= sum(flips) <= high
    assert all((population.recorded_labels(v, 0.0) == v.labels()).all() for v in visits[:50])


def test_unknown_prevalence_and_too_few_images_are_named():
    with pytest.raises(UserError, match="nih, enriched"):
        population.visit(0, 0, 0, "rare")
    with pytest.raises(UserError, match="at least 20"):
        population.splits(0, 19)
