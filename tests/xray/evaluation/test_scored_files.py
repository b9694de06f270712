"""Rows of `jaxcxr predict` without scores: files that it could not read are no predictions."""

import numpy as np
import pyarrow.parquet
import pytest

from jaxcxr.data import label_tables
from jaxcxr.errors import UserError
from jaxcxr.xray.evaluation import metrics_table, scored_files
from jaxcxr.xray.images import manifest

LABELS = "image_id,Mass,Edema\na.png,1,0\nb.png,0,1\nc.png,1,1\n"
PREDICTED = """image,status,reason,prob_Mass,prob_Edema,finding_Mass,finding_Edema
a.png,ok,,0.9,0.2,1,0
notes.png,failed,is no image,,,,
b.png,flagged,blurred,0.1,0.7,0,1
c.png,{status},{scores},{findings}
"""


@pytest.fixture
def joined(tmp_path):
    def join(last):
        (tmp_path / "labels.csv").write_text(LABELS)
        text = PREDICTED.replace("{status},{scores},{findings}", last)
        (tmp_path / "scores.csv").write_text(text)
        return scored_files.join(tmp_path / "labels.csv", tmp_path / "scores.csv")

    return join


def test_a_file_that_could_not_be_read_and_has_no_label_is_left_out(joined):
    found = joined("ok,,0.8,0.6,1,1")
    assert found.ids == ("a.png", "b.png", "c.png")
    assert found.scores.tolist() == [[0.9, 0.2], [0.1, 0.7], [0.8, 0.6]]
    assert found.ignored == 0


def test_an_image_with_a_label_and_no_score_is_named(joined):
    with pytest.raises(UserError, match=r"1 of 3 images have no prediction: c\.png"):
        joined("refused,lateral view,,,,")


def test_half_a_row_is_a_mistake(joined):
    with pytest.raises(UserError, match=r"scores\.csv:5: '' in column prob_Edema is"):
        joined("ok,,0.8,,1,1")


def test_scores_of_nothing_are_refused(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("image,prob_Mass\na.png,\nb.png,\n")
    with pytest.raises(UserError, match="no row has a score"):
        label_tables.read_scores(path)


def test_intervals_of_few_patients_are_told():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 3)
    labels = rng.integers(0, 2, (120, 2)).astype(np.int8)
    labels[15:, 1] = 0
    told = [
        metrics_table.score(labels, rng.random((120, 2)), ("Mass", "Hernia"), whose, resamples=50)
        for whose in (patients, None)
    ]
    assert told[0]["classes_of_few"] == ["Hernia"]
    assert metrics_table.to_text(told[0]).endswith(
        "intervals too narrow (fewer than 10 patients with or without the finding): Hernia")
    positives = int(labels[:, 1].sum())
    assert told[1]["classes_of_few"] == (["Hernia"] if positives < 10 else [])


@pytest.mark.parametrize(("column", "cells"), [
    ("date", ("2020-01-31", "2020-02-01", "")), ("Date", ("31.01.2020", "", "")),
    ("remark", ("blurred", "", "portable")), ("width", ("1024", "512", "1024")),
    ("Cardio", ("1", "0", "maybe")),
])
def test_a_column_without_labels_is_no_class(tmp_path, column, cells):
    for name, text in (("labels.csv", LABELS), ("scores.csv", LABELS)):
        lines = text.splitlines()
        rows = [f"{line},{cell}" for line, cell in zip(lines, (column, *cells), strict=True)]
        (tmp_path / name).write_text("\n".join(rows))
        (tmp_path / f"plain_{name}").write_text(text)
    found = scored_files.join(tmp_path / "labels.csv", tmp_path / "plain_scores.csv")
    assert (found.classes, found.labels_only) == (("Mass", "Edema"), ())
    if column == "width":  # which may be a score: a class of both files, whose labels are wrong
        with pytest.raises(UserError, match="in column width is no label"):
            scored_files.join(tmp_path / "labels.csv", tmp_path / "scores.csv")
    else:
        for labels in ("plain_labels.csv", "labels.csv"):
            found = scored_files.join(tmp_path / labels, tmp_path / "scores.csv")
            assert (found.classes, found.predictions_only) == (("Mass", "Edema"), ())
    # The name of a finding, or a prefix, makes a class whatever it holds.
    for head in ("Hernia", "label_Other"):
        text = (tmp_path / "labels.csv").read_text().replace(f",{column}\n", f",{head}\n")
        if head.startswith("label_"):
            text = text.replace(",Mass,Edema,", ",label_Mass,label_Edema,")
        (tmp_path / "named.csv").write_text(text)
        found = scored_files.join(tmp_path / "named.csv", tmp_path / "plain_scores.csv")
        assert found.labels_only == (head.removeprefix("label_"),)


def test_labels_of_nothing_known_name_the_classes_alone(tmp_path):
    (tmp_path / "labels.csv").write_text("image,date,Mass\na.png,2020-01-31,1\nb.png,,0\n")
    (tmp_path / "scores.csv").write_text("image,prob_Other\na.png,0.1\nb.png,0.2\n")
    with pytest.raises(UserError, match=r"labels\.csv \(Mass\); name the columns"):
        scored_files.join(tmp_path / "labels.csv", tmp_path / "scores.csv")


@pytest.mark.parametrize(("labels", "scores", "said"), [
    ("Foo,1,yes!", "Foo,0.1,0.2", "'yes!' in column Foo is no label"),
    ("Foo,1,0", "Foo,0.1,0.2.", r"'0\.2\.' in column Foo is no number"),
    ("date,May,June", "Foo,0.1,0.2", r"labels\.csv: no column of a class among image, date"),
    ("Foo,1,0", "note,x,y", r"scores\.csv: no column of a class among image, note"),
])
def test_a_wrong_cell_of_the_only_class_is_named(tmp_path, labels, scores, said):
    for name, text in (("labels.csv", labels), ("scores.csv", scores)):
        head, *cells = text.split(",")
        lines = [f"image,{head}", *(f"{i}.png,{cell}" for i, cell in enumerate(cells))]
        (tmp_path / name).write_text("\n".join(lines))
    with pytest.raises(UserError, match=said):
        scored_files.join(tmp_path / "labels.csv", tmp_path / "scores.csv")


def test_a_prepared_data_set_is_a_table_of_labels(tmp_path):
    rows = [{"image_id": f"{i}.png", "patient_id": f"p{i}", "split": "test", "labels": (i % 2, -1)}
            for i in range(4)]
    made = manifest.from_rows(rows, ("Effusion", "Mass"))
    folder = tmp_path / "set/variant/2.0.0"
    folder.mkdir(parents=True)
    pyarrow.parquet.write_table(manifest.to_table(made), folder / manifest.NAME)
    scores = tmp_path / "scores.csv"
    scores.write_text("image_id,Pleural Effusion\n" + "".join(f"{i}.png,0.{i}\n" for i in range(4)))
    found = scored_files.join(folder, scores)
    assert found.classes == ("Effusion",)
    assert found.labels[:, 0].tolist() == [0, 1, 0, 1]
    assert found.patients == ("p0", "p1", "p2", "p3")
    with pytest.raises(UserError, match="no prepared data set; give its table of labels"):
        scored_files.join(tmp_path, scores)
