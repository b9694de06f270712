"""`jaxcxr score --task keypoints` on MPII's files, in each exact form, against its definition."""

import json
import re

import numpy as np
import pytest
import scipy.io

from jaxcxr import __main__ as command
from jaxcxr.pose.evaluation import mpii_keypoints
from jaxcxr.pose.evaluation.mpii_keypoints import JOINTS
from tests.pose.evaluation.pose_scores import refused
from tests.pose.sources import fuzz

# Images of one, two and one people, and one of nobody annotated, as the published test images.
IMAGES = (("001.jpg", 1), ("002.jpg", 2), ("003.jpg", 1), ("004.jpg", 0))
NAMES = [(image, person + 1) for image, people in IMAGES for person in range(people)]
SHORT = ["rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor", "neck", "head", "rwri",
         "relb", "rsho", "lsho", "lelb", "lwri"]


class People:
    """Four people; the head boxes have diagonals of 50, so that heads are 30 pixels."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.points = rng.integers(50, 400, (4, 16, 2)).astype(float)
        self.seen = np.ones((4, 16), bool)
        self.seen[0, 3] = self.seen[3, [0, 1]] = False
        self.heads = np.tile([[100.0, 100], [130, 140]], (4, 1, 1))
        self.scale = np.array([1.5, 2.0, 0.5, 1.0])
        self.guess = self.points + rng.choice([-1, 1], (4, 16, 2)) * rng.integers(0, 25, (4, 16, 2))

    def pckh(self, alpha=0.5, joints=None):
        """By the definition of MPII's evaluation."""
        error = np.linalg.norm(self.guess - self.points, axis=-1)
        head = 0.6 * np.linalg.norm(self.heads[:, 1] - self.heads[:, 0], axis=-1)
        right = (error / head[:, None] <= alpha) & self.seen
        joints = [j for j in range(16) if j not in (6, 7)] if joints is None else joints
        return right[:, joints].sum() / self.seen[:, joints].sum()


def released(people, points=None):
    """The struct RELEASE of the published file, or its annolist with other points."""
    images, number = [], 0
    for image, count in IMAGES:
        rectangles = []
        for _ in range(count):
            shown = people.seen[number] if points is None else np.ones(16, bool)
            where = people.points[number] if points is None else points[number]
            box = people.heads[number].ravel()
            rectangles.append({
                "x1": box[0], "y1": box[1], "x2": box[2], "y2": box[3],
                "annopoints": {"point": [
                    # Published as text in one part of the file, as numbers or nothing in others.
                    {"x": where[j][0], "y": where[j][1], "id": j,
                     "is_visible": ("1", 0, [])[j % 3]} for j in range(16) if shown[j]]},
                "scale": people.scale[number], "objpos": {"x": 200.0, "y": 200.0},
            })
            number += 1
        if not count:
            rectangles = [{"scale": 1.0, "objpos": {"x": 1.0, "y": 1.0}}]
        images.append({"image": {"name": image}, "annorect": structs(rectangles),
                       "frame_sec": [], "vididx": []})
    return structs(images)


def save(path, content):
    """Compressed, as MATLAB's own; what is not is first read by another process, which is slow."""
    scipy.io.savemat(path, content, do_compression=True)


def structs(items):
    """An array of structs, as MATLAB has it."""
    names = list(items[0])
    array = np.empty((1, len(items)), [(name, object) for name in names])
    for i, item in enumerate(items):
        for name in names:
            value = item[name]
            if isinstance(value, dict):
                value = structs([{k: structs(v) if isinstance(v, list) and v and
                                  isinstance(v[0], dict) else v for k, v in value.items()}])
            array[0, i][name] = value
    return array


def write_release(path, people):
    release = structs([{"annolist": released(people), "img_train": [1, 1, 1, 0],
                        "version": "12"}])
    save(path, {"RELEASE": release})


def write_arrays(path, people):
    names = np.empty((1, 16), object)
    names[0] = SHORT
    save(path, {
        "pos_gt_src": np.moveaxis(people.points, 0, -1), "dataset_joints": names,
        "jnt_missing": 1 - people.seen.T.astype(np.uint8),
        "headboxes_src": np.moveaxis(people.heads, 0, -1),
    })


