"""Composing data sets: no patient in two splits, no film twice, everything counted."""

import collections

import hypothesis
import pytest
from hypothesis import strategies as st

from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.xray.sources import (
    builder,
    chestxray14,
    composition,
    covidx_table,
    rsna_pneumonia,
)

PNEUMONIA, COVID = FINDINGS.index("Pneumonia"), FINDINGS.index("COVID-19")
NEGATIVE = (0,) * 15
RSNA = "rsna_pneumonia"


def labels(**known):
    return tuple(known.get(name.replace("-19", ""), -1) for name in FINDINGS)


def nih(image, split="train", values=NEGATIVE):
    return builder.ImageRecord(image, image[:8], "chestxray14", split, values)


def rsna(name, split="train", values=None):
    values = values or labels(Pneumonia=1, COVID=0)
    return builder.ImageRecord(f"{name}.png", f"{RSNA}/{name}", RSNA, split, values)


def cohen(name, patient, split="train", **more):
    source = "covid_chestxray"
    return builder.ImageRecord(name, f"{source}/{patient}", source, split, labels(COVID=1), **more)


def compose(matches=(), val_fraction=0.0, **parts):
    return composition.compose(parts, dict(matches), val_fraction)


def splits(composition):
    return {row.image_id: row.split for rows in composition.parts.values() for row in rows}


def reasons(composition):
    return {reason: [row.image_id for row in rows] for reason, rows in composition.left_out.items()}


def test_rsna_image_of_a_tested_patient_is_not_trained_on():
    composed = compose(
        {"a": "00000001_001.png"},
        chestxray14=[nih("00000001_000.png", "test"), nih("00000002_000.png")],
        covidx=[rsna("a"), cohen("b.jpg", "1")],
    )
    assert splits(composed) == {
        "00000001_000.png": "test", "00000002_000.png": "train", "b.jpg": "train",
    }
    assert composed.notes == (
        "1 images of rsna_pneumonia are of patients in a test split and are not trained on: a.png",
    )


def test_tested_rsna_image_takes_its_patient_out_of_the_training_of_chestxray14():
    composed = compose(
        {"a": "00000001_000.png"},
        chestxray14=[nih("00000001_000.png"), nih("00000001_001.png"), nih("00000002_000.png")],
        covidx=[rsna("a", "test")],
    )
    assert splits(composed) == {"00000002_000.png": "train", "a.png": "test"}
    assert composed.parts["covidx"][0].patient_id == "00000001"
    assert "2 images of chestxray14 are of patients in a test split" in composed.notes[0]


def test_an_original_stands_for_its_copy_and_takes_over_pneumonia_in_training_only():
    matches = {"a": "00000001_000.png", "b": "00000002_000.png", "c": "00000003_000.png"}
    composed = compose(
        matches,
        chestxray14=[
            nih("00000001_000.png"), nih("00000002_000.png"), nih("00000003_000.png", "test"),
        ],
        covidx=[rsna("a"), rsna("b", values=NEGATIVE), rsna("c", "test")],
    )
    first, second, third = composed.parts["chestxray14"]
    assert first.labels == tuple(int(i == PNEUMONIA) for i in range(15))
    assert second.labels == third.labels == NEGATIVE
    assert composed.parts["covidx"] == ()
    assert composed.merged == (first,)
    assert len(composed.notes) == 2
    assert composed.notes[1].startswith("1 training images of chestxray14 get Pneumonia")


def test_labels_of_validation_stay_as_published():
    composed = compose(
        {"a": "00000001_000.png"}, 0.9999,
        chestxray14=[nih("00000001_000.png", "validation")], covidx=[rsna("a", "train")],
    )
    assert composed.parts["chestxray14"][0].labels == NEGATIVE
    assert composed.merged == ()


def test_two_copies_of_one_film_count_once_even_without_the_original():
    composed = compose(
        {"a": "00000001_000.png", "b": "00000001_000.png"},
        chestxray14=[nih("00000002_000.png")], covidx=[rsna("a"), rsna("b", "test")],
    )
    assert splits(composed) == {"00000002_000.png": "train", "b.png": "test"}


