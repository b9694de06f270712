"""2D keypoints: values computed by hand, and COCO's own evaluation of generated detections."""

import contextlib
import io

import numpy as np
import pytest

from jaxcxr.pose.evaluation import keypoint_ap, keypoint_errors


@pytest.fixture
def people():
    rng = np.random.default_rng(0)
    target = rng.uniform(0, 200, (30, 17, 2))
    return target + rng.normal(0, 8, target.shape), target


def test_a_perfect_prediction_scores_perfectly(people):
    _, target = people
    boxes = np.concatenate([target.min(1), target.max(1)], 1)
    limbs = ((0, 1), (1, 2), (3, 4))
    assert keypoint_errors.pck(target, target, keypoint_errors.box_size(boxes)) == 1
    assert keypoint_errors.pckh(target, target, boxes) == 1
    assert keypoint_errors.pdj(target, target, (5, 12)) == 1
    assert keypoint_errors.pcp(target, target, limbs) == 1
    assert keypoint_errors.pcp(target, target, limbs, strict=False) == 1
    assert (keypoint_errors.oks(target, target, 5000.0) == 1).all()


def test_pck_is_measured_by_the_longer_side_of_the_box():
    target = np.zeros((1, 3, 2))
    prediction = np.array([[[0.0, 20.0], [0, 20.1], [12.0, 16.0]]])
    size = keypoint_errors.box_size(np.array([[10.0, 0, 50, 100]]))
    assert size == 100
    assert keypoint_errors.pck(prediction, target, size, alpha=0.2) == pytest.approx(2 / 3)
    assert keypoint_errors.pck(prediction, target, size, alpha=0.2, inclusive=False) == 0
    visible = np.array([[1, 0, 2]])
    assert keypoint_errors.pck(prediction, target, size, visible) == 1
    assert np.isnan(keypoint_errors.pck(prediction, target, 0.0))


def test_pckh_is_measured_by_the_head():
    target = np.zeros((2, 2, 2))
    prediction = np.array([[[9.0, 0], [9.1, 0]], [[30, 0], [0, 0]]])
    # Diagonals of 30 and 10: heads of 18 and 6, limits of 9 and 3.
    heads = np.array([[0.0, 0, 18, 24], [0, 0, 6, 8]])
    assert keypoint_errors.head_size(heads) == pytest.approx([18, 6])
    assert keypoint_errors.pckh(prediction, target, heads) == pytest.approx(2 / 4)
    assert keypoint_errors.pckh(prediction, target, heads, exclude=(0,)) == pytest.approx(1 / 2)
    assert keypoint_errors.pckh(prediction, target, heads, factor=1.0) == pytest.approx(3 / 4)


def test_averages_over_all_joints_or_joint_by_joint():
    target = np.zeros((4, 2, 2))
    prediction = np.zeros((4, 2, 2))
    prediction[1:, 0] = 100
    visible = np.array([[1, 1], [1, 0], [1, 0], [1, 0]])
    assert keypoint_errors.pck(prediction, target, 10.0, visible) == pytest.approx(2 / 5)
    assert keypoint_errors.pck(prediction, target, 10.0, visible, average="joint") == pytest.approx(
        (1 / 4 + 1) / 2
    )
    with pytest.raises(ValueError, match="average is 'frame'"):
        keypoint_errors.pck(prediction, target, 10.0, average="frame")


def test_pdj_is_measured_by_the_torso():
    target = np.array([[[0.0, 0], [30, 40], [5, 5]]])
    prediction = target + np.array([10.0, 0])
    # The torso has 50 pixels, the limit is 10.
    assert keypoint_errors.pdj(prediction, target, (0, 1)) == 0
    assert keypoint_errors.pdj(prediction, target, (0, 1), inclusive=True) == 1
    assert keypoint_errors.pdj(prediction, target, (0, 1), alpha=0.3) == 1
    hidden = np.array([[1, 0, 1]])
    assert np.isnan(keypoint_errors.pdj(prediction, target, (0, 1), hidden))


def test_pcp_wants_both_ends_or_their_mean():
    target = np.array([[[0.0, 0], [0, 100], [0, 200]]])
    prediction = target + np.array([[[40.0, 0], [55, 0], [0, 0]]])
    limbs = ((0, 1), (1, 2))
    assert keypoint_errors.pcp(prediction, target, limbs) == 0
    assert keypoint_errors.pcp(prediction, target, limbs, strict=False) == 1
    assert keypoint_errors.pcp(prediction, target, limbs, alpha=0.6) == 1
    edge = target + np.array([[[40.0, 0], [50, 0], [0, 0]]])
    assert keypoint_errors.pcp(edge, target, limbs) == 1
    assert keypoint_errors.pcp(edge, target, limbs, inclusive=False) == 0
    # A limb counts where both its ends are annotated.
    assert np.isnan(keypoint_errors.pcp(prediction, target, ((0, 1),), np.array([[1, 0, 1]])))


def test_a_joint_that_was_not_found_is_wrong_and_one_not_annotated_does_not_count(people):
    prediction, target = people
    lost = prediction.copy()
    lost[:, 3] = np.nan
    assert keypoint_errors.pck(lost, target, 1e9) == pytest.approx(16 / 17)
    assert keypoint_errors.pcp(lost, target, ((3, 4), (5, 6)), alpha=1e9) == 0.5
    unknown = target.copy()
    unknown[:, 3] = np.nan
    assert keypoint_errors.pck(lost, unknown, 1e9) == 1
    seen = np.ones(target.shape[:2], bool)
    seen[:, 3] = False
    np.testing.assert_array_equal(
        keypoint_errors.oks(prediction, unknown, 900.0),
        keypoint_errors.oks(prediction, target, 900.0, seen),
    )
    assert np.isnan(keypoint_errors.oks(prediction, target, 900.0, np.zeros_like(seen))).all()
    assert (keypoint_errors.oks(lost, target, 1e12) < 1).all()