def write_hrnet(path, people):
    path.write_text(json.dumps([
        {"image": image, "center": [200.0, 200.0], "scale": float(people.scale[i]),
         "joints": np.where(people.seen[i][:, None], people.points[i], -1).tolist(),
         "joints_vis": people.seen[i].astype(int).tolist()}
        for i, (image, _) in enumerate(NAMES)
    ]))


def write_named(path, guess, names=NAMES):
    path.write_text(json.dumps([{"image": image, "person": person, "joints": points.tolist()}
                                for (image, person), points in zip(names, guess, strict=True)]))


class Folder:
    def __init__(self, path):
        self.path, self.people = path, People()
        write_release(path / "mpii.mat", self.people)
        write_arrays(path / "gt_valid.mat", self.people)
        write_hrnet(path / "valid.json", self.people)
        write_named(path / "named.json", self.people.guess)
        save(path / "pred.mat", {"preds": self.people.guess})

    def run(self, labels, predictions, *more):
        command.run(["score", "--task=keypoints", "--labels", str(self.path / labels),
                     "--predictions", str(self.path / predictions), "--out",
                     str(self.path / "out"), "--resamples", "50", *map(str, more)])
        return json.loads((self.path / "out/metrics.json").read_text())


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_each_form_of_labels_and_predictions_gives_the_definition(folder):
    people, path = folder.people, folder.path
    np.save(path / "pred.npy", people.guess - 1)
    save(path / "flat.mat", {"preds": people.guess.transpose(2, 1, 0)})
    submitted = {"pred": released(people, people.guess)}
    save(path / "submitted.mat", submitted)
    head_boxes = ("--head-boxes", path / "gt_valid.mat")
    for labels, predictions, more in (
        ("mpii.mat", "named.json", ()), ("mpii.mat", "submitted.mat", ()),
        ("gt_valid.mat", "pred.mat", ()), ("gt_valid.mat", "flat.mat", ()),
        ("gt_valid.mat", "pred.npy", ("--origin", 0)),
        ("valid.json", "pred.mat", head_boxes),
        ("valid.json", "pred.mat", ("--head-boxes", path / "mpii.mat")),
    ):
        found = folder.run(labels, predictions, *more)
        assert found["overall"]["pckh"] == pytest.approx(people.pckh(), abs=1e-12), labels
        curve = [people.pckh(alpha / 100) for alpha in range(51)]
        area = np.trapezoid(curve, np.arange(51) / 50)
        assert found["overall"]["pckh_auc"] == pytest.approx(area, abs=1e-9)
        joints = {name: people.pckh(joints=[j]) for j, name in enumerate(JOINTS)}
        shown = {name: entry["pckh"] for name, entry in found["per_joint"].items()}
        assert shown == pytest.approx(joints)
        assert ("pck" in found["overall"]) == (labels != "gt_valid.mat")
        assert found["counts"]["joints"] == people.seen.sum()
    assert 0.1 < people.pckh() < 0.9


def test_half_a_head_is_correct_and_a_pixel_more_is_not(folder):
    for offset, expected in ((15.0, 1.0), (15.1, 0.0)):
        write_named(folder.path / "named.json", folder.people.points + np.array([offset, 0]))
        found = folder.run("mpii.mat", "named.json")
        assert found["overall"]["pckh"] == expected
    # 0.2 times 200 times scale: 60, 80, 20 and 40 pixels.
    write_named(folder.path / "named.json", folder.people.points + np.array([50.0, 0]))
    counted = folder.people.seen.sum(1)
    found = folder.run("mpii.mat", "named.json")
    assert found["overall"]["pck"] == pytest.approx(counted[:2].sum() / counted.sum())


def test_limbs(folder):
    people = folder.people
    first, last = JOINTS.index("left_elbow"), JOINTS.index("left_wrist")
    limb = np.linalg.norm(people.points[:, first] - people.points[:, last], axis=-1)
    error = np.linalg.norm(people.guess - people.points, axis=-1)[:, [first, last]]
    found = folder.run("mpii.mat", "named.json")["per_limb"]
    assert len(found) == 10
    assert found["left elbow-wrist"]["pcp"] == (error.max(1) <= limb / 2).mean()
    assert found["left elbow-wrist"]["pcp_loose"] == (error.mean(1) <= limb / 2).mean()


