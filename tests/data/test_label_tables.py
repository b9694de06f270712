"""Label tables: one file gives the same ids, classes and labels to every command that reads it."""


import csv
import gzip
import io
import json
import re

import numpy as np
import pyarrow.parquet
import pytest
from sklearn import metrics as sk

from jaxcxr import __main__ as command
from jaxcxr.data import label_tables
from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.errors import UserError
from jaxcxr.xray import relabeling
from jaxcxr.xray.evaluation import compare_xrays, subgroups
from jaxcxr.xray.images import manifest, radiographs

CELLS = {
    1: ("1", "1.0", "1.", "True", "true", "TRUE", "yes", "YES", "1,0", "+1"),
    0: ("0", "0.0", "False", "FALSE", "no", "No", "0,0", "-0.0"),
    -1: ("", " ", "-1", "-1.0", "-1,0", "nan", "NaN", "NA", "n/a", "#N/A", "<NA>", "null"),
}


class Table:
    """A table of labels that a test writes or finds, and what every command must make of it."""

    def __init__(self, path, ids, classes, labels):
        self.path, self.ids, self.classes, self.labels = path, ids, classes, np.array(labels)
        self.folder = path.parent
        self.scores = np.random.default_rng(0).random(self.labels.shape).round(3)

    def check(self, folder):
        """Asserts that score, compare, audit, relabel and config.data.labels see the same."""
        self.folder = folder
        self.check_score(self.predictions(folder / "scores.csv"))
        self.check_compare()
        self.check_audit()
        self.check_training_labels()
        self.check_adjudicated()

    def predictions(self, path):
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", *(f"prob_{name}" for name in self.classes)])
            writer.writerows([i, *row] for i, row in zip(self.ids, self.scores, strict=True))
        return path

    def check_score(self, predictions):
        words = ["score", "--labels", self.path, "--predictions", predictions, "--resamples", 5]
        command.run([*map(str, words), "--out", str(self.folder / "score")])
        result = json.loads((self.folder / "score/metrics.json").read_text())
        assert result["counts"]["images"] == len(self.ids)
        assert result["classes"]["scored"] == list(self.classes)
        for i, name in enumerate(self.classes):
            entry, labels = result["per_class"][name], self.labels[:, i]
            counts = [entry[f"n_{kind}"] for kind in ("positive", "negative", "unknown")]
            assert counts == [(labels == value).sum() for value in (1, 0, -1)]
            if all(counts[:2]):
                known = labels >= 0
                auroc = sk.roc_auc_score(labels[known], self.scores[known, i])
                assert entry["auroc"] == pytest.approx(auroc)

    def check_compare(self):
        models = {name: {name: self.predictions(self.folder / f"{name}.csv")} for name in "AB"}
        compared = compare_xrays.read(models, str(self.path))
        assert compared.classes == tuple(self.classes)
        np.testing.assert_array_equal(compared.labels, self.labels)

    def check_audit(self):
        path = self.folder / "audit.json"
        command.run(["audit", str(self.path), "--json", str(path)])
        result = json.loads(path.read_text())
        assert result["data_sets"][0]["images"] == len(self.ids)
        table, = result["tables"]
        found = {
            entry["name"]: [entry[kind] for kind in ("positive", "negative", "unknown")]
            for entry in table["classes"]
        }
        assert found == {
            name: [(column == value).sum() for value in (1, 0, -1)]
            for name, column in zip(self.classes, self.labels.T, strict=True) if column.max() >= 0
        }

    def check_training_labels(self):
        folder = self.folder / "prepared"
        folder.mkdir(exist_ok=True)
        none = [-1] * len(self.classes)
        rows = [{"image_id": i, "split": "train", "labels": none} for i in reversed(self.ids)]
        table = manifest.to_table(manifest.from_rows(rows, self.classes))
        pyarrow.parquet.write_table(table, folder / manifest.NAME)
        read = radiographs.read_labels(self.path, folder)
        np.testing.assert_array_equal(read, self.labels[::-1])
        assert read.dtype == np.int8

    def check_adjudicated(self):
        truth = relabeling.read_adjudicated(self.path, self.ids, self.classes)
        assert truth.columns == {name: (i,) for i, name in enumerate(self.classes)}
        assert truth.rows.tolist() == list(range(len(self.ids)))
        np.testing.assert_array_equal(truth.labels, self.labels)


