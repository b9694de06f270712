"""`jaxcxr score --task keypoints` on COCO's files: pycocotools, hand-made cases, every mistake."""

import copy
import csv
import json
import re

import numpy as np
import pytest

from jaxcxr import __main__ as command
from jaxcxr.pose.evaluation import coco_keypoints, keypoint_ap, keypoint_errors
from tests.pose.evaluation.pose_scores import refused
from tests.pose.evaluation.test_pose_keypoints import generated, pycocotools_stats
from tests.pose.sources import fuzz

JOINTS = ["nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder",
          "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
          "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"]


def dataset(annotations, images=40):
    return {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg"} for i in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": JOINTS}],
    }


class Files:
    def __init__(self, path, labels, results):
        self.path, self.labels, self.results = path, labels, results

    def run(self, *more, labels=None, results=None):
        for name, content in (("labels", labels or self.labels),
                              ("results", self.results if results is None else results)):
            (self.path / f"{name}.json").write_text(json.dumps(content))
        command.run([
            "score", "--task=keypoints", "--labels", str(self.path / "labels.json"),
            "--predictions", str(self.path / "results.json"), "--out", str(self.path / "out"),
            "--resamples", "20", *map(str, more),
        ])
        return json.loads((self.path / "out/metrics.json").read_text())


@pytest.fixture
def files(tmp_path):
    annotations, results = generated(0)
    return Files(tmp_path, dataset(annotations), results)


