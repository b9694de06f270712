"""`jaxcxr relabel` from end to end on a few phantoms, and what it refuses."""

import argparse
import contextlib
import csv
import dataclasses
import io
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from sklearn import metrics as sk

from jaxcxr import config as base
from jaxcxr import main
from jaxcxr.commands import relabel
from jaxcxr.data import preparation
from jaxcxr.errors import UserError
from jaxcxr.report import canvas
from jaxcxr.study.out_of_fold import member_config
from jaxcxr.train import loop, parallel, setup
from jaxcxr.xray import relabeling
from jaxcxr.xray.images import manifest, radiographs
from jaxcxr.xray.report import xray_figures
from tests import own_films, toys


def arguments(*words):
    parser = argparse.ArgumentParser()
    relabel.add_arguments(parser)
    args, args.config = parser.parse_known_args(words)
    return args


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Sixty chest phantoms, a fifth of whose recorded labels are wrong: (root, directory)."""
    root = tmp_path_factory.mktemp("data")
    builder = preparation.prepare(
        "chest_phantom", root, size=32, images=60, workers=0, label_noise=0.2
    )
    return root, pathlib.Path(builder.data_dir)


def make_config(root):
    config = toys.xray_config(stages__all__duration="4 steps", report__samples=1)
    base.set_source(config, "chest_phantom", size=32, images=60, label_noise=0.2)
    base.set_model(config, "vit_tiny", dim=16, depth=1, heads=2, patch=8)  # compiles fast
    config.data.dir = str(root)
    return config


@contextlib.contextmanager
def patched(config):
    """The command gets this config; one device compiles fastest; drawing is tested elsewhere."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), parallel.AXES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main, "load_config", lambda argv: config)
        patch.setattr(parallel, "make_mesh", lambda config: mesh)
        for name in ("roc_figure", "samples_figure"):
            patch.setattr(xray_figures, name, lambda *args: canvas.new_figure(1, 1))
        yield patch


@pytest.fixture
def config(prepared):
    config = make_config(prepared[0])
    with patched(config):
        yield config


def adjudicated(directory, path):
    """The truth, which the boxes of a phantom tell whatever the labels say."""
    rows = manifest.read(directory)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image_id", *rows.classes))
        for name, boxes in zip(rows.image_id, rows.boxes, strict=True):
            there = set(boxes[:, 0].astype(int))
            writer.writerow((name, *("YES" if c in there else "NO" for c in range(15))))
    return path