CASES = (
    "labels_all_unknown", "labels_excel_ids", "labels_nan", "labels_semicolon", "train_labels",
    "train_labels_float", "train_labels_semi",
)


@pytest.mark.parametrize("name", CASES)
def test_all_commands_read_the_cases_alike(shared_cases, tmp_path, name):
    path = shared_cases / "cxr/label_cells" / f"{name}.csv"
    header, *rows = (re.split("[,;]", line) for line in path.read_text().splitlines())
    first = header.index("Effusion") if "patient_id" in header else 1
    values = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "": -1, "nan": -1}
    labels = [[values[cell] for cell in row[first:]] for row in rows]
    table = Table(path, [row[0] for row in rows], header[first:], labels)
    table.check(tmp_path)
    if table.ids[0].startswith("img_"):
        predictions = shared_cases / "cxr/label_cells/preds.csv"
        table.scores = np.loadtxt(predictions, delimiter=",", skiprows=1, usecols=(1, 2))
        table.check_score(predictions)
    if name == "labels_excel_ids":
        assert label_tables.read(path).ids[0] == "0000000"  # text, not a number


def test_no_case_is_forgotten(shared_cases):
    found = {path.stem for path in (shared_cases / "cxr/label_cells").glob("*.csv")}
    assert found == {*CASES, "preds"}


@pytest.fixture
def written(tmp_path):
    """Writes twelve images with every spelling of a label, and what must be read."""

    def write(
        encoding="utf-8", separator=",", decimal=".", pack=bytes, name="labels.csv",
        column="image_id", prefix="", comma="",
    ):
        rng = np.random.default_rng(0)
        labels = rng.choice((-1, 0, 1), (12, 2))
        ids = [f"é{i:04d}.png" for i in range(12)]
        rows = [[column, "Patient ID", "Sex", *(prefix + c for c in ("Mass", "Device"))]]
        for i, row in enumerate(labels):
            cells = [CELLS[value][i % len(CELLS[value])] for value in row.tolist()]
            cells = [re.sub(r"(\d)[.,](?=\d)", rf"\1{decimal}", cell) for cell in cells]
            rows.append([ids[i], f"p{i // 2}", "FM"[i % 2], *cells])
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=separator, lineterminator=f"{comma}\r\n").writerows(rows)
        path = tmp_path / name
        path.write_bytes(pack(text.getvalue().encode(encoding)))
        return Table(path, ids, ["Mass", "Device"], labels)

    return write


@pytest.mark.parametrize("options", [
    {},
    {"encoding": "utf-8-sig", "separator": ";", "decimal": ","},
    {"encoding": "utf-16", "separator": "\t", "name": "labels.tsv"},
    {"encoding": "latin-1", "separator": ";"},
    {"encoding": "cp1252", "decimal": ","},
    {"pack": gzip.compress, "name": "labels.csv.gz"},
    {"encoding": "utf-16", "pack": gzip.compress, "separator": ";", "name": "labels.tsv.gz"},
    {"comma": ","},
    {"prefix": "label_"},
    *({"column": column} for column in (
        "Image Index", "image", "filename", "Image_Name", "imagePath", "path", "ID")),
], ids=lambda options: ",".join(getattr(v, "__name__", repr(v)) for v in options.values()))
def test_all_commands_read_all_files_alike(written, tmp_path, options):
    table = written(**options)
    table.check(tmp_path)
    found = subgroups.read(table.path, table.ids, "labels")
    assert found["sex"].tolist() == ["F", "M"] * 6


def test_scores_with_decimal_commas(written, tmp_path):
    table = written()
    path = table.predictions(tmp_path / "scores.csv")
    text = path.read_text(encoding="utf-8").replace(",", ";").replace(";0.", ";0,")
    path.write_bytes(text.encode("utf-16"))
    table.folder = tmp_path
    table.check_score(path)


@pytest.mark.parametrize(("value", "text"), [(v, text) for v, all in CELLS.items() for text in all])
def test_every_spelling_of_a_label(value, text):
    assert label_tables.label_of(text.strip()) == value


