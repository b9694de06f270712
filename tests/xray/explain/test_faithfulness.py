"""Scores of explanations on a model whose reasons are known, and of maps by hand."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcxr.xray.explain import faithfulness, saliency

SIDE = 16


class Spot(nn.Module):
    """The logit of class c is the brightness of a spot of 4 x 4 pixels of its own."""

    def __call__(self, images):
        """Logits `[n, 2]`."""
        gain = self.variables["params"]["gain"]
        spots = images[:, 2:6, 2:6], images[:, 10:14, 8:12]
        return gain * jnp.stack([spot.mean((1, 2, 3)) for spot in spots], 1)


BOXES = np.array([[2, 2, 4, 4], [8, 10, 4, 4]], np.float32)


@pytest.fixture(scope="module")
def scored():
    random = np.random.default_rng(0)
    images = random.uniform(0.2, 0.4, (10, SIDE, SIDE, 1)).astype(np.float32)
    cases = [faithfulness.ImageFinding(i, i % 2, BOXES[i % 2][None]) for i in range(10)]
    for case in cases:
        x, y, width, height = BOXES[case.finding].astype(int)
        images[case.index, y : y + height, x : x + width] = 1
    explainer = saliency.Explainer(Spot(), {"params": {"gain": 8.0}}, 0.0)
    silent = explainer.with_variables({"params": {"gain": 0.0}})
    found, maps = faithfulness.score(
        explainer, silent, images, cases, ("integrated_gradients", "occlusion")
    )
    return explainer, images, cases, found, maps


def test_a_faithful_map_points_and_knowing_nothing_does_not(scored):
    *_, found, _ = scored
    gradients = found["integrated_gradients"]
    assert (gradients["pointing"] == 1).all()
    assert (gradients["iou"] == 1).all()
    np.testing.assert_allclose(gradients["energy"], 1, rtol=1e-6)
    area = 16 / SIDE**2
    np.testing.assert_allclose(gradients["random_pointing"], area)  # its map is 0 everywhere
    assert np.isnan(gradients["correlation"]).all()
    for name in (faithfulness.CENTER, faithfulness.NOISE):
        assert found[name]["pointing"].mean() < 0.5
        assert np.isnan(found[name]["random_pointing"]).all()


def test_what_a_faithful_map_marks_takes_and_gives_the_probability(scored):
    explainer, images, cases, found, maps = scored
    classes = np.array([case.finding for case in cases])
    gradients, noise = found["integrated_gradients"], found[faithfulness.NOISE]
    assert (gradients["deletion"] < noise["deletion"]).all()
    assert (gradients["insertion"] > noise["insertion"]).all()
    # By hand: where all that is shown is the same as the rest, the curve is flat.
    flat = faithfulness.area(explainer, images, images, maps["occlusion"], classes)
    logits = explainer.logits(images)[np.arange(10), classes]
    np.testing.assert_allclose(flat, 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_the_summary_has_intervals_over_patients_and_a_verdict(scored):
    *_, found, _ = scored
    entry = faithfulness.summary(found, np.arange(10) // 2)["integrated_gradients"]
    assert entry["pointing"] == 1
    assert entry["pointing_interval"] == (1, 1)
    assert entry["correlation"] is None
    assert entry["verdict"] == "points better than with random weights"
    assert faithfulness.summary(found, np.arange(10))[faithfulness.NOISE]["verdict"] == ""


def test_the_interval_is_that_of_whole_patients():
    values = np.array([0.0, 0.0, 1.0, np.nan])
    mean, low, high = faithfulness.mean_interval(values, np.array(["a", "a", "b", "c"]))
    assert mean == pytest.approx(1 / 3)
    assert (low, high) == (0, 1)
    alone = faithfulness.mean_interval(values[:2], np.array(["a", "a"]))
    assert alone[0] == 0
    assert np.isnan(alone[1:]).all()
    assert np.isnan(faithfulness.mean_interval(np.array([np.nan]), np.array(["a"]))).all()


def test_a_method_that_ignores_the_weights_is_told_so(scored):
    *_, found, _ = scored
    same = {**found["occlusion"], "random_pointing": found["occlusion"]["pointing"]}
    verdict = faithfulness.summary({"same": same}, np.arange(10))["same"]["verdict"]
    assert verdict == "points no better than with random weights"


def test_a_box_holds_the_pixels_whose_centres_it_holds():
    mask = faithfulness.box_mask([[1, 2, 3, 1]], 5, 6)
    assert np.argwhere(mask).tolist() == [[2, 1], [2, 2], [2, 3]]
    assert faithfulness.box_mask([[0.6, 0, 1, 1]], 1, 3).tolist() == [[False, True, False]]
    both = faithfulness.box_mask([[0, 0, 2, 2], [1, 1, 2, 2]], 4, 4)
    assert both.sum() == 7
    assert not faithfulness.box_mask(np.zeros((0, 4)), 4, 4).any()
    assert faithfulness.box_mask([[-5, -5, 50, 50]], 4, 4).all()


def test_a_map_that_is_the_box_scores_perfectly_and_its_negative_nothing():
    mask = faithfulness.box_mask([[2, 3, 4, 2]], 8, 8)
    perfect = mask.astype(np.float32)
    for score in (faithfulness.pointing_game, faithfulness.box_iou, faithfulness.energy_in_boxes):
        assert score(perfect, mask) == 1
        assert score(1 - perfect, mask) == 0


def test_constant_maps_score_as_chance_does():
    mask = faithfulness.box_mask([[0, 0, 4, 2]], 8, 8)
    area = mask.mean()
    flat = np.full((8, 8), 0.3)
    assert faithfulness.pointing_game(flat, mask) == pytest.approx(area)
    assert faithfulness.energy_in_boxes(flat, mask) == pytest.approx(area)
    # Of `size` pixels chosen blindly the share `area` is in the box.
    assert faithfulness.box_iou(flat, mask) == pytest.approx(area / (2 - area))
    assert math.isnan(faithfulness.energy_in_boxes(np.zeros((8, 8)), mask))
    assert math.isnan(faithfulness.rank_correlation(flat, np.random.default_rng(0).random((8, 8))))


def test_overlap_by_count():
    mask = faithfulness.box_mask([[0, 0, 2, 2]], 4, 4)
    shifted = faithfulness.box_mask([[1, 0, 2, 2]], 4, 4).astype(float)
    assert faithfulness.box_iou(shifted, mask) == pytest.approx(2 / 6)


def test_order_alone_decides_the_rank_correlation():
    values = np.random.default_rng(1).normal(size=(5, 5))
    assert faithfulness.rank_correlation(values, np.exp(values)) == pytest.approx(1)
    assert faithfulness.rank_correlation(values, -(values**3)) == pytest.approx(-1)
