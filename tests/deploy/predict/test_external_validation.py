"""A model on data that it was not made for: run and bundle agree, classes meet by name."""

import csv
import json
import shutil

import numpy as np
import pytest
from sklearn import metrics as sk

from jaxcxr import __main__ as command
from jaxcxr.data import preparation
from jaxcxr.train import loop, writers
from jaxcxr.xray.images import radiographs
from tests.own_films import config_of, prepared

TRAINED = {"Even": [i % 2 for i in range(24)], "Half": [(i // 4) % 2 for i in range(24)]}
OTHER = {
    "Strange": [i // 2 % 2 for i in range(24)],
    "EVEN": [i % 2 if i % 5 else "" for i in range(24)],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run and its bundle, and two other data sets."""
    path = tmp_path_factory.mktemp("external")
    prepared(path, TRAINED)
    loop.train(config_of(path), path / "run", writers.Screen(quiet=True))
    command.run(["bundle", "--workdir", f"{path}/run", "--out", f"{path}/own.jaxcxr"])
    for name, labels, more in (
        ("other", OTHER, {}), ("strange", {"Strange": OTHER["Strange"]}, {}),
        ("equalized", OTHER, {"equalize": "hist"}),
    ):
        prepared(path / name, labels, seed=7, dataset=name, test_fraction=0.5, **more)
    return path


def data_of(folder, name):
    options = {"dataset": name, "size": 32, "equalize": "hist" if name == "equalized" else "none"}
    return str(preparation.find("images", options, folder / name / "data"))


def scores(path):
    with path.open() as file:
        rows = list(csv.DictReader(file))
    labels = [row["label_Even"] for row in rows]
    return {row["image_id"]: float(row["score_Even"]) for row in rows}, labels


def test_run_and_bundle_say_the_same_and_write_the_metrics_of_an_oracle(folder, capsys):
    data = data_of(folder, "other")
    # The run's own data need not be there.
    hidden = (folder / "data").rename(folder / "gone")
    command.run(["evaluate", f"--workdir={folder}/run", "--data", data])
    said = capsys.readouterr().out
    hidden.rename(folder / "data")
    for words in ("its data are gone", "left out: Half", "left out: Strange", "EVEN as Even"):
        assert words in said, words
    out = folder / "run/external/images_other_32_none_png"
    command.run(["evaluate", f"--model={folder}/own.jaxcxr", f"--data={data}",
                 f"--out={folder}/by_bundle"])
    assert "trained on some of these images is not known" in capsys.readouterr().out
    ours, labels = scores(out / "predictions/test.csv")
    theirs, _ = scores(folder / "by_bundle/predictions/test.csv")
    assert len(ours) == 12
    assert ours.keys() == theirs.keys()
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), atol=1e-4)
    known = [(int(label), score) for label, score in zip(labels, ours.values(), strict=True)
             if label]
    assert 0 < len(known) < 12
    found = json.loads((out / "report/metrics.json").read_text())
    assert list(found["per_class"]) == ["Even"]
    expected = sk.roc_auc_score(*zip(*known, strict=True))
    assert found["per_class"]["Even"]["auroc"] == pytest.approx(expected)
    record = json.loads((out / "external.json").read_text())
    assert (record["classes"], record["data_only"]) == ({"Even": "EVEN"}, ["Strange"])


def test_images_that_the_run_was_trained_on_are_named(folder, capsys):
    options = {"size": 32, "equalize": "none"}
    data = preparation.find("images", options, folder / "data")
    command.run(["evaluate", f"--workdir={folder}/run", f"--data={data}", "--split=train",
                 f"--out={folder}/same"])
    assert "the run was trained on 16 of these images" in capsys.readouterr().out
    command.run(["evaluate", f"--model={folder}/own.jaxcxr", f"--data={data}", "--split=all",
                 f"--out={folder}/same"])
    assert "trained on the training split of these very data" in capsys.readouterr().out
    command.run(["evaluate", f"--model={folder}/own.jaxcxr", f"--data={data}",
                 f"--out={folder}/same"])
    assert "trained on" not in capsys.readouterr().out.replace("trained on images", "")


@pytest.mark.parametrize(("words", "said"), [
    (["--workdir={0}/run", "--data={strange}"], "no class of the model (Even, Half) is one of"),
    (["--workdir={0}/run", "--data={equalized}"], "equalize=hist, but the model expects none"),
    (["--model={0}/own.jaxcxr", "--data={equalized}"], "prepare it anew with --equalize none"),
    (["--workdir={0}/run", "--data={0}/other"], "is no prepared data set of radiographs"),
    (["--data={other}"], "give either --workdir=RUN or --model=FILE"),
    (["--workdir={0}/run", "--model=x", "--data={other}"], "give either --workdir=RUN or"),
    (["--workdir={0}/nowhere", "--data={other}"], "holds no run"),
])
def test_mistakes_are_named(folder, capsys, words, said):
    places = {name: data_of(folder, name) for name in ("other", "strange", "equalized")}
    with pytest.raises(SystemExit) as caught:
        command.run(["evaluate", *(word.format(folder, **places) for word in words)])
    assert caught.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def without_names(folder, which, **changes):
    """Copies a prepared data set to a folder whose name tells nothing; changes its metadata."""
    copy = folder / f"{which}_{len(changes)}_copy" / "1"
    shutil.copytree(data_of(folder, which), copy, dirs_exist_ok=True)
    path = copy / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return copy


def test_the_equalisation_is_read_from_the_data_set_itself(folder):
    assert radiographs.equalization(without_names(folder, "equalized")) == "hist"
    assert radiographs.equalization(without_names(folder, "other")) == "none"
    copy = without_names(folder, "other", configName="hist_64_clahe_zstd")
    assert radiographs.equalization(copy) == "clahe"
    phantom = without_names(folder, "other", configName="x", name="chest_phantom")
    assert radiographs.equalization(phantom) == "none"


def test_an_equalisation_that_is_not_recorded_is_asked_for(folder, capsys):
    data = without_names(folder, "other", configName="own")
    words = ["evaluate", f"--model={folder}/own.jaxcxr", f"--data={data}", f"--out={folder}/told"]
    for told, said in (
        ([], "tell it with --equalized hist, clahe or none"),
        (["--equalized=hist"], "equalize=hist, but the model expects none"),
    ):
        with pytest.raises(SystemExit):
            command.run([*words, *told])
        assert said in " ".join(capsys.readouterr().err.split())
    command.run([*words, "--equalized=none"])
    assert (folder / "told/report/metrics.json").exists()
    with pytest.raises(SystemExit):
        command.run(["evaluate", f"--model={folder}/own.jaxcxr", "--equalized=hist",
                     f"--data={data_of(folder, 'other')}"])
    assert "records equalize=none, not hist" in " ".join(capsys.readouterr().err.split())
