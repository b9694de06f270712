"""COVIDx list files: every form of the published versions."""

import collections

import pytest

from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import builder, covidx_table
from tests.pose.sources import fuzz

RSNA = "rsna_pneumonia"
UUID = "47c78742-4998-4878-aec4-37b11b1354ac"
TRAIN = (
    "3 SARS-10.1148rg.242035193-g04mr34g0-Fig8a-day0.jpeg pneumonia cohen",
    "COVID-00015a COVID-00015a.png COVID-19 fig1",
    f"{UUID} {UUID}.png normal rsna",
)
NAMES = ("train_COVIDx9A", "test_COVIDx9A")
TEST = ("ANON191 CR.1.2.840.113564.1722810170.20200325010134750210.png COVID-19 actmed",)


@pytest.fixture
def lists(tmp_path):
    """Writes the lists and reads them."""

    def read(train=TRAIN, test=TEST, validation=None, names=NAMES, **options):
        paths = []
        for name, lines in zip((*names, "val"), (train, test, validation or ()), strict=True):
            paths.append(tmp_path / f"{name}.txt")
            paths[-1].write_text("".join(f"{line}\n" for line in lines))
        third = paths[2] if validation is not None else None
        return covidx_table.read(paths[0], paths[1], third, **options)

    return read


def known(row):
    return {name: label for name, label in zip(FINDINGS, row.labels, strict=True) if label >= 0}


def test_rows_hold_what_the_lines_say(lists):
    rows = lists().rows
    assert [row.image_id for row in rows] == [line.split()[-3] for line in (*TRAIN, *TEST)]
    assert [row.patient_id for row in rows] == [
        "covid_chestxray/3", "figure1/COVID-00015", f"rsna_pneumonia/{UUID}", "actualmed/ANON191",
    ]
    assert [row.source for row in rows] == [row.patient_id.split("/")[0] for row in rows]
    assert [row.split for row in rows] == ["train"] * 3 + ["test"]


def test_labels_say_only_what_the_list_says(lists):
    pneumonia, covid, normal, _ = lists().rows
    assert known(pneumonia) == {"Pneumonia": 1, "COVID-19": 0}
    assert known(covid) == {"COVID-19": 1}
    assert known(normal) == dict.fromkeys(FINDINGS, 0)
    positive, negative = lists(["5 a.png positive cohen"], ["6 b.png negative cohen"]).rows
    assert known(positive) == {"COVID-19": 1}
    assert known(negative) == {"COVID-19": 0}


@pytest.mark.parametrize(
    ("line", "patient_id", "image_id", "source"),
    [
        (
            "COVID 216 COVID(216).png COVID-19 sirm",
            "covid19_radiography/COVID-216", "COVID(216).png", "covid19_radiography",
        ),
        (
            "COVID-19(216) COVID-19(216).png COVID-19 sirm",
            "covid19_radiography/COVID-216", "COVID-19(216).png", "covid19_radiography",
        ),
        (
            "COVID_216 COVID(216).png COVID-19 sirm",
            "covid19_radiography/COVID-216", "COVID(216).png", "covid19_radiography",
        ),
        (f"{UUID} {UUID}.png normal rnsa", f"rsna_pneumonia/{UUID}", f"{UUID}.png", RSNA),
        (f"{UUID} {UUID}.png normal", f"rsna_pneumonia/{UUID}", f"{UUID}.png", RSNA),
        ("8 SARS-day9.jpeg pneumonia", "covid_chestxray/8", "SARS-day9.jpeg", "covid_chestxray"),
        (
            "36 9c34af49-e589-44d5-92d3-168b3b04e4a6.jpeg COVID-19",
            "covid_chestxray/36", "9c34af49-e589-44d5-92d3-168b3b04e4a6.jpeg", "covid_chestxray",
        ),
        ("COVID-00003b 3b.jpg COVID-19", "figure1/COVID-00003", "3b.jpg", "figure1"),
        ("ANON7 DX.1.2.png COVID-19", "actualmed/ANON7", "DX.1.2.png", "actualmed"),
        (
            "COVID-19(2) COVID-19(2).png COVID-19",
            "covid19_radiography/COVID-2", "COVID-19(2).png", "covid19_radiography",
        ),
        ("hospital-7 a.png COVID-19", "covidx/hospital-7", "a.png", "covidx"),
        (
            "419639-003251 MIDRC-RICORD-1C-419639-003251-46647-0.png COVID-19 ricord",
            "ricord/419639-003251", "MIDRC-RICORD-1C-419639-003251-46647-0.png", "ricord",
        ),
        ("313b fig3-a.PNG COVID-19 cohen", "covid_chestxray/313b", "fig3-a.PNG", "covid_chestxray"),
        ("  5\ta.png  normal cohen \r", "covid_chestxray/5", "a.png", "covid_chestxray"),
    ],
)
def test_every_form_of_line_is_read(lists, line, patient_id, image_id, source):
    row = lists(test=[line]).rows[-1]
    assert (row.patient_id, row.image_id, row.source) == (patient_id, image_id, source)