def test_an_image_without_a_match_stays_as_it_is():
    row, original = rsna("a"), nih("00000001_000.png")
    composed = compose({"b": original.image_id}, chestxray14=[original], covidx=[row])
    assert composed.parts["covidx"] == (row,)


def test_patients_of_covidx_keep_its_split_in_their_own_data_set():
    composed = compose(
        chestxray14=[nih("00000001_000.png")],
        covidx=[cohen("a.jpg", "1", "test"), cohen("b.jpg", "2", "train")],
        covid_chestxray=[
            cohen("c.jpg", "1", "train"), cohen("d.jpg", "2", "test"), cohen("e.jpg", "3", "test"),
        ],
    )
    assert splits(composed) == {
        "00000001_000.png": "train", "a.jpg": "test", "b.jpg": "train", "c.jpg": "test",
        "d.jpg": "train", "e.jpg": "test",
    }
    assert composed.notes == ()


def test_an_image_of_two_data_sets_counts_once_and_same_stems_are_two_images():
    composed = compose(
        chestxray14=[nih("00000001_000.png")],
        covidx=[cohen("1.jpg", "1"), cohen("1.png", "1")],
        covid_chestxray=[cohen("1.jpg", "1"), cohen("2.jpg", "1")],
    )
    assert [row.image_id for row in composed.parts["covidx"]] == ["1.jpg", "1.png"]
    assert [row.image_id for row in composed.parts["covid_chestxray"]] == ["2.jpg"]
    assert reasons(composed) == {"are in two data sets or lists and count once": ["1.jpg"]}


def test_an_image_in_both_lists_stays_in_test_and_its_patient_there_alone():
    composed = compose(
        chestxray14=[nih("00000001_000.png")],
        covidx=[cohen("1.jpg", "1"), cohen("2.jpg", "1"), cohen("1.jpg", "1", "test")],
    )
    assert [(row.image_id, row.split) for row in composed.parts["covidx"]] == [("1.jpg", "test")]


def test_patients_of_a_validation_list_are_not_trained_on():
    composed = compose(
        chestxray14=[nih("00000001_000.png")],
        covidx=[cohen("1.jpg", "1", "validation"), cohen("2.jpg", "1")],
    )
    assert splits(composed) == {"00000001_000.png": "train", "1.jpg": "validation"}
    assert "are of patients in validation and are not trained on" in composed.left_out


def test_lateral_views_and_films_of_the_abdomen_are_left_out():
    abdomen = "A926447-01-17-1901-NA-FLAT_PLATE_OF_ABDOMEN-29035-4.000000-AP-33767-1-1.jpg"
    composed = compose(
        chestxray14=[nih("00000001_000.png")],
        covidx=[
            cohen("1.jpg", "1", view="L"),
            builder.ImageRecord(
                abdomen, "stonybrook/A926447", "stonybrook", "train", labels(COVID=1)
            ),
        ],
    )
    assert composed.parts["covidx"] == ()
    assert len(composed.notes) == 2


PATIENTS = [f"0000000{i}" for i in range(1, 5)]
SPLITS = st.sampled_from(["train", "validation", "test"])


@st.composite
def data_sets(draw):
    """ChestX-ray14 split by patient, RSNA copies of some of its films, and two COVID sources."""
    of_patient = {patient: draw(SPLITS) for patient in PATIENTS}
    images = [f"{patient}_00{i}.png" for patient in PATIENTS for i in range(2)]
    originals = [nih(image, of_patient[image[:8]]) for image in images if draw(st.booleans())]
    names = [f"r{i}" for i in range(4)]
    matches = {name: draw(st.sampled_from(images)) for name in names if draw(st.booleans())}
    copies = [rsna(name, draw(SPLITS)) for name in names]
    names = st.sampled_from(["1.jpg", "1.png", "2.jpg"])
    film = st.builds(cohen, names, st.sampled_from("ab"), SPLITS)
    parts = {
        "chestxray14": originals,
        "covidx": [*copies, *draw(st.lists(film, max_size=5))],
        "covid_chestxray": draw(st.lists(film, max_size=5)),
    }
    return parts, matches


