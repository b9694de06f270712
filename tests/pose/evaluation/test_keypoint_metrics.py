"""Outcomes of 2D keypoints against the metrics themselves, and resamples of whole images."""

import numpy as np
import pytest
from sklearn import metrics as sk

from jaxcxr.pose.evaluation import keypoint_ap, keypoint_errors, keypoint_metrics
from jaxcxr.pose.geometry import joint_sets
from tests.pose.evaluation.test_pose_keypoints import generated

JOINTS = joint_sets.JOINT_SETS["coco"].joints


def outcomes(prediction, target, visible, **options):
    """Outcomes of people with COCO's joints, by the names of their metrics."""
    people = keypoint_metrics.People(
        "coco", JOINTS, np.arange(len(target)), prediction, target, visible, **options
    )
    assert people.torso == (5, 12)
    found = keypoint_metrics.outcomes(people)
    return {metric.name: of for metric, of in found.items()}


@pytest.fixture
def people():
    rng = np.random.default_rng(0)
    target = rng.uniform(0, 200, (40, 17, 2))
    prediction = target + rng.normal(0, 12, target.shape)
    prediction[rng.random((40, 17)) < 0.05] = np.nan
    visible = rng.random((40, 17)) < 0.8
    return prediction, target, visible, rng.uniform(20, 60, 40)


def test_shares_are_those_of_the_metrics(people):
    prediction, target, visible, size = people
    head = np.where(np.arange(40) < 3, np.nan, size)
    found = outcomes(
        prediction, target, visible, boxes=2 * size, heads=head, areas=size**2,
        sigmas=keypoint_errors.COCO_SIGMAS,
    )
    limbs = ((11, 13), (13, 15), (5, 7), (7, 9), (12, 14), (14, 16), (6, 8), (8, 10))
    expected = {
        "pckh": keypoint_errors.pck(prediction, target, np.nan_to_num(head), visible, alpha=0.5),
        "pck": keypoint_errors.pck(prediction, target, 2 * size, visible),
        "pdj": keypoint_errors.pdj(prediction, target, (5, 12), visible),
        "pcp": keypoint_errors.pcp(prediction, target, limbs, visible),
        "pcp_loose": keypoint_errors.pcp(prediction, target, limbs, visible, strict=False),
        "oks": np.nanmean(keypoint_errors.oks(prediction, target, size**2, visible)),
    }
    shares = {name: keypoint_metrics.share(of) for name, of in found.items()}
    assert {name: shares[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    part = keypoint_errors.pck(
        prediction, target, np.nan_to_num(head), visible, alpha=0.5, exclude=(6, 7)
    )
    kept = [j for j in range(17) if j not in (6, 7)]
    assert keypoint_metrics.share(found["pckh"], kept) == pytest.approx(part)
    curve = [keypoint_errors.pck(prediction, target, np.nan_to_num(head), visible, alpha=a)
             for a in np.arange(51) / 100]
    assert shares["pckh_auc"] == pytest.approx(sk.auc(np.arange(51) / 50, curve), abs=1e-9)


def test_a_perfect_prediction_has_the_area_1_and_one_half_a_head_off_none(people):
    _, target, visible, size = people
    for offset, area in ((0.0, 1.0), (0.6, 0.0), (0.25, 0.5)):
        moved = target + np.array([offset, 0.0]) * size[:, None, None]
        found = outcomes(moved, target, visible, heads=size)
        # Half the thresholds of a step of 0.01 stand on either side of its rise.
        assert keypoint_metrics.share(found["pckh_auc"]) == pytest.approx(area, abs=0.011)


def test_resamples_draw_whole_images():
    sums, counts = np.array([1.0, 1, 0, 0, 0]), np.array([1.0, 1, 1, 1, 0])
    images = np.array(["a", "a", "b", "b", "c"])
    drawn = keypoint_metrics.bootstrap([(sums, counts)], images, 4000, seed=1)[0]
    # Of a and b, drawn k and l times, the share is k / (k + l); c adds nothing.
    assert set(np.round(drawn[~np.isnan(drawn)], 6)) == {0, round(1 / 3, 6), 0.5,
                                                         round(2 / 3, 6), 1}
    assert np.isnan(drawn).mean() == pytest.approx(1 / 27, abs=0.01)
    alone = keypoint_metrics.bootstrap([(sums[:2], counts[:2])], images[:2], 10)
    assert np.isnan(alone).all()


def test_resampled_average_precision_is_that_of_copied_images():
    annotations, results = generated(8, images=12)
    matched = keypoint_ap.match(annotations, results)
    counts = np.random.default_rng(0).integers(0, 3, len(matched.images)).astype(float)
    copies = [(image, copy) for image, n in zip(matched.images, counts, strict=True)
              for copy in range(int(n))]

    def copied(items):
        # Of equal scores those of the smaller image stand first, as they do with counts.
        return [{**item, "image_id": image * 10 + copy} for image, copy in copies
                for item in items if item["image_id"] == image]

    rng = np.random.default_rng(1)
    for result in results:
        result["score"] = float(rng.random())
    matched = keypoint_ap.match(annotations, results)
    expected = keypoint_ap.keypoint_average_precision(copied(annotations), copied(results))
    # 1 / (1 + spacing) of several copies differs from that of one in the last bits.
    assert keypoint_ap.summary(matched, counts) == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_the_interval_of_average_precision_holds_the_value():
    annotations, results = generated(9, images=30)
    matched = keypoint_ap.match(annotations, results)
    drawn = keypoint_ap.bootstrap(matched, 60)
    stats = keypoint_ap.summary(matched)
    assert list(drawn) == list(stats)
    low, high = np.quantile(drawn["AP"], [0.01, 0.99])
    assert low < stats["AP"] < high
    one = keypoint_ap.match([a for a in annotations if a["image_id"] == 2], [])
    assert np.isnan(keypoint_ap.bootstrap(one, 3)["AP"]).all()