def test_the_ten_metrics_are_pycocotools(files, agree, capsys):
    result = files.run()
    theirs = pycocotools_stats(files.labels["annotations"], files.results, 40)
    ours = [result["overall"][metric.name] for metric in keypoint_ap.METRICS]
    agree("COCO average precision and recall against pycocotools, ten metrics", ours, theirs, 1e-9)
    for name in ("AP", "ARl", "pck", "oks"):
        low, high = result["overall"][f"{name}_interval"]
        assert low < result["overall"][name] < high
    text = capsys.readouterr().out
    assert text.startswith("COCO: ")
    line = next(line.split() for line in text.splitlines() if line.startswith("AP50"))
    assert line[1] == f"{result['overall']['AP50']:.3f}"
    with (files.path / "out/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["AP"]) == pytest.approx(result["overall"]["AP"])
    assert {row["name"] for row in rows if row["group"] == "joint"} == set(JOINTS)
    assert len([row for row in rows if row["group"] == "limb"]) == 8
    assert (files.path / "out/metrics.md").read_text().count("\n| ") > 25


def one(flags, offset=0.0, image=1, number=1, **more):
    """An annotation of a figure on a line, and a detection of it moved to the right."""
    points = np.column_stack([np.linspace(10, 90, 17), np.full(17, 50.0), flags])
    moved = np.column_stack([points[:, 0] + offset, points[:, 1], np.ones(17)])
    annotation = {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0,
                  "keypoints": points.ravel().tolist(), "bbox": [0, 0, 100, 100], "area": 5000.0,
                  "num_keypoints": int((points[:, 2] > 0).sum()), **more}
    return annotation, {"image_id": image, "category_id": 1, "score": 0.9,
                        "keypoints": moved.ravel().tolist()}


def test_flags_of_0_do_not_count_and_1_counts_as_2(files):
    flags = np.array([0, 1, 2] * 5 + [2, 0])
    annotation, result = one(flags, offset=10.0)
    result["keypoints"][0] = 1e4  # of a joint with v = 0
    found = files.run(labels=dataset([annotation], 2), results=[result])
    assert found["counts"]["joints"] == (flags > 0).sum()
    assert found["overall"]["pck"] == 1
    expected = keypoint_errors.oks(np.array(result["keypoints"]).reshape(17, 3)[:, :2],
                             np.array(annotation["keypoints"]).reshape(17, 3)[:, :2], 5000.0, flags)
    assert found["overall"]["oks"] == pytest.approx(float(expected))
    assert found["per_joint"]["nose"]["pck"] is None
    assert found["overall"]["pck_interval"] is None  # one image


def test_pck_is_of_the_longer_side_and_pdj_and_pcp_of_the_body(files):
    annotation, result = one(np.full(17, 2), offset=20.0)
    annotation["bbox"] = [0, 0, 30, 100]
    assert files.run(labels=dataset([annotation]), results=[result])["overall"]["pck"] == 1
    annotation["bbox"] = [0, 0, 30, 99]
    found = files.run(labels=dataset([annotation]), results=[result])
    assert found["overall"]["pck"] == 0
    # 5 pixels from joint to joint: the torso has 35, limbs 10 pixels.
    assert found["overall"]["pdj"] == 0
    _, near = one(np.full(17, 2), offset=5.0)
    found = files.run(labels=dataset([annotation]), results=[near])
    assert (found["overall"]["pdj"], found["overall"]["pcp"]) == (1, 1)
    assert found["per_limb"]["left hip-knee"]["pcp_loose"] == 1
    _, far = one(np.full(17, 2), offset=5.1)
    assert files.run(labels=dataset([annotation]), results=[far])["overall"]["pcp"] == 0


def test_crowds_people_without_joints_and_missed_ones(files, capsys):
    seen, result = one(np.full(17, 2))
    crowd, _ = one(np.full(17, 2), number=2, iscrowd=1)
    empty, _ = one(np.zeros(17), number=3)
    missed, _ = one(np.full(17, 2), image=2, number=4)
    found = files.run(labels=dataset([seen, crowd, empty, missed], 3), results=[result])
    counts = found["counts"]
    assert (counts["people"], counts["people_missed"], counts["annotations_ignored"]) == (2, 1, 2)
    assert found["overall"]["pck"] == 0.5
    assert found["overall"]["AR"] == pytest.approx(0.5)
    assert found["overall"]["oks"] == 0.5
    assert "1 of 2 images with people have no detection" in capsys.readouterr().out


def test_each_figure_takes_the_detection_of_it_whatever_the_scores():
    annotations, results = zip(*(one(np.full(17, 2), number=n) for n in (1, 2)), strict=True)
    far = copy.deepcopy(annotations[1])
    moved = np.array(far["keypoints"]).reshape(17, 3) + np.array([300, 0, 0])
    far["keypoints"] = moved.ravel().tolist()
    labels = [{**a, "points": np.array(a["keypoints"]).reshape(17, 3)}
              for a in (annotations[0], far)]
    guesses = [
        {**results[0], "score": score, "points": labels[i]["points"] + [shift, 0, 0]}
        for i, score, shift in ((1, 0.2, 3), (0, 0.1, 2), (0, 0.9, 9))
    ]
    found = coco_keypoints.pair(labels, guesses, keypoint_errors.COCO_SIGMAS)
    assert [guess["score"] for guess in found] == [0.1, 0.2]
    assert coco_keypoints.pair(labels, guesses[:1], keypoint_errors.COCO_SIGMAS)[0] is None


def test_categories_are_chosen_by_name_or_number(files, capsys):
    annotations, results = generated(4, categories=(1, 2))
    labels = dataset(annotations)
    labels["categories"].append({"id": 2, "name": "horse", "keypoints": JOINTS})
    both = files.run(labels=labels, results=results)
    theirs = pycocotools_stats(annotations, results, 40)
    assert both["overall"]["AP"] == pytest.approx(theirs[0], abs=1e-9)
    horse = files.run("--category", "horse", labels=labels, results=results)
    assert horse == files.run("--category", 2, labels=labels, results=results)
    only = pycocotools_stats([a for a in annotations if a["category_id"] == 2],
                             [r for r in results if r["category_id"] == 2], 40)
    assert horse["overall"]["AP"] == pytest.approx(only[0], abs=1e-9)
    assert "results are of categories that are not scored: ignored" in capsys.readouterr().out
    err = refused(capsys, lambda: files.run("--category", "cow", labels=labels, results=results))
    assert "1 person, 2 horse" in err


def test_other_joints_have_sigmas_of_their_own(files, capsys):
    annotation, result = one(np.full(17, 2))
    annotation["keypoints"], result["keypoints"] = (
        item["keypoints"][:9] for item in (annotation, result))
    annotation["num_keypoints"] = 3
    labels = dataset([annotation])
    labels["categories"] = [{"id": 1, "name": "rat", "keypoints": ["nose", "tail", "paw"]}]
    assert "17 sigmas; give those" in refused(
        capsys, lambda: files.run(labels=labels, results=[result]))
    found = files.run("--sigmas", "0.1,0.1,0.2", labels=labels, results=[result])
    assert found["overall"]["AP"] == pytest.approx(1)
    assert found["per_joint"]["tail"]["pck"] == 1
    assert "pdj" not in found["overall"]
    del labels["categories"][0]["keypoints"]
    found = files.run("--sigmas", "0.1,0.1,0.2", labels=labels, results=[result])
    assert list(found["per_joint"]) == ["joint 0", "joint 1", "joint 2"]
    for wrong in ("0.1,a,1", "0.1,0,1", "nan,1,1"):
        assert "above 0" in refused(
            capsys, lambda w=wrong: files.run("--sigmas", w, labels=labels, results=[result]))


def test_a_list_of_images_restricts_both(files):
    (files.path / "list.txt").write_text("3\n4\n5\n")
    found = files.run("--split-list", files.path / "list.txt")
    chosen = {3, 4, 5}
    labels = {**files.labels,
              "annotations": [a for a in files.labels["annotations"] if a["image_id"] in chosen]}
    other = files.run(labels=labels,
                      results=[r for r in files.results if r["image_id"] in chosen])
    assert found["overall"]["AP"] == other["overall"]["AP"]
    assert found["counts"]["images"] == 3


def _set(item, key, value):
    def change(labels, results):
        target = labels[item][0] if item in labels else results[0]
        target[key] = value
    return change


def _twice(name):
    return lambda labels, results: labels[name].append(labels[name][0])


@pytest.mark.parametrize(("change", "message"), [
    (_twice("images"), "image 40: the id 1 stands twice"),
    (_twice("annotations"), "the id 1 stands twice"),
    (_set("images", "id", "first"), "image 1: the id 2, where others are names"),
    (_set("images", "id", None), "image 0: without an id"),
    (_twice("categories"), "the id 1 stands twice"),
    (_set("annotations", "image_id", 99), "annotation 0: no image has the id 99"),
    (_set("annotations", "category_id", 9), "no category has the id 9"),
    (_set("annotations", "keypoints", [1.0] * 48), "a list of 51 finite numbers"),
    (_set("annotations", "keypoints", [3.0] * 51), "v of a keypoint is not 0, 1 or 2"),
    (_set("annotations", "keypoints", [0.0] * 51), r"num_keypoints is \d+, but 0 have v"),
    (_set("annotations", "area", None), "area, one number"),
    (_set("annotations", "area", -1.0), "a negative area"),
    (_set("annotations", "bbox", [1, 2, 3]), "bbox must be a list of 4"),
    (_set("annotations", "iscrowd", 3), "iscrowd is 3"),
    (_set("results", "image_id", 41), "no image with the id 41; give the results of the same"),
    (_set("results", "image_id", [1]), "no image with the id"),
    (_set("results", "category_id", 5), "no category has the id 5"),
    (_set("results", "keypoints", [1.0] * 34), "a list of 51 finite numbers"),
    (_set("results", "keypoints", [float("nan")] * 51), "no JSON file .NaN is no number"),
    (_set("results", "keypoints", [10**400] * 51), "finite numbers"),
    (_set("results", "score", "high"), "score, one number"),
    (lambda labels, results: results[0].pop("score"), "a result needs image_id, keypoints and"),
    (lambda labels, results: labels.pop("images"), "no lists images and annotations"),
    (lambda labels, results: labels["annotations"].clear(), "nothing to score"),
    (lambda labels, results: labels["categories"].clear(), "no list of categories"),
])
def test_mistakes_are_sentences(files, capsys, change, message):
    labels, results = copy.deepcopy(files.labels), copy.deepcopy(files.results)
    change(labels, results)
    said = refused(capsys, lambda: files.run(labels=labels, results=results))
    assert re.search(message, said)
    assert str(files.path) in said


def test_options_of_other_tasks_are_refused(files, capsys):
    assert "--head-boxes is of MPII" in refused(capsys, lambda: files.run("--head-boxes", "a.mat"))
    assert "--protocol is of poses" in refused(capsys, lambda: files.run("--protocol", "vp3d-gt"))
    assert "--resamples must be" in refused(capsys, lambda: files.run("--resamples", 0))

    def radiographs():
        command.run(["score", "--labels", "a.csv", "--predictions", "b.csv", "--out", "o",
                     "--sigmas", "1"])
    assert "--sigmas is of 2D keypoints; add --task keypoints" in refused(capsys, radiographs)


def test_no_result_at_all_is_scored_as_nothing_found(files):
    found = files.run(results=[])
    assert (found["overall"]["AP"], found["overall"]["pck"], found["overall"]["oks"]) == (0, 0, 0)


@pytest.mark.parametrize("which", ["labels", "results"])
def test_damaged_files(tmp_path, which):
    annotation, result = one(np.full(17, 2))
    contents = {"labels": dataset([annotation], 2), "results": [result]}
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))

    def write_and_read(content):
        (tmp_path / f"{which}.json").write_bytes(content)
        coco_keypoints.read(tmp_path / "labels.json", tmp_path / "results.json")

    fuzz.assert_only_user_errors(
        write_and_read, json.dumps(contents[which]).encode(), str(tmp_path), examples=150
    )
