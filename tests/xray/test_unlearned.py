"""Nothing is output that was not learned: classes without both labels, sets without a split."""

import csv
import io
import json
import re
import shutil

import numpy as np
import pytest

from jaxcxr import task as tasks
from jaxcxr.commands import explain
from jaxcxr.data import preparation
from jaxcxr.deploy.bundle import from_run
from jaxcxr.deploy.predict import xray_files
from jaxcxr.errors import UserError
from jaxcxr.study import runner
from jaxcxr.train import loop, writers
from jaxcxr.xray.images import manifest
from tests.own_films import config_of, prepared

LABELS = {
    "Even": [i % 2 for i in range(24)], "Never": [0] * 24, "Always": [1] * 24,
    "Unread": [""] * 24, "Half": [(i // 4) % 2 if i % 3 else "" for i in range(24)],
}
LEARNED = ("Even", "Half")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on classes of which three cannot be learned, without a validation split."""
    folder = tmp_path_factory.mktemp("unlearned")
    prepared(folder, LABELS, val_fraction=0.0, test_fraction=0.25)
    said = io.StringIO()
    screen = writers.Screen()
    screen.console.file = said
    metrics = loop.train(config_of(folder), folder / "run", screen)
    return folder, metrics, said.getvalue()


def test_the_reason_is_named():
    labels = np.array([[1, 0, 1, -1, -1], [0, 0, 1, -1, 1]], np.int8)
    assert manifest.unlearned(labels, tuple("ABCDE")) == {
        "B": "no positive training label", "C": "no negative training label",
        "D": "no positive and no negative training label", "E": "no negative training label",
    }


def test_a_manifest_of_some_classes_keeps_their_labels_and_boxes():
    rows = manifest.from_rows([
        {"image_id": "a", "split": "train", "labels": (1, 0, -1),
         "boxes": [(0, 1, 2, 3, 4), (2, 5, 6, 7, 8)]},
        {"image_id": "b", "split": "train", "labels": (0, 1, 1), "boxes": [(1, 1, 1, 1, 1)]},
    ], ("A", "B", "C"))
    some = rows.of_classes(("C", "X", "A"))
    assert some.classes == ("C", "X", "A")
    assert some.labels.tolist() == [[-1, -1, 1], [1, -1, 0]]
    assert [boxes.tolist() for boxes in some.boxes] == [[[2, 1, 2, 3, 4], [0, 5, 6, 7, 8]], []]
    assert rows.boxes[0][0, 0] == 0


def test_training_goes_on_without_validation_and_says_what_is_missing(run):
    _, metrics, said = run
    assert np.isfinite(metrics["auroc"])
    for words in ("Never (no positive training label)", "Always (no negative training label)",
                  "no validation split"):
        assert words in " ".join(said.split()), words


def test_no_file_of_the_run_names_a_class_that_was_not_learned(run):
    folder = run[0] / "run"
    written = [path for path in folder.rglob("*") if path.suffix in (".csv", ".md", ".html")]
    assert {"metrics.csv", "test.csv", "index.html"} <= {path.name for path in written}
    for path in written:
        text = path.read_text()
        assert "Even" in text or path.name.startswith("subgroups"), path
        if path.suffix == ".html":  # it says which classes were not learned, in one cell
            text = "".join(re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", text))
            text = re.sub(r"Never.*?the model has no such output", "", text)
        assert not any(name in text for name in ("Never", "Always", "Unread")), path
    facts = json.loads((folder / "config.json").read_text())["data"]
    rows = manifest.read(preparation.find(
        "images", {"size": 32, "equalize": "none"}, run[0] / "data"), "train")
    place = rows.classes.index("Half")
    assert facts["labels"]["Half"] == {
        word: int((rows.labels[:, place] == value).sum())
        for word, value in (("positive", 1), ("negative", 0), ("unknown", -1))
    }
    assert set(facts["unlearned"]) == {"Never", "Always"}  # an empty column is no class at all


def test_bundle_and_predictions_have_learned_classes_only(run, tmp_path):
    folder, said = run[0], []
    bundle = from_run.make(folder / "run", tmp_path / "b.jaxcxr", "", said.append)
    assert bundle.classes == LEARNED
    assert set(bundle.facts["training"]["labels"]) == set(LEARNED)
    assert any("no validation split" in line for line in said)
    paths = sorted(map(str, (folder / "films").iterdir()))[:4]
    (tmp_path / "out").mkdir()
    xray_files.predict_files(bundle, paths, tmp_path / "out", ("csv", "jsonl"), said.append)
    with (tmp_path / "out/predictions.csv").open() as file:
        header = next(csv.reader(file))
    assert [name for name in header if name.startswith("prob_")] == ["prob_Even", "prob_Half"]
    assert not any(name in (tmp_path / "out/predictions.jsonl").read_text()
                   for name in ("Never", "Always", "Unread"))


def test_commands_that_need_the_missing_split_say_so(run):
    import argparse

    parser = argparse.ArgumentParser()
    explain.add_arguments(parser)
    words = ["--workdir", str(run[0] / "run"), "--split", "validation"]
    with pytest.raises(UserError, match="its data have no validation split"):
        explain.run(parser.parse_args(words))


def test_no_class_to_learn_is_an_error(tmp_path):
    prepared(tmp_path, {"Never": [0] * 24, "Unread": [""] * 22 + [1, 1]}, dataset="own")
    with pytest.raises(UserError, match=r"no class can be learned: .*Never"):
        tasks.create(config_of(tmp_path))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run on data with neither a validation nor a test split."""
    folder = tmp_path_factory.mktemp("alone")
    prepared(folder, {"Even": LABELS["Even"]}, val_fraction=0.0, test_fraction=0.0)
    screen = writers.Screen()
    screen.console.file = io.StringIO()
    metrics = loop.train(config_of(folder), folder / "run", screen)
    return folder, metrics, screen.console.file.getvalue()


def test_a_run_that_evaluates_nothing_has_a_page_that_says_so(alone):
    folder, metrics, said = alone
    assert metrics == {}
    report = folder / "run/report"
    assert f"{report}, with training curves alone" in "".join(said.split("\n")).replace("  ", " ")
    text = (report / "index.html").read_text()
    assert "the data have neither a validation nor a test split" in text
    assert {path.name for path in report.iterdir()} == {"curves.png", "index.html"}
    assert "data:image/png;base64," in text
    assert not (folder / "run/predictions").exists()


def test_going_on_with_data_of_other_classes_is_refused_in_one_sentence(alone):
    folder = alone[0]
    config = config_of(folder)
    other = folder / "other"
    prepared(other, {"Odd": LABELS["Even"], "Half": LABELS["Half"]}, val_fraction=0.0,
             test_fraction=0.0)
    shutil.copytree(other / "data", folder / "data", dirs_exist_ok=True)
    with pytest.raises(UserError) as caught:
        loop.train(config, folder / "run", writers.Screen(quiet=True))
    assert str(caught.value) == (
        f"{folder}/run holds a run on the classes Even; the data now teach Odd, Half. Give another "
        "--workdir."
    )


def test_a_study_needs_validation_and_test(run, alone, tmp_path):
    for folder, split in ((run[0], "validation"), (alone[0], "validation")):
        config = config_of(folder)
        (tmp_path / runner.REQUEST).write_text(config.to_json_best_effort())
        with pytest.raises(UserError, match=f"images has no {split} split, which a study needs"):
            runner.train(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {runner.REQUEST}


def test_a_study_never_calls_validation_metrics_those_of_test(tmp_path):
    prepared(tmp_path, {"Even": LABELS["Even"]}, val_fraction=0.25, test_fraction=0.0)
    (tmp_path / runner.REQUEST).write_text(config_of(tmp_path).to_json_best_effort())
    with pytest.raises(UserError, match="images has no test split, which a study needs"):
        runner.train(tmp_path)