def test_wrong_shapes_are_refused(people):
    prediction, target = people
    with pytest.raises(ValueError, match="must have one shape"):
        keypoint_errors.pck(prediction[:2], target, 1.0)
    with pytest.raises(ValueError, match="does not fit the joints"):
        keypoint_errors.pck(prediction, target, 1.0, np.ones(17))
    with pytest.raises(ValueError, match="17 sigmas do not fit 16 joints"):
        keypoint_errors.oks(prediction[:, :16], target[:, :16], 1.0)
    with pytest.raises(ValueError, match="image 7: 3 numbers of keypoints"):
        keypoint_ap.keypoint_average_precision([], [{"image_id": 7, "keypoints": [1, 2, 3]}])


def _flat(points, flags):
    return np.column_stack([points, flags]).ravel().tolist()


def generated(seed, images=40, crowd=0.1, noise=1.0, categories=(1,)):
    """Annotations and detections of several people, sizes, crowds and people without keypoints."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image in range(1, images + 1):
        for _ in range(rng.integers(0, 5)):
            size = np.exp(rng.uniform(np.log(15), np.log(220)))
            corner = rng.uniform(0, 300, 2)
            points = corner + rng.uniform(0, size, (17, 2))
            flags = rng.choice([0, 1, 2], 17, p=[0.3, 0.2, 0.5]) * (rng.random() > 0.15)
            iscrowd = int(rng.random() < crowd)
            category = int(rng.choice(categories))
            annotations.append({
                "id": len(annotations) + 1, "image_id": image, "category_id": category,
                "keypoints": _flat(points * (flags > 0)[:, None], flags),
                "num_keypoints": int((flags > 0).sum()), "iscrowd": iscrowd,
                "bbox": [*corner, size, size], "area": size**2 * rng.uniform(0.3, 0.9),
            })
            for _ in range(rng.integers(0, 4) + 3 * iscrowd):
                spread = noise * size * rng.choice([0.01, 0.05, 0.3])
                results.append((image, category, points + rng.normal(0, spread, (17, 2))))
        for _ in range(rng.integers(0, 3)):
            results.append((image, int(rng.choice(categories)), rng.uniform(0, 300, (17, 2))))
    return annotations, [
        {"image_id": image, "category_id": category,
         "keypoints": _flat(points, np.ones(17)),
         "score": float(np.round(rng.random(), 1))}  # many ties
        for image, category, points in results
    ]


def pycocotools_stats(annotations, results, images):
    coco = pytest.importorskip("pycocotools.coco", reason="needs pycocotools, in the extra [test]")
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = {
            "images": [{"id": i} for i in range(1, images + 1)], "annotations": annotations,
            "categories": [{"id": c} for c in sorted({a["category_id"] for a in annotations})],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("options", [
    {"seed": 0}, {"seed": 1, "noise": 4.0}, {"seed": 2, "crowd": 0.6}, {"seed": 3, "noise": 0.1},
    {"seed": 4, "categories": (1, 2)}, {"seed": 5, "images": 3},
])
def test_average_precision_is_cocos(options):
    annotations, results = generated(**options)
    ours = keypoint_ap.keypoint_average_precision(annotations, results)
    assert list(ours) == ["AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"]
    theirs = pycocotools_stats(annotations, results, options.get("images", 40))
    found = np.nan_to_num(list(ours.values()), nan=-1.0)
    np.testing.assert_allclose(found, theirs, rtol=0, atol=1e-9)
    assert 0 < ours["AP"] < 1


def test_average_precision_of_more_than_twenty_detections_and_one_size_alone():
    annotations, _ = generated(6, images=2)
    annotations = [{**a, "area": 5000.0} for a in annotations]
    rng = np.random.default_rng(0)
    results = [
        {"image_id": a["image_id"], "category_id": 1, "score": float(rng.random()),
         "keypoints": (np.array(a["keypoints"]) + rng.normal(0, 3, 51)).tolist()}
        for a in annotations for _ in range(15)
    ]
    ours = keypoint_ap.keypoint_average_precision(annotations, results)
    theirs = pycocotools_stats(annotations, results, 2)
    found = np.nan_to_num(list(ours.values()), nan=-1.0)
    np.testing.assert_allclose(found, theirs, rtol=0, atol=1e-9)
    assert np.isnan(ours["APl"])


def test_average_precision_of_the_truth_of_nothing_and_without_detections():
    annotations, _ = generated(7, crowd=0.0)
    perfect = [
        {"image_id": a["image_id"], "score": 1.0, "keypoints": a["keypoints"]}
        for a in annotations if a["num_keypoints"]
    ]
    stats = keypoint_ap.keypoint_average_precision(annotations, perfect)
    assert stats == pytest.approx(dict.fromkeys(stats, 1.0))
    none = keypoint_ap.keypoint_average_precision(annotations, [])
    assert none == dict.fromkeys(none, 0.0)
    assert np.isnan(list(keypoint_ap.keypoint_average_precision([], perfect).values())).all()