def test_people_that_are_not_predicted_are_missed(folder, capsys):
    write_named(folder.path / "named.json", folder.people.points[:3], NAMES[:3])
    found = folder.run("mpii.mat", "named.json")
    assert (found["counts"]["people"], found["counts"]["people_missed"]) == (4, 1)
    counted = folder.people.seen[:, [j for j in range(16) if j not in (6, 7)]].sum(1)
    assert found["overall"]["pckh"] == pytest.approx(counted[:3].sum() / counted.sum())
    assert "1 of 4 people are not predicted: missed" in capsys.readouterr().out
    (folder.path / "list.txt").write_text("001.jpg\n002.jpg\n")
    found = folder.run("mpii.mat", "named.json", "--split-list", folder.path / "list.txt")
    assert (found["counts"]["people"], found["overall"]["pckh"]) == (3, 1.0)


def test_a_point_that_is_not_finite_was_not_found(folder):
    guess = folder.people.points.copy()
    guess[0, 9] = np.nan
    save(folder.path / "pred.mat", {"preds": guess})
    found = folder.run("gt_valid.mat", "pred.mat")
    assert found["per_joint"]["head"]["pckh"] == 0.75


def test_without_boxes_of_heads_there_is_no_pckh(folder, capsys):
    found = folder.run("valid.json", "pred.mat")
    assert "pckh" not in found["overall"]
    assert 0 < found["overall"]["pdj"] < 1
    assert "4 people have no box of the head" in capsys.readouterr().out
    folder.people.heads[1] = 0
    write_release(folder.path / "mpii.mat", folder.people)
    write_named(folder.path / "named.json", folder.people.points)
    found = folder.run("mpii.mat", "named.json")
    assert found["overall"]["pckh"] == 1
    assert "1 people have no box of the head" in capsys.readouterr().out


def test_one_person_and_images_known_by_order(folder):
    one = folder.people
    for name in ("points", "seen", "heads", "guess"):
        setattr(one, name, getattr(one, name)[:1])
    write_arrays(folder.path / "gt_valid.mat", one)
    save(folder.path / "pred.mat", {"preds": one.guess})
    found = folder.run("gt_valid.mat", "pred.mat")
    assert found["overall"]["pckh"] == pytest.approx(one.pckh())
    assert found["overall"]["pckh_interval"] is None


def test_predictions_without_person_where_an_image_has_one(folder, capsys):
    path = folder.path / "named.json"
    guess = folder.people.guess
    content = [{"image": image, "joints": guess[i].tolist()} for i, (image, _) in enumerate(NAMES)]
    path.write_text(json.dumps(content))  # in the order of the labels
    assert folder.run("mpii.mat", "named.json")["overall"]["pckh"] == folder.people.pckh()
    path.write_text(json.dumps(content[::-1]))
    assert "002.jpg is not one labelled person" in refused(
        capsys, lambda: folder.run("mpii.mat", "named.json"))
    path.write_text(json.dumps([content[3], content[0]]))
    assert folder.run("mpii.mat", "named.json")["counts"]["people_missed"] == 2


def _mat(**content):
    return lambda path: save(path, content)


@pytest.mark.parametrize(("labels", "predictions", "change", "message"), [
    ("mpii.mat", "pred.mat", None, "does not say whom its points are of"),
    ("gt_valid.mat", "named.json", None, "names images, but"),
    ("gt_valid.mat", "pred.mat", _mat(preds=np.zeros((3, 16, 2))), "3 people, but .* has 4"),
    ("gt_valid.mat", "pred.mat", _mat(preds=np.zeros((4, 17, 2))), r"not \[people, 16, 2\]"),
    ("gt_valid.mat", "pred.mat", _mat(preds="text"), r"not \[people, 16, 2\]"),
    ("gt_valid.mat", "pred.mat", _mat(other=1), "neither preds nor pred"),
    ("gt_valid.mat", "pred.mat", lambda p: p.write_bytes(b"MATLAB"), "damaged or no MATLAB"),
    ("gt_valid.mat", "pred.mat", lambda p: p.unlink(), "no file at"),
    ("gt_valid.mat", "p.npy", lambda p: p.write_bytes(b"\x93NUMPY"), "damaged or no .npy"),
    ("mpii.mat", "named.json", lambda p: p.write_text("[]"), "or it is empty"),
    ("mpii.mat", "named.json", lambda p: p.write_text('[{"image": "x"}]'), "without image"),
    ("mpii.mat", "named.json", lambda p: write_named(p, np.zeros((1, 15, 2)), NAMES[:1]),
     "give 16 pairs"),
    ("mpii.mat", "named.json", lambda p: write_named(p, np.zeros((2, 16, 2)), NAMES[:1] * 2),
     "001.jpg, person 1, is predicted twice"),
    ("mpii.mat", "named.json", lambda p: write_named(p, np.zeros((1, 16, 2)), [("001.jpg", 2)]),
     "person 2 of 001.jpg is not one labelled person"),
    ("mpii.mat", "named.json", lambda p: write_named(p, np.zeros((1, 16, 2)), [("009.jpg", 1)]),
     "person 1 of 009.jpg is not"),
    ("mpii.mat", "named.json", lambda p: write_named(p, np.zeros((1, 16, 2)), [("001.jpg", -1)]),
     "person is -1"),
])
def test_mistakes_in_predictions(folder, capsys, labels, predictions, change, message):
    if change is not None:
        change(folder.path / predictions)
    said = refused(capsys, lambda: folder.run(labels, predictions))
    assert re.search(message, said)
    assert str(folder.path / predictions) in said