def records(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@dataclasses.dataclass
class Done:
    """What a relabelling left that a SIGTERM interrupted in its second member."""

    command: argparse.Namespace
    out: pathlib.Path
    trained: list
    predicted: list
    at_the_kill: set
    text: str
    rows: manifest.Manifest


@pytest.fixture(scope="module")
def done(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    out, truth = folder / "out", adjudicated(prepared[1], folder / "truth.csv")
    command = arguments("--members=2", "--held-out=1", "--out", str(out), "--adjudicated",
                        str(truth))
    trained, predicted, make, predict = [], [], setup.make, loop.predict_split

    def noting_make(config, task=None):
        trained.append(config.data.left_out)
        return make(config, task)

    def noting_predict(run, state, split, *rest):
        predicted.append(split)
        return predict(run, state, split, *rest)

    with patched(make_config(prepared[0])) as patch, io.StringIO() as text:
        patch.setattr(setup, "make", noting_make)
        patch.setattr(loop, "predict_split", noting_predict)
        with contextlib.redirect_stdout(text):
            with pytest.MonkeyPatch.context() as killed:
                killed.setattr(loop.SigTerm, "received",
                               lambda self, step: len(trained) == 2 and step == 1)
                relabel.run(command)
            there = {path.relative_to(out).as_posix() for path in out.rglob("*.csv")}
            relabel.run(command)
        yield Done(command, out, trained, predicted, there, text.getvalue(),
                   manifest.read(prepared[1], "train"))


def test_the_same_command_goes_on_where_it_was_stopped(done):
    assert done.at_the_kill == {
        f"member_0/{name}.csv" for name in (
            "predictions/left_out", "predictions/validation", "report/metrics", "report/subgroups",
        )
    }
    assert done.trained == [(0,), (1,), (1,)]  # a finished member is not trained again
    assert "resumes at step 1" in done.text


def test_no_test_image_is_scored(done):
    assert set(done.predicted) == {"validation", "left_out"}


@pytest.fixture(scope="module")
def out_of_fold(done):
    """Scores `[training images, classes]` from the members' files; NaN where one has none."""
    parts = [records(done.out / f"member_{k}/predictions/left_out.csv") for k in range(2)]
    patients = [{line["patient_id"] for line in part} for part in parts]
    assert not patients[0] & patients[1]
    by_name = {line["image_id"]: line for part in parts for line in part}
    assert sorted(by_name) == sorted(done.rows.image_id)
    return np.array([[float(by_name[name].get(f"score_{c}", "nan")) for c in done.rows.classes]
                     for name in done.rows.image_id])


def test_labels_are_the_recorded_ones_or_those_above_the_threshold(done, prepared, out_of_fold):
    rows = done.rows
    new = radiographs.read_labels(done.out / "labels.csv", prepared[1])
    summary = json.loads((done.out / "summary.json").read_text())
    assert (summary["members"], summary["held_out"], summary["images"]) == (2, 1, len(rows))
    for c, row in enumerate(summary["classes"]):
        scored = ~np.isnan(out_of_fold[:, c])
        said = out_of_fold[:, c] >= (np.inf if row["threshold"] is None else row["threshold"])
        if row["threshold"] is not None:
            expected = sk.f1_score(rows.labels[scored, c], said[scored])
            assert row["f1"] == pytest.approx(expected)
        np.testing.assert_array_equal(new[:, c], (rows.labels[:, c] == 1) | said)
        line = next(line for line in done.text.splitlines()[::-1]
                    if line.split()[:2] == [row["name"], str(row["positives"])])
        assert line.split()[2] == str((new[:, c] == 1).sum())
    assert sum(row["threshold"] is not None for row in summary["classes"]) >= 10
    assert len(records(done.out / "changes.csv")) == (new != rows.labels).sum() > 0


def test_agreement_with_the_truth_is_scikit_learns(done, prepared):
    new = radiographs.read_labels(done.out / "labels.csv", prepared[1])
    found = json.loads((done.out / "summary.json").read_text())["adjudicated"]
    real = np.array([[c in set(boxes[:, 0]) for c in range(15)] for boxes in done.rows.boxes])
    for c, name in enumerate(done.rows.classes):
        for when, labels in (("before", done.rows.labels), ("after", new)):
            pair = real[:, c], labels[:, c]
            assert found[name][when]["sensitivity"] == pytest.approx(sk.recall_score(*pair))
            assert found[name][when]["ppv"] == pytest.approx(sk.precision_score(*pair))


def test_run_again_it_trains_nothing_and_writes_the_same(done):
    files = [done.out / name for name in ("labels.csv", "changes.csv", "summary.json")]
    before, count = [path.read_bytes() for path in files], len(done.trained)
    done.command.json = str(done.out / "result.json")
    relabel.run(done.command)
    assert [path.read_bytes() for path in files] == before
    rows = json.loads((done.out / "result.json").read_text())["rows"]
    classes = json.loads((done.out / "summary.json").read_text())["classes"]
    assert [(row[0], row[1]) for row in rows] == [
        (entry["name"], f"{entry['positives']:,}") for entry in classes
    ]
    assert len(done.trained) == count


def test_a_folder_of_another_config_is_refused(done, config):
    config.seed = 1
    with pytest.raises(UserError, match=r"another config:\n.*\n  seed: 0 -> 1\n.*another --out"):
        relabel.run(done.command)


def test_scores_of_other_images_are_refused(done, config, tmp_path):
    out = shutil.copytree(done.out, tmp_path / "copy")
    path = out / "member_1/predictions/left_out.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="not the one it was trained on"):
        relabel.run(arguments("--members=2", "--held-out=1", "--out", str(out)))


def test_members_differ_in_seed_and_folds_only():
    config = toys.xray_config(seed=2**31 - 1)
    members = [member_config(config, k, 5, 2) for k in range(5)]
    assert [m.seed for m in members] == [2**31 - 1, 0, 1, 2, 3]
    assert {m.data.fold_seed for m in members} == {2**31 - 1}
    assert members[4].data.left_out == (0, 4)
    saved = json.loads(config.to_json_best_effort())
    keys = {line.split(":")[0] for m in members for line in base.difference(m, saved)}
    assert keys == {"seed", "data.folds", "data.fold_seed", "data.left_out"}
    assert config.data.folds == 0


def test_other_training_labels_are_another_experiment():
    saved = json.loads(toys.xray_config().to_json_best_effort())
    other = toys.xray_config(data__labels="new.csv")
    assert base.difference(other, saved) == ["data.labels: '' -> 'new.csv'"]
    assert base.from_saved(json.loads(other.to_json_best_effort())) == other


@pytest.mark.parametrize(("words", "changes", "parts"), [
    (["--members=1"], {}, ["--members is 1", "2 to 1000"]),
    (["--held-out=5"], {}, ["--held-out is 5", "1 to 4"]),
    (["--held-out=0"], {}, ["--held-out is 0"]),
    ([], {"data.labels": "x.csv"}, ["recorded labels", "leave them out"]),
    ([], {"data.folds": 3, "data.left_out": (1,)}, ["data.folds", "leave them out"]),
    (["--members=500"], {}, ["none of the 18 training patients", "lower --members"]),
    (["--adjudicated=absent.csv"], {}, ["absent.csv cannot be read"]),
])
def test_a_mistake_is_explained_before_anything_is_trained(
    config, tmp_path, words, changes, parts
):
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError) as caught:
        relabel.run(arguments("--out", str(tmp_path / "out"), *words))
    for part in parts:
        assert part in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_another_task_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(main, "load_config", lambda argv: toys.pose_config())
    with pytest.raises(UserError, match="serves the task 'cxr'"):
        relabel.run(arguments("--out", str(tmp_path)))


@pytest.mark.parametrize(("make", "changes", "parts"), [
    (toys.xray_config, {"data.folds": 1}, ["folds is 1", "0 (off) or at least 2"]),
    (toys.xray_config, {"data.folds": -1}, ["data.folds is -1", "at least 0"]),
    (toys.xray_config, {"data.folds": 5}, ["left_out is ()", "at least one"]),
    (toys.xray_config, {"data.folds": 3, "data.left_out": (0, 1, 2)}, ["one trained on"]),
    (toys.xray_config, {"data.folds": 3, "data.left_out": (0, 0)}, ["each named once"]),
    (toys.xray_config, {"data.folds": 3, "data.left_out": (3,)}, ["(3,)", "from 0 to 2"]),
    (toys.xray_config, {"data.folds": 3, "data.left_out": ("1",)}, ["('1',)", "from 0 to 2"]),
    (toys.xray_config, {"data.left_out": (0,)}, ["(0,)", "folds=0", "not at all"]),
    (toys.xray_config, {"data.fold_seed": -1}, ["fold_seed is -1"]),
    (toys.pose_config, {"data.labels": "x.csv"}, ["serve the task 'cxr'", "'pose'"]),
    (toys.pose_config, {"data.folds": 3, "data.left_out": (0,)}, ["serve the task 'cxr'"]),
])
def test_impossible_folds_are_refused(make, changes, parts):
    config = make()
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError) as caught:
        base.validate(config)
    for part in parts:
        assert part in str(caught.value)