@pytest.mark.parametrize(
    ("name", "view"),
    [
        ("A441566-01-04-1901-NA-CHEST_AP_VIEWONLY-03673-3.000000-AP-23690-1-1.jpg", "AP"),
        ("A551031-12-31-1900-NA-CHEST_ROUTINE-94683-3.000000-LATERAL-26070-1-1.jpg", "L"),
        ("sub-S03132_ses-E06429_run-1_bp-chest_vp-pa_dx-corrected.png", "PA"),
        ("covid-19-pneumonia-15-PA.jpg", ""),
    ],
)
def test_views_stand_in_the_names_of_two_sources(lists, name, view):
    assert lists(test=[f"1 {name} COVID-19 stonybrook"]).rows[-1].view == view


def test_films_of_the_abdomen_and_lateral_views_are_noted_and_stay(lists):
    abdomen = "A926447-01-14-1901-NA-FLAT_PLATE_OF_ABDOMEN_PORTABLE-74325-1.000000-AP-66540-1-1.jpg"
    lateral = "A551031-12-31-1900-NA-CHEST_ROUTINE-94683-3.000000-LATERAL-26070-1-1.jpg"
    table = lists([f"A1 {abdomen} COVID-19 stonybrook", f"A2 {lateral} COVID-19 stonybrook"])
    assert len(table.rows) == 3
    assert f"1 images are lateral views by their names: {lateral}" in table.notes
    assert f"1 images are of the abdomen by their names: {abdomen}" in table.notes
    assert [covidx_table.is_abdomen(row) for row in table.rows] == [True, False, False]


def test_repeated_rows_count_once_and_contradictory_ones_not_at_all(lists):
    table = lists([*TRAIN, TRAIN[0], "3 b.png normal cohen", "3 b.png COVID-19 cohen"])
    assert [row.image_id for row in table.rows[:-1]] == [line.split()[-3] for line in TRAIN]
    notes = "\n".join(table.notes)
    assert "2 lines of train_COVIDx9A.txt repeat an image" in notes
    assert "1 images have two labels in train_COVIDx9A.txt and are left out: b.png" in notes


def test_what_stands_in_both_lists_is_noted_and_stays(lists):
    table = lists(test=[TRAIN[0], "COVID-00015 COVID-00015b.png COVID-19 fig1"])
    assert len(table.rows) == 5
    name = f"covid_chestxray/{TRAIN[0].split()[1]}"
    assert f"1 images are in two lists and stay in both: {name}" in table.notes
    assert (
        "2 patients are in two lists and stay in both: covid_chestxray/3, figure1/COVID-00015"
        in table.notes
    )


def test_validation_is_carved_by_patient_unless_a_list_says_it(lists):
    train = [f"{i % 50} {i}.png COVID-19 cohen" for i in range(200)]
    rows = lists(train, val_fraction=0.3).rows
    splits = collections.defaultdict(set)
    for row in rows:
        splits[row.patient_id].add(row.split)
        if row.source == "covid_chestxray":
            assert row.split == builder.split_of(row.patient_id, 0.3)
    assert all(len(found) == 1 for found in splits.values())
    assert {"train", "validation"} <= {split for found in splits.values() for split in found}
    listed = lists(train, validation=["900 900.png COVID-19 cohen"], val_fraction=0.3).rows
    assert [r.image_id for r in listed if r.split == "validation"] == ["900.png"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("5 a.png", "is not a line of COVIDx; expected"),
        ("a.png COVID-19 cohen", "is not a line of COVIDx"),
        ("5 a.png COVID19 cohen", "'COVID19' is not a label of this list"),
        ("5 a.png positive cohen", "'positive' is not a label of this list: allowed: normal"),
        ("5 a.png COVID-19 hospital", "the source 'hospital' is not one of cohen, fig1"),
        ("5 a COVID-19 cohen", "is not a line of COVIDx"),
        ("5 a.png COVID-19 co\x1bhen", "the source"),
        ("\x1b a.png COVID-19 cohen", "is not a line of COVIDx"),
        ("\0 a.png COVID-19 cohen", "NUL bytes"),
        ("5 a.png level2 ricord", "COVIDx-S, which grades how severe"),
        ("5 a.png level1", "COVIDx-S"),
    ],
)
def test_a_wrong_line_is_named_with_its_place(lists, line, message):
    with pytest.raises(UserError, match=rf"train_COVIDx9A\.txt:4: .*{message}"):
        lists([*TRAIN, line])