def _people(**changes):
    def write(path):
        people = People()
        for name, change in changes.items():
            setattr(people, name, change(getattr(people, name)))
        (write_release if path.name == "mpii.mat" else write_arrays)(path, people)
    return write


@pytest.mark.parametrize(("labels", "change", "message"), [
    ("gt_valid.mat", _people(points=lambda p: p * np.nan), "not missing is not finite"),
    ("gt_valid.mat", _people(points=lambda p: p[:, :15]), "pos_gt_src has the shape"),
    ("gt_valid.mat", _people(heads=lambda p: p[:3]), "its arrays are of 4, 4 and 3 people"),
    ("gt_valid.mat", _mat(pos_gt_src=np.zeros((16, 2, 0))), "has the shape"),
    ("gt_valid.mat", _mat(x=1), "neither RELEASE nor pos_gt_src"),
    ("mpii.mat", _people(points=lambda p: p * np.nan), "a point without id"),
    ("mpii.mat", _people(seen=lambda s: s & False), "nobody in it has annotated points"),
    ("mpii.mat", _mat(RELEASE=3), "RELEASE has no annolist"),
    ("valid.json", lambda p: p.write_text("[[]]"), "without image, a name, and joints"),
    ("valid.json", lambda p: p.write_text(p.read_text().replace("[1, ", "[", 1)), "joints_vis"),
    ("valid.json", lambda p: p.write_text(p.read_text()[:-40]), "no JSON file"),
])
def test_mistakes_in_labels(folder, capsys, labels, change, message):
    change(folder.path / labels)
    predictions = "named.json" if labels == "mpii.mat" else "pred.mat"
    said = refused(capsys, lambda: folder.run(labels, predictions))
    assert re.search(message, said)
    assert str(folder.path / labels) in said


def test_boxes_of_other_people(folder, capsys):
    people = folder.people
    people.points = people.points[::-1]
    write_arrays(folder.path / "gt_valid.mat", people)
    boxes = ("--head-boxes", folder.path / "gt_valid.mat")
    assert "not in the order of" in refused(
        capsys, lambda: folder.run("valid.json", "pred.mat", *boxes))
    for name in ("points", "seen", "heads"):
        setattr(people, name, getattr(people, name)[:3])
    write_arrays(folder.path / "gt_valid.mat", people)
    assert "boxes of 3 heads, but" in refused(
        capsys, lambda: folder.run("valid.json", "pred.mat", *boxes))
    (folder.path / "list.txt").write_text("001.jpg\n")
    save(folder.path / "pred.mat", {"preds": people.points})
    assert "names no images" in refused(capsys, lambda: folder.run(
        "gt_valid.mat", "pred.mat", "--split-list", folder.path / "list.txt"))


@pytest.mark.parametrize("form", ["mpii.mat", "valid.json", "named.json"])
def test_damaged_files(tmp_path, form):
    Folder(tmp_path)

    def write_and_read(content):
        (tmp_path / form).write_bytes(content)
        labels = "valid.json" if form == "valid.json" else "mpii.mat"
        people = mpii_keypoints.read_labels(tmp_path / labels)
        if form == "named.json":
            mpii_keypoints.read_predictions(tmp_path / form, people)

    valid = (tmp_path / form).read_bytes()
    fuzz.assert_only_user_errors(write_and_read, valid, str(tmp_path), examples=80)