def test_a_member_has_no_output_for_a_class_that_its_folds_never_show(tmp_path, monkeypatch):
    """One patient has all positives of Rare, so the member without its fold cannot learn it."""
    config = own_films.config_of(tmp_path)
    labels = {"Even": [i % 2 for i in range(24)], "Rare": [0, 1] + [0] * 22}
    own_films.prepared(tmp_path, labels, val_fraction=0.0, test_fraction=0.0)
    rows = manifest.read(preparation.find_or_generate(config), "train")
    fold = relabeling.folds(rows.patient_id, 2, config.seed)
    (home,) = fold[rows.labels[:, rows.classes.index("Rare")] == 1]
    monkeypatch.setattr(main, "load_config", lambda argv: config)
    out = tmp_path / "out"
    relabel.run(arguments("--members=2", "--held-out=1", "--out", str(out)))
    blind, seeing = (
        records(out / f"member_{k}/predictions/left_out.csv") for k in (home, 1 - home)
    )
    assert "score_Rare" not in blind[0]
    assert {"score_Even", "score_Rare"} <= set(seeing[0])
    changed = [line for line in records(out / "changes.csv") if line["class"] == "Rare"]
    places = dict(zip(rows.image_id, fold, strict=True))
    assert all(places[line["image_id"]] != home for line in changed)
    relabel.run(arguments("--members=2", "--held-out=1", "--out", str(out)))  # reads the members


def test_a_member_without_any_class_to_learn_is_refused_before_training(tmp_path, monkeypatch):
    config = own_films.config_of(tmp_path)
    own_films.prepared(tmp_path, {"One": [1] + [0] * 23}, val_fraction=0.0, test_fraction=0.0)
    monkeypatch.setattr(main, "load_config", lambda argv: config)
    with pytest.raises(UserError, match=r"without folds \d no class has positive and negative"):
        relabel.run(arguments("--members=2", "--held-out=1", "--out", str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()