@pytest.mark.parametrize("text", ["2", "0.5", "maybe", "none", "-2", "inf", "1.0.0", "1,0,0"])
def test_other_words_are_refused_everywhere(written, tmp_path, text, capsys):
    table = written()
    lines = table.path.read_text(encoding="utf-8").splitlines()
    lines[3] = f'{table.ids[2]},p1,F,"{text}",1'
    table.path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    table.folder = tmp_path
    message = re.escape(
        f"{table.path}:4: {text!r} in column Mass is no label; allowed: 1, 0, yes, no"
    )
    for check in (table.check_compare, table.check_training_labels, table.check_adjudicated):
        with pytest.raises(UserError, match=message):
            check()
    predictions = table.predictions(tmp_path / "scores.csv")
    for check in (lambda: table.check_score(predictions), table.check_audit):
        with pytest.raises(SystemExit) as stopped:
            check()
        assert stopped.value.code == 2
        assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(("change", "message"), [
    (lambda lines: [*lines, lines[2]], r":14: a second row for é0001\.png, the first is line 3"),
    (lambda lines: [lines[0].replace("Device", "mass"), *lines[1:]],
     ":1: the columns Mass and mass are both of the class mass; remove one"),
    (lambda lines: [lines[0].replace("Sex", "Image ID"), *lines[1:]],
     ":1: several columns 'image_id'; remove all but one"),
    (lambda lines: [lines[0].replace("image_id", "picture"), *lines[1:]],
     r"no column of image ids among picture, .*; call it image_id"),
    (lambda lines: [*lines[:2], "," + lines[2].partition(",")[2], *lines[3:]],
     ":3: no image id in column image_id"),
], ids=range(5))
def test_duplicates_and_missing_ids_are_refused_alike(written, tmp_path, change, message):
    table = written()
    lines = table.path.read_text(encoding="utf-8").splitlines()
    table.path.write_text("\n".join(change(lines)) + "\n", encoding="utf-8")
    table.folder = tmp_path
    for check in (table.check_compare, table.check_training_labels, table.check_adjudicated):
        with pytest.raises(UserError, match=message):
            check()


def test_an_audit_takes_repeated_images_which_it_looks_for(written, tmp_path):
    table = written()
    lines = table.path.read_text(encoding="utf-8").splitlines()
    table.path.write_text("\n".join([*lines, lines[2]]) + "\n", encoding="utf-8")
    assert len(label_tables.read(table.path, repeated=True).ids) == 13


def test_finding_labels_are_labels_of_every_finding(tmp_path):
    path = tmp_path / "Data_Entry_2017.csv"
    path.write_text(
        "Image Index,Finding Labels,Patient ID\na.png,Mass|Infiltrate,1\nb.png,No Finding,2\n"
    )
    table = Table(path, ["a.png", "b.png"], list(FINDINGS), np.zeros((2, 15), int))
    table.labels[0, [FINDINGS.index(name) for name in ("Mass", "Infiltration")]] = 1
    table.folder = tmp_path
    table.check_audit()
    table.check_training_labels()
    table.check_adjudicated()


@pytest.mark.parametrize(("text", "expected"), [
    ("57", 57), ("57.0", 57), ("57,5", 57), ("060Y", 60), ("013M", 1), ("006W", 0), ("001D", 0),
    ("120", 120), ("411Y", -1), ("148", -1), ("", -1), ("old", -1), ("-3", -1), ("0", 0),
    ("000Y", 0), ("65", 65), ("65.0", 65), ("50+", 50), ("50s", 50), ("early 40s", 40),
    ("mid 50s", 50), ("elderly", -1), ("150", -1), ("-4", -1), ("91-92", -1),
])
def test_ages_become_years(text, expected):
    assert label_tables.years(text) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("12.0", "12"), ("0.0", "0"), ("12", "12"), ("0012", "0012"), ("12,0", "12"), ("12.5", "12.5"),
    ("12.10", "12.10"), ("1.2.0", "1.2.0"), ("P1.0", "P1.0"), (".0", ".0"), ("-1.0", "-1.0"),
])
def test_patients_written_as_numbers_with_decimals_are_the_same(tmp_path, text, expected):
    path = tmp_path / "labels.csv"
    path.write_text(f"image;patient;Mass\na;{text};1.0\n")
    table = label_tables.read(path)
    assert table.patients() == (expected,)
    assert table.labels(["Mass"]).tolist() == [[1]]
