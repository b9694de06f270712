"""Relabelling: against scikit-learn, hand examples, and what must never change."""

import csv
import json
import math

import numpy as np
import pytest
from sklearn import metrics as sk

from jaxcxr.errors import UserError
from jaxcxr.xray import relabeling
from jaxcxr.xray.images import manifest

CLASSES = ("Mass", "Nodule", "Pneumothorax")


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_images_of_a_patient_share_a_fold_whatever_else_there_is():
    patients = np.random.default_rng(0).integers(0, 3000, 20_000).astype(str)
    fold = relabeling.folds(patients, 5, seed=3)
    assert len(set(zip(patients, fold.tolist(), strict=True))) == len(set(patients))
    np.testing.assert_array_equal(relabeling.folds(patients[::-7], 5, seed=3), fold[::-7])
    shares = np.bincount(relabeling.folds(np.unique(patients), 5, seed=3), minlength=5) / 3000
    assert np.abs(shares - 0.2).max() < 4 * math.sqrt(0.2 * 0.8 / 3000)
    other = relabeling.folds(patients, 5, seed=4)
    assert np.mean(other == fold) == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize(("members", "held_out"), [(2, 1), (5, 2), (5, 4), (7, 3)])
def test_every_fold_is_left_out_by_as_many_members(members, held_out):
    out = [relabeling.left_out(k, members, held_out) for k in range(members)]
    assert all(len(set(numbers)) == held_out for numbers in out)
    np.testing.assert_array_equal(np.bincount(np.concatenate(out)), [held_out] * members)


def test_left_out_goes_on_at_the_first_fold():
    assert [relabeling.left_out(k, 5, 2) for k in (0, 3, 4)] == [(0, 1), (3, 4), (0, 4)]


def test_average_is_the_mean_over_those_that_scored():
    scores = [np.array([[0.2], [0.4]]), np.array([[0.6], [1.0]])]
    averaged = relabeling.average(scores, [np.array([0, 2]), np.array([2, 1])], 3)
    np.testing.assert_allclose(averaged[:, 0], [0.2, 1.0, 0.5])
    with pytest.raises(ValueError, match="1 images have no score"):
        relabeling.average(scores, [np.array([0, 2]), np.array([2, 0])], 3)


def test_average_leaves_out_members_that_could_not_learn_the_class():
    scores = [np.array([[0.2, np.nan], [0.4, np.nan]]), np.array([[0.6, 0.8], [1.0, 0.5]])]
    averaged = relabeling.average(scores, [np.array([0, 2]), np.array([2, 1])], 3)
    np.testing.assert_allclose(averaged, [[0.2, np.nan], [1.0, 0.5], [0.5, 0.8]])


def test_labels_without_a_score_stay_and_do_not_move_the_threshold():
    labels, scores = made_up()
    half = len(labels) // 2
    expected, before = relabeling.relabel(labels[:half], scores[:half], CLASSES)
    scores[half:] = np.nan
    new, after = relabeling.relabel(labels, scores, CLASSES)
    np.testing.assert_array_equal(new[:half], expected)
    np.testing.assert_array_equal(new[half:], labels[half:])
    assert [row.threshold for row in after] == [row.threshold for row in before]


def test_kappa_is_scikit_learns_over_what_both_know():
    rng = np.random.default_rng(1)
    a, b = rng.integers(-1, 2, (2, 300))
    b = np.where(rng.random(300) < 0.5, a, b)
    known = (a >= 0) & (b >= 0)
    assert 0 < known.sum() < 300
    assert relabeling.kappa(a, b) == pytest.approx(sk.cohen_kappa_score(a[known], b[known]))
    assert relabeling.kappa(a, a) == 1


@pytest.mark.parametrize("pair", [([0, 0], [0, 0]), ([1, 1], [1, 1]), ([-1, 0], [1, -1])])
def test_kappa_of_one_value_or_nothing_is_undefined(pair):
    assert math.isnan(relabeling.kappa(*map(np.array, pair)))