@hypothesis.settings(max_examples=150, deadline=None, database=None)
@hypothesis.given(data_sets())
def test_no_patient_in_two_splits_no_film_twice_and_no_row_lost(case):
    parts, matches = case
    composed = composition.compose(parts, matches, 0.3)
    kept = [row for rows in composed.parts.values() for row in rows]
    found = collections.defaultdict(set)
    for row in kept:
        original = matches.get(row.image_id[:-4], "")[:8]
        found[original or row.patient_id].add(row.split)
    assert all(len(of_patient) == 1 for of_patient in found.values())
    films = [matches.get(row.image_id[:-4], row.image_id) for row in kept]
    assert len(films) == len(set(films))
    left_out = [row for rows in composed.left_out.values() for row in rows]
    before = [row for rows in parts.values() for row in rows]
    key = "{0.source}/{0.image_id}".format
    assert collections.Counter(map(key, kept + left_out)) == collections.Counter(map(key, before))
    assert {key(row) for row in parts["chestxray14"] if row.split == "test"} <= set(map(key, kept))


@pytest.fixture(scope="module")
def nih_table(shared_data):
    return chestxray14.read_table(shared_data / "chestxray14", 0.125)


@pytest.mark.parametrize("version", ["8A", "8B"])
def test_published_lists_contaminate_the_official_test_split_and_the_composition_does_not(
    shared_data, nih_table, version
):
    folder = shared_data / "covidx"
    lists = [folder / f"labels/{split}_COVIDx{version}.txt" for split in ("train", "test")]
    listed = covidx_table.read(*lists, val_fraction=0.125)
    path = folder / "rsna_to_chestxray14.csv"
    matches = {}  # read here with nothing of the package
    for line in path.read_text().splitlines()[1:]:
        name, image, error = line.split(",")
        if float(error) < 10:
            matches[name] = image
    tested = set((shared_data / "chestxray14/test_list.txt").read_text().split())
    contaminated = {
        row.image_id for row in listed.rows
        if row.split != "test" and matches.get(row.image_id[:-4]) in tested
    }
    assert len(contaminated) == 3185

    assert rsna_pneumonia.chestxray14_images(path) == matches
    composed = composition.compose(
        {"chestxray14": nih_table.rows, "covidx": listed.rows}, matches, 0.125
    )
    kept = [row for rows in composed.parts.values() for row in rows]
    patients = collections.defaultdict(set)
    for row in kept:
        original = matches.get(row.image_id[:-4], "") if row.source == RSNA else ""
        patients[original[:8] or row.patient_id].add(row.split)
    assert all(len(found) == 1 for found in patients.values())
    left_out = composed.left_out["are of patients in a test split and are not trained on"]
    assert contaminated <= {row.image_id for row in left_out if row.source == RSNA}
    # The official test split stays as it is, and of COVIDx's all that is no copy from there.
    originals = [row for row in kept if row.source == "chestxray14"]
    assert {row.image_id for row in originals if row.split == "test"} == tested
    copies = [
        row for row in listed.rows
        if row.split == "test" and matches.get(row.image_id[:-4]) in tested
    ]
    others = [row for row in kept if row.source != "chestxray14" and row.split == "test"]
    assert len(others) + len(copies) == 400
    published = {row.image_id: row.labels for row in nih_table.rows}
    changed = [row for row in originals if row.labels != published[row.image_id]]
    assert set(changed) == set(composed.merged)
    assert {row.split for row in changed} <= {"train"}
    pneumonia = [row for row in listed.rows if row.labels[PNEUMONIA] == 1 and row.source == RSNA]
    assert bool(composed.merged) == bool(pneumonia) == (version == "8A")