def test_lists_of_severity_are_refused_by_name_too(lists):
    lines = ["SITE2-000061 MIDRC-RICORD-1C-SITE2-000061-54700-0.png positive ricord"]
    with pytest.raises(UserError, match=r"train_COVIDxSev\.txt: .*COVIDx-S"):
        lists(lines, lines, names=("train_COVIDxSev", "test_COVIDxSev"))


def test_lists_of_two_kinds_are_refused(lists):
    with pytest.raises(UserError, match=r"train_COVIDx9A\.txt has the labels .* one version"):
        lists(test=["5 a.png positive cohen"])


def test_empty_absent_and_undecodable_lists_are_named(lists, tmp_path):
    with pytest.raises(UserError, match=r"test_COVIDx9A\.txt: the list is empty"):
        lists(test=[])
    lists()
    with pytest.raises(UserError, match=r"none\.txt cannot be read: No such file"):
        covidx_table.read(tmp_path / "none.txt", tmp_path / "test_COVIDx9A.txt")
    (tmp_path / "latin.txt").write_bytes(b"5 a.png COVID-19 cohen\n5 \x81.png COVID-19 cohen")
    with pytest.raises(UserError, match=r"latin\.txt:2: not in UTF-8"):
        covidx_table.read(tmp_path / "latin.txt", tmp_path / "test_COVIDx9A.txt")


def test_broken_lists_raise_only_user_errors(lists, tmp_path):
    lists()
    train, test = tmp_path / "train_COVIDx9A.txt", tmp_path / "test_COVIDx9A.txt"

    def write_and_read(content):
        train.write_bytes(content)
        covidx_table.read(train, test)

    fuzz.assert_only_user_errors(write_and_read, train.read_bytes(), train.name)


PUBLISHED = {  # version -> sizes of train and test, as COVID-Net's documentation has them
    "3": (13_670, 300), "7A": (15_111, 300), "8A": (15_599, 400), "8B": (15_952, 400),
    "9A": (30_130, 400), "9B": (30_482, 400),
}


@pytest.mark.parametrize("version", PUBLISHED)
def test_published_lists_have_their_published_sizes(shared_data, tmp_path, version):
    labels = shared_data / "covidx/labels"
    paths = [labels / f"{split}_COVIDx{version}.txt" for split in ("train", "test")]
    rows = covidx_table.read(*paths).rows
    splits = collections.Counter(row.split for row in rows)
    assert (splits["train"], splits["test"]) == PUBLISHED[version]
    assert covidx_table.UNKNOWN_SOURCE not in {row.source for row in rows}
    stripped = tmp_path / "train.txt", tmp_path / "test.txt"
    for path, copy in zip(paths, stripped, strict=True):
        lines = path.read_text().splitlines()
        copy.write_text("".join(f"{_without_source(line)}\n" for line in lines))
    # The form of the id tells of the very sources that the lists name, but for the last three.
    last_three = {"ricord", "stonybrook", "bimcv"}
    for row, bare in zip(rows, covidx_table.read(*stripped).rows, strict=True):
        assert bare.source == ("covidx" if row.source in last_three else row.source)
        assert bare.labels == row.labels


def _without_source(line):
    before, _, last = line.rpartition(" ")
    return before if last in covidx_table.SOURCES else line


def test_published_test_list_of_8b_is_one_source_per_label(shared_data):
    labels = shared_data / "covidx/labels"
    rows = covidx_table.read(labels / "train_COVIDx8B.txt", labels / "test_COVIDx8B.txt").rows
    covid = FINDINGS.index("COVID-19")
    cells = {(row.source, row.labels[covid]) for row in rows if row.split == "test"}
    assert cells == {("ricord", 1), ("rsna_pneumonia", 0)}


def test_published_9a_holds_films_of_the_abdomen(shared_data):
    labels = shared_data / "covidx/labels"
    table = covidx_table.read(labels / "train_COVIDx9A.txt", labels / "test_COVIDx9A.txt")
    assert sum(map(covidx_table.is_abdomen, table.rows)) == 487
    assert sum(row.view == "L" for row in table.rows) == 9
