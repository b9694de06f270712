"""Scores of explanations on a model whose reasons are known."""


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
    assert (gradients.pointing == 1).all()
    assert (gradients.iou == 1).all()
    np.testing.assert_allclose(gradients.energy, 1, rtol=1e-6)
    area = 16 / SIDE**2
    np.testing.assert_allclose(gradients.random_pointing, area)  # its map is 0 everywhere
    assert np.isnan(gradients.correlation).all()
    for name in (faithfulness.CENTER, faithfulness.NOISE):
        assert found[name].pointing.mean() < 0.5
        assert np.isnan(found[name].random_pointing).all()


def test_what_a_faithful_map_marks_takes_and_gives_the_probability(scored):
    explainer, images, cases, found, maps = scored
    classes = np.array([case.finding for case in cases])
    gradients, noise = found["integrated_gradients"], found[faithfulness.NOISE]
    assert (gradients.deletion < noise.deletion).all()
    assert (gradients.insertion > noise.insertion).all()
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
    same = faithfulness.Scores(**{**vars(found["occlusion"]),
                             "random_pointing": found["occlusion"].pointing})
    verdict = faithfulness.summary({"same": same}, np.arange(10))["same"]["verdict"]
    assert verdict == "points no better than with random weights"