def made_up(seed=2, count=400):
    """Labels with unknown ones, and scores that know something, with ties."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([1, 0, 0, 0, -1], np.int8), (count, 3))
    scores = np.round(1 / (1 + np.exp(-rng.normal(labels * 1.5, 1))), 2)
    return labels, scores


def test_threshold_is_scikit_learns_best_f1_over_known_labels():
    labels, scores = made_up()
    new, rows = relabeling.relabel(labels, scores, CLASSES)
    for c, row in enumerate(rows):
        known = labels[:, c] >= 0
        truth, score = labels[known, c], scores[known, c]
        values = {t: sk.f1_score(truth, score >= t) for t in np.unique(score)}
        assert row.f1 == pytest.approx(max(values.values()))
        assert row.threshold == max(t for t, f1 in values.items() if f1 == pytest.approx(row.f1))
        said = (truth == 1) | (score >= row.threshold)
        np.testing.assert_array_equal(new[known, c], said)
        assert row.kappa == pytest.approx(sk.cohen_kappa_score(truth, said))
        assert row.unchanged == pytest.approx(sk.accuracy_score(truth, said))


def test_positives_stay_and_the_unknown_stays_unknown():
    labels, scores = made_up()
    before = labels.copy()
    new, rows = relabeling.relabel(labels, scores, CLASSES)
    np.testing.assert_array_equal(labels, before)
    assert (new[labels == 1] == 1).all()
    assert (new[labels == -1] == -1).all()
    for c, row in enumerate(rows):
        counts = [(side[:, c] == 1).sum() for side in (labels, new)]
        assert [row.positives, row.relabelled] == counts
        assert row.added == counts[1] - counts[0] > 0
        assert (row.negatives, row.unknown) == ((labels[:, c] == 0).sum(),
                                                (labels[:, c] == -1).sum())


@pytest.mark.parametrize("value", [1, 0, -1])
def test_a_class_with_one_label_value_keeps_its_labels(value):
    labels, scores = made_up()
    labels[:, 1] = np.where(labels[:, 1] == -1, -1, value)
    new, rows = relabeling.relabel(labels, scores, CLASSES)
    np.testing.assert_array_equal(new[:, 1], labels[:, 1])
    assert math.isnan(rows[1].threshold)
    assert rows[1].added == 0
    assert "where networks give a score, labels kept: Nodule" in relabeling.to_text(rows)
    assert json.loads(json.dumps(relabeling.as_json(rows), allow_nan=False))[1]["f1"] is None


def test_perfect_scores_change_nothing_and_useless_ones_are_said_to():
    labels, scores = made_up()
    new, rows = relabeling.relabel(labels, np.where(labels == 1, 0.9, 0.1), CLASSES)
    np.testing.assert_array_equal(new, labels)
    assert [(row.f1, row.kappa, row.unchanged) for row in rows] == [(1, 1, 1)] * 3
    assert "more positives" not in relabeling.to_text(rows)
    _, rows = relabeling.relabel(labels, np.full(scores.shape, 0.5), CLASSES)
    assert rows[0].added == rows[0].negatives
    assert "more positives added than were recorded: Mass, Nodule" in relabeling.to_text(rows)


def test_each_change_is_logged(tmp_path):
    labels, scores = made_up(count=60)
    rows = manifest.from_rows(
        [{"image_id": f"i{i}", "patient_id": f"p{i // 2}", "split": "train", "labels": labels[i]}
         for i in range(60)], CLASSES)
    new, summary = relabeling.relabel(labels, scores, CLASSES)
    relabeling.write_changes(tmp_path / "changes.csv", rows, scores, new, summary)
    with (tmp_path / "changes.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    again = labels.copy()
    for line in lines:
        i, c = int(line["image_id"][1:]), CLASSES.index(line["class"])
        assert line["patient_id"] == f"p{i // 2}"
        assert (line["original"], line["new"]) == ("0", "1")
        assert float(line["score"]) == scores[i, c] >= float(line["threshold"])
        assert float(line["threshold"]) == summary[c].threshold
        again[i, c] = 1
    np.testing.assert_array_equal(again, new)
    assert len(lines) == sum(row.added for row in summary) > 0


GOOGLE = (
    "Image Index,Patient ID,Fracture,Pneumothorax,Airspace opacity,Nodule or mass,Set Id",
    "c.png,1,NO,YES,YES,NO,val",
    "elsewhere.png,2,YES,YES,YES,YES,test",
    "a.png,1,YES,NO,NO,YES,val",
    "b.png,3,NO,YES,NO,YES,val",
)


def test_google_adjudicated_labels(tmp_path):
    path = write(tmp_path / "google.csv", *GOOGLE)
    truth = relabeling.read_adjudicated(path, ["a.png", "b.png", "c.png"], CLASSES)
    assert list(truth.rows) == [2, 0, 1]
    assert truth.columns == {"Pneumothorax": (2,), "Nodule or mass": (1, 0)}
    np.testing.assert_array_equal(truth.labels, [[1, 0], [0, 1], [1, 1]])
    assert truth.listed == 4
    labels = np.array([[0, 1, 1], [0, 0, 1], [-1, 0, 0]], np.int8)  # of a, b and c
    found = relabeling.agreement(labels, truth)
    assert found["Pneumothorax"].sensitivity == 0.5  # b of b and c
    assert found["Pneumothorax"].ppv == 0.5  # b of a and b
    assert (found["Nodule or mass"].images, found["Nodule or mass"].positives) == (2, 2)
    assert found["Nodule or mass"].sensitivity == 0.5  # a of a and b, c is unknown
    assert found["Nodule or mass"].ppv == 1


def test_airspace_opacity_is_any_of_its_findings(tmp_path):
    path = write(tmp_path / "google.csv", *GOOGLE)
    classes = ("Edema", "Mass", "Consolidation")
    truth = relabeling.read_adjudicated(path, ["a.png", "b.png", "c.png"], classes)
    assert truth.columns == {"Airspace opacity": (0, 2), "Nodule or mass": (1,)}


def test_agreement_is_scikit_learns_before_and_after(tmp_path):
    rng = np.random.default_rng(5)
    real = rng.integers(0, 2, (300, 3)).astype(np.int8)
    recorded = np.where(rng.random((300, 3)) < 0.3, 0, real).astype(np.int8)
    recorded[rng.random((300, 3)) < 0.1] = -1
    lines = [f"i{i}," + ",".join(map(str, real[i])) for i in range(300)]
    path = write(tmp_path / "truth.csv", "image_id,mass,Nodule,pneumo thorax", *lines)
    truth = relabeling.read_adjudicated(path, [f"i{i}" for i in range(300)], CLASSES)
    new, _ = relabeling.relabel(recorded, real + rng.normal(0, 0.2, real.shape), CLASSES)
    before, after = (relabeling.agreement(labels, truth) for labels in (recorded, new))
    for labels, found in ((recorded, before), (new, after)):
        for c, name in enumerate(CLASSES):
            known = labels[:, c] >= 0
            pair = real[known, c], labels[known, c]
            assert found[name].sensitivity == pytest.approx(sk.recall_score(*pair))
            assert found[name].ppv == pytest.approx(sk.precision_score(*pair))
            assert found[name].kappa == pytest.approx(sk.cohen_kappa_score(*pair))
    text = relabeling.agreement_text(before, after).splitlines()
    for line, name in zip(text[2:], CLASSES, strict=True):
        assert after[name].kappa > before[name].kappa
        assert line.startswith(name)
        assert line.endswith(f"{before[name].kappa:.3f} -> {after[name].kappa:.3f}")


@pytest.mark.parametrize(("lines", "parts"), [
    ((GOOGLE[0], "a.png,1,NO,MAYBE,NO,NO,val"), [":2", "'MAYBE'", "Pneumothorax", "yes"]),
    (("image_id,Hernia", "a.png,1"), ["no column is a class", "Nodule or mass", "Hernia"]),
    (("image_id,Mass", "z.png,1"), ["none of its 1 images", "z.png", "a.png"]),
    (("image_id,Mass", "a.png,1", "a.png,0"), [":3", "second row for a.png"]),
])
def test_a_wrong_file_is_explained(tmp_path, lines, parts):
    path = write(tmp_path / "wrong.csv", *lines)
    with pytest.raises(UserError) as caught:
        relabeling.read_adjudicated(path, ["a.png", "b.png"], CLASSES)
    for part in (str(path), *parts):
        assert part in str(caught.value)
